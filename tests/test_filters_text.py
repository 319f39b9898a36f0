"""BLASER 2.0-QE and MuTox on pairs with text: SONAR's speech and text share the space that both models read."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.corpora.manifest import corpus_of, read_corpus, read_manifest
from speech_mining.encoders.protocol import Embedded, Sentence
from speech_mining.errors import EmbeddingError, LakeError
from speech_mining.filters import BlaserQe, Mutox
from speech_mining.knn.roll import kept_file
from speech_mining.lake import Lake
from speech_mining.mining.kinds import KINDS, SPEECH_TO_TEXT, TEXT_TO_SPEECH, TEXT_TO_TEXT, Kind
from speech_mining.progress import Progress, silent
from speech_mining.records import EMBEDDED_SENTENCES
from speech_mining.text.embedding import Earlier, embed_shard
from speech_mining.text.sentences import SENTENCES, Wording, sentence_ids
from tests.test_filters import DIMENSION, unit, vectors
from tests.test_filters_assets import BOTH, COLUMNS, MINED, ROWS, materialize, meanings, put_book

SHARDS = {"a": "1", "b": "2"}
"""Shard → the book whose sentences it holds; `b` begins with three of `a`'s, which are repeats."""
REPEATS = 3
WITH_TEXT = ("s2t", "t2s", "t2t")


def settings_of(home: Path, models: Path, **filters: Any) -> Settings:
    return load_settings(
        home=home,
        languages="deu",
        speech_pairs="",
        speech_text_pairs=MINED["s2t"],
        text_speech_pairs=MINED["t2s"],
        text_pairs=MINED["t2t"],
        text={"shards": {"eng": ["x"], "fra": ["x"]}, "threshold": 1.06},
        encoder="sonar",
        text_encoder="sonar",
        catalogue_url="https://librivox.org",
        model_dir=models,
        device="cpu",
        mining={"k": 4},
        filters=filters,
    )


def texts_of(language: str, shard: str) -> list[str]:
    own = [f"Sentence {number} of {shard} in {language}." for number in range(ROWS)]
    return own if shard == "a" else [*texts_of(language, "a")[:REPEATS], *own]


def put_shard(lake: Lake, language: str, shard: str, *, encoder: str = "sonar-text", noise: float = 0.2) -> None:
    """A shard as its layers leave it, its vectors those of the speech of a book, nearly; 0.1 to 0.3 long."""
    texts = texts_of(language, shard)
    meant = meanings(SHARDS[shard]) if shard == "a" else np.vstack([meanings("1")[:REPEATS], meanings(SHARDS[shard])])
    raw = meant + noise * vectors(len(texts), seed=ord(language[0]) + ord(shard))
    ids = sentence_ids(texts, language)
    places = {"document": ["d"] * len(texts), "line": range(1, len(texts) + 1), "offset": [0] * len(texts)}
    told = {"sentence_id": ids, "text": texts, **places, "length": [len(text) for text in texts]}
    with lake.replace("text_sentences", language, shard) as new:
        new.write_table("sentences.parquet", pl.DataFrame(told, schema=dict(SENTENCES)), SENTENCES)
        new.write_json("shard.json", {"address": f"/texts/{shard}.txt"})
    embedded = {"sentence_id": ids, "shard": [shard] * len(texts), "shard_row": range(len(texts))}
    with lake.replace("text_embeddings", language, shard) as new:
        frame = pl.DataFrame(embedded, schema=dict(EMBEDDED_SENTENCES))
        new.write_table("sentences.parquet", frame, EMBEDDED_SENTENCES)
        new.write_array("vectors.npy", unit(raw).astype(np.float16))
        new.write_array("lengths.npy", np.linalg.norm(raw, axis=1))
        new.write_frame("rejections.parquet", pl.DataFrame(schema={"sentence_id": pl.Int64()}))
        new.write_json("encoder.json", {"name": encoder, "version": "1"})


