"""What a pair's scores must be for it to stay, and what became of the rest.

What belongs here is arithmetic on tables; no model is known here. Limits are applied before overlaps are resolved: a
pair that will not stay must not push one out that would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from speech_mining.errors import LakeError
from speech_mining.mining.kinds import KINDS
from speech_mining.records import SAMPLE_RATE_HZ, Schema, item_column, modality_of

VERSION = "1"

BLASER_SCORES: Schema = {"blaser_qe": pl.Float32()}
TOXICITY_SCORES: Schema = {"source_toxicity": pl.Float32(), "target_toxicity": pl.Float32()}
FILTER_SCORES: Schema = {**BLASER_SCORES, **TOXICITY_SCORES}
"""Columns of scores, in their order; a table has those whose model is on."""
DROPPED: Schema = {
    "reason": pl.String(),
    "pairs": pl.Int64(),
    "source_hours": pl.Float64(),  # spans added up, overlapping or not; null: a side of text
    "target_hours": pl.Float64(),
}


@dataclass(frozen=True)
class FilterLimits:
    """From where a score costs a pair its place; None: it never does. A score at a limit stays."""

    least_blaser_qe: float | None = None
    most_toxicity: float | None = None
    """Of either side."""
    most_added_toxicity: float | None = None
    """Target's toxicity less the source's."""
    most_lost_toxicity: float | None = None
    """Source's toxicity less the target's: what is added when the pair is used the other way."""

    @property
    def broken_by(self) -> Mapping[str, pl.Expr]:
        """Reason → whether a row breaks that limit, in the order in which reasons are told."""
        blaser, source, target = (pl.col(name) for name in FILTER_SCORES)
        broken = {
            "below_least_blaser_qe": (self.least_blaser_qe, blaser < _as_score(self.least_blaser_qe)),
            "above_most_toxicity": (
                self.most_toxicity,
                pl.max_horizontal(source, target) > _as_score(self.most_toxicity),
            ),
            "above_most_added_toxicity": (
                self.most_added_toxicity,
                target - source > _as_score(self.most_added_toxicity),
            ),
            "above_most_lost_toxicity": (
                self.most_lost_toxicity,
                source - target > _as_score(self.most_lost_toxicity),
            ),
        }
        return {reason: breaks for reason, (limit, breaks) in broken.items() if limit is not None}


@dataclass(frozen=True, eq=False)
class Filtered:
    """Pairs that stay, and what the limits cost."""

    kept: pl.DataFrame
    """The rows that stay, as they came."""
    dropped: pl.DataFrame
    """`DROPPED`: a row for each limit that is set. A pair that breaks several is counted at the first of them."""


def pair_key(columns: Sequence[str]) -> tuple[str, str]:
    """The two columns that name a pair for ever, such as `source_segment` and `target_sentence`.

    Args:
        columns: of pairs, or of a table of their scores.
    """
    return item_column(columns, "source"), item_column(columns, "target")


def with_scores(pairs: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """Pairs with their scores beside them, in the order of the pairs.

    Args:
        pairs: with at least the columns `pair_key`.
        scores: these two and some of `FILTER_SCORES`, of at least these pairs.

    Raises:
        LakeError: a pair has no score.
    """
    key = pair_key(pairs.columns)
    without = pairs.join(scores, on=key, how="anti").height
    if without:
        raise _no_scores(f"{without} of {pairs.height} pairs have no score", pairs.columns)
    return pairs.join(scores, on=key, how="left", maintain_order="left")


def within_limits(pairs: pl.DataFrame, limits: FilterLimits) -> Filtered:
    """Drop pairs whose scores break a limit.

    Args:
        pairs: `records.pairs_schema` of two modalities, and those of `FILTER_SCORES` that the limits speak of.
        limits: which.

    Raises:
        LakeError: a score that a limit needs is not there.
    """
    broken = limits.broken_by
    needed = {name for expression in broken.values() for name in expression.meta.root_names()}
    holes = sorted(name for name in needed if name not in pairs.columns or pairs[name].has_nulls())
    if holes:
        raise _no_scores(f"Not every pair has the scores {', '.join(holes)}", pairs.columns)
    if not broken:
        return Filtered(pairs, pl.DataFrame(schema=dict(DROPPED)))
    first = pl.coalesce([*(pl.when(breaks).then(pl.lit(reason)) for reason, breaks in broken.items()), pl.lit("")])
    reasons = pairs.select(reason=first)["reason"]
    rows = [_cost(reason, pairs.filter(reasons == reason)) for reason in broken]
    return Filtered(pairs.filter(reasons == ""), pl.DataFrame(rows, schema=dict(DROPPED), orient="row"))


def _as_score(limit: float | None) -> pl.Expr:
    """A limit as float32, which scores are: 0.6 as a score is 0.60000002, and must not pass its own limit."""
    return pl.lit(limit, pl.Float32)


def _cost(reason: str, pairs: pl.DataFrame) -> tuple[str, int, float | None, float | None]:
    return reason, pairs.height, _hours(pairs, "source"), _hours(pairs, "target")


def _hours(pairs: pl.DataFrame, side: str) -> float | None:
    if modality_of(pairs.columns, side) == "text":
        return None
    return int((pairs[f"{side}_end_sample"] - pairs[f"{side}_start_sample"]).sum()) / (SAMPLE_RATE_HZ * 3600)


def _no_scores(found: str, columns: Sequence[str]) -> LakeError:
    sides = tuple(modality_of(columns, side) for side in ("source", "target"))
    kind = next(kind for kind in KINDS if (kind.source, kind.target) == sides)
    return LakeError(
        f"{found}.",
        expected="a score of every pair",
        cause="the pairs were mined again since they were scored",
        fix=f"materialize {kind.layer('pair_quality')} of the pair",
    )
