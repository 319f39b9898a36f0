"""FAISS indexes with 64-bit ids: built, described, written and read.

The approximate road, and what other tools load. Exact neighbours do not come from here but from `exact`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.atomic import replacing
from speech_mining.errors import EmbeddingError
from speech_mining.knn.cells import Clone, cells_of, fill_index, gpu_clone, put_in_order, train_index
from speech_mining.knn.index_types import EXHAUSTIVE_FACTORY, EXHAUSTIVE_ROWS, ROWS_A_CELL, choose_factory
from speech_mining.knn.vectors import check_unit_rows

__all__ = [
    "EXHAUSTIVE_FACTORY",
    "EXHAUSTIVE_ROWS",
    "ROWS_A_CELL",
    "build_index",
    "check_ids",
    "choose_factory",
    "describe_index",
    "read_index",
    "write_index",
]

TRAINING_ROWS_A_CELL = 64
PROBED_SHARE = 32
"""One cell in this many is probed, unless who builds or reads the index sets nprobe (`index_recall.choose_probes`)."""


def build_index(
    vectors: npt.NDArray[np.float16],
    ids: npt.NDArray[np.int64],
    *,
    factory: str | None = None,
    seed: int = 0,
) -> Any:
    """Build a FAISS index for inner products, whose search answers with `ids`.

    Args:
        vectors: float16 (or float32) (n, d), unit rows.
        ids: int64 (n,), not negative, no two equal.
        factory: a FAISS `index_factory` string; None chooses by size (`choose_factory`).
        seed: of the training sample and of k-means. The same input and seed give the same bytes.

    Returns:
        A trained `faiss.Index` holding the rows.

    Raises:
        EmbeddingError: vectors that cannot be searched, ids that do not fit them, a factory string FAISS does not
            know, or too few rows to train it.
    """
    check_unit_rows(vectors, "The indexed matrix")
    check_ids(ids, len(vectors))
    index = _untrained(vectors.shape[1], factory or choose_factory(len(vectors), vectors.shape[1]))
    clone = gpu_clone(index)
    _train(index, vectors, seed, clone)
    fill_index(index, vectors, ids, clone)
    put_in_order(index)
    return index


def describe_index(index: Any) -> dict[str, int | str]:
    """What a person wants to know of an index: type, rows, dimension, and cells and probes when it has them."""
    import faiss

    inner = faiss.downcast_index(index)
    names = [type(inner).__name__]
    while isinstance(inner, faiss.IndexIDMap):
        inner = faiss.downcast_index(inner.index)
        names.append(type(inner).__name__)
    told: dict[str, int | str] = {
        "type": "(".join(names) + ")" * (len(names) - 1),
        "rows": int(index.ntotal),
        "dimension": int(index.d),
    }
    cells = cells_of(index)
    return told if cells is None else {**told, "cells": int(cells.nlist), "probes": int(cells.nprobe)}


def write_index(index: Any, path: Path) -> None:
    """Write an index so that `faiss.read_index` reads it; a kill leaves the old file or the new one."""
    import faiss

    with replacing(path) as part:
        faiss.write_index(index, str(part))


def read_index(path: Path) -> Any:
    """Read an index written by `write_index`, or by FAISS.

    Raises:
        EmbeddingError: there is no such file, or it is not an index.
    """
    import faiss

    if not path.is_file():
        raise EmbeddingError(f"There is no index at {path}.", fix="materialize the index first")
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise EmbeddingError(
            f"{path} is not a FAISS index ({_first_line(error)}).",
            cause="the file is damaged, or of another kind",
            fix="materialize the index again",
        ) from error


def check_ids(ids: npt.NDArray[np.int64], rows: int) -> None:
    """Refuse ids that cannot name so many rows.

    Raises:
        EmbeddingError: they are not int64 (rows,), one is negative, or one comes twice.
    """
    if ids.dtype != np.int64 or ids.shape != (rows,):
        raise EmbeddingError(
            f"The ids of {rows} vectors are {ids.dtype} of shape {ids.shape}.", expected=f"int64 of shape ({rows},)"
        )
    if rows and ids.min() < 0:
        raise EmbeddingError(f"An id is {ids.min()}.", expected="ids from 0, since FAISS says -1 for no neighbour")
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise EmbeddingError(
            f"Id {twice[0]} names more than one vector ({len(twice)} repetitions in all).",
            expected="one id for each vector",
            cause="a block was added twice",
        )


def _untrained(dimension: int, factory: str) -> Any:
    import faiss

    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise EmbeddingError(
            f"FAISS cannot make the index {factory!r} for {dimension} dimensions ({_first_line(error)}).",
            expected='an index_factory string such as "IDMap2,Flat" or "IVF1024,SQfp16"',
        ) from error
    return index if cells_of(index) is not None or isinstance(index, faiss.IndexIDMap) else faiss.IndexIDMap2(index)


def _train(index: Any, vectors: npt.NDArray[Any], seed: int, clone: Clone | None) -> None:
    """Train on a seeded sample; k-means beyond `TRAINING_ROWS_A_CELL` rows a cell only takes longer."""
    wanted = len(vectors)
    cells = cells_of(index)
    if cells is not None:
        cells.cp.seed, cells.cp.min_points_per_centroid = seed, 1
        cells.nprobe = max(1, cells.nlist // PROBED_SHARE)
        wanted = cells.nlist * TRAINING_ROWS_A_CELL
    if index.is_trained:
        return
    sample = np.arange(len(vectors))
    if wanted < len(vectors):
        sample = np.sort(np.random.default_rng(seed).choice(len(vectors), wanted, replace=False))
    try:
        train_index(index, np.ascontiguousarray(vectors[sample], dtype=np.float32), clone)
    except RuntimeError as error:
        raise EmbeddingError(
            f"The index cannot be trained on {len(sample)} vectors ({_first_line(error)}).",
            cause="it has more cells or codes than there are vectors",
            fix="give a smaller index, or none and let the size decide",
        ) from error


def _first_line(error: RuntimeError) -> str:
    """FAISS's own words without the C++ signature in front of them."""
    return (str(error).splitlines() or ["no reason given"])[0].rsplit("Error: ", 1)[-1].strip()
