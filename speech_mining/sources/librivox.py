"""Books as LibriVox's API writes them, to rows of the catalogue: pure, and never surprised.

What belongs here is what a page says and what we make of it. Fetching pages is `catalogue`'s business. Every book
ends as at least one row or one rejection, and so does every section of a book that we read; any JSON value may stand
in any field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from speech_mining.records import CATALOGUE, REJECTIONS, by_audiobook
from speech_mining.sources.addresses import AllowedHosts
from speech_mining.sources.foreign_text import one_line, shown
from speech_mining.sources.languages import MULTILINGUAL, iso_639_3
from speech_mining.sources.rejected import RejectedError

LICENCE = "Public Domain Mark 1.0"
"""What LibriVox's readers put their recordings under."""

_DIGITS = re.compile(r"[0-9]{1,12}")
_SECTION_DIGITS = re.compile(r"[0-9]{1,6}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_CLOCK = re.compile(r"([0-9]{1,4}):([0-5]?[0-9]):([0-5]?[0-9])")


@dataclass(frozen=True)
class _Book:
    audiobook: str
    language: str
    """ISO 639-3, or MULTILINGUAL: then each section says its own."""
    title: str
    authors: str
    url_librivox: str
    sections: tuple[Any, ...]


@dataclass(frozen=True)
class Parsed:
    """What a page of the API holds."""

    sections: pl.DataFrame
    """Rows of `records.CATALOGUE`, ordered by language, audiobook and section; the times are null."""
    rejections: pl.DataFrame
    """Rows of `records.REJECTIONS`; a null section means the whole book, a null audiobook one without a usable id."""


@dataclass(frozen=True)
class Wanted:
    """What the caller mines."""

    languages: frozenset[str] | None
    """ISO 639-3 codes; None for all that are known."""
    hosts: AllowedHosts = field(default_factory=AllowedHosts)
    """Where a recording may lie."""


def parse_books(books: Iterable[Any], wanted: Wanted) -> Parsed:
    """Turn the entries of `{"books": [...]}` (asked with `extended=1`) into rows and rejections.

    The book's language is the truth: where LibriVox's database has none for a section, the API writes "English"
    (COALESCE in its query), in a German book too. Only in a book called "Multilingual" do sections speak for
    themselves, and there an unlabelled section counts as English, which cannot be told apart.

    Rejections, by reason: `malformed` (an entry, id or section that cannot be read, or is listed twice),
    `unknown_language`, `language_not_wanted`, `unfinished` (no `url_librivox`, no sections, or a section without
    `listen_url`), `forbidden_url` (a recording that lies elsewhere than on an allowed host).
    """
    rows: list[dict[str, Any]] = []
    rejections: list[dict[str, Any]] = []
    for position, entry in enumerate(books):
        for row in _read_book(position, entry, wanted):
            (rejections if "reason" in row else rows).append(row)
    return together([Parsed(_frame(rows, CATALOGUE), _frame(rejections, REJECTIONS))])


def together(pages: Sequence[Parsed]) -> Parsed:
    """Join pages into one catalogue, in order; a section that was listed before is a rejection (`malformed`)."""
    nothing = Parsed(_frame([], CATALOGUE), _frame([], REJECTIONS))
    sections = pl.concat([nothing.sections, *(page.sections for page in pages)])
    first = pl.struct("audiobook", "section").is_first_distinct()
    repeated = sections.filter(~first).select(
        "audiobook",
        "section",
        pl.lit("malformed").alias("reason"),
        pl.lit("a section of this number was listed before").alias("detail"),
    )
    rejections = pl.concat([nothing.rejections, *(page.rejections for page in pages), repeated], how="diagonal")
    return Parsed(sections.filter(first).sort("language", by_audiobook(), "section"), rejections)


def entries(listed: Any) -> list[Any] | None:
    """The entries of a JSON list, or of the object PHP makes of a list with gaps (`{"0": …, "7": …}`); else None."""
    if isinstance(listed, list):
        return listed
    if isinstance(listed, dict) and listed and all(_DIGITS.fullmatch(key) for key in listed):
        return list(listed.values())
    return None


def _frame(rows: Sequence[dict[str, Any]], schema: Any) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(schema), orient="row")


def _read_book(position: int, entry: Any, wanted: Wanted) -> Iterator[dict[str, Any]]:
    audiobook: str | None = None
    try:
        audiobook = _audiobook(entry, position)
        book = _book(audiobook, entry, wanted)
    except RejectedError as rejected:
        yield _rejection(audiobook, None, rejected)
        return
    for section_position, section in enumerate(book.sections):
        yield _read_section(book, section_position, section, wanted)


def _read_section(book: _Book, position: int, section: Any, wanted: Wanted) -> dict[str, Any]:
    number: int | None = None
    try:
        number = _section_number(section, position)
        return _section(book, number, section, wanted)
    except RejectedError as rejected:
        return _rejection(book.audiobook, number, rejected)


def _rejection(audiobook: str | None, section: int | None, rejected: RejectedError) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(REJECTIONS)
    row.update(audiobook=audiobook, section=section, reason=rejected.reason, detail=rejected.detail)
    return row


