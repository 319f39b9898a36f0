"""How many of the exact neighbours an index finds, and how many cells it must probe to find enough.

Measured at every build on rows of the language itself, since the other side of a pair is not there yet. Such rows are
of two kinds, since foreign queries are. A row without itself (`own`) is like a segment whose translation is in the
index: its neighbours are the overlapping spans around one place. A row of an audiobook that counts as left out
(`strangers`) is like a segment without one: its neighbours are faint, and many are nearly as good. The figure is the
lower of the two. What belongs here is that measurement; it needs no file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.knn.cells import cells_of
from speech_mining.knn.refine import Int64s, RowsOfIds, cosines_with, refined_search
from speech_mining.knn.vectors import Matrix

Floats: TypeAlias = npt.NDArray[np.float32]

RECALL_K = 16
LEAST_RECALL = 0.98
QUERIES = 256
"""Rows asked for of each kind."""
LEFT_OUT_BOOKS = 32
LEFT_OUT_SHARE = 10
"""At most one audiobook in this many is left out, so that the index is still nearly itself."""
COSINE_ROUNDING = 1e-5
"""A neighbour counts as found when its cosine is within this of the exact k-th: equal vectors are as good as each
other, and float32 sums of 1024 products differ by about a tenth of this with their order."""
COMPARED_ROWS = 1 << 14


@dataclass(frozen=True, eq=False)
class Indexed:
    """An index, and what it was built of."""

    index: Any
    """A `faiss.Index` over all of `vectors`, that answers with `ids`."""
    vectors: Matrix
    """float16 or float32 (n, d), unit rows."""
    ids: Int64s
    """int64 (n,)."""
    audiobooks: Int64s
    """int64 (n,): number of the audiobook of each row."""

    @cached_property
    def rows(self) -> RowsOfIds:
        """In which row the vector of an id stands."""
        return RowsOfIds(self.ids)


@dataclass(frozen=True, eq=False)
class Examination:
    """Questions whose exact answers are known."""

    kind: str
    """`own` or `strangers`."""
    queries: Int64s
    """int64 (q,): rows asked for."""
    left_out: Int64s
    """int64 (m,): rows that do not count as neighbours."""
    least: Floats
    """float32 (q,): cosine of the exact k-th neighbour."""
    k: int


@dataclass(frozen=True)
class Recall:
    """What an index finds, with how many probes."""

    recall: float | None
    """The lowest of `by_kind`, in [0, 1]; None where there was nothing to find."""
    by_kind: dict[str, float]
    unrefined: float | None
    """The same without comparing candidates again, as by plain FAISS; None where nothing is compared again."""
    probes: int | None
    """Cells probed, set in the index; None where it has none."""
    queries: int


def examine_index(
    indexed: Indexed, *, factor: int = 0, k: int = RECALL_K, least: float = LEAST_RECALL, seed: int = 0
) -> Recall:
    """Measure the recall of an index, after setting its probes to the fewest that reach `least`.

    Args:
        indexed: its index's nprobe is changed where it has cells.
        factor: candidates compared again for each neighbour (`refine.refined_search`); 0 takes the index's own answers.
        k: neighbours looked for, fewer where there are not as many rows.
        least: recall to reach.
        seed: of the sample of queries.
    """
    examinations = draw_examinations(indexed.vectors, indexed.audiobooks, k, seed)

    def found(refining: int) -> dict[str, float]:
        return {each.kind: recall_of(indexed, each, refining) for each in examinations}

    probes = choose_probes(indexed.index, lambda: min(found(factor).values(), default=1.0), least)
    by_kind = found(factor)
    return Recall(
        min(by_kind.values(), default=None),
        by_kind,
        min(found(0).values(), default=None) if factor else None,
        probes,
        sum(len(each.queries) for each in examinations),
    )


def draw_examinations(vectors: Matrix, audiobooks: Int64s, k: int = RECALL_K, seed: int = 0) -> list[Examination]:
    """Draw queries of both kinds, and find by brute force what they should be answered with.

    Args:
        vectors: float16 or float32 (n, d), unit rows.
        audiobooks: int64 (n,), number of the audiobook of each row.
        k: neighbours looked for.
        seed: of the draw.

    Returns:
        None, one or both kinds: `strangers` need a second audiobook, `own` a second row.
    """
    rng = np.random.default_rng(seed)
    own = np.sort(rng.permutation(len(vectors))[: min(QUERIES, len(vectors) // 2)])
    known = np.unique(audiobooks)
    away = rng.permutation(known)[: min(LEFT_OUT_BOOKS, max(1, len(known) // LEFT_OUT_SHARE), len(known) - 1)]
    left_out = np.flatnonzero(np.isin(audiobooks, away))
    strangers = np.sort(rng.permutation(left_out)[:QUERIES])
    drawn = [("own", own, own), ("strangers", strangers, left_out)]
    return [_examination(kind, vectors, queries, out, k) for kind, queries, out in drawn if len(queries)]


def choose_probes(index: Any, recall: Callable[[], float], least: float = LEAST_RECALL) -> int | None:
    """Set nprobe to the first of 1, 2, 4, … with which `recall()` reaches `least`, else to the best of them.

    Returns:
        The probes set, None for an index without cells.
    """
    cells = cells_of(index)
    if cells is None:
        return None
    tried: dict[int, float] = {}
    for probes in ladder(cells.nlist):
        cells.nprobe = probes
        tried[probes] = recall()
        if tried[probes] >= least:
            return probes
    cells.nprobe = max(tried, key=lambda probes: (tried[probes], -probes))
    return int(cells.nprobe)


def ladder(cells: int) -> list[int]:
    """1, 2, 4, … and all cells."""
    return [*(1 << step for step in range((cells - 1).bit_length())), cells]


def recall_of(indexed: Indexed, examination: Examination, factor: int = 0) -> float:
    """Share of the exact k neighbours that an index finds with its own probes, or others as near (`COSINE_ROUNDING`).

    Args:
        indexed: the index, and what it was built of.
        examination: what is asked.
        factor: as in `examine_index`.
    """
    vectors, k = indexed.vectors, examination.k
    queries, out = vectors[examination.queries], indexed.ids[examination.left_out]
    if factor:
        only = _leaving_out(indexed.index, out)
        cosines, _ = refined_search(indexed.index, vectors, indexed.rows, queries, k, factor=factor, parameters=only)
    else:
        cosines = cosines_with(vectors, indexed.rows(_answers(indexed.index, queries, k, out)), queries)
    return float((cosines >= examination.least[:, None] - COSINE_ROUNDING).mean())


def _examination(kind: str, vectors: Matrix, queries: Int64s, left_out: Int64s, k: int) -> Examination:
    k = min(k, len(vectors) - len(left_out))
    counts = np.ones(len(vectors), bool)
    counts[left_out] = False
    best = np.full((len(queries), k), -np.inf, np.float32)
    asked = vectors[queries].astype(np.float32)
    for first in range(0, len(vectors), COMPARED_ROWS):
        part = slice(first, first + COMPARED_ROWS)
        products = asked @ vectors[part].astype(np.float32).T
        products[:, ~counts[part]] = -np.inf
        best = np.partition(np.concatenate([best, products], axis=1), -k, axis=1)[:, -k:]
    return Examination(kind, queries, left_out, best.min(axis=1), k)


def _answers(index: Any, queries: Matrix, k: int, left_out: Int64s) -> Int64s:
    """The k nearest ids that are not left out, -1 where there are not as many.

    A type that takes no selection (PQ without cells) is asked for so many more that k remain.
    """
    asked = np.ascontiguousarray(queries, dtype=np.float32)
    try:
        found: Int64s = index.search(asked, k, params=_leaving_out(index, left_out))[1]
    except RuntimeError:
        more = index.search(asked, k + len(left_out))[1]
        last = np.argsort(np.isin(more, left_out), axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(more, last, axis=1)
    return found


def _leaving_out(index: Any, ids: Int64s) -> Any:
    """FAISS's parameters for a search of an index as it stands, without these ids."""
    import faiss

    return _parameters(faiss.downcast_index(index), faiss.IDSelectorNot(faiss.IDSelectorBatch(ids)))


def _parameters(index: Any, selected: Any) -> Any:
    import faiss

    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(faiss.downcast_index(index.index), selected)
        return faiss.SearchParametersPreTransform(index_params=inner)  # type: ignore[call-arg]
    if isinstance(index, faiss.IndexIDMap):
        return _parameters(faiss.downcast_index(index.index), selected)
    if isinstance(index, faiss.IndexIVFRaBitQ):
        return faiss.IVFRaBitQSearchParameters(sel=selected, nprobe=index.nprobe, qb=index.qb)  # type: ignore[call-arg]
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selected, nprobe=index.nprobe)  # type: ignore[call-arg]
    return faiss.SearchParameters(sel=selected)  # type: ignore[call-arg]
