"""Embeddings as a user hands them in: a .npy file, a folder or a pattern; mapped into memory, normalised, named.

What belongs here is finding, checking and normalising them. What is done with them is in the commands.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn.fingerprint import Fingerprint, difference, fingerprint
from speech_mining.knn.vectors import Stack, normalised_parts
from speech_mining.stopes.shards import RawForm, find_shards, is_pattern, natural, open_shards

EXPECTED = "a .npy file as numpy.save writes it, float16, float32 or float64, one embedding a row, or a folder of them"


class Embeddings:
    """One side's embeddings, mapped into memory."""

    def __init__(self, path: Path, raw: RawForm | None = None) -> None:
        """Find the matrix or the shards at `path`.

        Args:
            path: a file, a folder of .npy files, or a pattern such as `encf.*.deu`.
            raw: what files without a header hold.

        Raises:
            EmbeddingError: nothing there, something that is not a matrix, or shards that do not fit together.
        """
        self.path = path
        self.files = _files(path)
        shards = open_shards(self.files, raw)
        self.matrix: Any = shards.blocks[0] if len(shards.blocks) == 1 else shards

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Of all values, wherever shards are cut; reads them."""
        return fingerprint(self.matrix, self.files)

    def unit_rows(self, folder: Path) -> Any:
        """Divide rows by their lengths: float32 (n, d).

        Nothing is held in memory: where division changes no value, the files are taken as they are; else rows are
        written to a file in `folder` that has no name, and so goes with the process, however that ends.

        Raises:
            EmbeddingError: NaN or zero rows, which are named.
            SettingsError: no room for that file.
        """
        if not len(self.matrix):
            return np.empty(self.matrix.shape, np.float32)
        if self._lies_ready() and self._is_unit():
            return self.matrix
        parts = (rows for _, rows in normalised_parts(self.matrix, str(self.path)))
        return laid_down(parts, self.matrix.shape, folder, f"The normalised rows of {self.path}")

    def _lies_ready(self) -> bool:
        blocks: list[Any] = self.matrix.blocks if isinstance(self.matrix, Stack) else [self.matrix]
        return all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)

    def _is_unit(self) -> bool:
        parts = normalised_parts(self.matrix, str(self.path))
        return all(np.array_equal(rows, self.matrix[part]) for part, rows in parts)


@dataclass(frozen=True)
class Sides:
    """The two matrices that are searched against each other."""

    source: Embeddings
    target: Embeddings

    def __post_init__(self) -> None:
        left, right = self.source, self.target
        if left.matrix.shape[1] != right.matrix.shape[1]:
            raise EmbeddingError(
                f"{left.path} has rows of {left.matrix.shape[1]} values, {right.path} of {right.matrix.shape[1]}.",
                expected="one dimension on both sides",
                cause="the two sides were embedded by different encoders",
                fix="embed both with the same encoder",
            )

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Of both; reads them whole, once."""
        return {"source": self.source.fingerprint, "target": self.target.fingerprint}

    def differences(self, kept: Mapping[str, Any]) -> list[str]:
        """Which side is not the one whose fingerprint was kept, and why."""
        found = {
            name: difference(kept.get(name, {}), side.matrix, side.files)
            for name, side in (("source", self.source), ("target", self.target))
        }
        return [f"the {name} matrix is another ({differing})" for name, differing in found.items() if differing]


def laid_down(parts: Iterable[npt.NDArray[np.float32]], shape: tuple[int, int], folder: Path, what: str) -> Any:
    """Write rows to a file that has no name, and so goes with the process, however that ends: float32, mapped.

    Args:
        parts: of the rows, in order; each contiguous.
        shape: of all rows together; at least one.
        folder: where the file lies.
        what: the rows are, for the error.

    Raises:
        SettingsError: no room for that file.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for rows in parts:
                file.write(rows.data)
            file.flush()
            return np.memmap(file, np.float32, "r", shape=shape)
    except OSError as error:
        raise SettingsError(
            f"{what} cannot be written to {folder} ({error.strerror}).",
            expected=f"room for {4e-9 * shape[0] * shape[1]:.3g} GB while the search runs",
            fix="make room, or write the pairs elsewhere",
        ) from error


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        shards = [file for file in path.glob("*.npy") if file.is_file() and not file.name.startswith(".")]
        if not shards:
            raise EmbeddingError(f"The folder {path} holds no .npy file.", expected=EXPECTED)
        return sorted(shards, key=natural)
    return find_shards(str(path)) if is_pattern(path) else [path]
