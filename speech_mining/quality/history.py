"""What a corpus was at each of its materializations, in figures, so that mining again shows what it changed.

What belongs here is the figures and the table that keeps them, a partition of the layer `quality_history` for each kind
and pair of languages. Only accepted materializations are in it: what fails a blocking check is not recorded, and stays
visible in Dagster's own log (`runs`). What counts as too much of a change is in `drift`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from speech_mining.lake import Lake, Partition
from speech_mining.mining.kinds import Kind
from speech_mining.quality.hours import hours_of, samples_of
from speech_mining.records import Schema, conform

VERSION = "1"
LAYER = "quality_history"

HISTORY: Schema = {
    "materialization": pl.Int64(),  # counted from 1, by the time of recording
    "recorded_at": pl.Datetime("us", "UTC"),
    "run_id": pl.String(),
    "data_version": pl.String(),  # of the corpus
    "figure": pl.String(),
    "value": pl.Float64(),
}
DECILES = tuple(f"score_p{percent}" for percent in range(10, 100, 10))
"""Nine figures that tell the distribution of scores."""


def corpus_figures(corpus: Partition, kind: Kind) -> dict[str, float]:
    """The figures of a corpus: its threshold, pairs and hours, and the distribution of its scores.

    Args:
        corpus: a partition of the kind's corpora.
        kind: of the corpus.

    Returns:
        Name → value. An empty corpus has no scores, and a side of text no hours: those figures are not there.
    """
    spans = [f"{side}_{end}_sample" for side in kind.spoken for end in ("start", "end")]
    # these columns alone: a corpus of an earlier version has figures too
    frame = pl.read_parquet(corpus.local_path("corpus.parquet"), columns=["score", "cosine", *spans])
    record = corpus.read_json("selection.json")
    figures = {"threshold": float(record["threshold"]), "pairs": float(frame.height)}
    figures |= {f"{side}_hours": hours_of(samples_of(frame, side)) for side in kind.spoken}
    return figures | (_of_scores(frame) if frame.height else {})


def _of_scores(frame: pl.DataFrame) -> dict[str, float]:
    scores = frame["score"].sort()
    shares = [percent / 100 for percent in range(10, 100, 10)]
    deciles = {name: _quantile(scores, share) for name, share in zip(DECILES, shares, strict=True)}
    return {"score_mean": _mean(scores), "cosine_mean": _mean(frame["cosine"]), **deciles}


def _mean(numbers: pl.Series) -> float:
    return float(numbers.cast(pl.Float64).sum()) / len(numbers)


def _quantile(scores: pl.Series, share: float) -> float:
    value = scores.quantile(share, interpolation="linear")
    return float("nan") if value is None else float(value)


def read_history(lake: Lake, kind: str, pair: str) -> pl.DataFrame:
    """`HISTORY` of a pair of languages; without rows where nothing was recorded."""
    partition = lake.find(LAYER, kind, pair)
    return pl.DataFrame(schema=dict(HISTORY)) if partition is None else partition.read_table("history.parquet", HISTORY)


def with_materialization(
    history: pl.DataFrame, figures: Mapping[str, float], *, data_version: str, recorded_at: datetime, run_id: str
) -> pl.DataFrame:
    """A history and one materialization more; the same where the last one has that content already.

    Args:
        history: columns `HISTORY`.
        figures: name → value.
        data_version: of the corpus that has these figures.
        recorded_at: with a time zone.
        run_id: of the run that records.
    """
    if last_version(history) == data_version:
        return history
    number = int(history["materialization"].max() or 0) + 1  # type: ignore[arg-type]
    rows = [(number, recorded_at, run_id, data_version, name, value) for name, value in figures.items()]
    return pl.concat([history, pl.DataFrame(rows, schema=dict(HISTORY), orient="row")])


def record_corpus(lake: Lake, kind: Kind, pair: str, *, recorded_at: datetime, run_id: str) -> pl.DataFrame:
    """Add the current corpus of a pair to its history, and publish it; `HISTORY`.

    Recording the same corpus again changes nothing, whenever and by whom it is done.
    """
    corpus = lake.partition(kind.layer("corpus"), pair)
    history = with_materialization(
        read_history(lake, kind.name, pair),
        corpus_figures(corpus, kind),
        data_version=corpus.data_version,
        recorded_at=recorded_at,
        run_id=run_id,
    )
    with lake.replace(LAYER, kind.name, pair) as new:
        new.write_frame("history.parquet", conform(history, HISTORY, LAYER))
    return history


def last_version(history: pl.DataFrame) -> str | None:
    """Data version of the corpus that was recorded last."""
    return None if history.is_empty() else str(history.sort("materialization")["data_version"][-1])


def last_figures(history: pl.DataFrame) -> dict[str, float]:
    """The figures that were recorded last; none where nothing was."""
    last = history.filter(pl.col("materialization") == pl.col("materialization").max())
    return dict(last.select("figure", "value").iter_rows())


def by_materialization(history: pl.DataFrame) -> pl.DataFrame:
    """A row a materialization, a column a figure, in the order in which they were recorded."""
    figures = history["figure"].unique(maintain_order=True).to_list()
    keys = ("materialization", "recorded_at", "run_id", "data_version")
    one = (pl.col("value").filter(pl.col("figure") == name).first().alias(name) for name in figures)
    return history.group_by(*keys, maintain_order=True).agg(*one).sort("materialization")
