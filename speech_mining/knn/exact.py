"""Exact k nearest neighbours in both directions.

The door is `both_directions`; behind it stand engines that give the same bytes and differ in speed:

- `fp32`: one pass over the products; each block is folded into the lists of its rows and of its columns.
- `faiss`: two searches of an IndexFlatIP, the way LASER and stopes do it; kept as an oracle.

Vectors are in memory or memory-mapped by the caller; nothing is read from or written to disk here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn.neighbours import Cosines, Neighbours, Rows
from speech_mining.knn.products import Tiling, available_threads, multiply, tiling, widened, workers
from speech_mining.knn.settle import RoughLists, product_error, settle
from speech_mining.knn.vectors import Matrix, check_unit_rows
from speech_mining.progress import Progress, silent

ENGINES = ("auto", "fp32", "faiss")
SLACK = 8
"""Candidates kept beyond k, so that the certificate of `settle` holds: at k = 16 the cosines of places 16 and 24 are
typically 0.003 apart, the error bound at d = 1024 is 0.00006."""


@dataclass(frozen=True, eq=False)
class Search:
    """What an engine is asked: rough lists of `width` candidates in both directions."""

    source: Matrix
    target: Matrix
    width: int
    threads: int
    tiles: Tiling
    progress: Progress


def both_directions(
    source: Matrix,
    target: Matrix,
    k: int = 16,
    *,
    engine: str = "auto",
    memory_gb: float | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Neighbours:
    """Find the k nearest target rows of each source row, and the k nearest source rows of each target row.

    The cosine is the exact product of the two stored rows, rounded once to float32; lists are sorted by decreasing
    cosine, then increasing row. All engines, thread counts and block sizes give the same bytes.

    Args:
        source: float16 or float32 (n, d), unit rows, an array or a memory map.
        target: the same, (m, d).
        k: neighbours in each direction; where the other side has fewer, the rest is missing (-1, -inf).
        engine: "auto" (fastest one this machine can run), "fp32" or "faiss".
        memory_gb: working memory in 10^9 bytes besides the two matrices; None takes the fastest block size. The
            faiss engine copies both matrices to float32 on top.
        threads: cores to use; None takes all this process may use.
        progress: told products computed so far, of n * m (faiss: twice that).

    Raises:
        EmbeddingError: not two matrices of one dimension with finite rows of unit length; rows at fault are named.
        SettingsError: an unknown engine, k, threads or memory that cannot work.
    """
    _check_request(engine, k, memory_gb, threads)
    _check_matrices(source, target)
    chosen, reason = choose_engine(engine)
    threads = threads or available_threads()
    width = k + SLACK
    kept = (len(source) + len(target)) * (8 * width + 12 * k)
    tiles = tiling(memory_gb, kept, source.shape[1], threads)
    search = Search(source, target, width, threads, tiles, progress)
    with workers(threads) as pool:
        forward, backward = _ROUGH[chosen](search, pool)
        forward_rows, forward_cosines, _ = settle(source, target, forward, k, pool)
        backward_rows, backward_cosines, _ = settle(target, source, backward, k, pool)
    return Neighbours(forward_rows, forward_cosines, backward_rows, backward_cosines, chosen, reason)


def choose_engine(engine: str) -> tuple[str, str]:
    """Name the engine that will run, and why."""
    if engine == "auto":
        return "fp32", "auto took fp32: of the exact engines on a CPU it is the faster one, half of faiss's products"
    return engine, f"{engine} was asked for"


def _check_request(engine: str, k: int, memory_gb: float | None, threads: int | None) -> None:
    if engine not in ENGINES:
        raise SettingsError(f"There is no engine {engine!r}.", expected=f"one of {', '.join(ENGINES)}")
    if k < 1:
        raise SettingsError(f"k is {k}.", expected="at least one neighbour")
    if threads is not None and threads < 1:
        raise SettingsError(f"threads is {threads}.", expected="at least one, or none given to use all cores")
    if memory_gb is not None and not memory_gb > 0:
        raise SettingsError(f"memory_gb is {memory_gb}.", expected="a positive number of gigabytes")


def _check_matrices(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    check_unit_rows(source, "The source matrix")
    check_unit_rows(target, "The target matrix")
    if source.shape[1] != target.shape[1]:
        raise EmbeddingError(
            f"The source rows have {source.shape[1]} values, the target rows {target.shape[1]}.",
            expected="one dimension on both sides",
            cause="the two sides were embedded by different encoders",
            fix="embed both with the same encoder",
        )
    if max(len(source), len(target)) >= 2**31:
        raise EmbeddingError(f"{max(len(source), len(target))} rows on one side.", expected="fewer than 2^31")


def _empty_lists(search: Search) -> tuple[RoughLists, RoughLists]:
    error = product_error(search.source.shape[1])
    forward, backward = (
        RoughLists(
            np.full((count, search.width), -np.inf, np.float32), np.full((count, search.width), -1, np.int32), error
        )
        for count in (len(search.source), len(search.target))
    )
    return forward, backward


class _Tally:
    """Adds up products from several threads for one listener."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._lock, self._done, self._total, self._progress = threading.Lock(), 0, total, progress

    def add(self, products: int) -> None:
        with self._lock:
            self._done += products
            self._progress(self._done, self._total)


