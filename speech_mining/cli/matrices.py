"""Embeddings as a user hands them in: a .npy file, or a folder of them; mapped into memory, normalised, named.

What belongs here is finding, checking and normalising them. What is done with them is in the commands.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.knn.vectors import Stack, normalise, normalised_parts

EXPECTED = "a .npy file as numpy.save writes it, float16, float32 or float64, one embedding a row, or a folder of them"
IN_MEMORY_BYTES = 2**28
"""Rows whose float32 copies are larger are normalised into a file, where memory is bounded."""
DIGEST_BYTES = 1 << 24


class Embeddings:
    """One side's embeddings, mapped into memory."""

    def __init__(self, path: Path) -> None:
        """Find the matrix or the shards at `path`.

        Raises:
            EmbeddingError: nothing there, something that is not a matrix, or shards that do not fit together.
        """
        self.path = path
        self.files = _files(path)
        self.matrix = Stack([_mapped(file) for file in self.files])

    @property
    def fingerprint(self) -> str:
        """Hash of the shape, the type and every byte of the rows, wherever shards are cut."""
        digest = hashlib.blake2b(f"{self.matrix.shape} {self.matrix.dtype.name}".encode(), digest_size=16)
        step = max(1, DIGEST_BYTES // max(1, self.matrix.shape[1] * self.matrix.dtype.itemsize))
        for first in range(0, len(self.matrix), step):
            digest.update(np.ascontiguousarray(self.matrix[first : first + step]).tobytes())
        return digest.hexdigest()

    def unit_rows(self, scratch: Path | None = None) -> npt.NDArray[np.float32]:
        """Divide rows by their lengths: float32 (n, d).

        Args:
            scratch: a .npy file to write them to where they are large; they are then mapped from it. None keeps them
                in memory.

        Raises:
            EmbeddingError: NaN or zero rows, which are named.
        """
        rows, dimension = self.matrix.shape
        if scratch is None or 4 * rows * dimension <= IN_MEMORY_BYTES:
            return normalise(self.matrix, str(self.path))
        scratch.parent.mkdir(parents=True, exist_ok=True)
        unit = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float32, shape=(rows, dimension))
        for part, normalised in normalised_parts(self.matrix, str(self.path)):
            unit[part] = normalised
        unit.flush()
        return np.load(scratch, mmap_mode="r")  # type: ignore[no-any-return]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        shards = sorted(path.glob("*.npy"), key=_natural)
        if not shards:
            raise EmbeddingError(f"The folder {path} holds no .npy file.", expected=EXPECTED)
        return shards
    if not path.is_file():
        raise EmbeddingError(f"There is no file {path}.", expected=EXPECTED)
    return [path]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Numbers in names count as numbers: shard 9 before shard 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _mapped(path: Path) -> npt.NDArray[Any]:
    shape = _matrix_shape(path)
    try:
        # the system refuses to map a file without data
        matrix = np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise EmbeddingError(f"{path} cannot be read ({error}).", cause="the file was cut short") from error
    if matrix.ndim != 2:
        raise EmbeddingError(f"{path} is {matrix.dtype} with shape {matrix.shape}.", expected=EXPECTED)
    native: npt.NDArray[Any] = matrix.astype(matrix.dtype.newbyteorder("="), copy=False)
    return native


def _matrix_shape(path: Path) -> tuple[int, ...]:
    """Read the header alone, so that nothing which is not a plain matrix is ever loaded."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
        except ValueError as error:
            raise EmbeddingError(
                f"{path} is not a .npy file.", expected=EXPECTED, cause="it is another kind of file, or was cut short"
            ) from error
    if dtype.hasobject:
        raise EmbeddingError(f"{path} holds Python objects, which are never unpickled.", expected=EXPECTED)
    return shape
