"""Fetching a whole audiobook: a recording that cannot be had is a rejection, and the rest of the book survives.

What belongs here is the walk over sections. One file is the business of `downloads` and `local_files`, what an earlier
run holds that of `earlier`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from speech_mining.atomic import replacing
from speech_mining.errors import DownloadError
from speech_mining.progress import Progress, silent
from speech_mining.records import RECORDINGS, REJECTIONS, conform
from speech_mining.sources.addresses import archive_file, is_file_url
from speech_mining.sources.client import PASSING, PoliteClient
from speech_mining.sources.disk import Room, told_when_full
from speech_mining.sources.downloads import (
    Downloaded,
    FileFacts,
    Told,
    archive_file_facts,
    download_recording,
    part_of,
)
from speech_mining.sources.earlier import LISTING, Earlier, Held, description, listing
from speech_mining.sources.local_files import copy_recording, size_of
from speech_mining.sources.quarantine import Quarantine, Refusal

VERSION = "2"

BYTES_PER_S = 8000
"""LibriVox's recordings have 64 kbit/s."""

_SUFFIXES = frozenset({".mp3", ".ogg", ".opus", ".flac", ".m4a", ".wav"})


@dataclass(frozen=True)
class Place:
    """Where the recordings of a book arrive; one process at a time (`writer.only_writer`)."""

    folder: Path
    """Where files are put while they arrive; a killed run goes on from what lies there."""
    room: Room = field(default_factory=Room)
    quarantine: Quarantine | None = None
    """Where files go that came and were refused."""


