"""Similarity search with a known answer: which candidate scores highest, and how many outdo the right one.

Formulas over matrices only: no encoder, no text, no file. The neighbours come from `speech_mining.knn`, the margins
from `speech_mining.mining.margin`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn import Neighbours, both_directions, normalise
from speech_mining.mining.margin import MARGINS, Scores, mean_cosines

Floats: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = npt.NDArray[np.int64]

SCORES = {"ratio": "ratio", "distance": "distance", "cosine": "absolute"}
"""What a candidate can be scored by -> its name in `speech_mining.mining.margin.MARGINS`."""
NEIGHBOURHOOD = 4
"""Neighbours that a margin averages over: what LASER's and stopes' xsim take."""

_POOL = 16
_CANDIDATES_AT_ONCE = 1 << 16
_SCORES_AT_ONCE = 1 << 22  # 32 MiB in float64


@dataclass(frozen=True, eq=False)
class Found:
    """The answer to each query."""

    best: Rows
    """int64 (n,): the candidate found, the right one only where none scores as high."""
    outdone: Rows
    """int64 (n,): other candidates that score as high as the right one or higher, counted up to `depth`."""
    depth: int

    def at(self, k: int) -> npt.NDArray[np.bool_]:
        """Whether the right candidate is among the k best, k from 1 to `depth`: bool (n,).

        Raises:
            SettingsError: k is another.
        """
        if not 1 <= k <= self.depth:
            raise SettingsError(f"k is {k}.", expected=f"1 to {self.depth}, the depth that was searched")
        within: npt.NDArray[np.bool_] = self.outdone < k
        return within


@dataclass(frozen=True, eq=False)
class _Field:
    """Unit rows of both sides, their neighbourhoods' means and the margin's name."""

    queries: Floats
    candidates: Floats
    answers: Rows
    query_means: Scores
    candidate_means: Scores
    margin: str

    def scores(self, cosines: Scores, queries: Any, candidates: Any) -> Scores:
        """Score cosines; what has no defined margin comes last."""
        scored = MARGINS[self.margin](cosines, self.query_means[queries], self.candidate_means[candidates])
        return np.where(np.isnan(scored), -np.inf, scored)


def similarity_search(
    queries: npt.NDArray[Any],
    candidates: npt.NDArray[Any],
    answers: Rows,
    *,
    margin: str = "ratio",
    k: int = NEIGHBOURHOOD,
    depth: int = 5,
) -> Found:
    """Search each query among all candidates; a candidate that scores as high as the right one outdoes it.

    Duquenne, Gong & Schwenk 2021, section 3.1; their eq. 1 is "distance", LASER's and stopes' xsim take "ratio". The
    result is exact: the 16 nearest candidates of a query are scored, and where what lies beyond them could change the
    answer (a bound on its margin says so), that query is compared with every candidate.

    Args:
        queries: float (n, d); rows need not be of unit length.
        candidates: float (m, d); those that no query asks for are distractors.
        answers: int64 (n,), the candidate that is right for each query.
        margin: "ratio", "distance" or "cosine".
        k: neighbours in each direction that a margin averages over.
        depth: how far `Found.outdone` counts.

    Raises:
        EmbeddingError: a side is empty, no matrix, or has a zero or NaN row; an answer names no candidate.
        SettingsError: an unknown margin, k or depth below 1.
    """
    _check(queries, candidates, answers, margin, min(k, depth))
    left, right = normalise(queries, "The queries"), normalise(candidates, "The candidates")
    near = both_directions(left, right, max(_POOL, k, depth + 1))
    means = (
        mean_cosines(near.forward_rows[:, :k], near.forward_cosines[:, :k]),
        mean_cosines(near.backward_rows[:, :k], near.backward_cosines[:, :k]),
    )
    field = _Field(left, right, np.asarray(answers, np.int64), *means, SCORES[margin])
    best, outdone, sure = _among_the_nearest(field, near, depth)
    for rows in _parts(np.flatnonzero(~sure), max(1, _SCORES_AT_ONCE // len(right))):
        best[rows], outdone[rows] = _among_all(field, rows)
    return Found(best, np.minimum(outdone, depth), depth)


def _check(
    queries: npt.NDArray[Any], candidates: npt.NDArray[Any], answers: Rows, margin: str, least_depth: int
) -> None:
    if margin not in SCORES:
        raise SettingsError(f"There is no margin {margin!r}.", expected=f"one of {', '.join(SCORES)}")
    if least_depth < 1:
        raise SettingsError(f"k or depth is {least_depth}.", expected="at least 1")
    if not len(queries) or len(answers) != len(queries):
        raise EmbeddingError(
            f"{len(answers)} answers for {len(queries)} queries.", expected="one for each, and at least one query"
        )
    if min(answers) < 0 or max(answers) >= len(candidates):
        raise EmbeddingError(
            f"Answers name candidates {min(answers)} to {max(answers)}.",
            expected=f"0 to {len(candidates) - 1}",
            cause="the two sides are not aligned row by row",
        )


def _among_the_nearest(field: _Field, near: Neighbours, depth: int) -> tuple[Rows, Rows, npt.NDArray[np.bool_]]:
    """Best candidate, how many outdo the right one, and whether no candidate beyond the nearest can change that."""
    rows, everyone = near.forward_rows, np.arange(near.source_count)[:, None]
    cosines = near.forward_cosines.astype(np.float64)
    scores = np.where(rows >= 0, field.scores(cosines, everyone, rows), -np.inf)
    right = rows == field.answers[:, None]
    own = np.where(right.any(axis=1), np.where(right, scores, -np.inf).max(axis=1), _own_scores(field))
    others = np.where(right, -np.inf, scores)
    outdone = ((others >= own[:, None]) & ~right & (rows >= 0)).sum(axis=1).astype(np.int64)
    place = others.argmax(axis=1)
    highest, chosen = others[everyone[:, 0], place], rows[everyone[:, 0], place]
    beyond = _ceiling(field, cosines[:, -1]) if near.k < near.target_count else np.full(len(rows), -np.inf)
    sure = (beyond < own) | ((outdone >= depth) & (beyond < highest)) | (near.k >= near.target_count)
    return np.where(outdone > 0, chosen, field.answers), outdone, sure


def _own_scores(field: _Field) -> Scores:
    """float64 (n,): what the right candidates score; their cosines are rounded once, as the engine's are."""
    everyone = np.arange(len(field.queries))
    cosines = np.empty(len(everyone), np.float32)
    for rows in _parts(everyone, _CANDIDATES_AT_ONCE):
        left, right = field.queries[rows], field.candidates[field.answers[rows]]
        cosines[rows] = np.einsum("nd,nd->n", left, right, dtype=np.float64)
    return field.scores(cosines.astype(np.float64), everyone, field.answers)


