"""What a matrix of embeddings must be before it is searched: finite, no zero row, rows of unit length.

Nothing is searched here, and no file is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError

Matrix: TypeAlias = npt.NDArray[np.float16] | npt.NDArray[np.float32]

UNIT_TOLERANCE = 5e-3
"""How far a row's length may be from 1: fp16 rounding moves it by at most 2^-11, a tenth of this."""
CHUNK_VALUES = 1 << 18
"""Values looked at together, so that a memory map is never read whole: 2 MB where they are worked on in float64."""
FLOATS = tuple(np.dtype(f"{order}f{size}") for size in (2, 4, 8) for order in "<>")
"""What can be normalised, in either order of bytes."""
NAMED_ROWS = 5
"""Bad rows an error names before it only counts them."""


class Stack:
    """Matrices of one dimension and type laid end to end, without copying them: what a language's blocks are."""

    def __init__(
        self, blocks: Sequence[npt.NDArray[Any] | Chosen], dimension: int = 0, dtype: Any = np.float16
    ) -> None:
        """Stack `blocks`; `dimension` and `dtype` are those of a stack of none.

        Raises:
            EmbeddingError: blocks differ in dimension or type.
        """
        forms = {(block.shape[1:], block.dtype.name) for block in blocks}
        if len(forms) > 1:
            raise EmbeddingError(
                f"Blocks of {len(forms)} forms: {', '.join(f'{dtype} {shape}' for shape, dtype in sorted(forms))}.",
                expected="one dimension and one type in all blocks",
                cause="they were embedded by different encoders",
            )
        self.blocks = list(blocks)
        self.dtype = blocks[0].dtype if blocks else np.dtype(dtype)
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])
        self.shape = (int(self._starts[-1]), blocks[0].shape[1] if blocks else dimension)
        self.ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Rows `first:stop`; a copy only where they come from more than one block."""
        parts: list[npt.NDArray[Any]] = self._pieces(rows)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), self.dtype)

    def part(self, rows: slice) -> Stack:
        """Rows `first:stop` without copying them."""
        return Stack(self._pieces(rows), self.shape[1], self.dtype)

    def _pieces(self, rows: slice) -> list[Any]:
        first, stop, _ = rows.indices(len(self))
        parts = []
        for number in range(int(np.searchsorted(self._starts, first, "right")) - 1, len(self.blocks)):
            start = int(self._starts[number])
            if start >= stop:
                break
            parts.append(self.blocks[number][max(first - start, 0) : stop - start])
        return parts

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A copy of chosen rows, in the order they are named."""
        chosen = np.empty((len(rows), self.shape[1]), self.dtype)
        number = np.searchsorted(self._starts, rows, "right") - 1
        for block in np.unique(number):
            here = np.flatnonzero(number == block)
            chosen[here] = taken(self.blocks[block], rows[here] - self._starts[block])
        return chosen


class Chosen:
    """Some rows of a matrix, read when they are wanted."""

    def __init__(self, matrix: Any, rows: npt.NDArray[np.int64]) -> None:
        """Choose `rows` of an array, a memory map or a `Stack`."""
        self._matrix, self._rows = matrix, rows
        self.shape = (len(rows), int(matrix.shape[1]))
        self.dtype = matrix.dtype
        self.ndim = 2

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """A copy of rows `first:stop` of the chosen ones."""
        return taken(self._matrix, self._rows[rows])

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A copy of some of the chosen rows, in the order they are named."""
        return taken(self._matrix, self._rows[rows])


def part_of(matrix: Any, rows: slice) -> Any:
    """Rows `first:stop` of an array, a memory map or a `Stack`, without copying them."""
    return matrix.part(rows) if isinstance(matrix, Stack) else matrix[rows]


def taken(matrix: Any, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy of chosen rows of an array, a memory map, a `Stack` or a `Chosen`."""
    by_itself = isinstance(matrix, (Stack, Chosen))
    chosen: npt.NDArray[Any] = matrix.take(rows) if by_itself else np.asarray(matrix[rows])
    return chosen


