"""Bringing spoken and written words together: `align`, with one more first guess, from how often words are met.

Vectors alone are all that `speech_mining.align` looks at. Of words their frequencies are known too, and a word is about
as frequent when it is said as when it is written. Similarity profiles and frequencies together pair 6 to 10 % of 300
words rightly where profiles alone pair 2 to 3 % and frequencies alone 5 %: of restarts from there nearly all find the
map, from profiles alone one in six (miniature world, docs/words.md).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from speech_mining.align.alignment import Alignment, Wish, align
from speech_mining.align.attempts import Attempt
from speech_mining.align.csls import match
from speech_mining.align.distribution import profile
from speech_mining.align.refinement import Guess, Pairing, Refinement, Sides, refined, self_taught
from speech_mining.align.spaces import Form, Side, SpaceMap, unit
from speech_mining.progress import Progress, silent
from speech_mining.words.spaces import WordSpace

FREQUENCY = "frequency"
WEIGHTS = (0.5, 1.0, 0.3, 2.0)
"""Of the squared difference of logarithms of frequencies, against cosines of profiles: one restart after the other,
since which of them leads to the map differs from pair to pair of spaces."""
_STREAM = 17
Method = Literal["frequency", "auto", "distribution", "gw", "adversarial"]


@dataclass(frozen=True)
class WordWish:
    """How words are aligned."""

    method: Method = "frequency"
    """`auto` makes the attempts of all methods."""
    restarts: int = 16
    """Of `frequency` the first half begins at the first guess, the others at the matches of the best map so far: some
    end half right (seed 2 of the benchmark: R@1 0.48 of 0.78), and dropout leads on from there."""
    seed: int = 0
    time_limit_s: float | None = None
    """After it no attempt begins; one of each method's first is always begun."""

    def others(self) -> Wish:
        """The same wish for the methods that look at vectors alone."""
        method = "distribution" if self.method == FREQUENCY else self.method
        return Wish(method=method, seed=self.seed, restarts=self.restarts, time_limit_s=self.time_limit_s)


def align_words(spoken: WordSpace, written: WordSpace, wish: WordWish, progress: Progress = silent) -> Alignment:
    """Find a map between the words of two spaces without any known pair.

    Args:
        spoken: most frequent first.
        written: likewise.
        wish: method, restarts and limits.
        progress: told attempts that are finished, of each kind.

    Raises:
        EmbeddingError: rows without a direction, or too few.
        AlignmentError: no attempt came to an end in time.
    """
    found = [_by_frequency(spoken, written, wish, progress)] if wish.method in (FREQUENCY, "auto") else []
    if wish.method != FREQUENCY:
        found.append(align(spoken.vectors, written.vectors, wish.others(), progress=progress))
    best = max(found, key=lambda one: one.best.criterion)
    return replace(best, attempts=tuple(attempt for one in found for attempt in one.attempts))


def first_pairing(
    sides: Sides, counts: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], weight: float = WEIGHTS[0]
) -> Pairing:
    """Each word of either side with the one of the other whose profile and frequency are most alike.

    Args:
        sides: rows that are made alike.
        counts: how often each word was met; shares of the words there are count.
        weight: of frequencies.
    """
    most = min(map(len, sides))
    alike = profile(sides[0][:most]) @ profile(sides[1][:most]).T
    own, other = (np.log(count[:most] / count[:most].sum()) for count in counts)
    score = alike - weight * (own[:, None] - other[None]) ** 2
    return Pairing.both_ways(score.argmax(1), score.argmax(0))


def _by_frequency(spoken: WordSpace, written: WordSpace, wish: WordWish, progress: Progress) -> Alignment:
    until = None if wish.time_limit_s is None else time.monotonic() + wish.time_limit_s
    forms = Form.learned(spoken.vectors, name="Spoken words"), Form.learned(written.vectors, name="Written words")
    sides = forms[0].apply(spoken.vectors), forms[1].apply(written.vectors)
    made: list[tuple[Attempt, Guess]] = []
    with threadpool_limits(1):
        counts = spoken.counts, written.counts
        firsts = [first_pairing(sides, counts, weight) for weight in WEIGHTS]
        for number in range(wish.restarts):
            if made and until is not None and time.monotonic() >= until:
                break
            fresh = number < -(-wish.restarts // 2)
            begin = firsts[number % len(firsts)] if fresh else _matches(sides, max(made, key=_criterion)[1])
            made.append(_attempt(sides, begin, wish.seed + number))
            progress(number + 1, wish.restarts)
    best, guess = max(made, key=_criterion)
    found = SpaceMap(Side(forms[0], guess.source), Side(forms[1], guess.target), best.facts())
    return Alignment(found, best, tuple(attempt for attempt, _ in made))


def _criterion(made: tuple[Attempt, Guess]) -> float:
    return made[0].criterion


def _matches(sides: Sides, guess: Guess) -> Pairing:
    """What a map makes nearest, in both directions."""
    found = match(unit(sides[0] @ guess.source), unit(sides[1] @ guess.target), threads=1)
    return Pairing.both_ways(found.forward, found.backward)


def _attempt(sides: Sides, first: Pairing, seed: int) -> tuple[Attempt, Guess]:
    began, how = time.perf_counter(), Refinement()
    guess = refined(sides, self_taught(sides, first, how, np.random.default_rng([seed, _STREAM])), how)
    return Attempt(FREQUENCY, seed, guess.criterion, time.perf_counter() - began), guess
