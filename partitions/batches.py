"""What one run does to several partitions of a layer: batches of audiobooks, of shards of text.

Names and order only; what is made of a partition is the layer's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

BATCH = dg.BackfillPolicy.multi_run(max_partitions_per_run=50)
"""A run that does nothing costs 14 to 24 s; 50 audiobooks in one run share that cost."""


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
    for number, book in enumerate(books, start=1):
        try:
            done[book] = materialise(book)
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
    for book, metadata in done.items():
        context.add_asset_metadata(metadata, partition_key=book)
