"""From rough lists to exact ones: score candidates exactly, prove that nobody was missed, search again where not.

An engine hands in, for every query row, candidates chosen by rough products whose error it bounds. The cosine that
counts is the exact product rounded once to float32 (`kernels.rescore`), so results do not depend on the engine, the
block size or the threads. A neighbour is proved when its exact cosine exceeds the value below which candidates were
dropped by more than the error: no row outside the list can then reach it. Queries with fewer proved neighbours than
are wanted are searched again in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.fp32 import product_error
from speech_mining.knn.engines.protocol import Errors, Vectors
from speech_mining.knn.neighbours import Cosines, Rows
from speech_mining.knn.products import Crew, bands, multiply, widened
from speech_mining.knn.toplists import TopLists
from speech_mining.knn.vectors import raw, taken

QUERIES = 256
"""Query rows a thread settles at a time."""
COLUMNS = 1024
"""Base rows they are compared with at a time when they are searched again."""
COPIED_BYTES = 4_000_000
"""Candidates a thread copies at a time, where the base does not lie in one piece."""


@dataclass(frozen=True, eq=False)
class Rough:
    """What an engine found out about some queries."""

    lists: TopLists
    errors: Errors
    """float64 (n,): no rough product is further than this from the exact one."""


@dataclass(frozen=True, eq=False)
class Settled:
    """Exact lists, by decreasing cosine, then increasing row."""

    rows: Rows
    """int64 (n, size); -1 where there is none."""
    cosines: Cosines
    """float32 (n, size); -inf where there is none."""
    depths: npt.NDArray[np.int32]
    """int32 (n,): the first so many are certainly the best of the whole base."""
    searched_again: int
    """Queries whose rough lists did not prove enough."""


def settle(queries: Vectors, base: Vectors, rough: Rough, size: int, crew: Crew, wanted: int | None = None) -> Settled:
    """Turn rough lists into exact ones.

    Args:
        queries: float16 or float32 (n, d), unit rows.
        base: the same, (m, d).
        rough: candidates of each query; their rows are rows of `base`.
        size: length of the exact lists.
        crew: runs the parts.
        wanted: queries with fewer proved neighbours are searched again; None wants all of them proved.
    """
    from speech_mining.knn import kernels  # not in the threads: numba is not safe to import from two at once

    count = len(queries)
    settled = Settled(
        np.empty((count, size), np.int64), np.empty((count, size), np.float32), np.empty(count, np.int32), 0
    )
    for _ in crew.pool.map(
        lambda part: _rescore(queries, base, rough, settled, part, kernels.rescore),
        bands(count, _at_once(base, rough.lists)),
    ):
        pass
    short = np.flatnonzero(settled.depths < min(size if wanted is None else wanted, len(base)))
    for _ in crew.pool.map(
        lambda part: _search_again(queries, base, settled, short[part], kernels.refine),
        bands(len(short), QUERIES, crew.threads),
    ):
        pass
    return Settled(settled.rows, settled.cosines, settled.depths, len(short))


def _at_once(base: Vectors, lists: TopLists) -> int:
    """Queries settled at a time: their candidates are copied where the base does not lie in one piece."""
    if isinstance(base, np.ndarray):
        return QUERIES
    copied: int = lists.keys.shape[1] * base.shape[1] * base.dtype.itemsize
    return max(1, min(QUERIES, COPIED_BYTES // copied))


def _rescore(
    queries: Vectors, base: Vectors, rough: Rough, settled: Settled, part: slice, rescore: Callable[..., None]
) -> None:
    keys, counts, floors = rough.lists.part(part)
    own = settled.cosines[part], settled.rows[part], settled.depths[part]
    if isinstance(base, np.ndarray):
        rescore(raw(queries[part]), raw(base), (keys, counts, floors), rough.errors[part], *own)
        return
    used = np.arange(keys.shape[1]) < counts[:, None]
    named, places = np.unique(_LAST - (keys[used] & _LAST), return_inverse=True)
    keys[used] = (keys[used] & ~_LAST) | (_LAST - places)  # same order, since `named` ascends
    rescore(raw(queries[part]), raw(taken(base, named)), (keys, counts, floors), rough.errors[part], *own)
    found = own[1] >= 0
    own[1][found] = named[own[1][found]]


_LAST = np.int64(0x7FFFFFFF)
"""The lower half of a key is this, less the row."""


def _search_again(
    queries: Vectors, base: Vectors, settled: Settled, short: npt.NDArray[np.intp], refine: Callable[..., None]
) -> None:
    """Go through the whole base; the last cosine already found tells how little needs an exact product."""
    own = taken(queries, short)
    wide = widened(own)
    floor = (settled.cosines[short, -1] - product_error(own.shape[1])).astype(np.float32)
    floor = np.nextafter(floor, np.float32(-np.inf))
    cosines = np.full((len(short), settled.cosines.shape[1]), -np.inf, np.float32)
    rows = np.full(cosines.shape, -1, np.int64)
    for first in range(0, len(base), COLUMNS):
        block = base[first : first + COLUMNS]
        refine(raw(own), raw(block), multiply(wide, widened(block)), first, floor, cosines, rows)
    settled.cosines[short], settled.rows[short] = cosines, rows
    settled.depths[short] = (rows >= 0).sum(1)
