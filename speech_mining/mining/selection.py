"""From scored pairs to a corpus: of whatever overlaps, the best pair is kept, on both sides.

What belongs here is the choice between pairs that claim the same speech. How a pair is scored is in `margin`, which
speech is never offered (preambles) in `recurring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import LakeError
from speech_mining.records import PAIRS, conform

VERSION = "1"


@dataclass(frozen=True, eq=False)
class Selected:
    """What is left after selection, and what became of the rest."""

    frame: pl.DataFrame
    """The kept pairs (columns `records.PAIRS`), by decreasing score, then source and target segment."""
    counts: Mapping[str, int]
    """`candidates`, `kept`, and a number for each reason a pair was dropped: `duplicate_source`, `duplicate_target`
    (a kept pair has the very same segment), `overlapping_source`, `overlapping_target`, `overlapping_both`."""


def select_non_overlapping(pairs: pl.DataFrame) -> Selected:
    """Keep pairs by decreasing score wherever they overlap nothing kept before, on either side.

    Duquenne, Gong & Schwenk 2021, "Multimodal and Multilingual Embeddings for Large-Scale Speech Mining", section 4.1,
    with their rule for one side applied to both. Their connected components need not be built: pairs of different
    components cannot block each other, so one walk over all of them by score takes the same pairs. A segment overlaps
    itself, so the same walk keeps the best pair of duplicates; the one difference from removing duplicates first is
    that a segment whose best pair loses to an overlap may still be kept with its next best.

    Which pairs are kept at scores >= t depends on pairs at scores >= t alone: selecting and then cutting at t equals
    cutting and then selecting.

    Args:
        pairs: columns `records.PAIRS`, in any order. A recording is (audiobook, section); spans are half-open.

    Returns:
        The kept pairs; ties in score go to the smaller source segment, then the smaller target segment.

    Raises:
        LakeError: other columns, nulls, a score that is not a number, an empty span.
    """
    from speech_mining.mining import occupancy

    pairs = conform(pairs, PAIRS, "pairs")
    _refuse_holes(pairs)
    order = _best_first(pairs)
    source, target = (occupancy.slots(recordings(pairs, side), *_span(pairs, side)) for side in ("source", "target"))
    outcome = occupancy.take_in_order(order, source, target)
    kept = pairs[order[outcome[order] == occupancy.FITS]]
    return Selected(kept, _counted(pairs, kept, outcome))


def recordings(pairs: pl.DataFrame, side: str) -> npt.NDArray[np.int64]:
    """Number the recordings of a side from 0, in no particular order: int64 (n,)."""
    where = pairs.select(f"{side}_audiobook", f"{side}_section")
    numbered = where.unique().with_row_index("recording")
    number = where.join(numbered, on=where.columns, how="left", maintain_order="left")["recording"]
    return number.to_numpy().astype(np.int64)


def _span(pairs: pl.DataFrame, side: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return pairs[f"{side}_start_sample"].to_numpy(), pairs[f"{side}_end_sample"].to_numpy()


def _best_first(pairs: pl.DataFrame) -> npt.NDArray[np.int64]:
    keys = ["score", "source_segment", "target_segment"]
    order = pairs.select(pl.arg_sort_by(keys, descending=[True, False, False], maintain_order=True))
    return order.to_series().to_numpy().astype(np.int64)


def _refuse_holes(pairs: pl.DataFrame) -> None:
    holes = {name: count for name, count in pairs.null_count().row(0, named=True).items() if count}
    not_numbers = int(pairs["score"].is_nan().sum())
    if holes or not_numbers:
        raise LakeError(
            f"Pairs with nothing in {holes or 'score'} ({not_numbers} scores are not a number).",
            expected="every column filled",
            cause="a margin was computed where the neighbours' mean is not positive",
            fix="drop candidates without a score before selecting",
        )


def _counted(pairs: pl.DataFrame, kept: pl.DataFrame, outcome: npt.NDArray[np.int8]) -> dict[str, int]:
    same_source = pairs["source_segment"].is_in(kept["source_segment"].implode()).to_numpy()
    same_target = pairs["target_segment"].is_in(kept["target_segment"].implode()).to_numpy()
    dropped = outcome != 0
    overlapping = np.where(same_source | same_target, 0, outcome)
    return {
        "candidates": pairs.height,
        "kept": kept.height,
        "duplicate_source": int((dropped & same_source).sum()),
        "duplicate_target": int((dropped & ~same_source & same_target).sum()),
        "overlapping_source": int((overlapping == 1).sum()),
        "overlapping_target": int((overlapping == 2).sum()),
        "overlapping_both": int((overlapping == 3).sum()),
    }
