"""Which spans are candidates: every one between two silences whose length is right ("over-segmentation").

What belongs here is arithmetic on run boundaries: which runs a span joins, how much of it is speech, how much speech
the spans reach. No audio, no files. The rule is that of Duquenne, Gong & Schwenk 2021, "Multimodal and multilingual
embeddings for large-scale speech mining": all spans of 3 to 20 s that begin and end in a silence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int64]


def candidate_spans(
    begins: Samples, finishes: Samples, shortest: int, longest: int, breaks: npt.NDArray[np.bool_] | None = None
) -> tuple[Samples, Samples]:
    """List every (first run, last run) whose span is neither too short nor too long.

    Two binary searches for each first run, no loop: 194 000 spans of 9.8 hours in 5 ms.

    Args:
        begins: int64 (runs,), where a span that begins with the run begins; increasing.
        finishes: int64 (runs,), where a span that ends with the run ends; increasing.
        shortest: least length of a span, inclusive, in the unit of `begins`.
        longest: greatest length, inclusive.
        breaks: bool (runs,), true where no span may reach from the run into the next one; None: nowhere.

    Returns:
        first and last, int64 (spans,) each, ordered by first, then last.
    """
    count = len(begins)
    indices = np.arange(count)
    lowest = np.maximum(np.searchsorted(finishes, begins + shortest, side="left"), indices)
    highest = np.searchsorted(finishes, begins + longest, side="right")
    if breaks is not None and count:
        ends = np.append(np.flatnonzero(breaks[:-1]), count - 1) + 1
        highest = np.minimum(highest, ends[np.searchsorted(ends, indices, side="right")])
    each = np.maximum(highest - lowest, 0)
    first = np.repeat(indices, each)
    offset = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    return first.astype(np.int64), (np.repeat(lowest, each) + offset).astype(np.int64)


def long_gaps(starts: Samples, ends: Samples, max_gap: int) -> npt.NDArray[np.bool_]:
    """Mark the runs that are followed by a silence longer than `max_gap`: bool (runs,), the last one false."""
    marked = np.zeros(len(starts), dtype=bool)
    marked[:-1] = starts[1:] - ends[:-1] > max_gap
    return marked


def speech_within(starts: Samples, ends: Samples, first: Samples, last: Samples) -> Samples:
    """Count the samples of speech in each span: int64 (spans,)."""
    total = np.concatenate(([0], np.cumsum(ends - starts)))
    return np.asarray(total[last + 1] - total[first], dtype=np.int64)


def covered_runs(count: int, first: Samples, last: Samples) -> npt.NDArray[np.bool_]:
    """Mark the runs that at least one span holds: bool (count,)."""
    steps = np.zeros(count + 1, dtype=np.int64)
    np.add.at(steps, first, 1)
    np.add.at(steps, last + 1, -1)
    return np.cumsum(steps)[:count] > 0
