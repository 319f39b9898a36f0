"""Mined pairs held against a known truth, sentence by sentence.

What belongs here is the comparison of spans of time. Where a truth comes from (the demo writes one, an aligner may
guess one) is its maker's affair.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from speech_mining.errors import LakeError

VERSION = "1"

SPANS = [f"{side}_{name}" for side in ("source", "target") for name in ("audiobook", "section", "start_ms", "end_ms")]
RECORDINGS = [f"{side}_{name}" for side in ("source", "target") for name in ("audiobook", "section")]


@dataclass(frozen=True, eq=False)
class Comparison:
    """How many mined pairs are right, and how much of the truth was found."""

    precision: float
    """Right pairs / mined pairs; 0 where nothing was mined."""
    recall: float
    """Found truths / truths; 0 where there are none."""
    true_positives: int
    """Mined pairs that are right."""
    found: int
    """Truths that a mined pair matches, each counted once."""
    mined: int
    truths: int
    wrong: pl.DataFrame
    """The mined pairs that are not right, with all their columns and `best_iou`: the lesser of both sides' overlap
    with the nearest truth, 0 where no truth links the two recordings there."""
    missed: pl.DataFrame
    """The truths not found, with all their columns and `best_iou` to the nearest mined pair."""


def compare_with_truth(mined: pl.DataFrame, truth: pl.DataFrame) -> Comparison:
    """Call a mined pair right when both its spans overlap a true pair's by more than half of their union.

    Args:
        mined: at least `source_audiobook, source_section, source_start_ms, source_end_ms` and the same for `target_`.
        truth: at least the same columns, a row for each sentence and its translation.

    Raises:
        LakeError: a column is missing, a span is empty.
    """
    for frame, name in ((mined, "mined pairs"), (truth, "truth")):
        _refuse_misfits(frame, name)
    near = _overlapping(_numbered(mined, "mined_row"), _numbered(truth, "truth_row"))
    mined_best, truth_best = _with_best(mined, near, "mined_row"), _with_best(truth, near, "truth_row")
    right, found = _more_than_half(near, "mined_row"), _more_than_half(near, "truth_row")
    return Comparison(
        precision=len(right) / mined.height if mined.height else 0.0,
        recall=len(found) / truth.height if truth.height else 0.0,
        true_positives=len(right),
        found=len(found),
        mined=mined.height,
        truths=truth.height,
        wrong=_without(mined_best, right),
        missed=_without(truth_best, found),
    )


def _numbered(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    typed = frame.select(
        pl.col(column).cast(pl.String if column.endswith("audiobook") else pl.Int64) for column in SPANS
    )
    return typed.with_row_index(name)


def _overlapping(mined: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Every mined pair and truth of the same two recordings that overlap on both sides, and how much."""
    both = mined.join(truth, on=RECORDINGS, suffix="_true")
    shared = {side: _shared(side) for side in ("source", "target")}
    return both.filter(*(overlap > 0 for overlap in shared.values())).select(
        "mined_row",
        "truth_row",
        right=pl.all_horizontal(2 * shared[side] > _union(side) for side in shared),
        iou=pl.min_horizontal(shared[side] / _union(side) for side in shared),
    )


def _shared(side: str) -> pl.Expr:
    start = pl.max_horizontal(f"{side}_start_ms", f"{side}_start_ms_true")
    return pl.min_horizontal(f"{side}_end_ms", f"{side}_end_ms_true") - start


def _union(side: str) -> pl.Expr:
    # for spans that overlap; the others are filtered out before
    start = pl.min_horizontal(f"{side}_start_ms", f"{side}_start_ms_true")
    return pl.max_horizontal(f"{side}_end_ms", f"{side}_end_ms_true") - start


def _more_than_half(near: pl.DataFrame, name: str) -> pl.Series:
    rows: pl.Series = near.filter("right").get_column(name).unique().sort()
    return rows


def _with_best(frame: pl.DataFrame, near: pl.DataFrame, name: str) -> pl.DataFrame:
    best = near.group_by(name).agg(best_iou=pl.col("iou").max())
    joined = frame.with_row_index(name).join(best, on=name, how="left", maintain_order="left")
    return joined.drop(name).with_columns(pl.col("best_iou").fill_null(0.0))


def _without(frame: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    numbers = pl.Series(range(frame.height), dtype=rows.dtype)
    return frame.filter(~numbers.is_in(rows.implode()))


def _refuse_misfits(frame: pl.DataFrame, name: str) -> None:
    missing = [column for column in SPANS if column not in frame.columns]
    if missing:
        raise LakeError(f"A table of {name} has no {missing}.", expected=f"at least the columns {SPANS}")
    for side in ("source", "target"):
        empty = frame.filter(pl.col(f"{side}_end_ms") <= pl.col(f"{side}_start_ms"))
        if empty.height:
            raise LakeError(
                f"{empty.height} rows of {name} have an empty {side} span, the first {empty.select(SPANS).row(0)}.",
                expected="start_ms before end_ms",
                cause="seconds were written where milliseconds are expected, and rounded",
            )
