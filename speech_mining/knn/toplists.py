"""Running lists of the best candidates of every row, as engines fill them.

What belongs here is the shape of the lists. The compiled loops that fill them are in `kernels`, what becomes of them
is in `settle`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Keys: TypeAlias = npt.NDArray[np.int64]
Floors: TypeAlias = npt.NDArray[np.float32]

LOWEST = -np.inf
"""Floor of a list that has lost nothing."""
CLOSED = np.inf
"""Floor of a list that takes nothing."""


@dataclass(frozen=True, eq=False)
class Room:
    """How long lists are."""

    kept: int
    """Candidates a full list is cut to."""
    most: int
    """Candidates a list can hold before it is cut; the room between the two makes cutting rare."""

    @property
    def row_bytes(self) -> int:
        """What one row's list takes."""
        return 8 * self.most + 8


@dataclass(frozen=True, eq=False)
class TopLists:
    """For each row the candidates that may be among its best, in no order.

    A candidate is a key: the order of its value, a rough cosine, in the upper half (`kernels.ordered`), 2^31 - 1 - row
    in the lower, so that keys are ordered by decreasing value, then increasing row. Whatever is not in a list has a
    value of at most its floor.
    """

    keys: Keys
    """int64 (n, most); the first `counts` of a row are in use."""
    counts: npt.NDArray[np.int32]
    """int32 (n,)."""
    floors: Floors
    """float32 (n,): `LOWEST` while nothing was dropped or passed over."""
    kept: int
    """Candidates a full list is cut to."""

    @classmethod
    def empty(cls, rows: int, room: Room) -> TopLists:
        """Lists that take everything."""
        return cls.above(np.full(rows, LOWEST, np.float32), room)

    @classmethod
    def above(cls, floors: Floors, room: Room) -> TopLists:
        """Lists that take what exceeds their row's floor."""
        keys = np.empty((len(floors), room.most), np.int64)
        return cls(keys, np.zeros(len(floors), np.int32), floors, room.kept)

    @classmethod
    def closed(cls, rows: int) -> TopLists:
        """Lists that take nothing: for a direction that nobody wants."""
        return cls.above(np.full(rows, CLOSED, np.float32), Room(1, 1))

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, rows: slice) -> tuple[Keys, npt.NDArray[np.int32], Floors]:
        """Views of some rows' keys, counts and floors, as compiled code wants them."""
        return self.keys[rows], self.counts[rows], self.floors[rows]
