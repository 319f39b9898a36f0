"""Search an index of rough codes for more than is wanted, and compare those exactly with the vectors themselves.

The vectors stay where they are, in the lake's float16 memory maps: FAISS's own refinement would keep them a second time
inside the index.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.knn.index_types import REFINE_FACTOR
from speech_mining.knn.neighbours import MISSING_COSINE, MISSING_ROW
from speech_mining.knn.vectors import Matrix

Int64s: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]

COMPARED_VALUES = 1 << 22
"""Values compared at once: 16 MiB in float32."""


class RowsOfIds:
    """In which row the vector of an id stands.

    Args:
        ids: int64 (n,), no two equal: the id of every row.
    """

    def __init__(self, ids: Int64s) -> None:
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def __call__(self, ids: Int64s) -> Int64s:
        """Rows of ids, of the same shape; -1, no neighbour, stays -1.

        Raises:
            EmbeddingError: an id names no row.
        """
        rows = np.full(ids.shape, MISSING_ROW, np.int64)
        present = ids != MISSING_ROW
        wanted = ids[present]
        places = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        unknown = np.ones(len(wanted), bool) if not len(self._sorted) else self._sorted[places] != wanted
        if unknown.any():
            raise EmbeddingError(
                f"The index answers with id {wanted[unknown][0]}, which is no row's.",
                expected="an index and vectors of the same generation",
                cause="the vectors were made again since the index was built",
                fix="materialize the index again",
            )
        rows[present] = self._order[places]
        return rows


def refined_search(
    index: Any,
    vectors: Matrix,
    rows_of_ids: RowsOfIds,
    queries: Matrix,
    k: int,
    *,
    factor: int = REFINE_FACTOR,
    parameters: Any = None,
) -> tuple[Floats, Int64s]:
    """The k best of the k * factor rows that an index proposes, by exact cosine.

    Args:
        index: a `faiss.Index` that answers with ids.
        vectors: float16 or float32 (n, d), unit rows, an array or a memory map: what the index was built of.
        rows_of_ids: which of these rows an id names.
        queries: float16 or float32 (q, d), unit rows.
        k: neighbours of each query.
        factor: candidates compared for each neighbour wanted.
        parameters: FAISS's search parameters (probes, a selection of ids); None takes the index's own.

    Returns:
        float32 (q, k) cosines, decreasing, -inf where fewer than k were found; int64 (q, k) ids, or -1. Equal cosines
        stand by increasing row.

    Raises:
        EmbeddingError: the index answers with an id that is no row's, or k or factor are below 1.
    """
    if k < 1 or factor < 1:
        raise EmbeddingError(f"Refinement of {k} neighbours from {factor} times as many.", expected="both at least 1")
    proposed = index.search(np.ascontiguousarray(queries, dtype=np.float32), k * factor, params=parameters)[1]
    rows = rows_of_ids(proposed)
    cosines = cosines_with(vectors, rows, queries)
    best = np.lexsort((rows, -cosines), axis=1)[:, :k]
    return np.take_along_axis(cosines, best, axis=1), np.take_along_axis(proposed, best, axis=1)


def cosines_with(vectors: Matrix, rows: Int64s, queries: Matrix) -> Floats:
    """Cosines of each query with its own rows.

    Args:
        vectors: float16 or float32 (n, d), unit rows.
        rows: int64 (q, m), or -1.
        queries: float16 or float32 (q, d), unit rows.

    Returns:
        float32 (q, m), -inf where the row is -1.
    """
    cosines = np.full(rows.shape, MISSING_COSINE, np.float32)
    step = max(1, COMPARED_VALUES // max(1, rows.shape[1] * vectors.shape[1]))
    for first in range(0, len(rows) if len(vectors) else 0, step):
        part = slice(first, first + step)
        near = vectors[np.maximum(rows[part], 0)].astype(np.float32)
        # einsum adds each row up alike wherever it stands, so that equal rows tie; a matrix product does not
        products = np.einsum("qmd,qd->qm", near, queries[part].astype(np.float32))
        cosines[part] = np.where(rows[part] >= 0, products, MISSING_COSINE)
    return cosines
