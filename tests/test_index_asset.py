"""The FAISS index of a language as audiobooks come and go: updated or built from scratch, measured, checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import faiss
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from resources.settings import load_settings
from s2s_assets.definitions import build
from speech_mining.errors import EmbeddingError
from speech_mining.knn import index_types, normalise
from speech_mining.knn.cells import cells_of
from speech_mining.knn.index import read_index
from speech_mining.knn.index_renewal import INDEX, RECORD, Renewal, Wish, renew_index
from speech_mining.knn.index_update import ids_in, update_index
from speech_mining.knn.roll import ROLL, ROWS, call_the_roll, read_blocks, read_roll
from speech_mining.lake import Lake
from speech_mining.records import SEGMENTS, segment_id
from tests.cells_compared import assert_same_cells

DIMENSION = 48
CELLS = "IVF8,SQfp16"


def _vectors(count: int, seed: int) -> npt.NDArray[np.float16]:
    """Rows around topics that all books share, most of their variance in few directions."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(9)
    scale = (1 + np.arange(DIMENSION)) ** -0.7
    topics = world.standard_normal((12, DIMENSION)) * scale
    return normalise(topics[rng.integers(0, 12, count)] + rng.standard_normal((count, DIMENSION)) * scale).astype(
        np.float16
    )


