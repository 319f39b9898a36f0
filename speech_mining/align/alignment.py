"""The door: two spaces in, a map out, by whichever first guess the criterion likes best.

What belongs here is the choice. How attempts are made is in `attempts`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speech_mining.align.adversarial import BEGINNINGS
from speech_mining.align.attempts import (
    METHODS,
    UNSUPERVISED,
    AlignmentError,
    Attempt,
    Made,
    Wish,
    Work,
    attempted,
)
from speech_mining.align.refinement import Guess, Pairing, Sides, fitted
from speech_mining.align.spaces import Form, Side, SpaceMap
from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn.vectors import taken
from speech_mining.progress import Progress, silent

LEAST_ROWS = 20
"""Of a side: twice the neighbourhood of CSLS."""

__all__ = ["METHODS", "Alignment", "AlignmentError", "Attempt", "Pairing", "Wish", "align"]


@dataclass(frozen=True, eq=False)
class Alignment:
    """The best map found, and all that was tried, in the order planned."""

    map: SpaceMap
    best: Attempt
    attempts: Sequence[Attempt]


def align(
    source: Any, target: Any, wish: Wish, dictionary: Pairing | None = None, progress: Progress = silent
) -> Alignment:
    """Bring two spaces together.

    Only the most frequent rows, which come first, are matched (`Refinement.frequent`); the means are of all rows.

    Args:
        source: floating point (n, d), rows of any length: an array, a memory map or a `Stack`.
        target: (m, e) likewise; the adversarial game wants d = e.
        wish: method, seed and limits.
        dictionary: known pairs of rows; `supervised` wants them, and nothing else takes them.
        progress: told attempts that are finished.

    Raises:
        EmbeddingError: not two matrices, rows without a direction, fewer than a map needs, or pairs of other rows.
        SettingsError: a method that there is not, or that lacks what it needs.
        AlignmentError: no attempt came to an end within the time.
    """
    _check_wish(wish, dictionary)
    forms = _Forms(source, target, wish)
    if dictionary is not None:
        return _supervised(forms, wish, dictionary)
    planned = _planned(wish, source.shape[1] == target.shape[1])
    until = None if wish.time_limit_s is None else time.monotonic() + wish.time_limit_s
    made = attempted(Work(forms.frequent(), wish, until), planned, progress)
    return _chosen(forms, made, wish)


class _Forms:
    """Both sides, and how their rows are made alike."""

    def __init__(self, source: Any, target: Any, wish: Wish) -> None:
        """Take the means.

        Raises:
            EmbeddingError: as `align`.
        """
        self.rows, self.count = (source, target), wish.refinement.frequent
        for name, side in (("source", source), ("target", target)):
            _check_size(side, name)
        self.source = Form.learned(source, wish.steps, "The source matrix")
        self.target = Form.learned(target, wish.steps, "The target matrix")

    def frequent(self) -> Sides:
        """The first rows of both sides, made alike."""
        source, target = (side[: self.count] for side in self.rows)
        return self.source.apply(source, "The source matrix"), self.target.apply(target, "The target matrix")

    def partners(self, dictionary: Pairing) -> Sides:
        """The rows that a dictionary names, made alike.

        Raises:
            EmbeddingError: it names rows that are not there.
        """
        source, target = self.rows
        _check_dictionary(dictionary, (len(source), len(target)))
        return self.source.apply(taken(source, dictionary.source)), self.target.apply(taken(target, dictionary.target))

    def together(self, guess: Guess, facts: dict[str, str]) -> SpaceMap:
        """The map that a guess makes of them."""
        return SpaceMap(Side(self.source, guess.source), Side(self.target, guess.target), facts)


def _chosen(forms: _Forms, made: Sequence[Made], wish: Wish) -> Alignment:
    """The attempt with the highest criterion; of equals the first planned."""
    found = [(attempt, guess) for attempt, guess in made if guess is not None]
    if not found:
        raise AlignmentError(
            f"None of {len(made)} attempts came to a first guess within {wish.time_limit_s:g} s.",
            cause="the time limit is too short for this many rows",
            fix="give it more time, or take the method distribution, the quickest",
        )
    best, guess = max(found, key=lambda one: one[0].criterion)
    return Alignment(forms.together(guess, best.facts()), best, tuple(attempt for attempt, _ in made))


def _supervised(forms: _Forms, wish: Wish, dictionary: Pairing) -> Alignment:
    """Procrustes on a dictionary, without refinement: what an unsupervised map is measured against."""
    from threadpoolctl import threadpool_limits

    began = time.perf_counter()
    with threadpool_limits(1):
        guess, _ = fitted(forms.frequent(), forms.partners(dictionary), wish.refinement, wish.refinement.around)
    attempt = Attempt("supervised", wish.seed, guess.criterion, time.perf_counter() - began)
    return _chosen(forms, [(attempt, guess)], wish)


def _planned(wish: Wish, one_dimension: bool) -> list[tuple[str, int]]:
    """Method and seed of each attempt: every method once before any is tried again."""
    possible = [method for method in UNSUPERVISED if one_dimension or method != "adversarial"]
    methods = possible if wish.method == "auto" else [wish.method]
    if not set(methods) <= set(possible):
        raise SettingsError(
            "The adversarial game maps between spaces of one dimension, and these have two.",
            fix="take the method distribution or gw, or auto, which leaves the game out",
        )
    return [(method, wish.seed + restart) for restart in range(wish.restarts) for method in methods]


def _check_wish(wish: Wish, dictionary: Pairing | None) -> None:
    if wish.method not in METHODS:
        raise SettingsError(f"There is no method {wish.method!r}.", expected=f"one of {', '.join(METHODS)}")
    if (wish.method == "supervised") != (dictionary is not None):
        raise SettingsError(
            f"The method is {wish.method}, and {'a' if dictionary is not None else 'no'} dictionary is given.",
            expected="a dictionary with the method supervised, and with no other",
        )
    least = {"restarts": wish.restarts, "workers": wish.workers, "refinement.k": wish.refinement.k}
    for name, value in least.items():
        if value < 1:
            raise SettingsError(f"{name} is {value}.", expected="at least 1")
    if wish.game.begin not in BEGINNINGS:
        raise SettingsError(f"The game begins with {wish.game.begin!r}.", expected=f"one of {', '.join(BEGINNINGS)}")
    if wish.refinement.frequent < LEAST_ROWS:
        raise SettingsError(
            f"{wish.refinement.frequent} frequent rows are asked for.", expected=f"{LEAST_ROWS} or more"
        )
    if wish.seed < 0 or wish.refinement.rounds < 0:
        raise SettingsError(f"The seed is {wish.seed}, rounds are {wish.refinement.rounds}.", expected="none below 0")
    if wish.time_limit_s is not None and not wish.time_limit_s > 0:
        raise SettingsError(f"The time limit is {wish.time_limit_s} s.", expected="more than 0, or none")
    _check_device(wish.device)


def _check_device(device: str) -> None:
    """A GPU that is not there is told before an hour of work."""
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"There is no device {device!r} ({str(error).splitlines()[0]}).", fix="play on the device cpu"
        ) from error


def _check_size(rows: Any, name: str) -> None:
    shape = " x ".join(map(str, rows.shape))
    if rows.ndim != 2 or len(rows) < LEAST_ROWS:
        raise EmbeddingError(
            f"The {name} matrix has shape {shape}.",
            expected=f"two dimensions (rows, dimension), at least {LEAST_ROWS} rows",
            cause="this is not a matrix with one embedding a row, or too few were embedded",
        )


def _check_dictionary(dictionary: Pairing, counts: tuple[int, int]) -> None:
    if not len(dictionary):
        raise EmbeddingError("The dictionary has no pairs.", expected="at least one, better as many as dimensions")
    for name, rows, count in zip(("source", "target"), (dictionary.source, dictionary.target), counts, strict=True):
        outside = rows[(rows < 0) | (rows >= count)]
        if len(outside):
            raise EmbeddingError(
                f"The dictionary names {name} row {outside[0]}, and there are {count}.",
                expected=f"rows from 0 to {count - 1}",
                cause="rows are counted from 1, the sides are exchanged, or it is of another matrix",
            )
