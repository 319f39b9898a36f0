"""The products of the approximate join: the rows that probe a cell, gathered and multiplied with the rows in it.

A thread owns the rows of the band it works on, and borrows the cells it meets by a lock. What is left in the lists does
not depend on who came first (`join_kernels`).
"""

from __future__ import annotations

import threading

import numpy as np

from speech_mining.knn.engines.protocol import Tally
from speech_mining.knn.join_cells import Blocks, Centroids, Floats, Laid, Numbered, Numbers, Workforce
from speech_mining.knn.join_probes import NOTHING, Reach
from speech_mining.knn.products import bands

BAND_ROWS = 8192
"""Rows whose probes are listed together, at most: their codes stay near while cell after cell gathers from them."""
BAND_VALUES = 1 << 23
"""Their products with the centroids, at most."""
LEAST_BAND = 512
TILE_ROWS = 512
"""Gathered rows multiplied together: with a cell of 200 rows, codes and products take 1.1 MB, and stay in the cache."""
TILE_COLUMNS = 1024
"""Larger cells are multiplied in parts."""
CELLS_AT_ONCE = 16
"""Cells whose own rows a thread multiplies before it takes others."""


def band_rows(cells: int) -> int:
    """Rows whose probes are listed together, with so many cells."""
    return min(BAND_ROWS, max(LEAST_BAND, BAND_VALUES // cells))


def tile_bytes(row_bytes: int) -> int:
    """What a thread's gathered rows and their products take; rows as prepared take so many."""
    return TILE_ROWS * (row_bytes + 4 * TILE_COLUMNS)


def join(source: Laid, target: Laid, centroids: Centroids, reach: Reach, work: Workforce, tally: Tally) -> int:
    """Fold all pairs that either side's probes meet into the lists of both, and tell how many products that took."""
    at_home = _multiply_homes(source, target, work)
    there = _probe(source, target, reach.source, centroids, work, tally)
    back = _probe(target, source, reach.target, centroids, work, tally)
    for laid in (source, target):
        _cut(laid)
    return at_home + there + back


def _multiply_homes(source: Laid, target: Laid, work: Workforce) -> int:
    """Multiply the rows that lie in the same cell. These come first: the lists start with candidates that are near."""
    from speech_mining.knn import join_kernels as kernels

    sides = _for_kernels(source), _for_kernels(target)

    def multiply(cells: slice) -> int:
        blocks, products = Blocks(work.engine, TILE_ROWS * TILE_COLUMNS), 0
        for cell in range(cells.start, cells.stop):
            for rows in _places(source, cell, TILE_ROWS):
                own = np.arange(rows.start, rows.stop, dtype=np.int32)
                for columns in _places(target, cell, TILE_COLUMNS):
                    block = blocks.multiply(source.prepared.codes[rows], target.prepared.codes[columns])
                    kernels.fold_gathered(block, own, sides[0], columns.start, sides[1], target.lists.kept)
                    products += block.size
        return products

    return sum(work.crew.pool.map(multiply, bands(len(source.starts) - 1, CELLS_AT_ONCE, work.crew.threads)))


def _probe(probing: Laid, probed: Laid, reach: float, centroids: Centroids, work: Workforce, tally: Tally) -> int:
    if reach <= NOTHING:
        tally.add(len(probing) * len(probed))
        return 0
    from speech_mining.knn import join_kernels as kernels  # not in the threads: numba is not safe to import from two

    locks = [threading.Lock() for _ in range(len(centroids))]
    sides = _for_kernels(probing), _for_kernels(probed)

    def probe_band(band: slice) -> int:
        ends, rows = _listed(probing, band, reach, centroids, work)
        gathered = np.empty((TILE_ROWS, probing.prepared.codes.shape[1]), np.int8)
        blocks, products = Blocks(work.engine, TILE_ROWS * TILE_COLUMNS), 0
        for cell in _nearest_first(ends):
            which = rows[ends[cell] : ends[cell + 1]]
            for part in bands(len(which), TILE_ROWS):
                own = which[part]
                kernels.gather(probing.prepared.codes, own, gathered)
                for columns in _places(probed, cell, TILE_COLUMNS):
                    block = blocks.multiply(gathered[: len(own)], probed.prepared.codes[columns])
                    with locks[cell]:
                        kernels.fold_gathered(block, own, sides[0], columns.start, sides[1], probed.lists.kept)
                    products += block.size
        tally.add((band.stop - band.start) * len(probed))
        return products

    return sum(work.crew.pool.map(probe_band, bands(len(probing), band_rows(len(centroids)), work.crew.threads)))


def _for_kernels(laid: Laid) -> tuple[Floats, Numbers, Numbers, Numbered, Floats]:
    return laid.prepared.units, laid.numbers, laid.lists.keys, laid.lists.counts, laid.lists.floors


def _listed(
    probing: Laid, band: slice, reach: float, centroids: Centroids, work: Workforce
) -> tuple[Numbers, Numbered]:
    """The rows of a band that probe each cell: first place of each cell's rows (c + 1,), and places of the rows."""
    from speech_mining.knn.join_kernels import count_probes, list_probes

    own = probing.prepared.part(band)
    products = work.engine.multiply(
        own.codes, centroids.codes, work.engine.block(band.stop - band.start, len(centroids))
    )
    homes = probing.homes.cells[band], probing.homes.scores[band]
    scoring = products, own.units, centroids.units, probing.shifts, *homes, np.float32(reach)
    counts = np.zeros(len(centroids), np.int64)
    count_probes(*scoring, counts)
    ends = np.concatenate([[0], np.cumsum(counts)])
    rows = np.empty(ends[-1], np.int32)
    list_probes(*scoring, band.start, ends[:-1].copy(), rows)
    return ends, rows


def _nearest_first(ends: Numbers) -> list[int]:
    """Cells that are probed, the most probed first: good candidates that come early keep others out of the lists."""
    counts = np.diff(ends)
    order: list[int] = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())].tolist()
    return order


def _places(laid: Laid, cell: int, most: int) -> list[slice]:
    first, stop = int(laid.starts[cell]), int(laid.starts[cell + 1])
    return [slice(first + part.start, first + part.stop) for part in bands(stop - first, most)]


def _cut(laid: Laid) -> None:
    from speech_mining.knn.join_kernels import cut_all

    cut_all(laid.lists.keys, laid.lists.counts, laid.lists.kept)
