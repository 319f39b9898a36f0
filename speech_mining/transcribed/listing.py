"""What a reader of one format hands on: clips as they are listed, rejections, and what it passed over.

What belongs here is shared by all formats and opens nothing. Whether a clip's audio is there is the business of
`measuring`; names and order are settled in `sets`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, TypeAlias

import polars as pl

from speech_mining.audio.decode import Held
from speech_mining.errors import SpeechMiningError
from speech_mining.records import Schema
from speech_mining.sources.foreign_text import shown

SPLITS = ("train", "dev", "test")

ClipRejectionReason: TypeAlias = Literal[
    # the audio
    "missing_clip",
    "outside",  # its name, or a link, leads out of the set's folder
    "empty_file",
    "not_audio",
    "no_audio",
    "damaged",
    "too_large",
    "out_of_range",  # bytes or a span that the file does not have
    # what is written about it
    "malformed",
    "no_text",
    "unknown_language",
    "language_not_wanted",
    "not_in_a_split",
    "not_listed",  # a translation of a clip that Common Voice does not list
    "duplicate_clip",
    "in_another_split",
]

REJECTED_CLIPS: Schema = {
    "source": pl.String(),  # the file that lists the clip, relative to the set's folder
    "line": pl.Int64(),  # of that file, from 1; of a parquet the row, from 0; null: the file as a whole
    "clip": pl.String(),  # as the source names it; may be empty
    "reason": pl.String(),
    "detail": pl.String(),
}

# Hugging Face's keywords, and fairseq's "tst-COMMON"; "train-clean-100" is train.
_SPLIT_NAME = re.compile(r"(train|training|valid|validation|val|dev|test|testing|tst|eval|evaluation)(?![a-z])")
_SPLIT_OF = {"t": "train", "v": "dev", "d": "dev", "e": "test"}


class TranscribedSpeechError(SpeechMiningError):
    """Transcribed speech that cannot be read as any format we know, or not without being told more."""


class UnusableClipError(Exception):
    """Raised where a clip is read, and caught where it is counted; a user never meets it."""

    def __init__(self, reason: ClipRejectionReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class ListedClip:
    """A clip as its set lists it; columns as in `records.TRANSCRIBED`."""

    source: str
    line: int | None
    clip: str
    split: str
    language: str
    file: Path
    place: str = ""
    start_s: float | None = None
    end_s: float | None = None
    transcription: str | None = None
    translation: str | None = None
    translation_language: str | None = None
    speaker: str | None = None
    held: Held | None = None
    """The audio, where reading the list brought it along."""


@dataclass(frozen=True, slots=True)
class RejectedClip:
    """A row of `REJECTED_CLIPS`."""

    source: str
    line: int | None
    clip: str
    reason: ClipRejectionReason
    detail: str


Listed: TypeAlias = "ListedClip | RejectedClip"


@dataclass(frozen=True)
class Reading:
    """A set while it is read."""

    clips: Iterator[Listed]
    """Deterministic, train before dev before test."""
    notes: tuple[str, ...] = ()
    """What was passed over on purpose, for people."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table that lists clips."""

    source: str
    line: int
    cells: Mapping[str, str]

    def first(self, *columns: str) -> str:
        """The first of these cells that is not empty, without spaces around it; empty where none is."""
        return next((told for column in columns if (told := self.cells.get(column, "").strip())), "")


def listed_rows(
    rows: Iterable[Row | RejectedClip], name_of: Callable[[Row], str], clip_of: Callable[[Row], ListedClip]
) -> Iterator[Listed]:
    """Turn rows into clips; what cannot be a clip becomes a rejection.

    Args:
        rows: of one table.
        name_of: what the row calls its clip, however broken.
        clip_of: raises `UnusableClipError`.
    """
    for row in rows:
        if isinstance(row, RejectedClip):
            yield row
            continue
        try:
            yield clip_of(row)
        except UnusableClipError as unusable:
            name = name_of(row)
            yield RejectedClip(row.source, row.line, readable(name), unusable.reason, unusable.detail)


def split_named(name: str) -> str | None:
    """The split that a file, a folder or a cell is named after: "validation" is dev; None for any other name."""
    found = _SPLIT_NAME.match(name.strip().lower())
    if found is None:
        return None
    word = found[1]
    return "test" if word.startswith(("te", "ts")) else _SPLIT_OF[word[0]]


def split_of_folder(folder: PurePath) -> str:
    """The split of a folder, relative to its set's: the first on the way that is named after one, else train."""
    return next((split for part in folder.parts if (split := split_named(part))), "train")


def span_name(name: str, start_s: float | None, end_s: float | None) -> str:
    """What the clip of a span of a recording is called: "ted_1.wav@16.08-19.58"; a whole one has its file's name."""
    if start_s is None and end_s is None:
        return name
    return f"{name}@{start_s or 0:g}-{'' if end_s is None else f'{end_s:g}'}"


def seconds(told: str) -> float | None:
    """A time as a set writes it; None where it is empty.

    Raises:
        UnusableClipError: `malformed`.
    """
    if not told:
        return None
    try:
        moment = float(told)
    except ValueError:
        moment = math.nan
    if not 0 <= moment < 1e9:
        raise UnusableClipError("malformed", f"{shown(told)} is no time in seconds")
    return moment


def readable(text: str) -> str:
    """Text that every table can hold: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
