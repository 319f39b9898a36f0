"""What a lake in an object store needs on this machine: verified copies of its files, and a way to send new ones.

What belongs here is bytes between a disk and an object store. What a partition is, is in `lake`.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speech_mining.errors import LakeError

if TYPE_CHECKING:
    from upath import UPath

IN_USE_S = 3600.0
"""A copy that was handed out so lately may not have been opened yet, and stays."""


@dataclass(frozen=True)
class Cache:
    """Copies of an object store's files on this machine's disk; the longest unused give way."""

    folder: Path
    most_bytes: int
    in_use_s: float = IN_USE_S

    def copy_of(self, remote: UPath, generation: str, name: str, facts: Mapping[str, Any]) -> Path:
        """The path of a whole, verified copy; fetched where there is none.

        Args:
            remote: the file.
            generation: name of the content it belongs to: the same name in another store is the same bytes.
            name: of the file in its generation.
            facts: {"bytes", "sha256"}, as its manifest tells.

        Raises:
            LakeError: what comes is not what the manifest tells, twice.
        """
        cached = self.folder / generation / name
        if cached.is_file() and cached.stat().st_size == facts["bytes"]:
            os.utime(cached)
            return cached
        self._make_room(int(facts["bytes"]))
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_name(f".{cached.name}.{uuid.uuid4().hex}.part")
        try:
            for _ in range(2):
                remote.fs.get_file(remote.path, str(part))
                if digest(part) == facts["sha256"]:
                    part.replace(cached)
                    return cached
        finally:
            part.unlink(missing_ok=True)
        raise LakeError(
            f"{remote} came damaged, twice.",
            expected=f"{facts['bytes']} bytes with the sha256 {facts['sha256']}",
            cause="it was overwritten from outside, or something on the way changes it",
            fix="materialize the partition again",
        )

    def _make_room(self, size: int) -> None:
        found = sorted((path.stat().st_mtime, path.stat().st_size, str(path)) for path in self._files())
        held = sum(bytes_ for _, bytes_, _ in found)
        for used, bytes_, path in found:
            if held + size <= self.most_bytes or abs(time.time() - used) < self.in_use_s:
                break
            Path(path).unlink(missing_ok=True)
            held -= bytes_

    def _files(self) -> Iterator[Path]:
        return (path for path in self.folder.rglob("*") if path.is_file())


def digest(path: Path | UPath) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    read = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            read.update(chunk)
    return read.hexdigest()


def sizes(folder: UPath) -> dict[str, int]:
    """Name → bytes of every file below a folder of an object store, in one listing."""
    try:
        listed = folder.fs.find(folder.path, detail=True)
    except FileNotFoundError:
        return {}
    start = len(folder.fs._strip_protocol(folder.path).rstrip("/")) + 1
    return {path[start:]: int(about["size"]) for path, about in listed.items()}


def read_text(path: UPath) -> str:
    """A small file that others may replace at any moment, by one request: the old text or the new one.

    Opened as a file it would be asked for twice, its size first, and what was replaced in between is an error.
    """
    return bytes(path.fs.cat_file(path.path)).decode("utf-8")


def send(source: Path | UPath, target: UPath) -> None:
    """Put a file into an object store: from this disk, piece by piece, or from another place of the same store."""
    from upath import UPath

    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, UPath) and source.protocol == target.protocol:
        target.fs.cp_file(source.path, target.path)
    else:
        target.fs.put_file(str(source), target.path)
