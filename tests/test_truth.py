"""Mined pairs against a known truth."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import LakeError
from speech_mining.evaluation.truth import SPANS, compare_with_truth

Row = tuple[str, int, int, int, str, int, int, int]


def table(*rows: Row) -> pl.DataFrame:
    types = {name: pl.String if name.endswith("audiobook") else pl.Int64 for name in SPANS}
    return pl.DataFrame(list(rows), schema=types, orient="row")


TRUTH = table(
    ("1", 1, 0, 4000, "2", 3, 1000, 5000),
    ("1", 1, 4500, 8000, "2", 3, 9000, 12000),
    ("1", 2, 0, 4000, "2", 1, 0, 4000),
)


def test_the_worked_example() -> None:
    mined = table(
        ("1", 1, 100, 4100, "2", 3, 1000, 4400),  # 3900/4100 and 3400/4000 of the first
        ("1", 1, 4500, 8000, "2", 3, 10500, 12000),  # all of the second's source, 1500/3000 of its target: a half
        ("1", 1, 0, 4000, "2", 3, 9000, 12000),  # the first's source with the second's target
        ("1", 2, 0, 4000, "2", 2, 0, 4000),  # the third, in another section
    )
    compared = compare_with_truth(mined, TRUTH)
    assert (compared.true_positives, compared.mined, compared.found, compared.truths) == (1, 4, 1, 3)
    assert compared.precision == 0.25
    assert compared.recall == pytest.approx(1 / 3)
    assert compared.wrong.drop("best_iou").rows() == mined[1:].rows()
    assert compared.wrong["best_iou"].to_list() == [0.5, 0.0, 0.0]
    assert compared.missed.drop("best_iou").rows() == TRUTH[1:].rows()
    assert compared.missed["best_iou"].to_list() == [0.5, 0.0]


def test_identical_tables_are_wholly_right() -> None:
    compared = compare_with_truth(TRUTH, TRUTH)
    assert (compared.precision, compared.recall) == (1.0, 1.0)
    assert compared.wrong.is_empty()
    assert compared.missed.is_empty()


def test_a_truth_found_twice_counts_once() -> None:
    mined = table(("1", 1, 0, 4000, "2", 3, 1000, 5000), ("1", 1, 0, 4400, "2", 3, 1000, 5000))
    compared = compare_with_truth(mined, TRUTH)
    assert compared.precision == 1.0
    assert compared.recall == pytest.approx(1 / 3)


def test_one_more_millisecond_than_half_is_right() -> None:
    truth = table(("1", 1, 0, 2000, "2", 1, 0, 2000))
    half, more = ("1", 1, 0, 1000, "2", 1, 0, 2000), ("1", 1, 0, 1001, "2", 1, 0, 2000)
    assert compare_with_truth(table(half), truth).precision == 0
    assert compare_with_truth(table(more), truth).precision == 1


def test_nothing_mined_has_no_precision_and_no_recall() -> None:
    compared = compare_with_truth(table(), TRUTH)
    assert (compared.precision, compared.recall, compared.missed.height) == (0.0, 0.0, 3)


def test_without_a_truth_everything_is_wrong() -> None:
    compared = compare_with_truth(TRUTH, table())
    assert (compared.precision, compared.recall, compared.wrong.height) == (0.0, 0.0, 3)


def test_columns_of_the_callers_are_kept() -> None:
    mined = table(("9", 1, 0, 10, "2", 1, 0, 10)).with_columns(score=pl.lit(1.1), truth=pl.lit(7))
    assert compare_with_truth(mined, TRUTH).wrong.select("score", "truth", "best_iou").rows() == [(1.1, 7, 0.0)]


def test_a_missing_column_is_told() -> None:
    with pytest.raises(LakeError, match="target_end_ms"):
        compare_with_truth(TRUTH.drop("target_end_ms"), TRUTH)


def test_an_empty_span_is_told() -> None:
    with pytest.raises(LakeError, match="1 rows of truth have an empty source span"):
        compare_with_truth(TRUTH, table(("1", 1, 5, 5, "2", 3, 1000, 5000)))


Span = tuple[str, int, int, int]


def more_than_half(one: Span, other: Span) -> bool:
    shared = min(one[3], other[3]) - max(one[2], other[2])
    union = one[3] - one[2] + other[3] - other[2] - max(0, shared)
    return one[:2] == other[:2] and shared / union > 0.5


def by_hand(mined: list[Row], truth: list[Row]) -> tuple[int, int]:
    def right(one: Row, other: Row) -> bool:
        return more_than_half(one[:4], other[:4]) and more_than_half(one[4:], other[4:])

    return (
        sum(any(right(pair, true) for true in truth) for pair in mined),
        sum(any(right(pair, true) for pair in mined) for true in truth),
    )


side = st.builds(
    lambda b, s, start, n: (b, s, start, start + n),
    st.just("1"),
    st.integers(1, 2),
    st.integers(0, 6),
    st.integers(1, 6),
)
rows = st.lists(st.builds(lambda a, b: (*a, *b), side, side), max_size=12)


@settings(deadline=None, max_examples=80)
@given(rows, rows)
def test_the_join_equals_comparing_all_with_all(mined: list[Row], truth: list[Row]) -> None:
    compared = compare_with_truth(table(*mined), table(*truth))
    assert (compared.true_positives, compared.found) == by_hand(mined, truth)
    assert compared.wrong.height == len(mined) - compared.true_positives
    assert compared.missed.height == len(truth) - compared.found


@settings(deadline=None, max_examples=40)
@given(rows, rows)
def test_swapping_the_sides_changes_nothing(mined: list[Row], truth: list[Row]) -> None:
    swapped = [table(*((*row[4:], *row[:4]) for row in these)) for these in (mined, truth)]
    straight, turned = compare_with_truth(table(*mined), table(*truth)), compare_with_truth(*swapped)
    assert (straight.precision, straight.recall) == (turned.precision, turned.recall)
