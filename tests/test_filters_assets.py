"""Pairs → scores → corpus, for real: a lake with SONAR's kind of vectors, tiny random BLASER and MuTox, Dagster."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.corpora.manifest import CORPUS, read_corpus, read_manifest
from speech_mining.errors import EmbeddingError, LakeError, SettingsError
from speech_mining.filters import BlaserQe, Mutox
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from speech_mining.quality.summary import Mined, summarise
from speech_mining.records import PAIRS, RECORDINGS, SEGMENTS, segment_id
from tests.test_filters import DIMENSION, build_mutox, unit, vectors

ROWS = 60
BOOKS = ("1", "2")
LENGTH = 0.2
MINED = {"s2s": "deu-eng", "s2t": "deu-eng", "t2s": "eng-deu", "t2t": "eng-fra"}
"""The pair that is mined of each kind."""


def settings_of(home: Path, models: Path, **filters: Any) -> Settings:
    return load_settings(
        home=home,
        languages="deu,eng",
        encoder="sonar",
        model_dir=models,
        device="cpu",
        mining={"k": 4},
        filters=filters,
    )


def meanings(book: str) -> npt.NDArray[np.float32]:
    """What the sentences of a book mean: the same in both languages, from 0.1 to 0.3 long."""
    seed = int(book)
    lengths = np.random.default_rng(seed).uniform(0.1, 0.3, (ROWS, 1)).astype(np.float32)
    return unit(vectors(ROWS, seed)) * lengths


def put_book(
    lake: Lake, language: str, book: str, *, encoder: str = "sonar-speech", raw: npt.NDArray[np.float32] | None = None
) -> None:
    """A book as its layers leave it: recordings, and embeddings of consecutive segments of 4 s."""
    noise = vectors(ROWS, seed=len(language + book) + ord(language[0]))
    raw = meanings(book) + 0.3 * noise if raw is None else raw
    spans = [(book, 1, 64_000 * n, 64_000 * (n + 1)) for n in range(ROWS)]
    rows = [(segment_id(*s), *s, s[2] // 16, s[3] // 16, n, n, -20.0, 1.0) for n, s in enumerate(spans)]
    with lake.replace("speech_embeddings", language, book) as new:
        new.write_table("segments.parquet", pl.DataFrame(rows, schema=dict(SEGMENTS), orient="row"), SEGMENTS)
        new.write_array("vectors.npy", unit(raw).astype(np.float16))
        new.write_array("lengths.npy", np.linalg.norm(raw, axis=1))
        new.write_json("encoder.json", {"name": encoder, "version": "1", "dimension": DIMENSION})
    told = (book, 1, language, "1.mp3", 1, "0" * 64, 60, "https://x/1.mp3", "T", "S", "Ada", "Public Domain")
    with lake.replace("raw_audio", language, book) as new:
        new.write_table("recordings.parquet", pl.DataFrame([told], schema=dict(RECORDINGS), orient="row"), RECORDINGS)


def materialize(
    settings: Settings, *names: str, pair: str = "", config: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Run layers of a pair (or `<language>/<index>`), and return the metadata of the last; `config` is the corpus'."""
    definitions = build(settings)
    assets, resources = list(definitions.assets or []), dict(definitions.resources or {})
    for name in names:
        key = dg.AssetKey.from_user_string(name)
        configured = config is not None and name.endswith("_corpus")
        done = dg.materialize(
            assets,  # type: ignore[arg-type]
            selection=[key],
            partition_key=key.path[0] if len(key.path) > 1 else pair or MINED[name[:3]],
            resources=resources,
            run_config={"ops": {name: {"config": dict(config or {})}}} if configured else None,
        )
        (event,) = done.asset_materializations_for_node(done.get_asset_materialization_events()[0].node_name)
    return {name: value.value for name, value in event.metadata.items()}


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """A home whose pairs are mined."""
    home = tmp_path_factory.mktemp("mined")
    settings = settings_of(home, models)
    for language in settings.languages:
        for book in BOOKS:
            put_book(Lake(settings.lake_url), language, book)
    materialize(settings, "deu/speech_index", "eng/speech_index", "s2s_neighbours", "s2s_pairs")
    return home


@pytest.fixture
def home(mined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mined, tmp_path / "home"))


def scores_of(home: Path) -> pl.DataFrame:
    return Lake(home / "lake").partition("s2s_pair_quality", "deu-eng").read_frame("scores.parquet")


def corpus_of(home: Path) -> pl.DataFrame:
    return read_corpus(Lake(home / "lake").partition("s2s_corpus", "deu-eng"))


def version_of(home: Path, layer: str) -> str:
    return Lake(home / "lake").partition(layer, "deu-eng").data_version