def put_repeats(lake: Lake, language: str) -> None:
    with lake.replace("text_duplicates", language) as new:
        for shard in SHARDS:
            rows = len(texts_of(language, shard))
            new.write_array(kept_file(shard), np.arange(rows) >= (REPEATS if shard == "b" else 0))


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """A home whose pairs of the three kinds with text are mined."""
    home = tmp_path_factory.mktemp("mined")
    settings = settings_of(home, models)
    lake = Lake(settings.lake_url)
    for book in SHARDS.values():
        put_book(lake, "deu", book)
    for language in ("eng", "fra"):
        for shard in SHARDS:
            put_shard(lake, language, shard)
        put_repeats(lake, language)
    layers = [f"{kind}_{layer}" for kind in WITH_TEXT for layer in ("neighbours", "pairs")]
    materialize(settings, "deu/speech_index", "eng/text_index", "fra/text_index", *layers)
    return home


@pytest.fixture
def home(mined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mined, tmp_path / "home"))


def frame_of(home: Path, layer: str, file: str, pair: str) -> pl.DataFrame:
    return Lake(home / "lake").partition(layer, pair).read_frame(file)


def raw_of(home: Path, language: str, kind: str) -> dict[int, npt.NDArray[np.float32]]:
    """Segment or sentence → vector as the encoder made it, but for fp16; of a repeat that of the first shard."""
    speech = kind == "speech"
    found: dict[int, npt.NDArray[np.float32]] = {}
    for block in SHARDS.values() if speech else reversed(SHARDS):
        kept = Lake(home / "lake").partition(f"{kind}_embeddings", language, block)
        rows = kept.read_array("vectors.npy").astype(np.float32) * kept.read_array("lengths.npy")[:, None]
        items = kept.read_frame("segments.parquet" if speech else "sentences.parquet")
        found.update(zip(items["segment_id" if speech else "sentence_id"], rows, strict=True))
    return found


def ids_of(kind: Kind) -> tuple[str, str]:
    return f"source_{kind.source_item}", f"target_{kind.target_item}"


@pytest.mark.parametrize("kind", [SPEECH_TO_TEXT, TEXT_TO_SPEECH, TEXT_TO_TEXT], ids=lambda kind: kind.name)
def test_every_pair_with_text_is_scored_from_its_own_vectors(home: Path, models: Path, kind: Kind) -> None:
    pair, ids = MINED[kind.name], ids_of(kind)
    told = materialize(settings_of(home, models, **BOTH), f"{kind.name}_pair_quality")
    scores = frame_of(home, f"{kind.name}_pair_quality", "scores.parquet", pair)
    pairs = frame_of(home, f"{kind.name}_pairs", "pairs.parquet", pair)
    assert scores.columns == [*ids, *COLUMNS] and scores.height == pairs.height > ROWS
    assert scores.select(ids).equals(pairs.select(ids)) and told["scored"] == dict.fromkeys(COLUMNS, pairs.height)
    by_id = [
        raw_of(home, pair.split("-")[place], modality) for place, modality in enumerate((kind.source, kind.target))
    ]
    source, target = (np.array([known[item] for item in pairs[name]]) for known, name in zip(by_id, ids, strict=True))
    blaser = BlaserQe("tiny_blaser", device="cpu", model_dir=models)
    mutox = Mutox("tiny_mutox", device="cpu", model_dir=models)
    np.testing.assert_allclose(scores["blaser_qe"], blaser.score(source, target), atol=2e-5)
    np.testing.assert_allclose(scores["source_toxicity"], mutox.score(source), atol=1e-6)
    np.testing.assert_allclose(scores["target_toxicity"], mutox.score(target), atol=1e-6)


