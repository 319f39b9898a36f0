"""One pass over the products in blocks, on the cores of a CPU: what the `fp32` and `int8` engines share.

Each block is multiplied once and folded into the lists of its rows and of its columns. A thread owns the columns it
works on, and borrows rows by a lock.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.protocol import Errors, Sweep, Vectors
from speech_mining.knn.products import Crew, bands
from speech_mining.knn.toplists import Floors

PREPARED_AT_ONCE = 1024
"""Rows a thread prepares at a time."""
RANK = 4
"""Floors start at this place of a sample: fewer are at the mercy of chance, more need a larger sample."""
ABOVE = 6
"""How many times the candidates that are kept are expected above the floor that a sample gives."""
SAMPLE = 2048
"""The largest sample."""
WORTHWHILE = 32
"""The smallest."""

Starter: TypeAlias = Callable[["Prepared", Floors], None]
"""Raises the floors of some rows, if they have none."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows in the form an engine multiplies."""

    codes: npt.NDArray[Any]
    """(rows, p), int8 or float32."""
    units: npt.NDArray[np.float32]
    """float32 (rows,): what a code's step is worth."""
    rests: npt.NDArray[np.float32]
    """float32 (rows,): length of what is missing from each row."""

    def part(self, rows: slice) -> Prepared:
        """Views of some rows, or of every so many."""
        return Prepared(self.codes[rows], self.units[rows], self.rests[rows])

    def apart(self) -> Prepared:
        """A copy whose rows lie together."""
        return Prepared(self.codes.copy(), self.units.copy(), self.rests.copy())


class BlockEngine(ABC):
    """An engine that multiplies blocks of prepared rows."""

    name: str

    @abstractmethod
    def room(self, rows: int) -> Prepared:
        """Memory for so many prepared rows."""

    @abstractmethod
    def prepare(self, rows: npt.NDArray[Any], prepared: Prepared) -> None:
        """Fill `prepared` from rows of embeddings."""

    @abstractmethod
    def block(self, rows: int, columns: int) -> Any:
        """A tensor for so many products."""

    @abstractmethod
    def multiply(self, left: npt.NDArray[Any], right: npt.NDArray[Any], out: Any) -> npt.NDArray[Any]:
        """Products of the codes of all rows: int32 or float32."""

    @abstractmethod
    def errors(self, own: npt.NDArray[np.float32], other: float) -> Errors:
        """Error bound of rows with these rests, against rows whose rests are at most `other`."""

    @abstractmethod
    def row_bytes(self) -> int:
        """Memory that one prepared row takes."""

    @abstractmethod
    def usual_error(self) -> float:
        """What the errors of a sweep are seldom as large as."""

    def sweep(self, work: Sweep) -> tuple[Errors, Errors]:
        """Multiply every block once."""
        if not len(work.source) or not len(work.target):
            return np.zeros(len(work.source)), np.zeros(len(work.target))
        left = self._prepared(work.source, work.crew)
        right_rests = _fold_all(self, left, work)
        return (
            self.errors(left.rests, float(right_rests.max(initial=0))),
            self.errors(right_rests, float(left.rests.max(initial=0))),
        )

    def _prepared(self, rows: Vectors, crew: Crew) -> Prepared:
        whole = self.room(len(rows))

        def fill(part: slice) -> None:
            self.prepare(rows[part], whole.part(part))

        for _ in crew.pool.map(fill, bands(len(rows), PREPARED_AT_ONCE, crew.threads)):
            pass
        return whole


def _fold_all(engine: BlockEngine, left: Prepared, work: Sweep) -> npt.NDArray[np.float32]:
    from speech_mining.knn.kernels import fold  # not in the threads: numba is not safe to import from two at once

    rests = np.empty(len(work.target), np.float32)
    rows_of = bands(len(left.codes), work.tiles.rows, min(2, work.crew.threads))
    locks = [threading.Lock() for _ in rows_of]
    _start_forward(engine, left, work)
    start_backward = _starter(engine, left, work.backward.kept)

    def fold_stripe(number: int, columns: slice) -> None:
        right = engine.room(columns.stop - columns.start)
        engine.prepare(work.target[columns], right)
        rests[columns] = right.rests
        column_lists = work.backward.part(columns)
        start_backward(right, column_lists[2])
        buffers: dict[int, Any] = {}
        # threads start at different bands, so that they seldom want the same rows
        start = number * len(rows_of) // work.crew.threads
        for turn in range(len(rows_of)):
            band = (start + turn) % len(rows_of)
            rows = rows_of[band]
            height = rows.stop - rows.start
            if height not in buffers:
                buffers[height] = engine.block(height, len(right.codes))
            products = engine.multiply(left.codes[rows], right.codes, buffers[height])
            offsets = (work.source_offset + rows.start, work.target_offset + columns.start, work.forward.kept)
            with locks[band]:
                fold(products, left.units[rows], right.units, work.forward.part(rows), column_lists, offsets)
            work.tally.add(products.size)

    stripes = bands(len(work.target), work.tiles.columns, work.crew.threads)
    for _ in work.crew.pool.map(fold_stripe, range(len(stripes)), stripes):
        pass
    return rests


def _start_forward(engine: BlockEngine, left: Prepared, work: Sweep) -> None:
    """Give every source row that has seen nothing yet a floor."""
    step = _sample_step(len(work.target), work.forward.kept)
    if not step:
        return
    sample = engine.room(len(range(0, len(work.target), step)))
    engine.prepare(np.concatenate([work.target[row : row + 1] for row in range(0, len(work.target), step)]), sample)
    start = _starter_of(engine, sample)
    parts = bands(len(left.codes), PREPARED_AT_ONCE, work.crew.threads)
    for _ in work.crew.pool.map(lambda rows: start(left.part(rows), work.forward.floors[rows]), parts):
        pass


def _starter(engine: BlockEngine, left: Prepared, kept: int) -> Starter:
    """What gives target rows a floor, by a sample of the source rows."""
    step = _sample_step(len(left.codes), kept)
    if not step:
        return lambda rows, floors: None
    return _starter_of(engine, left.part(slice(None, None, step)).apart())


def _starter_of(engine: BlockEngine, sample: Prepared) -> Starter:
    from speech_mining.knn.kernels import raise_floors

    def start(rows: Prepared, floors: Floors) -> None:
        if np.isneginf(floors).all():
            products = engine.multiply(rows.codes, sample.codes, engine.block(len(rows.codes), len(sample.codes)))
            raise_floors(products, rows.units, sample.units, np.empty(RANK, np.float32), floors)

    return start


def _sample_step(count: int, kept: int) -> int:
    """Every how many of `count` rows one is taken for the sample, 0 where there are too few to start from one.

    Lists that start empty see kept * ln(count / kept) candidates come and go; those that start from a floor only what
    is above it. A floor that was too high is found out when the lists are settled.
    """
    size = min(SAMPLE, RANK * count // (ABOVE * kept))
    return count // size if size >= WORTHWHILE else 0
