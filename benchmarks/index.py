"""FAISS index types over one language: bytes on disk, seconds to build and to update, queries a second, recall.

    python -m benchmarks.index --rows 100000 --dimension 1024 [--stopes]

The vectors are those of an imagined language: books with topics, recordings of 40 speech runs, and as candidates every
span of one to five runs, so that most rows have near relatives in their own recording. Most of the variance lies in few
directions, and one direction is common to all. Queries come from an imagined other language, half of them translations
of a span and half of speech that is nowhere in the index: the recall that `speech_index` measures on rows of its own
(`own`, `strangers`) stands beside theirs. `--stopes` adds the type and the 128 probes that stopes takes for so many
rows by default; its rotation takes minutes to train.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.knn import _processor as processor
from speech_mining.knn import normalise
from speech_mining.knn.cells import cells_of
from speech_mining.knn.index import build_index, write_index
from speech_mining.knn.index_recall import (
    COSINE_ROUNDING,
    RECALL_K,
    Examination,
    Indexed,
    choose_probes,
    draw_examinations,
    recall_of,
)
from speech_mining.knn.index_types import EXHAUSTIVE_FACTORY, ROWS_A_CELL, refine_factor
from speech_mining.knn.index_update import can_be_updated, update_index
from speech_mining.knn.refine import cosines_with, refined_search

RUNS, LONGEST_SPAN, RECORDINGS_A_BOOK = 40, 5, 10
SPANS = [(i, j) for i in range(RUNS) for j in range(i + 1, min(RUNS, i + LONGEST_SPAN) + 1)]
STOPES_CELLS = {80_000: 1024, 160_000: 2048, 250_000: 4096, 700_000: 8192}
STOPES_PROBES = 128

Matrix = npt.NDArray[np.float16]


@dataclass(frozen=True)
class World:
    """A language's vectors, and queries of another."""

    vectors: Matrix
    audiobooks: npt.NDArray[np.int64]
    translated: Matrix
    untranslated: Matrix


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--stopes", action="store_true")
    asked = parser.parse_args()
    made = imagine(asked.rows, asked.dimension, asked.queries // 2)
    print(f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    print(f"{asked.rows} x {asked.dimension}, recall@{RECALL_K}, {asked.queries} foreign queries")
    print(f"{'type':24s}{'MB':>8s}{'build':>8s}{'update':>8s}{'probes':>8s}{'queries/s':>11s}", end="")
    print(f"{'own':>8s}{'strang.':>8s}{'transl.':>9s}{'untrans.':>9s}")
    cells = 1 << round(np.log2(asked.rows / ROWS_A_CELL))
    for factory in (EXHAUSTIVE_FACTORY, f"IVF{cells},SQfp16", f"RR,IVF{cells},RaBitQ"):
        print(measured(factory, made, None), flush=True)
    if asked.stopes:
        stopes = next(number for limit, number in STOPES_CELLS.items() if asked.rows <= limit)
        print(measured(f"OPQ64,IVF{stopes},PQ64", made, STOPES_PROBES), flush=True)


def imagine(rows: int, dimension: int, queries: int) -> World:
    """Draw a language and what another says of it, by seed."""
    rng = np.random.default_rng(0)
    scale = ((1 + np.arange(dimension)) ** -0.5).astype(np.float32)
    scale *= np.sqrt(dimension / (scale**2).sum())
    common = rng.standard_normal((2, dimension), np.float32) * 0.7
    blocks, meanings = zip(*itertools.islice(_recordings(rng, scale), -(-rows // len(SPANS))), strict=True)
    spoken = (normalise(block + common[0] + _noise(rng, block, 0.4)).astype(np.float16) for block in blocks)
    vectors = np.concatenate(list(spoken))[:rows]
    said = np.concatenate(meanings)[rng.permutation(len(meanings) * len(meanings[0]))[:queries]]
    elsewhere = [meaning for _, meaning in itertools.islice(_recordings(rng, scale), queries // len(meanings[0]) + 1)]
    unsaid = np.concatenate(elsewhere)[: len(said)]
    foreign = [normalise(part + common[1] + _noise(rng, part, 0.7)).astype(np.float16) for part in (said, unsaid)]
    return World(vectors, np.repeat(np.arange(len(blocks)) // RECORDINGS_A_BOOK, len(SPANS))[:rows], *foreign)


def _recordings(
    rng: np.random.Generator, scale: npt.NDArray[np.float32]
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Recording after recording: what its spans mean, and four of these."""
    mixing = np.zeros((len(SPANS), RUNS), np.float32)
    for span, (first, end) in enumerate(SPANS):
        mixing[span, first:end] = (end - first) ** -0.5
    for number in itertools.count():
        if number % RECORDINGS_A_BOOK == 0:
            book = rng.standard_normal(len(scale), np.float32) * scale * 0.8
        meaning = mixing @ (rng.standard_normal((RUNS, len(scale)), np.float32) * scale) + book
        yield meaning, meaning[rng.integers(0, len(meaning), 4)]


def _noise(rng: np.random.Generator, like: npt.NDArray[np.float32], size: float) -> npt.NDArray[np.float32]:
    return size * rng.standard_normal(like.shape, np.float32)


def measured(factory: str, world: World, probes: int | None) -> str:
    """One line of the table."""
    ids = np.random.default_rng(1).permutation(len(world.vectors)) + (1 << 62)
    seconds, index = _timed(lambda: build_index(world.vectors, ids, factory=factory))
    indexed, factor = Indexed(index, world.vectors, ids, world.audiobooks), refine_factor(factory)
    examinations = draw_examinations(world.vectors, world.audiobooks)

    def found() -> list[float]:
        return [recall_of(indexed, each, factor) for each in examinations]

    cells = cells_of(index)
    if probes is None:
        choose_probes(index, lambda: min(found()))
    elif cells is not None:
        cells.nprobe = probes
    own, strangers = found()
    told = [_foreign(indexed, queries, factor) for queries in (world.translated, world.untranslated)]
    rate = 2 / sum(1 / each for each, _ in told)
    shown = "all" if cells is None else str(cells.nprobe)
    update = _update_seconds(indexed) if can_be_updated(index) else float("nan")
    return (
        f"{factory:24s}{_megabytes(index):8.0f}{seconds:8.1f}{update:8.2f}{shown:>8s}{rate:11.0f}"
        f"{own:8.4f}{strangers:8.4f}{told[0][1]:9.4f}{told[1][1]:9.4f}"
    )


def _foreign(indexed: Indexed, queries: Matrix, factor: int) -> tuple[float, float]:
    """Queries a second, and recall."""
    exact = _exact(indexed.vectors, queries)
    asked = queries.astype(np.float32)
    if factor:
        seconds, (cosines, _) = _timed(
            lambda: refined_search(indexed.index, indexed.vectors, indexed.rows, queries, RECALL_K, factor=factor)
        )
    else:
        seconds, (_, ids) = _timed(lambda: indexed.index.search(asked, RECALL_K))
        cosines = cosines_with(indexed.vectors, indexed.rows(ids), queries)
    return len(queries) / seconds, float((cosines >= exact.least[:, None] - COSINE_ROUNDING).mean())


def _exact(vectors: Any, queries: Matrix) -> Examination:
    best = np.full((len(queries), RECALL_K), -np.inf, np.float32)
    for first in range(0, len(vectors), 1 << 14):
        products = queries.astype(np.float32) @ vectors[first : first + (1 << 14)].astype(np.float32).T
        best = np.partition(np.concatenate([best, products], axis=1), -RECALL_K, axis=1)[:, -RECALL_K:]
    none = np.empty(0, np.int64)
    return Examination("foreign", none, none, best.min(axis=1), RECALL_K)


def _update_seconds(indexed: Indexed) -> float:
    """Take the last hundredth of the rows out and put it in again."""
    last = len(indexed.vectors) // 100
    ids, vectors = indexed.ids[-last:], indexed.vectors[-last:]
    return _timed(lambda: update_index(indexed.index, ids, vectors, ids))[0]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def _megabytes(index: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.faiss"
        write_index(index, path)
        return path.stat().st_size / 1e6


if __name__ == "__main__":
    main()