def raw_of(home: Path, language: str) -> dict[int, npt.NDArray[np.float32]]:
    """Segment → vector as the encoder made it, but for fp16."""
    found = {}
    for book in BOOKS:
        kept = Lake(home / "lake").partition("speech_embeddings", language, book)
        rows = kept.read_array("vectors.npy").astype(np.float32) * kept.read_array("lengths.npy")[:, None]
        found.update(zip(kept.read_frame("segments.parquet")["segment_id"], rows, strict=True))
    return found


BOTH = {"blaser": "tiny_blaser", "mutox": "tiny_mutox"}
COLUMNS = ["blaser_qe", "source_toxicity", "target_toxicity"]


def test_every_mined_pair_is_scored_from_its_own_vectors(home: Path, models: Path) -> None:
    told = materialize(settings_of(home, models, **BOTH), "s2s_pair_quality")
    scores, pairs = scores_of(home), Lake(home / "lake").partition("s2s_pairs", "deu-eng").read_frame("pairs.parquet")
    assert scores.height == pairs.height > ROWS and told["dagster/row_count"] == pairs.height
    assert scores.select("source_segment", "target_segment").equals(pairs.select("source_segment", "target_segment"))
    german, english = raw_of(home, "deu"), raw_of(home, "eng")
    source = np.array([german[segment] for segment in pairs["source_segment"]])
    target = np.array([english[segment] for segment in pairs["target_segment"]])
    blaser = BlaserQe("tiny_blaser", device="cpu", model_dir=models)
    mutox = Mutox("tiny_mutox", device="cpu", model_dir=models)
    np.testing.assert_allclose(scores["blaser_qe"], blaser.score(source, target), atol=2e-5)
    np.testing.assert_allclose(scores["source_toxicity"], mutox.score(source), atol=1e-6)
    np.testing.assert_allclose(scores["target_toxicity"], mutox.score(target), atol=1e-6)
    assert told["blaser_qe_version"].startswith("blaser-qe-1+tiny_blaser:sha256-")
    assert told["scored"] == dict.fromkeys(COLUMNS, pairs.height)


def test_limits_drop_pairs_before_overlaps_are_resolved_and_what_they_drop_is_counted(home: Path, models: Path) -> None:
    settings = settings_of(home, models, **BOTH)
    before = materialize(settings, "s2s_pair_quality", "s2s_corpus")
    everything, scored = corpus_of(home), version_of(home, "s2s_pair_quality")
    assert list(everything.columns) == [*CORPUS, *COLUMNS]
    assert everything.drop(COLUMNS).height == before["dagster/row_count"] and before["filtered"].records == []
    least, most = everything["blaser_qe"].quantile(0.4), everything["target_toxicity"].quantile(0.7)
    limited = settings_of(home, models, **BOTH, least_blaser_qe=least, most_toxicity=most)
    told = materialize(limited, "s2s_corpus")
    assert version_of(home, "s2s_pair_quality") == scored  # limits score nothing again
    kept, pairs = corpus_of(home), Lake(home / "lake").partition("s2s_pairs", "deu-eng").read_frame("pairs.parquet")
    assert 0 < kept.height < everything.height
    assert kept["blaser_qe"].min() >= np.float32(least)  # type: ignore[operator]
    assert kept.select(pl.max_horizontal(COLUMNS[1:]).max()).item() <= np.float32(most)
    candidates = pairs.filter(pl.col("score") >= 1.06).join(scores_of(home), on=["source_segment", "target_segment"])
    low = candidates.filter(pl.col("blaser_qe") < pl.lit(least, pl.Float32))
    assert next((row.data["reason"], row.data["pairs"]) for row in told["filtered"].records) == (
        "below_least_blaser_qe",
        low.height,
    )
    dropped = sum(row.data["pairs"] for row in told["filtered"].records)
    assert told["counts"]["candidates"] == candidates.height - dropped
    assert told["least_blaser_qe"] == least
    record = Lake(home / "lake").partition("s2s_corpus", "deu-eng").read_json("selection.json")
    assert record["limits"]["most_toxicity"] == most and record["filtered"][0]["pairs"] == low.height
    hours = Lake(home / "lake").partition("s2s_corpus", "deu-eng").read_frame("hours.parquet")
    assert hours.filter(pl.col("threshold") == 1.06)["postprocessed_pairs"].item() == kept.height


