"""The folder that a set lies in, and nothing outside it: a set is data that others made, and it names files.

What belongs here is where a name leads. What lies there is the business of `measuring`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from speech_mining.sources.foreign_text import shown
from speech_mining.sources.recording_file import SUFFIXES
from speech_mining.transcribed.listing import RejectedClip, UnusableClipError, readable

_DEEPEST = 12


class Folder:
    """A set's folder, its own links followed once."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._real = os.path.realpath(root)

    def file(self, name: str, *, below: str = "") -> Path:
        """Where a name that the set gives leads, whether or not a file is there.

        Args:
            name: relative, or absolute below the folder.
            below: the folder inside this one that names are relative to.

        Raises:
            UnusableClipError: `outside` (`../`, another absolute path, or a link that leads out), `malformed`.
        """
        if not name or "\0" in name:
            raise UnusableClipError("malformed", "it names no file")
        path = self.root / below / name
        self.require(path)
        return path

    def require(self, path: Path) -> None:
        """Refuse a path that is not in the folder.

        Raises:
            UnusableClipError: `outside`.
        """
        if not self.holds(path):
            raise UnusableClipError("outside", f"{shown(str(path))} leads out of the folder")

    def holds(self, path: Path) -> bool:
        """Whether a path, all links followed, lies in the folder. One takes 20 µs."""
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):
            return False
        return real.startswith(self._real.rstrip(os.sep) + os.sep)

    def shown(self, path: Path) -> str:
        """A path as rejections name it: relative to the folder."""
        return readable(path.relative_to(self.root).as_posix())

    def files(self, *, deepest: int = _DEEPEST) -> Iterator[Path | RejectedClip]:
        """Files below, folder by folder in order of their names; links to folders are told, not followed.

        What is hidden is left alone: caches, and the shadows that macOS puts into archives ("._clip.wav").
        """
        for place, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            here = Path(place)
            for name in list(folders):
                if (here / name).is_symlink():
                    folders.remove(name)
                    linked = self.shown(here / name)
                    yield RejectedClip(linked, None, "", "outside", "a link to a folder is not followed")
            if len(here.relative_to(self.root).parts) >= deepest:
                folders.clear()
            yield from (here / name for name in sorted(names) if not name.startswith("."))


def is_audio(path: Path) -> bool:
    """Whether a file is named as a recording."""
    return path.suffix.lower() in SUFFIXES