def test_limits_cost_pairs_with_text_their_place_and_hours_are_told_of_the_spoken_side(
    home: Path, models: Path
) -> None:
    settings = settings_of(home, models, **BOTH)
    materialize(settings, "s2t_pair_quality", "s2t_corpus")
    lake = Lake(home / "lake")
    everything = read_corpus(lake.partition("s2t_corpus", "deu-eng"))
    assert list(everything.columns) == [*corpus_of(SPEECH_TO_TEXT), *COLUMNS]
    least = float(everything["blaser_qe"].quantile(0.4) or 0)
    most = float(everything["target_toxicity"].quantile(0.7) or 0)
    version = lake.partition("s2t_pair_quality", "deu-eng").data_version
    told = materialize(settings, "s2t_corpus", config={"least_blaser_qe": least, "most_toxicity": most})
    kept = read_corpus(lake.partition("s2t_corpus", "deu-eng"))
    assert 0 < kept.height < everything.height and lake.partition("s2t_pair_quality", "deu-eng").data_version == version
    assert (kept["blaser_qe"] >= np.float32(least)).all() and (kept["target_toxicity"] <= np.float32(most)).all()
    rows = {row.data["reason"]: row.data for row in told["filtered"].records}
    assert list(rows) == ["below_least_blaser_qe", "above_most_toxicity"]
    assert rows["below_least_blaser_qe"]["source_hours"] > 0 and rows["below_least_blaser_qe"]["target_hours"] is None
    manifest = lake.partition("s2t_corpus", "deu-eng").local_path("manifest.tsv.gz")
    header = gzip.decompress(manifest.read_bytes()).split(b"\n")[0].decode().split("\t")
    assert header == [*corpus_of(SPEECH_TO_TEXT), *COLUMNS] and read_manifest(manifest).equals(kept)


def test_a_shard_embedded_again_scores_its_own_pairs_again_and_gives_what_scoring_from_nothing_gives(
    home: Path, models: Path
) -> None:
    settings, lake = settings_of(home, models, **BOTH), Lake(home / "lake")
    first = materialize(settings, "s2t_pair_quality")
    again = materialize(settings, "s2t_pair_quality")
    assert again["scored"] == dict.fromkeys(COLUMNS, 0) and again["taken_over"] == first["scored"]
    put_shard(lake, "eng", "b", noise=0.25)
    with pytest.raises(LakeError, match=r"index of eng and its embeddings differ.*materialize eng/text_index"):
        materialize(settings, "s2t_pair_quality")
    told = materialize(settings, "eng/text_index", "s2t_neighbours", "s2t_pairs", "s2t_pair_quality")
    pairs = frame_of(home, "s2t_pairs", "pairs.parquet", "deu-eng")
    of_the_shard = pairs.filter(target_shard="b").height
    assert told["scored"]["target_toxicity"] == of_the_shard <= told["scored"]["blaser_qe"] < pairs.height
    version = lake.partition("s2t_pair_quality", "deu-eng").data_version
    lake.remove("s2t_pair_quality", "deu-eng")
    materialize(settings, "s2t_pair_quality")
    assert lake.partition("s2t_pair_quality", "deu-eng").data_version == version


def test_scores_of_other_pairs_with_text_are_refused_with_the_layer_to_make(home: Path, models: Path) -> None:
    on = settings_of(home, models, blaser="tiny_blaser")
    with pytest.raises(LakeError, match="t2t_pair_quality of eng-fra is not there"):
        materialize(on, "t2t_corpus")
    materialize(on, "t2t_pair_quality")
    with pytest.raises(LakeError, match=r"without source_toxicity.*materialize t2t_pair_quality"):
        materialize(settings_of(home, models, **BOTH), "t2t_corpus")


