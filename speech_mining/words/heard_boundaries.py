"""Where words begin and end as an encoder hears it: it hears one meaning, then another, and cuts half-way between.

The convolutional student (`encoders.student`) says of each frame which meaning it hears and how much of it; summed over
a word that is about 1. Khurana, Laurent & Glass, "SAMU-XLSR", 2022, figure 5, show the same of theirs: what it hears
changes where words do. What belongs here is what is heard -> spans; pieces of a language that no encoder knows come
from changes of the sound (`boundaries`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.features import HOP
from speech_mining.encoders.student import CHUNK, STRIDE
from speech_mining.encoders.threads import torch_threads
from speech_mining.words.boundaries import BoundaryConfig, Span, within_length

LEAST_HEARD = 0.3
"""Of a meaning, for a piece of its own: 0.1 to 0.5 found the same cuts (F1 0.69 to 0.70 within 20 ms)."""
LONGEST = BoundaryConfig.longest
"""Frames of 10 ms, as where the sound decides; a longer piece, in which nothing new was heard, is cut equally."""

Floats = npt.NDArray[np.float64]


class Hearing(Protocol):
    """An encoder that says what it hears in each frame."""

    name: str
    version: str

    @property
    def meanings(self) -> Sequence[str]:
        """The meanings it knows."""
        ...

    def frames(self, waveform: npt.NDArray[np.float32], language: str, chunk: int) -> Floats:
        """float64 (`CHUNK`, meanings + room); frame j of chunk c is centred on sample 640 (CHUNK c + j)."""
        ...


@dataclass(frozen=True, eq=False)
class Heard:
    """What is heard in a recording, a frame every 40 ms."""

    meanings: npt.NDArray[np.int64]
    """int64 (n,): the one that is heard most; one past the last known one is a word that is not known."""
    strength: Floats
    """float64 (n,): how much of it."""


def heard_in(waveform: npt.NDArray[np.float32], language: str, encoder: Hearing) -> Heard:
    """Listen to a recording, 10 s at a time.

    Args:
        waveform: float32 (samples,), 16 kHz.
        language: ISO 639-3, one that the encoder knows.
        encoder: which hears.
    """
    known, count = len(encoder.meanings), len(waveform) // (HOP * STRIDE) + 1
    meanings, strength = [], []
    with torch_threads(1):  # the last digits of sums depend on their number, and now and then a cut on them
        for chunk in range(-(-count // CHUNK)):
            frames = encoder.frames(waveform, language, chunk)
            frames = np.column_stack([frames[:, :known], np.linalg.norm(frames[:, known:], axis=1)])
            meanings.append(frames.argmax(1))
            strength.append(frames.max(1))
    return Heard(np.concatenate(meanings)[:count], np.concatenate(strength)[:count])


def heard_spans(heard: Heard, run: Span) -> list[Span]:
    """Cut one stretch of speech half-way between the meanings that are heard in it.

    Args:
        heard: of the recording.
        run: the stretch, in frames of 10 ms.

    Returns:
        Spans that cover the stretch, in order, in frames of 10 ms.
    """
    first = max(0, -(-run[0] // STRIDE))
    last = min(max(first, -(-run[1] // STRIDE)), len(heard.meanings))
    said = _said(heard, first, last)
    # Network frame j is centred on frame 4 j, so what lies between j - 1 and j lies at 4 j - 2.
    middles = [STRIDE * (end + begin) // 2 - STRIDE // 2 for (_, end), (begin, _) in itertools.pairwise(said)]
    edges = [run[0], *(cut for cut in middles if run[0] < cut < run[1]), run[1]]
    return [piece for span in itertools.pairwise(edges) for piece in within_length(span, LONGEST)]


def _said(heard: Heard, first: int, last: int) -> list[Span]:
    """Stretches of one meaning that is heard enough of, in network frames; a word said twice at once is one."""
    meanings = heard.meanings[first:last]
    edges = np.flatnonzero(np.diff(meanings, prepend=-1, append=-1))
    spans = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    return [(first + a, first + b) for a, b in spans if heard.strength[first + a : first + b].sum() >= LEAST_HEARD]
