"""Fetching a whole audiobook: a recording that cannot be had is a rejection, and the rest of the book survives.

What belongs here is the walk over sections; one file is the business of `downloads`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from speech_mining.errors import DownloadError
from speech_mining.progress import Progress, silent
from speech_mining.records import RECORDINGS, REJECTIONS, conform
from speech_mining.sources.addresses import archive_file
from speech_mining.sources.client import PoliteClient
from speech_mining.sources.downloads import FileFacts, archive_file_facts, download_recording

VERSION = "1"

_SUFFIXES = frozenset({".mp3", ".ogg", ".opus", ".flac", ".m4a", ".wav"})
_PASSING = frozenset({"server_error", "connection"})


@dataclass(frozen=True)
class Kept:
    """A recording that an earlier run fetched from the same address."""

    path: Path
    facts: FileFacts


@dataclass(frozen=True, eq=False)
class FetchedAudiobook:
    """What was had of a book."""

    recordings: pl.DataFrame
    """`records.RECORDINGS`, by section."""
    files: Mapping[str, Path]
    """`file` of a recording → where it lies now."""
    rejections: pl.DataFrame
    """`records.REJECTIONS`: recordings that could not be had, and why."""
    requests: int
    """Downloads asked for; 0 when everything was there already."""


def fetch_audiobook(
    client: PoliteClient,
    sections: pl.DataFrame,
    folder: Path,
    *,
    kept: Mapping[str, Kept] | None = None,
    progress: Progress = silent,
) -> FetchedAudiobook:
    """Fetch every recording of a book and verify it against archive.org's checksums.

    Args:
        client: asks.
        sections: `records.CATALOGUE` of one audiobook in one language.
        folder: where files are put while they arrive; a killed run goes on from what lies there.
        kept: address → what an earlier run holds; such a recording is not asked for again.
        progress: told the number of recordings done.

    Raises:
        DownloadError: no recording at all could be had, for a reason that may pass; trying again later may help.
    """
    rows: list[dict[str, Any]] = []
    files: dict[str, Path] = {}
    refused: list[dict[str, Any]] = []
    errors: list[DownloadError] = []
    facts = _Facts(client)
    requests = 0
    for number, section in enumerate(sections.sort("section").iter_rows(named=True), start=1):
        name = file_name(section["section"], section["listen_url"])
        try:
            expected = _put_back(kept or {}, section["listen_url"], folder / name) or facts.of(section["listen_url"])
            got = download_recording(client, section["listen_url"], folder / name, expected=expected)
        except DownloadError as error:
            errors.append(error)
            refused.append(_rejection(section, error))
        else:
            requests += got.requests
            files[name] = got.path
            rows.append(_row(section, name, got.bytes, got.sha256))
        progress(number, sections.height)
    if errors and not rows and all(error.reason in _PASSING for error in errors):
        raise errors[0]
    return FetchedAudiobook(
        conform(pl.DataFrame(rows, schema=dict(RECORDINGS)), RECORDINGS, "recordings"),
        files,
        conform(pl.DataFrame(refused, schema=dict(REJECTIONS)), REJECTIONS, "rejections"),
        requests,
    )


def file_name(section: int, url: str) -> str:
    """How a recording is called in its partition: by its number, never by a name from outside."""
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    return f"{section:04d}{suffix if suffix in _SUFFIXES else '.audio'}"


class _Facts:
    """Sizes and checksums of archive.org items, one metadata request an item."""

    def __init__(self, client: PoliteClient) -> None:
        self._client = client
        self._items: dict[str, Mapping[str, FileFacts]] = {}

    def of(self, url: str) -> FileFacts | None:
        file = archive_file(url)
        if file is None:
            return None
        if file.identifier not in self._items:
            self._items[file.identifier] = archive_file_facts(self._client, file.identifier)
        return self._items[file.identifier].get(file.name)


def _put_back(kept: Mapping[str, Kept], url: str, destination: Path) -> FileFacts | None:
    """Lay a recording that an earlier run fetched where it would be downloaded to."""
    earlier = kept.get(url)
    if earlier is None or not earlier.path.exists():
        return None
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(earlier.path, destination)
    return earlier.facts


def _row(section: Mapping[str, Any], name: str, size: int, sha256: str) -> dict[str, Any]:
    return {
        "audiobook": section["audiobook"],
        "section": section["section"],
        "language": section["language"],
        "file": name,
        "bytes": size,
        "sha256": sha256,
        "announced_s": section["duration_s"],
        "url": section["listen_url"],
        "title": section["title"],
        "section_title": section["section_title"],
        "readers": section["readers"],
        "licence": section["licence"],
    }


def _rejection(section: Mapping[str, Any], error: DownloadError) -> dict[str, Any]:
    return {
        "audiobook": section["audiobook"],
        "section": section["section"],
        "start_sample": None,
        "end_sample": None,
        "reason": error.reason,
        "detail": str(error),
    }
