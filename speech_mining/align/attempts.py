"""Attempts at one alignment: which are made, each on one thread, side by side in processes, within a time.

What belongs here is running them. What each does is in its method's module; which is the best is in `alignment`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import numpy as np
from loky import ProcessPoolExecutor

from speech_mining.align.adversarial import Game, Setting, by_game
from speech_mining.align.csls import match
from speech_mining.align.distribution import by_distribution
from speech_mining.align.gromov import Transport, by_transport
from speech_mining.align.refinement import (
    Guess,
    Pairing,
    Refinement,
    Sides,
    criterion,
    refined,
    self_taught,
)
from speech_mining.align.spaces import USUAL, Matrix, unit
from speech_mining.errors import SpeechMiningError
from speech_mining.progress import Progress

UNSUPERVISED = ("distribution", "gw", "adversarial")
"""In the order in which `auto` tries them: the quick ones first."""
METHODS = ("auto", *UNSUPERVISED, "supervised")


class AlignmentError(SpeechMiningError):
    """No attempt came to an end."""


@dataclass(frozen=True)
class Wish:
    """How to align."""

    method: str = "auto"
    seed: int = 0
    restarts: int = 3
    """Attempts of each method, from other seeds."""
    time_limit_s: float | None = None
    """After it no attempt begins, and those under way end at their next step with the best they have."""
    workers: int = 1
    """Attempts at once, each in a process of its own; 1 makes them one by one in this one."""
    device: str = "cpu"
    """Of the adversarial game."""
    steps: tuple[str, ...] = USUAL
    """How rows are made alike: some of `spaces.STEPS`."""
    refinement: Refinement = field(default_factory=Refinement)
    game: Game = field(default_factory=Game)
    transport: Transport = field(default_factory=Transport)


@dataclass(frozen=True)
class Attempt:
    """One first guess, refined."""

    method: str
    seed: int
    """The wish's seed plus the number of the restart."""
    criterion: float
    """Mean CSLS cosine; -1 where nothing was found."""
    seconds: float
    told: str = ""
    """Why it ended early, in words."""

    def facts(self) -> dict[str, str]:
        """What a map that came of it says of itself."""
        return {"method": self.method, "seed": str(self.seed), "criterion": f"{self.criterion:.6f}"}


Made = tuple[Attempt, Guess | None]


@dataclass(frozen=True, eq=False)
class Work:
    """What every attempt begins with."""

    sides: Sides
    wish: Wish
    until: float | None
    """In seconds of `time.monotonic`, which the processes of a machine share, and which no set clock moves."""

    def out_of_time(self) -> bool:
        """Whether to come to an end."""
        return self.until is not None and time.monotonic() >= self.until


def attempted(work: Work, planned: Sequence[tuple[str, int]], progress: Progress) -> list[Made]:
    """Make the attempts; the same ones give the same maps, however many run at once.

    Args:
        work: what they begin with.
        planned: method and seed of each.
        progress: told attempts that are finished.

    Returns:
        In the order planned.

    Raises:
        AlignmentError: a process was killed.
    """
    made: dict[int, Made] = {}
    progress(0, len(planned))
    for number, one in _in_turn(work, planned) if work.wish.workers == 1 else _side_by_side(work, planned):
        made[number] = one
        progress(len(made), len(planned))
    return [made[number] for number in range(len(planned))]


def attempt(work: Work, method: str, seed: int) -> Made:
    """Make one attempt, on one thread: the last digits of sums depend on their number."""
    from threadpoolctl import threadpool_limits

    if work.out_of_time():
        return Attempt(method, seed, -1.0, 0.0, "not begun: out of time"), None
    began = time.perf_counter()
    with threadpool_limits(1):
        guess = _guessed(work, method, seed)
    seconds = time.perf_counter() - began
    if guess is None:
        return Attempt(method, seed, -1.0, seconds, "out of time before a first guess"), None
    return Attempt(method, seed, guess.criterion, seconds, "out of time" if work.out_of_time() else ""), guess


def _guessed(work: Work, method: str, seed: int) -> Guess | None:
    how = work.wish.refinement
    random = np.random.default_rng([seed, UNSUPERVISED.index(method)])
    first = _first(work, method, seed, random)
    if first is None:
        return None
    return refined(work.sides, self_taught(work.sides, first, how, random, work.out_of_time), how, work.out_of_time)


def _first(work: Work, method: str, seed: int, random: np.random.Generator) -> Pairing | None:
    """The first pairing by a method; None when time was out before."""
    sides, wish = work.sides, work.wish
    if method == "distribution":
        return by_distribution(sides, k=wish.refinement.k)
    if method == "gw":
        return by_transport(sides, wish.transport, random, work.out_of_time)
    judge = _Judge(sides, wish.refinement)
    played = by_game(sides, wish.game, seed, Setting(wish.device, judge, work.out_of_time))
    return None if played is None else judge.pairing(played.weights)


@dataclass(frozen=True, eq=False)
class _Judge:
    """The criterion of a map (d, d) of the source."""

    sides: Sides
    how: Refinement

    def __call__(self, weights: Matrix) -> float:
        mapped, target = self._mapped(weights)
        return criterion(mapped, match(mapped, target, k=self.how.k, threads=1), target)

    def pairing(self, weights: Matrix) -> Pairing:
        """Nearest rows in both directions."""
        matched = match(*self._mapped(weights), k=self.how.k, threads=1)
        return Pairing.both_ways(matched.forward, matched.backward)

    def _mapped(self, weights: Matrix) -> Sides:
        source, target = (side[: self.how.frequent] for side in self.sides)
        return unit(source @ weights), unit(target)


def _in_turn(work: Work, planned: Sequence[tuple[str, int]]) -> Iterator[tuple[int, Made]]:
    for number, (method, seed) in enumerate(planned):
        yield number, attempt(work, method, seed)


def _side_by_side(work: Work, planned: Sequence[tuple[str, int]]) -> Iterator[tuple[int, Made]]:
    """Not forked, for torch's threads do not live through it.

    Nor in a pool of the standard library: one that loses a process while it starts the next may wait for ever
    (Python 3.11 marks it broken under no lock). loky's is made for such deaths.
    """
    with ProcessPoolExecutor(min(work.wish.workers, len(planned)), initializer=_keep, initargs=(work,)) as pool:
        try:
            numbers = {pool.submit(_kept_attempt, *plan): number for number, plan in enumerate(planned)}
            for done in as_completed(numbers):
                yield numbers[done], done.result()
        except BrokenProcessPool as error:
            raise AlignmentError(
                "A process that made an attempt was killed.",
                cause="the machine ran out of memory, or someone stopped it",
                fix="take fewer workers",
            ) from error
        finally:
            pool.shutdown(kill_workers=True)


_kept: list[Work] = []
"""In a process of the pool: the work, which is sent once and not with every attempt."""


def _keep(work: Work) -> None:
    _kept[:] = [work]


def _kept_attempt(method: str, seed: int) -> Made:
    return attempt(_kept[0], method, seed)


__all__ = ["METHODS", "AlignmentError", "Attempt", "Made", "Wish", "Work", "attempt", "attempted"]
