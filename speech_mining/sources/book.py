"""One audiobook, from the catalogue of the lake to its recordings in the lake.

What belongs here is the step as a whole, for whoever takes it: an asset, or the command. How recordings are fetched is
in `audiobook`, what stands of an earlier run in `earlier`.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from speech_mining.errors import LakeError
from speech_mining.lake import Lake
from speech_mining.progress import Progress, silent
from speech_mining.records import CATALOGUE, RECORDINGS, REJECTIONS
from speech_mining.sources.audiobook import FetchedAudiobook, Place, fetch_audiobook
from speech_mining.sources.client import PoliteClient
from speech_mining.sources.earlier import LISTING, LISTING_FILE, RECORDINGS_FILE, REJECTIONS_FILE, Earlier, listing
from speech_mining.sources.retries import mark

LAYER = "raw_audio"


@dataclass(frozen=True)
class Book:
    """Which audiobook of which lake."""

    lake: Lake
    language: str
    audiobook: str


@dataclass(frozen=True, eq=False)
class Brought:
    """A book whose recordings are in the lake."""

    fetched: FetchedAudiobook
    left_alone: bool
    """It was whole already, and listed as before: nothing was asked for."""
    data_version: str


def bring_audiobook(
    client: PoliteClient,
    book: Book,
    place: Place,
    *,
    progress: Progress = silent,
    bytes_progress: Progress = silent,
) -> Brought:
    """Fetch what is missing of a book and publish its partition of `raw_audio`.

    Args:
        client: asks.
        book: which one.
        place: where its recordings arrive.
        progress: told the number of recordings done.
        bytes_progress: told the bytes of recordings that came, of those that will.

    Raises:
        LakeError: the lake's catalogue does not list it.
        DownloadError: as `fetch_audiobook`.
        NoRoomError: as `fetch_audiobook`.
    """
    sections = listed_sections(book)
    key = (LAYER, book.language, book.audiobook)
    found = book.lake.find(*key)
    earlier = Earlier(found) if found is not None else None
    stands = earlier is not None and earlier.stands(sections)
    if earlier is not None and stands:
        book.lake.tidy(*key)
        got = FetchedAudiobook(earlier.recordings, earlier.rejections, listing(sections))
    else:
        got = fetch_audiobook(
            client, sections, place, earlier=earlier, progress=progress, bytes_progress=bytes_progress
        )
        _publish(book, got)
    mark(book.lake, book.language, book.audiobook, got.rejections)
    return Brought(got, stands, book.lake.partition(*key).data_version)


def listed_sections(book: Book) -> pl.DataFrame:
    """`records.CATALOGUE` of one book.

    Raises:
        LakeError: the catalogue was never read, or does not list it.
    """
    known = book.lake.partition("catalogue").read_table("catalogue.parquet", CATALOGUE)
    sections = known.filter(language=book.language, audiobook=book.audiobook)
    if sections.is_empty():
        raise LakeError(
            f"The catalogue has no audiobook {book.audiobook} in {book.language}.",
            expected="a partition that the catalogue made",
            cause="the catalogue was read from another place since, or the partition was added by hand",
            fix="materialize the catalogue, or delete the partition",
        )
    return sections


def _publish(book: Book, got: FetchedAudiobook) -> None:
    with book.lake.replace(LAYER, book.language, book.audiobook) as new:
        for name, held in got.reused.items():
            new.reuse(held.partition, held.file, name)
        for name, path in got.files.items():
            new.link(path, name)
        new.write_table(RECORDINGS_FILE, got.recordings, RECORDINGS)
        new.write_table(REJECTIONS_FILE, got.rejections, REJECTIONS)
        new.write_table(LISTING_FILE, got.listing, LISTING)