def test_text_that_is_not_sonars_or_whose_lengths_are_not_known_is_refused_with_what_to_set(
    home: Path, models: Path
) -> None:
    lake = Lake(home / "lake")
    kept = lake.partition("text_embeddings", "eng", "b")
    files = {name: kept.local_path(name).read_bytes() for name in kept.files if name != "lengths.npy"}
    with lake.replace("text_embeddings", "eng", "b") as new:
        for name, content in files.items():
            new.path(name).write_bytes(content)
    layers = ("eng/text_index", "s2t_neighbours", "s2t_pairs", "s2t_pair_quality")
    with pytest.raises(EmbeddingError, match=r"vectors of shard b \(eng\) were is not known.*filters\.vector_length"):
        materialize(settings_of(home, models, mutox="tiny_mutox"), *layers)
    materialize(settings_of(home, models, mutox="tiny_mutox", vector_length=0.2), "s2t_pair_quality")
    for shard in SHARDS:
        put_shard(lake, "eng", shard, encoder="LaBSE")
    told = r"blaser-qe was asked to score eng embedded by LaBSE 1.*language's text is.*text encoder of eng to sonar"
    with pytest.raises(EmbeddingError, match=told):
        materialize(settings_of(home, models, blaser="tiny_blaser"), "eng/text_index", "s2t_pair_quality")


def test_each_kind_that_is_mined_has_its_layer_of_scores_and_its_corpus_waits_for_it(
    tmp_path: Path, models: Path
) -> None:
    graph = build(settings_of(tmp_path, models, blaser="tiny_blaser")).resolve_asset_graph()
    names = {key.to_user_string() for key in graph.materializable_asset_keys}
    assert {name for name in names if name.endswith("pair_quality")} == {f"{kind}_pair_quality" for kind in WITH_TEXT}
    for kind in WITH_TEXT:
        parents = {dg.AssetKey(f"{kind}_pairs"), dg.AssetKey(f"{kind}_pair_quality")}
        assert graph.get(dg.AssetKey(f"{kind}_corpus")).parent_keys == parents
    off = build(settings_of(tmp_path, models)).resolve_asset_graph()
    assert not {f"{kind.name}_pair_quality" for kind in KINDS} & {
        key.to_user_string() for key in off.materializable_asset_keys
    }


# --- lengths of text --------------------------------------------------------------------------------------------------


class Lengthy:
    """An encoder of text whose vectors are as long as their text; told or kept to itself."""

    name, version, dimension, languages = "lengthy", "1", DIMENSION, frozenset({"eng"})

    def __init__(self, tells: bool = True) -> None:
        self.tells = tells
        self.asked: list[str] = []

    def embed(self, items: Sequence[Sentence], *, progress: Progress = silent) -> Embedded:
        self.asked += [item.text for item in items]
        rows = np.tile(unit(vectors(1)), (len(items), 1)).astype(np.float16)
        lengths = np.array([len(item.text) for item in items], np.float32)
        return Embedded(rows, np.arange(len(items)), (), lengths if self.tells else None)


def table(texts: Sequence[str]) -> pl.DataFrame:
    ids = sentence_ids(list(texts), "eng")
    return pl.DataFrame({"sentence_id": ids, "shard_row": range(len(texts)), "text": texts})


def test_lengths_of_text_are_kept_taken_over_and_told_of_all_rows_or_of_none() -> None:
    one, other = ["a", "bb", "ccc"], ["ccc", "dddd", "a"]
    first = embed_shard("s", table(one), "eng", Lengthy(), Wording())
    assert first.lengths is not None and first.lengths.tolist() == [1, 2, 3]
    encoder = Lengthy()
    earlier = Earlier(first.sentences, first.vectors, first.lengths)
    second = embed_shard("s", table(other), "eng", encoder, Wording(), earlier=earlier)
    assert encoder.asked == ["dddd"] and second.lengths is not None and second.lengths.tolist() == [3, 4, 1]
    unknown = Earlier(first.sentences, first.vectors)
    assert embed_shard("s", table(other), "eng", Lengthy(), Wording(), earlier=unknown).lengths is None
    assert embed_shard("s", table(one), "eng", Lengthy(tells=False), Wording()).lengths is None
    assert embed_shard("s", table([]), "eng", Lengthy(), Wording(), earlier=earlier).lengths is None
