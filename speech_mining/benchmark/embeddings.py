"""The matrices every contender reads: made by seed where none is given, and laid in files that all of them accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError, SettingsError

Unit: TypeAlias = npt.NDArray[np.float32]

WARM_ROWS = 512
"""Rows of the search that goes before the timed one."""
DEFAULT_ROWS, DEFAULT_DIMENSION = 10_000, 1024
SHARED = 0.7
"""A direction that all rows share, so that cosines are positive, as an encoder's are."""
EASIEST, HARDEST = 0.8, 5.0
"""Noise added to a translation, of the row's own size: ratio margins from about 1.9 down to those of strangers."""


@dataclass(frozen=True)
class Sides:
    """Where two matrices lie: .npy files of float32 unit rows, and their first rows for warming up."""

    source: Path
    target: Path
    warm_source: Path
    warm_target: Path
    source_rows: int
    target_rows: int
    dimension: int
    origin: str
    """What they are, in words for a person."""


def synthetic_sides(rows: int, target_rows: int, dimension: int, seed: int = 0) -> tuple[Unit, Unit]:
    """Two sides of random unit rows; half of the smaller side has a translation on the other, easy or hard.

    Returns:
        float32 (rows, dimension) and (target_rows, dimension).
    """
    from speech_mining.knn import normalise

    rng = np.random.default_rng(seed)
    source, target = (rng.standard_normal((count, dimension), np.float32) for count in (rows, target_rows))
    translated = min(rows, target_rows) // 2
    noise = np.geomspace(EASIEST, HARDEST, translated, dtype=np.float32)[:, None]
    target[:translated] = (source[:translated] + noise * target[:translated]) / np.sqrt(1 + noise**2)
    shared = SHARED * rng.standard_normal(dimension, np.float32)
    return normalise(source + shared), normalise(target + shared)


def lay_synthetic(folder: Path, rows: int | None, target_rows: int | None, dimension: int | None) -> Sides:
    """Make both sides and write them into `folder`."""
    count = rows or DEFAULT_ROWS
    source, target = synthetic_sides(count, target_rows or count, dimension or DEFAULT_DIMENSION)
    return _lay(folder, source, target, "synthetic, half of the rows translated, seed 0")


def lay_files(
    folder: Path, source: Path, target: Path, rows: int | None, target_rows: int | None, read: Callable[[Path], Unit]
) -> Sides:
    """Write the first rows of two files into `folder`, normalised to float32, so that all read the same.

    Args:
        folder: where the copies go.
        source: a .npy file.
        target: the same.
        rows: rows of `source` to take; None takes all.
        target_rows: rows of `target` to take; None takes as many as `rows` says.
        read: gives float32 unit rows of a file, or raises `EmbeddingError`.

    Raises:
        EmbeddingError: a side without rows, or sides of two dimensions; whatever `read` raises.
    """
    left, right = read(source)[:rows], read(target)[: target_rows or rows]
    for side, path in ((left, source), (right, target)):
        if not len(side):
            raise EmbeddingError(f"{path} has no rows.", expected="at least one row on each side")
    if left.shape[1] != right.shape[1]:
        raise EmbeddingError(
            f"{source} has rows of {left.shape[1]} values, {target} of {right.shape[1]}.",
            expected="one dimension on both sides",
            cause="the two sides were embedded by different encoders",
            fix="embed both with the same encoder",
        )
    return _lay(folder, left, right, f"{source} and {target}")


def check_origin(source: Path | None, target: Path | None, dimension: int | None) -> None:
    """Refuse half a pair of files, and a dimension for files that have their own.

    Raises:
        SettingsError: either of them.
    """
    if (source is None) != (target is None):
        raise SettingsError(
            f"Only one matrix was given, {source or target}.",
            expected="SRC.npy and TGT.npy, or neither for synthetic rows",
            cause="neighbours are searched between two sides",
            fix="name the other file too",
        )
    if source is not None and dimension is not None:
        raise SettingsError(
            f"Files were given together with --dimension {dimension}.",
            expected="--dimension for synthetic rows only; files have their own",
            fix="leave --dimension out",
        )


def _lay(folder: Path, source: Unit, target: Unit, origin: str) -> Sides:
    names = ("source", "target", "warm_source", "warm_target")
    paths = {name: folder / f"{name}.npy" for name in names}
    for name, rows in zip(names, (source, target, source[:WARM_ROWS], target[:WARM_ROWS]), strict=True):
        np.save(paths[name], rows)
    return Sides(**paths, source_rows=len(source), target_rows=len(target), dimension=source.shape[1], origin=origin)
