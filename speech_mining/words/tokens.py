"""Tokens: pieces of speech in the order they are said, each with what it sounds like.

What belongs here is the form; which tokens are the same word is `types`, what company they keep `contexts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.words.boundaries import Span
from speech_mining.words.cepstra import LEAST_FRAMES, SHAPE, Frames, shape

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Utterance:
    """What is said in one breath or sentence: words in it keep each other company."""

    frames: Frames
    """float32 (n, 13), as `cepstra` gives them."""
    spans: Sequence[Span]


@dataclass(frozen=True, eq=False)
class Tokens:
    """All tokens of a language, one utterance after the other."""

    shapes: Frames
    """float32 (n, 193), see `cepstra.shape`."""
    utterances: Rows
    """int64 (n,), ascending: which utterance each token is part of."""
    places: Rows
    """int64 (n,): its span's place in the utterance, from 0; pieces too short for a word are left out."""

    def __post_init__(self) -> None:
        """Refuse columns that do not belong together."""
        if not len(self.shapes) == len(self.utterances) == len(self.places):
            raise EmbeddingError(
                f"{len(self.shapes)} shapes, {len(self.utterances)} utterances and {len(self.places)} places.",
                expected="one of each for every token",
            )

    def __len__(self) -> int:
        """How many."""
        return len(self.shapes)


def tokens_of(utterances: Iterable[Utterance]) -> Tokens:
    """The tokens of utterances; pieces shorter than 30 ms are none."""
    shapes, numbers, places = [], [], []
    for number, utterance in enumerate(utterances):
        for place, (first, last) in enumerate(utterance.spans):
            if last - first < LEAST_FRAMES:
                continue
            shapes.append(shape(utterance.frames, first, last))
            numbers.append(number)
            places.append(place)
    stacked = np.stack(shapes) if shapes else np.empty((0, SHAPE), np.float32)
    return Tokens(stacked, np.array(numbers, np.int64), np.array(places, np.int64))
