"""FAISS indexes: type by size, ids, errors, bytes on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from speech_mining.errors import EmbeddingError
from speech_mining.knn import both_directions, normalise
from speech_mining.knn.index import build_index, choose_factory, describe_index, read_index, write_index


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


def test_the_type_follows_the_size() -> None:
    assert choose_factory(0) == choose_factory(200_000) == "IDMap2,SQfp16"
    assert choose_factory(200_001) == "IVF1024,SQfp16"
    assert choose_factory(5_000_000) == "IVF16384,SQfp16"


@pytest.mark.parametrize("factory", ["Flat", "IDMap2,Flat", "IDMap,Flat", "IVF8,SQfp16", "PCAR16,IVF8,PQ8x4"])
def test_an_explicit_factory_string_is_taken_and_its_ids_are_ours(factory: str) -> None:
    base, ids = vectors(400), ids_of(400)

    index = build_index(base, ids, factory=factory)

    _, found = index.search(base[:20].astype(np.float32), 1)
    assert (found[:, 0] == ids[:20]).mean() >= (0.5 if "PQ" in factory else 1.0)


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


@pytest.mark.parametrize("factory", [None, "IVF8,SQfp16"])
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
