"""The yardstick: one raw float32 matrix product of that size, nothing kept of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NAME = "sgemm"
PRODUCT_BYTES = 1 << 30
"""The product is made in bands of rows: whole, 50 000 x 50 000 would take 10 GB and time the page faults too."""


def version(asked: Any) -> str:
    """Torch's."""
    import torch

    return f"torch {torch.__version__}"


class Contender:
    """torch.mm in bands of at most a gibibyte of product, all written to one buffer."""

    mines = False
    note = "torch.mm in float32: every product once, none of them looked at"

    def __init__(self, asked: Any) -> None:
        import torch

        torch.set_num_threads(asked["threads"])
        torch.set_float32_matmul_precision("highest")
        self._source, self._target = (torch.from_numpy(np.load(asked[side])) for side in ("source", "target"))
        band = min(max(1, PRODUCT_BYTES // (4 * len(self._target))), len(self._source))
        self._product = torch.zeros(band, len(self._target))

    def search(self) -> None:
        """Multiply."""
        import torch

        for rows in torch.split(self._source, len(self._product)):
            torch.mm(rows, self._target.T, out=self._product[: len(rows)])

    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """None."""
        return {}

    def mine(self) -> None:
        """Do nothing."""

    def pairs(self) -> dict[str, npt.NDArray[Any]]:
        """None."""
        return {}
