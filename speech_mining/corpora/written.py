"""The sentences that pairs speak of: their text, and the line of the document that it comes from.

What belongs here is the way from a shard's row to its words. What a corpus tells of them is `manifest`.
"""

from __future__ import annotations

import polars as pl

from speech_mining.errors import LakeError
from speech_mining.lake import Lake
from speech_mining.records import Schema, conform

LAYER, FILE, RECORD = "text_sentences", "sentences.parquet", "shard.json"
WRITTEN: Schema = {
    "shard": pl.String(),
    "shard_row": pl.Int64(),
    "text": pl.String(),
    "language": pl.String(),  # ISO 639-3
    "address": pl.String(),  # of the shard's file
    "document": pl.String(),
    "line": pl.Int64(),
    "offset": pl.Int64(),
    "length": pl.Int32(),
}


def written(lake: Lake, language: str, places: pl.DataFrame) -> pl.DataFrame:
    """Look sentences up; of a shard only the row groups that hold one are read.

    Args:
        lake: where the sentences are.
        language: ISO 639-3.
        places: columns `shard` and `shard_row`.

    Returns:
        `WRITTEN`, each place once, by shard and row.

    Raises:
        LakeError: a shard is not there, or has fewer rows.
    """
    asked = places.select("shard", "shard_row").unique().sort("shard", "shard_row")
    found = [_of_shard(lake, language, str(shard), rows) for (shard,), rows in asked.group_by(["shard"])]
    table = pl.concat([pl.DataFrame(schema=dict(WRITTEN)), *found]).sort("shard", "shard_row")
    if table.height != asked.height:
        raise LakeError(
            f"{asked.height - table.height} of {asked.height} sentences are not in their shards.",
            expected="pairs of the sentences that are there",
            cause=f"shards of {language} were cleaned again since they were mined",
            fix=f"materialize {language}/text_embeddings and what follows from it",
        )
    return table


def _of_shard(lake: Lake, language: str, shard: str, rows: pl.DataFrame) -> pl.DataFrame:
    partition = lake.partition(LAYER, language, shard)
    wanted = rows["shard_row"].implode()
    sentences = (
        pl.scan_parquet(partition.local_path(FILE), row_index_name="shard_row")
        .filter(pl.col("shard_row").is_in(wanted))
        .select("shard_row", "text", "document", "line", "offset", "length")
        .collect()
    )
    told = {"shard": shard, "language": language, "address": partition.read_json(RECORD)["address"]}
    described = sentences.with_columns(pl.lit(value).alias(name) for name, value in told.items())
    return conform(described, WRITTEN, "sentences")
