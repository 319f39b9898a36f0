"""Runs the SQL files that stand beside it, over parquet files, in a DuckDB of its own.

What belongs here is the way from a file's name and bound parameters to a frame. What a query means is told in the SQL
and in the module that asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from speech_mining.errors import LakeError
from speech_mining.records import modality_of

if TYPE_CHECKING:
    import duckdb

Paths: TypeAlias = Path | str | Sequence[Path | str]
Bound: TypeAlias = str | int | float | list[str]


def names_of(paths: Paths) -> list[str]:
    """The paths as DuckDB takes them.

    Raises:
        LakeError: a file is not there.
    """
    listed = [paths] if isinstance(paths, (str, Path)) else list(paths)
    absent = [str(path) for path in listed if not Path(path).is_file()]
    if absent or not listed:
        raise LakeError(f"There is no {', '.join(absent) or 'file'} to read.", fix="materialize the partition first")
    return [str(path) for path in listed]


def rows_of(query: str, **bound: Bound) -> pl.DataFrame:
    """All rows of the SQL file `<query>.sql`, its `$names` bound."""
    with _connection(bound) as connection:
        return _frame(connection.execute(_sql(query), bound))


def first_rows_of(query: str, limit: int, **bound: Bound) -> tuple[pl.DataFrame, int]:
    """The first rows of the SQL file `<query>.sql`, and how many it has in all."""
    with _connection(bound) as connection:
        connection.execute(f"CREATE TEMP TABLE found AS {_sql(query)}", bound)
        count = connection.execute("SELECT count(*) FROM found").fetchall()[0][0]
        return _frame(connection.execute("SELECT * FROM found LIMIT ?", [limit])), int(count)


def row_count(paths: Paths) -> int:
    """Rows of parquet files."""
    with _connection({}) as connection:
        counted = connection.execute("SELECT count(*) FROM read_parquet($paths)", {"paths": names_of(paths)})
        return int(counted.fetchall()[0][0])


def _connection(bound: Mapping[str, Bound]) -> duckdb.DuckDBPyConnection:
    import duckdb  # here: loading the code location needs none

    connection = duckdb.connect()
    paths = bound.get("pairs")
    if isinstance(paths, list):
        connection.execute(_pairs_of(list(pl.read_parquet_schema(paths[0]))))
    return connection


def _pairs_of(columns: Sequence[str]) -> str:
    """Pairs of any modalities under the names of speech, as `pairs_of($pairs)`: a sentence has no times."""
    texts = [side for side in ("source", "target") if modality_of(columns, side) == "text"]
    named = "".join(
        f", {side}_sentence AS {side}_segment, {side}_shard AS {side}_audiobook, NULL::INTEGER AS {side}_section"
        f", NULL::BIGINT AS {side}_start_sample, NULL::BIGINT AS {side}_end_sample"
        for side in texts
    )
    return (
        f"CREATE TEMP MACRO pairs_of(paths) AS TABLE SELECT *{named} FROM read_parquet(paths, file_row_number = true)"
    )


def _sql(query: str) -> str:
    return Path(__file__).with_name(f"{query}.sql").read_text("utf-8")


def _frame(answer: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    names = [column[0] for column in answer.description or []]
    return pl.DataFrame(answer.fetchall(), schema=names, orient="row", infer_schema_length=None)
