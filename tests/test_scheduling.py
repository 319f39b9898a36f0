"""Slots and weighted interval scheduling on one side, against slow references written independently."""

from __future__ import annotations

from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import LakeError, SettingsError
from speech_mining.mining.occupancy import slots
from speech_mining.mining.scheduling import STEP, heaviest, weights

Span = tuple[int, int, int]  # recording, start, end
Weighed = tuple[Span, int]

span = st.builds(
    lambda r, start, length: (r, start, start + length), *(st.integers(*b) for b in [(0, 2), (0, 9), (1, 5)])
)
weighed = st.lists(st.tuples(span, st.integers(0, 6)), max_size=11)


def overlap(one: Span, other: Span) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def chosen(offered: list[Weighed], order: list[int] | None = None) -> list[int]:
    recording, start, end = (np.array([span[i] for span, _ in offered], np.int64) for i in range(3))
    asked = np.arange(len(offered)) if order is None else np.array(order, np.int64)
    taken = heaviest(asked, slots(recording, start, end), np.array([weight for _, weight in offered], np.int64))
    return np.flatnonzero(taken).tolist()


def most(offered: list[Weighed]) -> int:
    """The greatest weight of a set without overlap, by trying them all."""
    sets = (some for size in range(len(offered) + 1) for some in combinations(offered, size))
    return max(
        sum(weight for _, weight in some)
        for some in sets
        if not any(overlap(one[0], other[0]) for one, other in combinations(some, 2))
    )


def test_two_short_spans_worth_more_together_beat_the_long_one_between_them() -> None:
    long, left, right = ((0, 0, 10), 5), ((0, 0, 4), 3), ((0, 4, 10), 3)
    assert chosen([long, left, right]) == [1, 2]
    assert chosen([(long[0], 7), left, right]) == [0]


def test_of_equals_the_one_offered_first_is_taken_and_of_no_weight_none() -> None:
    twins = [((0, 2, 9), 4), ((0, 5, 9), 4), ((1, 0, 5), 0)]
    assert chosen(twins) == [0]
    assert chosen(twins, order=[2, 1, 0]) == [1]


def test_only_what_is_offered_is_chosen() -> None:
    assert chosen([((0, 0, 10), 5), ((0, 0, 4), 3)], order=[1]) == [1]


def test_nothing_offered_is_nothing_chosen() -> None:
    assert chosen([]) == []


@settings(deadline=None, max_examples=200)
@given(weighed)
def test_no_set_without_overlap_weighs_more(offered: list[Weighed]) -> None:
    taken = [offered[i] for i in chosen(offered)]
    assert not any(overlap(one[0], other[0]) for one, other in combinations(taken, 2))
    assert sum(weight for _, weight in taken) == most(offered)


@settings(deadline=None, max_examples=100)
@given(weighed.filter(lambda offered: len(set(offered)) == len(offered)), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_the_numbers_of_recordings_change_the_choice(
    offered: list[Weighed], chance: Random
) -> None:
    """The order in which spans are offered stays, their rows and recordings are renumbered."""
    rows = chance.sample(range(len(offered)), len(offered))
    numbers = chance.sample(range(5), 3)
    moved = [((numbers[offered[i][0][0]], *offered[i][0][1:]), offered[i][1]) for i in rows]
    same_order = sorted(range(len(rows)), key=lambda row: rows[row])
    assert sorted(rows[row] for row in chosen(moved, same_order)) == chosen(offered)


@settings(deadline=None, max_examples=150)
@given(st.lists(span, max_size=30))
def test_slots_are_the_ranks_of_boundaries_recording_after_recording(spans: list[Span]) -> None:
    recording, start, end = (np.array([span[i] for span in spans], np.int64) for i in range(3))
    boundaries = sorted({(r, at) for r, first, last in spans for at in (first, last)})
    found = slots(recording, start, end)
    assert found.first.tolist() == [boundaries.index((r, first)) for r, first, _ in spans]
    assert found.stop.tolist() == [boundaries.index((r, last)) for r, _, last in spans]
    assert found.count == len(boundaries)
    assert found.first.dtype == found.stop.dtype == np.int32


def test_boundaries_that_fall_into_one_place_of_the_table_are_told_apart() -> None:
    """Far more boundaries than a recording has, at every distance, up to a year of samples."""
    start = np.concatenate([np.arange(20_000), 2 ** np.arange(15, 39)]).astype(np.int64)
    found = slots(np.zeros(len(start), np.int64), start, start + 1)
    boundaries = np.unique(np.concatenate([start, start + 1]))
    np.testing.assert_array_equal(found.first, np.searchsorted(boundaries, start))
    np.testing.assert_array_equal(found.stop, np.searchsorted(boundaries, start + 1))


def test_empty_spans_and_spans_before_the_beginning_are_refused() -> None:
    numbers = np.zeros(2, np.int64)
    with pytest.raises(LakeError, match="1 spans are empty or start before 0, the first from 7 to 7"):
        slots(numbers, np.array([1, 7]), np.array([2, 7]))
    with pytest.raises(LakeError, match="the first from -1 to 3"):
        slots(numbers, np.array([1, -1]), np.array([2, 3]))


def test_weights_are_whole_numbers_that_cannot_overflow() -> None:
    np.testing.assert_array_equal(weights(np.array([0.0, STEP, 0.25])), [0, 1, 2**28])
    with pytest.raises(SettingsError, match=r"worth -0\.01, less than nothing"):
        weights(np.array([0.2, -0.01]))
    for worth in ([2.0**31, 2.0**31], [np.inf]):
        with pytest.raises(SettingsError, match="less than 2\\^32"):
            weights(np.array(worth))
