"""Mined pairs of speech and text against a known truth."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import LakeError
from speech_mining.evaluation.text_truth import TEXT_TRUTH, compare_with_texts

Truth = tuple[str, str, int, int, int, str]
Mined = tuple[str, int, int, int, str]
MINED = {
    "source_audiobook": pl.String(),
    "source_section": pl.Int32(),
    "source_start_ms": pl.Int64(),
    "source_end_ms": pl.Int64(),
    "text": pl.String(),
}


def known(*rows: Truth) -> pl.DataFrame:
    return pl.DataFrame([(*row, "what was said") for row in rows], schema=dict(TEXT_TRUTH), orient="row")


def mined(*rows: Mined) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=MINED, orient="row")


TRUTH = known(
    ("deu-eng", "1", 1, 0, 4000, "The king slept."),
    ("deu-eng", "1", 1, 4500, 8000, "The queen sang."),
    ("deu-eng", "1", 2, 0, 4000, "The dog ran."),
)


def test_the_worked_example() -> None:
    pairs = mined(
        ("1", 1, 100, 4100, "The king slept."),  # 3900/4100
        ("1", 1, 4500, 6250, "The queen sang."),  # 1750/3500: a half
        ("1", 2, 0, 4000, "The king slept."),  # the third's span, the first's text
        ("1", 2, 0, 4000, "The cat ran."),
    )
    compared = compare_with_texts(pairs, TRUTH)
    assert (compared.true_positives, compared.mined, compared.found, compared.truths) == (1, 4, 1, 3)
    assert compared.precision == 0.25
    assert compared.recall == pytest.approx(1 / 3)
    assert compared.wrong.drop("best_iou").rows() == pairs[1:].rows()
    assert compared.wrong["best_iou"].to_list() == [0.5, 0.0, 0.0]
    assert compared.missed.drop("best_iou").rows() == TRUTH[1:].rows()
    assert compared.missed["best_iou"].to_list() == [0.5, 0.0]


def test_one_more_millisecond_than_half_of_the_union_is_right() -> None:
    truth = known(("deu-eng", "1", 1, 0, 2000, "The king slept."))
    assert compare_with_texts(mined(("1", 1, 0, 1000, "The king slept.")), truth).precision == 0
    assert compare_with_texts(mined(("1", 1, 0, 1001, "The king slept.")), truth).precision == 1
    assert compare_with_texts(mined(("1", 1, 0, 4000, "The king slept.")), truth).precision == 0
    assert compare_with_texts(mined(("1", 1, 0, 3999, "The king slept.")), truth).precision == 1


@pytest.mark.parametrize("text", ["THE KING SLEPT!", "“The king slept.”", "the  king slept", "The king\u00a0slept …"])
def test_the_same_words_are_the_same_text(text: str) -> None:
    assert compare_with_texts(mined(("1", 1, 0, 4000, text)), TRUTH).true_positives == 1


@pytest.mark.parametrize(
    "text", ["The king slept?", "The kings slept.", "Slept the king.", "The king slept. He woke.", "…"]
)
def test_other_words_are_another_text(text: str) -> None:
    assert compare_with_texts(mined(("1", 1, 0, 4000, text)), TRUTH).true_positives == 0


def test_another_recording_is_another_sentence() -> None:
    elsewhere = mined(("2", 1, 0, 4000, "The king slept."), ("1", 2, 0, 4000, "The king slept."))
    assert compare_with_texts(elsewhere, TRUTH).true_positives == 0


def test_a_sentence_narrated_in_two_books_is_found_once_it_is_found_in_one() -> None:
    truth = known(("deu-eng", "1", 1, 0, 4000, "The king slept."), ("deu-eng", "2", 5, 0, 4000, "The king slept."))
    one = compare_with_texts(mined(("2", 5, 0, 4000, "The king slept.")), truth)
    assert (one.truths, one.found, one.recall, one.missed.height) == (1, 1, 1.0, 0)
    both = compare_with_texts(mined(("2", 5, 0, 4000, "The king slept."), ("1", 1, 0, 4000, "The king slept.")), truth)
    assert (both.true_positives, both.found, both.recall) == (2, 1, 1.0)
    neither = compare_with_texts(mined(), truth)
    assert (neither.truths, neither.found, neither.missed.height) == (1, 0, 2)


def test_two_texts_of_one_sentence_count_as_one_truth() -> None:
    truth = known(("deu-eng", "1", 1, 0, 4000, "The king slept."), ("deu-eng", "1", 1, 0, 4000, "The king was asleep."))
    compared = compare_with_texts(mined(("1", 1, 0, 4000, "The king was asleep.")), truth)
    assert (compared.truths, compared.found, compared.missed.height) == (1, 1, 0)


def test_two_narrations_with_two_texts_can_be_found_twice() -> None:
    truth = known(*(("deu-eng", book, 1, 0, 4000, text) for book in "12" for text in ("He slept.", "He was asleep.")))
    found = compare_with_texts(mined(("1", 1, 0, 4000, "He was asleep."), ("2", 1, 0, 4000, "He slept.")), truth)
    assert (found.truths, found.found, found.missed.height) == (2, 2, 0)
    half = compare_with_texts(mined(("1", 1, 0, 4000, "He slept.")), truth)
    assert (half.found, half.recall) == (1, 0.5)
    assert half.missed.select("audiobook", "text").rows() == [("2", "He was asleep.")]


def test_language_pairs_are_kept_apart_where_both_sides_tell_theirs() -> None:
    truth = known(("deu-eng", "1", 1, 0, 4000, "Anna sang."), ("deu-deu", "1", 1, 0, 4000, "Anna sang."))
    pairs = mined(("1", 1, 0, 4000, "Anna sang."))
    compared = compare_with_texts(pairs.with_columns(language_pair=pl.lit("deu-eng")), truth)
    assert (compared.found, compared.truths) == (1, 2)
    assert compared.missed["language_pair"].to_list() == ["deu-deu"]
    with pytest.raises(LakeError, match="truth is of 2 language pairs, deu-deu and others"):
        compare_with_texts(pairs, truth)


def test_nothing_mined_and_nothing_known_have_no_figures() -> None:
    nothing = compare_with_texts(mined(), TRUTH)
    assert (nothing.precision, nothing.recall, nothing.missed.height) == (0.0, 0.0, 3)
    unknown = compare_with_texts(mined(("1", 1, 0, 4000, "The king slept.")), known())
    assert (unknown.precision, unknown.recall, unknown.truths, unknown.wrong.height) == (0.0, 0.0, 0, 1)


def test_columns_of_the_callers_are_kept() -> None:
    pairs = mined(("9", 1, 0, 10, "No.")).with_columns(score=pl.lit(1.1), mined_row=pl.lit(7))
    assert compare_with_texts(pairs, TRUTH).wrong.select("score", "mined_row", "best_iou").rows() == [(1.1, 7, 0.0)]


def test_tables_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(LakeError, match=r"mined pairs has no \['text'\]"):
        compare_with_texts(mined().drop("text"), TRUTH)
    with pytest.raises(LakeError, match=r"truth has no \['section'\]"):
        compare_with_texts(mined(), TRUTH.drop("section"))
    with pytest.raises(LakeError, match="1 rows of mined pairs have an empty span"):
        compare_with_texts(mined(("1", 1, 4, 4, "The king slept.")), TRUTH)
    with pytest.raises(LakeError, match="1 rows of truth have an empty span"):
        compare_with_texts(mined(), known(("deu-eng", "1", 1, 4, 3, "The king slept.")))
    with pytest.raises(LakeError, match=r"holds nothing in \{'text': 1\}"):
        compare_with_texts(mined().with_columns(pl.col("text")).vstack(_without_text()), TRUTH)
    with pytest.raises(LakeError, match="A text of the truth has no word"):
        compare_with_texts(mined(), known(("deu-eng", "1", 1, 0, 4, "…")))


def _without_text() -> pl.DataFrame:
    return pl.DataFrame([("1", 1, 0, 4, None)], schema=MINED, orient="row")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=10, unique=True))
@settings(max_examples=60, deadline=None)
def test_the_truth_itself_has_everything_and_no_order(cells: list[tuple[int, int]]) -> None:
    rows: list[Truth] = [("deu-eng", str(book), 1, 0, 1000, f"text {text}") for book, text in cells]
    truth = known(*rows)
    pairs = mined(*((row[1], 1, 0, 1000, row[5]) for row in rows))
    compared = compare_with_texts(pairs, truth)
    assert (compared.precision, compared.recall, compared.missed.height) == (1.0, 1.0, 0)
    assert compared.truths <= min(len({book for book, _ in cells}), len({text for _, text in cells}))
    turned = compare_with_texts(pairs.reverse(), truth.reverse())
    assert (turned.found, turned.truths) == (compared.found, compared.truths)
