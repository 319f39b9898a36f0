"""Tones that stand for sentences, their teacher's vectors, and small configurations: what a student learns in seconds.

Run as a script it trains one student, so that a test can kill it, or start two of it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import AudioError
from speech_mining.training.configuration import StudentConfig
from speech_mining.training.examples import Examples

SENTENCES, DIMENSION = 8, 16
QUICK = StudentConfig(
    architecture="convolutions",
    size={"width": 16},
    updates=30,
    peak_rate=1e-2,
    projection_only_updates=0,
    max_batch_seconds=6.0,
    validate_every=10,
    checkpoint_every=4,
)

WITH_DROPOUT = replace(QUICK, size={"width": 16, "layers": 1, "heads": 2})


def directions(sentences: int = SENTENCES) -> npt.NDArray[np.float16]:
    """float16 (sentences, 16), unit rows."""
    rows = np.random.default_rng(5).standard_normal((sentences, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@dataclass(frozen=True)
class Tones:
    """Reads clip `i`: a tone of its sentence's pitch, 0.4 to 0.9 s, with noise; a clip in `broken` cannot be read."""

    seed: int
    said: tuple[int, ...]
    broken: frozenset[str] = frozenset()

    def __call__(self, clip: str) -> npt.NDArray[np.float32]:
        if clip in self.broken:
            raise AudioError(f"The clip {clip}.", reason="not_audio")
        chance = np.random.default_rng([self.seed, int(clip)])
        length = int(16_000 * (0.4 + 0.5 * chance.random()))
        pitch = 200 + 300 * self.said[int(clip)]
        noise = 0.01 * chance.standard_normal(length)
        return (0.1 * np.sin(2 * np.pi * pitch * np.arange(length) / 16_000) + noise).astype(np.float32)


def tones(count: int, seed: int, broken: frozenset[str] = frozenset()) -> Examples:
    """Examples of two languages, three German clips to one English."""
    said = tuple(int(one) for one in np.random.default_rng(seed).integers(0, SENTENCES, count))
    read = Tones(seed, said)
    clips = pl.DataFrame(
        {
            "clip": [str(row) for row in range(count)],
            "language": ["deu" if row % 4 else "eng" for row in range(count)],
            "duration_s": [len(read(str(row))) / 16_000 for row in range(count)],
        }
    )
    return Examples(clips, directions(), [(one,) for one in said], Tones(seed, said, broken))


def main(folder: str, config: str) -> None:
    """Train in this process; the main one of several prints what it was told."""
    from speech_mining.training.distillation import train_student

    def progress(done: int, total: int, /) -> None:
        print(done, flush=True)

    told: dict[str, Any] = json.loads(config)
    train_student(tones(24, 1), tones(12, 2), StudentConfig.of_dict(told), Path(folder), progress=progress)


if __name__ == "__main__":
    main(*sys.argv[1:])
