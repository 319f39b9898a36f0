"""Blocks of inner products on the CPU: how many threads, how large a block, and the multiplication itself.

What is kept of the products is in `fold` and `settle`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError

Block: TypeAlias = npt.NDArray[np.float32]

BLOCK_ROWS, BLOCK_COLUMNS = 512, 4096
"""An 8 MB block of products: the fold then costs under a tenth of the multiplication."""
LEAST_SIDE = 64
"""Blocks are not cut below this: the multiplication would no longer be the larger part."""


@dataclass(frozen=True)
class Tiling:
    """Sides of a block of products."""

    rows: int
    columns: int


def available_threads() -> int:
    """Cores this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tiling(memory_gb: float | None, kept_bytes: int, dimension: int, threads: int) -> Tiling:
    """Cut blocks so that the lists and one block a thread fit in `memory_gb`.

    Args:
        memory_gb: working memory in 10^9 bytes besides the two matrices; None takes the fastest blocks.
        kept_bytes: what the lists take whatever the blocks are.
        dimension: values in a row.
        threads: blocks in flight.

    Raises:
        SettingsError: the lists and the smallest blocks need more.
    """
    rows, columns = BLOCK_ROWS, BLOCK_COLUMNS
    if memory_gb is None:
        return Tiling(rows, columns)
    room = memory_gb * 1e9 - kept_bytes
    while _block_bytes(rows, columns, dimension) * threads > room and columns > LEAST_SIDE:
        rows, columns = min(rows, columns // 2), columns // 2
    needed = _block_bytes(rows, columns, dimension) * threads
    if needed > room:
        raise SettingsError(
            f"Neighbours were given {memory_gb:g} GB to work in.",
            expected=f"at least {(kept_bytes + needed) / 1e9:.3g} GB for the lists and {threads} smallest blocks",
            fix="give more memory, fewer threads or a smaller k",
        )
    return Tiling(rows, columns)


def _block_bytes(rows: int, columns: int, dimension: int) -> int:
    return 4 * (rows * columns + (rows + columns) * dimension)


@contextmanager
def workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each multiply on one core, in full float32.

    Torch's thread count belongs to the Python thread that sets it: with its own pool inside each of ours, 20 000 x
    20 000 took two and a half times as long.
    """
    import torch

    threads_before, precision_before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_float32_matmul_precision(precision_before)
        torch.set_num_threads(threads_before)


def widened(matrix: npt.NDArray[Any]) -> Block:
    """A float32 copy of part of a matrix or memory map."""
    return np.array(matrix, dtype=np.float32, order="C")


def multiply(left: Block, right: Block) -> Block:
    """Inner products of all rows: float32 (a, d), (b, d) -> (a, b)."""
    import torch

    # torch's kernel, not numpy's: 82 against 70 GFLOP/s on two AVX-512 cores
    product: Block = (torch.from_numpy(left) @ torch.from_numpy(right).T).numpy()
    return product
