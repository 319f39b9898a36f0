"""From rough lists to exact ones: score candidates exactly, prove that nobody was missed, search again where not.

An engine hands in, for every query row, a list a little longer than k, chosen by rough products whose error is
bounded. The cosine that counts is the exact product rounded once to float32 (`fold`), so results do not depend on the
engine, the block size or the threads. A row is certified when its exact k-th cosine exceeds the last rough one by
more than the error bound: no row outside the list can then reach it. The others are searched again in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.knn.neighbours import Cosines, Rows
from speech_mining.knn.products import BLOCK_COLUMNS, multiply, widened

QUERIES = 256
"""Query rows a thread settles at a time."""


@dataclass(frozen=True, eq=False)
class RoughLists:
    """The best candidates of each query by rough products, sorted by decreasing product."""

    products: npt.NDArray[np.float32]
    """float32 (n, w), -inf where there is no candidate."""
    rows: npt.NDArray[np.int32]
    """int32 (n, w), -1 where there is none."""
    error: float
    """No rough product is further than this from the cosine."""


@dataclass(frozen=True, eq=False)
class _Side:
    """What a thread needs to settle some queries."""

    queries: npt.NDArray[Any]
    base: npt.NDArray[Any]
    lists: RoughLists
    cosines: Cosines
    rows: Rows


def product_error(dimension: int) -> float:
    """Bound on |float32 product - cosine| of unit rows, whatever the order of addition.

    Higham, "Accuracy and stability of numerical algorithms", 2nd ed., eq. 3.5: dimension * 2^-24 * |x||y|, with room
    for the second-order term, for lengths that are not quite 1 and for the cosine's own rounding.
    """
    return (dimension + 8) * 2.0**-24 * 1.02


def settle(
    queries: npt.NDArray[Any], base: npt.NDArray[Any], lists: RoughLists, k: int, pool: Executor
) -> tuple[Rows, Cosines, int]:
    """Turn rough lists into the exact k nearest rows of each query.

    Args:
        queries: float16 or float32 (n, d), unit rows.
        base: the same, (m, d).
        lists: candidates of each query; at least min(k, m) of them.
        k: neighbours wanted.
        pool: runs the parts.

    Returns:
        int64 (n, k) rows, float32 (n, k) cosines, and how many queries had to be searched again.
    """
    from speech_mining.knn import fold  # not in the threads: numba is not safe to import from two at once

    side = _Side(
        queries, raw(base), lists, np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    )
    for _ in pool.map(lambda part: _rescore(side, part, fold.rescore), _parts(len(queries))):
        pass
    doubtful = _uncertified(side, k)
    for _ in pool.map(lambda part: _search_again(side, doubtful[part], fold.refine), _parts(len(doubtful))):
        pass
    return side.rows, side.cosines, len(doubtful)


def raw(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view for compiled code, float16 as its bits; a copy only where rows are not contiguous."""
    view = np.ascontiguousarray(matrix).view(np.ndarray)
    view = view.view(np.uint16) if view.dtype == np.float16 else view[:]
    view.flags.writeable = False  # one compiled version for arrays and memory maps
    return view


def _parts(count: int) -> Iterator[slice]:
    return (slice(first, first + QUERIES) for first in range(0, count, QUERIES))


def _rescore(side: _Side, part: slice, rescore: Callable[..., None]) -> None:
    rescore(raw(side.queries[part]), side.base, side.lists.rows[part], side.cosines[part], side.rows[part])


def _uncertified(side: _Side, k: int) -> npt.NDArray[np.intp]:
    """Queries whose k-th neighbour might be outside the list."""
    if side.lists.rows.shape[1] >= len(side.base):
        return np.empty(0, np.intp)
    reach = side.lists.products[:, -1].astype(np.float64) + side.lists.error
    return np.flatnonzero(~(side.cosines[:, k - 1] > reach))


def _search_again(side: _Side, doubtful: npt.NDArray[np.intp], refine: Callable[..., None]) -> None:
    """Go through the whole base; the k-th cosine already found tells how little needs an exact product."""
    own = side.queries[doubtful]
    wide = widened(own)
    floor = (side.cosines[doubtful, -1] - product_error(own.shape[1])).astype(np.float32)
    floor = np.nextafter(floor, np.float32(-np.inf))
    cosines = np.full((len(doubtful), side.cosines.shape[1]), -np.inf, np.float32)
    rows = np.full(cosines.shape, -1, np.int64)
    for first in range(0, len(side.base), BLOCK_COLUMNS):
        block = side.base[first : first + BLOCK_COLUMNS]
        products = multiply(wide, widened(block.view(np.float16) if block.dtype == np.uint16 else block))
        refine(raw(own), block, products, first, floor, cosines, rows)
    side.cosines[doubtful], side.rows[doubtful] = cosines, rows
