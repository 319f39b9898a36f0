"""Whether two contenders found the same neighbours, and chose the same pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.knn.neighbours import Neighbours, Rows
from speech_mining.mining import strategies

Matrix: TypeAlias = npt.NDArray[np.float32]

LOOKED_AT = 2000
"""Rows whose lists differ that are looked at in each direction: their vectors are read from disk."""


@dataclass(frozen=True)
class NeighbourAgreement:
    """Two tables of neighbours, both directions together."""

    ours_of_theirs: float
    """Share of the peer's neighbours that are among ours."""
    theirs_of_ours: float
    """Share of our neighbours that are among the peer's."""
    gap: float
    """Most by which the k-th cosine of one list is below that of the other, over rows whose lists differ: about 1e-7 is
    float32 rounding of near ties, more is a neighbour that was missed."""


@dataclass(frozen=True)
class PairAgreement:
    """Pairs of a peer, each counted once, against ours by the strategy nearest to its own."""

    strategy: str
    shared: int
    only_theirs: int
    only_ours: int


def read_neighbours(found: Path) -> Neighbours:
    """Our own table, as the contender `ours` left it."""
    with np.load(found / "tables.npz") as kept:
        return Neighbours(
            kept["forward_rows"], kept["forward_cosines"], kept["backward_rows"], kept["backward_cosines"]
        )


def compare_neighbours(ours: Neighbours, found: Path, source: Matrix, target: Matrix) -> NeighbourAgreement | None:
    """Compare our table with a peer's; None where it kept none.

    Args:
        ours: our table.
        found: the folder in which the peer left its own.
        source: float32 (n, d), unit rows, an array or a memory map.
        target: the same, (m, d).
    """
    with np.load(found / "tables.npz") as kept:
        if "forward_rows" not in kept:
            return None
        forward, backward = kept["forward_rows"], kept["backward_rows"]
    shared = _shared(ours.forward_rows, forward) + _shared(ours.backward_rows, backward)
    in_ours, in_theirs = (
        int((one >= 0).sum() + (other >= 0).sum())
        for one, other in ((ours.forward_rows, ours.backward_rows), (forward, backward))
    )
    gap = max(_gap(source, target, ours.forward_rows, forward), _gap(target, source, ours.backward_rows, backward))
    return NeighbourAgreement(shared / max(1, in_theirs), shared / max(1, in_ours), gap)


def compare_pairs(ours: Neighbours, found: Path, strategy: str, threshold: float) -> PairAgreement:
    """Mine from our table by `strategy` with the ratio margin, and compare with the peer's pairs."""
    mined = strategies.mine(ours, strategy=strategy, threshold=threshold)
    with np.load(found / "pairs.npz") as kept:
        theirs = np.unique(kept["source"] * ours.target_count + kept["target"])
    own = mined.source * ours.target_count + mined.target
    shared = len(np.intersect1d(own, theirs))
    return PairAgreement(strategy, shared, len(theirs) - shared, len(own) - shared)


def _shared(one: Rows, other: Rows) -> int:
    """Neighbours in both of two tables (n, a) and (n, b), row by row; no list names a row twice."""
    both = np.sort(np.concatenate([one, other], axis=1), axis=1)
    return int(((both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)).sum())


def _gap(queries: Matrix, base: Matrix, one: Rows, other: Rows) -> float:
    differing = np.flatnonzero((np.sort(one, axis=1) != np.sort(other, axis=1)).any(axis=1))[:LOOKED_AT]
    if not len(differing):
        return 0.0
    last = [_last_cosines(queries, base, differing, rows[differing]) for rows in (one, other)]
    return float(np.abs(last[0] - last[1]).max())


def _last_cosines(queries: Matrix, base: Matrix, numbers: npt.NDArray[np.intp], rows: Rows) -> npt.NDArray[Any]:
    """The least cosine of each list: float64 (len(numbers),); -1 where a neighbour is missing."""
    least = np.full(len(numbers), np.inf)
    own = queries[numbers].astype(np.float64)
    for column in rows.T:  # a column at a time: all k would be k times the memory
        cosine = np.einsum("ij,ij->i", own, base[np.maximum(column, 0)].astype(np.float64))
        least = np.minimum(least, np.where(column >= 0, cosine, -1.0))
    return least
