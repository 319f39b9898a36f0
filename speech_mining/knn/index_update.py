"""Rows taken out of a FAISS index and others put in, without training it again.

Whether an index should still be updated, or has outgrown its training, is for `index_renewal` to say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.knn.cells import fill_index, gpu_clone, plain_lists, put_in_order
from speech_mining.knn.index import check_ids, describe_index
from speech_mining.knn.vectors import check_unit_rows


def update_index(
    index: Any, ids_gone: npt.NDArray[np.int64], vectors_new: npt.NDArray[Any], ids_new: npt.NDArray[np.int64]
) -> None:
    """Take rows out of an index and put others in, without training again.

    The index itself is changed: a copy of the largest ones would not fit beside them. Everything is checked first, so
    that a refused update changes nothing. Where the index has cells, which rows are in which cell afterwards depends on
    its training and on what it holds, not on the order it came in, and so do its bytes where they are float16. RaBitQ
    rotates rows first, and on some processors that product rounds a row by its place in a block: last bits may differ.

    Args:
        index: a trained `faiss.Index`, exhaustive (IDMap) or with cells.
        ids_gone: int64 (m,), ids in the index.
        vectors_new: float16 or float32 (n, d), unit rows.
        ids_new: int64 (n,), not negative, none of them in the index unless it is also among `ids_gone`.

    Raises:
        EmbeddingError: an index that cannot be updated, ids gone that it does not hold, ids new that it holds already,
            vectors that cannot be searched or are of another dimension.
    """
    _check_update(index, ids_gone, vectors_new, ids_new)
    if len(ids_gone):
        index.remove_ids(np.ascontiguousarray(ids_gone))
    fill_index(index, vectors_new, ids_new, gpu_clone(index))
    put_in_order(index)


def can_be_updated(index: Any) -> bool:
    """Whether single rows can be taken out: an exhaustive index under IDMap, or cells that are not packed in blocks."""
    import faiss

    if isinstance(index, faiss.IndexIDMap):
        return isinstance(faiss.downcast_index(index.index), faiss.IndexFlatCodes)
    return plain_lists(index) is not None


def ids_in(index: Any) -> npt.NDArray[np.int64]:
    """Ids of the rows of an index that can be updated, int64 (n,), in no order.

    Raises:
        EmbeddingError: it cannot.
    """
    import faiss

    if not can_be_updated(index):
        raise EmbeddingError(
            f"An index of type {describe_index(index)['type']} cannot be updated.",
            expected="an exhaustive index under IDMap or IDMap2, or one with inverted lists",
            cause="FAISS cannot take single rows out of this type, or packs them in blocks",
            fix="build it again",
        )
    if isinstance(index, faiss.IndexIDMap):
        return np.asarray(faiss.vector_to_array(index.id_map), dtype=np.int64)
    lists: Any = plain_lists(index)
    held = [(number, lists.list_size(number)) for number in range(lists.nlist)]
    parts = [faiss.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in held if size]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _check_update(
    index: Any, ids_gone: npt.NDArray[np.int64], vectors_new: npt.NDArray[Any], ids_new: npt.NDArray[np.int64]
) -> None:
    held = ids_in(index)
    check_unit_rows(vectors_new, "The matrix of new vectors")
    check_ids(ids_new, len(vectors_new))
    check_ids(ids_gone, len(ids_gone))
    if vectors_new.shape[1] != index.d:
        raise EmbeddingError(
            f"New vectors have {vectors_new.shape[1]} values, those of the index {index.d}.",
            cause="they come from another encoder",
            fix="build the index again from vectors of one encoder",
        )
    absent = ids_gone[~np.isin(ids_gone, held)]
    if len(absent):
        raise EmbeddingError(
            f"{len(absent)} of {len(ids_gone)} ids to remove are not in the index, such as {absent[0]}.",
            cause="they were removed before, or the index is of another language",
            fix="build the index again",
        )
    twice = ids_new[np.isin(ids_new, np.setdiff1d(held, ids_gone))]
    if len(twice):
        raise EmbeddingError(
            f"{len(twice)} of {len(ids_new)} ids to add are in the index already, such as {twice[0]}.",
            cause="a block was added twice",
            fix="remove the old rows in the same update",
        )
