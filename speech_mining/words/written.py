"""Written words: the words of sentences, and their vectors."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from speech_mining.errors import EmbeddingError
from speech_mining.words.contexts import ContextConfig, context_vectors
from speech_mining.words.spaces import WordSpace

_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def words_of(sentence: str) -> list[str]:
    """The words of a sentence in lower case; an apostrophe ends a word, a hyphen does not, digits are none."""
    return _WORD.findall(unicodedata.normalize("NFC", sentence).lower())


def written_space(sentences: Iterable[str], most: int, least: int, config: ContextConfig) -> WordSpace:
    """Vectors of the most frequent words of a text.

    Args:
        sentences: of one language; words in one sentence keep each other company.
        most: words, at most.
        least: a word that stands less often has no vector.
        config: window and dimension.

    Raises:
        EmbeddingError: too few words.
    """
    told = [words_of(sentence) for sentence in sentences]
    counted = Counter(word for words in told for word in words)
    kept = frequent_words(counted, most, least)
    return space_of(told, kept, config)


def frequent_words(counted: Counter[str], most: int, least: int) -> list[tuple[str, int]]:
    """Words and their counts, most frequent first, of equals in alphabetical order."""
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return [(word, count) for word, count in ordered[:most] if count >= least]


def space_of(told: Sequence[Sequence[str]], kept: Sequence[tuple[str, int]], config: ContextConfig) -> WordSpace:
    """Vectors of known words from what is told, an utterance each."""
    if not kept:
        raise EmbeddingError("No word stands often enough.", cause="there is too little of the language")
    row = {word: number for number, (word, _) in enumerate(kept)}
    labels = np.array([row.get(word, -1) for words in told for word in words], np.int64)
    utterances = np.repeat(np.arange(len(told)), [len(words) for words in told])
    vectors = context_vectors(labels, utterances, len(kept), config)
    return WordSpace([word for word, _ in kept], np.array([count for _, count in kept], np.int64), vectors)
