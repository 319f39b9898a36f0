"""One pass over the products in blocks, on the cores of a CPU: what the `fp32` and `int8` engines share.

Each block is multiplied once and folded into the lists of its rows and of its columns. A thread owns the columns it
works on, and borrows rows by a lock.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.protocol import Errors, Sweep, Vectors
from speech_mining.knn.products import Crew, bands

PREPARED_AT_ONCE = 1024
"""Rows a thread prepares at a time."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows in the form an engine multiplies."""

    codes: npt.NDArray[Any]
    """(rows, p), int8 or float32."""
    units: npt.NDArray[np.float32]
    """float32 (rows,): what a code's step is worth."""
    rests: npt.NDArray[np.float32]
    """float32 (rows,): length of what is missing from each row."""


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
            self.prepare(rows[part], Prepared(whole.codes[part], whole.units[part], whole.rests[part]))

        for _ in crew.pool.map(fill, bands(len(rows), PREPARED_AT_ONCE, crew.threads)):
            pass
        return whole


def _fold_all(engine: BlockEngine, left: Prepared, work: Sweep) -> npt.NDArray[np.float32]:
    from speech_mining.knn.kernels import fold  # not in the threads: numba is not safe to import from two at once

    rests = np.empty(len(work.target), np.float32)
    rows_of = bands(len(left.codes), work.tiles.rows, min(2, work.crew.threads))
    locks = [threading.Lock() for _ in rows_of]

    def fold_stripe(number: int, columns: slice) -> None:
        right = engine.room(columns.stop - columns.start)
        engine.prepare(work.target[columns], right)
        rests[columns] = right.rests
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
                lists = work.forward.part(rows), work.backward.part(columns)
                fold(products, left.units[rows], right.units, *lists, offsets)
            work.tally.add(products.size)

    stripes = bands(len(work.target), work.tiles.columns, work.crew.threads)
    for _ in work.crew.pool.map(fold_stripe, range(len(stripes)), stripes):
        pass
    return rests
