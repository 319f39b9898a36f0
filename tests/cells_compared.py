"""Whether two indexes hold the same rows in the same cells."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from speech_mining.knn.cells import plain_lists


def assert_same_cells(index: Any, other: Any, *, but_for_rounding: bool) -> None:
    """The same bytes, or the same ids in the same cells and nearly the same codes.

    On some processors the product that rotates a block rounds a row by its place in the block.
    """
    if not but_for_rounding:
        assert faiss.serialize_index(index).tobytes() == faiss.serialize_index(other).tobytes()
        return
    for one, two in zip(_cells(index), _cells(other), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        # of a short code (4 bytes of signs, 8 of factors at 32 dimensions) the ends of both factors may differ
        assert (one[1] == two[1]).mean(dtype=float) > 0.5


def _cells(index: Any) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
    lists: Any = plain_lists(index)
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    return [
        (
            faiss.rev_swig_ptr(lists.get_ids(number), size).copy(),
            faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size).copy(),
        )
        for number, size in enumerate(sizes)
        if size
    ]
