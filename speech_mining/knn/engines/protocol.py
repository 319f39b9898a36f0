"""What an engine is asked, and what it answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.knn.products import Crew, Tiling
from speech_mining.knn.toplists import TopLists
from speech_mining.progress import Progress

Errors: TypeAlias = npt.NDArray[np.float64]


class Vectors(Protocol):
    """Rows to be searched: an array, a memory map, or several end to end (`vectors.Stack`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and dimension."""

    @property
    def dtype(self) -> Any:
        """float16 or float32."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]: ...


class Tally:
    """Adds up products from several threads for one listener."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._lock, self._done, self._total, self._progress = threading.Lock(), 0, total, progress

    def expect(self, products: int) -> None:
        """So many more are to come."""
        with self._lock:
            self._total += products

    def add(self, products: int) -> None:
        """So many more are done."""
        with self._lock:
            self._done += products
            self._progress(self._done, self._total)


@dataclass(frozen=True, eq=False)
class Sweep:
    """All products of some source rows with some target rows, to be offered to the lists of both."""

    source: Vectors
    target: Vectors
    forward: TopLists
    """Of the source rows; their candidates are target rows, counted from `target_offset`."""
    backward: TopLists
    """Of the target rows; their candidates are source rows, counted from `source_offset`."""
    crew: Crew
    tiles: Tiling
    tally: Tally
    source_offset: int = 0
    target_offset: int = 0


class Engine(Protocol):
    """Multiplies roughly, and says how roughly."""

    name: str

    def row_bytes(self) -> int:
        """Memory that one prepared row takes."""

    def usual_error(self) -> float:
        """What the errors of a sweep are seldom as large as, told before any row is seen; only speed depends on it."""

    def sweep(self, work: Sweep) -> tuple[Errors, Errors]:
        """Offer all products to the lists.

        Returns:
            float64 (source rows,) and (target rows,): how far the rough products of each row may be from the exact
            ones.
        """
