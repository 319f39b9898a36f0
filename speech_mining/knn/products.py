"""Blocks of inner products on the CPU: how many threads, how large a block, and the multiplications themselves.

What is kept of the products is in `kernels` and `settle`, how memory is divided in `plan`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Block: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tiling:
    """Sides of a block of products."""

    rows: int
    columns: int


@dataclass(frozen=True, eq=False)
class Crew:
    """Threads that each multiply on one core."""

    pool: ThreadPoolExecutor
    threads: int


def available_threads() -> int:
    """Cores this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def crew(threads: int) -> Iterator[Crew]:
    """Hire threads that each multiply on one core, in full float32.

    Torch's thread count belongs to the Python thread that sets it: with its own pool inside each of ours, 20 000 x
    20 000 took two and a half times as long.
    """
    import torch

    threads_before, precision_before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield Crew(pool, threads)
    finally:
        torch.set_float32_matmul_precision(precision_before)
        torch.set_num_threads(threads_before)


def bands(count: int, most: int, parts: int = 1) -> list[slice]:
    """Cut `count` rows in near-equal slices of at most `most` rows, a multiple of `parts` of them where rows allow."""
    if not count:
        return []
    number = min(count, parts * -(-count // (most * parts)))
    edges = [count * part // number for part in range(number + 1)]
    return [slice(first, stop) for first, stop in pairwise(edges)]


def widened(matrix: npt.NDArray[Any]) -> Block:
    """A float32 copy of part of a matrix or memory map."""
    return np.array(matrix, dtype=np.float32, order="C")


def multiply(left: Block, right: Block) -> Block:
    """Inner products of all rows: float32 (a, d), (b, d) -> (a, b)."""
    import torch

    # torch's kernel, not numpy's: 82 against 70 GFLOP/s on two AVX-512 cores
    product: Block = (torch.from_numpy(left) @ torch.from_numpy(right).T).numpy()
    return product


def multiply_codes(left: Any, right: Any, out: Any) -> npt.NDArray[np.int32]:
    """Inner products of all rows: int8 (a, p), (b, p) -> int32 (a, b), written to a prepared tensor.

    `torch._int_mm` is private. It is called here alone, and `int8_works` tries it before it is relied on.
    """
    import torch

    torch._int_mm(torch.from_numpy(left), torch.from_numpy(right).t(), out=out)
    product: npt.NDArray[np.int32] = out.numpy()
    return product


def int8_works() -> bool:
    """Whether this torch multiplies int8 matrices as `multiply_codes` expects; tried on extreme codes and odd sizes."""
    import torch

    if not hasattr(torch, "_int_mm"):
        return False
    codes = (np.arange(5 * 64) * 37 % 255 - 127).astype(np.int8).reshape(5, 64)
    out = torch.empty(5, 3, dtype=torch.int32)
    try:
        return bool(np.array_equal(multiply_codes(codes, codes[:3], out), codes.astype(np.int32) @ codes[:3].T))
    except (RuntimeError, TypeError):
        return False


def int8_is_fast() -> str:
    """The processor's instructions for int8 products (AMX, VNNI), empty when it has none that is known to pay.

    Measured against float32 on one core each: AMX 1 300 to 1 800 against 210 GFLOP/s, VNNI 410 against 85. Without
    them int8 is multiplied in pieces, and float32 is faster.
    """
    described = Path("/proc/cpuinfo")
    flags = set(described.read_text().split()) if described.exists() else set()
    known = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI"}
    return next((name for flag, name in known.items() if flag in flags), "")
