"""Clips out of recordings: each recording decoded once, its spans sliced as they pass and packed as FLAC.

What belongs here is samples to clips, and the store that keeps them until an exporter has written them down. Which
spans are wanted is said by the corpus; what is made of the clips is the exporters' business.

A recording's clips are one file of the store, named by the recording's hash and its spans and renamed into place when
it is whole: a killed run goes on behind the last recording that was finished, and equal inputs give equal bytes.
Memory is flat: a worker holds one block and the spans that are open, never a recording (a process that cuts a quarter
of an hour has 97 MB at its peak, one that cuts two and a half hours 100 MB).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.atomic import replacing
from speech_mining.audio.decode import Waveform, decode
from speech_mining.errors import AudioError, LakeError
from speech_mining.progress import Progress, silent
from speech_mining.records import SAMPLE_RATE_HZ

VERSION = "1"
BLOCK_SAMPLES = 1 << 19
"""33 s, 2 MB: shorter blocks cost a copy of the open span each, longer ones memory."""
_FULL_SCALE = 32_768
_TRAILER_BYTES = 8

Span: TypeAlias = tuple[int, int]
"""First sample and the one behind the last, at 16 kHz."""


@dataclass(frozen=True)
class Recording:
    """A recording that clips are wanted of."""

    name: str
    """What errors call it: such as `deu/91001, section 2`."""
    path: Path
    sha256: str
    spans: tuple[Span, ...]
    """Each once, in any order."""

    @property
    def file(self) -> str:
        """Name of its file in the store: another recording, span or version of this module is another file."""
        told = json.dumps([VERSION, self.sha256, sorted(self.spans)])
        return f"{hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}.clips"


@dataclass(frozen=True)
class Clip:
    """Where a clip's FLAC lies in the store."""

    path: Path
    offset: int
    length: int
    """In bytes."""
    samples: int

    def read(self) -> bytes:
        """The FLAC file: 16 kHz, mono, 16 bits."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def slices(blocks: Iterable[Waveform], spans: Sequence[Span]) -> Iterator[tuple[Span, Waveform]]:
    """The spans' samples as they pass; spans may overlap, and what no span wants any more is let go.

    Args:
        blocks: float32 (any,), one behind the other.
        spans: first sample and the one behind the last.

    Yields:
        a span and its samples, in the order of their ends; spans that the blocks do not reach are not yielded.
    """
    waiting = sorted(spans, key=lambda span: (span[1], span[0]))
    earliest = [*accumulate((start for start, _ in reversed(waiting)), min)][::-1]
    held, first, done = np.empty(0, dtype=np.float32), 0, 0
    for block in blocks:
        if done == len(waiting):
            return
        held = np.concatenate([held, block])
        while done < len(waiting) and waiting[done][1] <= first + len(held):
            start, end = waiting[done]
            yield (start, end), held[start - first : end - first]
            done += 1
        if done < len(waiting):
            wanted = min(earliest[done], first + len(held))
            held, first = held[wanted - first :], wanted


def flac(waveform: Waveform) -> bytes:
    """A clip as FLAC, 16 kHz, mono, 16 bits; samples beyond full scale are clipped and not wrapped."""
    import soundfile

    loudness = np.clip(np.rint(waveform * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    packed = io.BytesIO()
    soundfile.write(packed, loudness.astype(np.int16), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return packed.getvalue()


def cut(recordings: Sequence[Recording], store: Path, *, workers: int = 2, progress: Progress = silent) -> Clips:
    """Cut all spans of all recordings, several recordings at once; what the store has already is left alone.

    Threads serve: decoding and packing are C, which gives Python's lock back while it works.

    Args:
        recordings: each once.
        store: a folder that is this module's own.
        workers: recordings that are decoded at once.
        progress: recordings done, and all.

    Returns:
        where each clip lies.

    Raises:
        AudioError: a recording cannot be decoded, or is not there.
        LakeError: a span lies beyond its recording's end.
    """
    store.mkdir(parents=True, exist_ok=True)
    found: dict[str, Mapping[Span, Clip]] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            for recording, clips in zip(
                recordings, pool.map(lambda each: _cut_one(each, store), recordings), strict=True
            ):
                found[recording.sha256] = {**found.get(recording.sha256, {}), **clips}
                progress(len(found), len(recordings))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Clips(found)


@dataclass(frozen=True)
class Clips:
    """The clips of a store, by their recordings' hashes."""

    of_recording: Mapping[str, Mapping[Span, Clip]]

    def of(self, sha256: str, start: int, end: int) -> Clip:
        """The clip of a span."""
        return self.of_recording[sha256][start, end]


def tidy(recordings: Sequence[Recording], store: Path) -> None:
    """Take from a store what belongs to none of these recordings and spans: the corpus has changed since."""
    wanted = {recording.file for recording in recordings}
    for path in store.glob("*.clips") if store.is_dir() else ():
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def _cut_one(recording: Recording, store: Path) -> dict[Span, Clip]:
    path = store / recording.file
    if not path.exists():
        with replacing(path) as part:
            _write(recording, part)
    return _index(path, recording)


def _write(recording: Recording, part: Path) -> None:
    _require_there(recording)
    spans: list[tuple[Span, int]] = []
    with part.open("wb") as file:
        for span, waveform in slices(decode(recording.path).blocks(BLOCK_SAMPLES), recording.spans):
            spans.append((span, file.write(flac(waveform))))
        _require_all(recording, [span for span, _ in spans])
        index = json.dumps([[*span, length] for span, length in spans]).encode()
        file.write(index + len(index).to_bytes(_TRAILER_BYTES, "little"))


def _index(path: Path, recording: Recording) -> dict[Span, Clip]:
    """Where the clips of a whole file lie: its last eight bytes say how long the list before them is."""
    with path.open("rb") as file:
        file.seek(-_TRAILER_BYTES, io.SEEK_END)
        size = int.from_bytes(file.read(_TRAILER_BYTES), "little")
        file.seek(-_TRAILER_BYTES - size, io.SEEK_END)
        listed = json.loads(file.read(size))
    lengths: npt.NDArray[np.int64] = np.array([length for *_, length in listed], dtype=np.int64)
    offsets = np.cumsum(lengths) - lengths
    return {
        (start, end): Clip(path, int(offset), length, end - start)
        for (start, end, length), offset in zip(listed, offsets, strict=True)
    }


def _require_there(recording: Recording) -> None:
    if not recording.path.is_file():
        raise AudioError(
            f"The audio of {recording.name} is not there any more: {recording.path}.",
            reason="not_found",
            expected="the recording that the corpus was mined from",
            cause="it was removed, or the disk that holds it is not mounted",
            fix="materialize its raw_audio again; clips that are cut already are kept",
        )


def _require_all(recording: Recording, cut_out: Sequence[Span]) -> None:
    beyond = sorted(set(recording.spans) - set(cut_out))
    if beyond:
        raise LakeError(
            f"{len(beyond)} clips of {recording.name} lie beyond its end, such as samples {beyond[0]}.",
            expected="the recording that was mined",
            cause="the audiobook was fetched anew since the corpus was made, and is another recording now",
            fix="materialize its segments, and what follows from them, again",
        )