def _segments(book: str, count: int) -> pl.DataFrame:
    rows = [
        {
            "segment_id": segment_id(book, 1 + i // 30, 16_000 * i, 16_000 * (i + 4)),
            "audiobook": book,
            "section": 1 + i // 30,
            "start_sample": 16_000 * i,
            "end_sample": 16_000 * (i + 4),
            "start_ms": 1000 * i,
            "end_ms": 1000 * (i + 4),
            "first_run": i,
            "last_run": i,
            "level_dbfs": -20.0,
            "coverage": 1.0,
        }
        for i in range(count)
    ]
    return pl.DataFrame(rows, schema=dict(SEGMENTS))


def _embed(lake: Lake, book: str, count: int = 100, seed: int = 0, language: str = "deu", version: str = "1") -> None:
    with lake.replace("speech_embeddings", language, book) as new:
        new.write_table("segments.parquet", _segments(book, count), SEGMENTS)
        new.write_array("vectors.npy", _vectors(count, seed or int(book)))
        new.write_json("encoder.json", {"name": "e", "version": version})


class Platform:
    """A lake, and the assets over it, materialized for real."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, **settings: Any) -> None:
        self.settings = load_settings(home=home, languages="deu,eng", **settings)
        self.lake = Lake(self.settings.lake_url)
        self.instance = instance
        self.job = build(self.settings).resolve_implicit_global_asset_job_def()

    def index(self, language: str = "deu", *, rebuild: bool = False) -> tuple[dict[str, Any], dg.AssetCheckEvaluation]:
        """Materialize an index; its metadata, and what its check said."""
        name = f"{language}__speech_index"
        done = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([language, "speech_index"])],
            partition_key=language,
            run_config={"ops": {name: {"config": {"rebuild": rebuild}}}} if rebuild else None,
        )
        told = done.asset_materializations_for_node(name)[0].metadata
        (check,) = done.get_asset_check_evaluations()
        return {entry: value.value for entry, value in told.items()}, check

    def held(self, language: str = "deu") -> list[int]:
        """Ids in the index, as plain FAISS reads it."""
        index = faiss.read_index(str(self.lake.partition("speech_index", language).local_path(INDEX)))
        return sorted(ids_in(index).tolist())

    def generation(self) -> str:
        """The content of the partition."""
        return self.lake.partition("speech_index", "deu").data_version

    def expected(self) -> list[int]:
        """Ids of every segment that is embedded."""
        return sorted(call_the_roll(read_blocks(self.lake, "deu")).ids.tolist())


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def exhaustive(tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    return Platform(tmp_path, instance)


@pytest.fixture
def celled(tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    made = Platform(tmp_path, instance, index_factory=CELLS)
    for book in ("1", "2", "3"):
        _embed(made.lake, book)
    return made


def test_a_small_language_is_indexed_exactly_and_says_what_it_is(exhaustive: Platform) -> None:
    _embed(exhaustive.lake, "1")
    _embed(exhaustive.lake, "2", count=80)

    told, check = exhaustive.index()

    size = exhaustive.lake.partition("speech_index", "deu").local_path(INDEX).stat().st_size
    wanted = {
        "type": "IndexIDMap2(IndexScalarQuantizer)",
        "factory": "IDMap2,SQfp16",
        "rows": 180,
        "trained_rows": 180,
        "dimension": DIMENSION,
        "built": "from scratch: there was none",
        "trained_on": "cpu",
        "added": 180,
        "removed": 0,
        "recall_at_16": 1.0,
        "recall_by_kind": {"own": 1.0, "strangers": 1.0},
        "refine_factor": 0,
        "bytes": size,
    }
    assert {name: told[f"index_{name}"] for name in wanted} == wanted
    assert told["index_build_seconds"] > 0
    assert told["audiobooks"] == 2
    assert check.passed
    assert exhaustive.held() == exhaustive.expected()


def test_an_exhaustive_index_has_the_same_bytes_whatever_came_before(exhaustive: Platform) -> None:
    _embed(exhaustive.lake, "1")
    exhaustive.index()
    once = exhaustive.generation()
    _embed(exhaustive.lake, "2")
    _embed(exhaustive.lake, "1", seed=7)
    assert exhaustive.index()[0]["index_built"] == "from scratch: an exhaustive index has no training to keep"
    exhaustive.lake.remove("speech_embeddings", "deu", "2")
    _embed(exhaustive.lake, "1")
    exhaustive.index()
    assert exhaustive.generation() == once


def test_an_index_with_cells_is_updated_by_what_came_and_what_went(celled: Platform) -> None:
    told, check = celled.index()
    assert told["index_built"] == "from scratch: there was none"
    assert (told["index_cells"], told["index_trained_rows"]) == (8, 300)
    assert check.passed and told["index_recall_at_16"] >= 0.98

    before = celled.generation()
    _embed(celled.lake, "4", count=70)
    told, _ = celled.index()
    assert told["index_built"] == f"updated from generation {before}"
    assert (told["index_added"], told["index_removed"], told["index_trained_rows"]) == (70, 0, 300)
    assert celled.held() == celled.expected()

    celled.lake.remove("speech_embeddings", "deu", "2")
    _embed(celled.lake, "3", seed=33)
    told, check = celled.index()
    assert (told["index_added"], told["index_removed"]) == (100, 200)
    assert celled.held() == celled.expected()
    assert check.passed
    read_roll(celled.lake, "deu")

    index = read_index(celled.lake.partition("speech_index", "deu").local_path(INDEX))
    cells_of(index).nprobe = 8  # type: ignore[union-attr]
    again = _vectors(100, 33)
    cosines, found = index.search(again.astype(np.float32), 1)
    assert found[:, 0].tolist() == _segments("3", 100)["segment_id"].to_list()
    assert cosines.min() > 0.999


def test_an_index_materialized_again_with_nothing_new_is_the_same_generation(celled: Platform) -> None:
    celled.index()
    before = celled.generation()
    told, _ = celled.index()
    assert (told["index_added"], told["index_removed"]) == (0, 0)
    assert told["index_built"].startswith("updated")
    assert celled.generation() == before


def test_an_update_that_is_undone_gives_the_bytes_it_had(celled: Platform) -> None:
    celled.index()
    before = celled.generation()
    _embed(celled.lake, "4")
    celled.index()
    assert celled.generation() != before
    celled.lake.remove("speech_embeddings", "deu", "4")
    celled.index()
    assert celled.generation() == before


def test_a_language_that_outgrows_its_training_is_trained_again(celled: Platform) -> None:
    celled.index()
    _embed(celled.lake, "4", count=300)
    assert celled.index()[0]["index_built"].startswith("updated")
    _embed(celled.lake, "5", count=1)
    told, _ = celled.index()
    assert told["index_built"] == "from scratch: 601 rows have outgrown a training for 300"
    assert told["index_trained_rows"] == 601


def test_a_language_that_loses_most_of_what_it_was_trained_for_is_trained_again(celled: Platform) -> None:
    celled.index()
    for book in ("1", "2"):
        _embed(celled.lake, book, seed=50 + int(book))
    assert celled.index()[0]["index_built"] == "from scratch: 100 rows are left of those it was trained for, 300"


def test_an_index_is_trained_again_when_it_is_asked_or_the_encoder_or_the_settings_change(
    celled: Platform, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    celled.index()
    assert celled.index(rebuild=True)[0]["index_built"] == "from scratch: so it was asked"
    for book in ("1", "2", "3"):
        _embed(celled.lake, book, version="2")
    assert celled.index()[0]["index_built"] == "from scratch: the encoder was e 1"
    other = Platform(tmp_path, instance, index_factory="RR,IVF4,RaBitQ")
    told, check = other.index()
    assert told["index_built"] == "from scratch: the settings ask for RR,IVF4,RaBitQ"
    assert told["index_refine_factor"] == 16
    assert told["index_unrefined_recall_at_16"] < told["index_recall_at_16"]
    assert check.passed == (told["index_recall_at_16"] >= 0.98)


def test_an_index_that_a_disk_spoilt_is_built_again(celled: Platform) -> None:
    celled.index()
    path = celled.lake.partition("speech_index", "deu").local_path(INDEX)
    path.write_bytes(path.read_bytes()[:100])
    _embed(celled.lake, "4")
    told, _ = celled.index()
    assert told["index_built"] == "from scratch: the earlier one could not be read"
    assert celled.held() == celled.expected()


def test_an_index_that_other_code_made_is_built_again(celled: Platform) -> None:
    celled.index()
    record = celled.lake.partition("speech_index", "deu").local_path(RECORD)
    record.write_text(record.read_text("utf-8").replace('"version": "1"', '"version": "0"'), "utf-8")
    assert celled.index()[0]["index_built"] == "from scratch: the earlier one was made by other code"


def test_an_index_published_before_there_were_records_is_built_again(celled: Platform) -> None:
    roll = call_the_roll(read_blocks(celled.lake, "deu"))
    with celled.lake.replace("speech_index", "deu") as new:
        new.write_table("roll.parquet", roll.blocks, ROLL)
    assert celled.index()[0]["index_built"] == "from scratch: the earlier one was made by other code"
    assert celled.held() == celled.expected()


def test_a_type_that_faiss_cannot_update_is_built_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    platform = Platform(tmp_path, instance, index_factory="IVF8,PQ8x4fs")
    _embed(platform.lake, "1", count=200)
    platform.index()
    told, _ = platform.index()
    assert told["index_built"] == "from scratch: FAISS cannot take rows out of IVF8,PQ8x4fs"


def test_the_type_that_size_chose_is_kept_until_the_size_asks_for_another_kind(
    exhaustive: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_types, "EXHAUSTIVE_ROWS", 250)
    monkeypatch.setattr(index_types, "ROWS_A_CELL", 40)
    for book in ("1", "2", "3"):
        _embed(exhaustive.lake, book)
    assert exhaustive.index()[0]["index_factory"] == CELLS
    _embed(exhaustive.lake, "4", count=250)
    told, _ = exhaustive.index()
    assert index_types.choose_factory(550) == "IVF16,SQfp16"
    assert told["index_factory"] == CELLS
    assert told["index_built"].startswith("updated")
    for book in ("3", "4"):
        exhaustive.lake.remove("speech_embeddings", "deu", book)
    told, _ = exhaustive.index()
    assert told["index_built"] == "from scratch: 200 rows ask for IDMap2,SQfp16"


def test_an_index_of_low_recall_is_told_and_keeps_no_pair_from_being_mined(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    platform = Platform(tmp_path, instance, index_factory="PCAR8,IVF4,PQ4x4")
    for language in ("deu", "eng"):
        _embed(platform.lake, "1", count=200, language=language)
        _embed(platform.lake, "2", count=100, language=language)
        told, check = platform.index(language)
        assert told["index_recall_at_16"] < 0.9
        assert not check.passed
        assert check.severity == dg.AssetCheckSeverity.WARN
        assert not check.blocking
        shown = check.metadata["offending_rows"]
        assert isinstance(shown, dg.TableMetadataValue)
        assert dict(shown.records[0].data)["factory"] == "PCAR8,IVF4,PQ4x4"
        assert check.metadata["least"].value == 0.98
    done = platform.job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("s2s_neighbours")], partition_key="deu-eng"
    )
    nearest = platform.lake.partition("s2s_neighbours", "deu-eng").read_frame("forward.parquet")
    assert done.success and nearest.height == 300


def test_a_language_of_one_segment_has_nothing_to_find(exhaustive: Platform) -> None:
    _embed(exhaustive.lake, "1", count=1)
    told, check = exhaustive.index()
    assert "index_recall_at_16" not in told
    assert check.passed


def _renew(lake: Lake, factory: str) -> Renewal:
    roll = call_the_roll(read_blocks(lake, "deu"), DIMENSION)
    renewal = renew_index(roll, lake.find("speech_index", "deu"), Wish(factory))
    rows = roll.items.with_row_index("row").with_columns(recurring=pl.lit(False))
    with lake.replace("speech_index", "deu") as new:
        renewal.write(new)
        new.write_table("roll.parquet", roll.blocks, ROLL)
        new.write_table("rows.parquet", rows, ROWS)
    return renewal


BOOKS = st.dictionaries(st.sampled_from("23456"), st.integers(1, 3), max_size=5)


@effort(max_examples=8, deadline=None)
@given(st.lists(BOOKS, min_size=1, max_size=4), st.sampled_from(["IVF2,SQfp16", "RR,IVF2,RaBitQ", "IDMap2,Flat"]))
def test_after_any_history_of_audiobooks_the_index_holds_what_the_roll_names(
    tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, int]], factory: str
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    _embed(lake, "1", count=60)
    trained = _renew(lake, factory)
    empty = faiss.clone_index(trained.index)
    for books in history:
        for book in set(lake.keys("speech_embeddings", "deu")) - set(books) - {"1"}:
            lake.remove("speech_embeddings", "deu", book)
        for book, seed in books.items():
            _embed(lake, book, count=10 + int(book), seed=seed)
        renewal = _renew(lake, factory)
        roll, index = call_the_roll(read_blocks(lake, "deu")), renewal.index
        assert sorted(ids_in(index)) == sorted(roll.ids)
        if renewal.built.startswith("updated"):
            update_index(empty, ids_in(empty), roll.vectors, roll.ids)
            cells_of(empty).nprobe = cells_of(index).nprobe  # type: ignore[union-attr]
            assert_same_cells(empty, index, but_for_rounding="RR" in factory)
        else:
            empty = faiss.clone_index(index)


def test_too_few_rows_for_the_cells_that_were_asked_for_are_an_error(celled: Platform) -> None:
    for book in ("1", "2", "3"):
        celled.lake.remove("speech_embeddings", "deu", book)
    _embed(celled.lake, "1", count=5)
    with pytest.raises(EmbeddingError, match="cannot be trained on 5 vectors"):
        celled.index()
