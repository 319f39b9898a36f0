"""Exact neighbours in both directions against FAISS IndexFlatIP and against one raw matrix product.

    python -m benchmarks.knn --rows 50000 --columns 50000 --dimension 1024 --k 16 --repeats 3

All contenders run in one process, in turn, on the same arrays and with the same threads; the figure is the median. The
FAISS contender is what LASER and stopes do: an index of each side, searched with the other, without our rescoring
(LASER and stopes themselves: `python -m benchmarks.peers`). The matrix product is one float32 product of that size, by
torch, in bands of rows whose result is written to the same memory again. Ours on one thread tells how the engine
scales. The neighbours found are compared with FAISS's own.
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

BAND = 4096
"""Rows of the raw product at a time: its whole result would take 10 GB at 50 000 x 50 000."""


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    rows: int
    columns: int
    dimension: int
    k: int
    repeats: int
    threads: int
    engine: str = "auto"


def main() -> None:
    """Measure and print."""
    sizes = _arguments()
    source, target = synthetic_sides(sizes)
    contenders = _contenders(source, target, sizes)
    few = _contenders(source[:2000], target[:2000], sizes)
    for contender in few.values():
        contender()  # compiled code is loaded, threads are started
    seconds, results = _in_turn(contenders, sizes.repeats)
    _print(sizes, seconds, results)


def _arguments() -> Sizes:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.knn", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=10_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--engine", default="auto")
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
    left, right = (side.astype(np.float32) for side in (source, target))
    contenders = {
        "ours": lambda: both_directions(source, target, sizes.k, engine=sizes.engine, threads=sizes.threads),
        "faiss, both directions": lambda: _faiss(left, right, sizes),
        "one sgemm": lambda: _sgemm(left, right, sizes.threads),
    }
    if sizes.threads > 1:
        contenders["ours, one thread"] = lambda: both_directions(
            source, target, sizes.k, engine=sizes.engine, threads=1
        )
    return contenders


def _sgemm(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32], threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    columns = torch.from_numpy(right).T
    product = torch.empty(BAND, len(right))
    for first in range(0, len(left), BAND):
        rows = torch.from_numpy(left[first : first + BAND])
        torch.mm(rows, columns, out=product[: len(rows)])


def _faiss(source: npt.NDArray[np.float32], target: npt.NDArray[np.float32], sizes: Sizes) -> list[Any]:
    import faiss

    faiss.omp_set_num_threads(sizes.threads)
    found = []
    for queries, base in ((source, target), (target, source)):
        index = faiss.IndexFlatIP(sizes.dimension)
        index.add(base)
        found.append(index.search(queries, sizes.k)[1])
    return found


def _in_turn(contenders: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each; every round runs all of them, so that a busy moment hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, contender in contenders.items():
            began = time.perf_counter()
            results[name] = contender()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}, results


def _recall(theirs: list[Any], ours: Any) -> float:
    """Share of FAISS's neighbours that are among ours; 1 but for ties and its float32 rounding."""
    shares = [
        np.mean([len(np.intersect1d(one, other)) / len(one) for one, other in zip(rows, found, strict=True)])
        for rows, found in zip(theirs, (ours.forward_rows, ours.backward_rows), strict=True)
    ]
    return float(np.mean(shares))


def _print(sizes: Sizes, seconds: dict[str, float], results: dict[str, Any]) -> None:
    ours = results["ours"]
    print(machine(sizes.threads))
    print(f"{sizes.rows} x {sizes.columns} x {sizes.dimension}, k = {sizes.k}, median of {sizes.repeats}")
    for name, taken in seconds.items():
        print(f"  {name:24s} {taken:8.2f} s   {taken / seconds['ours']:5.2f} x ours")
    print(f"  {ours.reason}; {sizes.rows * sizes.columns / seconds['ours'] / 1e6:.0f} million cosines a second")
    print(f"  ours takes {seconds['ours'] / seconds['one sgemm']:.2f} of one sgemm")
    print(f"  agreement with faiss: {_recall(results['faiss, both directions'], ours):.6f}")


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
