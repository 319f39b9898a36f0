"""Where in a file a clip lies: the whole of it, a range of its bytes, or a row of a parquet.

What belongs here is the notation of `records.TRANSCRIBED`'s column `place`, and reading the bytes it names.
"""

from __future__ import annotations

import re
from pathlib import Path

from speech_mining.audio.decode import Held
from speech_mining.sources.foreign_text import shown
from speech_mining.transcribed.listing import TranscribedSpeechError, UnusableClipError

MOST_BYTES = 1 << 30
"""Of a clip that is read into memory: an hour and a half of 96 kHz PCM."""

_RANGE = re.compile(r"([0-9]+):([0-9]+)")
_ROW = re.compile(r"row:([0-9]+)")
_NUMPY = b"\x93NUMPY"


def range_place(offset: int, length: int) -> str:
    """The place of `length` bytes from `offset`."""
    return f"{offset}:{length}"


def row_place(row: int) -> str:
    """The place of a parquet's row, from 0."""
    return f"row:{row}"


def row_of(place: str) -> int | None:
    """The row of a parquet that a place names; None for other places."""
    found = _ROW.fullmatch(place)
    return int(found[1]) if found else None


def recording_at(file: Path, place: str) -> Path | Held:
    """What to decode: the file itself, or the bytes that the place names.

    Raises:
        UnusableClipError: `missing_clip`, `out_of_range`, `too_large` or `malformed`.
        TranscribedSpeechError: the bytes are features of audio.
    """
    if not place:
        return file
    found = _RANGE.fullmatch(place)
    if found is None:
        raise UnusableClipError("malformed", f"{shown(place)} is no place in a file")
    offset, length = int(found[1]), int(found[2])
    if length > MOST_BYTES:
        raise UnusableClipError("too_large", f"{length} bytes, at most {MOST_BYTES} are read")
    content = _bytes(file, offset, length)
    if content.startswith(_NUMPY):
        raise features_refused(f"{shown(file.name)}:{place}")
    return Held(f"{file}:{place}", content)


def features_refused(shown_name: str) -> TranscribedSpeechError:
    """The error of a set that holds features in place of audio."""
    return TranscribedSpeechError(
        f"{shown_name} holds features, not audio.",
        expected="audio files, or WAV or FLAC in an uncompressed zip",
        cause="the set was prepared for training on filterbanks",
        fix="prepare it again with its audio (--use-audio-input in fairseq's scripts), or use the set it was made of",
    )


def _bytes(file: Path, offset: int, length: int) -> bytes:
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            content = stream.read(length)
    except OSError as problem:
        raise UnusableClipError("missing_clip", f"{shown(str(file))}: {problem.strerror}") from None
    if len(content) < length:
        raise UnusableClipError("out_of_range", f"the file ends {length - len(content)} bytes before the clip does")
    return content