def raw(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view for compiled code, float16 as its bits; a copy only where rows are not contiguous."""
    view = np.ascontiguousarray(matrix).view(np.ndarray)
    view = view.view(np.uint16) if view.dtype == np.float16 else view[:]
    view.flags.writeable = False  # one compiled version for arrays and memory maps
    return view


def normalise(matrix: npt.NDArray[Any] | Stack, name: str = "The matrix") -> npt.NDArray[np.float32]:
    """Divide each row by its length; the input is left as it is.

    Rows are first divided by their largest magnitude, so lengths that overflow or vanish in float64 do neither.

    Args:
        matrix: floating point (n, d), an array, a memory map or a `Stack`.
        name: what the matrix is called in errors.

    Returns:
        float32 (n, d), rows of unit length to float32's precision.

    Raises:
        EmbeddingError: not a floating matrix, a row with NaN or infinity, a zero row.
    """
    unit = np.empty(matrix.shape, np.float32)
    for part, rows in normalised_parts(matrix, name):
        unit[part] = rows
    return unit


def normalised_parts(matrix: Any, name: str = "The matrix") -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Do what `normalise` does, some rows at a time: for matrices larger than memory.

    Args:
        matrix: as for `normalise`, or a `Stack`.
        name: what the matrix is called in errors.

    Yields:
        Which rows, and float32 rows of unit length, C-contiguous.

    Raises:
        EmbeddingError: as `normalise`, before anything is yielded.
    """
    _check_form(matrix, name, FLOATS)
    largest = _largest_magnitudes(matrix)
    _refuse_rows(np.flatnonzero(~np.isfinite(largest)), len(matrix), name, "hold NaN or infinity")
    _refuse_rows(np.flatnonzero(largest == 0), len(matrix), name, "are zero")
    for part in _chunks(matrix):
        scaled = matrix[part].astype(np.float64) / largest[part, None]
        unit = scaled / np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
        yield part, unit.astype(np.float32, order="C")


def check_unit_rows(matrix: Any, name: str) -> None:
    """Refuse a matrix that the engines cannot search.

    Args:
        matrix: float16 or float32 (n, d) with unit rows: an array, a memory map or a `Stack`.
        name: what the matrix is called in errors.

    Raises:
        EmbeddingError: not such a matrix; the rows at fault are named.
    """
    from speech_mining.knn.kernels import squared_lengths  # numba is loaded when there is work for it

    _check_form(matrix, name, (np.float16, np.float32))
    bad, lengths = [np.empty(0, np.intp)], [np.empty(0, np.float64)]
    for part in _chunks(matrix):
        rows = raw(matrix[part])
        squares = np.empty(len(rows), np.float32)
        squared_lengths(rows, squares)
        own = np.sqrt(squares.astype(np.float64))
        wrong = np.flatnonzero(~(np.abs(own - 1) <= UNIT_TOLERANCE))
        bad.append(wrong + part.start)
        lengths.append(own[wrong])
    wrong = np.concatenate(bad)
    if len(wrong):
        _refuse_lengths(wrong, np.concatenate(lengths), matrix, name)


def _refuse_lengths(bad: npt.NDArray[np.intp], lengths: npt.NDArray[np.float64], matrix: Any, name: str) -> None:
    largest = _largest_magnitudes(matrix)[bad]
    _refuse_rows(bad[~np.isfinite(largest)], len(matrix), name, "hold NaN or infinity")
    _refuse_rows(bad[largest == 0], len(matrix), name, "are zero")
    raise EmbeddingError(
        f"{name} has {len(bad)} of {len(matrix)} rows that are not of unit length "
        f"({_listed(bad)}; row {bad[0]} has length {lengths[0]:.4g}).",
        expected=f"lengths within {UNIT_TOLERANCE} of 1, since the inner product is taken as the cosine",
        cause="the embeddings were not normalised",
        fix="pass them through speech_mining.knn.vectors.normalise",
    )


def _check_form(matrix: Any, name: str, dtypes: tuple[Any, ...]) -> None:
    if matrix.ndim != 2 or matrix.dtype not in dtypes:
        names = dict.fromkeys(np.dtype(dtype).name for dtype in dtypes)
        raise EmbeddingError(
            f"{name} is {matrix.dtype} with shape {matrix.shape}.",
            expected=f"two dimensions (rows, dimension) of {' or '.join(names)}",
            cause="this is not a matrix with one embedding a row",
        )
    if matrix.shape[1] == 0:
        raise EmbeddingError(f"{name} has rows of dimension 0.", expected="at least one value a row")


def _largest_magnitudes(matrix: Any) -> npt.NDArray[np.float64]:
    largest = np.empty(len(matrix), np.float64)
    for part in _chunks(matrix):
        largest[part] = np.abs(matrix[part]).max(axis=1)
    return largest


def _chunks(matrix: Any) -> Iterator[slice]:
    step = max(1, CHUNK_VALUES // matrix.shape[1])
    return (slice(first, first + step) for first in range(0, len(matrix), step))


def _refuse_rows(bad: npt.NDArray[np.intp], count: int, name: str, what: str) -> None:
    if len(bad):
        raise EmbeddingError(
            f"{name} has {len(bad)} of {count} rows that {what}: {_listed(bad)}.",
            expected="finite rows with at least one value that is not zero",
            cause="silent or too long input reached the encoder, or the file is damaged",
            fix="leave those rows out, and keep the list of rows that stayed",
        )


def _listed(bad: npt.NDArray[np.intp]) -> str:
    shown = ", ".join(str(row) for row in bad[:NAMED_ROWS])
    return f"rows {shown}" + (", …" if len(bad) > NAMED_ROWS else "")
