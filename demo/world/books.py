"""The audiobooks of the miniature library, and how LibriVox and archive.org would describe them.

Titles, identifiers, what a reader says around a section, and the two catalogues' JSON shapes belong here: pure data
from figures handed in. Which sentences a section tells is `demo.world.tales`; recordings are `demo.make_library`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demo.world.lexicon import Language
from demo.world.narrators import NARRATORS

BIT_RATE_BPS = 40_000
SAMPLE_RATE_HZ = 22_050

_NAMES: Mapping[Language, str] = {"deu": "German", "eng": "English", "fra": "French", "spa": "Spanish"}
_LICENCE = "http://creativecommons.org/publicdomain/mark/1.0/"
_NUMERALS: Mapping[Language, tuple[str, ...]] = {
    "deu": ("eins", "zwei", "drei", "vier"),
    "eng": ("one", "two", "three", "four"),
    "fra": ("un", "deux", "trois", "quatre"),
    "spa": ("uno", "dos", "tres", "cuatro"),
}
_PREAMBLES: Mapping[Language, tuple[str, ...]] = {
    "deu": (
        "Dies ist eine LibriVox Aufnahme.",
        "Alle LibriVox Aufnahmen sind lizenzfrei und in öffentlichem Besitz.",
        "{title}, Abschnitt {number}.",
    ),
    "eng": (
        "This is a LibriVox recording.",
        "All LibriVox recordings are in the public domain.",
        "{title}, section {number}.",
    ),
    "fra": (
        "Ceci est un enregistrement LibriVox.",
        "Tous les enregistrements LibriVox sont dans le domaine public.",
        "{title}, section {number}.",
    ),
    "spa": (
        "Esta es una grabación de LibriVox.",
        "Todas las grabaciones de LibriVox son de dominio público.",
        "{title}, sección {number}.",
    ),
}
_CLOSINGS: Mapping[Language, str] = {
    "deu": "Ende von Abschnitt {number}.",
    "eng": "End of section {number}.",
    "fra": "Fin de la section {number}.",
    "spa": "Fin de la sección {number}.",
}


@dataclass(frozen=True)
class Section:
    """One recording: its number in the book, who reads it, its title, and which chapter of that language it tells."""

    number: int
    language: Language
    title: str
    chapter: int


@dataclass(frozen=True)
class Book:
    """One project of the catalogue; `sections` in the order the catalogue lists them, which need not be their own.

    A book whose title is not spoken (`announced` empty) announces each section's own title.
    """

    project: str
    identifier: str
    slug: str
    title: str
    announced: str
    language: str
    author: tuple[str, str, str, str, str]
    sections: tuple[Section, ...]
    finished: bool = True

    def file_name(self, section: Section) -> str:
        """The section's MP3, named as archive.org's LibriVox items name theirs."""
        return f"{self.slug}_{section.number:02d}_{self.author[2].lower()}_64kb.mp3"

    def listen_url(self, section: Section) -> str:
        """Where the catalogue says the section can be heard."""
        return f"https://www.archive.org/download/{self.identifier}/{self.file_name(section)}"


_ANNA = ("90201", "Anna", "Miniature", "1848", "1921")
_KARL = ("90202", "Karl", "Kleinwelt", "1851", "1919")
_JULES = ("90203", "Jules", "Petitmonde", "1839", "1902")
_PILAR = ("90204", "Pilar", "Mundillo", "1860", "1933")
_VARIOUS = ("90205", "", "Various", "", "")


def _book(
    project: int, slug: str, title: str, language: Language, author: tuple[str, str, str, str, str], first: int
) -> Book:
    """A book of three sections that tells three chapters, listed with the second section first."""
    sections = [Section(number, language, f"Section {number}", first + number - 1) for number in (2, 1, 3)]
    return Book(str(project), f"{slug}_librivox", slug, title, title, _NAMES[language], author, tuple(sections))


BOOKS: tuple[Book, ...] = (
    _book(91001, "fuchsunddielaterne", "Der Fuchs und die Laterne", "deu", _KARL, 0),
    _book(91002, "geschichtenvomofen", "Geschichten vom Ofen", "deu", _KARL, 3),
    _book(91003, "kingunderthehill", "The King under the Hill", "eng", _ANNA, 0),
    _book(91004, "talesfromtheharbour", "Tales from the Harbour", "eng", _ANNA, 3),
    _book(91005, "moulindelariviere", "Le Moulin de la Rivière", "fra", _JULES, 0),
    _book(91006, "contesdelaneige", "Contes de la Neige", "fra", _JULES, 3),
    _book(91007, "montanadelosvientos", "La Montaña de los Vientos", "spa", _PILAR, 0),
    _book(91008, "cuentosdelsastre", "Cuentos del Sastre", "spa", _PILAR, 3),
    Book(
        "91009",
        "multilingualfairytales_librivox",
        "multilingualfairytales",
        "Multilingual Fairy Tales",
        "",
        "Multilingual",
        _VARIOUS,
        (
            Section(3, "fra", "L'Enfant du Phare", 6),
            Section(1, "deu", "Das gläserne Haus", 6),
            Section(4, "spa", "El Pan de Oro", 6),
            Section(2, "eng", "The Lost Bell", 6),
        ),
    ),
    # Another reading, still under way, of a title that is there already: it has no page and no recordings yet.
    Book(
        "91010",
        "",
        "kingunderthehill2",
        "The King under the Hill",
        "The King under the Hill",
        "English",
        _ANNA,
        (Section(1, "eng", "Section 1", 0), Section(2, "eng", "Section 2", 1)),
        finished=False,
    ),
)
FINISHED: tuple[Book, ...] = tuple(book for book in BOOKS if book.finished)


def preamble(book: Book, section: Section) -> list[str]:
    """What LibriVox asks its readers to say first, in the section's language."""
    told = {"title": book.announced or section.title, "number": _NUMERALS[section.language][section.number - 1]}
    return [sentence.format(**told) for sentence in _PREAMBLES[section.language]]


