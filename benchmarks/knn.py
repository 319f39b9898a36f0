"""Exact neighbours in both directions against FAISS IndexFlatIP and against one raw matrix product.

    python -m benchmarks.knn --rows 10000 --columns 10000 --dimension 1024 --k 16 --repeats 3

All contenders run in one process, in turn, on the same arrays and with the same threads; the figure is the median.
The FAISS contender is what LASER and stopes do: an index of each side, searched with the other, without our
rescoring. The neighbours found are compared with FAISS's own.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.knn import both_directions, normalise
from speech_mining.knn.products import available_threads


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    rows: int
    columns: int
    dimension: int
    k: int
    repeats: int
    threads: int


def main() -> None:
    """Measure and print."""
    sizes = _arguments()
    source, target = synthetic_sides(sizes)
    contenders = _contenders(source, target, sizes)
    for contender in contenders.values():
        contender()  # compiled code is loaded, pages are touched
    seconds = _in_turn(contenders, sizes.repeats)
    _print(sizes, seconds, _recall(contenders["faiss, both directions"](), contenders["ours"]()))


def _arguments() -> Sizes:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.knn", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=10_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_threads())
    return Sizes(**vars(parser.parse_args()))


def synthetic_sides(sizes: Sizes) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Half of the smaller side has a noisy translation on the other; a shared direction makes all cosines positive."""
    rng = np.random.default_rng(0)
    source, target = (
        rng.standard_normal((count, sizes.dimension), np.float32) for count in (sizes.rows, sizes.columns)
    )
    shared = min(sizes.rows, sizes.columns) // 2
    target[:shared] = source[:shared] + 0.7 * target[:shared]
    common = rng.standard_normal(sizes.dimension, np.float32)
    return normalise(source + 0.7 * common).astype(np.float16), normalise(target + 0.7 * common).astype(np.float16)


def _contenders(source: Any, target: Any, sizes: Sizes) -> dict[str, Callable[[], Any]]:
    import torch

    left, right = (torch.from_numpy(side.astype(np.float32)) for side in (source, target))
    product = torch.empty(len(source), len(target))

    def sgemm() -> None:
        torch.set_num_threads(sizes.threads)
        torch.mm(left, right.T, out=product)

    return {
        "ours": lambda: both_directions(source, target, sizes.k, threads=sizes.threads),
        "faiss, both directions": lambda: _faiss(left.numpy(), right.numpy(), sizes),
        "one sgemm": sgemm,
    }


def _faiss(source: npt.NDArray[np.float32], target: npt.NDArray[np.float32], sizes: Sizes) -> list[Any]:
    import faiss

    faiss.omp_set_num_threads(sizes.threads)
    found = []
    for queries, base in ((source, target), (target, source)):
        index = faiss.IndexFlatIP(sizes.dimension)
        index.add(base)
        found.append(index.search(queries, sizes.k)[1])
    return found


def _in_turn(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each; every round runs all of them, so that a busy moment hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}


def _recall(theirs: list[Any], ours: Any) -> float:
    """Share of FAISS's neighbours that are among ours; 1 but for ties and its float32 rounding."""
    shares = [
        np.mean([len(np.intersect1d(one, other)) / len(one) for one, other in zip(rows, found, strict=True)])
        for rows, found in zip(theirs, (ours.forward_rows, ours.backward_rows), strict=True)
    ]
    return float(np.mean(shares))


def _print(sizes: Sizes, seconds: dict[str, float], recall: float) -> None:
    print(machine(sizes.threads))
    print(f"{sizes.rows} x {sizes.columns} x {sizes.dimension}, k = {sizes.k}, median of {sizes.repeats}")
    for name, taken in seconds.items():
        print(f"  {name:24s} {taken:8.2f} s   {taken / seconds['ours']:5.2f} x ours")
    print(f"  agreement with faiss: {recall:.6f}")


def machine(threads: int) -> str:
    """What it was measured on."""
    return f"{_processor()}, {threads} threads, {platform.system()}, Python {platform.python_version()}"


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
