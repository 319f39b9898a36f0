"""FAISS indexes: type by size and memory, ids, refinement, updates, recall, errors, bytes on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError
from speech_mining.knn import both_directions, normalise
from speech_mining.knn.cells import cells_of, fill_index, gpu_clone, put_in_order, train_index
from speech_mining.knn.index import build_index, choose_factory, describe_index, read_index, write_index
from speech_mining.knn.index_recall import (
    LEAST_RECALL,
    Indexed,
    choose_probes,
    draw_examinations,
    examine_index,
    ladder,
    recall_of,
)
from speech_mining.knn.index_types import machine_memory, refine_factor, without_numbers
from speech_mining.knn.index_update import can_be_updated, ids_in, update_index
from speech_mining.knn.refine import RowsOfIds, cosines_with, refined_search
from tests.cells_compared import assert_same_cells

GIB = 2**30


def vectors(count: int, dimension: int = 32, seed: int = 0) -> npt.NDArray[np.float16]:
    return normalise(np.random.default_rng(seed).standard_normal((count, dimension))).astype(np.float16)


def ids_of(count: int) -> npt.NDArray[np.int64]:
    """Large ids in no order, like those of segments."""
    return np.random.default_rng(1).permutation(count) + (1 << 62)


def test_a_small_index_answers_with_the_ids_of_the_exact_neighbours() -> None:
    base, ids = vectors(500), ids_of(500)

    _, found = build_index(base, ids).search(vectors(40, seed=2).astype(np.float32), 5)

    exact = both_directions(vectors(40, seed=2), base, 5).forward_rows
    np.testing.assert_array_equal(found, ids[exact])


def test_the_type_follows_the_size_and_the_memory() -> None:
    assert choose_factory(0, memory_bytes=1) == choose_factory(200_000, memory_bytes=1) == "IDMap2,SQfp16"
    assert choose_factory(200_001, memory_bytes=4 * GIB) == "IVF1024,SQfp16"
    assert choose_factory(5_000_000, memory_bytes=64 * GIB) == "IVF16384,SQfp16"
    assert choose_factory(5_000_000, memory_bytes=32 * GIB) == "RR,IVF16384,RaBitQ"
    assert choose_factory(5_000_000, dimension=256, memory_bytes=32 * GIB) == "IVF16384,SQfp16"
    assert choose_factory(100_000_000, memory_bytes=64 * GIB) == "RR,IVF65536,RaBitQ"
    assert choose_factory(300_000) == choose_factory(300_000, memory_bytes=machine_memory())


def test_half_the_memory_of_a_machine_is_not_taken_for_all_of_it() -> None:
    rows = 1_000_000
    needed = rows * (2 * 1024 + 8)
    assert choose_factory(rows, memory_bytes=4 * needed) == "IVF4096,SQfp16"
    assert choose_factory(rows, memory_bytes=4 * needed - 4) == "RR,IVF4096,RaBitQ"


def test_the_kind_of_an_index_is_its_factory_without_the_number_of_cells() -> None:
    assert without_numbers("IVF1024,SQfp16") == without_numbers("IVF2048,SQfp16") == "IVF,SQfp16"
    assert without_numbers("RR,IVF64,RaBitQ") != without_numbers("IVF64,SQfp16")
    assert [refine_factor(factory) for factory in ("IVF64,SQfp16", "RR,IVF64,RaBitQ", "IDMap2,Flat")] == [0, 16, 0]


@pytest.mark.parametrize(
    "factory", ["Flat", "IDMap2,Flat", "IDMap,Flat", "IVF8,SQfp16", "PCAR16,IVF8,PQ8x4", "RR,IVF8,RaBitQ"]
)
def test_an_explicit_factory_string_is_taken_and_its_ids_are_ours(factory: str) -> None:
    base, ids = vectors(400), ids_of(400)

    index = build_index(base, ids, factory=factory)

    _, found = index.search(base[:20].astype(np.float32), 1)
    assert (found[:, 0] == ids[:20]).mean() >= (0.5 if "Q8" in factory or "Bit" in factory else 1.0)


def test_an_inverted_index_finds_most_neighbours_when_it_probes_all_cells() -> None:
    base, ids = vectors(2000), ids_of(2000)
    index = build_index(base, ids, factory="IVF16,SQfp16")
    assert describe_index(index) == {
        "type": "IndexIVFScalarQuantizer",
        "rows": 2000,
        "dimension": 32,
        "cells": 16,
        "probes": 1,
    }

    index.nprobe = 16
    _, found = index.search(vectors(30, seed=3).astype(np.float32), 4)

    exact = both_directions(vectors(30, seed=3), base, 4).forward_rows
    np.testing.assert_array_equal(found, ids[exact])


def test_an_index_is_described() -> None:
    index = build_index(vectors(7), ids_of(7))

    assert describe_index(index) == {"type": "IndexIDMap2(IndexScalarQuantizer)", "rows": 7, "dimension": 32}


@pytest.mark.parametrize("factory", [None, "IVF8,SQfp16", "RR,IVF8,RaBitQ"])
def test_the_same_input_and_seed_give_the_same_bytes(tmp_path: Path, factory: str | None) -> None:
    for name in ("one", "two"):
        write_index(build_index(vectors(3000), ids_of(3000), factory=factory, seed=5), tmp_path / name)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_seed_chooses_the_training_sample(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_index(build_index(vectors(3000), ids_of(3000), factory="IVF8,SQfp16", seed=seed), tmp_path / str(seed))

    assert (tmp_path / "1").read_bytes() != (tmp_path / "2").read_bytes()


def test_an_index_reads_back_as_it_was_written(tmp_path: Path) -> None:
    base, ids = vectors(50), ids_of(50)
    write_index(build_index(base, ids), tmp_path / "deu.faiss")

    again = read_index(tmp_path / "deu.faiss")

    assert again.search(base[7:8].astype(np.float32), 1)[1].tolist() == [[ids[7]]]
    assert [path.name for path in tmp_path.iterdir()] == ["deu.faiss"]


def test_an_empty_index_is_an_index(tmp_path: Path) -> None:
    write_index(build_index(vectors(0), ids_of(0)), tmp_path / "none.faiss")

    assert read_index(tmp_path / "none.faiss").ntotal == 0


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.arange(9), r"ids of 10 vectors are int64 of shape \(9,\)"),
        (np.arange(10, dtype=np.int32), "int32"),
        (np.arange(10) // 2, "Id 0 names more than one vector .5 repetitions"),
        (np.arange(10) - 1, "An id is -1"),
    ],
)
def test_ids_that_do_not_name_the_vectors_are_refused(ids: npt.NDArray, message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        build_index(vectors(10), ids)


def test_an_unknown_factory_string_is_refused() -> None:
    with pytest.raises(EmbeddingError, match=r"FAISS cannot make the index 'Fancy64'.*Expected: an index_factory"):
        build_index(vectors(10), ids_of(10), factory="Fancy64")


def test_too_few_vectors_to_train_are_refused() -> None:
    with pytest.raises(EmbeddingError, match=r"cannot be trained on 10 vectors.*smaller index"):
        build_index(vectors(10), ids_of(10), factory="IVF64,SQfp16")


def test_bad_vectors_are_refused() -> None:
    spoilt = vectors(10)
    spoilt[4] = 0
    with pytest.raises(EmbeddingError, match="indexed matrix has 1 of 10 rows that are zero: rows 4"):
        build_index(spoilt, ids_of(10))


def test_a_missing_or_damaged_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match="There is no index"):
        read_index(tmp_path / "absent.faiss")
    write_index(build_index(vectors(50), ids_of(50)), tmp_path / "whole.faiss")
    (tmp_path / "cut.faiss").write_bytes((tmp_path / "whole.faiss").read_bytes()[:200])
    with pytest.raises(EmbeddingError, match="not a FAISS index"):
        read_index(tmp_path / "cut.faiss")


def test_plain_faiss_reads_and_searches_what_was_written(tmp_path: Path) -> None:
    base, ids = vectors(2000), ids_of(2000)
    queries = vectors(8, seed=2).astype(np.float32)
    expected = {}
    for factory in ("IDMap2,SQfp16", "IVF16,SQfp16", "RR,IVF16,RaBitQ"):
        index = build_index(base, ids, factory=factory)
        if cells_of(index) is not None:
            cells_of(index).nprobe = 5  # type: ignore[union-attr]
        write_index(index, tmp_path / factory)
        expected[factory] = index.search(queries, 3)[1].tolist()
    np.save(tmp_path / "queries.npy", queries)
    script = """
