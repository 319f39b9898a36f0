"""Room on the disk: asked for before a book starts, and told clearly where it ends in the middle.

What belongs here is what is free. What a book wants is `audiobook`'s business.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from speech_mining.errors import SpeechMiningError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SAID = re.compile(r"\(os error (?P<number>\d+)\)|^\d+ requested and \d+ written$")


class NoRoomError(SpeechMiningError):
    """A disk that has no room for a book, or may not hold a file of its size; nothing is lost by it."""


@dataclass(frozen=True)
class Room:
    """The folders a book is written to, and what must stay free on their disks."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    """What a folder is called in an error ("scratch") -> the folder, made already or not."""
    reserve_bytes: int = 0

    def require(self, wanted_bytes: int) -> None:
        """Hold what is wanted against what is free.

        Files are linked and not copied where scratch and lake share a disk, and copied where they do not: in both
        cases every disk needs room for the book once.

        Raises:
            NoRoomError: a disk has too little.
        """
        for name, folder in self.folders.items():
            free = free_bytes(folder)
            if free < wanted_bytes + self.reserve_bytes:
                raise NoRoomError(
                    f"The book wants {_mb(wanted_bytes)} and the disk of {name} ({folder}) has {_mb(free)} free.",
                    expected=f"room for the book and a reserve of {_mb(self.reserve_bytes)}",
                    cause="the disk is nearly full",
                    fix="free some of it, or move the home to a larger disk (S2S_HOME, S2S_STORAGE_URL)",
                )


def free_bytes(folder: Path) -> int:
    """What is free on the disk where a folder is, or will be."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


@contextmanager
def told_when_full(what: str) -> Iterator[None]:
    """Turn a disk that is full in the middle of writing into an error that says so.

    Raises:
        NoRoomError: the disk is full, a quota is used up, or a file may not grow so large.
    """
    try:
        yield
    except Exception as problem:
        if isinstance(problem, SpeechMiningError) or not is_full(problem):
            raise
        raise NoRoomError(
            f"{what} could not be written: {_wording(problem)}.",
            expected="room on the disk",
            cause="the disk or a quota is full, or files may not grow so large (ulimit -f)",
            fix="free some room and run the same again: what was received is kept and resumed",
        ) from problem


def is_full(problem: Exception) -> bool:
    """Whether an error says that a disk is full.

    Only Python's own files say it by number: Polars puts the number into the text of an error of its own, and numpy
    counts what was requested and what was written.
    """
    if isinstance(problem, OSError) and problem.errno is not None:
        return problem.errno in _FULL
    told = _SAID.search(str(problem))
    return told is not None and (told["number"] is None or int(told["number"]) in _FULL)


def _wording(problem: Exception) -> str:
    where = f" ({problem.filename})" if isinstance(problem, OSError) and problem.filename else ""
    return f"{getattr(problem, 'strerror', None) or problem}{where}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
