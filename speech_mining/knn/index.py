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
from speech_mining.knn.vectors import check_unit_rows

EXHAUSTIVE_ROWS = 200_000
"""Up to here every row is compared with the query; beyond, only the cells near it."""
EXHAUSTIVE_FACTORY = "IDMap2,SQfp16"
"""float16 rows stored as they are: lossless, so a search is exact, at half the size of Flat."""
ROWS_A_CELL = 256
TRAINING_ROWS_A_CELL = 64
PROBED_SHARE = 32
"""One cell in this many is probed, unless the reader of the index sets nprobe."""
ADDED_AT_ONCE = 1 << 16


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
    _check_ids(ids, len(vectors))
    index = _untrained(vectors.shape[1], factory or choose_factory(len(vectors)))
    _train(index, vectors, seed)
    for first in range(0, len(vectors), ADDED_AT_ONCE):
        part = slice(first, first + ADDED_AT_ONCE)
        index.add_with_ids(_float32(vectors[part]), np.ascontiguousarray(ids[part]))
    return index


def choose_factory(rows: int) -> str:
    """The index type for so many rows: every row compared up to `EXHAUSTIVE_ROWS`, inverted lists of float16 beyond."""
    if rows <= EXHAUSTIVE_ROWS:
        return EXHAUSTIVE_FACTORY
    return f"IVF{1 << round(np.log2(rows / ROWS_A_CELL))},SQfp16"


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
    cells = faiss.try_extract_index_ivf(index)
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


def _check_ids(ids: npt.NDArray[np.int64], rows: int) -> None:
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
    inverted = faiss.try_extract_index_ivf(index) is not None
    return index if inverted or isinstance(index, faiss.IndexIDMap) else faiss.IndexIDMap2(index)


def _train(index: Any, vectors: npt.NDArray[Any], seed: int) -> None:
    """Train on a seeded sample; k-means beyond `TRAINING_ROWS_A_CELL` rows a cell only takes longer."""
    import faiss

    wanted = len(vectors)
    cells = faiss.try_extract_index_ivf(index)
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
        index.train(_float32(vectors[sample]))
    except RuntimeError as error:
        raise EmbeddingError(
            f"The index cannot be trained on {len(sample)} vectors ({_first_line(error)}).",
            cause="it has more cells or codes than there are vectors",
            fix="give a smaller index, or none and let the size decide",
        ) from error


def _float32(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _first_line(error: RuntimeError) -> str:
    """FAISS's own words without the C++ signature in front of them."""
    return (str(error).splitlines() or ["no reason given"])[0].rsplit("Error: ", 1)[-1].strip()
