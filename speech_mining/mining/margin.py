"""Scoring candidates against their neighbourhoods.

What belongs here is the formula of each margin and its application to the lists of neighbours, in both directions.
Which candidates are kept is in `strategies`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError
from speech_mining.knn.neighbours import Cosines, Neighbours, Rows

VERSION = "1"
"""Changes whenever a score or the choice of pairs would: the code version of assets made of them."""

Scores: TypeAlias = npt.NDArray[np.float64]


def ratio_margin(cosine: Scores, source_mean: Scores, target_mean: Scores) -> Scores:
    """Compute cosine / ((source_mean + target_mean) / 2).

    Artetxe & Schwenk 2019, "Margin-based parallel corpus mining with multilingual sentence embeddings", section 3.2,
    *ratio*. The threshold 1.06 of speech-to-speech mining belongs to this margin.

    Args:
        cosine: float64, of each candidate, in [-1, 1].
        source_mean: float64, mean cosine of the source row's k neighbours; broadcasts.
        target_mean: the same of the target row.

    Returns:
        float64, unitless, higher is better; NaN where the denominator is not positive, since the order of scores
        would turn round there.
    """
    level = (source_mean + target_mean) / 2
    score: Scores = np.divide(cosine, level, out=np.full(np.broadcast(cosine, level).shape, np.nan), where=level > 0)
    return score


def distance_margin(cosine: Scores, source_mean: Scores, target_mean: Scores) -> Scores:
    """Compute cosine - (source_mean + target_mean) / 2, in [-2, 2]; arguments as for `ratio_margin`.

    Artetxe & Schwenk 2019, section 3.2, *distance*; eq. 1 of Duquenne et al. 2021, "Multimodal and multilingual
    embeddings for large-scale speech mining".
    """
    return cosine - (source_mean + target_mean) / 2


def absolute_margin(cosine: Scores, source_mean: Scores, target_mean: Scores) -> Scores:
    """Return the cosine itself, whatever the neighbourhoods: Artetxe & Schwenk 2019, section 3.2, *absolute*."""
    return np.where(np.isnan(source_mean + target_mean), np.nan, cosine)


MARGINS: dict[str, Callable[[Scores, Scores, Scores], Scores]] = {
    "ratio": ratio_margin,
    "distance": distance_margin,
    "absolute": absolute_margin,
}


@dataclass(frozen=True, eq=False)
class Candidates:
    """Every neighbour in both directions with its score."""

    neighbours: Neighbours
    forward_scores: Scores
    """float64 (n, k), as `neighbours.forward_rows`; NaN where there is no neighbour or its margin is undefined."""
    backward_scores: Scores
    """float64 (m, k), as `neighbours.backward_rows`."""
    count: int
    """Neighbours in the lists of both directions; a pair in both counts twice."""
    undefined: int
    """Those of them whose margin is undefined (`ratio_margin`)."""


def score_candidates(neighbours: Neighbours, margin: str = "ratio") -> Candidates:
    """Score each neighbour of each row, in both directions.

    The means run over the neighbours that exist: min(k, rows of the other side).

    Args:
        neighbours: lists in both directions.
        margin: "ratio", "distance" or "absolute".

    Raises:
        SettingsError: an unknown margin.
    """
    formula = _formula(margin)
    source_mean = mean_cosines(neighbours.forward_rows, neighbours.forward_cosines)
    target_mean = mean_cosines(neighbours.backward_rows, neighbours.backward_cosines)
    forward = _scores(formula, neighbours.forward_rows, neighbours.forward_cosines, source_mean, target_mean)
    backward = _scores(formula, neighbours.backward_rows, neighbours.backward_cosines, target_mean, source_mean)
    count = int((neighbours.forward_rows >= 0).sum() + (neighbours.backward_rows >= 0).sum())
    scored = int(np.isfinite(forward).sum() + np.isfinite(backward).sum())
    return Candidates(neighbours, forward, backward, count, count - scored)


def mean_cosines(rows: Rows, cosines: Cosines) -> Scores:
    """Mean cosine of the neighbours that exist: float64 (n,), NaN for a row that has none.

    Added column by column in float64, so that the sum depends on no library's order of addition.
    """
    total = np.zeros(len(rows), np.float64)
    for column in range(rows.shape[1]):
        total += np.where(rows[:, column] >= 0, cosines[:, column], 0.0)
    count = (rows >= 0).sum(axis=1)
    mean: Scores = np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)
    return mean


def _formula(margin: str) -> Callable[[Scores, Scores, Scores], Scores]:
    if margin not in MARGINS:
        raise SettingsError(f"There is no margin {margin!r}.", expected=f"one of {', '.join(MARGINS)}")
    return MARGINS[margin]


def _scores(
    formula: Callable[[Scores, Scores, Scores], Scores], rows: Rows, cosines: Cosines, own: Scores, others: Scores
) -> Scores:
    """Scores of one direction; the margins are symmetric, so the own side may stand first in both."""
    scores = np.full(rows.shape, np.nan)
    if not len(others):
        return scores
    for column in range(rows.shape[1]):  # a column at a time: an eighth of the memory of whole tables
        found = rows[:, column] >= 0
        scores[found, column] = formula(
            cosines[found, column].astype(np.float64), own[found], others[rows[found, column]]
        )
    return scores