def _ceiling(field: _Field, lowest: Scores) -> Scores:
    """float64 (n,): no candidate farther than `lowest`, the cosine of the last one listed, can score higher."""
    if field.margin == "absolute":
        return lowest
    level_low = (field.query_means + field.candidate_means.min()) / 2
    level_high = (field.query_means + field.candidate_means.max()) / 2
    if field.margin == "distance":
        below: Scores = lowest - level_low
        return below
    # Below a level of 0 a ratio is undefined; just above it, it has no bound.
    level = np.where(lowest >= 0, level_low, level_high)
    ceiling: Scores = np.divide(lowest, level, out=np.full(len(lowest), np.inf), where=level_low > 0)
    return ceiling


def _among_all(field: _Field, rows: Rows) -> tuple[Rows, Rows]:
    """Best candidate and how many outdo the right one, each query compared with every candidate."""
    queries, count = field.queries[rows].astype(np.float64), len(field.candidates)
    cosines = np.empty((len(rows), count), np.float32)
    for start in range(0, count, _CANDIDATES_AT_ONCE):
        part = field.candidates[start : start + _CANDIDATES_AT_ONCE]
        cosines[:, start : start + len(part)] = queries @ part.T.astype(np.float64)
    scores = field.scores(cosines.astype(np.float64), rows[:, None], np.arange(count)[None])
    here = np.arange(len(rows))
    own = scores[here, field.answers[rows]].copy()
    scores[here, field.answers[rows]] = np.nan  # neither as high as itself nor the best of the others
    outdone = (scores >= own[:, None]).sum(axis=1).astype(np.int64)
    scores[here, field.answers[rows]] = -np.inf
    return np.where(outdone > 0, scores.argmax(axis=1), field.answers[rows]), outdone


def _parts(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