import sys, faiss, numpy, json
folder, *names = sys.argv[1:]
queries = numpy.load(folder + "/queries.npy")
print(json.dumps({name: faiss.read_index(folder + "/" + name).search(queries, 3)[1].tolist() for name in names}))
print("speech_mining" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *expected], capture_output=True, text=True, check=True
    )
    found, ours = told.stdout.splitlines()
    assert json.loads(found) == expected
    assert ours == "False"


# --- refinement


def anisotropic(count: int, dimension: int = 64, seed: int = 0, topics: int = 20) -> npt.NDArray[np.float16]:
    """Rows around topics, most of whose variance lies in few directions, with one direction common to all."""
    rng = np.random.default_rng(seed)
    world = np.random.default_rng(77)
    scale = (1 + np.arange(dimension)) ** -0.7
    centres = world.standard_normal((topics, dimension)) * scale
    common = world.standard_normal(dimension) * 0.3
    drawn = centres[rng.integers(0, topics, count)] + rng.standard_normal((count, dimension)) * scale + common
    return normalise(drawn).astype(np.float16)


def test_refinement_finds_what_codes_alone_do_not() -> None:
    base, ids, queries = anisotropic(3000), ids_of(3000), anisotropic(100, seed=5)
    index = build_index(base, ids, factory="RR,IVF8,RaBitQ")
    cells_of(index).nprobe = 8  # type: ignore[union-attr]
    exact = both_directions(queries, base, 10)

    cosines, refined = refined_search(index, base, RowsOfIds(ids), queries, 10, factor=10)

    plain = index.search(queries.astype(np.float32), 10)[1]
    hits = [
        np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(found, ids[exact.forward_rows], strict=True)])
        for found in (plain, refined)
    ]
    assert hits[0] < 0.8
    assert hits[1] > 0.98
    own = cosines_with(base, RowsOfIds(ids)(refined), queries)
    np.testing.assert_array_equal(cosines, own)
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_refining_every_row_is_exact_search() -> None:
    base, ids, queries = anisotropic(300), ids_of(300), anisotropic(20, seed=5)
    index = build_index(base, ids, factory="RR,IVF4,RaBitQ")
    cells_of(index).nprobe = 4  # type: ignore[union-attr]

    cosines, found = refined_search(index, base, RowsOfIds(ids), queries, 3, factor=100)

    exact = both_directions(queries, base, 3)
    np.testing.assert_array_equal(found, ids[exact.forward_rows])
    np.testing.assert_allclose(cosines, exact.forward_cosines, atol=1e-6)


