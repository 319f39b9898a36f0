"""Margins, strategies and selection, each against a named peer, by processor seconds.

    python -m benchmarks.mining --candidates 10000000 --peer-candidates 500000

The peers, in this run and on the same kind of data:

- LASER's way of scoring and choosing: one candidate at a time in Python (`score_candidates` of its `mine_bitexts.py`,
  then `--retrieval max`). The dot product that it computes for each candidate is left out, which favours it.
- stopes 2.2.1: its `mine` by its defaults, in a process of its own, where `S2S_STOPES_PYTHON` names a Python that has
  it. It scores only what it keeps, and repeats pairs.
- for `greedy`: one pair at a time in Python, with the kept spans of each recording in lists searched by bisect.
- for `optimal`: one span at a time in Python, sorted by end, with a bisect for each (the textbook's program), on one
  side only, where ours then settles the other side too.

The peers written in Python get fewer candidates and are compared by the time for each, which favours them: bisect's
lists grow longer with more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from speech_mining.benchmark.machine import describe_machine
from speech_mining.knn.neighbours import Neighbours
from speech_mining.mining.selection import SELECTIONS, select_non_overlapping
from speech_mining.mining.strategies import BEST, STRATEGIES, mine
from speech_mining.records import PAIRS

K = 16
THRESHOLD = 1.06


@dataclass(frozen=True)
class Measured:
    """What one contender took."""

    name: str
    candidates: int
    wall_s: float
    processor_s: float
    result: int
    """Pairs it came to."""
    against: str = ""
    """Of a peer: which of ours does the same."""

    @property
    def each_us(self) -> float:
        """Processor time for each candidate, microseconds."""
        return 1e6 * self.processor_s / self.candidates


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mining", description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--peer-candidates", type=int, default=200_000)
    asked = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    print(f"{asked.candidates} candidates; peers in Python get {asked.peer_candidates}")
    _strategies(asked.candidates, asked.peer_candidates)
    _selections(asked.candidates, asked.peer_candidates)


def _strategies(candidates: int, peer_candidates: int) -> None:
    neighbours, few = planted_neighbours(candidates), planted_neighbours(peer_candidates)
    ours = [
        _measured(f"{strategy}, best by {best}", candidates, lambda s=strategy, b=best: _mine(neighbours, s, b))
        for strategy in STRATEGIES
        for best in BEST
    ]
    laser = _measured(
        "LASER's loops, max", peer_candidates, lambda: len(one_at_a_time(few, THRESHOLD)), "max, best by margin"
    )
    peers = [laser, *_stopes(neighbours, candidates)]
    _print("margin and strategy", ours, peers)
    if laser.result != _mine(few, "max", "margin"):
        raise SystemExit("LASER's loops came to another number of pairs than `max`.")


def _mine(neighbours: Neighbours, strategy: str, best: str) -> int:
    return len(mine(neighbours, strategy=strategy, threshold=THRESHOLD, best=best).score)


def planted_neighbours(candidates: int) -> Neighbours:
    """Lists of k = 16 in both directions, half of the candidates in each."""
    rng = np.random.default_rng(0)
    rows = max(K, candidates // (2 * K))
    tables: list[Any] = []
    for _ in range(2):
        tables.append(rng.integers(0, rows, (rows, K)))
        tables.append(-np.sort(-rng.beta(8, 3, (rows, K)).astype(np.float32), axis=1))
    return Neighbours(*tables)


def one_at_a_time(neighbours: Neighbours, threshold: float) -> list[tuple[float, int, int]]:
    """Ratio margin and `max` as loops over candidates, from the same cosines."""
    means = [
        cosines.mean(axis=1, dtype=np.float64) for cosines in (neighbours.forward_cosines, neighbours.backward_cosines)
    ]
    forward = _scores_one_at_a_time(neighbours.forward_rows, neighbours.forward_cosines, means[0], means[1])
    backward = _scores_one_at_a_time(neighbours.backward_rows, neighbours.backward_cosines, means[1], means[0])
    best = [(forward[i].max(), i, neighbours.forward_rows[i, forward[i].argmax()]) for i in range(len(forward))]
    best += [(backward[j].max(), neighbours.backward_rows[j, backward[j].argmax()], j) for j in range(len(backward))]
    sources, targets, kept = set(), set(), []
    for score, source, target in sorted(best, key=lambda pair: -pair[0]):
        if score >= threshold and source not in sources and target not in targets:
            sources.add(source)
            targets.add(target)
            kept.append((score, source, target))
    return kept


def _scores_one_at_a_time(rows: Any, cosines: Any, own: Any, others: Any) -> Any:
    scores = np.zeros(rows.shape)
    for i in range(len(rows)):
        for j in range(rows.shape[1]):
            scores[i, j] = cosines[i, j] / ((own[i] + others[rows[i, j]]) / 2)
    return scores


def _stopes(neighbours: Neighbours, candidates: int) -> list[Measured]:
    python = os.environ.get("S2S_STOPES_PYTHON", "")
    if not Path(python).is_file():
        print("stopes is left out: S2S_STOPES_PYTHON names no Python that has it")
        return []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("forward", "backward"):
            # its squared distances, and its type of rows
            np.save(Path(folder) / f"{name}_dist.npy", 2 - 2 * getattr(neighbours, f"{name}_cosines"))
            np.save(Path(folder) / f"{name}_rows.npy", getattr(neighbours, f"{name}_rows").astype(np.uint32))
        script = Path(__file__).with_name("mining_stopes.py")
        told = subprocess.run([python, script, folder, str(THRESHOLD)], capture_output=True, text=True, check=True)
    found = json.loads(told.stdout.splitlines()[-1])
    return [
        Measured(
            "stopes, union of nearest",
            candidates,
            found["wall_s"],
            found["processor_s"],
            found["pairs"],
            "union, best by nearest",
        )
    ]


def _selections(candidates: int, peer_candidates: int) -> None:
    pairs, few = planted_pairs(candidates), planted_pairs(peer_candidates)
    for selection in SELECTIONS:
        select_non_overlapping(few[:1000], selection)  # compiled code is loaded
    ours = [
        _measured(name, candidates, lambda name=name: select_non_overlapping(pairs, name).frame.height)
        for name in SELECTIONS
    ]
    greedy = _measured("greedy by bisect", peer_candidates, lambda: len(greedy_by_bisect(few)), "greedy")
    peers = [
        greedy,
        _measured("optimal by bisect, one side", peer_candidates, lambda: len(optimal_by_bisect(few)), "optimal"),
    ]
    _print("selection without overlap", ours, peers)
    if greedy.result != select_non_overlapping(few).frame.height:
        raise SystemExit("Greedy by bisect came to another number of pairs than `greedy`.")


def planted_pairs(candidates: int) -> pl.DataFrame:
    """Some 2 000 candidates a recording of 700 stretches of speech, each of one to five stretches, at random."""
    rng = np.random.default_rng(3)
    recordings = max(1, candidates // 2000)

    def side(name: str) -> dict[str, Any]:
        recording, first, runs = (rng.integers(*of, candidates) for of in [(0, recordings), (0, 695), (1, 6)])
        start = first * 80_000
        return {
            f"{name}_segment": recording * 10_000_000 + first * 100 + runs,
            f"{name}_audiobook": (recording // 20).astype(str),
            f"{name}_section": recording % 20,
            f"{name}_start_sample": start,
            f"{name}_end_sample": start + runs * 80_000 - 8_000,
        }

    score = 1 + np.abs(rng.normal(0.1, 0.05, candidates))
    frame = pl.DataFrame({"score": score, "cosine": score, **side("source"), **side("target")})
    return frame.select([pl.col(name).cast(dtype) for name, dtype in PAIRS.items()])


def greedy_by_bisect(pairs: pl.DataFrame) -> list[int]:
    """Best first, each side's kept spans in sorted lists."""
    order = pairs.select(pl.arg_sort_by("score", "source_segment", "target_segment", descending=[True, False, False]))
    sides = [_spans_of(pairs, side) for side in ("source", "target")]
    taken: list[dict[Any, tuple[list[int], list[int]]]] = [{}, {}]
    kept = []
    for row in order.to_series().to_list():
        places = [
            _free_place(taken[n].setdefault(sides[n][0][row], ([], [])), *(s[row] for s in sides[n][1:]))
            for n in (0, 1)
        ]
        if None in places:
            continue
        kept.append(row)
        for n, place in enumerate(places):
            starts, ends = taken[n][sides[n][0][row]]
            starts.insert(place, sides[n][1][row])
            ends.insert(place, sides[n][2][row])
    return kept


