"""Hours, checks and plots: planted defects are found and shown, sums are those worked by hand."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speech_mining.errors import LakeError, SettingsError
from speech_mining.mining.selection import select_non_overlapping
from speech_mining.quality import plots
from speech_mining.quality.checks import (
    SHOWN,
    hours_fall_with_threshold,
    no_overlap,
    one_to_one,
    pair_durations_within,
    scores_sorted,
    section_coverage,
    sections_are_covered,
    segment_durations_within,
    segments_are_speech,
    vectors_are_unit,
)
from speech_mining.quality.hours import HOURS, hours_by_threshold, thresholds_between
from speech_mining.records import PAIRS, RECORDINGS, SEGMENTS, segment_id

HOUR = 16_000 * 3600
Span = tuple[str, int, int, int]


def pairs_file(folder: Path, rows: list[tuple[float, Span, Span]], name: str = "pairs.parquet") -> Path:
    columns = [(score, 0.5, segment_id(*a), segment_id(*b), *a, *b) for score, a, b in rows]
    pl.DataFrame(columns, schema=dict(PAIRS), orient="row").write_parquet(folder / name)
    return folder / name


def span(book: str, start_h: float, end_h: float, section: int = 1) -> Span:
    return (book, section, round(start_h * HOUR), round(end_h * HOUR))


# sources 0-2, 1-3, 5-6 and target 0-2, 0-2 (again), 4-5 hours
THREE = [
    (1.30, span("1", 0, 2), span("2", 0, 2)),
    (1.10, span("1", 1, 3), span("2", 0, 2)),
    (1.05, span("1", 5, 6), span("2", 4, 5)),
]


def test_hours_worked_by_hand(tmp_path: Path) -> None:
    hours = hours_by_threshold(pairs_file(tmp_path, THREE), thresholds=[1.2, 1.0, 1.1])
    assert hours.schema == pl.Schema(dict(HOURS))
    assert hours.rows() == [
        (1.0, 3, 5.0, 5.0, 4.0, 3.0, 2, 3.0, 3.0),
        (1.1, 2, 4.0, 4.0, 3.0, 2.0, 1, 2.0, 2.0),
        (1.2, 1, 2.0, 2.0, 2.0, 2.0, 1, 2.0, 2.0),
    ]


def test_a_span_inside_another_adds_nothing_to_the_union(tmp_path: Path) -> None:
    rows = [(1.1, span("1", 0, 4), span("2", 0, 1)), (1.1, span("1", 1, 2), span("2", 2, 3))]
    rows.append((1.1, span("1", 3, 5), span("2", 5, 6)))  # begins after the inner ended, before the outer did
    hours = hours_by_threshold(pairs_file(tmp_path, rows), thresholds=[1.0]).row(0, named=True)
    assert (hours["source_sum_h"], hours["source_union_h"]) == (7.0, 5.0)


def test_hours_do_not_depend_on_how_pairs_are_split_into_files(tmp_path: Path) -> None:
    whole = hours_by_threshold(pairs_file(tmp_path, THREE))
    parts = [pairs_file(tmp_path, [row], f"{n}.parquet") for n, row in enumerate(THREE)]
    assert hours_by_threshold(parts).equals(whole)
    assert whole["threshold"].to_list() == [round(1 + n / 100, 2) for n in range(21)]


def test_a_pair_at_the_threshold_is_in(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, [(1.06, span("1", 0, 1), span("2", 0, 1))])
    assert hours_by_threshold(path).filter(pl.col("pairs") == 1)["threshold"].max() == 1.06


def test_a_table_is_not_asked_below_what_it_keeps(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, THREE[:2])
    with pytest.raises(SettingsError, match=r"\[1.05\] were asked of a table that keeps scores from 1.06"):
        hours_by_threshold(path, thresholds=[1.05, 1.06], floor=1.06)
    assert hours_by_threshold(path, floor=1.06)["threshold"].min() == 1.06


def test_a_corpus_has_the_post_processed_hours_of_its_pairs(tmp_path: Path) -> None:
    pairs = pairs_file(tmp_path, random_rows(300, seed=1))
    corpus = tmp_path / "corpus.parquet"
    select_non_overlapping(pl.read_parquet(pairs).filter(pl.col("score") >= 1.06)).frame.write_parquet(corpus)
    of_pairs = hours_by_threshold(pairs, thresholds=thresholds_between(1.06, 1.2))
    of_corpus = hours_by_threshold(corpus, floor=1.06)
    for side in ("source", "target"):
        expected = of_pairs[f"{side}_postprocessed_h"].to_list()
        assert expected[0] > 0
        for way in ("sum", "union", "postprocessed"):
            assert of_corpus[f"{side}_{way}_h"].to_list() == expected


def test_no_pairs_are_no_hours(tmp_path: Path) -> None:
    hours = hours_by_threshold(pairs_file(tmp_path, []))
    assert hours.height == 21
    assert hours.drop("threshold").sum().row(0) == (0, 0, 0, 0, 0, 0, 0, 0)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"no .*nowhere.parquet"):
        hours_by_threshold(tmp_path / "nowhere.parquet")


def random_rows(n: int, seed: int) -> list[tuple[float, Span, Span]]:
    draw = np.random.default_rng(seed)

    def drawn(book: str) -> Span:
        start = int(draw.integers(0, 10_000))
        return (book, int(draw.integers(1, 4)), start, start + int(draw.integers(1, 800)))

    return [(float(np.round(draw.uniform(1.0, 1.25), 3)), drawn("1"), drawn("2")) for _ in range(n)]


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(0, 60))
def test_hours_equal_a_count_sample_by_sample(tmp_path: Path, seed: int, n: int) -> None:
    rows = random_rows(n, seed)
    threshold = 1.1
    hours = hours_by_threshold(pairs_file(tmp_path, rows), thresholds=[threshold]).row(0, named=True)
    reached = [row for row in rows if row[0] >= threshold]
    for side, heard in (("source", [row[1] for row in reached]), ("target", [row[2] for row in reached])):
        samples = {(section, sample) for _, section, start, end in heard for sample in range(start, end)}
        assert hours[f"{side}_sum_h"] == sum(end - start for *_, start, end in heard) / HOUR
        assert hours[f"{side}_union_h"] == len(samples) / HOUR


def test_hours_fall_as_the_threshold_rises(tmp_path: Path) -> None:
    hours = hours_by_threshold(pairs_file(tmp_path, random_rows(200, seed=7)))
    assert hours_fall_with_threshold(hours).passed


def test_hours_that_grow_with_the_threshold_are_shown(tmp_path: Path) -> None:
    hours = hours_by_threshold(pairs_file(tmp_path, THREE), thresholds=[1.0, 1.1, 1.2])
    grown = hours.with_columns(source_sum_h=pl.Series([5.0, 6.0, 2.0]))
    outcome = hours_fall_with_threshold(grown)
    assert not outcome.passed
    assert outcome.offending["threshold"].to_list() == [1.1]


def test_a_union_above_the_sum_is_shown(tmp_path: Path) -> None:
    hours = hours_by_threshold(pairs_file(tmp_path, THREE), thresholds=[1.0, 1.1])
    outcome = hours_fall_with_threshold(hours.with_columns(target_union_h=pl.Series([5.5, 2.0])))
    assert outcome.offending["threshold"].to_list() == [1.0]


def test_a_sound_corpus_overlaps_nowhere(tmp_path: Path) -> None:
    outcome = no_overlap(pairs_file(tmp_path, [THREE[0], THREE[2]]))
    assert outcome.passed
    assert outcome.figures == {"rows": 2, "offending": 0}


def test_an_overlap_is_shown_with_its_side_and_recording(tmp_path: Path) -> None:
    inside = [(1.2, span("1", 0, 9), span("2", 0, 1)), (1.1, span("1", 1, 2), span("2", 1, 2))]
    inside.append((1.1, span("1", 3, 4), span("2", 2, 3)))  # after the second, yet inside the first
    outcome = no_overlap(pairs_file(tmp_path, inside))
    assert not outcome.passed
    assert outcome.offending.select("side", "audiobook", "section", "start_sample", "earlier_end_sample").rows() == [
        ("source", "1", 1, HOUR, 9 * HOUR),
        ("source", "1", 1, 3 * HOUR, 9 * HOUR),
    ]


def test_an_overlap_on_the_target_alone_is_found(tmp_path: Path) -> None:
    outcome = no_overlap(pairs_file(tmp_path, [*THREE[:1], (1.1, span("1", 2, 3), span("2", 1, 3))]))
    assert outcome.offending["side"].to_list() == ["target"]


def test_a_segment_in_two_pairs_is_shown(tmp_path: Path) -> None:
    outcome = one_to_one(pairs_file(tmp_path, THREE))
    segment = segment_id(*THREE[0][2])
    assert not outcome.passed
    assert outcome.offending.rows() == [("target", segment, 2, 1.3, 1.1)]
    assert one_to_one(pairs_file(tmp_path, THREE[1:])).passed


def test_only_the_first_rows_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    outcome = no_overlap(pairs_file(tmp_path, [(1.1, span("1", 0, n + 1), span("2", n, n + 1)) for n in range(50)]))
    assert (outcome.offending.height, outcome.figures["offending"]) == (SHOWN, 49)


def segments_file(folder: Path, *changes: dict[str, object]) -> Path:
    rows = []
    for n, change in enumerate(changes):
        start, end = 80_000 * n + 7, 80_000 * n + 64_007
        row = {"segment_id": n, "audiobook": "1", "section": 1, "start_sample": start, "end_sample": end,
               "start_ms": start // 16, "end_ms": end // 16, "first_run": n, "last_run": n, "level_dbfs": -20.0,
               "coverage": 0.9}  # fmt: skip
        rows.append(row | change)
    pl.DataFrame(rows, schema=dict(SEGMENTS)).write_parquet(folder / "segments.parquet")
    return folder / "segments.parquet"


def test_segments_of_the_bounds_are_within_them(tmp_path: Path) -> None:
    outcome = segment_durations_within(segments_file(tmp_path, {}, {}), 4.0, 4.0)
    assert outcome.passed
    assert outcome.figures["rows"] == 2


@pytest.mark.parametrize(
    "defect",
    [{"end_sample": 80_007 + 1, "end_ms": 5000}, {"end_sample": 800_000, "end_ms": 50_000}, {"start_ms": 5001}],
)
def test_a_segment_too_short_too_long_or_misdated_is_shown(tmp_path: Path, defect: dict[str, object]) -> None:
    outcome = segment_durations_within(segments_file(tmp_path, {}, defect), 3.0, 20.0)
    assert not outcome.passed
    assert outcome.offending["segment_id"].to_list() == [1]


def test_a_pair_with_a_side_too_long_is_shown(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, [(1.1, ("1", 1, 0, 64_000), ("2", 1, 0, 64_000)), (1.2, ("1", 1, 0, 64_000),
                      ("2", 1, 0, 320_001))])  # fmt: skip
    outcome = pair_durations_within(path, 3, 20)
    assert outcome.offending["score"].to_list() == [1.2]
    assert outcome.offending["target_duration_s"].item() == pytest.approx(20.0000625)
    assert pair_durations_within(path, 3, 20.1).passed


@pytest.mark.parametrize("coverage", [0.29, float("nan"), None, 1.5])
def test_a_segment_that_is_not_speech_is_shown(tmp_path: Path, coverage: float | None) -> None:
    outcome = segments_are_speech(segments_file(tmp_path, {}, {"coverage": coverage}), 0.3)
    assert outcome.offending["segment_id"].to_list() == [1]
    assert segments_are_speech(segments_file(tmp_path, {}, {}), 0.9 - 1e-6).passed


def recordings_file(folder: Path, *announced: tuple[int, int]) -> Path:
    row = {name: "" for name in RECORDINGS} | {"audiobook": "1", "language": "deu", "bytes": 1}
    rows = [row | {"section": section, "announced_s": seconds} for section, seconds in announced]
    pl.DataFrame(rows, schema=dict(RECORDINGS)).write_parquet(folder / "recordings.parquet")
    return folder / "recordings.parquet"


def test_a_section_that_lost_its_speech_is_shown(tmp_path: Path) -> None:
    segments = segments_file(tmp_path, {}, {}, {"start_sample": 7, "end_sample": 48_007})  # the third inside the first
    recordings = recordings_file(tmp_path, (1, 10), (2, 100))
    sections = section_coverage(segments, recordings).select("section", "candidates", "covered_s", "share")
    assert sections.rows() == [(2, 0, 0.0, 0.0), (1, 3, 8.0, 0.8)]
    outcome = sections_are_covered(segments, recordings, 0.5)
    assert not outcome.passed
    assert outcome.offending["section"].to_list() == [2]
    assert outcome.figures["lowest_share"] == 0
    assert sections_are_covered(segments, recordings_file(tmp_path, (1, 10)), 0.8).passed


def test_sorted_scores_pass(tmp_path: Path) -> None:
    assert scores_sorted(pairs_file(tmp_path, THREE), 1.05).passed


@pytest.mark.parametrize(
    ("scores", "row"), [((1.1, 1.2, 1.1), 1), ((1.2, 1.1, 1.04), 2), ((float("nan"), 1.2, 1.1), 0)]
)
def test_a_score_out_of_order_or_below_the_threshold_is_shown(
    tmp_path: Path, scores: tuple[float, ...], row: int
) -> None:
    path = pairs_file(tmp_path, [(score, a, b) for score, (_, a, b) in zip(scores, THREE, strict=True)])
    outcome = scores_sorted(path, 1.05)
    assert not outcome.passed
    assert outcome.offending["row"].to_list() == [row]


def unit_rows(n: int) -> np.ndarray:
    wide = np.random.default_rng(0).normal(size=(n, 64))
    unit: np.ndarray = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16)
    return unit


def test_unit_vectors_pass(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", unit_rows(20_000))
    outcome = vectors_are_unit(tmp_path / "v.npy")
    assert outcome.passed
    assert outcome.figures["rows"] == 20_000
    assert 0 < outcome.figures["worst_length_error"] < 5e-4


def test_no_vectors_pass(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.empty((0, 64), np.float16))
    assert vectors_are_unit(tmp_path / "v.npy").passed


def test_vectors_of_nan_zero_or_another_length_are_shown(tmp_path: Path) -> None:
    rows = unit_rows(10_000)
    rows[3, 5], rows[9_000], rows[9_001] = np.nan, 0, rows[9_001] * np.float16(1.01)
    np.save(tmp_path / "v.npy", rows)
    outcome = vectors_are_unit(tmp_path / "v.npy")
    assert not outcome.passed
    assert outcome.offending["row"].to_list() == [3, 9_000, 9_001]
    assert (outcome.figures["offending"], outcome.figures["not_a_number"]) == (3, 1)


def test_a_list_of_numbers_is_no_table_of_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones(5, np.float16))
    assert vectors_are_unit(tmp_path / "v.npy").offending["shape"].to_list() == ["(5,)"]


def pictures() -> dict[str, bytes]:
    draw = np.random.default_rng(0)
    steps = thresholds_between()
    falling = {name: np.linspace(3, 1, 21) for name in HOURS if name.endswith("_h")}
    hours = pl.DataFrame({"threshold": steps, "pairs": range(21), "postprocessed_pairs": range(21), **falling})
    return {
        "hours": plots.plot_hours(hours, 1.06, "deu-eng"),
        "scores": plots.plot_scores(draw.normal(1.1, 0.05, 5000), 1.06, "deu-eng"),
        "similarity": plots.plot_similarity(draw.normal(0.6, 0.1, 5000)),
        "coverage": plots.plot_coverage([f"book {n}" for n in range(40)], draw.random(40).tolist(), "deu"),
        "many sections": plots.plot_coverage([f"{n}" for n in range(400)], draw.random(400).tolist()),
        "nothing": plots.plot_scores(np.array([]), 1.06),
    }


def test_pictures_are_small_and_their_bytes_do_not_change() -> None:
    first, second = pictures(), pictures()
    for name, png in first.items():
        assert png[:8] == b"\x89PNG\r\n\x1a\n", name
        assert struct.unpack(">II", png[16:24]) == (700, 400), name
        assert len(png) <= 60_000, name
        assert png == second[name], name
        assert b"tEXt" not in png, name


def test_the_threshold_in_force_is_drawn() -> None:
    scores = np.linspace(1.0, 1.2, 50)
    assert plots.plot_scores(scores, 1.06) != plots.plot_scores(scores, 1.07)


def test_less_than_an_hour_is_drawn_in_minutes() -> None:
    from matplotlib import image

    falling = {name: np.linspace(0.9, 0.1, 21) for name in HOURS if name.endswith("_h")}
    few = pl.DataFrame({"threshold": thresholds_between(), **falling})
    many = few.with_columns(pl.selectors.ends_with("_h") * 60)
    minutes, hours = (image.imread(io.BytesIO(plots.plot_hours(table, 1.06))) for table in (few, many))
    name_of_axis = 25  # pixels from the left; beyond, sixty times the hours look the same
    assert np.array_equal(minutes[:, name_of_axis:], hours[:, name_of_axis:])
    assert not np.array_equal(minutes[:, :name_of_axis], hours[:, :name_of_axis])


def test_a_markdown_image_carries_the_png() -> None:
    image = plots.as_markdown_image(b"\x89PNG", "hours")
    assert image.startswith("![hours](data:image/png;base64,")
    assert base64.b64decode(image.partition("base64,")[2].rstrip(")")) == b"\x89PNG"


def test_importing_quality_and_selection_loads_neither_matplotlib_nor_numba() -> None:
    modules = "speech_mining.quality.plots, speech_mining.quality.hours, speech_mining.quality.checks"
    more = "speech_mining.mining.selection, speech_mining.mining.recurring, speech_mining.corpora.manifest"
    heavy = "{'matplotlib', 'numba', 'torch', 'faiss', 'av', 'onnxruntime', 'fairseq2', 'dagster'}"
    code = f"import sys, {modules}, {more}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
