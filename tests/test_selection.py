"""Selection: of whatever overlaps, the best pair is kept."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import LakeError
from speech_mining.mining.selection import select_non_overlapping
from speech_mining.records import PAIRS, segment_id

Span = tuple[str, int, int, int]  # audiobook, section, start, end


def pairs_of(rows: list[tuple[float, Span, Span]]) -> pl.DataFrame:
    columns = [
        (score, score, segment_id(*source), segment_id(*target), *source, *target) for score, source, target in rows
    ]
    return pl.DataFrame(columns, schema=dict(PAIRS), orient="row")


def overlap(one: Span, other: Span) -> bool:
    return one[:2] == other[:2] and one[2] < other[3] and other[2] < one[3]


def spans(row: dict[str, object]) -> tuple[Span, Span]:
    names = ("audiobook", "section", "start_sample", "end_sample")
    source, target = (tuple(row[f"{side}_{name}"] for name in names) for side in ("source", "target"))
    return source, target  # type: ignore[return-value]


def collide(one: dict[str, object], other: dict[str, object]) -> bool:
    return any(overlap(a, b) for a, b in zip(spans(one), spans(other), strict=True))


def by_rule(pairs: pl.DataFrame) -> list[dict[str, object]]:
    """The rule as it is told: components of overlapping pairs, and within each the best first."""
    rows = sorted(pairs.to_dicts(), key=lambda row: (-row["score"], row["source_segment"], row["target_segment"]))
    left, kept = set(range(len(rows))), []
    while left:
        component, frontier = set(), {min(left)}
        while frontier:
            component |= frontier
            frontier = {i for i in left - component if any(collide(rows[i], rows[j]) for j in component)}
        left -= component
        taken: list[int] = []
        for i in sorted(component):
            if not any(collide(rows[i], rows[j]) for j in taken):
                taken.append(i)
        kept += taken
    return [rows[i] for i in sorted(kept)]


span = st.builds(
    lambda book, section, start, length: (book, section, start, start + length),
    st.sampled_from(["7", "8"]),
    st.integers(1, 2),
    st.integers(0, 12),
    st.integers(1, 6),
)
candidates = st.lists(
    st.tuples(st.sampled_from([1.0, 1.05, 1.06, 1.1, 1.2, 1.3]), span, span), max_size=24, unique_by=lambda row: row[1:]
).map(pairs_of)


def test_the_worked_example_keeps_the_sentence_and_not_the_sentence_with_a_word_more() -> None:
    sentence, longer, after = ("1", 1, 0, 100), ("1", 1, 0, 120), ("1", 1, 120, 200)
    there, there_too, elsewhere = ("2", 1, 50, 150), ("2", 1, 40, 150), ("2", 2, 50, 150)
    pairs = pairs_of(
        [
            (1.10, after, elsewhere),
            (1.25, longer, elsewhere),
            (1.30, sentence, there),
            (1.20, after, there_too),
            (1.15, longer, there_too),
            (1.05, sentence, elsewhere),
        ]
    )
    selected = select_non_overlapping(pairs)
    assert selected.frame.rows(named=True) == [pairs.row(2, named=True), pairs.row(0, named=True)]
    assert selected.counts == {
        "candidates": 6,
        "kept": 2,
        "duplicate_source": 2,
        "duplicate_target": 1,
        "overlapping_source": 0,
        "overlapping_target": 0,
        "overlapping_both": 1,
    }


def test_the_side_in_the_way_is_counted() -> None:
    first = (1.3, ("1", 1, 0, 10), ("2", 1, 0, 10))
    source_in_the_way = (1.2, ("1", 1, 9, 20), ("2", 3, 0, 10))
    target_in_the_way = (1.1, ("1", 3, 0, 10), ("2", 1, 5, 6))
    counts = select_non_overlapping(pairs_of([first, source_in_the_way, target_in_the_way])).counts
    assert (counts["overlapping_source"], counts["overlapping_target"], counts["kept"]) == (1, 1, 1)


def test_spans_that_touch_do_not_overlap() -> None:
    pairs = pairs_of([(1.2, ("1", 1, 0, 10), ("2", 1, 0, 10)), (1.1, ("1", 1, 10, 20), ("2", 1, 10, 20))])
    assert select_non_overlapping(pairs).frame.height == 2


def test_the_same_samples_of_another_section_or_book_do_not_overlap() -> None:
    where = [("1", 1), ("1", 2), ("11", 1), ("2", 1)]
    pairs = pairs_of([(1.2, (*place, 0, 10), (*place, 0, 10)) for place in where])
    assert select_non_overlapping(pairs).frame.height == 4


def test_ties_go_to_the_smaller_segment_whatever_the_order_of_rows() -> None:
    spans_ = [("1", 1, start, 100) for start in range(5)]
    pairs = pairs_of([(1.2, span, ("2", 1, 0, 10)) for span in spans_])
    kept = {select_non_overlapping(pairs.sample(fraction=1, shuffle=True, seed=s)).frame.row(0) for s in range(5)}
    assert kept == {pairs.sort("source_segment").row(0)}


def test_no_pairs_make_no_corpus() -> None:
    selected = select_non_overlapping(pl.DataFrame(schema=dict(PAIRS)))
    assert selected.frame.is_empty()
    assert selected.frame.schema == pl.Schema(dict(PAIRS))
    assert set(selected.counts.values()) == {0}


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(LakeError, match="1 scores are not a number"):
        select_non_overlapping(pairs_of([(float("nan"), ("1", 1, 0, 10), ("2", 1, 0, 10))]))


def test_an_empty_span_is_refused() -> None:
    with pytest.raises(LakeError, match="from 10 to 10"):
        select_non_overlapping(pairs_of([(1.2, ("1", 1, 10, 10), ("2", 1, 0, 10))]))


def test_a_table_without_its_columns_is_refused() -> None:
    with pytest.raises(LakeError, match="missing"):
        select_non_overlapping(pl.DataFrame({"score": [1.2]}))


@settings(deadline=None, max_examples=150)
@given(candidates)
def test_the_walk_by_score_equals_the_rule_of_components(pairs: pl.DataFrame) -> None:
    assert select_non_overlapping(pairs).frame.to_dicts() == by_rule(pairs)


@settings(deadline=None, max_examples=150)
@given(candidates)
def test_nothing_kept_overlaps_and_everything_dropped_lost_to_something_as_good(pairs: pl.DataFrame) -> None:
    selected = select_non_overlapping(pairs)
    kept = selected.frame.to_dicts()
    assert not any(collide(a, b) for n, a in enumerate(kept) for b in kept[:n])
    for row in pairs.to_dicts():
        if row not in kept:
            assert any(collide(row, better) and better["score"] >= row["score"] for better in kept)
    assert sum(selected.counts.values()) == 2 * selected.counts["candidates"]


@settings(deadline=None, max_examples=100)
@given(candidates, st.sampled_from([1.0, 1.05, 1.06, 1.1, 1.2, 1.25]))
def test_cutting_at_a_threshold_and_selecting_commute(pairs: pl.DataFrame, threshold: float) -> None:
    cut = pl.col("score") >= threshold
    assert select_non_overlapping(pairs.filter(cut)).frame.equals(select_non_overlapping(pairs).frame.filter(cut))


@settings(deadline=None, max_examples=50)
@given(candidates, st.integers(0, 5))
def test_the_order_of_rows_does_not_matter(pairs: pl.DataFrame, seed: int) -> None:
    shuffled = pairs.sample(fraction=1, shuffle=True, seed=seed)
    assert select_non_overlapping(shuffled).frame.equals(select_non_overlapping(pairs).frame)


def test_a_library_of_hundreds_of_thousands_of_candidates_is_selected_without_overlap() -> None:
    pairs = planted_library(300_000, seed=3)
    kept = select_non_overlapping(pairs).frame
    for side in ("source", "target"):
        recording = [f"{side}_audiobook", f"{side}_section"]
        previous = pl.col(f"{side}_end_sample").cum_max().shift(1).over(recording, order_by=f"{side}_start_sample")
        assert kept.filter(previous > pl.col(f"{side}_start_sample")).is_empty()
    assert 1_000 < kept.height < 100_000


def planted_library(n: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    sections = max(1, n // 2000)

    def side(name: str) -> dict[str, np.ndarray]:
        section, first, runs = draw.integers(0, sections, n), draw.integers(0, 695, n), draw.integers(1, 6, n)
        start, end = first * 80_000, (first + runs) * 80_000 - 8_000
        return {
            f"{name}_segment": section * 10_000_000 + first * 100 + runs,
            f"{name}_audiobook": (section // 20).astype(str),
            f"{name}_section": section % 20,
            f"{name}_start_sample": start,
            f"{name}_end_sample": end,
        }

    score = draw.normal(1.1, 0.05, n)
    frame = pl.DataFrame({"score": score, "cosine": score, **side("source"), **side("target")})
    return frame.select([pl.col(name).cast(dtype) for name, dtype in PAIRS.items()])
