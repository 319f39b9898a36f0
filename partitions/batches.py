"""What one run does to several partitions of a layer: batches of audiobooks, of shards of text.

Names and order only; what is made of a partition is the layer's.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from partitions.audiobooks import known_audiobooks

BATCH = dg.BackfillPolicy.multi_run(max_partitions_per_run=50)
"""A run that does nothing costs 14 to 24 s; 50 audiobooks in one run share that cost."""

TELL_EVERY_S = 15.0
"""How often a batch tells how far it is: a line is an event in the database, and one a book was a third of them all."""


UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Batch:
    """Audiobooks that one run can make: neighbours in the order of their set."""

    first: str
    last: str
    books: tuple[str, ...]

    @property
    def tags(self) -> dict[str, str]:
        """What makes a run of them, as Dagster's own backfills do."""
        return {ASSET_PARTITION_RANGE_START_TAG: self.first, ASSET_PARTITION_RANGE_END_TAG: self.last}

    def request(self, reason: Sequence[str], assets: Sequence[dg.AssetKey], tags: Mapping[str, str]) -> dg.RunRequest:
        """A run of them, to Dagster; for the same reason it is one run, however often it is asked for."""
        return dg.RunRequest(
            run_key=hashlib.sha256("/".join(reason).encode()).hexdigest()[:32],
            asset_selection=list(assets),
            tags={**self.tags, **tags},
        )


def runs_under_way(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> int:
    """How many runs with these tags have not ended."""
    return instance.get_runs_count(dg.RunsFilter(statuses=UNDER_WAY, tags=dict(tags)))


def batches(known: Sequence[str], wanted: Sequence[str], most: int) -> list[Batch]:
    """Cut what is wanted into batches of at most `most`; a batch has no audiobook in it that is not wanted.

    Args:
        known: the set's keys, in its order: a run's range is meant in it.
        wanted: some of these, in the order in which they shall come.
        most: audiobooks a batch.
    """
    place = {book: number for number, book in enumerate(known)}
    cut: list[list[str]] = []
    for book in wanted:
        if cut and len(cut[-1]) < most and place[book] == place[cut[-1][-1]] + 1:
            cut[-1].append(book)
        else:
            cut.append([book])
    return [Batch(books[0], books[-1], tuple(books)) for books in cut]


def keys_of_run(known: Sequence[str], tags: Mapping[str, str]) -> list[str] | None:
    """Which of a set's keys a run is of, in the set's order; None for a run of none, such as a check by itself.

    Args:
        known: the set's keys, in its order.
        tags: of the run.
    """
    if PARTITION_NAME_TAG in tags:
        return [tags[PARTITION_NAME_TAG]]
    if ASSET_PARTITION_RANGE_START_TAG not in tags:
        return None
    place = {key: number for number, key in enumerate(known)}
    first, last = (place[tags[tag]] for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG))
    return list(known[first : last + 1])


def books_of_run(language: str) -> list[str] | None:
    """The audiobooks of the run that this is called in; None in a run of none, and in no run at all."""
    try:
        context = dg.AssetCheckExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return None
    return keys_of_run(known_audiobooks(context.instance, language), context.run.tags)


def each_partition(
    context: dg.AssetExecutionContext,
    materialise: Callable[[str], Mapping[str, Any]],
    expected: tuple[type[Exception], ...],
    what: str = "audiobooks",
) -> None:
    """Materialise every partition of a run; one that fails spoils only itself.

    Args:
        context: of the run; its partition keys are one audiobook or a batch of a backfill.
        materialise: makes one audiobook and returns its metadata.
        expected: errors that mean "this audiobook cannot be made"; any other error ends the run at once.
        what: the partitions are called, in the plural.

    Raises:
        dagster.Failure: some failed; the others are recorded as materialised before it is raised, so that
            a retry of the failed partitions repeats nothing.
    """
    done: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, Exception] = {}
    books = list(context.partition_keys)
    told_at = time.monotonic()
    for number, book in enumerate(books, start=1):
        try:
            done[book] = materialise(book)
            if time.monotonic() - told_at > TELL_EVERY_S or number == len(books):
                told_at = time.monotonic()
                context.log.info(f"{number} of {len(books)}: {context.asset_key.to_user_string()} {book}")
        except expected as error:
            failed[book] = error
            context.log.error(f"{number} of {len(books)}: {book} failed: {error}")
    if failed:
        for book, metadata in done.items():
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=book, metadata=dict(metadata)))
        raise dg.Failure(
            description=f"{len(failed)} of {len(books)} {what} failed: {', '.join(failed)}. "
            f"The first said: {next(iter(failed.values()))}",
            metadata={book: dg.MetadataValue.text(str(error)) for book, error in failed.items()},
            allow_retries=False,
        )
    with _set_read_once(context.instance):
        for book, metadata in done.items():
            context.add_asset_metadata(metadata, partition_key=book)


@contextmanager
def _set_read_once(instance: dg.DagsterInstance) -> Iterator[None]:
    """Read a set of partitions once: Dagster reads all of it for every partition that metadata are added to.

    For English, 12 426 audiobooks, that took 0.05 s of a core a book and layer.
    """
    vars(instance)["get_dynamic_partitions"] = functools.cache(instance.get_dynamic_partitions)
    try:
        yield
    finally:
        del vars(instance)["get_dynamic_partitions"]
