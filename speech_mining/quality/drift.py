"""Whether a corpus moved further from the last accepted one than is allowed.

Mining again after a change of model, margin or cleaning moves every score a little and says nothing; the corpus is only
other than it was. So figures are held against the last accepted ones, and what moved too far is a failed check, which a
person accepts by recording the corpus (`history.record_corpus`). Growth is no fault: only what is lost is judged, and
how the scores are distributed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from speech_mining.quality.history import DECILES
from speech_mining.records import Schema

DRIFT: Schema = {
    "figure": pl.String(),
    "before": pl.Float64(),
    "now": pl.Float64(),
    "moved": pl.Float64(),  # as the tolerance counts it: a share lost, or scores
    "allowed": pl.Float64(),
    "exceeded": pl.Boolean(),
}
_ROUNDING = 1e-12  # a move of exactly what is allowed is allowed


@dataclass(frozen=True)
class DriftTolerance:
    """How far a corpus may move from one materialization to the next.

    Args:
        score_shift: how far the deciles of the scores may move, mean of all nine, in units of the score.
            Chance alone moves it, in 95 of 100 draws, by up to 0.009 with 39 pairs and 0.0023 with 1 000; a tenth of
            39 pairs lost, by 0.003.
        lost_share: share of the pairs, and of the hours of either side, that may be lost.
    """

    score_shift: float = 0.01
    lost_share: float = 0.1


def score_shift(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """Mean absolute difference of the nine deciles of the scores.

    The mean over all quantiles is the Wasserstein distance of the two distributions; nine say as much for a check. It
    has the unit of the score: every pair scored 0.01 higher is a shift of 0.01.
    """
    return sum(abs(now[name] - before[name]) for name in DECILES) / len(DECILES)


def drift(before: Mapping[str, float], now: Mapping[str, float], tolerance: DriftTolerance) -> pl.DataFrame:
    """Hold the figures of a corpus (`history.corpus_figures`) against earlier ones.

    Scores are compared where both have some and were cut at the same threshold: a corpus that is cut higher has higher
    scores and fewer pairs by design. `comparable` tells.

    Returns:
        Columns `DRIFT`, a row a judged figure; none where the two cannot be compared.
    """
    rows = []
    if comparable(before, now):
        for name in ("pairs", "source_hours", "target_hours"):
            if before.get(name):
                lost = max(0.0, 1 - now[name] / before[name])
                rows.append((name, before[name], now[name], lost, tolerance.lost_share))
        if all(name in figures for name in DECILES for figures in (before, now)):
            moved = score_shift(before, now)
            rows.append(("score_shift", before["score_p50"], now["score_p50"], moved, tolerance.score_shift))
    judged = [(*row, not row[3] <= row[4] + _ROUNDING) for row in rows]
    return pl.DataFrame(judged, schema=dict(DRIFT), orient="row")


def comparable(before: Mapping[str, float], now: Mapping[str, float]) -> bool:
    """Whether there is something to compare with, cut at the same threshold."""
    return bool(before) and before["threshold"] == now["threshold"]