def _free_place(taken: tuple[list[int], list[int]], start: int, end: int) -> Any:
    starts, ends = taken
    place = bisect_right(starts, start)
    blocked = (place > 0 and ends[place - 1] > start) or (place < len(starts) and starts[place] < end)
    return None if blocked else place


def optimal_by_bisect(pairs: pl.DataFrame) -> list[int]:
    """Weighted interval scheduling on the source side, a recording after another on one axis."""
    recording, starts, ends = _spans_of(pairs, "source")
    first = {name: number << 40 for number, name in enumerate(sorted(set(recording)))}
    worth = (pairs["score"] - pairs["score"].min()).to_list()
    rows = sorted(range(len(worth)), key=lambda row: first[recording[row]] + ends[row])
    stops = [first[recording[row]] + ends[row] for row in rows]
    before = [bisect_right(stops, first[recording[row]] + starts[row]) for row in rows]
    most = [0.0]
    for place, row in enumerate(rows):
        most.append(max(most[place], most[before[place]] + worth[row]))
    chosen, place = [], len(rows)
    while place:
        if most[place] == most[place - 1]:
            place -= 1
        else:
            chosen.append(rows[place - 1])
            place = before[place - 1]
    return chosen


def _spans_of(pairs: pl.DataFrame, side: str) -> tuple[list[Any], list[int], list[int]]:
    books, sections = pairs[f"{side}_audiobook"].to_list(), pairs[f"{side}_section"].to_list()
    starts, ends = pairs[f"{side}_start_sample"].to_list(), pairs[f"{side}_end_sample"].to_list()
    return list(zip(books, sections, strict=True)), starts, ends


def _measured(name: str, candidates: int, contender: Callable[[], int], against: str = "") -> Measured:
    wall, processor = time.perf_counter(), time.process_time()
    result = contender()
    return Measured(name, candidates, time.perf_counter() - wall, time.process_time() - processor, result, against)


def _print(what: str, ours: list[Measured], peers: list[Measured]) -> None:
    print(f"\n{what}")
    for each in ours:
        print(f"  {each.name:30s} {_figures(each)}")
    each_us = {each.name: each.each_us for each in ours}
    for peer in peers:
        print(f"  {peer.name:30s} {_figures(peer)}, {peer.each_us / each_us[peer.against]:.1f} x {peer.against}")


def _figures(each: Measured) -> str:
    times = f"{each.wall_s:7.2f} s, processor {each.processor_s:7.2f} s, {each.each_us:7.3f} us a candidate"
    return f"{each.candidates:9d} candidates {times}, {each.result:8d} pairs"


if __name__ == "__main__":
    main()
