"""A manifest: a table that names every recording, its language and its book, as TSV, CSV or parquet.

What belongs here is what a line means. Addresses of the network are held against the same allow-list as LibriVox's;
other paths are files of this machine, relative to the manifest's folder.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl

from speech_mining.errors import CatalogueError
from speech_mining.progress import Progress, silent
from speech_mining.records import SAMPLE_RATE_HZ, TIMESTAMPS
from speech_mining.sources.addresses import AllowedHosts
from speech_mining.sources.audiobook_names import ids_apart
from speech_mining.sources.foreign_text import one_line, shown
from speech_mining.sources.lines import lines_of, read_text
from speech_mining.sources.listing import Listing, language_of, require_wanted
from speech_mining.sources.protocol import Catalogue
from speech_mining.sources.recording_file import RecordingFile, recording_file
from speech_mining.sources.rejected import RejectedError

REQUIRED = ("url", "language", "book")
OPTIONAL = ("section", "title", "section_title", "authors", "readers", "licence", "duration_s", "start", "end")

_TEXTS = ("title", "section_title", "authors", "readers", "licence")
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_LAST_SECTION = 999_999
_LONGEST_S = 1_000_000
_TOLD_EVERY = 10_000


@dataclass(frozen=True)
class _Line:
    number: int
    language: str
    book: str
    url: str
    version: str | None
    section: int | None
    span: tuple[int, int] | None
    """Start and end, samples at 16 kHz; None for the whole recording."""
    told: Mapping[str, Any]


@dataclass
class _Recording:
    """Lines of one address in one book."""

    first: _Line
    section: int
    spans: dict[tuple[int, int], int] = field(default_factory=dict)
    """Span -> number of its line."""


@dataclass(frozen=True)
class Manifest:
    """The table at `path`; a `protocol.Source`.

    Columns `url`, `language`, `book`; where they are there also `section`, `title`, `section_title`, `authors`,
    `readers`, `licence`, `duration_s`, and `start`, `end` in seconds: spans that become segments as they are. Several
    lines of one address are several spans of one section. Without `section` the addresses of a book are numbered from
    1 in the order of their first lines.

    A line that cannot be used is a rejection with its number, counted from 1 with the header (in parquet: the row,
    from 1 without one).
    """

    path: Path
    hosts: AllowedHosts

    def read(
        self,
        *,
        languages: Collection[str] | None,
        since: datetime | None,
        now: datetime,
        progress: Progress = silent,
    ) -> Catalogue:
        """List everything: `since` leaves nothing out.

        Raises:
            CatalogueError: the file cannot be read, or lacks a column.
        """
        listing = Listing()
        lines: list[_Line] = []
        named: set[tuple[str, str]] = set()
        for done, (number, cells) in enumerate(self._cells(listing), start=1):
            try:
                language, book = _language_and_book(cells)
                named.add((language, book))  # before it is known to be wanted: an id depends on no setting
                require_wanted(language, languages)
                lines.append(self._line(number, language, book, cells))
            except RejectedError as rejected:
                listing.reject(rejected.reason, f"line {number}: {rejected.detail}")
            if done % _TOLD_EVERY == 0:
                progress(done, done + _TOLD_EVERY)
        ids = ids_apart(named)
        by_book: dict[str, list[_Line]] = {}
        for line in lines:
            by_book.setdefault(ids[line.language, line.book], []).append(line)
        for audiobook, of_book in by_book.items():
            _list_book(audiobook, of_book, listing)
        progress(len(by_book), len(by_book))
        return listing.catalogue(len(by_book), now)

    def _cells(self, listing: Listing) -> Iterator[tuple[int, Mapping[str, Any]]]:
        if self.path.suffix.lower() == ".parquet":
            frame = _read_parquet(self.path)
            _require_columns(frame.columns, self.path)
            yield from enumerate(frame.select(_known(frame.columns)).iter_rows(named=True), start=1)
            return
        rows = _rows(self.path, listing)
        header = next(rows, (0, []))[1]
        names = _names(header)
        _require_columns(names, self.path)
        for number, row in rows:
            if len(row) != len(names):
                listing.reject("malformed", f"line {number}: {len(row)} columns, not {len(names)}")
            else:
                yield number, dict(zip(names, row, strict=True))

    def _line(self, number: int, language: str, book: str, cells: Mapping[str, Any]) -> _Line:
        section, span, told = _section(cells.get("section")), _span(cells), _told(cells)
        file = self._recording(cells["url"])
        return _Line(number, language, book, file.url, file.version or None, section, span, told)

    def _recording(self, value: Any) -> RecordingFile:
        """Where a recording is, after its host or its file was looked at."""
        url = value.strip() if isinstance(value, str) else ""
        if not url or "\0" in url:
            raise RejectedError("malformed", f"url is {shown(value)}, not an address")
        if url.lower().startswith(("http://", "https://")):
            refusal = self.hosts.refusal(url)
            if refusal is not None:
                raise RejectedError("forbidden_url", f"{refusal}: {shown(url)}")
            return RecordingFile(url, "")
        return recording_file(self.path.absolute().parent / _local(url))


def is_header(line: str, path: Path) -> bool:
    """Whether a file begins as a manifest does: with the names of the columns that a manifest must have."""
    delimiter = _delimiter(path)
    return delimiter is not None and set(REQUIRED) <= set(_names(line.replace('"', "").split(delimiter)))


def _language_and_book(cells: Mapping[str, Any]) -> tuple[str, str]:
    book = one_line(cells["book"])
    if not book:
        raise RejectedError("malformed", "no book")
    return language_of(one_line(cells["language"])), book


def _local(url: str) -> str:
    if not url.lower().startswith("file://"):
        if "://" in url:
            raise RejectedError("forbidden_url", f"{shown(url)} is neither http(s) nor a file")
        return url
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise RejectedError("forbidden_url", f"{shown(url)} is a file of another machine")
    return unquote(parts.path, errors="surrogateescape")


def _delimiter(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    return _DELIMITERS.get(Path(name).suffix)


def _rows(path: Path, listing: Listing) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with the number of their last line; one that cannot be split is told."""
    text = read_text(path)
    if _delimiter(path) == "\t":
        reader = csv.reader(lines_of(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(io.StringIO(text, newline=""))
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            listing.reject("malformed", f"line {reader.line_num}: {problem}")
            continue
        if any(cell.strip() for cell in row):
            yield reader.line_num, row


def _names(header: Iterable[str]) -> list[str]:
    return ["licence" if (name := cell.strip().lower()) == "license" else name for cell in header]


def _known(columns: Iterable[str]) -> list[str]:
    return [name for name in columns if name in {*REQUIRED, *OPTIONAL}]


def _require_columns(names: Collection[str], path: Path) -> None:
    missing = [name for name in REQUIRED if name not in names]
    twice = sorted({name for name in _known(names) if list(names).count(name) > 1})
    if missing or twice or ("start" in names) != ("end" in names):
        raise CatalogueError(
            f"{path} has the columns {', '.join(map(shown, names))}.",
            expected=f"{', '.join(REQUIRED)} once each, and perhaps {', '.join(OPTIONAL)} (start and end together)",
            cause="another kind of table, or a header that was left out",
            fix="name the columns in the first line",
        )


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise CatalogueError(
            f"{path} cannot be read ({type(problem).__name__}).",
            expected="a parquet file",
            cause="a file that is damaged, or only called so",
            fix="write it again",
        ) from None


def _section(value: Any) -> int | None:
    written = one_line(value)
    if not written:
        if value is None or value == "":
            return None
        raise RejectedError("malformed", f"section is {shown(value)}, not a number")
    if not (written.isascii() and written.isdigit() and len(written) < 10 and int(written) <= _LAST_SECTION):
        raise RejectedError("malformed", f"section is {shown(value)}, not a number of 0 to {_LAST_SECTION}")
    return int(written)


def _span(cells: Mapping[str, Any]) -> tuple[int, int] | None:
    start_s, end_s = (_seconds(name, cells.get(name)) for name in ("start", "end"))
    if start_s is None and end_s is None:
        return None
    if start_s is None or end_s is None:
        raise RejectedError("malformed", "start and end belong together, and one is not given")
    start, end = round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)
    if start >= end:
        raise RejectedError("malformed", f"the span of {start_s} to {end_s} s is empty or reversed")
    return start, end


def _seconds(name: str, value: Any) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST_S:
        raise RejectedError("malformed", f"{name} is {shown(value)}, not seconds of 0 to {_LONGEST_S}")
    return seconds


def _told(cells: Mapping[str, Any]) -> dict[str, Any]:
    seconds = _seconds("duration_s", cells.get("duration_s"))
    return {**{name: one_line(cells.get(name)) for name in _TEXTS}, "duration_s": round(seconds) if seconds else None}


def _list_book(audiobook: str, lines: list[_Line], listing: Listing) -> None:
    spans: list[tuple[str, int, int, int]] = []
    for recording in _recordings(audiobook, lines, listing):
        first = recording.first
        told = {**first.told, "title": first.told["title"] or one_line(first.book)}
        listing.add(
            audiobook, recording.section, first.language, listen_url=first.url, file_version=first.version, **told
        )
        spans += [(audiobook, recording.section, start, end) for start, end in recording.spans]
    listing.add_spans(pl.DataFrame(spans, schema=dict(TIMESTAMPS), orient="row"))


def _recordings(audiobook: str, lines: list[_Line], listing: Listing) -> Iterable[_Recording]:
    """The lines of a book, put together by address; a line that contradicts one before it is a rejection."""
    numbered = any(line.section is not None for line in lines)
    with_spans = {line.url for line in lines if line.span is not None}
    found: dict[str, _Recording] = {}
    sections: dict[int, str] = {}
    for line in lines:
        section = line.section if numbered else len(found) + 1
        if line.url in found and line.section is None:
            section = found[line.url].section
        fault = _fault(line, section, found.get(line.url), sections, with_spans)
        if fault is not None or section is None:
            listing.reject("malformed", f"line {line.number}: {fault}", audiobook=audiobook, section=section)
            continue
        sections[section] = line.url
        recording = found.setdefault(line.url, _Recording(line, section))
        if line.span is not None:
            recording.spans[line.span] = line.number
    return found.values()


def _fault(
    line: _Line, section: int | None, before: _Recording | None, sections: Mapping[int, str], with_spans: set[str]
) -> str | None:
    if section is None:
        return "no section, where other lines of the book have one"
    if before is not None and before.section != section:
        return f"section {section} of an address that line {before.first.number} calls section {before.section}"
    if sections.get(section, line.url) != line.url:
        return f"section {section} is another recording already"
    if line.span is None and line.url in with_spans:
        return "no start and end, where other lines of the same recording have them"
    if before is not None and (line.span is None or line.span in before.spans):
        return f"the same as line {before.first.number if line.span is None else before.spans[line.span]}"
    return None
