"""Which spans of a list fit beside those already taken: one byte for each elementary slot of a side.

What belongs here is the compiled inner loop and the arrays it walks; it imports numba, so it is imported by the
functions that need it and not by modules. What is a pair, and in which order they are offered, is in `selection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numba as nb
import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import LakeError

Int64s: TypeAlias = npt.NDArray[np.int64]
Int32s: TypeAlias = npt.NDArray[np.int32]

FITS, SOURCE_TAKEN, TARGET_TAKEN, BOTH_TAKEN = 0, 1, 2, 3


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

    Args:
        recording: int64 (n,), number of the recording, from 0.
        start: int64 (n,), first sample, not negative.
        end: int64 (n,), exclusive, after `start`.

    Raises:
        LakeError: a span is empty or starts before 0, or the boundaries do not fit 63 bits.
    """
    if not len(start):
        none = np.empty(0, np.int32)
        return Slots(none, none, 0)
    wrong = np.flatnonzero((end <= start) | (start < 0))
    if len(wrong):
        raise LakeError(
            f"{len(wrong)} spans are empty or start before 0, the first from {start[wrong[0]]} to {end[wrong[0]]}.",
            expected="0 <= start_sample < end_sample",
            fix="segment the recordings again",
        )
    stride = int(end.max()) + 1
    if (int(recording.max()) + 1) * stride >= 2**63:
        raise LakeError(f"Samples up to {stride - 1} are too far for one axis.", expected="recordings of hours")
    keys = np.concatenate([recording * stride + start, recording * stride + end])
    # polars ranks 2·10⁷ boundaries in 1.5 s on two cores; argsort and a pass over it take twice that
    ranks = pl.Series(keys).rank("dense").to_numpy().astype(np.int32) - np.int32(1)
    return Slots(ranks[: len(start)], ranks[len(start) :], int(ranks.max()) + 1)


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


def _compiled(function: Any) -> Any:
    return nb.njit(nogil=True, cache=True, boundscheck=False)(function)


@_compiled
def _any_taken(taken: npt.NDArray[np.bool_], first: int, stop: int) -> bool:
    # a plain loop: it ends at the first taken slot, and spans are a handful of slots long
    for slot in range(first, stop):
        if taken[slot]:
            return True
    return False


@_compiled
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
