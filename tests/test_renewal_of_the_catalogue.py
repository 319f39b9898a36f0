"""Which reading is due, and what of the last one stays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from speech_mining.lake import Lake
from speech_mining.records import CATALOGUE, REJECTIONS, TIMESTAMPS
from speech_mining.sources.protocol import Catalogue
from speech_mining.sources.renewal import (
    Wish,
    books_with_spans,
    given_spans,
    keep,
    listed_books,
    read_again,
)

BEGIN = datetime(2026, 1, 5, 12, tzinfo=timezone.utc)
WISH = Wish("https://librivox.org", ("deu",), whole_every_days=7)


def _row(book: str, section: int = 1, **told: Any) -> dict[str, Any]:
    return {**dict.fromkeys(CATALOGUE), "audiobook": book, "section": section, "language": "deu", **told}


@dataclass
class Source:
    """Answers what a test puts in, and remembers what it was asked."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    spans: list[tuple[str, int, int, int]] = field(default_factory=list)
    at: datetime = BEGIN
    asked_since: list[datetime | None] = field(default_factory=list)

    def read(self, *, since: datetime | None, **_: Any) -> Catalogue:
        self.asked_since.append(since)
        rejections = [
            {**dict.fromkeys(REJECTIONS), "audiobook": book, "reason": reason} for book, reason in self.rejected
        ]
        return Catalogue(
            pl.DataFrame(self.rows, schema=dict(CATALOGUE), orient="row"),
            pl.DataFrame(rejections, schema=dict(REJECTIONS), orient="row"),
            pl.DataFrame(self.spans, schema=dict(TIMESTAMPS), orient="row"),
            len(self.rows) + len(self.rejected),
            self.at,
            whole=since is None,
        )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def _read(lake: Lake, source: Source, wish: Wish = WISH, later: timedelta = timedelta()) -> list[str]:
    """Read and keep; returns the books that changed."""
    source.at = BEGIN + later
    found = read_again(lake, source, wish, now=source.at)
    keep(lake, found, wish)
    return found.changed["audiobook"].to_list()


def test_the_first_reading_is_whole_and_the_next_asks_for_what_is_new(lake: Lake) -> None:
    source = Source([_row("1"), _row("2")])
    assert _read(lake, source) == ["1", "2"]
    source.rows = [_row("3")]
    assert _read(lake, source, later=timedelta(days=1)) == ["3"]
    assert source.asked_since == [None, BEGIN]
    books = listed_books(lake)
    assert books is not None and books["audiobook"].to_list() == ["1", "2", "3"]


def test_after_a_week_all_is_read_again_and_what_is_gone_goes(lake: Lake) -> None:
    source = Source([_row("1"), _row("2")])
    _read(lake, source)
    source.rows = [_row("2", title="New")]
    assert _read(lake, source, later=timedelta(days=8)) == ["2"]
    assert source.asked_since == [None, None]
    books = listed_books(lake)
    assert books is not None and books["audiobook"].to_list() == ["2"]


def test_a_clock_that_was_set_back_leads_to_a_whole_reading(lake: Lake) -> None:
    source = Source([_row("1")])
    _read(lake, source)
    _read(lake, source, later=-timedelta(days=3))
    _read(lake, source, later=-timedelta(days=2))
    assert source.asked_since == [None, None, BEGIN - timedelta(days=3)]


@pytest.mark.parametrize(
    "other",
    [replace(WISH, address="https://mirror"), replace(WISH, languages=("deu", "eng")), replace(WISH, limit_books=5)],
)
def test_another_wish_is_read_whole(lake: Lake, other: Wish) -> None:
    source = Source([_row("1")])
    _read(lake, source)
    _read(lake, source, other, later=timedelta(hours=1))
    assert source.asked_since == [None, None]


def test_a_reading_of_what_is_new_keeps_the_rejections_it_says_nothing_about(lake: Lake) -> None:
    source = Source([_row("1")], rejected=[("5", "unfinished"), ("6", "unfinished")])
    _read(lake, source)
    source.rows, source.rejected = [_row("5")], [("7", "unknown_language")]
    _read(lake, source, later=timedelta(days=1))
    rejections = lake.partition("catalogue").read_frame("rejections.parquet")
    assert rejections["audiobook"].to_list() == ["6", "7"]


def test_reading_the_same_again_changes_no_byte_of_the_catalogue(lake: Lake) -> None:
    source = Source([_row("1")], spans=[("1", 1, 0, 16_000)])
    _read(lake, source)
    version = lake.partition("catalogue").data_version
    assert _read(lake, source, later=timedelta(days=30)) == []
    assert lake.partition("catalogue").data_version == version


def test_the_limit_takes_the_first_books_and_their_spans(lake: Lake) -> None:
    source = Source([_row("1"), _row("2"), _row("3")], spans=[("2", 1, 0, 9), ("3", 1, 0, 9)])
    assert _read(lake, source, replace(WISH, limit_books=2)) == ["1", "2"]
    assert lake.partition("catalogue").read_frame("timestamps.parquet")["audiobook"].to_list() == ["2"]


def test_spans_of_a_book_are_found_by_language(lake: Lake) -> None:
    source = Source([_row("1"), _row("2"), _row("2", 2, language="eng")], spans=[("2", 1, 0, 9), ("2", 2, 5, 9)])
    _read(lake, source)
    assert given_spans(lake, "deu", "2")["section"].to_list() == [1]
    assert given_spans(lake, "eng", "2")["section"].to_list() == [2]
    assert given_spans(lake, "deu", "1").is_empty()
    assert books_with_spans(lake, "deu") == {"2"}


def test_a_catalogue_of_an_older_version_is_read_whole(lake: Lake) -> None:
    with lake.replace("catalogue") as new:
        new.write_frame("catalogue.parquet", pl.DataFrame({"audiobook": ["1"]}))
    assert listed_books(lake) is None and given_spans(lake, "deu", "1").is_empty()
    source = Source([_row("1")])
    assert _read(lake, source) == ["1"]
    assert source.asked_since == [None]
