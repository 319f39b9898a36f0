"""Bringing spoken and written words together: `align`, with one more first guess, and one map of all that arrived.

Many first pairings are drawn (`first_pairings`), those that keep similarities best are refined, and the maps that came
to about the highest criterion are taken together: each of them has learned some of its own mistakes by heart, and the
highest criterion is often of the one that learned most (seed 8 of the benchmark, into French: R@1 0.70 by the best map,
0.77 by eight together, before directions were re-weighted; docs/words.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from speech_mining.align.alignment import Alignment, AlignmentError, Wish, align
from speech_mining.align.attempts import Attempt
from speech_mining.align.procrustes import REWEIGHTED
from speech_mining.align.refinement import (
    Clock,
    Guess,
    Pairing,
    Refinement,
    Sides,
    agreed,
    brought_near,
    refined,
    self_taught,
)
from speech_mining.align.spaces import Form, Side, SpaceMap
from speech_mining.progress import Progress, silent
from speech_mining.words.first_pairings import Drawn, Draws
from speech_mining.words.spaces import WordSpace

FREQUENCY = "frequency"
DRAWS = 4
"""First pairings for each that is refined: to draw one takes a tenth of the time that it takes to refine one."""
MOST = 1000
"""Words that first pairings are of."""
TOGETHER = 8
"""Maps that are taken together, if there are so many restarts. Where fewer arrived, more are made from the matches of
the best (seed 6, into French: one of 16 arrived, R@1 0.72 of the 0.80 with a dictionary; with eight more 0.79)."""
ARRIVED = 0.01
"""Maps whose criterion is so near the highest found the same; wrong ones lie 0.03 and more below."""
_STREAM, _DRAWING = 17, 18
Method = Literal["frequency", "auto", "distribution", "gw", "adversarial"]


@dataclass(frozen=True)
class WordWish:
    """How words are aligned."""

    method: Method = "frequency"
    """`auto` makes the attempts of all methods."""
    restarts: int = 16
    """First pairings that are refined."""
    seed: int = 0
    time_limit_s: float | None = None
    """After it no attempt begins, after half of it no pairing is drawn; one by frequency is always made."""

    def others(self, time_limit_s: float | None) -> Wish:
        """The same wish for the methods that look at vectors alone, in some time."""
        return Wish(method=self.method, seed=self.seed, restarts=self.restarts, time_limit_s=time_limit_s)

    def clock(self, share: float) -> Clock:
        """Whether a share of the time from now on is over."""
        if self.time_limit_s is None:
            return lambda: False
        until = time.monotonic() + share * self.time_limit_s
        return lambda: time.monotonic() >= until


def align_words(spoken: WordSpace, written: WordSpace, wish: WordWish, progress: Progress = silent) -> Alignment:
    """Find a map between the words of two spaces without any known pair.

    Args:
        spoken: most frequent first.
        written: likewise.
        wish: method, restarts and limits.
        progress: told pairings that are drawn and attempts that are finished, of those that are planned.

    Returns:
        By frequency the map is one of all that arrived; `best`, and what the map tells of its seed and its criterion,
        are of the one among them with the highest criterion.

    Raises:
        EmbeddingError: rows without a direction, or too few.
        AlignmentError: no attempt came to an end in time.
        SettingsError: a time limit of nothing, where the method looks at vectors alone.
    """
    if wish.method == "auto":
        return _by_all(spoken, written, wish, progress)
    if wish.method == FREQUENCY:
        return _by_frequency(spoken, written, wish, progress)
    return align(spoken.vectors, written.vectors, wish.others(wish.time_limit_s), progress=progress)


def _by_all(spoken: WordSpace, written: WordSpace, wish: WordWish, progress: Progress) -> Alignment:
    """By frequency, and in the time that is left by the other methods: the one of the higher criterion."""
    began = time.monotonic()
    first = _by_frequency(spoken, written, wish, progress)
    left = None if wish.time_limit_s is None else wish.time_limit_s - (time.monotonic() - began)
    if left is not None and left <= 0:
        return first
    try:
        other = align(spoken.vectors, written.vectors, wish.others(left), progress=progress)
    except AlignmentError:  # none came to an end in time; the first did
        return first
    best = max(first, other, key=lambda one: one.best.criterion)
    return replace(best, attempts=(*first.attempts, *other.attempts))


def _by_frequency(spoken: WordSpace, written: WordSpace, wish: WordWish, progress: Progress) -> Alignment:
    forms = Form.learned(spoken.vectors, name="Spoken words"), Form.learned(written.vectors, name="Written words")
    sides = forms[0].apply(spoken.vectors, "Spoken words"), forms[1].apply(written.vectors, "Written words")
    half, whole = wish.clock(0.5), wish.clock(1)
    with threadpool_limits(1):
        draws = Draws(spoken, written, sides, MOST)
        firsts = _firsts(draws, wish, half, progress)
        made = _joined(sides, _made(sides, firsts, wish, whole, progress), wish, whole)
        arrived = _arrived(made)
        together = agreed(sides, [guess for _, guess in arrived], Refinement(around=REWEIGHTED))
    best = arrived[0][0]
    facts = best.facts() | {"agreed": str(len(arrived))}
    found = SpaceMap(Side(forms[0], together.source), Side(forms[1], together.target), facts)
    return Alignment(found, best, tuple(attempt for attempt, _ in made))


def _firsts(draws: Draws, wish: WordWish, out_of_time: Clock, progress: Progress) -> list[Pairing]:
    """Those that keep similarities best, the best first."""
    drawn: list[Drawn] = []
    count = DRAWS * wish.restarts
    for number in range(count):
        if drawn and out_of_time():
            break
        drawn.append(draws.draw(np.random.default_rng([wish.seed + number, _DRAWING]), out_of_time))
        progress(number + 1, count + wish.restarts)
    return [one.pairing for one in sorted(drawn, key=lambda one: one.distortion)[: wish.restarts]]


def _made(
    sides: Sides, firsts: Sequence[Pairing], wish: WordWish, out_of_time: Clock, progress: Progress
) -> list[tuple[Attempt, Guess]]:
    made: list[tuple[Attempt, Guess]] = []
    for number, first in enumerate(firsts):
        if made and out_of_time():
            break
        made.append(_attempt(sides, first, wish.seed + number))
        progress(DRAWS * wish.restarts + number + 1, (DRAWS + 1) * wish.restarts)
    return made


def _joined(
    sides: Sides, made: list[tuple[Attempt, Guess]], wish: WordWish, out_of_time: Clock
) -> list[tuple[Attempt, Guess]]:
    """The same, and as many more from where the best came to as lack among those that arrived."""
    lacking = min(TOGETHER, wish.restarts) - len(_arrived(made))
    for number in range(len(made), len(made) + lacking):
        if out_of_time():
            break
        found = brought_near(sides, _arrived(made)[0][1], Refinement())
        again = Pairing.both_ways(found.forward, found.backward)
        made = [*made, _attempt(sides, again, wish.seed + number)]
    return made


def _arrived(made: Sequence[tuple[Attempt, Guess]]) -> list[tuple[Attempt, Guess]]:
    """Those of about the highest criterion, the highest first."""
    ordered = sorted(made, key=lambda one: -one[0].criterion)
    return [one for one in ordered if one[0].criterion >= ordered[0][0].criterion - ARRIVED]


def _attempt(sides: Sides, first: Pairing, seed: int) -> tuple[Attempt, Guess]:
    began, how = time.perf_counter(), Refinement()
    guess = refined(sides, self_taught(sides, first, how, np.random.default_rng([seed, _STREAM])), how)
    return Attempt(FREQUENCY, seed, guess.criterion, time.perf_counter() - began), guess
