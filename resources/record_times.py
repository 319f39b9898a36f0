"""When partitions were made, from Dagster's event log: what came later than what, asked in bulk and only read.

What belongs here is questions to the log. What they mean for an index or a corpus is in `s2s_assets.freshness`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

PAGE = 500


@dataclass(frozen=True)
class Made:
    """One materialization that the log remembers."""

    place: int
    """In the log: what came later has a higher one."""
    at: datetime
    partition: str | None
    data_version: str | None
    """Of the tag, or of the metadata where a batched run told it there."""


class RecordTimes:
    """The materializations of one instance, as they are now; what is asked twice is read once."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._latest: dict[dg.AssetKey, Mapping[str, int]] = {}

    def latest(self, key: dg.AssetKey) -> Mapping[str, int]:
        """Partition → the place of its last materialization: one question, however many partitions there are."""
        if key not in self._latest:
            materialized = dg.DagsterEventType.ASSET_MATERIALIZATION
            storage = self._instance.event_log_storage
            self._latest[key] = dict(storage.get_latest_storage_id_by_partition(key, materialized))
        return self._latest[key]

    def since(
        self, key: dg.AssetKey, place: int = 0, *, after: datetime | None = None, partition: str | None = None
    ) -> Iterator[Made]:
        """Materializations later than a place, or than a time, the first one first."""
        partitions = None if partition is None else [partition]
        seconds = None if after is None else after.timestamp()
        while True:
            wanted = dg.AssetRecordsFilter(key, partitions, after_timestamp=seconds, after_storage_id=place)
            page = self._instance.fetch_materializations(wanted, PAGE, ascending=True)
            yield from map(_made, page.records)
            if not page.has_more:
                return
            place = page.records[-1].storage_id

    def last_before(self, key: dg.AssetKey, place: int) -> Made | None:
        """The last materialization before a place."""
        wanted = dg.AssetRecordsFilter(key, before_storage_id=place)
        records = self._instance.fetch_materializations(wanted, 1).records
        return _made(records[0]) if records else None

    def last_at(self, key: dg.AssetKey) -> datetime | None:
        """When an asset without partitions was made last."""
        made = self._instance.get_latest_materialization_event(key)
        return None if made is None else datetime.fromtimestamp(made.timestamp, tz=timezone.utc)

    def began(self, key: dg.AssetKey, place: int) -> datetime:
        """When the run began that made what is at a place: a run reads when it begins, and is recorded when it ends."""
        (record,) = self._instance.fetch_materializations(dg.AssetRecordsFilter(key, storage_ids=[place]), 1).records
        run = self._instance.get_run_record_by_id(record.run_id) if record.run_id else None
        seconds = record.timestamp if run is None or run.start_time is None else run.start_time
        return datetime.fromtimestamp(seconds, tz=timezone.utc)


def _made(record: dg.EventLogRecord) -> Made:
    event = record.asset_materialization
    tags = dict(event.tags or {}) if event else {}
    told = event.metadata.get("data_version") if event else None
    version = tags.get(DATA_VERSION_TAG) or (str(told.value) if told is not None else None)
    at = datetime.fromtimestamp(record.timestamp, tz=timezone.utc)
    return Made(record.storage_id, at, record.partition_key, version)
