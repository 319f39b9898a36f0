"""Materializations as a table, from Dagster's event log; it is only read.

What belongs here is the way from Dagster's records to the rows of the table `runs` (`speech_mining.quality.catalogue`),
which the library cannot read by itself: it knows no Dagster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from speech_mining.quality.catalogue import RUNS

if TYPE_CHECKING:
    import dagster as dg

INSTANCE = "dagster"
"""Folder of the instance in the home, where DAGSTER_HOME names no other."""
PAGE = 1_000


def runs_of_home(home: Path) -> pl.DataFrame:
    """`RUNS` of the instance that DAGSTER_HOME names, else of the one in the home; no row where there is none."""
    import dagster as dg
    from dagster._core.instance import InstanceRef

    folder = Path(os.environ.get("DAGSTER_HOME") or home / INSTANCE)
    if not (folder / "dagster.yaml").is_file() and not (folder / "history").is_dir():
        return pl.DataFrame(schema=dict(RUNS))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder.absolute()))) as instance:
        return runs_of(instance)


def runs_of(instance: dg.DagsterInstance) -> pl.DataFrame:
    """Every materialization that the instance remembers: columns `RUNS`, the oldest first."""
    rows = [_row(record) for key in instance.all_asset_keys() for record in _records(instance, key)]
    return pl.DataFrame(rows, schema=dict(RUNS), orient="row").sort("recorded_at", "asset", "partition", "run_id")


def _records(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[Any]:
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(key, limit=PAGE, cursor=cursor)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def _row(record: Any) -> tuple[str, str | None, datetime, str, str | None, str]:
    made = record.asset_materialization
    told = {name: plain for name, value in made.metadata.items() if (plain := _plain(value.value)) is not None}
    return (
        record.asset_key.to_user_string(),
        made.partition,
        datetime.fromtimestamp(record.timestamp, tz=timezone.utc),
        record.run_id,
        (made.tags or {}).get("dagster/data_version"),
        json.dumps(told, sort_keys=True, ensure_ascii=False),
    )


def _plain(value: object) -> float | int | str | None:
    """Numbers and short texts; tables and pictures are looked at in Dagster."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return value if value == value and abs(value) != float("inf") else str(value)
    return value if isinstance(value, str) and len(value) <= 200 and not value.startswith("![") else None