def _audiobook(entry: Any, position: int) -> str:
    """The book's id: digits, so that it can name a folder and a partition."""
    if not isinstance(entry, dict):
        raise RejectedError("malformed", f"entry {position} is {shown(entry)}, not a book")
    digits = _digits(entry.get("id"), _DIGITS)
    if digits is None:
        raise RejectedError("malformed", f"entry {position} has the id {shown(entry.get('id'))}, not digits")
    return str(digits)


def _book(audiobook: str, entry: dict[str, Any], wanted: Wanted) -> _Book:
    language = _language(entry.get("language"))
    if language != MULTILINGUAL:
        _require_wanted(language, wanted)
    url = one_line(entry.get("url_librivox"))
    if not url:
        raise RejectedError("unfinished", "no url_librivox")
    return _Book(audiobook, language, one_line(entry.get("title")), _authors(entry), url, _sections(entry))


def _sections(entry: dict[str, Any]) -> tuple[Any, ...]:
    listed = entry.get("sections", "absent")
    if listed in (None, [], {}):
        raise RejectedError("unfinished", "no sections")
    found = entries(listed)
    if found is None:
        raise RejectedError("malformed", f"sections is {shown(listed)}; was the page asked with extended=1?")
    return tuple(found)


def _section_number(section: Any, position: int) -> int:
    """The section's number; LibriVox numbers a preface 0."""
    if not isinstance(section, dict):
        raise RejectedError("malformed", f"section {position} of the list is {shown(section)}, not a section")
    number = _digits(section.get("section_number"), _SECTION_DIGITS)
    if number is None:
        raise RejectedError("malformed", f"section_number is {shown(section.get('section_number'))}, not digits")
    return number


def _section(book: _Book, number: int, section: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    language = book.language
    if language == MULTILINGUAL:
        language = _language(section.get("language"))
        _require_wanted(language, wanted)
    readers = [reader for reader in entries(section.get("readers")) or [] if isinstance(reader, dict)]
    return {
        "audiobook": book.audiobook,
        "section": number,
        "language": language,
        "title": book.title,
        "authors": book.authors,
        "section_title": one_line(section.get("title")),
        "readers": _joined(one_line(reader.get("display_name")) for reader in readers),
        "reader_ids": _joined(one_line(reader.get("reader_id")) for reader in readers),
        "duration_s": _duration_s(section.get("playtime")),
        "listen_url": _listen_url(section.get("listen_url"), wanted.hosts),
        "url_librivox": book.url_librivox,
        "licence": LICENCE,
        "first_seen": None,
        "last_changed": None,
        "file_version": None,
    }


def _language(name: Any) -> str:
    if name is None or name == "":
        raise RejectedError("unknown_language", "no language is given")
    if not isinstance(name, str):
        raise RejectedError("malformed", f"language is {shown(name)}, not a name")
    code = iso_639_3(one_line(name))
    if code is None:
        raise RejectedError("unknown_language", f"{shown(name)} is not a language we know by that name")
    return code


def _require_wanted(language: str, wanted: Wanted) -> None:
    if language == MULTILINGUAL:
        raise RejectedError("unknown_language", "a section is called multilingual: it must name one language")
    if wanted.languages is not None and language not in wanted.languages:
        raise RejectedError("language_not_wanted", language)


def _listen_url(value: Any, hosts: AllowedHosts) -> str:
    if value is None or value == "":
        raise RejectedError("unfinished", "no listen_url")
    if not isinstance(value, str):
        raise RejectedError("malformed", f"listen_url is {shown(value)}, not an address")
    refusal = hosts.refusal(value.strip())
    if refusal is None and not value.strip().lower().startswith(("http://", "https://")):
        refusal = "a catalogue of the network names no file of this machine"
    if refusal is not None:
        raise RejectedError("forbidden_url", f"{refusal}: {shown(value)}")
    return value.strip()


def _duration_s(playtime: Any) -> int | None:
    """Announced seconds; None where nothing usable is announced (the API writes 0 for what it does not know)."""
    clock = _CLOCK.fullmatch(playtime.strip()) if isinstance(playtime, str) else None
    if clock is not None:
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return 3600 * hours + 60 * minutes + seconds or None
    return _digits(playtime, _SECONDS) or None


def _digits(value: Any, pattern: re.Pattern[str]) -> int | None:
    """A non-negative whole number written as digits or as a JSON number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    if isinstance(value, int):
        # Compared before it is written out: a JSON number may have thousands of digits, which str() refuses.
        written = str(value) if 0 <= value < 10**12 else ""
    else:
        written = value.strip()
    return int(written) if pattern.fullmatch(written) else None


def _authors(entry: dict[str, Any]) -> str:
    authors = [author for author in entries(entry.get("authors")) or [] if isinstance(author, dict)]
    names = (f"{one_line(author.get('first_name'))} {one_line(author.get('last_name'))}".strip() for author in authors)
    return _joined(names)


def _joined(names: Iterable[str]) -> str:
    return "; ".join(name for name in names if name)
