"""The `fp32` engine: float32 products of the rows as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.blocks import BlockEngine, Prepared
from speech_mining.knn.engines.protocol import Errors


def product_error(dimension: int) -> float:
    """Bound on |float32 product - cosine| of unit rows, whatever the order of addition.

    Higham, "Accuracy and stability of numerical algorithms", 2nd ed., eq. 3.5: dimension * 2^-24 * |x||y|, with room
    for the second-order term, for lengths that are not quite 1 and for the cosine's own rounding.
    """
    return (dimension + 8) * 2.0**-24 * 1.02


class Fp32(BlockEngine):
    """Candidates by float32 products."""

    name = "fp32"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def row_bytes(self) -> int:
        """Memory that one prepared row takes."""
        return 4 * self.dimension + 8

    def usual_error(self) -> float:
        """A little more than the bound."""
        return 1.01 * product_error(self.dimension)

    def room(self, rows: int) -> Prepared:
        """Memory for so many prepared rows."""
        return Prepared(
            np.empty((rows, self.dimension), np.float32), np.ones(rows, np.float32), np.zeros(rows, np.float32)
        )

    def prepare(self, rows: npt.NDArray[Any], prepared: Prepared) -> None:
        """Fill `prepared` from rows of embeddings."""
        prepared.codes[:] = rows

    def block(self, rows: int, columns: int) -> Any:
        """A tensor for so many products."""
        import torch

        return torch.empty(rows, columns)

    def multiply(self, left: npt.NDArray[Any], right: npt.NDArray[Any], out: Any) -> npt.NDArray[Any]:
        """Products of all rows."""
        import torch

        product: npt.NDArray[np.float32] = torch.mm(
            torch.from_numpy(left), torch.from_numpy(right).t(), out=out
        ).numpy()
        return product

    def errors(self, own: npt.NDArray[np.float32], other: float) -> Errors:
        """Error bound of rows with these rests, against rows whose rests are at most `other`."""
        return np.full(len(own), product_error(self.dimension))
