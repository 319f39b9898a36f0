"""From a rough pairing to a good map, without known pairs: map, match, and again, as long as it gets better.

Two loops. `self_taught` climbs out of a pairing that is mostly wrong, by leaving out candidates at random (vecmap:
Artetxe, Labaka & Agirre, "A robust self-learning method for fully unsupervised cross-lingual mappings of word
embeddings", 2018, section 3.3). `refined` then fits the map to mutual neighbours (Conneau et al. 2018, section 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from speech_mining.align.csls import K, Matched, Rows, match
from speech_mining.align.procrustes import PLAIN, Around, both_sides
from speech_mining.align.spaces import Matrix, unit

LEAST_GAIN = 1e-6
"""Of the criterion; vecmap's."""
LEAST_PAIRS = 10
"""Fewer mutual neighbours are chance."""
CANDIDATES = 32
"""Of which one is drawn: with a tenth kept, 3 % of rows have none left; vecmap draws from all rows."""

Clock = Callable[[], bool]
Sides = tuple[Matrix, Matrix]
"""Source float32 (n, d) and target (m, e), made alike (`spaces.Form`), the most frequent rows first."""


def unlimited() -> bool:
    """The clock of those who have time."""
    return False


@dataclass(frozen=True, eq=False)
class Pairing:
    """Rows taken for partners: places in the source and in the target, int64 (p,) each."""

    source: Rows
    target: Rows

    @classmethod
    def both_ways(cls, forward: Rows, backward: Rows) -> Pairing:
        """Each row of either side with the one that was found for it, int64 (n,) and (m,); the source's come first."""
        own, other = np.arange(len(forward)), np.arange(len(backward))
        return cls(np.concatenate([own, backward]), np.concatenate([forward, other]))

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True, eq=False)
class Guess:
    """Maps of both sides, and how well they fit without known pairs."""

    source: Matrix
    target: Matrix
    criterion: float


@dataclass(frozen=True)
class Dropout:
    """How candidates are left out at random, so that a first pairing does not hold fast (vecmap's figures)."""

    kept: float = 0.1
    growth: float = 2.0
    """What the share that is kept is multiplied with when nothing has got better for a while."""
    patience: int = 10
    """That while, in rounds; vecmap waits 50, which took four times as long and found the same."""


@dataclass(frozen=True)
class Refinement:
    """How a pairing is refined."""

    rounds: int = 30
    """At most; 0 takes the map of the first pairing as it is."""
    frequent: int = 20_000
    """Rows of each side that are matched: the most frequent ones, which come first."""
    k: int = K
    """Neighbours of CSLS."""
    around: Around = PLAIN
    """Done once, at the end, as vecmap does; the criterion told is that of the map after it."""
    dropout: Dropout = field(default_factory=Dropout)


def criterion(source: Matrix, matched: Matched, target: Matrix) -> float:
    """Mean cosine of each mapped source row with its nearest target row under CSLS.

    Conneau et al. 2018, section 2.4: it goes with the accuracy of the map, and needs no known pairs.
    """
    return float((source * target[matched.forward]).sum(1, dtype=np.float64).mean())


def refined(sides: Sides, first: Pairing, how: Refinement, out_of_time: Clock = unlimited) -> Guess:
    """Fit the map to mutual neighbours under CSLS, again and again, while the criterion rises.

    Args:
        sides: the rows.
        first: the pairs to begin with.
        how: rounds and options.
        out_of_time: asked after every round; the best so far is the answer.
    """
    pairs, (best, matched) = first, fitted(sides, _rows(sides, first), how)
    for _ in range(how.rounds):
        mutual = Pairing(*matched.mutual())
        if out_of_time() or len(mutual) < LEAST_PAIRS:
            break
        guess, matched = fitted(sides, _rows(sides, mutual), how)
        if guess.criterion <= best.criterion + LEAST_GAIN:
            break
        best, pairs = guess, mutual
    return best if how.around == PLAIN else fitted(sides, _rows(sides, pairs), how, how.around)[0]


