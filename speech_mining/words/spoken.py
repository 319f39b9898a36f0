"""Spoken words: from the tokens of a language to a vector for each word that was heard often.

Chung et al. 2018 take the mean of Speech2Vec's vectors over a word's tokens. That is `vectors="speech2vec"`. With
`vectors="contexts"` the types that sound alike take the place of written words, and their vectors are made of the
company they keep, as those of the text are. Both need no written word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.progress import Progress, silent
from speech_mining.words.contexts import ContextConfig, context_vectors
from speech_mining.words.spaces import WordSpace
from speech_mining.words.speech2vec import SpeechConfig, speech2vec, type_means
from speech_mining.words.tokens import Rows, Tokens
from speech_mining.words.types import TypeConfig, alike, by_frequency

Vectors = Literal["contexts", "speech2vec"]


@dataclass(frozen=True)
class SpokenConfig:
    """How spoken words get vectors."""

    most: int = 300
    """Words that get a vector, at most."""
    least: int = 10
    """Tokens a word needs."""
    vectors: Vectors = "contexts"
    types: TypeConfig = field(default_factory=TypeConfig)
    contexts: ContextConfig = field(default_factory=ContextConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)


@dataclass(frozen=True, eq=False)
class Spoken:
    """The words of a language's speech."""

    space: WordSpace
    types: Rows
    """int64 (n,): the type of each token; those from `len(space.words)` on have no vector."""
    losses: list[float]
    """Of Speech2Vec, by epoch; none where it was not asked for."""


def spoken_space(
    tokens: Tokens, config: SpokenConfig, known: Rows | None = None, progress: Progress = silent
) -> Spoken:
    """Vectors of the most frequent spoken words.

    Args:
        tokens: of one language.
        config: which vectors, how many.
        known: int64 (n,), the identity of each token where it is known (the paper's setting); else tokens that sound
            alike are one word.
        progress: told epochs.

    Raises:
        EmbeddingError: fewer words than a space needs.
    """
    trained = speech2vec(tokens, config.speech, progress) if config.vectors == "speech2vec" else None
    types = alike(tokens.shapes, config.types) if known is None else by_frequency(known)
    counts = np.bincount(types)
    most = int((counts >= config.least).sum())
    if not most:
        raise EmbeddingError(
            f"No word was heard {config.least} times among {len(tokens)} tokens.",
            cause="there is too little speech",
            fix="add audiobooks, or ask for fewer types",
        )
    count = min(config.most, most)
    vectors = _vectors(tokens, types, count, config) if trained is None else type_means(trained.vectors, types, count)
    space = WordSpace([f"t{number:04}" for number in range(count)], counts[:count].astype(np.int64), vectors)
    return Spoken(space, types, trained.losses if trained else [])


def _vectors(tokens: Tokens, types: Rows, count: int, config: SpokenConfig) -> npt.NDArray[np.float32]:
    return context_vectors(types, tokens.utterances, count, config.contexts)
