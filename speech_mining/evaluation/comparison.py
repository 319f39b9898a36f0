"""Encoders side by side on the same searches, and whether one is worse than another.

Figures come from `trials`; what is done about a worse encoder is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from speech_mining.errors import LakeError
from speech_mining.evaluation.intervals import Estimate
from speech_mining.evaluation.trials import Outcome
from speech_mining.records import Schema

FIGURES = ("error", "hard_error", "recall_1", "recall_5", "word_error_rate")
_SEARCH = ("task", "source", "target")

OUTCOMES: Schema = {
    "encoder": pl.String(),
    "version": pl.String(),
    "task": pl.String(),  # what is searched among what
    "source": pl.String(),  # ISO 639-3
    "target": pl.String(),
    "queries": pl.Int64(),
    "candidates": pl.Int64(),
    "distractors": pl.Int64(),
    "hard_negatives": pl.Int64(),
    **{f"{figure}{end}": pl.Float64() for figure in FIGURES for end in ("", "_low", "_high")},
}
COMPARED: Schema = {
    "task": pl.String(),
    "source": pl.String(),
    "target": pl.String(),
    "queries": pl.Int64(),
    "error": pl.Float64(),
    "current_error": pl.Float64(),
    "worse": pl.Boolean(),
}


def outcomes_table(encoder: str, version: str, outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """`OUTCOMES` of an encoder, a row a search."""
    rows = []
    for one in outcomes:
        row = {name: getattr(one, name, None) for name in OUTCOMES}
        row |= {"encoder": encoder, "version": version}
        for figure in FIGURES:
            found: Estimate | None = getattr(one, figure)
            row |= {figure: None, f"{figure}_low": None, f"{figure}_high": None}
            if found is not None:
                row |= {figure: found.value, f"{figure}_low": found.low, f"{figure}_high": found.high}
        rows.append(row)
    return pl.DataFrame(rows, schema=dict(OUTCOMES)).with_columns(pl.selectors.float().fill_nan(None))


def mean_error(outcomes: pl.DataFrame) -> float:
    """The error of an encoder over all searches of audio, each search counting alike."""
    return float(outcomes.filter(pl.col("task").str.starts_with("audio"))["error"].mean())  # type: ignore[arg-type]


def compare(candidate: pl.DataFrame, current: pl.DataFrame, tolerance: float) -> pl.DataFrame:
    """Hold the errors of two encoders against each other, search by search.

    A candidate is worse in a search where its error is more than `tolerance` above the other's. Both were measured on
    the same rows, so a difference is one between encoders and not between test sets. Searches of texts alone do not
    depend on either and are left out.

    Args:
        candidate: `OUTCOMES` of one encoder.
        current: `OUTCOMES` of the other, of the same searches.
        tolerance: share of the queries.

    Returns:
        `COMPARED`.

    Raises:
        LakeError: they were not examined by the same searches.
    """
    mine, other = (
        table.filter(pl.col("task").str.starts_with("audio")).select(*_SEARCH, "queries", "error")
        for table in (candidate, current)
    )
    joined = mine.join(other.select(*_SEARCH, pl.col("error").alias("current_error")), on=_SEARCH, how="full")
    if joined.height != mine.height or joined["error"].null_count() or joined["current_error"].null_count():
        raise LakeError(
            f"{mine.height} searches are held against {other.height} others.",
            expected="the same searches of both encoders",
            cause="one of them does not embed a language of the test set",
        )
    return joined.select(
        *_SEARCH,
        "queries",
        "error",
        "current_error",
        (pl.col("error") > pl.col("current_error") + tolerance).alias("worse"),
    ).sort(_SEARCH)