def test_equal_vectors_stand_by_row_and_missing_neighbours_last() -> None:
    base = np.repeat(vectors(2, dimension=100), 9, axis=0)
    ids = np.arange(18)[::-1] * 10
    index = build_index(base, ids)

    cosines, found = refined_search(index, base, RowsOfIds(ids), base[:1], 20, factor=2)

    assert found.tolist() == [[*ids, -1, -1]]
    assert len(set(cosines[0])) == 3
    assert np.isneginf(cosines[0, 18:]).all()


def test_an_id_that_no_vector_has_is_refused() -> None:
    base, ids = vectors(50), ids_of(50)
    index = build_index(base, ids)
    with pytest.raises(EmbeddingError, match=r"answers with id \d+, which is no row's.*same generation"):
        refined_search(index, base[:40], RowsOfIds(ids[:40]), base[45:], 1)
    with pytest.raises(EmbeddingError, match="no row's"):
        RowsOfIds(ids[:0])(ids[:2])
    with pytest.raises(EmbeddingError, match="0 times as many"):
        refined_search(index, base, RowsOfIds(ids), base, 1, factor=0)


def test_an_empty_index_refines_to_nothing() -> None:
    cosines, found = refined_search(build_index(vectors(0), ids_of(0)), vectors(0), RowsOfIds(ids_of(0)), vectors(2), 3)
    assert found.tolist() == [[-1] * 3] * 2
    assert np.isneginf(cosines).all()


# --- updates


Step = tuple[list[int], list[int]]


