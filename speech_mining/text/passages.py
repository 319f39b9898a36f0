"""What a reader gives: passages of text, with where they were found. Pure: a record is made a passage by its keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from speech_mining.sources.languages import MULTILINGUAL, iso_639_3

_TEXTS = ("text", "raw_content", "content")
_URLS = ("url", "source_url")
_IDS = ("id", "doc_id", "docid", "digest")
_LANGUAGES = ("language", "lang", "language_code")
COLUMNS = frozenset((*_TEXTS, *_URLS, *_IDS, *_LANGUAGES, "warc_headers", "metadata", "meta"))
"""Every key that `passage_of` looks at."""


@dataclass(frozen=True)
class Passage:
    """A line of a plain file, or a document of the other formats."""

    text: str  # as it is in the shard; bytes that are not UTF-8 are U+FFFD
    document: str  # URL or id, line of the meta file, else name of the file
    line: int  # line, record or row in the shard, from 1
    language: str | None = None  # ISO 639-3, as the shard tells; None: it does not
    is_sentence: bool = False  # whether the shard is said to hold one sentence a line


def passage_of(record: Any, line: int, name: str) -> Passage | None:
    """The passage of a JSON object or a table's row, by the keys of CCNet, OSCAR (all versions), mC4, FineWeb, C4.

    Args:
        record: `text`, `raw_content` or `content`; `url`, or that of `warc_headers`, else `id` …; `language`, `lang`,
            or `metadata` with an `identification`.
        line: see `Passage`.
        name: the document, where the record names none.

    Returns:
        None where it holds no text.
    """
    if not isinstance(record, dict):
        return None
    text = next((record[key] for key in _TEXTS if isinstance(record.get(key), str)), None)
    if text is None:
        return None
    headers, metadata = _object(record, "warc_headers"), _object(record, "metadata", "meta")
    headers = headers or _object(metadata, "warc_headers", "headers")
    url = _first(record, _URLS) or _first(headers, ("warc-target-uri",)) or _first(metadata, _URLS)
    document = url or _first(record, _IDS) or _first(metadata, _IDS)
    told = (
        _first(record, _LANGUAGES)
        or _first(_object(metadata, "identification"), ("label",))
        or _first(metadata, _LANGUAGES)
        or _first(headers, ("warc-identified-content-language",))
    )
    return Passage(whole(text), whole(document) or name, line, language_told(told))


def language_told(told: str) -> str | None:
    """The first of the languages that a shard tells of a document ("deu,eng", "de_DE", "German"), as ISO 639-3."""
    first = told.split(",")[0].strip()
    code = iso_639_3(first) or iso_639_3(first.replace("_", "-").split("-")[0].lower())
    return None if code == MULTILINGUAL else code


def whole(text: str) -> str:
    """The text with lone surrogates, which JSON allows and no file can hold, made U+FFFD."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _object(record: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    return next((record[key] for key in keys if isinstance(record.get(key), dict)), {})


def _first(record: Mapping[str, Any], keys: Iterable[str]) -> str:
    found = (record.get(key) for key in keys)
    return next((str(value) for value in found if isinstance(value, (str, int)) and not isinstance(value, bool)), "")
