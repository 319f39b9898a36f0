"""A folder of recordings: `<language>/<book>/<recording>.mp3` (or flac, ogg, opus, m4a, wav).

Nothing is read but names, sizes and times. Whatever lies there and is no recording is a rejection with its path.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from speech_mining.progress import Progress, silent
from speech_mining.records import natural_order
from speech_mining.sources.audiobook_names import audiobook_id
from speech_mining.sources.foreign_text import one_line, shown
from speech_mining.sources.listing import Listing, language_of, require_wanted
from speech_mining.sources.protocol import Catalogue
from speech_mining.sources.recording_file import SUFFIXES, leads_out, recording_file
from speech_mining.sources.rejected import RejectedError

_LEADING_NUMBER = re.compile(r"[0-9]{1,6}(?![0-9])")
_READ_BY = re.compile(r"(?P<title>.+?)\s*[-,(\[]\s*read by (?P<readers>.+?)[)\]]?", re.IGNORECASE)


@dataclass(frozen=True)
class _Book:
    folder: Path
    language: str
    audiobook: str


@dataclass(frozen=True)
class RecordingsFolder:
    """Recordings below `root`; a `protocol.Source`.

    Languages are folders named by ISO 639-3, ISO 639-1 or English name. A book's id is its folder's name, or a slug of
    it (`audiobook_names`); its title is the name too, less "read by Ann" at its end, which tells the reader. Sections
    are numbered by the number that leads every file's name, where all have one and no two the same; else from 1 in
    natural order of the names, those that must be rejected included. Links may stay inside `root`, not lead out.
    """

    root: Path

    def read(
        self,
        *,
        languages: Collection[str] | None,
        since: datetime | None,
        now: datetime,
        progress: Progress = silent,
    ) -> Catalogue:
        """List everything: to look at a folder costs little, so `since` leaves nothing out."""
        listing = Listing()
        books = list(self._books(languages, listing))
        for done, book in enumerate(books, start=1):
            self._list_book(book, listing)
            progress(done, len(books))
        return listing.catalogue(len(books), now)

    def _books(self, languages: Collection[str] | None, listing: Listing) -> Iterator[_Book]:
        ids: dict[tuple[str, str], Path] = {}
        for folder in self._folders(self.root, "a language", listing):
            try:
                language = language_of(folder.name)
                require_wanted(language, languages)
            except RejectedError as rejected:
                listing.reject(rejected.reason, f"folder {shown(folder.name)}: {rejected.detail}")
                continue
            for book in self._folders(folder, "a book", listing):
                audiobook = audiobook_id(book.name)
                first = ids.setdefault((language, audiobook), book)
                if first != book:
                    detail = f"{self._shown(book)} has the id of {self._shown(first)}"
                    listing.reject("malformed", detail, audiobook=audiobook)
                    continue
                yield _Book(book, language, audiobook)

    def _folders(self, parent: Path, meant: str, listing: Listing) -> Iterator[Path]:
        """Folders by name; what else lies among them is told."""
        for path in _children(parent, listing):
            if path.name.startswith("."):
                listing.reject("not_audio", f"{self._shown(path)} is hidden")
            elif leads_out(path, self.root):
                listing.reject("forbidden_url", f"{self._shown(path)} is a link that leads out of {self.root}")
            elif not path.is_dir():
                listing.reject("not_audio", f"{self._shown(path)} lies where {meant} is expected, a folder")
            else:
                yield path

    def _list_book(self, book: _Book, listing: Listing) -> None:
        paths = _children(book.folder, listing)
        numbers = section_numbers([path.name for path in paths if _is_named_as_recording(path)])
        title, readers = _title_and_readers(book.folder.name)
        for path in paths:
            section = numbers.get(path.name)
            try:
                file = recording_file(path, self.root)
            except RejectedError as rejected:
                listing.reject(rejected.reason, rejected.detail, audiobook=book.audiobook, section=section)
                continue
            listing.add(
                book.audiobook,
                numbers[path.name],
                book.language,
                listen_url=file.url,
                file_version=file.version,
                title=title,
                readers=readers,
                section_title=one_line(path.stem),
            )
        if not numbers:
            listing.reject("unfinished", f"{self._shown(book.folder)} holds no recording", audiobook=book.audiobook)

    def _shown(self, path: Path) -> str:
        return shown(str(path.relative_to(self.root)))


def section_numbers(names: Collection[str]) -> dict[str, int]:
    """Name -> number of the section: the number that leads it, where all have distinct ones; else the place, from 1."""
    leading = {name: _LEADING_NUMBER.match(name) for name in names}
    numbers = {name: int(found[0]) for name, found in leading.items() if found is not None}
    if len(set(numbers.values())) == len(leading):
        return numbers
    return {name: place for place, name in enumerate(sorted(names, key=_by_name), start=1)}


def _by_name(name: str) -> tuple[object, ...]:
    return (natural_order(name), name)


def _is_named_as_recording(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _children(folder: Path, listing: Listing) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: _by_name(path.name))
    except OSError as problem:
        listing.reject("not_found", f"{shown(str(folder))} may not be read: {problem.strerror}")
        return []


def _title_and_readers(name: str) -> tuple[str, str]:
    found = _READ_BY.fullmatch(name)
    return (one_line(found["title"]), one_line(found["readers"])) if found else (one_line(name), "")
