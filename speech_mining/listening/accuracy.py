"""Accuracy by threshold, from judgements: how many of the pairs above a score are right, and how sure that is.

What belongs here is statistics: arrays and counts in, figures out. It draws what the paper's figure 4 draws, and reads
a threshold from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError
from speech_mining.listening.judgements import PARTLY, RIGHT, VERDICTS
from speech_mining.listening.sampling import STEPS, Bands

CONFIDENCE = 0.95
LEAST_JUDGED = 10
"""Fewer judgements than that suggest no threshold: ten right ones of ten are still only 0.72 at least."""
LEAST_COVERED = 0.9
"""Share of the pairs above a threshold whose bands must have been judged before it is suggested."""
_Z = {0.8: 1.2815515655446004, 0.9: 1.6448536269514722, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}


@dataclass(frozen=True)
class Interval:
    """A share and where it may lie."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class AtThreshold:
    """What judgements say of the pairs at and above a score."""

    threshold: float
    judged: int
    right: int
    partly: int
    wrong: int
    pairs: int
    """Pairs at and above it, judged or not, without overlaps."""
    covered: int
    """Those of them whose band has a judgement: the figures speak of these."""
    accuracy: Interval | None
    """Share of right pairs; None where nothing was judged."""


def wilson(share: float, trials: float, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a share: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Wilson 1927, "Probable inference, the law of succession, and statistical inference". Unlike p ± z √(p(1-p)/n) it
    stays within 0 and 1, and has width where every trial went well.

    Args:
        share: of trials that went well, 0 to 1.
        trials: above 0; a fraction where trials weigh unequally (`effective_trials`).
        confidence: 0.8, 0.9, 0.95 or 0.99.

    Raises:
        SettingsError: no trials, a share outside 0 to 1, another confidence.
    """
    if confidence not in _Z or not 0 <= share <= 1 or not trials > 0:
        raise SettingsError(
            f"There is no interval at {confidence} of a share of {share} of {trials} trials.",
            expected=f"a confidence of {', '.join(map(str, _Z))}, a share from 0 to 1, trials above 0",
        )
    z2 = _Z[confidence] ** 2
    centre = share + z2 / (2 * trials)
    reach = math.sqrt(z2) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    scale = 1 + z2 / trials
    return Interval(share, max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale))


def effective_trials(weights: npt.NDArray[np.float64]) -> float:
    """How many equal trials unequally weighing ones are worth: (Σ w)² / Σ w².

    Kish 1965, "Survey Sampling", section 11.7; equal weights give their number.
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def accuracy_by_threshold(
    scores: npt.NDArray[np.float64],
    judged: Mapping[int, str],
    bands: Bands,
    *,
    partly_counts: bool = False,
    confidence: float = CONFIDENCE,
) -> list[AtThreshold]:
    """Share of right pairs at and above every threshold, where bands were judged more or less densely than others.

    Each judgement weighs as many pairs as it stands for: those of its band over those of its band that were judged.
    The share is the weighted one (unbiased whatever the order of listening), and its interval is Wilson's with the
    effective number of trials. Bands without a judgement are left out, and `covered` tells so.

    Args:
        scores: float64 (n,) of all pairs, without overlaps.
        judged: row → verdict, of `VERDICTS`.
        bands: of the scores; their edges are the thresholds.
        partly_counts: whether a pair that is partly right counts as right.
        confidence: of the intervals.

    Returns:
        One a threshold, rising; none where no pair reaches it.
    """
    rows = np.fromiter(judged, np.int64, len(judged))
    verdicts = np.array([VERDICTS.index(judged[row]) for row in judged], np.int64)
    good = verdicts <= VERDICTS.index(PARTLY if partly_counts else RIGHT)
    of_rows = bands.of(scores[rows])
    pairs_in = np.bincount(bands.of(scores), minlength=STEPS + 1)
    judged_in = np.bincount(of_rows, minlength=STEPS + 1)
    weights = pairs_in[of_rows] / judged_in[of_rows]
    found = []
    for band, threshold in enumerate(bands.edges):
        above = of_rows >= band
        right, partly, wrong = (int((verdicts[above] == verdict).sum()) for verdict in range(len(VERDICTS)))
        pairs, covered = int(pairs_in[band:].sum()), int(pairs_in[band:][judged_in[band:] > 0].sum())
        share = _share(weights[above], good[above], confidence) if above.any() else None
        found.append(AtThreshold(threshold, int(above.sum()), right, partly, wrong, pairs, covered, share))
    return [at for at in found if at.pairs]


def _share(weights: npt.NDArray[np.float64], good: npt.NDArray[np.bool_], confidence: float) -> Interval:
    share = float(weights[good].sum() / weights.sum())
    return wilson(min(share, 1.0), effective_trials(weights), confidence)


def suggested_threshold(curve: Sequence[AtThreshold], precision: float) -> AtThreshold | None:
    """The lowest threshold at which the lower bound of the accuracy reaches the wanted precision.

    The lower bound and not the share, so that what is wanted is met 39 times of 40 at 95 %. Only thresholds with
    `LEAST_JUDGED` judgements and nine tenths of their pairs in judged bands are looked at. The bound speaks of each
    threshold alone, not of the lowest of many: where much depends on it, judge a fresh hundred with another seed.

    Args:
        curve: of `accuracy_by_threshold`.
        precision: wanted, 0 to 1.

    Returns:
        Where it lies; None where no lower bound reaches the precision.
    """
    return next((at for at in _told_enough(curve) if at.accuracy and at.accuracy.low >= precision), None)


def most_precise(curve: Sequence[AtThreshold]) -> AtThreshold | None:
    """The threshold with the highest lower bound among those with enough judgements: what can be promised at best."""
    known = _told_enough(curve)
    return max(known, key=lambda at: (at.accuracy.low if at.accuracy else 0.0, -at.threshold), default=None)


def _told_enough(curve: Sequence[AtThreshold]) -> list[AtThreshold]:
    return [at for at in curve if at.judged >= LEAST_JUDGED and at.covered >= LEAST_COVERED * at.pairs]
