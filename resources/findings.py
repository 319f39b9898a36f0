"""What checks of a language have found, kept for each audiobook: a batch looks at its own, and tells of all.

A check of a whole language that read every audiobook after every batch read a lake of 10 000 for each 50 new ones:
4 s for every thousand short ones, and all vectors there are, which is hundreds of gigabytes. So what is wrong with an
audiobook is kept as a partition of its own until the audiobook is looked at again, and runs that go on at once do not
disturb each other. What belongs here is keeping; the judging is in `speech_mining.quality`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import dagster as dg
import polars as pl
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from resources.record_times import RecordTimes
from speech_mining.lake import Lake
from speech_mining.quality.checks import CheckOutcome

LAYER = "check_findings"
ROWS = "rows.parquet"


@dataclass(frozen=True)
class Findings:
    """Of one check of one language."""

    lake: Lake
    language: str
    check: str

    def judge(
        self,
        layer: str,
        books: Iterable[str] | None,
        look: Callable[[str], CheckOutcome],
        *,
        look_at_all: Callable[[Sequence[str]], CheckOutcome] | None = None,
    ) -> CheckOutcome:
        """Look at some audiobooks; the outcome holds what is wrong with these and with those looked at before.

        Args:
            layer: of which they are; what it has not is passed over.
            books: of a run; None for all there are, and then those are forgotten that are no more.
            look: judges one audiobook.
            look_at_all: judges many by one question; they are looked at one by one only where that fails.
        """
        there, known = set(self.lake.keys(layer, self.language)), set(self.lake.keys(LAYER, self.language, self.check))
        for book in known - there:
            self.forget(book)
        asked = sorted(there if books is None else there.intersection(books))
        if look_at_all is not None and asked and (together := look_at_all(asked)).passed:
            outcomes = {book: CheckOutcome(True, together.offending, {}) for book in asked}
        else:
            outcomes = {book: look(book) for book in asked}
        for book, outcome in outcomes.items():
            if not outcome.passed:
                with self.lake.replace(LAYER, self.language, self.check, book) as new:
                    new.write_frame(ROWS, outcome.offending)
            elif book in known:
                self.forget(book)
        broken = {book for book, outcome in outcomes.items() if not outcome.passed}
        broken |= (known & there).difference(outcomes)
        figures = {**_together(outcome.figures for outcome in outcomes.values()), "audiobooks": len(outcomes)}
        return CheckOutcome(not broken, self._rows(broken), {**figures, "offending_audiobooks": len(broken)})

    def to_look_at(self, key: dg.AssetKey, of_run: Sequence[str] | None) -> list[str] | None:
        """The audiobooks of a run, and those that nobody looked at before it; None in a run of the check alone: all.

        Args:
            key: of the layer that is checked.
            of_run: its audiobooks; None for a run of none.
        """
        return None if of_run is None else [*of_run, *made_since_last_look(key, self.check)]

    def forget(self, book: str) -> None:
        """Nothing is wrong with it any more, or it is gone."""
        self.lake.remove(LAYER, self.language, self.check, book)

    def _rows(self, books: Iterable[str]) -> pl.DataFrame:
        found = [self.lake.find(LAYER, self.language, self.check, book) for book in sorted(books)]
        frames = [partition.read_frame(ROWS) for partition in found if partition is not None]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def made_since_last_look(key: dg.AssetKey, check: str) -> set[str]:
    """Partitions that were made since the run began that evaluated the check of this run last.

    A batch of which one audiobook fails records the others, and its checks are skipped: the next run looks at them.
    """
    instance = dg.AssetCheckExecutionContext.get().instance
    ended = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    asked = dg.AssetCheckKey(key, check)
    records = instance.event_log_storage.get_asset_check_execution_history(asked, limit=1, status=ended)
    run = instance.get_run_record_by_id(records[0].run_id) if records else None
    if run is None or run.start_time is None:
        return set()
    after = datetime.fromtimestamp(run.start_time, tz=timezone.utc)
    return {str(made.partition) for made in RecordTimes(instance).since(key, after=after)}


def _together(figures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sums, and of what begins with `least` the least."""
    total: Counter[str] = Counter()
    least: dict[str, float] = {}
    for told in figures:
        for name, value in told.items():
            if name.startswith("least"):
                least[name] = min(value, least.get(name, value))
            else:
                total[name] += value  # type: ignore[assignment]
    return {**total, **least}
