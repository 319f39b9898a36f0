"""Approximate k nearest neighbours in both directions: only rows of cells near each other are multiplied.

The door is `cell_join`. Rows of both sides lie in cells (`join_cells`), each row probes the cells near it, as far as a
sample shows to be needed (`join_probes`), and what is met is multiplied in int8 and folded into the lists of both rows
(`join_sweep`). Candidates are then scored exactly, as by the exact engines: a neighbour may be missing, but no cosine
is rough. What is missing is estimated by the exact search of a sample, and returned with the neighbours.

Both sides' codes, a byte a value, and all lists are in memory at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError
from speech_mining.knn import join_cells, join_probes, join_sweep
from speech_mining.knn.engines.blocks import BlockEngine
from speech_mining.knn.engines.protocol import Tally, Vectors
from speech_mining.knn.exact import check_sides
from speech_mining.knn.join_cells import Centroids, Laid, Numbers, Placed, Workforce
from speech_mining.knn.join_probes import EVERYTHING, NOTHING, Cost, Estimate, Gaps, Reach, Sample
from speech_mining.knn.neighbours import MISSING_COSINE, MISSING_ROW, Neighbours
from speech_mining.knn.products import available_threads, crew, int8_works
from speech_mining.knn.settle import Rough, Settled, settle
from speech_mining.knn.toplists import Room
from speech_mining.knn.vectors import taken
from speech_mining.progress import Progress, silent

RECALL = 0.98
ROOMS = ((8, 16), (4, 8))
"""Candidates kept beyond k, and room beyond those."""
THREAD_BYTES = 16_000_000
"""Kept aside for each thread: the libraries' own buffers and what settling holds in hand."""
PLACE_BYTES = 40
"""A row's cell, score, number and units, before and after it is laid."""


@dataclass(frozen=True, eq=False)
class Joined:
    """What an approximate join found, and how it went about it."""

    neighbours: Neighbours
    estimate: Estimate
    """Recall in each direction, by rows that had no part in choosing the probes."""
    cells: int
    source_probes: float
    """Cells that a source row probes on average."""
    target_probes: float
    products: int
    """Products computed in the join; an exact search computes n * m."""

    @property
    def recall(self) -> float:
        """The lower of both directions' recalls, in [0, 1]."""
        return min(self.estimate.forward, self.estimate.backward)


@dataclass(frozen=True)
class _Settings:
    k: int
    recall: float
    cells: int
    probes: float | None
    seed: int
    room: Room


class _Ordered:
    """Rows of a matrix in another order, read as they are asked for."""

    def __init__(self, vectors: Vectors, order: Numbers) -> None:
        self._vectors, self._order = vectors, order
        self.shape, self.dtype = vectors.shape, vectors.dtype

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, rows: slice) -> npt.NDArray[np.generic]:
        return taken(self._vectors, self._order[rows])


