"""Words of speech and of text as assets: materialized on a real instance over a language of chords."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from resources.encoders import Encoders
from resources.settings import Settings, load_settings
from resources.storage import Storage
from s2s_assets.alignment import alignment, alignment_checks
from s2s_assets.encoders import current_encoder
from speech_mining.align.evaluation import UNSEEN, UNSUPERVISED, recall
from speech_mining.align.spaces import SpaceMap
from speech_mining.errors import EmbeddingError
from speech_mining.lake import Lake
from tests.word_world import sentences, write_speech, write_text

LANGUAGE, OTHER = "deu", "eng"
PAIR = f"{LANGUAGE}-{LANGUAGE}"
WORDS = {"types": 45, "dimension": 10, "least": 3, "restarts": 1}


def _settings(home: Path, **words: Any) -> Settings:
    shards = {language: [str(home / language)] for language in (LANGUAGE, OTHER)}
    return load_settings(home=home, languages=[LANGUAGE], text={"shards": shards}, words={**WORDS, **words})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with speech and text of one language, and the known words beside it."""
    folder = tmp_path_factory.mktemp("words")
    lake = Lake(_settings(folder).lake_url)
    told = sentences(300, 1)
    write_speech(lake, LANGUAGE, told).write_parquet(folder / "timings.parquet")
    write_text(lake, LANGUAGE, told)
    return folder


def _materialize(settings: Settings, partition: str, *names: str) -> dg.ExecuteInProcessResult:
    assets, checks = alignment(settings), alignment_checks(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [*assets, *checks],
            selection=dg.AssetSelection.assets(*names),
            partition_key=partition,
            resources={"storage": Storage.of(settings), "encoders": Encoders.of(settings)},
            instance=instance,
        )


def _metadata(result: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(name)
    return {key: getattr(value, "value", value) for key, value in event.metadata.items()}


def _make_words(settings: Settings) -> None:
    for name in ("spoken_words", "written_words"):
        assert _materialize(settings, LANGUAGE, name).success


def test_spoken_and_written_words_are_aligned_and_judged_against_a_dictionary(home: Path) -> None:
    settings = _settings(home, timings={LANGUAGE: str(home / "timings.parquet")}, restarts=3)
    _make_words(settings)
    assert _materialize(settings, PAIR, "alignment").success
    result = _materialize(settings, PAIR, "alignment_evaluation")
    lake = Storage.of(settings).lake
    table = lake.partition("alignment_evaluation", PAIR).read_frame("evaluation.parquet")
    assert recall(table, UNSEEN) > 0.9
    assert recall(table, UNSUPERVISED) > 0.2  # by chance 0.023
    told = _metadata(result, "alignment_evaluation")
    assert told["collapsed"] is False
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    assert "| unsupervised | csls |" in lake.partition("alignment_evaluation", PAIR).path("evaluation.md").read_text()
    said = lake.partition("spoken_words", LANGUAGE).read_frame("words.parquet")
    assert said["said"].null_count() == 0
    assert said["share"].to_numpy().mean() > 0.95


def test_what_speech2vec_learned_of_the_audio_is_near_the_words_of_the_text(home: Path) -> None:
    settings = _settings(home, timings={LANGUAGE: str(home / "timings.parquet")}, vectors="speech2vec", epochs=20)
    result = _materialize(settings, LANGUAGE, "spoken_words")
    losses = _metadata(result, "spoken_words")["speech2vec_losses"]
    assert len(losses) == 20
    assert losses[-1] < 1 < losses[0]
    assert _materialize(settings, LANGUAGE, "written_words").success
    for name in ("alignment", "alignment_evaluation"):
        assert _materialize(settings, PAIR, name).success
    table = Storage.of(settings).lake.partition("alignment_evaluation", PAIR).read_frame("evaluation.parquet")
    assert recall(table, UNSEEN, depth=5) > 0.4  # by chance 0.116


def test_materializing_again_writes_the_same_bytes(home: Path) -> None:
    settings = _settings(home, timings={LANGUAGE: str(home / "timings.parquet")})
    versions = []
    for _ in range(2):
        _make_words(settings)
        for name in ("alignment", "alignment_evaluation"):
            assert _materialize(settings, PAIR, name).success
        lake = Storage.of(settings).lake
        keys = {"spoken_words": LANGUAGE, "written_words": LANGUAGE, "alignment": PAIR, "alignment_evaluation": PAIR}
        versions.append({name: lake.partition(name, key).data_version for name, key in keys.items()})
    assert versions[0] == versions[1]


def test_the_map_of_an_alignment_can_be_loaded_and_applied(home: Path) -> None:
    settings = _settings(home, timings={LANGUAGE: str(home / "timings.parquet")})
    _make_words(settings)
    _materialize(settings, PAIR, "alignment")
    lake = Storage.of(settings).lake
    found = SpaceMap.load(lake.partition("alignment", PAIR).local_path("map.npz"))
    vectors = lake.partition("spoken_words", LANGUAGE).read_array("vectors.npy")
    assert len(found.source.apply(vectors)) == len(vectors)
    matches = lake.partition("alignment", PAIR).read_frame("matches.parquet")
    assert matches["nearest"].str.split(", ").list.len().to_list() == [3] * len(vectors)


def test_without_known_words_the_evaluation_says_what_is_missing_and_the_check_warns_of_a_low_criterion(
    home: Path,
) -> None:
    settings = _settings(home, least_criterion=1.0, boundaries="sound")
    _make_words(settings)
    _materialize(settings, PAIR, "alignment")
    result = _materialize(settings, PAIR, "alignment_evaluation")
    told = _metadata(result, "alignment_evaluation")
    assert "set words.timings.deu" in told["not_evaluated"]
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN


def test_translation_needs_a_dictionary_and_says_so(home: Path) -> None:
    settings = _settings(home, timings={LANGUAGE: str(home / "timings.parquet")})
    write_text(Storage.of(settings).lake, OTHER, sentences(300, 1))
    _make_words(settings)
    assert _materialize(settings, OTHER, "written_words").success
    pair = f"{LANGUAGE}-{OTHER}"
    _materialize(settings, pair, "alignment")
    told = _metadata(_materialize(settings, pair, "alignment_evaluation"), "alignment_evaluation")
    assert "No dictionary for deu-eng" in told["not_evaluated"]
    words = pl.read_parquet(home / "timings.parquet")["word"].unique().sort().to_list()
    dictionary = home / "dictionary.tsv"
    dictionary.write_text("".join(f"{word}\t{word}\n" for word in words), "utf-8")
    judged = settings.model_copy(
        update={"words": settings.words.model_copy(update={"dictionaries": {pair: dictionary}})}
    )
    told = _metadata(_materialize(judged, pair, "alignment_evaluation"), "alignment_evaluation")
    assert "with one" in told["verdict"]


def test_a_language_without_speech_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match="No word was heard"):
        _materialize(_settings(tmp_path), LANGUAGE, "spoken_words")


