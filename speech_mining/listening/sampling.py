"""Which pair is heard next: every score band gets its turn, and within a band chance decides, by a seed.

What belongs here is order. A hundred judgements drawn evenly from all pairs would nearly all fall where pairs are
many; accuracy by threshold needs them spread over the scores. What the spread costs is paid back in `accuracy`, where
each judgement weighs as many pairs as it stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

VERSION = "1"
STEPS = 20
Scores = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bands:
    """Bands of scores, a hundredth wide, from the floor upward; the last is open.

    They depend on the floor alone, never on the pairs: what was judged stays in its band when the corpus grows.
    """

    floor: float

    @property
    def edges(self) -> tuple[float, ...]:
        """Where each band begins, as the decimals they are written as: the thresholds there are figures for."""
        lowest = int(np.floor(self.floor * 100 + 1e-9))
        return tuple((lowest + step) / 100 for step in range(STEPS + 1))

    def of(self, scores: Scores) -> Numbers:
        """The band of each score, from 0; below the floor still the first."""
        found = np.searchsorted(self.edges, scores, side="right") - 1
        return np.asarray(np.maximum(found, 0), np.int64)


def listening_order(scores: Scores, sources: Sequence[str], targets: Sequence[str], bands: Bands, seed: int) -> Numbers:
    """Rows in the order in which they are to be heard: round after round, one of each band that has any left.

    A pair's draw is a hash of the seed and its two ids: pairs that come later take places between, and change nothing
    in the order of those that were there.

    Args:
        scores: float64 (n,).
        sources: ids of the source sides.
        targets: ids of the target sides.
        bands: of the scores.
        seed: another one draws others.

    Returns:
        int64 (n,), each row once.
    """
    draws = np.array([_draw(seed, *ids) for ids in zip(sources, targets, strict=True)], np.uint64)
    of_band = bands.of(scores)
    by_draw = np.lexsort((draws, of_band))
    begins = np.searchsorted(of_band[by_draw], np.arange(STEPS + 1))
    rounds = np.arange(len(by_draw)) - begins[of_band[by_draw]]
    # the bands of a round in an order of its own, or a judge would know what comes after good ones
    turns = np.array(
        [_draw(seed, f"round {turn}", str(band)) for turn, band in zip(rounds, of_band[by_draw], strict=True)],
        np.uint64,
    )
    return np.asarray(by_draw[np.lexsort((turns, rounds))], np.int64)


def spread_sample(scores: Scores, order: Numbers, bands: Bands, most: int) -> Numbers:
    """A few rows that show all scores: the first of as many bands, evenly spread, and then the next in the order.

    Args:
        scores: float64 (n,).
        order: of `listening_order`.
        bands: of the scores.
        most: how many rows.

    Returns:
        int64 (at most `most`,), by falling score.
    """
    of_band = bands.of(scores[order])
    filled, firsts = np.unique(of_band, return_index=True)
    spread = np.unique(np.linspace(len(filled) - 1, 0, min(most, len(filled))).round().astype(np.int64))
    chosen = firsts[spread]
    others = np.setdiff1d(np.arange(len(order)), chosen)[: max(0, most - len(chosen))]
    rows = order[np.concatenate([chosen, others])]
    return np.asarray(rows[np.argsort(-scores[rows], kind="stable")], np.int64)


def _draw(seed: int, source: str, target: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{source}/{target}".encode(), digest_size=8).digest(), "big")
