"""The table of nearest neighbours in both directions, whoever computed it.

What belongs here is the shape and the promises of the table. How it is filled is in `exact`; what is scored from it
is in `speech_mining.mining.margin`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError

Rows: TypeAlias = npt.NDArray[np.int64]
Cosines: TypeAlias = npt.NDArray[np.float32]

MISSING_ROW = -1
"""Where the other side has fewer than k rows; its cosine is `MISSING_COSINE`."""
MISSING_COSINE = -np.inf
"""Not NaN: a table padded with it is still sorted by decreasing cosine."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest rows of the other side, for n source rows and m target rows.

    Each row is sorted by decreasing cosine, equal cosines by increasing row number. When the other side has fewer than
    k rows the tail is `MISSING_ROW` with `MISSING_COSINE`: mask with `forward_rows >= 0`.

    Raises:
        EmbeddingError: the four tables do not have the shapes and types below.
    """

    forward_rows: Rows
    """int64 (n, k): target rows, or -1."""
    forward_cosines: Cosines
    """float32 (n, k): their cosines, or -inf."""
    backward_rows: Rows
    """int64 (m, k): source rows, or -1."""
    backward_cosines: Cosines
    """float32 (m, k): their cosines, or -inf."""
    engine: str = ""
    """The engine that computed them."""
    reason: str = ""
    """Why that engine, in words for a person."""
    recall: float = 1.0
    """Share of the exact neighbours that are in the lists, the lower of both directions; below 1 it is an estimate."""
    products: int | None = None
    """Products computed, where they are not those of all rows with all rows."""

    def __post_init__(self) -> None:
        _check_tables(self.forward_rows, self.forward_cosines, self.backward_rows.shape[0], "forward")
        _check_tables(self.backward_rows, self.backward_cosines, self.forward_rows.shape[0], "backward")
        if self.forward_rows.shape[1] != self.backward_rows.shape[1]:
            raise EmbeddingError(
                f"Forward lists hold {self.forward_rows.shape[1]} neighbours, backward ones "
                f"{self.backward_rows.shape[1]}.",
                expected="the same k in both directions",
            )

    @property
    def k(self) -> int:
        """Neighbours asked for in each direction."""
        return int(self.forward_rows.shape[1])

    @property
    def source_count(self) -> int:
        """Source rows, n."""
        return len(self.forward_rows)

    @property
    def target_count(self) -> int:
        """Target rows, m."""
        return len(self.backward_rows)


def _check_tables(rows: Rows, cosines: Cosines, others: int, direction: str) -> None:
    shaped = rows.ndim == 2 and rows.shape == cosines.shape
    if not shaped or rows.dtype != np.int64 or cosines.dtype != np.float32:
        raise EmbeddingError(
            f"The {direction} neighbours are {rows.dtype} {rows.shape} with cosines {cosines.dtype} {cosines.shape}.",
            expected="int64 rows and float32 cosines of one shape (rows, k)",
        )
    if rows.size and (rows.max() >= others or rows.min() < MISSING_ROW):
        raise EmbeddingError(
            f"The {direction} neighbours name rows from {rows.min()} to {rows.max()}.",
            expected=f"rows below {others} on the other side, or -1 where there is none",
            cause="the two directions come from different indexes",
        )