def test_a_run_may_ask_for_other_limits_and_not_for_one_without_its_card(home: Path, models: Path) -> None:
    settings = settings_of(home, models, mutox="tiny_mutox", most_added_toxicity=1.0)
    materialize(settings, "s2s_pair_quality", "s2s_corpus")
    loose = corpus_of(home)
    told = materialize(settings, "s2s_corpus", config={"most_added_toxicity": 0.0, "most_lost_toxicity": 0.1})
    assert [row.data["reason"] for row in told["filtered"].records] == [
        "above_most_added_toxicity",
        "above_most_lost_toxicity",
    ]
    added = corpus_of(home).select(pl.col("target_toxicity") - pl.col("source_toxicity")).to_series()
    assert 0 < len(added) < loose.height and added.max() <= 0 and added.min() >= np.float32(-0.1)  # type: ignore[operator]
    assert corpus_of(home).columns == [*CORPUS, *COLUMNS[1:]]
    for wrong in ({"least_blaser_qe": 3.0}, {"most_toxicity": 1.5}):
        with pytest.raises(SettingsError, match=r"cannot be.*filters\.blaser or filters\.mutox"):
            materialize(settings, "s2s_corpus", config=wrong)


def test_the_manifest_names_the_scores_in_its_header_and_gives_them_back(home: Path, models: Path) -> None:
    settings = settings_of(home, models, blaser="tiny_blaser")
    materialize(settings, "s2s_pair_quality", "s2s_corpus")
    path = Lake(home / "lake").partition("s2s_corpus", "deu-eng").local_path("manifest.tsv.gz")
    header = gzip.decompress(path.read_bytes()).split(b"\n")[0].decode().split("\t")
    assert header == [*CORPUS, "blaser_qe"]
    assert read_manifest(path).equals(corpus_of(home))
    assert (
        summarise(Lake(home / "lake"), ("deu", "eng"), [Mined(SPEECH_TO_SPEECH, ("deu-eng",))]).pairs
        == corpus_of(home).height
    )


def test_with_no_filter_the_corpus_has_no_score_and_no_layer_is_defined(home: Path, models: Path) -> None:
    off = settings_of(home, models)
    told = materialize(off, "s2s_corpus")
    assert list(corpus_of(home).columns) == list(CORPUS) and "filtered" not in told
    record = Lake(home / "lake").partition("s2s_corpus", "deu-eng").read_json("selection.json")
    assert set(record) == {"threshold", "selection", "counts"}
    keys = {key.to_user_string() for key in build(off).resolve_asset_graph().materializable_asset_keys}
    assert "s2s_pair_quality" not in keys
    graph = build(settings_of(home, models, blaser="tiny_blaser")).resolve_asset_graph()
    assert graph.get(dg.AssetKey("s2s_corpus")).parent_keys == {
        dg.AssetKey("s2s_pairs"),
        dg.AssetKey("s2s_pair_quality"),
    }
    assert graph.get(dg.AssetKey("s2s_pair_quality")).pools == {"gpu"}


def test_scores_are_taken_over_and_a_new_book_scores_its_own_pairs_only(home: Path, models: Path) -> None:
    settings = settings_of(home, models, **BOTH)
    first = materialize(settings, "s2s_pair_quality")
    again = materialize(settings, "s2s_pair_quality")
    assert again["scored"] == dict.fromkeys(COLUMNS, 0) and again["taken_over"] == first["scored"]
    noisy = meanings("2") + 0.4 * vectors(ROWS, seed=99)
    put_book(Lake(settings.lake_url), "eng", "2", raw=noisy)
    with pytest.raises(LakeError, match=r"index of eng and its embeddings differ.*materialize eng/speech_index"):
        materialize(settings, "s2s_pair_quality")
    changed = materialize(settings, "eng/speech_index", "s2s_neighbours", "s2s_pairs", "s2s_pair_quality")
    touched = Lake(home / "lake").partition("s2s_pairs", "deu-eng").read_frame("pairs.parquet")
    of_the_book = touched.filter(pl.col("target_audiobook") == "2").height
    assert of_the_book <= changed["scored"]["blaser_qe"] < touched.height
    assert changed["scored"]["target_toxicity"] == of_the_book
    assert changed["scored"]["source_toxicity"] < of_the_book
    version = version_of(home, "s2s_pair_quality")
    Lake(settings.lake_url).remove("s2s_pair_quality", "deu-eng")
    materialize(settings, "s2s_pair_quality")
    assert version_of(home, "s2s_pair_quality") == version  # what was taken over is what is computed, to the last bit


def test_another_checkpoint_scores_its_own_column_again(home: Path, models: Path, tmp_path: Path) -> None:
    materialize(settings_of(home, models, **BOTH), "s2s_pair_quality")
    other = Path(shutil.copytree(models, tmp_path / "models"))
    build_mutox(other, seed=7)
    before = scores_of(home)
    told = materialize(settings_of(home, other, **BOTH), "s2s_pair_quality")
    assert told["scored"] == {"blaser_qe": 0, "source_toxicity": before.height, "target_toxicity": before.height}
    assert not scores_of(home)["source_toxicity"].equals(before["source_toxicity"])


