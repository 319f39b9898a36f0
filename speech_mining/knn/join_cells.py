"""Cells of the approximate join: centroids for both sides, the cell each row lies in, rows laid in the order of cells.

One set of centroids serves both sides, and each side is first moved so that its mean is zero. Speech and text, or two
languages, lie in cones of their own: clustered as they are, the sides share few cells (50 000 x 50 000, 256 cells, 16 %
of the products: recall 0.91 without the shift, 0.954 with it). Everything is computed from int8 codes, whose products
are whole numbers: blocks and threads change no byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.blocks import PREPARED_AT_ONCE, BlockEngine, Prepared
from speech_mining.knn.engines.protocol import Vectors
from speech_mining.knn.products import Crew, bands
from speech_mining.knn.toplists import Room, TopLists

Floats: TypeAlias = npt.NDArray[np.float32]
Mean: TypeAlias = npt.NDArray[np.float64]
Numbers: TypeAlias = npt.NDArray[np.int64]
Numbered: TypeAlias = npt.NDArray[np.int32]

ROWS_A_CELL = 200
"""Finer cells hold the neighbours in fewer products (50 000 x 50 000, recall 0.98: 31 % of the products with cells of
400 rows, 18 % with cells of 100), but blocks of few columns are multiplied more slowly (1.3 Top/s at 128, 1.6 at 256)
and every row is compared with every centroid."""
MOST_CELLS = 1 << 14
"""k-means multiplies `POINTS_A_CELL` x cells x cells in every round."""
POINTS_A_CELL = 64
ROUNDS = 8
SCORED_VALUES = 1 << 20
"""Products with centroids looked at together."""
MEAN_ROWS = 1 << 14
"""Rows a side's mean is taken of."""


@dataclass(frozen=True, eq=False)
class Workforce:
    """How products are computed: the engine, and the threads that use it."""

    engine: BlockEngine
    crew: Crew


