"""Hours of speech at each threshold, told three ways and for both sides.

Lengths are added as integers (samples) and divided once, so that the same pairs give the same hours however they are
split into files. What a corpus must hold to be sound is in `checks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from speech_mining.errors import SettingsError
from speech_mining.mining.selection import SIDES, select_non_overlapping
from speech_mining.quality.queries import Paths, names_of, rows_of
from speech_mining.records import SAMPLE_RATE_HZ, Schema, modality_of, pairs_schema

VERSION = "1"

HOURS: Schema = {
    "threshold": pl.Float64(),
    "pairs": pl.Int64(),  # scored at least the threshold
    "source_sum_h": pl.Float64(),  # all spans added up; null where the side is text
    "target_sum_h": pl.Float64(),
    "source_union_h": pl.Float64(),  # what overlaps counted once
    "target_union_h": pl.Float64(),
    "postprocessed_pairs": pl.Int64(),  # left after non-overlap selection
    "source_postprocessed_h": pl.Float64(),
    "target_postprocessed_h": pl.Float64(),
}


def thresholds_between(lowest: float = 1.0, highest: float = 1.2, steps_of_hundredths: int = 1) -> tuple[float, ...]:
    """Thresholds from `lowest` to `highest`, both included, as the decimals they are written as."""
    hundredths = range(round(lowest * 100), round(highest * 100) + 1, steps_of_hundredths)
    return tuple(value / 100 for value in hundredths)


def hours_by_threshold(pairs: Paths, *, thresholds: Sequence[float] | None = None, floor: float = 1.0) -> pl.DataFrame:
    """Tell the hours of pairs at each threshold: sum, union and post-processed, as the paper's tables 5 and 8 do.

    Works on either layer: on the pairs table (floor: the lowest score it keeps), where post-processed hours come from
    selecting here, at every threshold; and on a corpus (floor: its threshold), which is selected already, so that the
    three agree. One selection serves every threshold, since cutting at a threshold and selecting commute.

    Duquenne, Gong & Schwenk 2021, "Multimodal and Multilingual Embeddings for Large-Scale Speech Mining", section 4.1.

    Args:
        pairs: parquet files with at least the columns `records.PAIRS`.
        thresholds: 1.00 to 1.20 by 0.01 by default, without those below `floor`.
        floor: the score from which the table keeps everything. What lies below is unknown to it.

    Returns:
        Columns `HOURS`, by rising threshold.

    Raises:
        LakeError: a file is not there.
        SettingsError: a threshold lies below the floor.
    """
    asked = tuple(t for t in thresholds_between() if t >= floor) if thresholds is None else tuple(sorted(thresholds))
    below = [threshold for threshold in asked if threshold < floor]
    if below:
        raise SettingsError(
            f"Hours at {below} were asked of a table that keeps scores from {floor}.",
            expected=f"thresholds from {floor}",
            fix="ask the pairs table, or keep pairs from a lower score",
        )
    names = names_of(pairs)
    there = pl.read_parquet_schema(names[0])
    wanted = pairs_schema(*(modality_of(list(there), side) for side in SIDES))
    columns = pl.read_parquet(names, columns=list(wanted)).filter(pl.col("score") >= min(asked, default=floor))
    kept = select_non_overlapping(columns).frame
    spoken = tuple(side for side in SIDES if modality_of(columns.columns, side) == "speech")
    rows = [_at(names, threshold, spoken, kept) for threshold in asked]
    return pl.DataFrame(rows, schema=dict(HOURS), orient="row", infer_schema_length=None)


def hours_together(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The hours of several corpora at each threshold, added up.

    A threshold that one of them does not know is left out: a sum of some would mislead.

    Args:
        tables: columns `HOURS`, each from a floor of its own.

    Returns:
        Columns `HOURS`, by rising threshold.
    """
    every = pl.concat([pl.DataFrame(schema=dict(HOURS)), *tables])
    known = every.filter(pl.len().over("threshold") == len(tables))
    return known.group_by("threshold").sum().sort("threshold")


def hours_of(samples: int) -> float:
    """Hours of so many samples at 16 kHz."""
    return samples / (SAMPLE_RATE_HZ * 3600)


def _at(names: list[str], threshold: float, spoken: tuple[str, ...], kept: pl.DataFrame) -> dict[str, float | None]:
    """A row of `HOURS`; a side of text has no hours."""
    reached = kept.filter(pl.col("score") >= threshold)
    told: dict[str, float | None] = {"threshold": threshold, "postprocessed_pairs": reached.height}
    found = {row["side"]: row for row in rows_of("hours", pairs=names, threshold=threshold).iter_rows(named=True)}
    nothing = {"pairs": 0, "sum_samples": 0, "union_samples": 0}
    for side in SIDES:
        samples = found.get(side, nothing)
        told["pairs"] = samples["pairs"]
        if side in spoken:
            told[f"{side}_sum_h"] = hours_of(samples["sum_samples"])
            told[f"{side}_union_h"] = hours_of(samples["union_samples"])
            told[f"{side}_postprocessed_h"] = hours_of(samples_of(reached, side))
    return told


def samples_of(pairs: pl.DataFrame, side: str) -> int:
    """Samples of the spans of a side ("source" or "target"), added up."""
    return int((pairs[f"{side}_end_sample"] - pairs[f"{side}_start_sample"]).sum())
