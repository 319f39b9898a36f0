"""Recordings whose texts lie beside them: `<name>.txt`, or LibriSpeech's `<speaker>-<chapter>.trans.txt`.

What belongs here is which text goes with which recording; a recording or a text that is left alone is a rejection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from speech_mining.records import natural_order
from speech_mining.sources.foreign_text import shown
from speech_mining.transcribed.folder import Folder, is_audio
from speech_mining.transcribed.listing import Listed, ListedClip, RejectedClip, UnusableClipError, split_of_folder

_TRANSCRIPTS = ".trans.txt"
_MOST_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class _Told:
    """A text, and where it stands."""

    source: str
    line: int | None
    text: str
    speaker: str = ""


def seen(folder: Path) -> str:
    """The first text that goes with a recording; empty where none does."""
    inside = Folder(folder)
    paths = (path for path in inside.files() if isinstance(path, Path))
    for _, files in groupby(paths, key=lambda path: path.parent):
        held = list(files)
        stems = {path.stem for path in held if is_audio(path)}
        for path in held:
            if path.name.endswith(_TRANSCRIPTS) or (path.suffix == ".txt" and path.stem in stems):
                return inside.shown(path)
    return ""


def clips_beside(folder: Folder, language: str) -> Iterator[Listed]:
    """Every recording below a folder with its text."""
    files: list[Path] = []
    for found in folder.files():
        if isinstance(found, RejectedClip):
            yield found
        else:
            files.append(found)
    for place, held in groupby(files, key=lambda path: path.parent):
        yield from _of_one_folder(folder, place, list(held), language)


def _of_one_folder(folder: Folder, place: Path, files: list[Path], language: str) -> Iterator[Listed]:
    """A text without recording is told too, where there are recordings to go with: README.txt alone is none."""
    told: dict[str, _Told] = {}
    recordings = sorted(
        (path for path in files if is_audio(path)), key=lambda path: (natural_order(path.name), path.name)
    )
    stems = {path.stem for path in recordings}
    texts = [path for path in files if path.suffix == ".txt" and (stems or path.name.endswith(_TRANSCRIPTS))]
    for path in texts:
        yield from _take(folder, path, told)
    split = split_of_folder(place.relative_to(folder.root))
    for path in recordings:
        yield _clip(folder, path, told.get(path.stem), split, language)
    for stem, text in told.items():
        if stem not in stems:
            yield RejectedClip(text.source, text.line, stem, "missing_clip", "there is a text and no recording")


def _take(folder: Folder, path: Path, told: dict[str, _Told]) -> Iterator[RejectedClip]:
    """Read one file of text into `told`, by the name of the recording it goes with."""
    source = folder.shown(path)
    try:
        content = _content(folder, path)
    except UnusableClipError as unusable:
        yield RejectedClip(source, None, path.stem, unusable.reason, unusable.detail)
        return
    if not path.name.endswith(_TRANSCRIPTS):
        told.setdefault(path.stem, _Told(source, None, " ".join(content.split())))
        return
    speaker = path.name.partition("-")[0] if "-" in path.name else ""
    for number, line in enumerate(content.splitlines(), start=1):
        name, _, text = line.strip().partition(" ")
        if name in told and told[name].line is not None:
            yield RejectedClip(source, number, name, "duplicate_clip", f"{told[name].source} has its text too")
        elif name:
            told[name] = _Told(source, number, text.strip(), speaker)


def _clip(folder: Folder, path: Path, told: _Told | None, split: str, language: str) -> Listed:
    name = folder.shown(path)
    try:
        folder.require(path)
        if not str(path).isprintable() and name != path.relative_to(folder.root).as_posix():
            raise UnusableClipError("malformed", "its name is not UTF-8")
        if told is None:
            raise UnusableClipError("no_text", "no transcript lies beside it")
    except UnusableClipError as unusable:
        return RejectedClip(name, None, name, unusable.reason, unusable.detail)
    return ListedClip(
        told.source, told.line, name, split, language, path, transcription=told.text, speaker=told.speaker
    )


def _content(folder: Folder, path: Path) -> str:
    folder.require(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_TEXT_BYTES + 1)
    except OSError as problem:
        raise UnusableClipError("no_text", f"{shown(path.name)}: {problem.strerror}") from None
    if len(content) > _MOST_TEXT_BYTES:
        raise UnusableClipError("malformed", f"{shown(path.name)} is longer than {_MOST_TEXT_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnusableClipError("malformed", f"{shown(path.name)} is not UTF-8") from None
