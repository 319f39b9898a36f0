"""Recordings fetched whole: resumed where they were cut, verified where the sum is known, renamed into place last.

What belongs here is one file and what archive.org says about it. How to ask is in `client`, a file of this machine in
`local_files`; where files lie is the caller's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from speech_mining.atomic import sync
from speech_mining.errors import DownloadError
from speech_mining.progress import Progress, silent
from speech_mining.sources.addresses import ARCHIVE, is_archive_identifier
from speech_mining.sources.client import PoliteClient, TransientError, announced_bytes

if TYPE_CHECKING:
    import httpx

_LOG = logging.getLogger(__name__)

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")
_HEX_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64}
_TEXT_TYPES = ("text/html", "application/xhtml", "text/xml", "application/xml", "application/json")
_RANGE_ANSWERS = frozenset({206, 416})
_READ_BYTES = 2**20
_KEPT_OF_A_PAGE = 2**16
"""Bytes of a web page that are kept to look at."""


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file before it is fetched; None where nothing is."""

    bytes: int | None = None
    md5: str | None = None
    sha1: str | None = None
    sha256: str | None = None

    @property
    def sums(self) -> dict[str, str]:
        """The checksums that are known, by algorithm."""
        known = {"md5": self.md5, "sha1": self.sha1, "sha256": self.sha256}
        return {algorithm: digest.lower() for algorithm, digest in known.items() if digest is not None}


_UNKNOWN = FileFacts()


@dataclass(frozen=True)
class Downloaded:
    """A file in its place."""

    path: Path
    bytes: int
    sha256: str
    resumed_from: int
    """Bytes that lay in the `.part` file of an earlier run and were not asked for again."""
    requests: int
    """Answers asked for; 0 where the file was there already."""


def _nobody(*_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Told:
    """Whom a download tells what happens."""

    progress: Progress = silent
    """The bytes received and those announced."""
    arrived: Callable[[FileFacts], None] = _nobody
    """Size and sha256 of a whole, verified file, just before it is renamed into its place."""
    refused: Callable[[Path, DownloadError], None] = _nobody
    """A file that came and is not what it should be, and why; it may be moved away, and is removed if it is not."""


_TOLD_TO_NOBODY = Told()


def download_recording(
    client: PoliteClient,
    url: str,
    destination: Path,
    *,
    expected: FileFacts | None = None,
    told: Told = _TOLD_TO_NOBODY,
) -> Downloaded:
    """Fetch `url` into `destination`, which is either not there or whole at every moment.

    Bytes are written to `<destination>.part` and stay there when a run ends early; the next run goes on from them if
    a checksum is known that will tell whether they belong together (within a run an ETag does that too). What is in
    `destination` and agrees with `expected` is not asked for again; with nothing expected it cannot be verified, so
    it is fetched and replaced. After a mismatch the file is fetched once more from its first byte. A mirror that fails,
    lacks the file or has another one is followed by the next; what was received stays where a checksum is known.

    Args:
        client: asks.
        url: where the recording lies, at its origin.
        destination: its place; the folder is made where missing. Only one process may write it at a time.
        expected: size and checksums, as archive.org tells them or as an earlier download was recorded.
        told: who hears of it.

    Raises:
        DownloadError: with the reason `not_found`, `server_error`, `connection`, `forbidden_url`, `too_large`,
            `checksum_mismatch` (also a wrong size), `not_audio` (a web page in place of sound) or `empty_file`.
    """
    facts = expected or _UNKNOWN
    if facts.bytes is not None and facts.bytes > client.config.most_recording_bytes:
        raise too_large(url, facts.bytes, client.config.most_recording_bytes)
    kept = _kept(destination, facts)
    if kept is not None:
        part_of(destination).unlink(missing_ok=True)
        return kept
    destination.parent.mkdir(parents=True, exist_ok=True)
    fetching = _Fetching(client, destination, facts, told)
    with client.downloading():
        found = client.from_any(url, fetching.whole)
    told.arrived(FileFacts(bytes=found.bytes, sha256=found.sha256))
    put(fetching.part, destination)
    return Downloaded(destination, found.bytes, found.sha256, fetching.resumed_from, fetching.requests)


def archive_file_facts(client: PoliteClient, identifier: str) -> Mapping[str, FileFacts]:
    """Size and checksums of every file of an archive.org item, by file name.

    Args:
        client: asks; a mirror of `https://archive.org` is asked in its place where one is configured.
        identifier: the item, as in `addresses.archive_file`.

    Raises:
        DownloadError: reason `gone` where archive.org answers `{}` or calls the item dark, `forbidden_url` for what
            is not an identifier, `malformed` for another answer, or as `PoliteClient.read`. A mirror that fails so is
            followed by the next.
    """
    if not is_archive_identifier(identifier):
        raise DownloadError(
            f"{ascii(identifier)[:80]} is not the identifier of an archive.org item.",
            reason="forbidden_url",
            expected="letters, digits, '.', '_' and '-'",
        )
    return client.from_any(
        f"{ARCHIVE}/metadata/{identifier}", lambda address: _listed(client.read_at(address).json(address), address)
    )


def _listed(answer: Any, address: str) -> Mapping[str, FileFacts]:
    if answer in ({}, []) or (isinstance(answer, dict) and answer.get("is_dark")):
        raise DownloadError(
            f"archive.org no longer has {address.rpartition('/')[2]}.",
            reason="gone",
            expected="the item's files",
            cause="it was withdrawn",
            fix="nothing: it is left out and counted",
        )
    listed = answer.get("files") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise DownloadError(
            f"{address} answered without a list of files.",
            reason="malformed",
            expected='{"files": [{"name": "…", "size": "…", "md5": "…"}]}',
        )
    named = (entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("name"), str))
    return {entry["name"]: _facts(entry) for entry in named}


