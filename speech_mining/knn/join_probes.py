"""How far rows of an approximate join look: chosen on a sample whose exact neighbours are known, and judged on another.

A row lies in its best cell, and probes every cell whose score is within a `reach` of that cell's. A pair is met when
either row probes the other's cell. For the exact neighbours of a sample it is known how far either row would have to
reach, so any recall can be had for the fewest products before a single block is multiplied. A reach costs less than a
fixed number of probes, since rows between cells look at more of them than rows in the middle of one (50 000 x 50 000,
512 cells, one side, recall 0.98: 16 % of the products against 20 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.knn.join_cells import (
    Blocks,
    Centroids,
    Floats,
    Numbered,
    Numbers,
    Placed,
    Workforce,
    cell_scores,
    chosen_rows,
)
from speech_mining.knn.neighbours import MISSING_ROW, Cosines, Rows
from speech_mining.knn.products import bands
from speech_mining.knn.settle import Rough, Settled, settle
from speech_mining.knn.toplists import Room, TopLists
from speech_mining.knn.vectors import taken

SAMPLE_ROWS = 512
"""Rows of each side in each of the two samples: recalls near 0.98 are then known to about 0.003."""
STEPS = 128
"""Reaches of the source that are tried."""
COLUMNS = 2048
SLACK = 24
"""Candidates kept beyond k when a sample is searched."""
NOTHING = 0.0
"""Reach of a side that probes no cell but its own."""
EVERYTHING = float("inf")


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of one side with their exact neighbours on the other."""

    rows: Numbers
    """int64 (q,), ascending."""
    neighbours: Rows
    """int64 (q, k): rows of the other side, or -1."""
    cosines: Cosines
    """float32 (q, k)."""


@dataclass(frozen=True, eq=False)
class Gaps:
    """How far rows must reach for the pairs of a sample to be met; NaN where there is no pair."""

    source: Floats
    """float32 (q, k): how far the source row must reach for the target row's cell."""
    target: Floats
    """float32 (q, k): how far the target row must reach for the source row's cell."""


@dataclass(frozen=True)
class Reach:
    """How far the rows of each side look beyond their own cell."""

    source: float
    target: float


@dataclass(frozen=True, eq=False)
class Cost:
    """What the reach of a side costs, by a sample of its rows."""

    gaps: Floats
    """float32 (q * c,), ascending: how far a row must reach for a cell."""
    shares: npt.NDArray[np.float64]
    """float64 (q * c + 1,): share of all products with so many of these probes."""
    rows: int

    def share(self, reach: float) -> float:
        """Share of all products that a reach takes, in [0, 1]."""
        return float(self.shares[self._place(reach)])

    def probes(self, reach: float) -> float:
        """Cells that a row probes on average."""
        return float(self._place(reach) / max(self.rows, 1))

    def reach_of(self, probes: float) -> float:
        """The reach with which a row probes so many cells on average."""
        place = round(probes * self.rows)
        return EVERYTHING if place >= len(self.gaps) else float(self.gaps[max(place - 1, 0)])

    def _place(self, reach: float) -> int:
        return int(np.searchsorted(self.gaps, np.float32(reach), "right"))


@dataclass(frozen=True)
class Estimate:
    """Recall of the k nearest neighbours in each direction, by a sample searched exactly."""

    forward: float
    """In [0, 1]."""
    backward: float
    forward_error: float
    """Standard error of `forward`."""
    backward_error: float
    rows: int
    """Rows in the larger of the two samples."""


def draw_samples(side: Placed, other: Placed, k: int, seed: int, work: Workforce) -> tuple[Sample, Sample]:
    """Draw two samples of a side's rows, without a row in common where there are rows enough, and search them exactly.

    Args:
        side: whose rows are drawn.
        other: what is searched.
        k: neighbours of each.
        seed: of the draw.
        work: multiplies.
    """
    drawn = np.random.default_rng(seed).permutation(len(side))[: 2 * SAMPLE_ROWS]
    apart = len(drawn) == 2 * SAMPLE_ROWS
    rows = np.sort(drawn[:SAMPLE_ROWS] if apart else drawn), np.sort(drawn[SAMPLE_ROWS:] if apart else drawn)
    found = [_searched(each, side, other, k, work) for each in (rows if apart else rows[:1])]
    first, last = found[0], found[-1]
    return Sample(rows[0], first.rows, first.cosines), Sample(rows[1], last.rows, last.cosines)


def measure_gaps(
    sample: Sample, side: Placed, other: Placed, centroids: Centroids, work: Workforce
) -> tuple[Floats, Floats]:
    """How far each row of a sample must reach for its neighbours' cells, and its neighbours for its own.

    Returns:
        float32 (q, k) twice, NaN where there is no neighbour.
    """
    there = sample.neighbours != MISSING_ROW
    asking, found = np.broadcast_to(sample.rows[:, None], there.shape)[there], sample.neighbours[there]
    own, others = (np.full(there.shape, np.nan, np.float32) for _ in range(2))
    own[there] = _gaps(side, asking, other.homes.cells[found], centroids, work)
    others[there] = _gaps(other, found, side.homes.cells[asking], centroids, work)
    return own, others


def measure_cost(sample: Sample, side: Placed, other: Placed, centroids: Centroids, work: Workforce) -> Cost:
    """What the reach of a side costs, by the rows of a sample of it."""
    sizes = np.bincount(other.homes.cells, minlength=len(centroids)) / max(len(other), 1)
    gaps = np.empty((len(sample.rows), len(centroids)), np.float32)
    for part in bands(len(gaps), centroids.rows_scored):
        rows = sample.rows[part]
        scores = cell_scores(chosen_rows(side.prepared, rows), centroids, side.shifts, work)
        gaps[part] = side.homes.scores[rows, None] - scores
    order = np.argsort(gaps, axis=None, kind="stable")
    shares = np.cumsum(np.tile(sizes, len(gaps))[order]) / max(len(gaps), 1)
    return Cost(gaps.ravel()[order], np.concatenate([[0.0], shares]), len(gaps))