@st.composite
def histories(draw: Callable[..., Any]) -> tuple[list[int], list[Step]]:
    """Which rows of a pool are there first, and then for each step which go and which come (some at once)."""
    pool = 120
    start = draw(st.sets(st.integers(0, pool - 1), min_size=40))
    steps, held = [], set(start)
    for _ in range(draw(st.integers(1, 4))):
        gone = draw(st.sets(st.sampled_from(sorted(held)))) if held else set()
        outside = sorted(set(range(pool)) - held | gone)
        come = draw(st.sets(st.sampled_from(outside))) if outside else set()
        steps.append((sorted(gone), draw(st.permutations(sorted(come)))))
        held = held - gone | come
    return sorted(start), steps


POOL, POOL_IDS = anisotropic(120, dimension=32), ids_of(120)


def _lived(index: Any, start: list[int], steps: list[Step]) -> list[int]:
    held = set(start)
    for gone, come in steps:
        update_index(index, POOL_IDS[gone], POOL[come], POOL_IDS[come])
        held = held - set(gone) | set(come)
    return sorted(held)


@settings(max_examples=20, deadline=None)
@given(histories(), st.sampled_from(["IDMap2,SQfp16", "IDMap2,Flat"]))
def test_an_exact_index_answers_after_any_history_as_one_built_from_scratch(
    history: tuple[list[int], list[Step]], factory: str
) -> None:
    start, steps = history
    index = build_index(POOL[start], POOL_IDS[start], factory=factory)
    held = _lived(index, start, steps)

    found = index.search(POOL.astype(np.float32), 7)
    assert sorted(ids_in(index)) == sorted(POOL_IDS[held])
    if not held:
        assert (found[1] == -1).all()
        return
    scratch = build_index(POOL[held], POOL_IDS[held]).search(POOL.astype(np.float32), 7)
    np.testing.assert_array_equal(found[1], scratch[1])
    np.testing.assert_allclose(found[0], scratch[0], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(histories(), st.sampled_from(["IVF4,SQfp16", "RR,IVF4,RaBitQ"]))
def test_the_bytes_of_cells_depend_on_the_training_and_the_rows_not_on_the_history(
    history: tuple[list[int], list[Step]], factory: str
) -> None:
    start, steps = history
    index = build_index(POOL[start], POOL_IDS[start], factory=factory)
    same_training = faiss.clone_index(index)
    held = _lived(index, start, steps)

    update_index(same_training, POOL_IDS[start], POOL[held], POOL_IDS[held])

    assert_same_cells(index, same_training, but_for_rounding="RR" in factory)


@pytest.mark.parametrize("factory", ["IDMap2,SQfp16", "IVF8,SQfp16", "RR,IVF8,RaBitQ", "PCAR16,IVF8,PQ8x4"])
def test_ids_that_are_gone_are_never_found(factory: str) -> None:
    base, ids = vectors(600), ids_of(600)
    index = build_index(base, ids, factory=factory)
    if (cells := cells_of(index)) is not None:
        cells.nprobe = 8

    update_index(index, ids[:200], base[:0], ids[:0])

    _, found = index.search(base.astype(np.float32), 400)
    assert not np.isin(found, ids[:200]).any()
    assert index.ntotal == 400


def test_a_block_embedded_again_keeps_its_ids_and_takes_its_new_vectors() -> None:
    base, ids = vectors(300), ids_of(300)
    index = build_index(base, ids, factory="IVF4,SQfp16")
    cells_of(index).nprobe = 4  # type: ignore[union-attr]
    again = vectors(50, seed=9)

    update_index(index, ids[:50], again, ids[:50])

    cosines, found = index.search(again.astype(np.float32), 1)
    np.testing.assert_array_equal(found[:, 0], ids[:50])
    assert cosines.min() > 0.99


@pytest.mark.parametrize(
    ("gone", "new", "ids", "message"),
    [
        (ids_of(100)[:2] + 1000, vectors(0), ids_of(0), "2 of 2 ids to remove are not in the index, such as 4611"),
        (ids_of(100)[:0], vectors(3), ids_of(100)[:3], "3 of 3 ids to add are in the index already.*added twice"),
        (ids_of(100)[:0], vectors(3, dimension=16), ids_of(3) + 500, "New vectors have 16 values, those of the index"),
        (ids_of(100)[[1, 1]], vectors(0), ids_of(0), "names more than one vector"),
        (ids_of(100)[:0], vectors(3), ids_of(2) + 500, r"int64 of shape \(2,\)"),
        (
            ids_of(100)[:0],
            vectors(3) * np.float16(2),
            ids_of(3) + 500,
            "new vectors has 3 of 3 rows that are not of unit",
        ),
    ],
)
@pytest.mark.parametrize("factory", ["IDMap2,SQfp16", "IVF4,SQfp16"])
def test_a_refused_update_says_why_and_changes_nothing(
    factory: str, gone: npt.NDArray[np.int64], new: npt.NDArray[np.float16], ids: npt.NDArray[np.int64], message: str
) -> None:
    index = build_index(vectors(100), ids_of(100), factory=factory)
    before = faiss.serialize_index(index).tobytes()

    with pytest.raises(EmbeddingError, match=message):
        update_index(index, gone, new, ids)

    assert faiss.serialize_index(index).tobytes() == before


@pytest.mark.parametrize("factory", ["IDMap2,HNSW8", "IVF4,PQ8x4fs", "IDMap2,IVF4,Flat"])
def test_a_type_that_rows_cannot_be_taken_out_of_is_refused(factory: str) -> None:
    index = build_index(vectors(300), ids_of(300), factory=factory)
    assert not can_be_updated(index)
    with pytest.raises(EmbeddingError, match=r"An index of type Index.* cannot be updated.*Fix: build it again"):
        update_index(index, ids_of(300)[:1], vectors(0), ids_of(0))


# --- a GPU's part, done by a second flat index in this machine's memory


@pytest.mark.parametrize("factory", ["IVF8,SQfp16", "RR,IVF8,RaBitQ", "PCAR16,IVF8,PQ8x4"])
def test_an_index_whose_centroids_are_searched_elsewhere_is_the_same(factory: str) -> None:
    base, ids = vectors(2000), ids_of(2000)
    made = []
    for clone in (None, faiss.clone_index):
        index = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
        train_index(index, base.astype(np.float32), clone)
        fill_index(index, base, ids, clone)
        put_in_order(index)
        made.append(faiss.serialize_index(index).tobytes())
        assert index.ntotal == 2000
    assert made[0] == made[1]


def test_without_a_gpu_faiss_finds_the_cells_itself() -> None:
    if faiss.get_num_gpus():
        pytest.skip("there is a GPU")
    assert gpu_clone(build_index(vectors(300), ids_of(300), factory="IVF4,SQfp16")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not faiss.get_num_gpus(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("factory", ["IVF16,SQfp16", "RR,IVF16,RaBitQ"])
def test_an_index_built_on_a_gpu_finds_what_one_built_here_finds(factory: str) -> None:
    base, ids, queries = anisotropic(4000), ids_of(4000), anisotropic(50, seed=5)
    index = build_index(base, ids, factory=factory)
    assert gpu_clone(index) is not None
    cells_of(index).nprobe = 16  # type: ignore[union-attr]
    _, found = refined_search(index, base, RowsOfIds(ids), queries, 5, factor=20)
    np.testing.assert_array_equal(found, ids[both_directions(queries, base, 5).forward_rows])


# --- recall


def _indexed(factory: str | None, count: int = 3000, audiobooks: int = 20) -> Indexed:
    base, ids = anisotropic(count), ids_of(count)
    number = np.sort(np.random.default_rng(3).integers(0, audiobooks, count))
    return Indexed(build_index(base, ids, factory=factory), base, ids, number)


def test_an_exhaustive_index_finds_everything() -> None:
    recall = examine_index(_indexed(None))
    assert recall.recall == 1.0
    assert recall.by_kind == {"own": 1.0, "strangers": 1.0}
    assert recall.probes is recall.unrefined is None
    assert recall.queries > 300


def test_the_exact_answers_of_an_examination_are_those_of_brute_force() -> None:
    indexed = _indexed(None, count=400)
    own, strangers = draw_examinations(indexed.vectors, indexed.audiobooks, k=5)
    assert set(own.queries) == set(own.left_out)
    away = np.unique(indexed.audiobooks[strangers.left_out])
    assert 1 <= len(away) <= 2
    assert np.isin(indexed.audiobooks, away).sum() == len(strangers.left_out)
    for each in (own, strangers):
        others = np.delete(indexed.vectors, each.left_out, axis=0)
        exact = both_directions(indexed.vectors[each.queries], others, 5)
        np.testing.assert_allclose(each.least, exact.forward_cosines[:, -1], atol=1e-6)


@pytest.mark.parametrize("factory", ["IDMap2,SQfp16", "IVF4,SQfp16", "RR,IVF4,RaBitQ", "IDMap2,PQ8x4"])
def test_what_is_left_out_does_not_count_as_found(factory: str) -> None:
    # FAISS's PQ takes no selection of ids: it is asked for more, and those left out are dropped
    indexed = _indexed(None, count=400)
    own = draw_examinations(indexed.vectors, indexed.audiobooks, k=5)[0]
    without_rest = build_index(indexed.vectors[own.left_out], indexed.ids[own.left_out], factory=factory)
    assert recall_of(Indexed(without_rest, indexed.vectors, indexed.ids, indexed.audiobooks), own) == 0.0


def test_an_index_that_lacks_rows_is_found_out() -> None:
    indexed = _indexed("IVF8,SQfp16")
    update_index(indexed.index, indexed.ids[::4], indexed.vectors[:0], indexed.ids[:0])
    recall = examine_index(indexed)
    assert recall.recall is not None
    assert 0.6 < recall.recall < 0.85


def test_the_fewest_probes_that_reach_the_recall_are_set() -> None:
    indexed = _indexed("IVF32,SQfp16", count=6000)
    recall = examine_index(indexed)
    assert recall.recall is not None and recall.probes is not None
    assert recall.recall >= LEAST_RECALL
    assert 1 < recall.probes < 32
    assert cells_of(indexed.index).nprobe == recall.probes  # type: ignore[union-attr]
    cells_of(indexed.index).nprobe = recall.probes // 2  # type: ignore[union-attr]
    examinations = draw_examinations(indexed.vectors, indexed.audiobooks)
    assert min(recall_of(indexed, each) for each in examinations) < LEAST_RECALL


def test_one_bit_a_value_finds_enough_once_its_answers_are_compared_again() -> None:
    recall = examine_index(_indexed("RR,IVF16,RaBitQ"), factor=16)
    assert recall.recall is not None and recall.unrefined is not None
    assert recall.unrefined < 0.8 < LEAST_RECALL <= recall.recall


@pytest.mark.parametrize("factory", ["PCAR16,IVF8,PQ8x4", "IDMap2,PQ8x4"])
def test_a_type_that_loses_neighbours_is_measured_so(factory: str) -> None:
    recall = examine_index(_indexed(factory))
    assert recall.recall is not None
    assert 0.05 < recall.recall < 0.9


def test_equal_vectors_are_as_good_as_each_other() -> None:
    base = np.repeat(vectors(30), 40, axis=0)
    indexed = Indexed(build_index(base, ids_of(1200)), base, ids_of(1200), np.arange(1200) % 6)
    assert examine_index(indexed).recall == 1.0


@pytest.mark.parametrize(
    ("count", "audiobooks", "kinds"), [(0, 1, []), (1, 1, []), (2, 1, ["own"]), (40, 1, ["own"]), (2, 2, None)]
)
def test_a_language_too_small_to_be_asked_has_no_recall(count: int, audiobooks: int, kinds: list[str] | None) -> None:
    base, ids = vectors(count), ids_of(count)
    recall = examine_index(Indexed(build_index(base, ids), base, ids, np.arange(count) % audiobooks))
    assert sorted(recall.by_kind) == (["own", "strangers"] if kinds is None else kinds)
    assert recall.recall == (1.0 if recall.by_kind else None)


def test_probes_double_up_to_all_cells() -> None:
    assert ladder(1) == [1]
    assert ladder(8) == [1, 2, 4, 8]
    assert ladder(11) == [1, 2, 4, 8, 11]


def test_where_no_probes_suffice_the_best_are_set_and_the_fewest_of_those() -> None:
    index = build_index(vectors(300), ids_of(300), factory="IVF8,SQfp16")
    found = {1: 0.2, 2: 0.5, 4: 0.5, 8: 0.4}
    assert choose_probes(index, lambda: found[cells_of(index).nprobe]) == 2  # type: ignore[union-attr]
    assert cells_of(index).nprobe == 2  # type: ignore[union-attr]