def _facts(entry: Mapping[str, Any]) -> FileFacts:
    size = entry.get("size")
    known = isinstance(size, str) and size.isascii() and size.isdigit() and len(size) <= 18
    return FileFacts(int(str(size)) if known else None, _hex(entry, "md5"), _hex(entry, "sha1"))


def _hex(entry: Mapping[str, Any], algorithm: str) -> str | None:
    digest = entry.get(algorithm)
    pattern = rf"[0-9a-fA-F]{{{_HEX_DIGITS[algorithm]}}}"
    return digest.lower() if isinstance(digest, str) and re.fullmatch(pattern, digest) else None


@dataclass(frozen=True)
class Found:
    """What a file is."""

    bytes: int
    sha256: str
    difference: str
    """From what was expected, in words; empty where there is none."""


def examine(path: Path, facts: FileFacts) -> Found:
    """Read a file once and compare it with what is expected; an absent file counts as an empty one."""
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in sorted({"sha256", *facts.sums})}
    size = 0
    if path.exists():
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                size += len(chunk)
                for digest in digests.values():
                    digest.update(chunk)
    differences = [] if facts.bytes in (None, size) else [f"{size} bytes and not {facts.bytes}"]
    for name, known in facts.sums.items():
        if digests[name].hexdigest() != known:
            differences.append(f"{name} {digests[name].hexdigest()} and not {known}")
    return Found(size, digests["sha256"].hexdigest(), ", ".join(differences))


def _kept(destination: Path, facts: FileFacts) -> Downloaded | None:
    """The file that is there already, if it is what is expected; unread where its size says that it is not."""
    if facts == _UNKNOWN or not destination.is_file() or facts.bytes not in (None, destination.stat().st_size):
        return None
    found = examine(destination, facts)
    return None if found.difference else Downloaded(destination, found.bytes, found.sha256, 0, 0)


def part_of(destination: Path) -> Path:
    """Where a file lies while it arrives."""
    return destination.with_name(f"{destination.name}.part")


def put(part: Path, destination: Path) -> None:
    """Rename a file into its place once its bytes are on the disk, and see that the name is there too."""
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    part.replace(destination)
    sync(destination.parent)