def fitted(sides: Sides, partners: Sides, how: Refinement, around: Around = PLAIN) -> tuple[Guess, Matched]:
    """The map that brings partners together, and what it makes nearest.

    Args:
        sides: the rows that are matched to judge it.
        partners: (p, d) and (p, e), made alike; they need not be among `sides`.
        how: the neighbourhood, and how many rows are matched.
        around: what is done around the orthogonal map.
    """
    maps = both_sides(*partners, around)
    matched, mapped = _matched(sides, maps, how)
    return Guess(*maps, criterion(mapped[0], matched, mapped[1])), matched


def brought_near(sides: Sides, guess: Guess, how: Refinement) -> Matched:
    """What a map makes nearest."""
    return _matched(sides, (guess.source, guess.target), how)[0]


def agreed(sides: Sides, guesses: Sequence[Guess], how: Refinement) -> Guess:
    """One map from several that came to about the same.

    Its pairs are those that are each other's nearest under any of the maps, each as often as it is found: what is right
    is found by most, what is wrong differs from map to map.

    Args:
        sides: the rows.
        guesses: at least one.
        how: the neighbourhood, and what is done around the map.
    """
    found = [brought_near(sides, guess, how).mutual() for guess in guesses]
    pairs = Pairing(*(np.concatenate([of[side] for of in found]) for side in (0, 1)))
    return fitted(sides, _rows(sides, pairs), how, how.around)[0]


def self_taught(
    sides: Sides, first: Pairing, how: Refinement, random: np.random.Generator, out_of_time: Clock = unlimited
) -> Pairing:
    """Climb out of a pairing that is mostly wrong.

    Args:
        sides: the rows.
        first: the pairs to begin with; nearly all may be wrong.
        how: what share of candidates is kept, and how it grows.
        random: chooses the candidates.
        out_of_time: asked after every round.

    Returns:
        The pairing of the last round, in which nothing was left out unless time was.
    """
    pairing, kept, best, stalled = first, how.dropout.kept, -np.inf, 0
    while not out_of_time():
        matched = _matched(sides, both_sides(*_rows(sides, pairing)), how, CANDIDATES)[0]
        gained = _closeness(matched)
        stalled = 0 if gained > best + LEAST_GAIN else stalled + 1
        best = max(best, gained)
        if stalled >= how.dropout.patience:
            if kept >= 1:
                break
            kept, stalled = min(1.0, how.dropout.growth * kept), 0
        pairing = _drawn(matched, kept, random)
    return pairing


def _rows(sides: Sides, pairs: Pairing) -> Sides:
    return sides[0][pairs.source], sides[1][pairs.target]


def _matched(sides: Sides, maps: Sides, how: Refinement, wanted: int = 1) -> tuple[Matched, Sides]:
    mapped = tuple(
        unit(side[: how.frequent] @ weights, name=f"The mapped {name}")
        for side, weights, name in zip(sides, maps, ("source", "target"), strict=True)
    )
    return match(mapped[0], mapped[1], k=how.k, wanted=wanted, threads=1), (mapped[0], mapped[1])


def _closeness(matched: Matched) -> float:
    """Mean CSLS of every row with its nearest, over both directions."""
    lists = matched.neighbours
    return matched.scale / 2 * float(lists.forward_cosines[:, 0].mean() + lists.backward_cosines[:, 0].mean())


def _drawn(matched: Matched, kept: float, random: np.random.Generator) -> Pairing:
    """Each row of either side with the nearest of those candidates that are kept; a row with none is left out."""
    lists = matched.neighbours
    own, found = _nearest_kept(lists.forward_rows, kept, random)
    other, back = _nearest_kept(lists.backward_rows, kept, random)
    return Pairing(np.concatenate([own, back]), np.concatenate([found, other]))


def _nearest_kept(lists: Rows, kept: float, random: np.random.Generator) -> tuple[Rows, Rows]:
    stays = random.random(lists.shape) < kept
    own = np.flatnonzero(stays.any(1))
    return own, lists[own, stays[own].argmax(1)]
