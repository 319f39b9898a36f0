"""The `faiss` engine: IndexFlatIP searched in each direction, the way LASER and stopes do it.

Twice the products of the other engines, and float32 copies of the rows it works on. It is kept as an oracle and as the
road that needs nothing but FAISS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.fp32 import product_error
from speech_mining.knn.engines.protocol import Errors, Sweep
from speech_mining.knn.products import Block, bands, widened
from speech_mining.knn.toplists import TopLists

ROWS_AT_ONCE = 16_384


class Flat:
    """Candidates by FAISS's exhaustive search."""

    name = "faiss"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def row_bytes(self) -> int:
        """Nothing: rows are copied `ROWS_AT_ONCE` at a time."""
        return 0

    def usual_error(self) -> float:
        """A little more than the bound."""
        return 1.01 * product_error(self.dimension)

    def sweep(self, work: Sweep) -> tuple[Errors, Errors]:
        """Search each part of either side with each part of the other; FAISS keeps threads of its own."""
        import faiss

        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(work.crew.threads)
        try:
            for rows in bands(len(work.source), ROWS_AT_ONCE):
                _search_part(work, rows)
        finally:
            faiss.omp_set_num_threads(before)
        error = product_error(self.dimension)
        return np.full(len(work.source), error), np.full(len(work.target), error)


def _search_part(work: Sweep, rows: slice) -> None:
    queries = widened(work.source[rows])
    for columns in bands(len(work.target), ROWS_AT_ONCE):
        base = widened(work.target[columns])
        _offer(queries, base, work.forward, rows, work.target_offset + columns.start)
        work.tally.add(len(queries) * len(base))
        _offer(base, queries, work.backward, columns, work.source_offset + rows.start)


def _offer(queries: Block, base: Block, lists: TopLists, part: slice, offset: int) -> None:
    from speech_mining.knn.kernels import put_all

    if lists.keys.shape[1] == 1:  # closed
        return
    cosines, found = _searched(queries, base, min(lists.kept, len(base)))
    own = lists.part(part)
    put_all(cosines, np.where(found < 0, -1, found + offset), own, lists.kept)
    if len(base) > lists.kept:  # what FAISS did not give is no better than the last that it gave
        np.maximum(own[2], cosines[:, -1], out=own[2])


def _searched(queries: Block, base: Block, count: int) -> tuple[Block, npt.NDArray[np.int64]]:
    import faiss

    index: Any = faiss.IndexFlatIP(base.shape[1])
    index.add(base)
    cosines, found = index.search(queries, count)
    return cosines, found
