"""Weighted interval scheduling: of the spans of one side, the set worth most in which no two overlap.

What belongs here is the exact solution for one side and the whole numbers it adds. What a pair is worth, and what
becomes of the other side, is in `selection`. It imports numba, so it is imported by the functions that need it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError
from speech_mining.mining.occupancy import Int32s, Int64s, Slots, compiled, grouped

STEP = 2.0**-30
"""What one unit of a weight is worth, 10⁻⁹ of a score. Whole numbers are added without rounding, so that sets of equal
worth are equal whatever the order in which recordings and pairs are summed."""

_NOBODY = -1


def weights(worth: npt.NDArray[np.float64]) -> Int64s:
    """Turn what each span is worth into whole numbers of `STEP`.

    Args:
        worth: float64 (n,), not negative.

    Returns:
        int64 (n,), of which any sum fits 63 bits.

    Raises:
        SettingsError: something is worth less than nothing, or all of them more than 2^32 together.
    """
    least, total = float(worth.min(initial=0.0)), float(worth.sum())
    if least < 0:
        raise SettingsError(
            f"A pair is worth {least:g}, less than nothing.",
            expected="a floor that no score is below",
            cause="the floor is higher than the threshold of the pairs",
            fix="cut the pairs at the floor, or lower it",
        )
    if not total < 2.0**32:
        raise SettingsError(
            f"The pairs are worth {total:g} together.",
            expected="less than 2^32, as the margins of any corpus are",
            cause="scores that are no margins",
        )
    return np.rint(worth / STEP).astype(np.int64)


def heaviest(offered: Int64s, spans: Slots, weight: Int64s) -> npt.NDArray[np.bool_]:
    """Of the offered spans, a set without overlap of greatest total weight.

    Kleinberg & Tardos 2006, "Algorithm Design", section 6.1, over elementary slots in place of sorted ends: the most
    that fits before a slot is the most before the slot before it, or a span that ends there with the most before its
    beginning. One pass, no search.

    Among sets of equal weight, a span is left out if that loses nothing, and of two that end together with equal
    totals the one offered first is taken; so spans of no weight are never taken.

    Args:
        offered: int64 (m,), indices of spans, in the order that decides between equals.
        spans: of the side, n of them.
        weight: int64 (n,), not negative; their sum fits 63 bits.

    Returns:
        bool (n,), the spans of the set.
    """
    chosen = np.zeros(len(spans.first), np.bool_)
    by_stop, offers = grouped(offered, spans.stop, spans.count)
    _trace_back(_last_spans(by_stop, offers, spans.first, weight), spans.first, chosen)
    return chosen


@compiled
def _last_spans(by_stop: Int64s, offers: Int64s, first: Int32s, weight: Int64s) -> Int64s:
    """For each slot boundary, the span that a heaviest set up to there ends with just there, or `_NOBODY`."""
    boundaries = len(by_stop) - 1
    most, last = np.zeros(boundaries, np.int64), np.full(boundaries, _NOBODY, np.int64)
    for boundary in range(1, boundaries):
        most[boundary] = most[boundary - 1]
        for place in range(by_stop[boundary], by_stop[boundary + 1]):
            span = offers[place]
            total = most[first[span]] + weight[span]
            if total > most[boundary]:
                most[boundary], last[boundary] = total, span
    return last


@compiled
def _trace_back(last: Int64s, first: Int32s, chosen: npt.NDArray[np.bool_]) -> None:
    boundary = len(last) - 1
    while boundary > 0:
        span = last[boundary]
        if span == _NOBODY:
            boundary -= 1
        else:
            chosen[span] = True
            boundary = first[span]