def choose_reach(forward: Gaps, backward: Gaps, costs: tuple[Cost, Cost], recall: float) -> Reach:
    """The reaches of the fewest products with which both samples are met to `recall` and a standard error more.

    Args:
        forward: of source rows and their neighbours.
        backward: of target rows and theirs.
        costs: of the source's reach, and of the target's.
        recall: in (0, 1].
    """
    first = _cheapest(forward, backward, costs, recall)
    error = max(_error(gaps, first) for gaps in (forward, backward))
    return _cheapest(forward, backward, costs, min(1.0, recall + error))


def estimate(forward: Sample, backward: Sample, found: tuple[Cosines, Cosines]) -> Estimate:
    """Compare what a join found with samples searched exactly.

    A neighbour counts as found when its cosine is at least that of the last exact one: equal vectors are as good as
    each other.

    Args:
        forward: of source rows.
        backward: of target rows.
        found: float32 (n, k) and (m, k), exact cosines of what the join found.
    """
    there, back = _shares(forward, found[0]), _shares(backward, found[1])
    return Estimate(_mean(there), _mean(back), _deviation(there), _deviation(back), max(len(there), len(back)))


def _searched(rows: Numbers, side: Placed, other: Placed, k: int, work: Workforce) -> Settled:
    """The exact search of a few rows, one way, by codes that are there already."""
    from speech_mining.knn.kernels import fold

    queries, base = chosen_rows(side.prepared, rows), other.prepared
    lists, closed = TopLists.empty(len(rows), Room(k + SLACK, k + 2 * SLACK)), TopLists.closed(COLUMNS)

    def search(part: slice) -> None:
        own, blocks = queries.part(part), Blocks(work.engine, (part.stop - part.start) * COLUMNS)
        for columns in bands(len(base.codes), COLUMNS):
            products = blocks.multiply(own.codes, base.codes[columns])
            others = closed.part(slice(0, columns.stop - columns.start))
            fold(products, own.units, base.units[columns], lists.part(part), others, (0, columns.start, lists.kept))

    for _ in work.crew.pool.map(search, bands(len(rows), SAMPLE_ROWS, work.crew.threads)):
        pass
    errors = work.engine.errors(queries.rests, float(base.rests.max(initial=0)))
    return settle(taken(side.vectors, rows), other.vectors, Rough(lists, errors), k, work.crew)


def _gaps(side: Placed, rows: Numbers, cells: Numbered, centroids: Centroids, work: Workforce) -> Floats:
    """How far each of these rows must reach for the cell beside it."""
    gaps = np.empty(len(rows), np.float32)
    for part in bands(len(rows), centroids.rows_scored):
        scores = cell_scores(chosen_rows(side.prepared, rows[part]), centroids, side.shifts, work)
        gaps[part] = side.homes.scores[rows[part]] - scores[np.arange(len(scores)), cells[part]]
    return gaps


def _cheapest(forward: Gaps, backward: Gaps, costs: tuple[Cost, Cost], recall: float) -> Reach:
    options = []
    for source in _steps(forward, backward):
        target = max(_needed(gaps, source, recall) for gaps in (forward, backward))
        options.append((costs[0].share(source) + costs[1].share(target), source, target))
    _, source, target = min(options)
    return Reach(source, target)


def _steps(forward: Gaps, backward: Gaps) -> list[float]:
    known = np.concatenate([forward.source.ravel(), backward.source.ravel()])
    known = known[~np.isnan(known)]
    if not len(known):
        return [NOTHING]
    return [NOTHING, *np.quantile(known, np.linspace(0, 1, STEPS), method="higher").tolist()]


def _needed(gaps: Gaps, source: float, recall: float) -> float:
    """How far the target must reach where the source reaches so far."""
    unmet = gaps.source > source  # not where NaN
    wanted = int((~np.isnan(gaps.source)).sum())
    missing = int(np.ceil(recall * wanted - 1e-6)) - (wanted - int(unmet.sum()))
    return NOTHING if missing <= 0 else float(np.sort(gaps.target[unmet])[missing - 1])


def _error(gaps: Gaps, reach: Reach) -> float:
    """Standard error of the recall that a reach has on a sample; the neighbours of a row are met or missed together."""
    wanted = (~np.isnan(gaps.source)).sum(axis=1)
    met = ((gaps.source <= reach.source) | (gaps.target <= reach.target)).sum(axis=1)
    return _deviation(met[wanted > 0] / wanted[wanted > 0])


def _shares(sample: Sample, cosines: Cosines) -> npt.NDArray[np.float64]:
    """Share of each sampled row's neighbours that were found, for rows that have any."""
    wanted = (sample.neighbours != MISSING_ROW).sum(axis=1)
    rows = np.flatnonzero(wanted)
    last = sample.cosines[rows, wanted[rows] - 1]
    return np.asarray((cosines[sample.rows[rows]] >= last[:, None]).sum(axis=1) / wanted[rows])


def _mean(shares: npt.NDArray[np.float64]) -> float:
    return float(shares.mean()) if len(shares) else 1.0


def _deviation(shares: npt.NDArray[np.float64]) -> float:
    return float(shares.std() / np.sqrt(len(shares))) if len(shares) else 0.0
