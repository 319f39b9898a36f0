"""What a student is trained or examined on: clips of speech, and the teacher's vectors of what they say.

What belongs here is the record and its checks. Reading speech is the caller's (`Examples.read`), and which clips make
a batch is `speech_mining.training.passes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import EncoderError

COLUMNS = {"clip": pl.String(), "language": pl.String(), "duration_s": pl.Float64()}

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Examples:
    """Clips and what a teacher makes of their words.

    A clip may have two targets, its transcription's and its translation's. It is taught them in turn: the n-th time
    that training hears the clip of row r, it aims at target (n + r) modulo their number, so that in each pass half of
    such clips aim at either. Examinations take the first.

    Args:
        clips: columns `COLUMNS`, a row a clip; others are not looked at.
        targets: float16 (m, d), a teacher's unit vectors.
        target_rows: for each clip, the rows of `targets` that it may aim at, at least one.
        read: a clip's whole waveform by its name: float32 (samples,), 16 kHz mono. Called from several threads. An
            `AudioError` or `OSError` it raises costs the clip, not the training.
    """

    clips: pl.DataFrame
    targets: npt.NDArray[np.float16]
    target_rows: Sequence[tuple[int, ...]]
    read: Callable[[str], Waveform]

    def __post_init__(self) -> None:
        if missing := sorted(set(COLUMNS) - set(self.clips.columns)):
            raise EncoderError(f"The clips lack the columns {', '.join(missing)}.", expected=", ".join(COLUMNS))
        if self.targets.ndim != 2 or not len(self.target_rows) == len(self.clips):
            raise EncoderError(
                f"{len(self.clips)} clips, {len(self.target_rows)} rows of targets, targets of shape "
                f"{self.targets.shape}.",
                expected="a row for each clip, and targets (m, d)",
            )
        self._check_rows()

    def _check_rows(self) -> None:
        rows = np.array([row for mine in self.target_rows for row in mine], np.int64)
        if not all(self.target_rows) or (rows.size and not 0 <= rows.min() <= rows.max() < len(self.targets)):
            raise EncoderError(
                "A clip has no target, or one that is not there.",
                expected=f"rows from 0 to {len(self.targets) - 1}, at least one a clip",
                cause="a sentence that the teacher rejected was kept",
            )
        lengths = np.linalg.norm(self.targets.astype(np.float32), axis=1)
        if lengths.size and not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise EncoderError("A target is zero or not finite.", cause="a sentence that the teacher rejected was kept")

    @property
    def dimension(self) -> int:
        """Length of a target, and of the student's vectors."""
        return int(self.targets.shape[1])

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-3 codes, in order."""
        return tuple(sorted(self.clips["language"].unique().to_list()))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything but the audio: names, languages, durations, and what each clip aims at."""
        digest = hashlib.sha256(repr(self.targets.shape).encode())
        digest.update(np.ascontiguousarray(self.targets, np.float16).tobytes())
        for row, mine in zip(self.clips.select(list(COLUMNS)).iter_rows(), self.target_rows, strict=True):
            digest.update(repr((*row, tuple(int(one) for one in mine))).encode())
        return digest.hexdigest()

    def subset(self, rows: npt.NDArray[np.int64]) -> Examples:
        """Some of the clips, in the order of `rows`."""
        return Examples(self.clips[rows.tolist()], self.targets, [self.target_rows[row] for row in rows], self.read)
