"""The lake's catalogue read again: what is asked for, what it is held against, and where it is kept.

What a source says is the source's business, what changed is `history`'s. What belongs here is which reading is due and
the tables of the lake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from speech_mining.lake import Lake, Partition
from speech_mining.progress import Progress, silent
from speech_mining.records import CATALOGUE, REJECTIONS, TIMESTAMPS, Schema, conform
from speech_mining.sources.history import VERSIONS, book_versions, brought_up_to_date
from speech_mining.sources.protocol import Catalogue, Source

LAYER = "catalogue"
READING = "catalogue_reading"
_CLOCKS_APART = timedelta(hours=1)
"""How far a source's clock may be before ours."""
"""A layer of its own: it holds hours, and the catalogue's content shall not change where nothing did."""

_TABLES: dict[str, Schema] = {
    "catalogue.parquet": CATALOGUE,
    "rejections.parquet": REJECTIONS,
    "timestamps.parquet": TIMESTAMPS,
    "books.parquet": VERSIONS,
}


@dataclass(frozen=True)
class Wish:
    """Which catalogue is wanted."""

    address: str
    languages: tuple[str, ...]
    limit_books: int | None = None
    """At most so many audiobooks of each language."""
    whole_every_days: float = 7.0
    """A reading by `since` tells of new books, never of changed or withdrawn ones: now and then all is read."""

    def as_dict(self) -> dict[str, Any]:
        """What a reading must have been for, to be gone on from."""
        return {"address": self.address, "languages": list(self.languages), "limit_books": self.limit_books}


@dataclass(frozen=True, eq=False)
class RenewedCatalogue:
    """A catalogue that was read, and is not kept yet."""

    catalogue: Catalogue
    books: pl.DataFrame
    """`history.VERSIONS`: every book that is listed."""
    changed: pl.DataFrame
    """Those of them that are new or not what they were."""
    whole_read_at: datetime


def read_again(
    lake: Lake, source: Source, wish: Wish, *, now: datetime, progress: Progress = silent
) -> RenewedCatalogue:
    """Read a source and hold it against what the lake knows.

    Args:
        lake: holds the catalogue that was read last, if any.
        source: what `wish.address` names.
        wish: which catalogue.
        now: our clock, UTC.
        progress: as `Source.read`.

    Raises:
        CatalogueError: as `Source.read` and `brought_up_to_date`.
        DownloadError: as `Source.read`.
    """
    earlier = _earlier(lake)
    whole_read_at = _whole_read_at(lake, wish) if earlier is not None else None
    since = _since(lake, wish, whole_read_at, now)
    found = source.read(languages=frozenset(wish.languages), since=since, now=now, progress=progress)
    renewed = _limited(_held_against(earlier, found), wish.limit_books)
    books = book_versions(renewed.sections, renewed.timestamps)
    known = pl.DataFrame(schema=dict(VERSIONS)) if earlier is None else _table(earlier, "books.parquet")
    changed = books.join(known, on=["language", "audiobook", "version"], how="anti", maintain_order="left")
    return RenewedCatalogue(renewed, books, changed, found.read_at if found.whole else whole_read_at or found.read_at)


def keep(lake: Lake, renewed: RenewedCatalogue, wish: Wish) -> None:
    """Put a catalogue into the lake; the reading is told of last, so that a kill between the two repeats it."""
    found = renewed.catalogue
    frames = (found.sections, found.rejections, found.timestamps, renewed.books)
    with lake.replace(LAYER) as new:
        for (name, schema), frame in zip(_TABLES.items(), frames, strict=True):
            new.write_table(name, frame, schema)
    told = {"read_at": found.read_at.isoformat(), "whole_read_at": renewed.whole_read_at.isoformat()}
    with lake.replace(READING) as new:
        new.write_json("reading.json", {**wish.as_dict(), **told})


def listed_books(lake: Lake) -> pl.DataFrame | None:
    """`history.VERSIONS` of the catalogue in the lake, None where it was never read."""
    earlier = _earlier(lake)
    return None if earlier is None else _table(earlier, "books.parquet")


