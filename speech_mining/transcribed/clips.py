"""The sound of one clip: whichever file, archive or table it lies in, as 16 kHz mono.

What belongs here is reading clips again and again, from several threads, as training does. What clips there are is the
business of `sets`.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from speech_mining.audio.decode import Held, Waveform, decoded_blocks, read_waveform
from speech_mining.errors import AudioError
from speech_mining.records import SAMPLE_RATE_HZ
from speech_mining.transcribed.hugging_face import AUDIO, BATCH_ROWS, opened
from speech_mining.transcribed.listing import TranscribedSpeechError, UnusableClipError
from speech_mining.transcribed.places import recording_at, row_of
from speech_mining.transcribed.seeking import samples_between

KEPT_S = 1800.0
"""115 MB decoded."""
_BLOCK_SAMPLES = 1 << 20


class ClipReader:
    """Reads clips of any set; several threads may share one.

    It keeps the row group of a parquet that was read last, and the recording of which a span was read last, unless its
    spans can be sought (`seeking`): clips that follow one another are read fastest. `close`, or the end of a `with`,
    lets go of both.

    Args:
        kept_s: a recording of which spans are asked is kept if it is no longer; a longer one is decoded up to the end
            of the span each time.
    """

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_samples = round(kept_s * SAMPLE_RATE_HZ)
        self._lock = threading.Lock()
        self._group: _RowGroup | None = None
        self._recording: tuple[tuple[str, str], Waveform] | None = None

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is kept; the reader can be used again."""
        with self._lock:
            self._group = self._recording = None

    def read(self, row: Mapping[str, Any]) -> Waveform:
        """The sound of a clip.

        Args:
            row: of `records.TRANSCRIBED`.

        Returns:
            float32 (samples,) at 16 kHz, mono.

        Raises:
            AudioError: with the clip's name; reasons as in `audio.decode`, and "out_of_range" where the file has less
                than the row says.
        """
        try:
            return self._span(row)
        except AudioError as error:
            raise _named(row, error.found, error.reason) from error
        except UnusableClipError as error:
            reason = "not_found" if error.reason == "missing_clip" else error.reason
            raise _named(row, error.detail, reason) from error
        except TranscribedSpeechError as error:
            raise _named(row, error.found, "not_audio") from error
        except OSError as problem:
            raise _named(row, str(problem), "not_found") from problem

    def content(self, file: Path, place: str) -> bytes:
        """The bytes of a clip's file, range or row, as they are packed there.

        Raises:
            UnusableClipError: they are not there.
            OSError: the file cannot be read.
        """
        source = self._source(file, place)
        return source.content if isinstance(source, Held) else source.read_bytes()

    def _source(self, file: Path, place: str) -> Path | Held:
        row = row_of(place)
        return recording_at(file, place) if row is None else Held(f"{file}:{row}", self._cell(file, row))

    def _span(self, row: Mapping[str, Any]) -> Waveform:
        start_s, end_s = row.get("start_s"), row.get("end_s")
        file, place = row["file"], row["place"] or ""
        if start_s is None and end_s is None:
            return read_waveform(self._source(Path(file), place))
        start = round((start_s or 0.0) * SAMPLE_RATE_HZ)
        end = None if end_s is None else round(end_s * SAMPLE_RATE_HZ)
        sought = None if place else samples_between(Path(file), start, end)
        sound: Waveform = self._recording_until(file, place, end)[start:end].copy() if sought is None else sought
        if not len(sound):
            raise UnusableClipError("out_of_range", f"the recording ends before {start_s or 0:g} s")
        return sound

    def _recording_until(self, file: str, place: str, end: int | None) -> Waveform:
        """A recording from its start, to its end or beyond sample `end`."""
        with self._lock:
            kept = self._recording
        if kept is not None and kept[0] == (file, place):
            return kept[1]
        blocks: list[Waveform] = []
        samples = 0
        for block in decoded_blocks(self._source(Path(file), place), _BLOCK_SAMPLES):
            blocks.append(block)
            samples += len(block)
            if samples > self._kept_samples and end is not None and samples >= end:
                break
        sound = np.concatenate(blocks)
        if samples <= self._kept_samples:
            with self._lock:
                self._recording = ((file, place), sound)
        return sound

    def _cell(self, file: Path, row: int) -> bytes:
        with self._lock:
            if self._group is None or not self._group.holds(file, row):
                self._group = None  # two at once would double what is held
                self._group = _RowGroup.read(file, row)
            return self._group.cell(row)


class _RowGroup:
    """The audio of one row group of a parquet."""

    def __init__(self, file: Path, first: int, cells: list[Any]) -> None:
        self._file, self._first, self._cells = file, first, cells

    @classmethod
    def read(cls, file: Path, row: int) -> _RowGroup:
        """Read the group that a row is in.

        Raises:
            UnusableClipError: there is no such row, or the file is no parquet with audio.
        """
        import pyarrow as pa

        try:
            with opened(file) as parquet:
                counts = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
                ends = list(accumulate(counts))
                group = bisect_right(ends, row)
                if group == len(ends):
                    raise UnusableClipError("out_of_range", f"{file} has {ends[-1] if ends else 0} rows, not {row + 1}")
                batches = parquet.iter_batches(BATCH_ROWS, [group], [f"{AUDIO}.bytes"], use_threads=False)
                # Scalars share the batches' memory: bytes are copied when one is asked for.
                cells = [cell for batch in batches for cell in batch.column(0).field("bytes")]
        except pa.ArrowException as problem:
            raise UnusableClipError("not_audio", f"{file} is no parquet with audio: {problem}") from problem
        return cls(file, ends[group] - counts[group], cells)

    def holds(self, file: Path, row: int) -> bool:
        """Whether a row is in it."""
        return file == self._file and self._first <= row < self._first + len(self._cells)

    def cell(self, row: int) -> bytes:
        """The audio of a row."""
        content = self._cells[row - self._first].as_py()
        if not isinstance(content, bytes):
            raise UnusableClipError("missing_clip", f"row {row} of {self._file} holds no bytes")
        return content


def _named(row: Mapping[str, Any], found: str, reason: str) -> AudioError:
    return AudioError(
        f"Clip {row.get('clip')} cannot be read: {found}",
        reason=reason,
        cause="the set changed since it was listed",
        fix="read the set again",
    )
