"""Tales of the miniature world in which words keep company, as words of a language do.

The world's own tales draw every noun of a kind alike: nothing but chance tells a king from a queen, and no map between
two corpora can (supervised, on other tales of the same world: 0.13 of unseen words right). Here each concept has a
place of its own and a frequency, and what is told next is drawn near what the sentence has told already: the
generative model of Arora, Li, Liang, Ma & Risteski, "A latent variable model approach to PMI-based word embeddings",
2016. Grammar and lexicon are the world's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from demo.world.concepts import concept_names
from demo.world.grammar import Sentence, Story, concepts

DIRECTIONS, DECAY = 12, 0.85
NEARNESS, PULL = 2.0, 1.7
SPREAD = 0.8
"""Of the logarithm of frequencies."""
FEWEST, MOST = 3, 12
"""Concepts of a sentence."""
_AGAIN = -60.0
_SORTS = "nvadtN#p"

Chosen = TypeVar("Chosen")


@cache
def _world() -> Mapping[str, tuple[npt.NDArray[np.float64], float]]:
    """Each concept's place, float64 (12,), and the logarithm of its frequency: always the same."""
    chance = np.random.default_rng(0)
    names = sorted(name for name in concept_names() if name[0] in _SORTS)
    decay = DECAY ** np.arange(DIRECTIONS)
    places = chance.standard_normal((len(names), DIRECTIONS)) * decay
    places *= math.sqrt(NEARNESS) / np.sqrt((decay**2).sum())
    frequencies = SPREAD * chance.standard_normal(len(names))
    return {name: (place, float(known)) for name, place, known in zip(names, places, frequencies, strict=True)}


class Company(random.Random):
    """Chance that draws a concept near those already drawn in this sentence; all else as `random.Random` does."""

    def begin(self) -> None:
        """Another sentence."""
        self._told = np.zeros(DIRECTIONS)
        self._drawn: set[str] = set()

    def choice(self, seq: Sequence[Chosen]) -> Chosen:  # type: ignore[override]
        """One of concepts, verbs or anything else; only the first two keep company."""
        names: list[Any] = [getattr(one, "concept", one) for one in seq]
        if not hasattr(self, "_told") or len(seq) < 2 or names[0] not in _world():
            return super().choice(seq)
        chosen = self.choices(range(len(seq)), self._weights(names))[0]
        self._told = self._told + _world()[names[chosen]][0]
        self._drawn.add(names[chosen])
        return seq[chosen]

    def _weights(self, names: Sequence[Any]) -> list[float]:
        pull = PULL / math.sqrt(max(1, len(self._drawn)))
        scores = [
            _AGAIN * (name in self._drawn) + _world()[name][1] + float(_world()[name][0] @ self._told) * pull
            for name in names
        ]
        return [math.exp(score - max(scores)) for score in scores]


class Tale(Story):
    """A story whose words keep company; it has no cast of its own.

    Args:
        seed: equal seeds tell the same sentences.
    """

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self._own = self._all
        self._company = self._random = Company(seed)

    def sentence(self) -> Sentence:
        """The next sentence."""
        self._company.begin()
        return super().sentence()


def tell(seed: str, count: int) -> list[Sentence]:
    """Sentences of 3 to 12 concepts."""
    tale, told = Tale(seed), list[Sentence]()
    while len(told) < count:
        sentence = tale.sentence()
        if FEWEST <= len(concepts(sentence)) <= MOST:
            told.append(sentence)
    return told
