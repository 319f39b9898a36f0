"""How long each listed clip lasts: its audio is opened, and what cannot be is a rejection.

Clips are measured by threads, in a window, so that rows that carry their audio are never held all at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from speech_mining.audio.decode import Held, measure_s
from speech_mining.errors import AudioError
from speech_mining.transcribed.listing import (
    ClipRejectionReason,
    Listed,
    ListedClip,
    RejectedClip,
    UnusableClipError,
    readable,
)
from speech_mining.transcribed.places import recording_at
from speech_mining.transcribed.seeking import length_s

THREADS = 4
_WINDOW = 32
ROUNDING_S = 0.25
"""What a span may reach beyond its recording: encoders pad, and tables round."""

_REASONS: dict[str, ClipRejectionReason] = {
    "not_found": "missing_clip",
    "empty_file": "empty_file",
    "not_audio": "not_audio",
    "no_audio": "no_audio",
    "damaged": "damaged",
}
_Measured: TypeAlias = "float | UnusableClipError"


def measured(clips: Iterable[Listed]) -> Iterator[tuple[ListedClip, float] | RejectedClip]:
    """Each clip with the seconds of its span, or its rejection, in the order of `clips`.

    Raises:
        TranscribedSpeechError: features of audio in place of audio.
    """
    waiting: deque[RejectedClip | tuple[ListedClip, Future[_Measured]]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        submitted = _Submitted(threads)
        try:
            for listed in clips:
                waiting.append(listed if isinstance(listed, RejectedClip) else (listed, submitted.measure(listed)))
                if len(waiting) >= _WINDOW:
                    yield _settled(waiting.popleft())
            while waiting:
                yield _settled(waiting.popleft())
        finally:
            threads.shutdown(cancel_futures=True)


class _Submitted:
    """Hands clips to the threads; spans of one recording follow one another, and it is opened once for them."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._last: tuple[Path, str, Future[_Measured]] | None = None

    def measure(self, listed: ListedClip) -> Future[_Measured]:
        if self._last is None or self._last[:2] != (listed.file, listed.place):
            future = self._threads.submit(_measure, listed.file, listed.place, listed.held)
            self._last = (listed.file, listed.place, future)
        return self._last[2]


def unusable(error: AudioError) -> UnusableClipError:
    """A clip's rejection for what decoding says of it."""
    return UnusableClipError(_REASONS.get(error.reason, "not_audio"), readable(error.found))


def _measure(file: Path, place: str, held: Held | None) -> _Measured:
    try:
        known_s = None if held or place else length_s(file)
        return measure_s(held or recording_at(file, place)) if known_s is None else known_s
    except AudioError as error:
        return unusable(error)
    except UnusableClipError as error:
        return error
    except (OSError, ValueError) as problem:  # a name too long for the file system, a file not ours to read
        return UnusableClipError("missing_clip", readable(str(problem)))


def _settled(
    waiting: RejectedClip | tuple[ListedClip, Future[_Measured]],
) -> tuple[ListedClip, float] | RejectedClip:
    if isinstance(waiting, RejectedClip):
        return waiting
    listed, future = waiting
    whole = future.result()
    try:
        if isinstance(whole, UnusableClipError):
            raise whole
        if not (listed.transcription or listed.translation):
            raise UnusableClipError("no_text", "neither transcription nor translation")
        return listed, _span_s(listed, whole)
    except UnusableClipError as error:
        return RejectedClip(listed.source, listed.line, listed.clip, error.reason, error.detail)


def _span_s(listed: ListedClip, whole_s: float) -> float:
    start_s, end_s = listed.start_s or 0.0, whole_s if listed.end_s is None else listed.end_s
    if end_s > whole_s + ROUNDING_S or start_s >= min(end_s, whole_s):
        raise UnusableClipError("out_of_range", f"{start_s:g} to {end_s:g} s of a recording of {whole_s:.2f} s")
    return min(end_s, whole_s) - start_s