@dataclass(frozen=True, eq=False)
class FetchedAudiobook:
    """What was had of a book."""

    recordings: pl.DataFrame
    """`records.RECORDINGS`, by section."""
    rejections: pl.DataFrame
    """`records.REJECTIONS`: recordings that could not be had, and why."""
    listing: pl.DataFrame
    """`earlier.LISTING`: what this was fetched from."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """`file` of a recording → where it lies now, for those that came."""
    reused: Mapping[str, Held] = field(default_factory=dict)
    """`file` of a recording → where the lake has it, for those that stand."""
    requests: int = 0
    """Downloads asked for; 0 when everything was there already."""


def fetch_audiobook(
    client: PoliteClient,
    sections: pl.DataFrame,
    place: Place,
    *,
    earlier: Earlier | None = None,
    progress: Progress = silent,
    bytes_progress: Progress = silent,
) -> FetchedAudiobook:
    """Fetch every recording of a book and verify it against archive.org's checksums.

    A recording that an earlier run holds is neither asked for nor copied where its address, and the version of its
    file where the catalogue tells one, are the same. With another version it is asked for again, unless archive.org's
    checksums say that it is still the same file; where it cannot be had for a reason that may pass, the earlier one
    stays, beside the rejection. Recordings are named by the hash of their bytes: equal ones are one file.

    Args:
        client: asks.
        sections: `records.CATALOGUE` of one audiobook in one language.
        place: where files arrive; what lies there of sections that are no longer listed is removed.
        earlier: what an earlier run holds.
        progress: told the number of recordings done.
        bytes_progress: told the bytes that came, of those that are expected.

    Raises:
        DownloadError: no recording at all could be had, for a reason that may pass; trying again later may help.
        NoRoomError: the disk has no room for the book (nothing was fetched), or was full in the middle of it.
    """
    book = _Book(client, place, earlier)
    with told_when_full("The recordings of an audiobook"):
        plans = [book.plan(section) for section in sections.sort("section").iter_rows(named=True)]
        _sweep(place.folder, plans)
        wanted = [book.missing_bytes(plan) for plan in plans]
        place.room.require(sum(wanted))
        for number, plan in enumerate(plans, start=1):
            book.fetch(plan, _after(sum(wanted[: number - 1]), sum(wanted), bytes_progress))
            progress(number, len(plans))
    return book.fetched(sections)


def _after(before: int, total: int, progress: Progress) -> Progress:
    """Progress of one of several files, told as progress of all."""

    def tell(done: int, announced: int) -> None:
        progress(before + done, max(total, before + announced))

    return tell


def file_name(section: int, url: str) -> str:
    """How a recording is called while it arrives: by its number, never by a name from outside."""
    return f"{section:04d}{_suffix(url)}"


def _suffix(url: str) -> str:
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    return suffix if suffix in _SUFFIXES else ".audio"


@dataclass(frozen=True)
class _Plan:
    """What is to be done about a section."""

    section: Mapping[str, Any]
    destination: Path
    expected: FileFacts | None = None
    stands: bool = False
    """The lake holds it: nothing is to be done."""
    error: DownloadError | None = None
    """It cannot be had, as its metadata say already."""

    @property
    def url(self) -> str:
        """Where it lies."""
        return str(self.section["listen_url"])

    @property
    def record(self) -> Path:
        """Tells size and hash of a file that arrived whole, so that a killed run need not fetch it again."""
        return self.destination.with_name(f"{self.destination.name}.json")


class _Book:
    """A book on its way."""

    def __init__(self, client: PoliteClient, place: Place, earlier: Earlier | None) -> None:
        self._client, self._place = client, place
        self._held = earlier.held if earlier else {}
        self._facts = _Facts(client)
        self._names: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        self._reused: dict[str, Held] = {}
        self._rows: list[dict[str, Any]] = []
        self._rejections: list[dict[str, Any]] = []
        self._errors: list[DownloadError] = []
        self._older_versions: dict[int, str | None] = {}
        self._requests = 0

    def plan(self, section: Mapping[str, Any]) -> _Plan:
        """Find out what is to be done about a section; a metadata request an item of archive.org at most."""
        url, version = section["listen_url"], section["file_version"]
        plan = _Plan(section, self._place.folder / file_name(section["section"], url))
        held = self._held.get(url)
        if held is not None and version in (None, held.file_version):
            return replace(plan, stands=True)
        if is_file_url(url):
            return plan
        try:
            facts = self._facts.of(url) or FileFacts()
        except DownloadError as error:
            return replace(plan, error=error)
        return replace(plan, expected=facts if facts.sums else _recorded(plan) or facts)

    def missing_bytes(self, plan: _Plan) -> int:
        """What a section will take on the disk beyond what is there; 0 where nobody knows."""
        if plan.stands or plan.error:
            return 0
        if is_file_url(plan.url):
            size = size_of(self._client.allowed, plan.url)
        elif plan.expected and plan.expected.bytes is not None:
            size = plan.expected.bytes
        else:
            size = BYTES_PER_S * (plan.section["duration_s"] or 0)
        if size > self._client.config.most_recording_bytes:
            return 0  # it will be refused
        there = (path.stat().st_size for path in (plan.destination, part_of(plan.destination)) if path.exists())
        return max(0, size - max(there, default=0))

    def fetch(self, plan: _Plan, progress: Progress) -> None:
        """Do what is planned."""
        try:
            if plan.error is not None:
                raise plan.error
            if plan.stands:
                self._keep(plan)
            else:
                self._take(plan, self._download(plan, progress))
        except DownloadError as error:
            self._reject(plan, error)

    def fetched(self, sections: pl.DataFrame) -> FetchedAudiobook:
        """What came of it all.

        Raises:
            DownloadError: nothing, for reasons that may pass.
        """
        if self._errors and not self._rows and all(error.reason in PASSING for error in self._errors):
            raise self._errors[0]
        older = pl.DataFrame(
            {"section": list(self._older_versions), "older": list(self._older_versions.values())},
            schema={"section": pl.Int32(), "older": pl.String()},
        )
        return FetchedAudiobook(
            conform(pl.DataFrame(self._rows, schema=dict(RECORDINGS)), RECORDINGS, "recordings"),
            conform(pl.DataFrame(self._rejections, schema=dict(REJECTIONS)), REJECTIONS, "rejections"),
            _with_older_versions(listing(sections), older),
            self._files,
            self._reused,
            self._requests,
        )

    def _keep(self, plan: _Plan) -> None:
        held = self._held[plan.url]
        name = self._name(held.sha256, plan.url)
        if name not in self._files:
            self._reused.setdefault(name, held)
        self._row(plan, name, held.bytes, held.sha256)

    def _take(self, plan: _Plan, got: Downloaded) -> None:
        name = self._name(got.sha256, plan.url)
        if name not in self._reused:
            self._files.setdefault(name, got.path)
        self._requests += got.requests
        self._row(plan, name, got.bytes, got.sha256)
        if self._place.quarantine is not None:
            section = plan.section
            self._place.quarantine.release(section["language"], section["audiobook"], section["section"])

    def _reject(self, plan: _Plan, error: DownloadError) -> None:
        self._errors.append(error)
        self._rejections.append(_rejection(plan.section, error))
        if error.reason in PASSING and plan.url in self._held:
            self._older_versions[plan.section["section"]] = self._held[plan.url].file_version
            self._keep(plan)

    def _download(self, plan: _Plan, progress: Progress) -> Downloaded:
        told = Told(
            progress,
            arrived=lambda facts: _record(plan, facts),
            refused=lambda path, error: self._refuse(plan, path, error),
        )
        if is_file_url(plan.url):
            most_bytes = self._client.config.most_recording_bytes
            return copy_recording(self._client.allowed, plan.url, plan.destination, most_bytes=most_bytes, told=told)
        self._lay_back(plan)
        return download_recording(self._client, plan.url, plan.destination, expected=plan.expected, told=told)

    def _lay_back(self, plan: _Plan) -> None:
        """Put what the lake holds of another version in its place: the sums may say that it is the same file."""
        held = self._held.get(plan.url)
        expected = plan.expected or FileFacts()
        if held is None or not expected.sums or expected.bytes not in (None, held.bytes) or plan.destination.exists():
            return
        plan.destination.parent.mkdir(parents=True, exist_ok=True)
        path = held.partition.local_path(held.file)
        try:
            os.link(path, plan.destination)
        except OSError:
            shutil.copyfile(path, plan.destination)

    def _refuse(self, plan: _Plan, path: Path, error: DownloadError) -> None:
        if self._place.quarantine is None:
            return
        section = plan.section
        refusal = Refusal(
            language=section["language"],
            audiobook=section["audiobook"],
            section=section["section"],
            reason=error.reason,
            found=error.found,
            expected=error.expected,
            url=plan.url,
        )
        self._place.quarantine.put(path, refusal, suffix=_suffix(plan.url), move=True)

    def _name(self, sha256: str, url: str) -> str:
        """What a recording is called in the lake; equal bytes have one name, whatever their addresses end in."""
        return self._names.setdefault(sha256, f"{sha256}{_suffix(url)}")

    def _row(self, plan: _Plan, name: str, size: int, sha256: str) -> None:
        self._rows.append({**description(plan.section), "file": name, "bytes": size, "sha256": sha256})


class _Facts:
    """Sizes and checksums of archive.org items; one metadata request an item, also where it fails."""

    def __init__(self, client: PoliteClient) -> None:
        self._client = client
        self._items: dict[str, Mapping[str, FileFacts] | DownloadError] = {}

    def of(self, url: str) -> FileFacts | None:
        file = archive_file(url)
        if file is None:
            return None
        if file.identifier not in self._items:
            self._items[file.identifier] = self._ask(file.identifier)
        found = self._items[file.identifier]
        if isinstance(found, DownloadError):
            raise found
        return found.get(file.name)

    def _ask(self, identifier: str) -> Mapping[str, FileFacts] | DownloadError:
        try:
            return archive_file_facts(self._client, identifier)
        except DownloadError as error:
            return error


def _sweep(folder: Path, plans: Iterable[_Plan]) -> None:
    """Remove what killed runs left of sections that are no longer listed, or that stand."""
    if not folder.is_dir():
        return
    coming = [plan for plan in plans if not plan.stands and plan.error is None]
    wanted = {path for plan in coming for path in (plan.destination, part_of(plan.destination), plan.record)}
    for path in folder.iterdir():
        if path not in wanted:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _record(plan: _Plan, facts: FileFacts) -> None:
    content = {**_of(plan), "bytes": facts.bytes, "sha256": facts.sha256}
    with replacing(plan.record) as part:
        part.write_text(json.dumps(content, sort_keys=True), "utf-8")


def _recorded(plan: _Plan) -> FileFacts | None:
    """Size and hash of what a killed run had whole of this very version; None where there is no such record."""
    try:
        content = json.loads(plan.record.read_text("utf-8"))
        facts = FileFacts(bytes=int(content.pop("bytes")), sha256=str(content.pop("sha256")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return facts if content == _of(plan) else None


def _of(plan: _Plan) -> dict[str, Any]:
    return {"url": plan.url, "file_version": plan.section["file_version"]}


def _with_older_versions(now: pl.DataFrame, older: pl.DataFrame) -> pl.DataFrame:
    """The listing, with the versions that recordings stand for which could not be renewed: so they are tried again."""
    kept = pl.col("section").is_in(older["section"].implode())
    joined = now.join(older, on="section", how="left", maintain_order="left")
    return conform(
        joined.select(
            "section",
            "url",
            pl.when(kept).then(pl.col("older")).otherwise(pl.col("file_version")).alias("file_version"),
        ),
        LISTING,
        "listing",
    )


def _rejection(section: Mapping[str, Any], error: DownloadError) -> dict[str, Any]:
    return {
        "audiobook": section["audiobook"],
        "section": section["section"],
        "start_sample": None,
        "end_sample": None,
        "reason": error.reason,
        "detail": str(error),
    }
