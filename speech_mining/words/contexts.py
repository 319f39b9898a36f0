"""Vectors of words from the company they keep, the same for spoken types and written words.

What belongs here is numbers of words in utterances -> vectors. Positive pointwise mutual information, factorised:
Levy & Goldberg, "Neural word embedding as implicit matrix factorization", 2014; contexts are smoothed as in Levy,
Goldberg & Dagan, "Improving distributional similarity with lessons learned from word embeddings", 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.words.tokens import Rows

Table = npt.NDArray[np.float64]
FEWEST = 20
"""Words that a space has at least: the neighbourhoods of CSLS are of 10."""


@dataclass(frozen=True)
class ContextConfig:
    """How company becomes vectors."""

    dimension: int = 50
    """The paper's 50; never more than half as many as there are words."""
    window: int = 40
    """Words on either side: of a sentence all. Three of them left too little to tell the words of one kind apart."""
    smoothing: float = 0.75
    """Frequencies of contexts are raised to this power."""


def together(labels: Rows, utterances: Rows, count: int, window: int) -> Table:
    """How often words stand in one utterance, at most `window` apart: float64 (count, count), symmetric.

    Args:
        labels: int64 (n,), the word of each token; -1 and what is from `count` on is left out, but keeps its place.
        utterances: int64 (n,), ascending.
        count: words that are counted.
        window: greatest distance, in tokens.
    """
    table = np.zeros((count, count))
    known = (labels >= 0) & (labels < count)
    for distance in range(1, min(window, len(labels) - 1) + 1):
        pairs = (utterances[distance:] == utterances[:-distance]) & known[distance:] & known[:-distance]
        if not (utterances[distance:] == utterances[:-distance]).any():
            break
        np.add.at(table, (labels[distance:][pairs], labels[:-distance][pairs]), 1)
    symmetric: Table = table + table.T
    return symmetric


def surprise(table: Table, smoothing: float) -> Table:
    """Positive pointwise mutual information, float64 (n, n): max(0, log p(w, c) / (p(w) p(c)^s / Σ p^s)).

    Words that stand beside nothing have a row of zeros.

    Args:
        table: float64 (n, n), how often words stand together.
        smoothing: s.
    """
    total = max(table.sum(), 1e-300)
    own = table.sum(axis=1) / total
    smooth = own**smoothing
    expected = own[:, None] * (smooth / max(smooth.sum(), 1e-300))
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(table / total / expected)
    return np.where(table > 0, np.maximum(information, 0.0), 0.0)


def context_vectors(labels: Rows, utterances: Rows, count: int, config: ContextConfig) -> npt.NDArray[np.float32]:
    """Vectors of the first `count` words: float32 (count, dimension), U √S of their table of surprise.

    Args:
        labels: int64 (n,), the word of each token, most frequent first.
        utterances: int64 (n,), ascending: which utterance each is part of.
        count: words that get a vector.
        config: window and dimension.

    Raises:
        EmbeddingError: too few words, or words that keep no company.
    """
    if count < FEWEST:
        raise EmbeddingError(
            f"There are {count} words that stand often enough.",
            expected=f"at least {FEWEST} different words",
            cause="the language has too little speech or text",
            fix="add more of it, or ask for words that stand less often",
        )
    dimension = min(config.dimension, count // 2)
    table = surprise(together(labels, utterances, count, config.window), config.smoothing)
    left, strength, _ = np.linalg.svd(table)
    vectors = left[:, :dimension] * np.sqrt(strength[:dimension])
    lonely = np.flatnonzero(np.linalg.norm(vectors, axis=1) < 1e-9)
    if len(lonely):
        raise EmbeddingError(
            f"{len(lonely)} of {count} words keep no company, the first is number {lonely[0]}.",
            cause="they stand alone in all their utterances",
            fix="ask for words that are more frequent",
        )
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(dimension)])
    turned: npt.NDArray[np.float32] = (vectors * np.where(signs == 0, 1, signs)).astype(np.float32)
    return turned
