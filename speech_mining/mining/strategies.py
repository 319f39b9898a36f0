"""Which scored candidates become pairs.

`forward` takes for each source row the best of its k neighbours, `backward` likewise for each target row;
`intersection` and `union` combine the two without repeats; `max` goes through the union by descending score and takes
each row of either side once, as LASER's `mine_bitexts.py --retrieval max` does. The best neighbour is the one with the
highest margin, as in LASER, or the nearest, as in stopes. Overlap in time is not looked at here but in `selection`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError
from speech_mining.knn.neighbours import Cosines, Neighbours, Rows
from speech_mining.mining.margin import Candidates, Scores, score_candidates

STRATEGIES = ("forward", "backward", "intersection", "union", "max")
DEFAULT_STRATEGY = "max"
"""A spoken sentence is said once on each side, so one-to-one is what a corpus of speech wants."""
BEST = ("margin", "nearest")
"""Which of a row's k neighbours is its best: the one with the highest margin, as LASER chooses, or the one with the
highest cosine, as stopes chooses unless told otherwise (`sort_neighbors`)."""
DEFAULT_BEST = "margin"
RATIO_THRESHOLD = 1.06
"""Duquenne et al.'s threshold for speech-to-speech; it means nothing to the other margins."""

Order: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Mined:
    """Aligned pairs, sorted by decreasing score, then source row, then target row."""

    score: Scores
    """float64 (pairs,): the margin."""
    cosine: Cosines
    """float32 (pairs,)."""
    source: Rows
    """int64 (pairs,), from 0."""
    target: Rows
    """int64 (pairs,), from 0."""
    counts: Mapping[str, int]
    """`candidates` in both lists, of which `undefined`; `best`, the pairs the strategy chose from them, of which
    `below_threshold`, `taken` (a better pair had the row; only `max`) and `pairs`."""


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs in no particular order."""

    score: Scores
    cosine: Cosines
    source: Rows
    target: Rows

    def at(self, order: Order | npt.NDArray[np.bool_]) -> _Pairs:
        return _Pairs(self.score[order], self.cosine[order], self.source[order], self.target[order])

    def best_first(self) -> _Pairs:
        """By decreasing score, then increasing source, then increasing target."""
        return self.at(np.lexsort((self.target, self.source, -self.score)))


def mine(
    neighbours: Neighbours,
    *,
    margin: str = "ratio",
    strategy: str = DEFAULT_STRATEGY,
    threshold: float | None = None,
    best: str = DEFAULT_BEST,
) -> Mined:
    """Score the neighbours and choose pairs whose margin reaches the threshold.

    How LASER and stopes choose, and where this differs on purpose, is in `docs/peers.md`.

    Args:
        neighbours: lists in both directions.
        margin: "ratio", "distance" or "absolute".
        strategy: "forward", "backward", "intersection", "union" or "max".
        threshold: least score of a pair; None takes `RATIO_THRESHOLD` with the ratio margin.
        best: "margin" or "nearest", the neighbour that stands for a row; a nearest neighbour whose margin is undefined
            leaves its row without a pair.

    Raises:
        SettingsError: an unknown margin, strategy or best neighbour; no threshold given with a margin that has no
            usual one.
    """
    least = checked_threshold(margin, threshold)
    if strategy not in STRATEGIES:
        raise SettingsError(f"There is no strategy {strategy!r}.", expected=f"one of {', '.join(STRATEGIES)}")
    if best not in BEST:
        raise SettingsError(f"There is no best neighbour by {best!r}.", expected=f"one of {', '.join(BEST)}")
    candidates = score_candidates(neighbours, margin)
    chosen = _chosen(candidates, strategy, best).best_first()
    reaching = chosen.at(chosen.score >= least)
    pairs = reaching.at(_first_come(reaching, neighbours)) if strategy == "max" else reaching
    counts = {
        "candidates": candidates.count,
        "undefined": candidates.undefined,
        "best": len(chosen.score),
        "below_threshold": len(chosen.score) - len(reaching.score),
        "taken": len(reaching.score) - len(pairs.score),
        "pairs": len(pairs.score),
    }
    return Mined(pairs.score, pairs.cosine, pairs.source, pairs.target, counts)


def checked_threshold(margin: str, threshold: float | None) -> float:
    """The threshold in force.

    Raises:
        SettingsError: it is not a number, or none was given and the margin has no usual one.
    """
    if threshold is None and margin == "ratio":
        return RATIO_THRESHOLD
    if threshold is None:
        raise SettingsError(
            f"The {margin} margin was asked for without a threshold.",
            expected="a threshold on that margin's own scale (distance: above 0, for example 0.05; absolute: a cosine)",
            cause=f"the usual {RATIO_THRESHOLD} belongs to the ratio margin",
            fix="give one",
        )
    if math.isnan(threshold):
        raise SettingsError("The threshold is not a number.", expected="a score, such as 1.06")
    return threshold


def _chosen(candidates: Candidates, strategy: str, best: str) -> _Pairs:
    if strategy == "forward":
        return _best_forward(candidates, best)
    if strategy == "backward":
        return _best_backward(candidates, best)
    both = _best_forward(candidates, best), _best_backward(candidates, best)
    return _without_repeats(*both, times=2 if strategy == "intersection" else 1)


def _best_forward(candidates: Candidates, best: str) -> _Pairs:
    lists = candidates.neighbours
    own, place, other = _best(candidates.forward_scores, lists.forward_rows, best)
    return _Pairs(candidates.forward_scores[own, place], lists.forward_cosines[own, place], own, other)


def _best_backward(candidates: Candidates, best: str) -> _Pairs:
    lists = candidates.neighbours
    own, place, other = _best(candidates.backward_scores, lists.backward_rows, best)
    return _Pairs(candidates.backward_scores[own, place], lists.backward_cosines[own, place], other, own)


def _best(scores: Scores, rows: Rows, best: str) -> tuple[Rows, Order, Rows]:
    """For each row that has a best neighbour with a score: the row, that neighbour's place, and the neighbour."""
    own, place = _nearest(scores) if best == "nearest" else _highest(scores, rows)
    return own.astype(np.int64), place, rows[own, place]


