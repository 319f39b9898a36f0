"""One recording that lies on this machine: where it is, what tells its content, and why it may not be used."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from speech_mining.sources.foreign_text import shown
from speech_mining.sources.rejected import RejectedError

SUFFIXES = frozenset({".mp3", ".flac", ".ogg", ".opus", ".m4a", ".wav"})


@dataclass(frozen=True)
class RecordingFile:
    """A file that may be read."""

    url: str
    """`file:///…`, percent-encoded."""
    version: str
    """Size and time of change: another content has another version."""


def recording_file(path: Path, root: Path | None = None) -> RecordingFile:
    """Look at a file without reading it.

    Args:
        path: where it is said to be.
        root: a folder that a link must not lead out of, and in which `path`'s own folder lies; None where the user
            named the file himself.

    Raises:
        RejectedError: `not_audio` (hidden, another suffix, no file), `forbidden_url` (a link out of `root`),
            `not_found` (absent, or not to be read) or `empty_file`.
    """
    if path.name.startswith("."):
        raise RejectedError("not_audio", f"{shown(str(path))} is hidden")
    if path.suffix.lower() not in SUFFIXES:
        raise RejectedError("not_audio", f"{shown(str(path))} is none of {', '.join(sorted(SUFFIXES))}")
    if root is not None and path.is_symlink() and leads_out(path, root):
        raise RejectedError("forbidden_url", f"{shown(str(path))} is a link that leads out of {root}")
    try:
        about = path.stat()
    except (OSError, ValueError) as problem:
        raise RejectedError("not_found", f"{shown(str(path))}: {_told(problem)}") from None
    if not stat.S_ISREG(about.st_mode):
        raise RejectedError("not_audio", f"{shown(str(path))} is no file")
    if not os.access(path, os.R_OK):
        raise RejectedError("not_found", f"{shown(str(path))} may not be read")
    if about.st_size == 0:
        raise RejectedError("empty_file", f"{shown(str(path))} is empty")
    return RecordingFile(path.absolute().as_uri(), f"{about.st_size}-{about.st_mtime_ns}")


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, lies elsewhere than below `root`; one that goes in circles does."""
    try:
        return not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        return True


def _told(problem: Exception) -> str:
    return problem.strerror or str(problem) if isinstance(problem, OSError) else str(problem)