class _Fetching:
    """One file on its way: its `.part` file, and how often it was asked for."""

    def __init__(self, client: PoliteClient, destination: Path, facts: FileFacts, told: Told) -> None:
        self.part = part_of(destination)
        self.requests = 0
        self._client, self._facts, self._told = client, facts, told
        self._address = ""
        self._validator: str | None = None
        self._whole_bytes: int | None = None
        self._furthest = 0
        if not facts.sums:
            self.discard()
        self.resumed_from = self._have()

    def whole(self, address: str) -> Found:
        """Have the file from one address, verified; once more from its first byte where it is not what is expected.

        Raises:
            DownloadError: it cannot be had there, or is not what is expected there either time.
        """
        self._turn_to(address)
        self.run()
        found = examine(self.part, self._facts)
        if found.difference:
            _LOG.warning("%s: %s; fetching it again from its first byte", address, found.difference)
            self.discard()
            self.run()
            found = examine(self.part, self._facts)
        if found.difference or found.bytes == 0:
            error = refusal(address, found.difference)
            self.part.touch()  # an empty answer leaves no file, and is kept to look at like any other
            self._told.refused(self.part, error)
            self.discard()
            raise error
        return found

    def _turn_to(self, address: str) -> None:
        """Ask another server from here on: only a checksum can tell whether its bytes go on where the others ended."""
        if self._address and not self._facts.sums:
            self.discard()
        self._address, self._validator, self._whole_bytes = address, None, None

    def run(self) -> None:
        """Ask until the server has sent all it announces.

        Patience is renewed by bytes beyond the furthest reached: a server that knows no ranges and is always cut at
        the same place would else be asked for ever.
        """
        self._furthest = self._have()
        try:
            self._client.persist(self._address, self._attempt, gained=lambda: self._furthest)
        finally:
            if self._have() == 0:
                self.part.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget what was received."""
        self.part.unlink(missing_ok=True)
        self._validator, self._whole_bytes, self.resumed_from = None, None, 0

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        have = self._have()
        if self._facts.bytes is not None and have >= self._facts.bytes:
            return  # all is here, from an earlier run or although the server announces more: the sums decide
        self.requests += 1
        with self._client.ask(self._address, headers=self._headers(have), also=_RANGE_ANSWERS) as response:
            if response.status_code == 416:
                self._meet_refused_range(response, have)
            else:
                self._receive(response, have)
        if self._whole_bytes is not None and self._have() < self._whole_bytes:
            raise TransientError(f"{self._have()} of {self._whole_bytes} bytes came", "connection")

    def _headers(self, have: int) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}  # ranges and checksums are of the bytes as they are stored
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._validator is not None:
                headers["If-Range"] = self._validator
        return headers

    def _meet_refused_range(self, response: httpx.Response, have: int) -> None:
        _, whole = _content_range(response)
        if whole != have or have == 0:
            self.discard()
            raise TransientError(f"the server has {whole} bytes and cannot go on from {have}", "connection")

    def _receive(self, response: httpx.Response, have: int) -> None:
        page = _page(response)
        if page:
            self._refuse_page(page, response.iter_raw())
        start, whole = _content_range(response) if response.status_code == 206 else (0, announced_bytes(response))
        if start != (have if response.status_code == 206 else 0):
            self.discard()
            raise TransientError(f"the server went on from byte {start} and not from {have}", "connection")
        if start and self._whole_bytes not in (None, whole):
            self.discard()
            raise TransientError("the file changed while it was fetched", "connection")
        self._validator, self._whole_bytes = _validator(response), whole
        self.resumed_from = self.resumed_from if start else 0
        self._write(response, start)

    def _write(self, response: httpx.Response, start: int) -> None:
        room = self._client.config.most_recording_bytes - start
        with self.part.open("rb+" if start else "wb") as part:
            done = part.seek(start)
            for chunk in self._client.chunks(response, room, response.iter_raw()):
                if done == 0 and chunk.lstrip()[:1] == b"<":
                    self._refuse_page(f"starts with {chunk[:40]!r}", iter([chunk]))
                done += part.write(chunk)
                self._furthest = max(self._furthest, done)
                self._told.progress(done, max(done, self._whole_bytes or 0))

    def _refuse_page(self, page: str, body: Iterator[bytes]) -> NoReturn:
        """Keep the start of what came in place of sound beside what was received before, which it does not spoil."""
        error = not_audio(self._address, page)
        kept = self.part.with_suffix(".refused")
        kept.write_bytes(_start_of(body))
        self._told.refused(kept, error)
        kept.unlink(missing_ok=True)
        raise error


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and whole size, as Content-Range tells them; None for what it does not tell."""
    read = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    first, whole = read.groups() if read else (None, None)
    return (int(first) if first else None), (int(whole) if whole and whole != "*" else None)


def _validator(response: httpx.Response) -> str | None:
    """What If-Range may name: a strong ETag, or a date."""
    etag: str = response.headers.get("etag", "")
    modified: str = response.headers.get("last-modified", "")
    return etag if etag.startswith('"') else modified or None


def _page(response: httpx.Response) -> str:
    """Why an answer is no recording, in words; empty where it may be one."""
    content_type = response.headers.get("content-type", "").lower()
    if content_type.startswith(_TEXT_TYPES):
        return f"is of the type {content_type}"
    encoding = response.headers.get("content-encoding", "identity").lower()
    return "" if encoding == "identity" else f"comes in the encoding {encoding}, which was not asked for"


def _start_of(body: Iterator[bytes]) -> bytes:
    """The first bytes of a page, or as many as come."""
    start = b""
    import httpx

    with contextlib.suppress(httpx.RequestError):
        while len(start) < _KEPT_OF_A_PAGE and (chunk := next(body, b"")):
            start += chunk
    return start[:_KEPT_OF_A_PAGE]


def not_audio(url: str, told: str) -> DownloadError:
    """The error of a web page in place of a recording."""
    return DownloadError(
        f"{url} {told}.",
        reason="not_audio",
        expected="a recording",
        cause="an error page or a login page in place of the file",
        fix="open the address in a browser; run the same again later if the server has recovered",
    )


def refusal(url: str, difference: str) -> DownloadError:
    """The error of a file that is empty or, with a `difference`, not what is expected."""
    if not difference:
        return DownloadError(f"{url} is empty.", reason="empty_file", expected="a recording", cause="a broken upload")
    return DownloadError(
        f"{url} came with {difference}, twice.",
        reason="checksum_mismatch",
        expected="the size and the sums that were told of it",
        cause="the file was replaced after its metadata were made, or something on the way changes it",
        fix="run the same again later; if it stays, compare with another mirror",
    )


def too_large(url: str, size: int, most_bytes: int) -> DownloadError:
    """The error of a recording beyond the cap."""
    return DownloadError(
        f"{url} is said to have {size} bytes.",
        reason="too_large",
        expected=f"at most {most_bytes} bytes",
        cause="it is not a section of an audiobook",
        fix="raise the cap if it is right",
    )