class Blocks:
    """Memory for one thread's products, used again for every block: fresh memory has to be mapped each time."""

    def __init__(self, engine: BlockEngine, values: int) -> None:
        self._engine = engine
        self._flat = engine.block(1, values).view(-1)

    def multiply(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Products of all rows, good until the next call."""
        rows, columns = len(left), len(right)
        return self._engine.multiply(left, right, self._flat[: rows * columns].view(rows, columns))


@dataclass(frozen=True, eq=False)
class Centroids:
    """Directions of cells, in the engine's own codes."""

    codes: npt.NDArray[np.int8]
    """int8 (c, p)."""
    units: Floats
    """float32 (c,): a centroid is its codes times its unit."""

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def rows_scored(self) -> int:
        """Rows to be scored together."""
        return max(64, SCORED_VALUES // len(self))

    def shifts(self, mean: Mean) -> Floats:
        """What to take off the products of rows around this mean: float64 (p,) -> float32 (c,)."""
        # einsum, not a product of matrices: that one would depend on the threads of the library
        along = np.einsum("cp,p->c", self.codes.astype(np.float64), mean)
        return np.asarray(self.units * along, np.float32)


@dataclass(frozen=True, eq=False)
class Homes:
    """Where rows lie, in their own order."""

    cells: Numbered
    """int32 (n,)."""
    scores: Floats
    """float32 (n,): product of the shifted row with the centroid of its cell, the largest of all."""


@dataclass(frozen=True, eq=False)
class Placed:
    """One side in its own order, and where its rows lie."""

    vectors: Vectors
    prepared: Prepared
    homes: Homes
    shifts: Floats
    """float32 (c,): as `Centroids.shifts` gives them."""

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, eq=False)
class Laid:
    """One side in the order of its cells, equal cells by row number, and the lists of its rows."""

    prepared: Prepared
    numbers: Numbers
    """int64 (n,): the row that lies at each place."""
    homes: Homes
    """In this order."""
    starts: Numbers
    """int64 (c + 1,): first place of each cell."""
    shifts: Floats
    """float32 (c,)."""
    lists: TopLists
    """Candidates by the numbers of the other side."""

    def __len__(self) -> int:
        return len(self.numbers)


def choose_cells(source: int, target: int) -> int:
    """How many cells two sides of so many rows get."""
    return int(min(MOST_CELLS, max(1, max(source, target) // ROWS_A_CELL)))


def prepare(vectors: Vectors, work: Workforce) -> Prepared:
    """Codes of all rows of a side."""
    whole = work.engine.room(len(vectors))

    def fill(rows: slice) -> None:
        work.engine.prepare(vectors[rows], whole.part(rows))

    for _ in work.crew.pool.map(fill, bands(len(vectors), PREPARED_AT_ONCE, work.crew.threads)):
        pass
    return whole


def mean_of(side: Prepared, seed: int) -> Mean:
    """Mean of a side's rows as their codes tell it, by a sample: float64 (p,)."""
    rows = _drawn(len(side.codes), MEAN_ROWS, seed)
    mean: Mean = _sums(side.codes[rows], side.units[rows], np.zeros(len(rows), np.int32), 1)[0] / max(len(rows), 1)
    return mean


def train_centroids(
    sides: Sequence[Prepared], means: Sequence[Mean], count: int, seed: int, work: Workforce
) -> Centroids:
    """Spherical k-means on a sample of both sides, each shifted by its mean.

    Dhillon & Modha 2001, "Concept decompositions for large sparse text data using clustering", section 3; points are
    not divided by their lengths, so long ones count for more.

    Args:
        sides: prepared rows.
        means: of each side.
        count: cells; no more than there are rows.
        seed: of the sample and of the first centroids.
        work: multiplies.
    """
    points = _points(sides, POINTS_A_CELL * count, seed)
    centroids = _first_centroids(points, means, count, seed)
    for _ in range(ROUNDS):
        sums = np.zeros(centroids.codes.shape)
        for side, mean in zip(points, means, strict=True):
            cells = find_homes(side, centroids, centroids.shifts(mean), work).cells
            sums += _sums(side.codes, side.units, cells, count)
            sums -= np.bincount(cells, minlength=count)[:, None] * mean
        centroids = _pointed(sums, centroids)
    return centroids


def find_homes(side: Prepared, centroids: Centroids, shifts: Floats, work: Workforce) -> Homes:
    """The cell of each row: the one of the highest score, the first of equals."""
    from speech_mining.knn.join_kernels import best_cells  # not in the threads: numba is not safe to import from two

    homes = Homes(np.empty(len(side.codes), np.int32), np.empty(len(side.codes), np.float32))

    def find(rows: slice) -> None:
        block = work.engine.block(rows.stop - rows.start, len(centroids))
        products = work.engine.multiply(side.codes[rows], centroids.codes, block)
        best_cells(products, side.units[rows], centroids.units, shifts, homes.cells[rows], homes.scores[rows])

    for _ in work.crew.pool.map(find, bands(len(side.codes), centroids.rows_scored, work.crew.threads)):
        pass
    return homes


def cell_scores(rows: Prepared, centroids: Centroids, shifts: Floats, work: Workforce) -> Floats:
    """Score of each of a few rows in each cell, the same to the bit as in `find_homes`: float32 (n, c)."""
    products = work.engine.multiply(rows.codes, centroids.codes, work.engine.block(len(rows.codes), len(centroids)))
    scores: Floats = products.astype(np.float32) * (rows.units[:, None] * centroids.units) - shifts
    return scores


def lay_by_cells(side: Placed, room: Room) -> Laid:
    """Copy a side's codes in the order of their cells, with empty lists."""
    order = np.argsort(side.homes.cells, kind="stable").astype(np.int64)
    sizes = np.bincount(side.homes.cells, minlength=len(side.shifts))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    laid = chosen_rows(side.prepared, order)
    homes = Homes(side.homes.cells[order], side.homes.scores[order])
    return Laid(laid, order, homes, starts, side.shifts, TopLists.empty(len(side), room))


def chosen_rows(side: Prepared, rows: Numbers) -> Prepared:
    """A copy of some rows."""
    return Prepared(side.codes[rows], side.units[rows], side.rests[rows])


def _drawn(count: int, most: int, seed: int) -> Numbers:
    """Up to so many different rows of `count`, ascending."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _points(sides: Sequence[Prepared], most: int, seed: int) -> list[Prepared]:
    """A sample of each side, as large as its share of all rows."""
    total = sum(len(side.codes) for side in sides)
    return [chosen_rows(side, _drawn(len(side.codes), -(-most * len(side.codes) // total), seed)) for side in sides]


def _first_centroids(points: Sequence[Prepared], means: Sequence[Mean], count: int, seed: int) -> Centroids:
    codes, units = np.concatenate([side.codes for side in points]), np.concatenate([side.units for side in points])
    own = np.repeat(np.arange(len(points)), [len(side.codes) for side in points])
    chosen = np.sort(np.random.default_rng(seed).choice(len(codes), count, replace=False))
    vectors = codes[chosen] * units[chosen, None].astype(np.float64) - np.stack(means)[own[chosen]]
    return _pointed(vectors, Centroids(codes[chosen], units[chosen]))


def _pointed(vectors: npt.NDArray[np.float64], before: Centroids) -> Centroids:
    """Centroids in the direction of vectors; where there is none, as in a cell that lost its rows, the one before."""
    lengths, largest = np.sqrt(np.einsum("cp,cp->c", vectors, vectors)), np.abs(vectors).max(axis=1)
    there = largest > 0
    vectors, lengths, largest = vectors[there], lengths[there], largest[there]
    codes, units = before.codes.copy(), before.units.copy()
    codes[there] = np.rint(vectors * (127 / largest)[:, None])
    units[there] = largest / (127 * lengths)
    return Centroids(codes, units)


def _sums(codes: npt.NDArray[Any], weights: Floats, cells: Numbered, count: int) -> npt.NDArray[np.float64]:
    """Sum of the rows of each cell, in the order of the rows: float64 (count, p)."""
    from speech_mining.knn.join_kernels import add_up

    sums = np.zeros((count, codes.shape[1]))
    add_up(codes, weights, cells, sums)
    return sums
