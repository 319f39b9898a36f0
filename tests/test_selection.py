"""Selection: of whatever overlaps, the best pair is kept."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.settings import load_settings
from s2s_assets.definitions import build
from speech_mining.errors import LakeError, SettingsError
from speech_mining.lake import Lake
from speech_mining.mining.selection import SELECTIONS, select_non_overlapping
from speech_mining.records import PAIRS, RECORDINGS, segment_id

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


@settings(deadline=None, max_examples=100)
@given(candidates, st.sampled_from(SELECTIONS))
def test_the_reasons_of_the_dropped_pairs_are_counted(pairs: pl.DataFrame, selection: str) -> None:
    selected = select_non_overlapping(pairs, selection)
    kept = selected.frame.to_dicts()
    sources, targets = ({row[f"{side}_segment"] for row in kept} for side in ("source", "target"))
    dropped = [row for row in pairs.to_dicts() if row not in kept]
    strangers = [row for row in dropped if row["source_segment"] not in sources]
    assert selected.counts["kept"] == len(kept)
    assert selected.counts["duplicate_source"] == len(dropped) - len(strangers)
    assert selected.counts["duplicate_target"] == sum(row["target_segment"] in targets for row in strangers)
    assert sum(selected.counts.values()) == 2 * selected.counts["candidates"] == 2 * len(pairs)


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


def total(kept: pl.DataFrame, floor: float) -> float:
    return float((kept["score"] - floor).sum())


def best_first(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.sort("score", "source_segment", "target_segment", descending=[True, False, False])


def three(middle: float, shorter: float = 1.2) -> pl.DataFrame:
    """A long pair over two short ones on the source side; on the target side all three lie apart."""
    spans_ = [(0, 10), (0, 4), (4, 10)]
    scores = [middle, shorter, shorter]
    rows = enumerate(zip(scores, spans_, strict=True))
    return pairs_of([(score, ("1", 1, *at), ("2", 1, 20 * number, 20 * number + 10)) for number, (score, at) in rows])


def test_optimal_takes_two_pairs_that_exceed_the_floor_by_more_than_the_best_one() -> None:
    pairs = three(1.3)
    assert select_non_overlapping(pairs).frame.equals(pairs[:1])
    selected = select_non_overlapping(pairs, "optimal", floor=1.0)
    assert selected.frame.equals(best_first(pairs[1:]))
    assert (selected.counts["kept"], selected.counts["overlapping_source"]) == (2, 1)
    assert select_non_overlapping(pairs, "optimal", floor=1.15).frame.equals(pairs[:1])


def test_optimal_without_a_floor_counts_from_the_least_score_there_is() -> None:
    pairs = pl.concat([three(1.3), pairs_of([(1.19, ("9", 1, 0, 10), ("9", 2, 0, 10))])])
    assert select_non_overlapping(pairs, "optimal").frame.equals(best_first(pairs[[0, 3]]))
    pairs = pl.concat([three(1.3), pairs_of([(1.0, ("9", 1, 0, 10), ("9", 2, 0, 10))])])
    assert select_non_overlapping(pairs, "optimal").frame.equals(best_first(pairs[[1, 2, 3]]))


def undone() -> pl.DataFrame:
    """As `three`, but the two short pairs overlap each other on the target side."""
    return pairs_of(
        [
            (1.3, ("3", 1, 0, 10), ("4", 1, 0, 10)),
            (1.2, ("3", 1, 0, 4), ("4", 2, 0, 10)),
            (1.2, ("3", 1, 4, 10), ("4", 2, 5, 15)),
        ]
    )


def test_where_the_other_side_undoes_the_heaviest_set_greedy_is_returned() -> None:
    assert select_non_overlapping(undone(), "optimal", floor=1.0).frame.equals(undone()[:1])


def test_optimal_begins_on_the_side_it_is_told() -> None:
    """From the source side it gives up the 1.3 of `undone` for two pairs of which one is left."""
    pairs = pl.concat([three(1.3, shorter=1.25), undone()])
    kept = {
        side: select_non_overlapping(pairs, "optimal", side, floor=1.0).frame["score"].to_list()
        for side in ("source", "target")
    }
    assert kept == {"source": [1.25, 1.25, 1.2], "target": [1.3, 1.25, 1.25]}


def test_an_unknown_selection_an_unknown_side_and_a_floor_above_a_score_are_refused() -> None:
    pairs = three(1.3)
    with pytest.raises(SettingsError, match=r"no selection 'best'.*greedy, optimal"):
        select_non_overlapping(pairs, "best")
    with pytest.raises(SettingsError, match=r"side 'left'.*source, target"):
        select_non_overlapping(pairs, "optimal", "left")
    with pytest.raises(SettingsError, match=r"worth -0\.05, less than nothing"):
        select_non_overlapping(pairs, "optimal", floor=1.25)


either_side = st.sampled_from(["source", "target"])


@settings(deadline=None, max_examples=150)
@given(candidates, either_side)
def test_optimal_is_worth_no_less_than_greedy_and_all_that_fits_is_kept(pairs: pl.DataFrame, side: str) -> None:
    selected = select_non_overlapping(pairs, "optimal", side, floor=1.0)
    assert total(selected.frame, 1.0) >= total(select_non_overlapping(pairs).frame, 1.0) - 1e-7
    kept = selected.frame.to_dicts()
    assert not any(collide(a, b) for n, a in enumerate(kept) for b in kept[:n])
    assert all(row in kept or any(collide(row, other) for other in kept) for row in pairs.to_dicts())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([1.0, 1.05, 1.1, 1.2, 1.3]), span), max_size=10), either_side)
def test_optimal_is_the_best_there_is_where_only_one_side_overlaps(rows: list[tuple[float, Span]], side: str) -> None:
    """Against every set of pairs; on the other side each pair has a recording of its own."""
    ways = [(one, (str(20 + n), 1, 0, 10)) for n, (_, one) in enumerate(rows)]
    pairs = pairs_of([(rows[n][0], *(way if side == "source" else way[::-1])) for n, way in enumerate(ways)])
    kept = select_non_overlapping(pairs, "optimal", side, floor=1.0).frame
    possible = (
        some
        for size in range(len(rows) + 1)
        for some in combinations(rows, size)
        if not any(overlap(one, other) for (_, one), (_, other) in combinations(some, 2))
    )
    assert total(kept, 1.0) == pytest.approx(max(sum(score - 1.0 for score, _ in some) for some in possible), abs=1e-7)


@settings(deadline=None, max_examples=60)
@given(candidates, st.integers(0, 5), either_side)
def test_neither_the_order_of_rows_nor_the_names_of_books_matter_to_optimal(
    pairs: pl.DataFrame, seed: int, side: str
) -> None:
    selected = select_non_overlapping(pairs, "optimal", side, floor=1.0).frame
    shuffled = pairs.sample(fraction=1, shuffle=True, seed=seed)
    assert select_non_overlapping(shuffled, "optimal", side, floor=1.0).frame.equals(selected)
    renamed = {"7": "9", "8": "10"}  # the ids of segments stay, since ties are broken by them
    names = [pl.col(f"{side}_audiobook").replace_strict(renamed) for side in ("source", "target")]
    again = select_non_overlapping(pairs.with_columns(names), "optimal", side, floor=1.0).frame
    assert again["source_segment", "target_segment"].equals(selected["source_segment", "target_segment"])


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_library_of_hundreds_of_thousands_of_candidates_is_selected_without_overlap(selection: str) -> None:
    pairs = planted_library(300_000, seed=3)
    kept = select_non_overlapping(pairs, selection).frame
    for side in ("source", "target"):
        recording = [f"{side}_audiobook", f"{side}_section"]
        previous = pl.col(f"{side}_end_sample").cum_max().shift(1).over(recording, order_by=f"{side}_start_sample")
        assert kept.filter(previous > pl.col(f"{side}_start_sample")).is_empty()
    assert 1_000 < kept.height < 100_000


def test_the_corpus_is_selected_by_the_rule_of_the_settings_or_of_the_run(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    pairs = three(1.3)
    with lake.replace("s2s_pairs", "deu-eng") as new:
        new.write_table("pairs.parquet", pairs, PAIRS)
        new.write_json("scoring.json", {"threshold": 1.0})
    for language, book in (("deu", "1"), ("eng", "2")):
        with lake.replace("raw_audio", language, book) as new:
            new.write_table("recordings.parquet", recording_of(language, book), RECORDINGS)

    def kept(rule: str, config: dict[str, object]) -> tuple[str, int]:
        settings = load_settings(home=tmp_path, languages="deu,eng", mining={"threshold": 1.1, "selection": rule})
        job = build(settings).resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.ephemeral() as instance:
            job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey("s2s_corpus")],
                partition_key="deu-eng",
                run_config={"ops": {"s2s_corpus": {"config": config}}},
            )
        corpus = lake.partition("s2s_corpus", "deu-eng")
        return corpus.read_json("selection.json")["selection"], corpus.read_frame("corpus.parquet").height

    assert kept("greedy", {}) == ("greedy", 1)
    assert kept("optimal", {}) == ("optimal", 1)  # 0.2 against 0.1 + 0.1: as much, so greedy's choice stays
    assert kept("optimal", {"threshold": 1.05}) == ("optimal", 2)
    assert kept("greedy", {"threshold": 1.05, "selection": "optimal"}) == ("optimal", 2)
    with pytest.raises(SettingsError, match="no selection 'best'"):
        kept("greedy", {"selection": "best"})


def recording_of(language: str, book: str) -> pl.DataFrame:
    filled = {name: "x" if dtype == pl.String() else 1 for name, dtype in RECORDINGS.items()}
    return pl.DataFrame([filled | {"audiobook": book, "language": language}], schema=dict(RECORDINGS))


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
