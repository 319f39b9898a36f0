"""`raw_audio`: a book's recordings as they were received, verified.

What belongs here is the layer; how files are fetched is in `speech_mining.sources`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from partitions.audiobooks import audiobooks
from partitions.batches import BATCH, each_partition
from partitions.languages import layer
from resources.compute import DOWNLOAD, OWNERS, network_retries, step_tags
from resources.librivox import LibriVox
from resources.metadata import column_schema, rejected, rows
from resources.settings import Settings
from resources.storage import Storage
from speech_mining.errors import SpeechMiningError
from speech_mining.records import RECORDINGS
from speech_mining.sources import audiobook as fetching
from speech_mining.sources.audiobook import FetchedAudiobook
from speech_mining.sources.book import Book, bring_audiobook
from speech_mining.sources.client import PoliteClient


def raw_audio(language: str, settings: Settings) -> dg.AssetsDefinition:
    """The layer of one language."""

    @dg.asset(
        key=layer(language, "raw_audio"),
        deps=[layer(language, "listing")],
        partitions_def=audiobooks(language),
        backfill_policy=BATCH,
        group_name=language,
        kinds={"mp3"},
        owners=OWNERS,
        tags={"language": language},
        op_tags=step_tags(DOWNLOAD, layer(language, "raw_audio"), settings),
        pool=DOWNLOAD,
        retry_policy=network_retries(settings.librivox.step_retries),
        code_version=fetching.VERSION,
        metadata={"dagster/column_schema": column_schema(RECORDINGS)},
    )
    def _raw_audio(context: dg.AssetExecutionContext, librivox: LibriVox, storage: Storage) -> None:
        """The recordings of an audiobook, as received, held against archive.org's checksums.

        One that cannot be had is a counted rejection; what an earlier run fetched is not asked for again, and a book
        whose listing is the same and of which nothing may be had better is left alone.
        """
        with librivox.session() as session:
            each_partition(
                context, lambda book: _fetch(session.client, storage, language, book), (SpeechMiningError, OSError)
            )

    return _raw_audio


def _fetch(client: PoliteClient, storage: Storage, language: str, book: str) -> Mapping[str, Any]:
    with storage.arriving(language, book) as place:
        brought = bring_audiobook(client, Book(storage.lake, language, book), place)
    quarantined = _quarantined(storage.quarantine.held(language, book))
    told = {"left_alone": brought.left_alone, "data_version": brought.data_version}
    return {**_figures(brought.fetched), **quarantined, **told}


def _figures(got: FetchedAudiobook) -> dict[str, Any]:
    recordings = got.recordings
    first = recordings.row(0, named=True) if recordings.height else {}
    return {
        "dagster/row_count": recordings.height,
        "title": first.get("title", ""),
        "readers": ", ".join(sorted(set(recordings["readers"].to_list()))),
        "licence": first.get("licence", ""),
        "megabytes": round(int(recordings["bytes"].sum()) / 1e6, 3),
        "announced_hours": round(int(recordings["announced_s"].sum() or 0) / 3600, 4),
        "downloads": got.requests,
        "recordings": rows(
            recordings.select("section", "section_title", "readers", "announced_s", "bytes", "url"), limit=60
        ),
        **rejected(got.rejections),
    }


def _quarantined(held: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What came and was refused, and where it may be looked at."""
    if not held:
        return {"quarantined": 0}
    table = pl.DataFrame(list(held)).select("section", "reason", "bytes", "kept", "file", "url")
    return {"quarantined": len(held), "quarantined_files": rows(table)}