def closing(section: Section) -> str:
    """What a reader says at the end of a section."""
    return _CLOSINGS[section.language].format(number=_NUMERALS[section.language][section.number - 1])


def catalogue(books: Sequence[Book], durations_s: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    """All books as LibriVox's API writes them with `extended=1`: strings throughout, but for `totaltimesecs`.

    Args:
        books: the projects, in the order of the catalogue.
        durations_s: whole seconds of each finished (project, section).
    """
    return {"books": [_catalogue_entry(book, durations_s) for book in books]}


def _catalogue_entry(book: Book, durations_s: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    total_s = sum(durations_s.get((book.project, section.number), 0) for section in book.sections)
    page = f"https://librivox.org/{book.slug}/" if book.finished else ""
    item = f"https://www.archive.org/details/{book.identifier}" if book.finished else ""
    archive = f"https://www.archive.org/download/{book.identifier}/{book.identifier}_64kb_mp3.zip"
    author_id, first_name, last_name, born, died = book.author
    return {
        "id": book.project,
        "title": book.title,
        "description": f"{book.title}, told in a closed vocabulary for the miniature library of speech-mining.",
        "url_text_source": "",
        "language": book.language,
        "copyright_year": "0",
        "num_sections": str(len(book.sections)),
        "url_rss": f"https://librivox.org/rss/{book.project}",
        "url_zip_file": archive if book.finished else "",
        "url_project": "",
        "url_librivox": page,
        "url_other": "",
        "totaltime": f"{total_s // 3600}:{total_s // 60 % 60:02d}:{total_s % 60:02d}",
        "totaltimesecs": total_s,
        "authors": [{"id": author_id, "first_name": first_name, "last_name": last_name, "dob": born, "dod": died}],
        "url_iarchive": item,
        "sections": [_catalogue_section(book, section, durations_s) for section in book.sections],
        "genres": [{"id": "38", "name": "Myths, Legends & Fairy Tales"}],
        "translators": [],
    }


def _catalogue_section(book: Book, section: Section, durations_s: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    narrator = NARRATORS[section.language]
    return {
        "id": str(int(book.project) * 100 + section.number),
        "section_number": str(section.number),
        "title": section.title,
        "listen_url": book.listen_url(section) if book.finished else "",
        "language": _NAMES[section.language],
        "playtime": str(durations_s.get((book.project, section.number), 0)),
        "file_name": None,
        "readers": [{"reader_id": narrator.reader_id, "display_name": narrator.name}] if book.finished else [],
        "genres": [],
    }


@dataclass(frozen=True)
class ItemFile:
    """A file of an archive.org item, with its checksums in hexadecimal and its length in seconds."""

    name: str
    size: int
    md5: str
    sha1: str
    length_s: float


def item_metadata(book: Book, files: Sequence[ItemFile]) -> dict[str, Any]:
    """A book's item as archive.org's metadata API writes it."""
    return {
        "created": 1_767_225_600,
        "dir": f"/0/items/{book.identifier}",
        "files": [_item_file(file) for file in files],
        "files_count": len(files),
        "item_size": sum(file.size for file in files),
        "metadata": {
            "identifier": book.identifier,
            "mediatype": "audio",
            "collection": ["librivoxaudio", "audio_bookspoetry"],
            "title": book.title,
            "creator": f"{book.author[1]} {book.author[2]}".strip(),
            "language": book.language,
            "licenseurl": _LICENCE,
        },
    }


def _item_file(file: ItemFile) -> dict[str, str]:
    return {
        "name": file.name,
        "source": "derivative",
        "format": "64Kbps MP3",
        "size": str(file.size),
        "md5": file.md5,
        "sha1": file.sha1,
        "length": f"{file.length_s:.2f}",
    }
