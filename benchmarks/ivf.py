"""The approximate join against FAISS's inverted index at equal recall, and against PQ as stopes configures it.

    python -m benchmarks.ivf --rows 200000 --dimension 1024 --k 16 [--peers IVF1000,Flat IVF1000,SQ8]
                            [--cell-by-cell] [--exact] [--pq]

All contenders run in one process, in turn, on the same vectors (`topics`) and with the same threads; figures are
medians. Ours is the whole of `cell_join`: codes, cells, samples, both directions, exact cosines. FAISS builds an index
of each side once, with the fewest probes that give the recall asked for on `--judged` rows a side (whose neighbours the
exact engine finds). It then searches both ways in two manners, of which a part is timed and scaled to the whole:

- "one by one", `index.search`: `--queries` rows a side, times the rows there are;
- "cell by cell", with --cell-by-cell, `faiss.contrib.big_batch_search` with its quickest method here: the queries of a
  tenth of the cells in matrix products, times the share of all products that these are. Its assignment of queries to
  cells is not counted. Not by default: FAISS 1.15.1 now and then writes beyond an array there
  (`matrix_bucket_sort_inplace`, seen with MALLOC_CHECK_=3 and none of our code), which ends the process.

Building the index and the choice of probes are not counted against FAISS; ours counts all of its own.

`--pq` adds the index type that stopes takes for so many rows, L2 on unit rows, trained on the whole side, 128 probes,
and compares recall and the ratio margin of each judged source row with its nearest neighbour. Training takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.topics import Matrix, sides_of_topics
from speech_mining.benchmark.machine import describe_machine
from speech_mining.knn import Neighbours, both_directions
from speech_mining.knn.approximate import Joined, cell_join
from speech_mining.knn.join_cells import choose_cells
from speech_mining.knn.products import available_threads
from speech_mining.mining.margin import ratio_margin

TRAINED_A_CELL = 64
"""Rows FAISS is trained on, as many for each cell as ours."""
PART_OF_CELLS = 10
STOPES_CELLS = {80_000: 1024, 160_000: 2048, 250_000: 4096, 700_000: 8192, 4_000_000: 16384}
"""Cells that stopes 2.2.1 takes for up to so many rows (`determine_faiss_index_type`)."""
STOPES_PROBES = 128
ROUNDING = 1e-5
"""FAISS's cosines are float32 sums, which differ with the order of addition."""


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    rows: int
    dimension: int
    k: int
    recall: float
    judged: int
    queries: int
    repeats: int
    threads: int
    peers: list[str]
    cell_by_cell: bool
    exact: bool
    pq: bool


@dataclass(frozen=True, eq=False)
class Judged:
    """Some rows of one side with their exact neighbours."""

    rows: npt.NDArray[np.int64]
    neighbours: npt.NDArray[np.int64]
    cosines: npt.NDArray[np.float32]

    def recall(self, cosines: npt.NDArray[np.float32]) -> float:
        """Share of the neighbours that are found; others as near count as well."""
        return float((cosines >= self.cosines[:, -1:] - ROUNDING).mean())


def main() -> None:
    """Measure and print."""
    sizes = _arguments()
    source, target = sides_of_topics(sizes.rows, sizes.rows, sizes.dimension)
    judged = _judge(source, target, sizes), _judge(target, source, sizes)
    _print_head(sizes)
    cell_join(source[:4000], target[:4000], sizes.k, threads=sizes.threads)  # compiled code is loaded
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: cell_join(source, target, sizes.k, recall=sizes.recall, threads=sizes.threads)
    }
    if sizes.exact:
        contenders["ours, exact"] = lambda: both_directions(source, target, sizes.k, threads=sizes.threads)
    scales = dict.fromkeys(contenders, 1.0)
    for factory in sizes.peers:
        for peer in _faiss(factory, source, target, judged, sizes):
            contenders[peer.name], scales[peer.name] = peer.search, peer.scale
    seconds, found = _in_turn(contenders, sizes.repeats)
    _print_ours(found["ours"], judged)
    _print_seconds(seconds, scales)
    if sizes.pq:
        _print_pq(source, target, judged, found["ours"].neighbours, sizes)