def cell_join(
    source: Vectors,
    target: Vectors,
    k: int = 16,
    *,
    recall: float = RECALL,
    cells: int | None = None,
    probes: float | None = None,
    seed: int = 0,
    memory_gb: float | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Joined:
    """Find most of the k nearest target rows of each source row, and of the k nearest source rows of each target row.

    Every cosine is the exact product of the two stored rows, rounded once to float32; lists are sorted by decreasing
    cosine, then increasing row. The same rows, seed and settings give the same bytes with any number of threads.

    Args:
        source: float16 or float32 (n, d), unit rows: an array, a memory map, or a `Stack` of them.
        target: the same, (m, d).
        k: neighbours in each direction; what was not met or does not exist is missing (-1, -inf).
        recall: share of the exact neighbours that is aimed at in both directions, in (0, 1].
        cells: number of cells; None takes one for `join_cells.ROWS_A_CELL` rows. Never more than there are rows.
        probes: cells that rows of either side probe on average; None takes what `recall` needs. As many as there are
            cells make the search exhaustive.
        seed: of samples and first centroids.
        memory_gb: working memory in 10^9 bytes besides the two matrices; None takes what is fastest.
        threads: cores to use; None takes all this process may use.
        progress: told products done or passed over, of n * m for each side.

    Raises:
        EmbeddingError: not two matrices of one dimension with finite rows of unit length; rows at fault are named.
        SettingsError: a k, recall, cells, probes, threads or memory that cannot work; no int8 products on this CPU.
    """
    _check_request(k, recall, cells, probes, threads)
    check_sides(source, target)
    engine = _int8_engine(source.shape[1])
    if not len(source) or not len(target):
        return _nothing(len(source), len(target), k)
    count = min(cells or join_cells.choose_cells(len(source), len(target)), len(source) + len(target))
    threads = threads or available_threads()
    room = _room_within(memory_gb, engine, (len(source), len(target)), k, count, threads)
    settings = _Settings(k, recall, count, probes, seed, room)
    with crew(threads) as hired:
        return _joined(source, target, settings, Workforce(engine, hired), progress)


def _check_request(k: int, recall: float, cells: int | None, probes: float | None, threads: int | None) -> None:
    if k < 1:
        raise SettingsError(f"k is {k}.", expected="at least one neighbour")
    if not 0 < recall <= 1:
        raise SettingsError(
            f"A recall of {recall} is aimed at.",
            expected="more than 0 and at most 1",
            fix="give a share, such as 0.98; where nothing may be missing, take an exact engine",
        )
    if cells is not None and cells < 1:
        raise SettingsError(f"cells is {cells}.", expected="at least one, or none given to choose by size")
    if probes is not None and not probes > 0:
        raise SettingsError(f"probes is {probes}.", expected="a positive number, or none given to choose by recall")
    if threads is not None and threads < 1:
        raise SettingsError(f"threads is {threads}.", expected="at least one, or none given to use all cores")


def _int8_engine(dimension: int) -> BlockEngine:
    if not int8_works():
        raise SettingsError(
            "The ivf engine was asked for, and this torch does not multiply int8 matrices on the CPU.",
            fix='take engine "fp32", which is exact',
        )
    from speech_mining.knn.engines.int8 import Int8

    return Int8(dimension)


def _room_within(
    memory_gb: float | None, engine: BlockEngine, sides: tuple[int, int], k: int, cells: int, threads: int
) -> Room:
    """The longest lists that fit: longer ones are cut less often, and leave less to chance."""
    rooms = [Room(k + slack, k + slack + more) for slack, more in ROOMS]
    if memory_gb is None:
        return rooms[0]
    rows = sum(sides)
    thread = 4 * join_sweep.band_rows(cells) * cells + join_sweep.tile_bytes(engine.row_bytes()) + THREAD_BYTES
    # sampled points twice, sums and centroids in float64
    training = cells * (2 * join_cells.POINTS_A_CELL + 32) * engine.row_bytes()
    # one side's codes twice, while they are laid in order
    fixed = engine.row_bytes() * (rows + max(sides)) + (PLACE_BYTES + 12 * k) * rows + training + threads * thread
    for room in rooms:
        if fixed + room.row_bytes * rows <= memory_gb * 1e9:
            return room
    raise SettingsError(
        f"Approximate neighbours were given {memory_gb:g} GB to work in.",
        expected=f"at least {(fixed + rooms[-1].row_bytes * rows) / 1e9:.3g} GB for the codes and lists of {rows} rows",
        fix="give more memory, or take an exact engine, which reads the source in shards",
    )


def _nothing(rows: int, columns: int, k: int) -> Joined:
    """What is found where one side has no rows."""
    (ahead, ahead_cosines), (back, back_cosines) = (
        (np.full((count, k), MISSING_ROW, np.int64), np.full((count, k), MISSING_COSINE, np.float32))
        for count in (rows, columns)
    )
    reason = "ivf was asked for: one side has no rows"
    found = Neighbours(ahead, ahead_cosines, back, back_cosines, "ivf", reason)
    return Joined(found, Estimate(1.0, 1.0, 0.0, 0.0, 0), 0, 0.0, 0.0, 0)


def _joined(source: Vectors, target: Vectors, settings: _Settings, work: Workforce, progress: Progress) -> Joined:
    sides, centroids = _placed(source, target, settings, work)
    samples = [
        join_probes.draw_samples(side, other, settings.k, settings.seed, work) for side, other in (sides, sides[::-1])
    ]
    reach, probes = _reach((samples[0][0], samples[1][0]), sides, centroids, settings, work)
    laid = [join_cells.lay_by_cells(side, settings.room) for side in sides]
    del sides
    tally = Tally(2 * len(source) * len(target), progress)
    products = join_sweep.join(laid[0], laid[1], centroids, reach, work, tally)
    forward = _settled(source, target, laid[0], laid[1], settings.k, work)
    backward = _settled(target, source, laid[1], laid[0], settings.k, work)
    judged = join_probes.estimate(samples[0][1], samples[1][1], (forward.cosines, backward.cosines))
    reason = _reason(judged, products / (len(source) * len(target)), settings.cells, probes)
    found = Neighbours(forward.rows, forward.cosines, backward.rows, backward.cosines, "ivf", reason)
    return Joined(found, judged, settings.cells, *probes, products)


def _placed(
    source: Vectors, target: Vectors, settings: _Settings, work: Workforce
) -> tuple[tuple[Placed, Placed], Centroids]:
    """Prepare both sides, train the centroids, and find each row's cell."""
    codes = join_cells.prepare(source, work), join_cells.prepare(target, work)
    means = [join_cells.mean_of(side, settings.seed) for side in codes]
    centroids = join_cells.train_centroids(codes, means, settings.cells, settings.seed, work)
    shifts = [centroids.shifts(mean) for mean in means]
    homes = [join_cells.find_homes(side, centroids, shift, work) for side, shift in zip(codes, shifts, strict=True)]
    return (
        Placed(source, codes[0], homes[0], shifts[0]),
        Placed(target, codes[1], homes[1], shifts[1]),
    ), centroids


def _reach(
    samples: tuple[Sample, Sample],
    sides: tuple[Placed, Placed],
    centroids: Centroids,
    settings: _Settings,
    work: Workforce,
) -> tuple[Reach, tuple[float, float]]:
    """How far rows reach, and how many cells rows of each side then probe on average."""
    costs = (
        join_probes.measure_cost(samples[0], *sides, centroids, work),
        join_probes.measure_cost(samples[1], *sides[::-1], centroids, work),
    )
    if settings.probes is None:
        forward = Gaps(*join_probes.measure_gaps(samples[0], *sides, centroids, work))
        backward = Gaps(*join_probes.measure_gaps(samples[1], *sides[::-1], centroids, work)[::-1])
        reach = join_probes.choose_reach(forward, backward, costs, settings.recall)
    else:
        reach = _asked(costs, settings.probes)
    return reach, (costs[0].probes(reach.source), costs[1].probes(reach.target))


def _asked(costs: tuple[Cost, Cost], probes: float) -> Reach:
    source, target = (cost.reach_of(probes) for cost in costs)
    return Reach(source, NOTHING if source == EVERYTHING else target)


def _settled(own: Vectors, other: Vectors, laid: Laid, others: Laid, k: int, work: Workforce) -> Settled:
    """Exact lists of a side's candidates, in the order of its rows; nothing is searched again."""
    errors = work.engine.errors(laid.prepared.rests, float(others.prepared.rests.max(initial=0)))
    found = settle(_Ordered(own, laid.numbers), other, Rough(laid.lists, errors), k, work.crew, wanted=0)
    back = np.empty_like(laid.numbers)
    back[laid.numbers] = np.arange(len(back))
    return Settled(found.rows[back], found.cosines[back], found.depths[back], found.searched_again)


def _reason(judged: Estimate, share: float, cells: int, probes: tuple[float, float]) -> str:
    return (
        f"ivf was asked for: recall {judged.forward:.3f} forward and {judged.backward:.3f} backward, estimated on "
        f"{judged.rows} rows, with {100 * share:.1f} % of the products; of {cells} cells a source row probed "
        f"{probes[0]:.1f}, a target row {probes[1]:.1f}"
    )
