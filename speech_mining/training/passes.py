"""The endless row of updates: which clips each one hears, from any place in it on.

Pure arithmetic over `rebalancing`: nothing is read here. An update is `micro_batches` batches, dealt in turn to the
processes of a training, so that two processes of one micro-batch hear what one process of two hears.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from speech_mining.training.rebalancing import Draw, pass_batches, pass_draws


@dataclass(frozen=True)
class Place:
    """Where the row of updates stands: so many batches of so many passes are behind it."""

    number: int = 0
    """Of the pass."""
    batch: int = 0
    """Of the pass's batches, the next one."""


@dataclass(frozen=True)
class Update:
    """What one step of the optimiser hears."""

    number: int
    """From 0."""
    batches: tuple[tuple[Draw, ...], ...]
    """One for each micro-batch."""
    after: Place

    @property
    def examples(self) -> int:
        """Clips in all of its batches."""
        return sum(len(batch) for batch in self.batches)


@dataclass(frozen=True, eq=False)
class Passes:
    """Passes over some clips.

    Args:
        durations_s: float64 (n,), of every clip.
        languages: of every clip.
        alpha: of the re-balancing.
        budget_s: padded audio in a batch.
        seed: of the order.
    """

    durations_s: npt.NDArray[np.float64]
    languages: tuple[str, ...]
    alpha: float
    budget_s: float
    seed: int

    def updates(self, first: int, last: int, micro_batches: int, place: Place) -> Iterator[Update]:
        """Updates `first` to `last` - 1, of which the first begins at `place`."""
        batches = self._batches(place)
        for number in range(first, last):
            taken = list(islice(batches, micro_batches))
            yield Update(number, tuple(tuple(batch) for batch, _ in taken), taken[-1][1])

    def _batches(self, place: Place) -> Iterator[tuple[list[Draw], Place]]:
        number, first = place.number, place.batch
        while True:
            draws = pass_draws(self.languages, self.alpha, self.seed, number)
            batches = pass_batches(self.durations_s, draws, self.budget_s, self.seed, number)
            for batch in range(first, len(batches)):
                yield batches[batch], Place(number, batch + 1)
            number, first = number + 1, 0
