"""What an evaluation leaves. Importing this loads nothing that aligns."""

from __future__ import annotations

import polars as pl

from speech_mining.records import Schema

EVALUATION: Schema = {
    "map": pl.String(),  # unsupervised, or what of the dictionary the supervised one has seen
    "measure": pl.String(),  # nn: cosine; csls: cosine with hubs taken down
    "words": pl.Int64(),  # spoken words that were asked
    "r1": pl.Float64(),  # share whose nearest written word is right
    "r5": pl.Float64(),
    "r10": pl.Float64(),
}