def test_scores_of_other_pairs_are_refused(home: Path, models: Path) -> None:
    on = settings_of(home, models, blaser="tiny_blaser")
    with pytest.raises(LakeError, match="s2s_pair_quality of deu-eng is not there"):
        materialize(on, "s2s_corpus")
    materialize(on, "s2s_pair_quality")
    with pytest.raises(LakeError, match=r"without source_toxicity, target_toxicity.*materialize s2s_pair_quality"):
        materialize(settings_of(home, models, **BOTH), "s2s_corpus")
    pairs = Lake(home / "lake").partition("s2s_pairs", "deu-eng")
    table, scoring = pairs.read_frame("pairs.parquet"), pairs.read_json("scoring.json")
    with Lake(home / "lake").replace("s2s_pairs", "deu-eng") as new:
        new.write_table("pairs.parquet", table[1:], PAIRS)
        new.write_json("scoring.json", scoring)
    with pytest.raises(LakeError, match=r"are of other pairs.*materialize s2s_pair_quality"):
        materialize(on, "s2s_corpus")


def test_lengths_that_the_lake_does_not_keep_are_stated_or_an_error(home: Path, models: Path) -> None:
    lake = Lake(home / "lake")
    kept = lake.partition("speech_embeddings", "eng", "2")
    files = {name: kept.local_path(name).read_bytes() for name in kept.files if name != "lengths.npy"}
    with lake.replace("speech_embeddings", "eng", "2") as new:
        for name, content in files.items():
            new.path(name).write_bytes(content)
    layers = ("eng/speech_index", "s2s_neighbours", "s2s_pairs", "s2s_pair_quality")
    with pytest.raises(EmbeddingError, match=r"audiobook 2 \(eng\) were is not known.*filters\.vector_length"):
        materialize(settings_of(home, models, mutox="tiny_mutox"), *layers)
    materialize(settings_of(home, models, mutox="tiny_mutox", vector_length=LENGTH), "s2s_pair_quality")
    stored = lake.partition("speech_embeddings", "eng", "2")
    mutox = Mutox("tiny_mutox", device="cpu", model_dir=models)
    expected = mutox.score(stored.read_array("vectors.npy"), LENGTH)
    by_segment = dict(zip(stored.read_frame("segments.parquet")["segment_id"], expected, strict=True))
    found = scores_of(home).filter(pl.col("target_segment").is_in(list(by_segment)))
    assert found.height > 10
    assert found["target_toxicity"].to_list() == [by_segment[segment] for segment in found["target_segment"]]
    german = dict(scores_of(home).select("source_segment", "source_toxicity").iter_rows())
    raw = raw_of_german(home, list(german))  # of which the lake keeps the lengths
    np.testing.assert_allclose(list(german.values()), mutox.score(raw), atol=1e-6)


def raw_of_german(home: Path, segments: list[int]) -> npt.NDArray[np.float32]:
    by_segment = raw_of(home, "deu")
    return np.array([by_segment[segment] for segment in segments])


def test_a_card_of_another_dimension_is_refused(home: Path, models: Path, tmp_path: Path) -> None:
    narrow = Path(shutil.copytree(models, tmp_path / "models"))
    card = narrow / "tiny_blaser.yaml"
    card.write_text(card.read_text().replace("embedding_dim: 32", "embedding_dim: 16"))
    told = r"tiny_blaser reads vectors of 16 dimensions; deu has 32, embedded by sonar-speech 1.*card of 32"
    with pytest.raises(EmbeddingError, match=told):
        materialize(settings_of(home, narrow, blaser="tiny_blaser"), "s2s_pair_quality")


def test_embeddings_that_are_not_sonars_are_refused(home: Path, models: Path) -> None:
    settings = settings_of(home, models, blaser="tiny_blaser")
    for book in BOOKS:
        put_book(Lake(settings.lake_url), "deu", book, encoder="miniature")
    told = r"blaser-qe was asked to score deu embedded by miniature 1.*encoder of deu to sonar"
    with pytest.raises(EmbeddingError, match=told):
        materialize(settings, "deu/speech_index", "s2s_pair_quality")


def test_a_limit_without_its_card_is_an_error_of_the_settings(tmp_path: Path) -> None:
    for wrong, told in (
        ({"least_blaser_qe": 3.0}, r"least_blaser_qe is set, and filters\.blaser names no card"),
        ({"blaser": "x", "most_toxicity": 0.5}, r"most_toxicity is set, and filters\.mutox names no card"),
        ({"blaser": "x", "vector_length": 0.2}, r"vector_length is set, and filters\.mutox names no card"),
        ({"mutox": "x", "most_added_toxicity": 2.0}, r"filters\.most_added_toxicity"),
    ):
        with pytest.raises(SettingsError, match=told):
            load_settings(home=tmp_path, filters=wrong)
