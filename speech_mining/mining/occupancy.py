"""Which spans of a list fit beside those already taken: one byte for each elementary slot of a side.

What belongs here is the compiled inner loop and the arrays it walks; it imports numba, so it is imported by the
functions that need it and not by modules. What is a pair, and in which order they are offered, is in `selection`;
which set of spans is worth most is in `scheduling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numba as nb
import numpy as np
import numpy.typing as npt

from speech_mining.errors import LakeError

Int64s: TypeAlias = npt.NDArray[np.int64]
Int32s: TypeAlias = npt.NDArray[np.int32]

FITS, SOURCE_TAKEN, TARGET_TAKEN, BOTH_TAKEN = 0, 1, 2, 3

_FREE = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: multiples of it are spread evenly (Knuth, TAOCP 3, section 6.4)."""


@dataclass(frozen=True, eq=False)
class Slots:
    """Spans as ranges of elementary slots, the stretches between two neighbouring boundaries of a side."""

    first: Int32s
    """int32 (n,): first slot of each span."""
    stop: Int32s
    """int32 (n,): one past its last slot."""
    count: int


def slots(recording: Int64s, start: Int64s, end: Int64s) -> Slots:
    """Rank-compress the boundaries of spans, recording after recording.

    Each recording is ranked by itself, through a hash table of its boundaries that stays in the cache: 1.6 s of
    processor for 2·10⁷ boundaries, where ranking them all at once takes 3.6 s in polars.

    Args:
        recording: int64 (n,), number of the recording, from 0 and without large gaps.
        start: int64 (n,), first sample, not negative.
        end: int64 (n,), exclusive, after `start`.

    Raises:
        LakeError: a span is empty or starts before 0.
    """
    wrong = np.flatnonzero((end <= start) | (start < 0))
    if len(wrong):
        raise LakeError(
            f"{len(wrong)} spans are empty or start before 0, the first from {start[wrong[0]]} to {end[wrong[0]]}.",
            expected="0 <= start_sample < end_sample",
            fix="segment the recordings again",
        )
    spans = np.arange(len(start), dtype=np.int64)
    first, stop = np.empty(len(start), np.int32), np.empty(len(start), np.int32)
    bounds, by_recording = grouped(spans, recording, int(recording.max(initial=-1)) + 1)
    return Slots(first, stop, int(_rank(bounds, by_recording, start, end, first, stop)))


def take_in_order(order: Int64s, source: Slots, target: Slots) -> npt.NDArray[np.int8]:
    """Offer pairs in `order`; each is taken when no slot of it is taken yet, on either side.

    Returns:
        int8 (n,), in the pairs' own order: FITS for the taken, else which side was in the way.
    """
    outcome = np.empty(len(order), np.int8)
    _offer(
        order,
        (source.first, source.stop, np.zeros(source.count, np.bool_)),
        (target.first, target.stop, np.zeros(target.count, np.bool_)),
        outcome,
    )
    return outcome


def compiled(function: Any) -> Any:
    """Compile without bounds checks, once for all processes."""
    return nb.njit(nogil=True, cache=True, boundscheck=False)(function)


@compiled
def grouped(items: Int64s, key: npt.NDArray[np.integer[Any]], keys: int) -> Any:
    """Sort items by a small whole number, counting; items of the same number keep their order.

    Args:
        items: int64 (m,), indices into `key`.
        key: whole numbers (n,), from 0, below `keys`.
        keys: how many numbers there are.

    Returns:
        int64 (keys + 1,), where the items of each number begin; int64 (m,), the items.
    """
    bounds = np.zeros(keys + 1, np.int64)
    for item in items:
        bounds[key[item] + 1] += 1
    for number in range(keys):
        bounds[number + 1] += bounds[number]
    place = bounds[:-1].copy()
    together = np.empty(len(items), np.int64)
    for item in items:
        together[place[key[item]]] = item
        place[key[item]] += 1
    return bounds, together


@compiled
def _rank(bounds: Int64s, members: Int64s, start: Int64s, end: Int64s, first: Int32s, stop: Int32s) -> int:
    """Fill `first` and `stop`, and count the slots."""
    ranked = 0
    for recording in range(len(bounds) - 1):
        inside = members[bounds[recording] : bounds[recording + 1]]
        boundaries = np.empty(2 * len(inside), np.int64)
        for place, span in enumerate(inside):
            boundaries[2 * place], boundaries[2 * place + 1] = start[span], end[span]
        ranked += _rank_within(boundaries, ranked)
        for place, span in enumerate(inside):
            first[span], stop[span] = boundaries[2 * place], boundaries[2 * place + 1]
    return ranked


@compiled
def _rank_within(boundaries: Int64s, lowest: int) -> int:
    """Replace boundaries by their dense ranks, from `lowest`, and count the ranks."""
    bits = 1
    while (1 << bits) < 2 * len(boundaries):  # at most half full, so that a search is a step or two
        bits += 1
    table, rank = np.full(1 << bits, _FREE, np.int64), np.empty(1 << bits, np.int64)
    distinct = np.empty(len(boundaries), np.int64)
    count = 0
    for number, boundary in enumerate(boundaries):
        place = _place(table, boundary, bits)
        if table[place] == _FREE:
            table[place] = distinct[count] = boundary
            count += 1
        boundaries[number] = place
    for number, boundary in enumerate(np.sort(distinct[:count])):
        rank[_place(table, boundary, bits)] = lowest + number
    for number, place in enumerate(boundaries):
        boundaries[number] = rank[place]
    return count


@compiled
def _place(table: Int64s, boundary: int, bits: int) -> int:
    """Where a boundary stands in the table, or may be put: linear probing."""
    place: int = np.int64((np.uint64(boundary) * _GOLDEN) >> np.uint64(64 - bits))
    while table[place] != boundary and table[place] != _FREE:
        place = (place + 1) & (len(table) - 1)
    return place


@compiled
def _any_taken(taken: npt.NDArray[np.bool_], first: int, stop: int) -> bool:
    # a plain loop: it ends at the first taken slot, and spans are a handful of slots long
    for slot in range(first, stop):
        if taken[slot]:
            return True
    return False


@compiled
def _offer(order: Int64s, source: Any, target: Any, outcome: npt.NDArray[np.int8]) -> None:
    source_first, source_stop, source_taken = source
    target_first, target_stop, target_taken = target
    for pair in order:
        blocked = 0
        if _any_taken(source_taken, source_first[pair], source_stop[pair]):
            blocked += 1
        if _any_taken(target_taken, target_first[pair], target_stop[pair]):
            blocked += 2
        outcome[pair] = blocked
        if blocked == 0:
            source_taken[source_first[pair] : source_stop[pair]] = True
            target_taken[target_first[pair] : target_stop[pair]] = True
