"""First pairings of words: plans that carry one side's similarities, and its frequencies, into the other's.

Of two spaces alone only similarities are known (`speech_mining.align.gromov`). Of words their frequencies are known
too, and a word is about as frequent when it is said as when it is written. Both together pair half to two thirds of
300 words rightly in two draws of three; profiles and frequencies without the plan pair 5 % (docs/words.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.align.gromov import Likeness, Plan, likeliest, profiles_apart
from speech_mining.align.refinement import Pairing, Sides
from speech_mining.words.spaces import WordSpace

STRUCTURE = (0.5, 1.0)
"""Between these the weight of similarities is drawn: of draws from 0.3 to 0.5 a quarter arrived, of higher ones two
thirds."""
FREQUENCY = (0.3, 2.0)
"""Between these, evenly in their logarithm, the weight of the squared difference of logarithms of frequencies."""
PROFILE = 0.2
"""Weight of a standard deviation of how unlike profiles are: with 0 a fifth of the draws arrived, with 1 as few."""
STEPS = 200
"""Of conditional gradient, at most; a draw of 300 words takes 0.15 s."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A first pairing."""

    pairing: Pairing
    distortion: float
    """Of similarities, whose spread is 1. Draws that arrived have 0.55 to 0.8, others 0.67 to 1.1."""


class Draws:
    """First pairings of two spaces, as many as are asked for."""

    def __init__(self, spoken: WordSpace, written: WordSpace, sides: Sides, most: int) -> None:
        """Take what draws have in common.

        Args:
            spoken: most frequent first.
            written: likewise.
            sides: their vectors, made alike.
            most: words of each side that take part: time grows with the cube.
        """
        spaces = spoken, written
        tables = [_similarities(space.vectors[:most]) for space in spaces]
        self._tables = tables[0], tables[1]
        unlike = profiles_apart([side[:most] for side in sides])
        self._profiles = PROFILE * unlike / max(float(unlike.std()), np.finfo(float).tiny)
        own, other = (_frequencies(space.counts[:most]) for space in spaces)
        self._frequencies: Plan = (own[:, None] - other[None]) ** 2

    def draw(self, random: np.random.Generator, out_of_time: Callable[[], bool]) -> Drawn:
        """One first pairing, with weights of its own."""
        structure = float(random.uniform(*STRUCTURE))
        weight = float(np.exp(random.uniform(*np.log(FREQUENCY))))
        likeness = Likeness(self._tables, weight * self._frequencies + self._profiles)
        plan = likeness.plan(structure, STEPS, out_of_time)
        return Drawn(likeliest(plan), likeness.distortion(plan))


def _similarities(vectors: npt.NDArray[np.float32]) -> Plan:
    """Inner products with a spread of 1; the lengths of vectors tell words apart too, so they are left as they are."""
    wide = vectors.astype(np.float64)
    products: Plan = wide @ wide.T
    return products / max(float(products.std()), np.finfo(float).tiny)


def _frequencies(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.log(counts / counts.sum())
    return shares
