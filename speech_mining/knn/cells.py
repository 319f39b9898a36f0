"""The cells of an inverted index: trained, filled, and put in an order that does not depend on how they were filled.

A GPU, where there is one, finds the nearest centroid of each row, in k-means and in adding, which is nearly all the
work; the index itself stays in this machine's memory, so that every type can be built with one and is written alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Clone: TypeAlias = Callable[[Any], Any]
"""Takes a flat index of centroids to where it is searched fast."""

ADDED_AT_ONCE = 1 << 12
"""Rows whose cells are found together; the last ones are filled up to as many. A matrix product of one shape rounds
each row alike wherever it stands, while one of another shape does not: 64 of 64 rows of 1024, rotated alone, differed
in their last digits from the same rows rotated together, and an update would not give the bytes of a rebuild."""


def cells_of(index: Any) -> Any | None:
    """The inverted index inside an index, or None where it has no cells."""
    import faiss

    found = faiss.try_extract_index_ivf(index)
    return None if found is None else faiss.downcast_index(found)


def gpu_clone(index: Any) -> Clone | None:
    """What takes the index's centroids to the first GPU; None without one, or where they are not a flat index."""
    import faiss

    cells = cells_of(index)
    if not faiss.get_num_gpus() or cells is None or not _has_flat_centroids(cells):
        return None
    return lambda flat: faiss.index_cpu_to_gpus_list(flat, gpus=[0])


def train_index(index: Any, sample: npt.NDArray[np.float32], clone: Clone | None) -> None:
    """Train an index, its k-means with the help of `clone`.

    Args:
        index: a `faiss.Index`, changed in place.
        sample: float32 (n, d), C-contiguous.
        clone: as `gpu_clone` gives it.

    Raises:
        RuntimeError: FAISS's own, where the sample is too small.
    """
    import faiss

    cells = cells_of(index)
    if cells is None or clone is None:
        index.train(sample)
        return
    searched = clone(faiss.IndexFlat(cells.d, cells.metric_type))
    cells.clustering_index = searched
    try:
        index.train(sample)
    finally:
        cells.clustering_index = None


def fill_index(index: Any, vectors: npt.NDArray[Any], ids: npt.NDArray[np.int64], clone: Clone | None) -> None:
    """Add rows to a trained index, their cells found with the help of `clone`.

    Args:
        index: a `faiss.Index`, changed in place.
        vectors: float16 or float32 (n, d).
        ids: int64 (n,).
        clone: as `gpu_clone` gives it.
    """
    import faiss

    cells = None if isinstance(index, faiss.IndexIDMap) else cells_of(index)
    searched = None if cells is None else cells.quantizer if clone is None else clone(cells.quantizer)
    for first in range(0, len(vectors), ADDED_AT_ONCE):
        part = slice(first, first + ADDED_AT_ONCE)
        rows, names = np.ascontiguousarray(vectors[part], dtype=np.float32), np.ascontiguousarray(ids[part])
        if cells is None:
            index.add_with_ids(rows, names)
        else:
            _add_to_cells(index, cells, searched, rows, names)


def put_in_order(index: Any) -> None:
    """Sort every cell by id, so that the bytes depend on what is in the index, not on the order it came in.

    FAISS appends what is added and moves the last entry into the place of one removed. Cells that FAISS packs in blocks
    (types ending in fs) are left as they are.
    """
    lists = plain_lists(index)
    if lists is not None:
        for number in range(lists.nlist):
            _sort_cell(lists, number)


def plain_lists(index: Any) -> Any | None:
    """The inverted lists whose entries can be moved one by one, or None where the index has no such lists."""
    import faiss

    cells = cells_of(index)
    lists = None if cells is None else faiss.downcast_InvertedLists(cells.invlists)
    return lists if isinstance(lists, faiss.ArrayInvertedLists) else None


def _has_flat_centroids(cells: Any) -> bool:
    import faiss

    return isinstance(faiss.downcast_index(cells.quantizer), faiss.IndexFlat)


def _sort_cell(lists: Any, number: int) -> None:
    import faiss

    size = lists.list_size(number)
    if size < 2:
        return
    ids = faiss.rev_swig_ptr(lists.get_ids(number), size).copy()
    codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size).reshape(size, -1)
    order = np.argsort(ids)
    sorted_ids, sorted_codes = ids[order], codes[order]
    lists.update_entries(number, 0, size, faiss.swig_ptr(sorted_ids), faiss.swig_ptr(sorted_codes))


def _add_to_cells(
    index: Any, cells: Any, searched: Any, rows: npt.NDArray[np.float32], ids: npt.NDArray[np.int64]
) -> None:
    """Add up to `ADDED_AT_ONCE` rows, rotated as the index asks for, to the cells whose centroids are nearest."""
    import faiss

    filled = np.zeros((ADDED_AT_ONCE, rows.shape[1]), np.float32)
    filled[: len(rows)] = rows
    if isinstance(index, faiss.IndexPreTransform):
        steps: Any = index.chain
        for step in range(steps.size()):
            filled = steps.at(step).apply(filled)
    nearest = np.ascontiguousarray(searched.search(filled, 1)[1][: len(rows), 0])
    cells.add_core(len(rows), faiss.swig_ptr(filled), faiss.swig_ptr(ids), faiss.swig_ptr(nearest))
    index.ntotal = cells.ntotal
