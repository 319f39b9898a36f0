"""Embedding shards as stopes leaves them, mapped into memory where they lie.

What its encoders write are .npy files, whatever their name (`encf.000.deu`), float32 or, with `fp16`, float16. Older
releases wrote bare values; beside those may lie a header of the same name (`encf.000.hdr`), else their dimension and
type must be told.

Shards are taken in the order in which stopes counts rows through: by the number of three digits between dots, then by
name, numbers in names counting as numbers. (Where it finds no such number, as in the `encf.00000.deu` of its speech
encoders, stopes takes files as the folder happens to list them.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.knn.vectors import Stack

EXPECTED = "a .npy file as numpy.save writes it, float16, float32 or float64, one embedding a row"
MAGIC = b"\x93NUMPY"
HEADER_SUFFIX = ".hdr"
RAW_TYPES = ("float16", "float32")
_SHARD_NUMBER = re.compile(r"\.([0-9]{3})\.")


@dataclass(frozen=True)
class RawForm:
    """What files without a header hold: `dtype` values, in rows of `dimension`."""

    dimension: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.dtype not in RAW_TYPES:
            raise EmbeddingError(
                f"Values without a header are said to be {self.dtype} in rows of {self.dimension}.",
                expected=f"{' or '.join(RAW_TYPES)}, in rows of at least one",
            )


def is_pattern(path: Path) -> bool:
    """Whether a path is meant as a pattern: it has a wildcard, and nothing has that very name."""
    return any(wildcard in str(path) for wildcard in "*?[") and not path.exists()


def find_shards(pattern: str) -> list[Path]:
    """Files that match, in the order of stopes; headers of raw shards are left out.

    Raises:
        EmbeddingError: none.
    """
    anchor = Path(pattern).anchor
    found = Path(anchor).glob(str(Path(pattern).relative_to(anchor)))
    shards = [path for path in found if path.is_file() and path.suffix != HEADER_SUFFIX and path.name[0] != "."]
    if not shards:
        raise EmbeddingError(
            f"No file matches {pattern}.", expected="embedding shards", cause="a wrong folder, or a wildcard too few"
        )
    return sorted(shards, key=_order)


def _order(path: Path) -> tuple[int, Any]:
    number = _SHARD_NUMBER.search(str(path))
    return (int(number[1]) if number else 0), natural(path)


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Numbers in names count as numbers: shard 9 before shard 10; 09 and 9 are told apart by the name itself."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def open_shards(paths: Sequence[Path], raw: RawForm | None = None) -> Stack:
    """All shards of a language end to end, without copying them.

    Raises:
        EmbeddingError: as `open_shard`, or shards that differ in dimension or type.
    """
    blocks = [open_shard(path, raw) for path in paths]
    for path, block in zip(paths, blocks, strict=True):
        if (block.shape[1], block.dtype) != (blocks[0].shape[1], blocks[0].dtype):
            raise EmbeddingError(
                f"{path} is {block.dtype} with rows of {block.shape[1]} values, {paths[0].name} {blocks[0].dtype} "
                f"with rows of {blocks[0].shape[1]}.",
                expected="one dimension and one type in all shards",
                cause="they are shards of different encoders",
            )
    return Stack(blocks)


def open_shard(path: Path, raw: RawForm | None = None) -> npt.NDArray[Any]:
    """One shard, mapped into memory: (rows, dimension).

    Args:
        path: a .npy file of any name, or bare values with a header beside them.
        raw: what bare values without a header are; a file that has a header is read by its own.

    Raises:
        EmbeddingError: not such a file, cut short, or bare values of which nobody tells what they are.
    """
    if not path.is_file():
        raise EmbeddingError(f"There is no file {path}.", expected=EXPECTED)
    with path.open("rb") as file:
        has_header = file.read(len(MAGIC)) == MAGIC
    if has_header:
        return _mapped(path)
    header = path.with_suffix(HEADER_SUFFIX)
    if header.is_file():
        return _bare(path, *_header(header))
    if raw is None:
        raise EmbeddingError(
            f"{path} is not a .npy file.",
            expected=EXPECTED,
            cause="it is another kind of file, was cut short, or holds bare values as LASER and old stopes write them",
            fix="of bare values tell what they are, such as --dimension 1024 --dtype float32",
        )
    return _bare(path, None, np.dtype(raw.dtype), raw.dimension)


def _mapped(path: Path) -> npt.NDArray[Any]:
    shape, dtype = _form(path)
    if len(shape) != 2 or dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        raise EmbeddingError(f"{path} is {dtype} with shape {shape}.", expected=EXPECTED)
    try:
        # the system refuses to map a file without data
        matrix: npt.NDArray[Any] = np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise EmbeddingError(f"{path} cannot be read ({error}).", cause="the file was cut short") from error
    return matrix


def _form(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type by the header alone, so that nothing which is not a plain matrix is ever loaded."""
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
    return shape, dtype


def _header(path: Path) -> tuple[int, np.dtype[Any], int]:
    shape, dtype = _form(path)
    if len(shape) != 2:
        raise EmbeddingError(f"{path} tells of the shape {shape}.", expected="(rows, dimension)")
    return shape[0], dtype, shape[1]


def _bare(path: Path, rows: int | None, dtype: np.dtype[Any], dimension: int) -> npt.NDArray[Any]:
    size, width = path.stat().st_size, dtype.itemsize * dimension
    if size % width or rows not in (None, size // width):
        told = f"{rows} rows" if rows is not None else "whole rows"
        raise EmbeddingError(
            f"{path} has {size} bytes, which are not {told} of {dimension} {dtype}.",
            cause="the file was cut short, or it has another dimension or type",
        )
    if not size:
        return np.empty((0, dimension), dtype)
    return np.memmap(path, dtype, "r", shape=(size // width, dimension))