def _arguments() -> Sizes:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ivf", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--recall", type=float, default=0.98)
    parser.add_argument("--judged", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--peers", nargs="*", help="FAISS index types; default: IVF,Flat with as many cells as ours")
    parser.add_argument("--cell-by-cell", action="store_true", help="also time FAISS's big_batch_search")
    parser.add_argument("--exact", action="store_true", help="also time the exact engine")
    parser.add_argument("--pq", action="store_true", help="also compare with PQ as stopes configures it")
    given = vars(parser.parse_args())
    if given["peers"] is None:
        given["peers"] = [f"IVF{choose_cells(given['rows'], given['rows'])},Flat"]
    return Sizes(**given)


def _judge(queries: Matrix, base: Matrix, sizes: Sizes) -> Judged:
    rows = np.sort(np.random.default_rng(7).permutation(len(queries))[: sizes.judged])
    found = both_directions(queries[rows], base, sizes.k, threads=sizes.threads)
    return Judged(rows, found.forward_rows, found.forward_cosines)


@dataclass(frozen=True, eq=False)
class Peer:
    """A part of a search in both directions, and what to multiply its seconds with."""

    name: str
    search: Callable[[], None]
    scale: float


def _faiss(factory: str, source: Matrix, target: Matrix, judged: tuple[Judged, Judged], sizes: Sizes) -> list[Peer]:
    """Build both indexes and choose their probes."""
    import faiss

    faiss.omp_set_num_threads(sizes.threads)
    searches = []
    for queries, base, each in ((source, target, judged[0]), (target, source, judged[1])):
        began = time.perf_counter()
        index = _built(factory, base, faiss.METRIC_INNER_PRODUCT, TRAINED_A_CELL)
        took = time.perf_counter() - began
        recall = _fewest_probes(index, each, queries, sizes)
        print(f"  {factory}: built in {took:.0f} s, {index.nprobe} probes, recall {recall:.4f}", flush=True)
        searches.append((index, queries))
    peers = [_one_by_one(factory, searches, sizes)]
    return [*peers, _cell_by_cell(factory, searches, sizes)] if sizes.cell_by_cell else peers


def _one_by_one(factory: str, searches: list[tuple[Any, Matrix]], sizes: Sizes) -> Peer:
    asked = np.sort(np.random.default_rng(8).permutation(sizes.rows)[: sizes.queries])
    parts = [(index, queries[asked].astype(np.float32)) for index, queries in searches]

    def search() -> None:
        for index, part in parts:
            index.search(part, sizes.k)

    return Peer(f"{factory} one by one", search, sizes.rows / len(asked))


def _cell_by_cell(factory: str, searches: list[tuple[Any, Matrix]], sizes: Sizes) -> Peer:
    from faiss.contrib.big_batch_search import big_batch_search

    parts, products = [], np.zeros(2)
    for index, queries in searches:
        wide, stop = queries.astype(np.float32), max(1, index.nlist // PART_OF_CELLS)
        assigned = index.quantizer.search(wide, index.nprobe)[1].astype(np.int32)
        held = np.array([index.invlists.list_size(cell) for cell in range(index.nlist)])
        each = np.bincount(assigned.ravel(), minlength=index.nlist) * held
        products += each[:stop].sum(), each.sum()
        parts.append((index, wide, assigned, stop))

    def search() -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports every cell
            for index, wide, assigned, stop in parts:
                big_batch_search(index, wide, sizes.k, threaded=2, q_assign=assigned, end_list=stop)

    return Peer(f"{factory} cell by cell", search, float(products[1] / products[0]))


def _built(factory: str, base: Matrix, metric: int, a_cell: int | None) -> Any:
    import faiss

    index: Any = faiss.index_factory(base.shape[1], factory, metric)
    cells = faiss.extract_index_ivf(index)
    most = len(base) if a_cell is None else min(len(base), a_cell * cells.nlist)
    sample = np.sort(np.random.default_rng(9).permutation(len(base))[:most])
    index.train(base[sample].astype(np.float32))
    for first in range(0, len(base), 1 << 15):
        index.add(base[first : first + (1 << 15)].astype(np.float32))
    return index


def _fewest_probes(index: Any, judged: Judged, queries: Matrix, sizes: Sizes) -> float:
    """Set the fewest probes, in steps of a sixteenth, that reach the recall asked for; tell the recall they give."""
    asked = queries[judged.rows].astype(np.float32)
    recall, probes = 0.0, 8.0
    while recall < sizes.recall and index.nprobe < index.nlist:
        index.nprobe = min(index.nlist, round(probes))
        recall = judged.recall(index.search(asked, sizes.k)[0])
        probes *= 17 / 16 if recall > sizes.recall - 0.02 else 1.5 if recall < sizes.recall - 0.1 else 1.2
    return recall


@dataclass(frozen=True)
class Seconds:
    """What a contender took, on the clock and of the processor."""

    elapsed: float
    of_processor: float
    """On a machine that others use as well, the fairer figure."""


def _in_turn(contenders: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, Seconds], dict[str, Any]]:
    """Median seconds and last answer of each; every round runs all, so that a busy moment hits all alike."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    found = {}
    for _ in range(repeats):
        for name, contender in contenders.items():
            began, worked = time.perf_counter(), time.process_time()
            found[name] = contender()
            taken[name].append((time.perf_counter() - began, time.process_time() - worked))
    medians = {name: [statistics.median(each) for each in zip(*rounds, strict=True)] for name, rounds in taken.items()}
    return {name: Seconds(*each) for name, each in medians.items()}, found


def _print_head(sizes: Sizes) -> None:
    machine = describe_machine()
    print(f"{machine['processor']}, {machine['system']}, Python {machine['python']}")
    print(f"{sizes.threads} threads, load {machine['load']}")
    print(f"{sizes.rows} x {sizes.rows} x {sizes.dimension}, k = {sizes.k}, median of {sizes.repeats}", flush=True)


def _print_ours(ours: Joined, judged: tuple[Judged, Judged]) -> None:
    forward = judged[0].recall(ours.neighbours.forward_cosines[judged[0].rows])
    backward = judged[1].recall(ours.neighbours.backward_cosines[judged[1].rows])
    print(f"  {ours.neighbours.reason}")
    print(
        f"  recall of ours on {len(judged[0].rows)} other rows a side: {forward:.4f} forward, {backward:.4f} backward"
    )


def _print_seconds(seconds: dict[str, Seconds], scales: dict[str, float]) -> None:
    ours = seconds["ours"]
    for name, each in seconds.items():
        elapsed, worked = each.elapsed * scales[name], each.of_processor * scales[name]
        print(
            f"  {name:28s} {elapsed:8.1f} s, {elapsed / ours.elapsed:6.2f} x ours; "
            f"of the processor {worked:8.1f} s, {worked / ours.of_processor:6.2f} x ours",
            flush=True,
        )


def _print_pq(source: Matrix, target: Matrix, judged: tuple[Judged, Judged], ours: Neighbours, sizes: Sizes) -> None:
    """Recall and margin error side by side."""
    exact = _margins(judged[0].cosines, _exact_means(source, target, judged[0].neighbours[:, 0], sizes))
    rows = ours.forward_cosines[judged[0].rows]
    means = ours.backward_cosines[ours.forward_rows[judged[0].rows, 0]].mean(axis=1)
    _print_margins("ours", judged[0].recall(rows), _margins(rows, means), exact)

    cells = next((cells for most, cells in STOPES_CELLS.items() if sizes.rows <= most), 32768)
    began = time.perf_counter()
    forward, backward = (_stopes_index(cells, base) for base in (target, source))
    found_cosines, found = _by_stopes(forward, source[judged[0].rows], sizes.k)
    back_cosines, _ = _by_stopes(backward, target[found[:, 0]], sizes.k)
    true = np.einsum("qd,qkd->qk", source[judged[0].rows].astype(np.float32), target[found].astype(np.float32))
    name = f"OPQ64,IVF{cells},PQ64, {STOPES_PROBES} probes"
    _print_margins(name, judged[0].recall(true), _margins(found_cosines, back_cosines.mean(axis=1)), exact)
    print(f"  trained and filled twice in {time.perf_counter() - began:.0f} s")


def _exact_means(source: Matrix, target: Matrix, nearest: npt.NDArray[np.int64], sizes: Sizes) -> Any:
    """Mean cosine of these target rows' exact neighbours."""
    named, places = np.unique(nearest, return_inverse=True)
    return both_directions(target[named], source, sizes.k, threads=sizes.threads).forward_cosines.mean(axis=1)[places]


def _margins(cosines: npt.NDArray[np.float32], target_means: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Ratio margin of each row with its nearest neighbour."""
    wide = cosines.astype(np.float64)
    return ratio_margin(wide[:, 0], wide.mean(axis=1), target_means.astype(np.float64))


def _stopes_index(cells: int, base: Matrix) -> Any:
    import faiss

    index = _built(f"OPQ64,IVF{cells},PQ64", base, faiss.METRIC_L2, None)
    faiss.extract_index_ivf(index).nprobe = STOPES_PROBES
    return index


def _by_stopes(index: Any, queries: Matrix, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Cosines as stopes takes them from the distances of unit rows, and the rows."""
    distances, rows = index.search(queries.astype(np.float32), k)
    return 1 - distances / 2, rows


def _print_margins(name: str, recall: float, margins: Any, exact: Any) -> None:
    error = np.nanmean(np.abs(margins - exact))
    print(f"  {name:36s} recall {recall:.4f}, mean error of the margin {error:.5f}", flush=True)


if __name__ == "__main__":
    main()
