"""sentence-transformers: `util.semantic_search` in both directions, with its own block sizes; it has no mining step.

The recipe for parallel sentences among its examples is FAISS's flat search both ways and LASER's scoring loop; those
two are contenders of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NAME = "sentence-transformers"


def version(asked: Any) -> str:
    """Its own and torch's."""
    import sentence_transformers  # type: ignore[import-not-found]
    import torch

    return f"{sentence_transformers.__version__}, torch {torch.__version__}"


class Contender:
    """The inner product is its score, which its documentation gives as the faster one for unit rows."""

    mines = False
    note = "util.semantic_search with dot_score, once in each direction"

    def __init__(self, asked: Any) -> None:
        import torch
        from sentence_transformers import util

        torch.set_num_threads(asked["threads"])
        self._util, self._k = util, asked["k"]
        self._source, self._target = (torch.from_numpy(np.load(asked[side])) for side in ("source", "target"))

    def search(self) -> None:
        """Its answer is a list of dictionaries, and making them is a part of it."""
        self._forward = self._found(self._source, self._target)
        self._backward = self._found(self._target, self._source)

    def _found(self, queries: Any, corpus: Any) -> list[list[dict[str, Any]]]:
        found: list[list[dict[str, Any]]] = self._util.semantic_search(
            queries, corpus, top_k=self._k, score_function=self._util.dot_score
        )
        return found

    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """Its dictionaries as tables."""
        return {"forward_rows": self._rows(self._forward), "backward_rows": self._rows(self._backward)}

    def _rows(self, found: list[list[dict[str, Any]]]) -> npt.NDArray[np.int64]:
        rows = np.full((len(found), self._k), -1, np.int64)
        for row, hits in zip(rows, found, strict=True):
            row[: len(hits)] = [hit["corpus_id"] for hit in hits]
        return rows

    def mine(self) -> None:
        """Do nothing."""

    def pairs(self) -> dict[str, npt.NDArray[Any]]:
        """None."""
        return {}