def _one_pass(search: Search, pool: ThreadPoolExecutor) -> tuple[RoughLists, RoughLists]:
    """Multiply every block once; a thread owns the columns it works on and borrows rows by a lock."""
    from speech_mining.knn.fold import fold  # not in the threads: numba is not safe to import from two at once

    forward, backward = _empty_lists(search)
    bands = _bands(len(search.source), search.tiles.rows, 1)
    locks = [threading.Lock() for _ in bands]
    tally = _Tally(len(search.source) * len(search.target), search.progress)

    def fold_column(number: int, columns: slice) -> None:
        right = widened(search.target[columns])
        column_lists = (backward.products[columns], backward.rows[columns], backward.products[columns, -1].copy())
        # threads start at different bands, so that they seldom want the same rows
        start = number * len(bands) // search.threads
        for turn in range(len(bands)):
            band = (start + turn) % len(bands)
            rows = bands[band]
            products = multiply(widened(search.source[rows]), right)
            with locks[band]:
                row_lists = (forward.products[rows], forward.rows[rows])
                fold(products, row_lists, column_lists, rows.start, columns.start)
            tally.add(products.size)

    stripes = _bands(len(search.target), search.tiles.columns, search.threads)
    for _ in pool.map(fold_column, range(len(stripes)), stripes):
        pass
    return forward, backward


def _bands(count: int, most: int, threads: int) -> list[slice]:
    """Cut `count` rows in near-equal parts of at most `most`, as many for each thread."""
    if not count:
        return []
    parts = min(count, threads * -(-count // (most * threads)))
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(first, stop) for first, stop in pairwise(edges)]


def _two_searches(search: Search, pool: ThreadPoolExecutor) -> tuple[RoughLists, RoughLists]:
    """Search an IndexFlatIP in each direction; FAISS keeps threads of its own."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(search.threads)
    tally = _Tally(2 * len(search.source) * len(search.target), search.progress)
    try:
        forward = _flat_search(search.source, search.target, search.width, tally)
        backward = _flat_search(search.target, search.source, search.width, tally)
    finally:
        faiss.omp_set_num_threads(before)
    return forward, backward


def _flat_search(queries: Matrix, base: Matrix, width: int, tally: _Tally) -> RoughLists:
    import faiss

    index = faiss.IndexFlatIP(base.shape[1])
    index.add(widened(base))
    found: tuple[Cosines, Rows] = (
        index.search(widened(queries), width) if len(base) and len(queries) else _none(len(queries), width)
    )
    tally.add(len(queries) * len(base))
    products = np.where(found[1] < 0, np.float32(-np.inf), found[0])
    return RoughLists(products, found[1].astype(np.int32), product_error(base.shape[1]))


def _none(count: int, width: int) -> tuple[Cosines, Rows]:
    return np.full((count, width), -np.inf, np.float32), np.full((count, width), -1, np.int64)


_ROUGH: dict[str, Callable[[Search, ThreadPoolExecutor], tuple[RoughLists, RoughLists]]] = {
    "fp32": _one_pass,
    "faiss": _two_searches,
}
