"""How well two sets of vectors find each other: recall at k, by language, and the preference for exact spans.

Formulas only, in plain numpy: no encoder, no file. Row i of one side is the translation of row i of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError

Vectors: TypeAlias = npt.NDArray[np.floating]
Direction: TypeAlias = tuple[str, str]
"""Language of the queries, language of the candidates."""

_ROWS_AT_ONCE = 1024


def recall_at_k(queries: Vectors, candidates: Vectors, k: int = 1) -> float:
    """The share of queries whose own candidate is among the k nearest by cosine.

    R@k = |{i : |{j : cos(q_i, c_j) >= cos(q_i, c_i), j != i}| < k}| / n. A candidate as near as the right one counts
    as nearer: an encoder that gives everything the same vector finds nothing.

    Args:
        queries: float (n, d); rows need not be of unit length.
        candidates: float (m, d), m >= n; row i is the right answer to query i, rows from n on are distractors.
        k: at least 1.

    Returns:
        A share in [0, 1].

    Raises:
        EmbeddingError: the shapes do not fit, there is no query, a row is zero or not finite, or k is below 1.
    """
    queries, candidates = _unit(queries, "queries"), _unit(candidates, "candidates")
    if not 0 < len(queries) <= len(candidates) or queries.shape[1] != candidates.shape[1]:
        raise EmbeddingError(
            f"Queries have shape {queries.shape}, candidates {candidates.shape}.",
            expected="(n, d) and (m, d) with m >= n >= 1",
            cause="the two sides are not aligned row by row",
        )
    if k < 1:
        raise EmbeddingError(f"k is {k}.", expected="at least 1")
    found = 0
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        cosines = queries[start : start + _ROWS_AT_ONCE] @ candidates.T
        right = np.arange(len(cosines))
        own = cosines[right, start + right].copy()
        cosines[right, start + right] = -np.inf
        found += int(np.count_nonzero((cosines >= own[:, None]).sum(axis=1) < k))
    return found / len(queries)


def recall_by_direction(
    queries: Mapping[str, Vectors], candidates: Mapping[str, Vectors], k: int = 1
) -> dict[Direction, float]:
    """Recall at k from each language to each other one, in alphabetical order of both.

    Args:
        queries: by language, float (n, d).
        candidates: by language, float (m, d); row i translates row i of every language's queries.
        k: as in `recall_at_k`.
    """
    return {
        (asked, answered): recall_at_k(queries[asked], candidates[answered], k)
        for asked in sorted(queries)
        for answered in sorted(candidates)
        if asked != answered
    }


def preference(exact: Vectors, altered: Vectors, references: Vectors) -> float:
    """The share of rows where the exact span is nearer to its reference than the altered span is.

    |{i : cos(exact_i, reference_i) > cos(altered_i, reference_i)}| / n; a tie is no preference.

    Args:
        exact: float (n, d), vectors of the right spans.
        altered: float (n, d), of the same spans with a word more or less.
        references: float (n, d), of the translations.

    Raises:
        EmbeddingError: the shapes differ, there is no row, or a row is zero or not finite.
    """
    if not exact.shape == altered.shape == references.shape:
        raise EmbeddingError(
            f"Shapes {exact.shape}, {altered.shape} and {references.shape} differ.", expected="three times (n, d)"
        )
    if not len(exact):
        raise EmbeddingError("There is no span to compare.", expected="at least one row")
    right, wrong, told = _unit(exact, "exact"), _unit(altered, "altered"), _unit(references, "references")
    nearer = (right * told).sum(axis=1) > (wrong * told).sum(axis=1)
    return float(nearer.mean())


def mean_of(recalls: Mapping[Direction, float]) -> float:
    """The plain mean over directions.

    Raises:
        EmbeddingError: there is no direction.
    """
    if not recalls:
        raise EmbeddingError("There is no direction to average over.", expected="at least two languages")
    return sum(recalls.values()) / len(recalls)


def _unit(vectors: Vectors, side: str) -> npt.NDArray[np.float64]:
    if vectors.ndim != 2:
        raise EmbeddingError(f"The {side} have shape {vectors.shape}.", expected="(n, d)")
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise EmbeddingError(
            f"Among the {side} a row is zero or not finite.",
            expected="rows with a direction",
            cause="a rejected item was kept as a row",
        )
    unit: npt.NDArray[np.float64] = wide / lengths
    return unit
