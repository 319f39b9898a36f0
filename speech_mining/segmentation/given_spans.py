"""Spans that a user brings: they become segments as they are, held against the recording, never moved.

What belongs here is the check of each span and its place among the others. Where spans are read from is the business
of `speech_mining.sources`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.records import SAMPLE_RATE_HZ

Samples = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RefusedSpan:
    """A span that cannot be a segment of its recording."""

    start: int | None
    end: int | None
    reason: str
    """Of `records.REJECTIONS`: "malformed" or "out_of_range"."""
    detail: str


def checked_spans(
    spans: list[tuple[int | None, int | None]], samples: int
) -> tuple[Samples, Samples, list[RefusedSpan]]:
    """Hold spans against the recording they belong to.

    Args:
        spans: (start, end) in samples, end exclusive, in any order.
        samples: length of the recording, as decoded.

    Returns:
        starts and ends, int64 (kept,), ordered by start, then end, none twice; and what was refused, in the order
        given.
    """
    kept: set[tuple[int, int]] = set()
    refused = []
    for start, end in spans:
        found = _fault(start, end, samples)
        if found is None and (start, end) in kept:
            found = "malformed", f"{start} to {end} is given twice"
        if found is not None:
            refused.append(RefusedSpan(start, end, *found))
        elif start is not None and end is not None:
            kept.add((start, end))
    starts, ends = np.array(sorted(kept), dtype=np.int64).reshape(-1, 2).T
    return starts, ends, refused


def _fault(start: int | None, end: int | None, samples: int) -> tuple[str, str] | None:
    if start is None or end is None:
        return "malformed", f"a span from {start} to {end}: one of the two is missing"
    if start >= end:
        return "malformed", f"a span that starts at sample {start} and ends at {end}: the end must lie behind the start"
    if start < 0 or end > samples:
        return "out_of_range", (
            f"a span of samples {start} to {end} (up to {end / SAMPLE_RATE_HZ:.2f} s) in a recording of {samples} "
            f"samples ({samples / SAMPLE_RATE_HZ:.2f} s)"
        )
    return None


def slots(starts: Samples, ends: Samples) -> tuple[Samples, Samples, Samples]:
    """Number the stretches between neighbouring boundaries, so that overlap is told by integers.

    Two spans share a sample exactly where their ranges of slots share a slot, as with runs of speech.

    Args:
        starts: int64 (spans,).
        ends: int64 (spans,), exclusive, each behind its start.

    Returns:
        boundaries int64 (slots + 1,), increasing, or empty; first and last slot of each span, int64 (spans,).
    """
    boundaries = np.unique(np.concatenate([starts, ends]))
    return boundaries, np.searchsorted(boundaries, starts), np.searchsorted(boundaries, ends) - 1


def merged_spans(starts: Samples, ends: Samples) -> tuple[Samples, Samples]:
    """Join spans that overlap or touch: starts and ends, increasing, of their union. `starts` increases."""
    if not len(starts):
        return starts, ends
    reach = np.maximum.accumulate(ends)
    breaks = np.flatnonzero(starts[1:] > reach[:-1])
    return starts[np.append(0, breaks + 1)], reach[np.append(breaks, len(reach) - 1)]


def speech_before(starts: Samples, ends: Samples, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Samples of speech before each place, from runs of speech: float64 (places,)."""
    if not len(starts):
        return np.zeros(len(places))
    edges = np.stack([starts, ends], axis=1).reshape(-1)
    total = np.concatenate(([0], np.repeat(np.cumsum(ends - starts), 2)[:-1]))
    return np.interp(places, edges, total)
