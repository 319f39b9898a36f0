"""What a study leaves: its tables, and the names of what is compared. Importing this loads nothing that learns."""

from __future__ import annotations

from typing import Literal, TypeAlias

import polars as pl

from speech_mining.records import Schema

VERSION = "1"
"""Raise it when the same data and configuration would give other results; part of every run's name."""

Task: TypeAlias = Literal["translation", "retrieval"]
BASE, MINED, TRUE, RANDOM = "base", "mined", "true", "random"

RUNS: Schema = {
    "condition": pl.String(),  # base, or what was added to it: mined, true, random
    "threshold": pl.Float64(),  # of the mined pairs; null where there is none
    "pairs": pl.Int64(),  # added to the base
    "hours": pl.Float64(),  # of their source speech
    "seed": pl.Int64(),
    "metric": pl.String(),
    "value": pl.Float64(),
    "low": pl.Float64(),  # 95 % interval over the test sentences
    "high": pl.Float64(),
    "signature": pl.String(),
    "run": pl.String(),  # names data, configuration and seed
}
OUTPUTS: Schema = {
    "condition": pl.String(),
    "threshold": pl.Float64(),
    "seed": pl.Int64(),
    "example": pl.String(),  # of the test set
    "reference": pl.String(),
    "said": pl.String(),  # by the model
}
COMPARED: Schema = {
    "condition": pl.String(),
    "threshold": pl.Float64(),
    "pairs": pl.Int64(),
    "hours": pl.Float64(),
    "metric": pl.String(),
    "runs": pl.Int64(),  # seeds
    "mean": pl.Float64(),
    "spread": pl.Float64(),  # standard deviation over seeds; null for one
    "low": pl.Float64(),  # mean of the runs' bounds: 95 % over the test sentences
    "high": pl.Float64(),
    "gain": pl.Float64(),  # over the base
    "better_seeds": pl.Int64(),  # seeds in which it beats the base
    "share_of_gap": pl.Float64(),  # gain / gain of the true pairs; null where that is not known, or not sure
}
