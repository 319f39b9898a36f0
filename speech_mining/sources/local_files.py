"""Recordings of this machine: copied, so that a file its owner edits later changes nothing that was mined.

What belongs here is one file that a `file:///…` address names. Servers are the business of `client` and `downloads`.
"""

from __future__ import annotations

import fcntl
import shutil
import stat
from pathlib import Path

from speech_mining.errors import DownloadError
from speech_mining.sources.addresses import AllowedHosts, local_file
from speech_mining.sources.downloads import (
    Downloaded,
    FileFacts,
    Told,
    examine,
    not_audio,
    part_of,
    put,
    refusal,
    too_large,
)

_FICLONE = 0x40049409
"""Linux: share the blocks of another file until either is written (btrfs, xfs); instant, and no room is taken."""


def copy_recording(
    allowed: AllowedHosts,
    url: str,
    destination: Path,
    *,
    most_bytes: int,
    expected: FileFacts | None = None,
    told: Told,
) -> Downloaded:
    """Copy the file that `url` names into `destination`, which is either not there or whole at every moment.

    Raises:
        DownloadError: reason `forbidden_url` (files are not allowed, or it is no plain file), `not_found`,
            `too_large`, `checksum_mismatch`, `not_audio` or `empty_file`.
    """
    source = _permitted(allowed, url, most_bytes)
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(destination)
    try:
        _copy(source, part)
    except (FileNotFoundError, PermissionError) as problem:
        raise _unreadable(url, problem) from None
    found = examine(part, expected or FileFacts())
    error = _wrong(url, part, found.difference, found.bytes)
    if error is not None:
        told.refused(part, error)
        part.unlink(missing_ok=True)
        raise error
    told.arrived(FileFacts(bytes=found.bytes, sha256=found.sha256))
    put(part, destination)
    return Downloaded(destination, found.bytes, found.sha256, 0, 0)


def size_of(allowed: AllowedHosts, url: str) -> int:
    """Bytes of the file that `url` names; 0 for one that cannot be copied."""
    try:
        return 0 if allowed.refusal(url) else local_file(url).stat().st_size
    except OSError:
        return 0


def _permitted(allowed: AllowedHosts, url: str, most_bytes: int) -> Path:
    told = allowed.refusal(url)
    if told is not None:
        raise _forbidden(url, told)
    path = local_file(url)
    try:
        facts = path.stat()
    except OSError as problem:
        raise _unreadable(url, problem) from None
    if not stat.S_ISREG(facts.st_mode):
        raise _forbidden(url, "it is not a plain file")
    if facts.st_size > most_bytes:
        raise too_large(url, facts.st_size, most_bytes)
    return path


def _copy(source: Path, part: Path) -> None:
    with source.open("rb") as original, part.open("wb") as copy:
        try:
            fcntl.ioctl(copy, _FICLONE, original.fileno())
        except OSError:
            shutil.copyfileobj(original, copy, 2**20)


def _wrong(url: str, part: Path, difference: str, size: int) -> DownloadError | None:
    if difference or size == 0:
        return refusal(url, difference)
    with part.open("rb") as file:
        start = file.read(40)
    return not_audio(url, f"starts with {start!r}") if start.lstrip()[:1] == b"<" else None


def _unreadable(url: str, problem: OSError) -> DownloadError:
    return DownloadError(
        f"{ascii(url)[:200]} cannot be read: {problem.strerror}.",
        reason="not_found",
        expected="a file that this user may read",
        cause="it was moved or renamed since the catalogue was read",
        fix="materialize the catalogue again",
    )


def _forbidden(url: str, told: str) -> DownloadError:
    return DownloadError(
        f"{ascii(url)[:200]} must not be read: {told}.",
        reason="forbidden_url",
        expected="a plain file, in a catalogue that lies on this machine itself",
        cause="a catalogue of a server that names files of this machine",
        fix="give the catalogue's own folder or file as its address, if it is yours",
    )