def _nearest(scores: Scores) -> tuple[Order, Order]:
    """The first place; among equal cosines the lists have the lower row first."""
    own = np.flatnonzero(~np.isnan(scores[:, :1]).all(axis=1))
    return own, np.zeros(len(own), np.intp)


def _highest(scores: Scores, rows: Rows) -> tuple[Order, Order]:
    """The place of the highest score; among equal scores the lower row."""
    reachable = np.where(np.isnan(scores), -np.inf, scores)
    highest = reachable.max(axis=1, initial=-np.inf)
    own = np.flatnonzero(highest > -np.inf)
    tied = reachable[own] == highest[own, None]
    return own, np.where(tied, rows[own], np.iinfo(np.int64).max).argmin(axis=1)


def _without_repeats(forward: _Pairs, backward: _Pairs, times: int) -> _Pairs:
    """Pairs that are best in at least `times` directions, each once, with the higher score should the two differ."""
    both = _Pairs(
        np.concatenate([forward.score, backward.score]),
        np.concatenate([forward.cosine, backward.cosine]),
        np.concatenate([forward.source, backward.source]),
        np.concatenate([forward.target, backward.target]),
    )
    pairs = both.at(np.lexsort((-both.score, both.target, both.source)))
    repeats = np.zeros(len(pairs.score), np.bool_)
    repeats[1:] = (pairs.source[1:] == pairs.source[:-1]) & (pairs.target[1:] == pairs.target[:-1])
    if times == 1:
        return pairs.at(~repeats)
    return pairs.at(np.flatnonzero(repeats) - 1)


def _first_come(pairs: _Pairs, neighbours: Neighbours) -> npt.NDArray[np.bool_]:
    """Which of the pairs, offered in their order, find both of their rows free.

    There are at most n + m pairs, a k-th of the candidates: 0.2 s for 600 000 without compiled code.
    """
    source_free = bytearray(b"\x01") * neighbours.source_count
    target_free = bytearray(b"\x01") * neighbours.target_count
    kept = bytearray(len(pairs.score))
    for place, (source, target) in enumerate(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)):
        if source_free[source] and target_free[target]:
            source_free[source] = target_free[target] = 0
            kept[place] = 1
    return np.frombuffer(kept, np.bool_)