def test_a_language_leads_to_the_pairs_it_stands_on_that_side_of(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    by_name = {asset.key.to_user_string(): asset for asset in alignment(settings)}
    partitions = by_name["alignment"].partitions_def
    assert isinstance(partitions, dg.StaticPartitionsDefinition)
    assert "deu-deu" in partitions.get_partition_keys()
    assert len(partitions.get_partition_keys()) == 16
    mapping = by_name["alignment"].get_partition_mapping(dg.AssetKey("spoken_words"))
    assert isinstance(mapping, dg.StaticPartitionMapping)
    upstream = by_name["spoken_words"].partitions_def
    assert isinstance(upstream, dg.StaticPartitionsDefinition)
    found = mapping.get_downstream_partitions_for_partitions(
        upstream.subset_with_partition_keys(["deu"]), upstream, partitions
    )
    assert sorted(found.get_partition_keys()) == ["deu-deu", "deu-eng", "deu-fra", "deu-spa"]


def test_the_pieces_that_a_student_cut_are_stale_when_another_version_is_promoted(tmp_path: Path) -> None:
    students = {name: {"data": ["clips"]} for name in ("small", "other")}
    encoders = {"deu": "student:small", "fra": "student:other", "spa": "student:small"}
    chosen = {"home": tmp_path, "languages": ["deu", "eng", "fra", "spa"], "students": students, "encoders": encoders}
    listening, deaf = load_settings(**chosen), load_settings(**chosen, words={"boundaries": "sound"})

    assert _stale_after_a_promotion(listening, "small") == ["deu", "spa"]
    assert _stale_after_a_promotion(deaf, "small") == []


def _stale_after_a_promotion(settings: Settings, student: str) -> list[str]:
    """Languages whose `spoken_words` Dagster calls stale, all having been made before."""
    layers = [*alignment(settings), current_encoder(settings)]
    real = {spec.key.path[-1]: spec for layer in layers for spec in layer.specs}
    promoted, spoken = _empty_body(real["current_encoder"]), _empty_body(real["spoken_words"])
    with dg.DagsterInstance.ephemeral() as instance:
        for name in settings.students:
            assert dg.materialize([promoted], instance=instance, partition_key=name).success
        for language in settings.languages:
            known = [spoken, real["current_encoder"]]
            assert dg.materialize(known, instance=instance, partition_key=language, selection=[spoken]).success
        assert dg.materialize([promoted], instance=instance, partition_key=student).success
        graph = dg.Definitions([promoted, spoken]).get_repository_def().asset_graph
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        key = dg.AssetKey("spoken_words")
        return [one for one in settings.languages if resolver.get_status(key, one).value == "STALE"]


def _empty_body(spec: dg.AssetSpec) -> dg.AssetsDefinition:
    """The layer with its key, edges and partitions; it only says that what it made is other than before."""

    @dg.multi_asset(specs=[spec], name=spec.key.path[-1])
    def made() -> Any:
        return dg.MaterializeResult(asset_key=spec.key, data_version=dg.DataVersion(uuid4().hex))

    return made
