"""FAISS: an IndexFlatIP of each side, searched with the other; it has no mining step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NAME = "faiss"


def version(asked: Any) -> str:
    """FAISS's own."""
    import faiss

    return str(faiss.__version__)


class Contender:
    """Adding the rows to the index is a part of the search, as in LASER's knnCPU: 0.05 s of 100 at 50 000 rows."""

    mines = False
    note = "IndexFlatIP, one search in each direction"

    def __init__(self, asked: Any) -> None:
        import faiss

        faiss.omp_set_num_threads(asked["threads"])
        self._k = asked["k"]
        self._source, self._target = np.load(asked["source"]), np.load(asked["target"])

    def search(self) -> None:
        """Search both ways."""
        self._forward = self._found(self._source, self._target)
        self._backward = self._found(self._target, self._source)

    def _found(self, queries: npt.NDArray[np.float32], base: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        import faiss

        index = faiss.IndexFlatIP(base.shape[1])
        index.add(base)
        rows: npt.NDArray[np.int64] = index.search(queries, self._k)[1]
        return rows

    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """As FAISS gives them: -1 where there is no neighbour."""
        return {"forward_rows": self._forward, "backward_rows": self._backward}

    def mine(self) -> None:
        """Do nothing."""

    def pairs(self) -> dict[str, npt.NDArray[Any]]:
        """None."""
        return {}
