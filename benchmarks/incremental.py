"""What it costs to bring neighbours up to date, against mining from nothing.

    python -m benchmarks.incremental --rows 50000 --columns 50000 --dimension 1024 --k 16

Rows come and go in runs, like audiobooks: 1 % of the source, 1 % of both sides. Each round starts from the same state,
written to disk and read back as the asset does, and its result is compared with a search from nothing, byte by byte.
The peer is our own full search, and FAISS's of both directions where --faiss is given: FAISS has no such state.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.knn import Sizes, machine, synthetic_sides
from speech_mining.knn import both_directions
from speech_mining.knn.incremental import Request, Side, State, update
from speech_mining.knn.incremental_files import read_state, write_state
from speech_mining.knn.products import available_threads

SHARE = 100
"""One row in this many comes or goes."""


def main() -> None:
    """Measure and print."""
    sizes = _arguments()
    source, target = (
        Side(np.arange(len(vectors), dtype=np.int64), np.zeros(len(vectors), np.int64), vectors)
        for vectors in synthetic_sides(sizes)
    )
    request = Request(sizes.k, threads=sizes.threads)
    both_directions(source.vectors[:2000], target.vectors[:2000], sizes.k)  # compiled code is loaded
    print(f"{machine(sizes.threads)}\n{sizes.rows} x {sizes.columns} x {sizes.dimension}, k = {sizes.k}")
    full_s, whole = _timed(lambda: update(None, source, target, request).state, sizes.repeats)
    print(f"  from nothing               {full_s:8.3f} s")
    without = _without(source), _without(target)
    fewer = update(None, *without, request).state
    fewer_source = update(None, without[0], target, request).state
    _report("add 1 % of the source", fewer_source, (source, target), request, sizes, full_s)
    _report("add 1 % of both sides", fewer, (source, target), request, sizes, full_s)
    _report("remove 1 % of the source", whole, (without[0], target), request, sizes, full_s)
    _report("remove 1 % of both sides", whole, without, request, sizes, full_s)
    _report("nothing new", whole, (source, target), request, sizes, full_s)


def _arguments() -> Sizes:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.incremental", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--columns", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_threads())
    return Sizes(**vars(parser.parse_args()))


def _without(side: Side) -> Side:
    """A run of 1 % of the rows taken out of the middle, as an audiobook would be."""
    first = len(side.ids) // 2
    stay = np.delete(np.arange(len(side.ids)), np.arange(first, first + len(side.ids) // SHARE))
    return Side(side.ids[stay], side.versions[stay], side.vectors[:][stay])


def _timed(action: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), result


def _report(name: str, state: State, sides: tuple[Side, Side], request: Request, sizes: Sizes, full_s: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_state(state, Path(folder) / "before")

        def from_disk() -> Any:
            updated = update(read_state(Path(folder) / "before"), *sides, request)
            write_state(updated.state, Path(folder) / "after")
            return updated

        seconds, updated = _timed(from_disk, sizes.repeats)
    fresh = both_directions(sides[0].vectors, sides[1].vectors, sizes.k, threads=sizes.threads)
    tables = ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines")
    same = all(np.array_equal(getattr(updated.neighbours, table), getattr(fresh, table)) for table in tables)
    work = updated.work
    share = work.products / (work.products + work.saved)
    print(
        f"  {name:26s} {seconds:8.3f} s   {seconds / full_s:6.2%} of it; {share:6.2%} of the products, "
        f"{work.rows_again} rows searched again; {'the same bytes' if same else 'NOT THE SAME BYTES'}"
    )


if __name__ == "__main__":
    main()
