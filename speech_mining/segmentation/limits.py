"""Fewer candidates where there are too many: the best silences first, and no speech lost.

What belongs here is the choice among spans that are all candidates by length. Over-segmentation grows with the square
of the silences, and every candidate is embedded: a user may cap what an hour, or one start, may cost.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int64]


def span_pauses(starts: Samples, ends: Samples, samples: int, first: Samples, last: Samples) -> tuple[Samples, Samples]:
    """Length of the silence before and after each span, in samples.

    The pieces of a split run have no silence between them. The two ends of a recording are as good as any silence,
    so that what touches them counts as the whole recording.

    Args:
        starts: int64 (runs,), first samples of the runs.
        ends: int64 (runs,), exclusive.
        samples: length of the recording.
        first: int64 (spans,), first run of each span.
        last: int64 (spans,), last run of each span.
    """
    gaps = np.concatenate(([samples], starts[1:] - ends[:-1], [samples])) if len(starts) else np.zeros(1, np.int64)
    return gaps[first], gaps[last + 1]


def covering_spans(first: Samples, last: Samples) -> npt.NDArray[np.int64]:
    """Choose the fewest spans that hold every run which any span holds.

    From left to right: of the spans that hold the next run not yet held, the one that reaches furthest.

    Args:
        first: int64 (spans,), ordered by first, then last.
        last: int64 (spans,).

    Returns:
        int64, positions of the chosen spans, increasing; no two of them begin with the same run.
    """
    longest = np.flatnonzero(first != np.append(first[1:], -1)).tolist()  # of the spans of each first run
    chosen: list[int] = []
    held, place = -1, 0
    while place < len(longest):
        wanted = max(held + 1, int(first[longest[place]]))
        best = longest[place]
        while place < len(longest) and first[longest[place]] <= wanted:
            best = max(best, longest[place], key=lambda position: int(last[position]))
            place += 1
        if last[best] > held:
            chosen.append(best)
            held = int(last[best])
    return np.array(chosen, dtype=np.int64)


def limited_spans(
    first: Samples, last: Samples, pauses: tuple[Samples, Samples], *, max_ends: int | None, most: int | None
) -> npt.NDArray[np.bool_]:
    """Mark the spans to keep: those that cover the speech, then those between the longest silences.

    Spans are ranked by the shorter of their two silences, then by both together, then by place. What no other kept
    span covers is kept whatever the limits say, so that the speech covered stays the same.

    Args:
        first: int64 (spans,), ordered by first, then last.
        last: int64 (spans,).
        pauses: see `span_pauses`.
        max_ends: spans kept for one first run, at least one; None: all.
        most: spans kept in all; None: all.

    Returns:
        bool (spans,).
    """
    needed = np.zeros(len(first), dtype=bool)
    needed[covering_spans(first, last)] = True
    before, after = pauses
    order = np.lexsort((last, first, -(before + after), -np.minimum(before, after), ~needed))
    if max_ends is not None:
        order = order[_place_within(first[order]) < max_ends]
    if most is not None:
        order = order[: max(most, int(np.count_nonzero(needed)))]
    kept = np.zeros(len(first), dtype=bool)
    kept[order] = True
    return kept


def _place_within(groups: Samples) -> Samples:
    """How many earlier items belong to the same group: int64 (items,)."""
    order = np.argsort(groups, kind="stable")
    ranked = groups[order]
    begins = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1]))) if len(groups) else order
    places = np.empty(len(groups), dtype=np.int64)
    lengths = np.diff(np.append(begins, len(groups)))
    places[order] = np.arange(len(groups)) - np.repeat(begins, lengths)
    return places
