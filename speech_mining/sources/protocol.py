"""What every source of recordings answers, and which source an address names.

What belongs here is what sources have in common; each of them is a module beside this one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import polars as pl

from speech_mining.errors import CatalogueError
from speech_mining.progress import Progress, silent
from speech_mining.sources.client import PoliteClient


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What a source lists."""

    sections: pl.DataFrame
    """Rows of `records.CATALOGUE`, ordered by language, audiobook (`records.audiobook_order`) and section.

    `first_seen` and `last_changed` are null until `history.brought_up_to_date` was asked."""
    rejections: pl.DataFrame
    """Rows of `records.REJECTIONS`, in the order they were met; a null section means the whole book."""
    timestamps: pl.DataFrame
    """Rows of `records.TIMESTAMPS`: the segments of the books that bring their own; the others are segmented."""
    books: int
    """Entries read, rejected ones included."""
    read_at: datetime
    """UTC: the server's own clock where it told the time, so that the next reading by `since` misses nothing."""
    whole: bool
    """False: only what is new since some time; then a book that is not listed may still be there."""


class Source(Protocol):
    """Where recordings come from."""

    def read(
        self,
        *,
        languages: Collection[str] | None,
        since: datetime | None,
        now: datetime,
        progress: Progress = silent,
    ) -> Catalogue:
        """Read the listing.

        Args:
            languages: ISO 639-3 codes; None for all that are known. Others are rejections (`language_not_wanted`).
            since: `read_at` of an earlier reading: what was listed before may be left out, less a day. None for all.
                A source that cannot tell, or that costs nothing to read, answers whole.
            now: our clock, for a source that has none.
            progress: told the books read, and of how many.

        Raises:
            CatalogueError: it is not what it should be.
            DownloadError: it could not be had.
        """


def open_source(address: str, client: PoliteClient) -> Source:
    """The source that an address names.

    - `https://librivox.org`, or another http(s) address: LibriVox's API, or a mirror of it.
    - a folder that holds `<language>/<book>/<recording>.mp3` (flac, ogg, opus, m4a, wav): a folder of recordings.
    - a file `.tsv`, `.csv`, `.tsv.gz`, `.csv.gz` or `.parquet` with a header: a manifest.
    - a folder that holds `<language>/<shard>.tsv` (`.gz`, `.zst`), or one such file: shards as stopes has them;
      `?unit=ms` or `?unit=frames` at the end says what their numbers are, where the lines do not.

    Raises:
        CatalogueError: nothing is there, or it is none of these, or two of them at once.
    """
    from speech_mining.sources.catalogue import LibriVoxApi
    from speech_mining.sources.local_address import open_local

    address = address.strip()
    if address.lower().startswith(("http://", "https://")):
        return LibriVoxApi(client, address)
    if address.lower().startswith("file://"):
        parts = urlsplit(address)
        address = unquote(parts.path) + (f"?{parts.query}" if parts.query else "")
    elif "://" in address or not address:
        raise CatalogueError(
            f"{address!r} is not the address of a catalogue.",
            expected="an http(s) address, or a folder or a file of this machine",
            fix="correct the catalogue address in the settings",
        )
    return open_local(Path(address).expanduser(), client.allowed)
