"""Exact k nearest neighbours in both directions.

The door is `both_directions`; behind it stand engines that give the same bytes and differ in speed (`engines`):

- `int8`: one pass over products of int8 codes, by the processor's int8 instructions.
- `fp32`: one pass over float32 products.
- `cuda`: one pass over float16 products on a GPU.
- `faiss`: two searches of an IndexFlatIP, the way LASER and stopes do it; kept as an oracle.

Vectors are in memory or memory-mapped by the caller; nothing is read from or written to disk here, except by the
`Checkpoint` that a caller hands in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn.allocator import frugal
from speech_mining.knn.checkpoint import Checkpoint, Nothing
from speech_mining.knn.engines.protocol import Engine, Errors, Sweep, Tally, Vectors
from speech_mining.knn.hardware import ENGINES, choose_engine, make_engine
from speech_mining.knn.neighbours import Neighbours
from speech_mining.knn.plan import Plan, Sizes, plan
from speech_mining.knn.products import Crew, available_threads, bands, crew
from speech_mining.knn.settle import Rough, Settled, settle
from speech_mining.knn.toplists import TopLists
from speech_mining.knn.vectors import check_unit_rows, part_of
from speech_mining.progress import Progress, silent

SHARDS = 16
"""A search that can be resumed is cut in at least so many shards, of no fewer than `SHARD_ROWS` rows."""
SHARD_ROWS = 16_384


@dataclass(frozen=True, eq=False)
class _Search:
    """A request that was found possible."""

    source: Vectors
    target: Vectors
    k: int
    engine: Engine
    plan: Plan
    tally: Tally


def both_directions(
    source: Vectors,
    target: Vectors,
    k: int = 16,
    *,
    engine: str = "auto",
    memory_gb: float | None = None,
    threads: int | None = None,
    progress: Progress = silent,
    checkpoint: Checkpoint | None = None,
) -> Neighbours:
    """Find the k nearest target rows of each source row, and the k nearest source rows of each target row.

    The cosine is the exact product of the two stored rows, rounded once to float32; lists are sorted by decreasing
    cosine, then increasing row. All engines, thread counts and block sizes give the same bytes.

    Args:
        source: float16 or float32 (n, d), unit rows: an array, a memory map, or a `Stack` of them.
        target: the same, (m, d).
        k: neighbours in each direction; where the other side has fewer, the rest is missing (-1, -inf).
        engine: "auto" (fastest exact one this machine can run), "int8", "fp32", "cuda" or "faiss"; or "ivf", the
            approximate one (`approximate.cell_join`), which cannot be resumed.
        memory_gb: working memory in 10^9 bytes besides the two matrices, results included; None takes the fastest
            division. The faiss engine copies parts of both matrices to float32 on top.
        threads: cores to use; None takes all this process may use.
        progress: told products computed so far, of n * m.
        checkpoint: where finished shards are kept, so that a killed search goes on with the first unfinished one.

    Raises:
        EmbeddingError: not two matrices of one dimension with finite rows of unit length; rows at fault are named.
        SettingsError: an unknown engine, k, threads or memory that cannot work.
    """
    _check_request(engine, k, memory_gb, threads)
    if engine == "ivf":
        from speech_mining.knn.approximate import cell_join

        return cell_join(source, target, k, memory_gb=memory_gb, threads=threads, progress=progress).neighbours
    check_sides(source, target)
    chosen, reason = choose_engine(engine, len(source), len(target), source.shape[1])
    threads = threads or available_threads()
    worker = make_engine(chosen, source.shape[1])
    sizes = Sizes(len(source), len(target), source.shape[1], k, threads, worker.row_bytes())
    search = _Search(source, target, k, worker, plan(memory_gb, sizes), Tally(len(source) * len(target), progress))
    with frugal(memory_gb is not None), crew(threads) as hired:
        forward, backward = _in_shards(search, hired, checkpoint or Nothing())
    return Neighbours(forward.rows, forward.cosines, backward.rows, backward.cosines, chosen, reason)


def check_sides(source: Vectors, target: Vectors) -> None:
    """Refuse two sides that cannot be searched against each other.

    Raises:
        EmbeddingError: as `both_directions`.
    """
    check_unit_rows(source, "The source matrix")
    check_unit_rows(target, "The target matrix")
    check_forms(source, target)


def check_forms(source: Vectors, target: Vectors) -> None:
    """Refuse two sides of different dimension, or of more rows than are counted.

    Raises:
        EmbeddingError: they are such.
    """
    if source.shape[1] != target.shape[1]:
        raise EmbeddingError(
            f"The source rows have {source.shape[1]} values, the target rows {target.shape[1]}.",
            expected="one dimension on both sides",
            cause="the two sides were embedded by different encoders",
            fix="embed both with the same encoder",
        )
    if max(len(source), len(target)) >= 2**31:
        raise EmbeddingError(f"{max(len(source), len(target))} rows on one side.", expected="fewer than 2^31")


def _check_request(engine: str, k: int, memory_gb: float | None, threads: int | None) -> None:
    if engine not in ENGINES:
        raise SettingsError(f"There is no engine {engine!r}.", expected=f"one of {', '.join(ENGINES)}")
    if k < 1:
        raise SettingsError(f"k is {k}.", expected="at least one neighbour")
    if threads is not None and threads < 1:
        raise SettingsError(f"threads is {threads}.", expected="at least one, or none given to use all cores")
    if memory_gb is not None and not memory_gb > 0:
        raise SettingsError(f"memory_gb is {memory_gb}.", expected="a positive number of gigabytes")


def _in_shards(search: _Search, hired: Crew, checkpoint: Checkpoint) -> tuple[Settled, Settled]:
    """Search the source shard by shard; the target's lists grow with each."""
    n, m, k = len(search.source), len(search.target), search.k
    forward = Settled(np.empty((n, k), np.int64), np.empty((n, k), np.float32), np.zeros(n, np.int32), 0)
    backward, errors = TopLists.empty(m, search.plan.room), np.zeros(m)
    done = checkpoint.restore(forward, backward, errors)
    search.tally.add(done * m)
    for shard in bands(n - done, _shard_rows(search, checkpoint)):
        rows = slice(done + shard.start, done + shard.stop)
        _one_shard(search, rows, forward, backward, errors, hired)
        if rows.stop < n:
            checkpoint.keep(rows.stop, forward, backward, errors)
    return forward, settle(search.target, search.source, Rough(backward, errors), k, hired)


def _shard_rows(search: _Search, checkpoint: Checkpoint) -> int:
    if isinstance(checkpoint, Nothing):
        return search.plan.shard
    return min(search.plan.shard, max(SHARD_ROWS, -(-len(search.source) // SHARDS)))


def _one_shard(search: _Search, rows: slice, forward: Settled, backward: TopLists, errors: Errors, hired: Crew) -> None:
    shard = part_of(search.source, rows)
    lists = TopLists.empty(len(shard), search.plan.room)
    work = Sweep(shard, search.target, lists, backward, hired, search.plan.tiles, search.tally, rows.start)
    forward_errors, backward_errors = search.engine.sweep(work)
    np.maximum(errors, backward_errors, out=errors)
    found = settle(shard, search.target, Rough(lists, forward_errors), search.k, hired)
    forward.rows[rows], forward.cosines[rows], forward.depths[rows] = found.rows, found.cosines, found.depths
