"""What must hold in the lake's tables, and the rows in which it does not.

A check is a pure function of files: it neither repairs nor raises for what it looks for, it shows. What happens when
one fails (an asset is blocked, a command ends with an error) is its caller's affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from speech_mining.quality.queries import Bound, Paths, first_rows_of, names_of, row_count, rows_of
from speech_mining.records import SAMPLE_RATE_HZ

VERSION = "1"
SHOWN = 20
BLOCK_ROWS = 8_192


@dataclass(frozen=True, eq=False)
class CheckOutcome:
    """Whether a claim holds, and what speaks against it."""

    passed: bool
    offending: pl.DataFrame
    """The first rows that break the claim, `SHOWN` at most; empty when it holds."""
    figures: Mapping[str, float]
    """What was looked at and found: `rows`, `offending`, and the check's own."""


def no_overlap(pairs: Paths) -> CheckOutcome:
    """No two spans of one recording overlap, on either side (of a corpus)."""
    return _outcome("overlaps", pairs, pairs=names_of(pairs))


def one_to_one(pairs: Paths) -> CheckOutcome:
    """No segment stands in two pairs, on either side."""
    return _outcome("repeats", pairs, pairs=names_of(pairs))


def segment_durations_within(segments: Paths, minimum_s: float, maximum_s: float) -> CheckOutcome:
    """Every segment lasts from `minimum_s` to `maximum_s`, and its milliseconds are those of its samples."""
    return _outcome("segment_durations", segments, segments=names_of(segments), **_bounds(minimum_s, maximum_s))


def pair_durations_within(pairs: Paths, minimum_s: float, maximum_s: float) -> CheckOutcome:
    """Both sides of every pair last from `minimum_s` to `maximum_s`."""
    return _outcome("pair_durations", pairs, pairs=names_of(pairs), **_bounds(minimum_s, maximum_s))


def segments_are_speech(segments: Paths, least: float) -> CheckOutcome:
    """At least the share `least` of every segment is speech, as the VAD hears it."""
    return _outcome("segment_coverage", segments, segments=names_of(segments), least=least)


def section_coverage(segments: Paths, recordings: Paths) -> pl.DataFrame:
    """How much of each recording lies in at least one candidate.

    Returns:
        `audiobook, section, announced_s, candidates, covered_s, share`, a row a recording, the least covered first.
    """
    return rows_of("section_coverage", segments=names_of(segments), recordings=names_of(recordings))


def sections_are_covered(segments: Paths, recordings: Paths, least: float) -> CheckOutcome:
    """Of every recording, at least the share `least` lies in some candidate: no speech was lost to segmentation."""
    sections = section_coverage(segments, recordings)
    lost = sections.filter(pl.col("share") < least) if sections.height else sections
    lowest = float(sections["share"][0]) if sections.height else 1.0
    return CheckOutcome(
        lost.is_empty(), lost.head(SHOWN), {"rows": sections.height, "offending": lost.height, "lowest_share": lowest}
    )


def scores_sorted(corpus: Path, threshold: float) -> CheckOutcome:
    """Rows stand by decreasing score, and none is below the threshold."""
    return _outcome("unsorted_scores", corpus, pairs=names_of(corpus), threshold=threshold)


def vectors_are_unit(vectors: Path, tolerance: float = 2e-3) -> CheckOutcome:
    """Every row of an .npy of vectors is of unit length and holds only numbers.

    Args:
        vectors: float16 (n, d). It is mapped, not loaded.
        tolerance: how far from 1 a length may be. Rounding to fp16 moves it by 5e-4 at the very most.
    """
    mapped = np.load(names_of(vectors)[0], mmap_mode="r", allow_pickle=False)
    if mapped.ndim != 2:
        return CheckOutcome(False, pl.DataFrame({"shape": [str(mapped.shape)]}), {"rows": len(mapped), "offending": 1})
    blocks = [mapped[start : start + BLOCK_ROWS] for start in range(0, len(mapped), BLOCK_ROWS)]
    lengths = np.concatenate([np.linalg.norm(block.astype(np.float64), axis=1) for block in blocks] or [np.empty(0)])
    wrong = ~(np.abs(lengths - 1) <= tolerance)  # so written that NaN is wrong
    worst = np.abs(lengths[np.isfinite(lengths)] - 1).max(initial=0.0)
    return CheckOutcome(
        not wrong.any(),
        pl.DataFrame({"row": np.flatnonzero(wrong)[:SHOWN], "length": lengths[wrong][:SHOWN]}),
        {
            "rows": len(lengths),
            "offending": int(wrong.sum()),
            "not_a_number": int((~np.isfinite(lengths)).sum()),
            "worst_length_error": float(worst),
        },
    )


def hours_fall_with_threshold(hours: pl.DataFrame) -> CheckOutcome:
    """The higher the threshold, the fewer hours and pairs; and post-processed ≤ union ≤ sum.

    Args:
        hours: columns `speech_mining.quality.hours.HOURS`.
    """
    rising = hours.sort("threshold")
    amounts = [name for name in rising.columns if name != "threshold"]
    grew = pl.any_horizontal(pl.col(name).diff().fill_null(0) > 0 for name in amounts)
    crossed = pl.any_horizontal(
        (pl.col(f"{side}_union_h") > pl.col(f"{side}_sum_h"))
        | (pl.col(f"{side}_postprocessed_h") > pl.col(f"{side}_union_h"))
        for side in ("source", "target")
    )
    wrong = rising.filter(grew | crossed)
    return CheckOutcome(wrong.is_empty(), wrong.head(SHOWN), {"rows": rising.height, "offending": wrong.height})


def _outcome(query: str, looked_at: Paths, **bound: Bound) -> CheckOutcome:
    offending, count = first_rows_of(query, SHOWN, **bound)
    return CheckOutcome(count == 0, offending, {"rows": row_count(looked_at), "offending": count})


def _bounds(minimum_s: float, maximum_s: float) -> dict[str, Bound]:
    return {"shortest": round(minimum_s * SAMPLE_RATE_HZ), "longest": round(maximum_s * SAMPLE_RATE_HZ)}