def given_spans(lake: Lake, language: str, audiobook: str) -> pl.DataFrame:
    """`records.TIMESTAMPS` of one book: the segments it brings, none for one that is to be segmented."""
    found = lake.find(LAYER)
    if found is None or "timestamps.parquet" not in found.files:
        return pl.DataFrame(schema=dict(TIMESTAMPS))
    sections = _table(found, "catalogue.parquet").filter(language=language, audiobook=audiobook)
    spans = _table(found, "timestamps.parquet").filter(audiobook=audiobook)
    return spans.join(sections.select("section"), on="section", how="semi")


def books_with_spans(lake: Lake, language: str) -> frozenset[str]:
    """Ids of the audiobooks of a language that bring segments of their own."""
    earlier = _earlier(lake)
    if earlier is None:
        return frozenset()
    sections = _table(earlier, "catalogue.parquet").filter(language=language)
    spans = _table(earlier, "timestamps.parquet")
    return frozenset(sections.join(spans, on=["audiobook", "section"], how="semi")["audiobook"])


def _earlier(lake: Lake) -> Partition | None:
    """The catalogue that was read last; None for one that a version without times wrote."""
    found = lake.find(LAYER)
    if found is None or any(name not in found.files for name in _TABLES):
        return None
    columns = pl.read_parquet_schema(found.local_path("catalogue.parquet"))  # not its rows: a tick may be all that asks
    return found if set(columns) == set(CATALOGUE) else None


def _table(partition: Partition, name: str) -> pl.DataFrame:
    return partition.read_table(name, _TABLES[name])


def _reading(lake: Lake, wish: Wish) -> dict[str, Any] | None:
    """What is known of the last reading, if it was for the same catalogue."""
    found = lake.find(READING)
    told: dict[str, Any] | None = None if found is None else found.read_json("reading.json")
    return told if told is not None and told | wish.as_dict() == told else None


def _whole_read_at(lake: Lake, wish: Wish) -> datetime | None:
    reading = _reading(lake, wish)
    return None if reading is None else datetime.fromisoformat(reading["whole_read_at"])


def _since(lake: Lake, wish: Wish, whole_read_at: datetime | None, now: datetime) -> datetime | None:
    reading = _reading(lake, wish)
    if reading is None or whole_read_at is None or now - whole_read_at >= timedelta(days=wish.whole_every_days):
        return None
    read_at = datetime.fromisoformat(reading["read_at"])
    return None if read_at - now > _CLOCKS_APART else read_at  # a clock that went back has hours to miss


def _limited(catalogue: Catalogue, limit: int | None) -> Catalogue:
    if limit is None:
        return catalogue
    kept = catalogue.sections.filter(pl.col("audiobook").rle_id().over("language") < limit)
    spans = catalogue.timestamps.join(kept.select("audiobook", "section"), on=["audiobook", "section"], how="semi")
    return replace(catalogue, sections=kept, timestamps=spans)


def _held_against(earlier: Partition | None, found: Catalogue) -> Catalogue:
    if earlier is None:
        return brought_up_to_date(None, found)
    spans = _table(earlier, "timestamps.parquet")
    renewed = brought_up_to_date(_table(earlier, "catalogue.parquet"), found, timestamps=spans)
    if found.whole:
        return renewed
    return replace(renewed, rejections=_with_earlier(_table(earlier, "rejections.parquet"), renewed))


def _with_earlier(known: pl.DataFrame, renewed: Catalogue) -> pl.DataFrame:
    """Rejections of books that a reading by `since` says nothing about stay known."""
    met = pl.concat([renewed.rejections["audiobook"], renewed.sections["audiobook"]]).drop_nulls().unique()
    stays = known.filter(pl.col("audiobook").is_not_null() & ~pl.col("audiobook").is_in(met.implode()))
    return conform(pl.concat([stays, renewed.rejections]), REJECTIONS, "rejections")
