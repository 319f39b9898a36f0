"""What it costs to search neighbours in blocks: two processes that share a lake, against one process that does it all.

    python -m benchmarks.fan_out --rows 30000 --columns 30000 --dimension 1024 --k 16 --blocks 6

One process searches with two threads. Then two processes with a thread each take the same pair block by block from
a lake, and a third merges. The neighbours are compared byte by byte. Processes are started and warm before the clock
runs: what starting a pod costs is the cluster's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.knn import Sizes, machine, synthetic_sides
from speech_mining.knn.exact import both_directions
from speech_mining.knn.incremental import Request
from speech_mining.knn.incremental_blocks import Cutting
from speech_mining.knn.roll import ROLL, ROWS, call_the_roll, read_blocks
from speech_mining.lake import Lake
from speech_mining.mining import blocks
from speech_mining.mining.blocks import Shared
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from speech_mining.mining.renewal import renew
from speech_mining.records import SEGMENTS

PAIR = ("deu", "eng")
BOOKS = 10
"""Audiobooks of a language."""
PROCESSES = 2
TABLES = ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines")


@dataclass(frozen=True)
class Asked:
    """What is measured."""

    sizes: Sizes
    blocks: int


def main() -> None:
    """Measure and print."""
    asked = _arguments()
    sizes = asked.sizes
    print(f"{machine(PROCESSES)}\n{sizes.rows} x {sizes.columns} x {sizes.dimension}, k = {sizes.k}")
    with tempfile.TemporaryDirectory() as folder:
        _write_library(Lake(Path(folder) / "one"), sizes)
        _write_library(Lake(Path(folder) / "many"), sizes)
        _warm(sizes)
        cpu_began = time.process_time()
        one_s, one = _timed(
            lambda: renew(Lake(Path(folder) / "one"), PAIR, Request(sizes.k, threads=PROCESSES), _quiet)
        )
        one_cpu_s = time.process_time() - cpu_began
        _tell("one process, 2 threads", one_s, one_s)
        merged, cpu_s = _fanned(Path(folder) / "many", asked, one_s)
        print(f"  processor time of the blocks: {cpu_s / one_cpu_s:.2f} of the {one_cpu_s:.1f} s of one process")
    same = all(
        np.array_equal(getattr(merged.renewed.neighbours, table), getattr(one.neighbours, table)) for table in TABLES
    )
    print(f"  {'the same bytes' if same else 'NOT THE SAME BYTES'}")


def _arguments() -> Asked:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fan_out", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--columns", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=6)
    told = vars(parser.parse_args())
    count = told.pop("blocks")
    return Asked(Sizes(**told, repeats=1, threads=PROCESSES), count)


def _write_library(lake: Lake, sizes: Sizes) -> None:
    for language, vectors in zip(PAIR, synthetic_sides(sizes), strict=True):
        for book, rows in enumerate(np.array_split(np.arange(len(vectors)), BOOKS)):
            with lake.replace("speech_embeddings", language, str(book)) as new:
                new.write_table("segments.parquet", _segments(rows, str(book)), SEGMENTS)
                new.write_array("vectors.npy", vectors[rows])
                new.write_json("encoder.json", {"name": "noise", "version": "1"})
        roll = call_the_roll(read_blocks(lake, language))
        with lake.replace("speech_index", language) as new:
            new.write_table("roll.parquet", roll.blocks, ROLL)
            new.write_table(
                "rows.parquet", roll.items.with_row_index("row").with_columns(recurring=pl.lit(False)), ROWS
            )


def _segments(rows: Any, book: str) -> pl.DataFrame:
    filled: dict[str, Any] = {name: [0] * len(rows) for name in SEGMENTS}
    texts = {"segment_id": rows, "audiobook": [book] * len(rows)}
    return pl.DataFrame({**filled, **texts}).cast(dict(SEGMENTS))


def _fanned(root: Path, asked: Asked, one_s: float) -> tuple[blocks.Merged, float]:
    sizes = asked.sizes
    request, shared = Request(sizes.k, threads=1), Shared(Lake(root), SPEECH_TO_SPEECH, PAIR, "plan-of-benchmark")
    cutting = Cutting(-(-sizes.rows * sizes.columns // asked.blocks), 1000)
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_warm, [sizes] * PROCESSES * 2))
        plan_s, planned = _timed(lambda: blocks.plan(shared, request, cutting, _quiet))
        names = [block.name for block in planned]
        search_s, cpu_s = _timed(lambda: list(pool.map(_search, [root] * len(names), names, [sizes.k] * len(names))))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        merge_s, merged, grown = pool.submit(_merge, root, sizes.k, cutting).result()
    written = sum(path.stat().st_size for path in (root / "s2s_neighbour_blocks").rglob("*.npy"))
    _tell(f"{len(names)} blocks, 2 processes", search_s, one_s)
    _tell("plan", plan_s, one_s)
    _tell("merge", merge_s, one_s)
    _tell("all of it", plan_s + search_s + merge_s, one_s)
    rate = sizes.rows * sizes.columns / search_s
    print(f"  {rate:.3g} products a second in blocks, {sizes.rows * sizes.columns / one_s:.3g} in one process")
    print(f"  {(search_s - one_s) / len(names):.3f} s more a block; {written / 1e6:.0f} MB written by plan and blocks")
    print(f"  the merge raised the peak of its memory by {grown / (sizes.rows + sizes.columns):.0f} bytes a row")
    return merged, sum(cpu_s)


def _search(root: Path, name: str, k: int) -> float:
    """Search a block; gives its processor seconds, which do not depend on who else is on the machine."""
    began = time.process_time()
    blocks.search(Shared(Lake(root), SPEECH_TO_SPEECH, PAIR, "plan-of-benchmark"), name, Request(k, threads=1), _quiet)
    return time.process_time() - began


def _merge(root: Path, k: int, cutting: Cutting) -> tuple[float, blocks.Merged, int]:
    """Merge in a process that has done nothing else; gives the bytes by which its peak rose, mapped files included."""
    shared = Shared(Lake(root), SPEECH_TO_SPEECH, PAIR, "plan-of-benchmark")
    before = _peak_bytes()
    seconds, merged = _timed(lambda: blocks.merge(shared, Request(k), cutting, 0, _quiet))
    return seconds, merged, _peak_bytes() - before


def _peak_bytes() -> int:
    """Resident at most, as the system counts it since this program began (Linux)."""
    told = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return int(told[0]) * 1024


def _warm(sizes: Sizes) -> None:
    """Load libraries and compiled code."""
    source, target = synthetic_sides(Sizes(2000, 2000, sizes.dimension, sizes.k, 1, 1))
    both_directions(source, target, sizes.k, threads=1)


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def _tell(name: str, seconds: float, one_s: float) -> None:
    print(f"  {name:26s} {seconds:8.3f} s   {seconds / one_s:6.2f} of one process", flush=True)


def _quiet(told: str) -> None:
    pass


if __name__ == "__main__":
    main()
