"""What a study's runs say together: mean and spread over seeds, the gain over the base, the share of the gap closed."""

from __future__ import annotations

import polars as pl

from speech_mining.downstream.tables import BASE, COMPARED, TRUE

_OF = ["condition", "threshold", "metric"]


def compare(runs: pl.DataFrame) -> pl.DataFrame:
    """Put the seeds of every condition together.

    The share of the gap is (mean - base) / (true - base): 0 is no help, 1 as good as the true pairs. It is told only
    where the gap is wider than half the interval of the true pairs' own score: a share of noise says nothing.

    Args:
        runs: `tables.RUNS`.

    Returns:
        `COMPARED`, in the order of the runs.
    """
    base = runs.filter(condition=BASE).select("metric", "seed", pl.col("value").alias("of_base"))
    together = (
        runs.join(base, on=["metric", "seed"], how="left", maintain_order="left")
        .group_by(_OF, maintain_order=True)
        .agg(
            pl.col("pairs").first(),
            pl.col("hours").first(),
            pl.len().alias("runs"),
            pl.col("value").mean().alias("mean"),
            pl.col("value").std().alias("spread"),
            pl.col("low").mean(),
            pl.col("high").mean(),
            (pl.col("value") - pl.col("of_base")).mean().alias("gain"),
            (pl.col("value") > pl.col("of_base")).sum().alias("better_seeds"),
        )
    )
    unsure = (pl.col("high") - pl.col("low")) / 2
    gap = together.filter(condition=TRUE).select("metric", pl.col("gain").alias("gap"), unsure.alias("unsure"))
    share = (
        pl.when((pl.col("gap") > 0) & (pl.col("gap") > pl.col("unsure")))
        .then(pl.col("gain") / pl.col("gap"))
        .alias("share_of_gap")
    )
    joined = together.join(gap, on="metric", how="left", maintain_order="left").with_columns(share)
    return joined.select([pl.col(name).cast(dtype) for name, dtype in COMPARED.items()])
