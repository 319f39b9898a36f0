"""The `int8` engine: rows rotated at random, rounded to int8, multiplied by the processor's int8 instructions.

Without the rotation, rows whose values are of uneven size lose their small values in rounding: recall fell to 0.68 on
anisotropic data. The rotation keeps every product as it was, and leaves values of even, near-normal size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.blocks import BlockEngine, Prepared
from speech_mining.knn.engines.fp32 import product_error
from speech_mining.knn.engines.protocol import Errors
from speech_mining.knn.kernels import ROUNDS, quantise
from speech_mining.knn.products import multiply_codes
from speech_mining.knn.vectors import raw

SEED = 20211
SIGMAS = 8.0
"""What a rough product is trusted to, in standard deviations of its error: one in 10^15 beyond for a normal error."""
ALIGN = 64
"""Dimensions are padded to a multiple of this with zeros: mixing wants values to mix, the processor whole vectors."""


class Int8(BlockEngine):
    """Candidates by int8 products of randomly rotated rows.

    The rotation is two rounds of a randomised Hadamard transform (Ailon & Chazelle 2009, "The fast
    Johnson-Lindenstrauss transform"), randomised by angles instead of signs: by signs, rows of few distinct values
    stay on a lattice, and their rounding errors are not independent. It takes a microsecond for a row of 1024, a
    dense orthogonal matrix ten.

    With x = x' + e and y = y' + f, codes and rests, x.y - x'.y' = e.y + x'.f. A rest of a randomly rotated row points
    in no particular direction, so its product with a unit vector has standard deviation |e| / sqrt(p). Rows are trusted
    to `SIGMAS` of these, and never further than |e| + |f| (1 + |e|), which always holds (Cauchy-Schwarz). Nothing is
    clipped, since what clipping takes away does point somewhere: along its own row, and so along its translations.
    """

    name = "int8"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.padded = -(-dimension // ALIGN) * ALIGN
        steps = math.ceil(math.log(self.padded, 4))
        angles = np.random.default_rng(SEED).uniform(0, 2 * np.pi, (ROUNDS, self.padded // 2))
        sines, cosines = np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)
        self._rotation = sines, cosines, steps, np.float32(0.5 ** (ROUNDS * steps))

    def row_bytes(self) -> int:
        """Memory that one prepared row takes."""
        return self.padded + 8

    def usual_error(self) -> float:
        """That of two rows whose largest value is five standard deviations."""
        rest = np.full(1, 5 / 127 / 12**0.5, np.float32)
        return float(self.errors(rest, float(rest[0]))[0])

    def room(self, rows: int) -> Prepared:
        """Memory for so many prepared rows."""
        return Prepared(np.empty((rows, self.padded), np.int8), np.empty(rows, np.float32), np.empty(rows, np.float32))

    def prepare(self, rows: npt.NDArray[Any], prepared: Prepared) -> None:
        """Fill `prepared` from rows of embeddings."""
        quantise(raw(rows), self._rotation, prepared.codes, prepared.units, prepared.rests)

    def block(self, rows: int, columns: int) -> Any:
        """A tensor for so many products."""
        import torch

        return torch.empty(rows, columns, dtype=torch.int32)

    def multiply(self, left: npt.NDArray[Any], right: npt.NDArray[Any], out: Any) -> npt.NDArray[Any]:
        """Products of all rows."""
        return multiply_codes(left, right, out)

    def errors(self, own: npt.NDArray[np.float32], other: float) -> Errors:
        """Error bound of rows with these rests, against rows whose rests are at most `other`."""
        rests = own.astype(np.float64)
        likely = SIGMAS * np.sqrt((rests**2 + ((1 + rests) * other) ** 2) / self.padded)
        certain = rests + other * (1 + rests)
        # the rotation's own float32 rounding, and lengths within the tolerance of 1
        slack = 40 * 2.0**-24 + product_error(self.dimension)
        return np.minimum(likely, certain) * (1 + 5e-3) + slack
