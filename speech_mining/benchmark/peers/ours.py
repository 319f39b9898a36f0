"""Ours: `both_directions`, then `mine` by the `max` strategy, as `s2s mine` does by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NAME = "ours"


def version(asked: Any) -> str:
    """Of this project."""
    from speech_mining import __version__

    return __version__


class Contender:
    """Reads float32 rows, as `s2s mine` does."""

    mines = True
    note = ""

    def __init__(self, asked: Any) -> None:
        from speech_mining.knn import both_directions
        from speech_mining.mining import strategies

        self._both_directions, self._mine, self._asked = both_directions, strategies.mine, asked
        self._source, self._target = np.load(asked["source"]), np.load(asked["target"])

    def search(self) -> None:
        """One call."""
        asked = self._asked
        self._neighbours = self._both_directions(
            self._source, self._target, asked["k"], engine=asked["engine"], threads=asked["threads"]
        )
        self.note = self._neighbours.reason

    def mine(self) -> None:
        """Ratio margin, each row of either side once."""
        self._mined = self._mine(self._neighbours, strategy="max", threshold=self._asked["threshold"])

    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """With cosines: the parent mines from them again by the rule of each peer."""
        names = ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines")
        return {name: getattr(self._neighbours, name) for name in names}

    def pairs(self) -> dict[str, npt.NDArray[Any]]:
        """By decreasing score."""
        return {"score": self._mined.score, "source": self._mined.source, "target": self._mined.target}
