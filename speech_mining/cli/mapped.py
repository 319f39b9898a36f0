"""Embeddings that are taken through a map (`s2s align`) before they are searched.

What belongs here is files. The arithmetic is `speech_mining.align.spaces`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speech_mining.cli.matrices import Embeddings, Sides, laid_down
from speech_mining.errors import EmbeddingError
from speech_mining.knn.fingerprint import Fingerprint, fingerprint

if TYPE_CHECKING:
    from speech_mining.align.spaces import Side, SpaceMap


def mapped_sides(source: Embeddings, target: Embeddings, path: Path) -> tuple[Sides, SpaceMap]:
    """Both sides in the common space of the map at `path`, and the map.

    Raises:
        EmbeddingError: there is no map, or it is of other dimensions.
    """
    from speech_mining.align.spaces import SpaceMap

    found = SpaceMap.load(path)
    return Sides(Mapped(source, found.source, path), Mapped(target, found.target, path)), found


class Mapped(Embeddings):
    """One side's embeddings in the common space; mapped when they are read, and only then."""

    def __init__(self, plain: Embeddings, side: Side, path: Path) -> None:
        """Take `plain` through one side of the map at `path`.

        Raises:
            EmbeddingError: its rows are of another dimension.
        """
        taken = len(side.form.mean)
        if plain.matrix.shape[1] != taken:
            raise EmbeddingError(
                f"{plain.path} has rows of {plain.matrix.shape[1]} values, and {path} takes rows of {taken} there.",
                expected="the matrices that the map was learned from, or others of the same encoders",
                cause="source and target are exchanged, or the map is of another pair",
            )
        self.path, self._map, self._plain, self._side = plain.path, path, plain, side
        self.files = [*plain.files, path]
        self.matrix: Any = _Rows(plain.matrix, side, str(plain.path))

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the mapped values, and of the map."""
        mapped_with = hashlib.sha256(self._map.read_bytes()).hexdigest()
        return {**fingerprint(self.matrix, self.files), "map": mapped_with}

    def unit_rows(self, folder: Path) -> Any:
        """Map all rows into a file in `folder` that has no name, and so goes with the process: float32 (n, c).

        Raises:
            EmbeddingError: NaN or zero rows, which are named.
            SettingsError: no room for that file.
        """
        if not len(self.matrix):
            return np.empty(self.matrix.shape, np.float32)
        return laid_down(self.matrix.parts(), self.matrix.shape, folder, f"The mapped rows of {self.path}")


class _Rows:
    """Rows of a matrix in the common space, mapped as they are asked for."""

    def __init__(self, matrix: Any, side: Side, name: str) -> None:
        self._matrix, self._side, self._name = matrix, side, name
        self.shape = (len(matrix), int(side.weights.shape[1]))
        self.dtype, self.ndim = np.dtype(np.float32), 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[np.float32]:
        """Rows `first:stop`; on one thread, since the last digits of products depend on their number."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            return self._side.apply(self._matrix[rows], self._name)

    def parts(self) -> Iterator[npt.NDArray[np.float32]]:
        """All rows, some at a time."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            for _, rows in self._side.parts(self._matrix, self._name):
                yield np.ascontiguousarray(rows)
