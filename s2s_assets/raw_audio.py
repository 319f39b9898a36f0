"""`raw_audio`: a book's recordings as they were received, verified.

What belongs here is the layer; how files are fetched is in `speech_mining.sources`.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from partitions.audiobooks import BATCH, audiobooks, each_audiobook
from partitions.languages import layer
from resources.compute import DOWNLOAD, OWNERS, network_retries
from resources.librivox import LibriVox
from resources.metadata import column_schema, rejected, rows
from resources.settings import Settings
from resources.storage import Lake, Storage
from speech_mining.errors import LakeError, SpeechMiningError
from speech_mining.records import CATALOGUE, RECORDINGS, REJECTIONS
from speech_mining.sources import audiobook as fetching
from speech_mining.sources.audiobook import FetchedAudiobook, Kept, fetch_audiobook
from speech_mining.sources.client import PoliteClient
from speech_mining.sources.downloads import FileFacts


def raw_audio(language: str, settings: Settings) -> dg.AssetsDefinition:
    """The layer of one language."""

    @dg.asset(
        key=layer(language, "raw_audio"),
        deps=["catalogue"],
        partitions_def=audiobooks(language),
        backfill_policy=BATCH,
        automation_condition=dg.AutomationCondition.on_missing(),
        group_name=language,
        kinds={"mp3"},
        owners=OWNERS,
        tags={"language": language},
        pool=DOWNLOAD,
        retry_policy=network_retries(settings.librivox.step_retries),
        code_version=fetching.VERSION,
        metadata={"dagster/column_schema": column_schema(RECORDINGS)},
    )
    def _raw_audio(context: dg.AssetExecutionContext, librivox: LibriVox, storage: Storage) -> None:
        """The recordings of an audiobook, as received, held against archive.org's checksums.

        One that cannot be had is a counted rejection; what an earlier run fetched is not asked for again.
        """
        with librivox.session() as session:
            each_audiobook(
                context, lambda book: _fetch(session.client, storage, language, book), (SpeechMiningError, OSError)
            )

    return _raw_audio


def _fetch(client: PoliteClient, storage: Storage, language: str, book: str) -> Mapping[str, Any]:
    lake, folder = storage.lake, Path(storage.scratch) / language / book
    got = fetch_audiobook(client, _sections(lake, language, book), folder, kept=_kept(lake, language, book))
    with lake.replace("raw_audio", language, book) as new:
        for name, path in got.files.items():
            _link(path, new.path(name))
        new.write_table("recordings.parquet", got.recordings, RECORDINGS)
        new.write_table("rejections.parquet", got.rejections, REJECTIONS)
    shutil.rmtree(folder, ignore_errors=True)
    return {**_figures(got), "data_version": lake.partition("raw_audio", language, book).data_version}


def _sections(lake: Lake, language: str, book: str) -> pl.DataFrame:
    known = lake.partition("catalogue").read_table("catalogue.parquet", CATALOGUE)
    sections = known.filter((pl.col("language") == language) & (pl.col("audiobook") == book))
    if sections.is_empty():
        raise LakeError(
            f"The catalogue has no audiobook {book} in {language}.",
            expected="a partition that the catalogue made",
            cause="the catalogue was read from another place since, or the partition was added by hand",
            fix="materialize the catalogue, or delete the partition",
        )
    return sections


def _kept(lake: Lake, language: str, book: str) -> dict[str, Kept]:
    """What an earlier materialization fetched, by address."""
    earlier = lake.find("raw_audio", language, book)
    if earlier is None:
        return {}
    recordings = earlier.read_table("recordings.parquet", RECORDINGS)
    return {
        url: Kept(earlier.local_path(file), FileFacts(bytes=size, sha256=sha256))
        for url, file, size, sha256 in recordings.select("url", "file", "bytes", "sha256").iter_rows()
    }


def _link(path: Path, target: Path) -> None:
    """Put a file into the new partition without copying it where the disk allows."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


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
