"""Speech that recurs: preambles, credits and announcements, the classic false friends of mining.

They say the same in every section and every book, so they are near to each other in every language, and each of them
finds a hundred translations. They are found by what they are, near-duplicates in many recordings of one language, and
not by a list of words. What belongs here is that search, and the step from recurring candidates to the stretches of
speech they come from; nothing here reads a file or draws an unseeded number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.progress import Progress, silent

VERSION = "1"

# Products of one block against everything compared, float32: 128 MiB.
BLOCK_PRODUCTS = 32 * 2**20

Floats: TypeAlias = npt.NDArray[np.float32]
Bools: TypeAlias = npt.NDArray[np.bool_]
Int64s: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RecurringConfig:
    """When speech counts as recurring."""

    similarity: float = 0.9
    """Cosine from which two candidates say the same, in (0, 1]."""
    min_recordings: int = 3
    """In how many recordings it must be heard, its own included. Two would forbid a story to be read twice."""
    min_share: float = 0.05
    """In what share of the recordings compared it must be heard, in [0, 1]. A work that eight people read is in a few
    of ten thousand recordings; a preamble is in most."""
    max_rows: int = 50_000
    """Rows that everything is compared with. Beyond, a seeded sample of whole recordings stands for the language."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not 0 < self.similarity <= 1:
            raise SettingsError(f"similarity is {self.similarity}.", expected="a cosine above 0, at most 1")
        if self.min_recordings < 2 or not 0 <= self.min_share <= 1 or self.max_rows < 1:
            raise SettingsError(
                f"min_recordings {self.min_recordings}, min_share {self.min_share}, max_rows {self.max_rows}.",
                expected="at least 2 recordings, a share from 0 to 1, at least 1 row",
                cause="what is heard in a single recording recurs nowhere",
            )


@dataclass(frozen=True, eq=False)
class RecurringReport:
    """Which rows recur, and which touch speech that does."""

    others: npt.NDArray[np.int32]
    """int32 (n,): in how many other compared recordings each row has a near-duplicate."""
    recurring: Bools
    """bool (n,): in enough of them."""
    touching: Bools
    """bool (n,): the row contains a marked run, a speech run that belongs to recurring speech."""
    marked_runs: pl.DataFrame
    """`recording` (int64), `run` (int64), sorted: the speech runs that belong to recurring speech."""
    needed: int
    """How many other recordings were enough."""
    compared_recordings: int
    compared_rows: int
    sampled: bool
    """Whether a sample of recordings stood for the language."""

    @property
    def dropped(self) -> Bools:
        """Rows not to be mined, bool (n,): recurring or touching."""
        return self.recurring | self.touching


def recurring_rows(
    vectors: npt.NDArray[np.float16],
    recording: npt.NDArray[np.integer],
    runs: npt.NDArray[np.integer],
    config: RecurringConfig | None = None,
    *,
    progress: Progress = silent,
) -> RecurringReport:
    """Find the candidates of one language that recur in many of its recordings, and those that contain such speech.

    Every row is compared with every compared row (exactly, in blocks of bounded memory); what counts is the number of
    *other recordings* with a cosine of at least `similarity`, so a sentence repeated within a recording is no
    recurrence. A candidate that holds a preamble and a bit of story may recur too, since most of it does. It must not
    condemn the story, so only candidates that are *mirrored* elsewhere mark their runs (see `count_mirrors`), and every
    candidate with a marked run is dropped. On simulated recordings recurrence alone finds half of the candidates that
    hold some preamble; marking the runs of all that recur costs 4 % of what is dropped in stories; with mirrors both
    precision and recall are 0.99 or more. What is shorter than the shortest candidate cannot be found.

    Args:
        vectors: float16 (n, d), rows of unit length.
        recording: integers (n,), number of each row's recording, any numbers.
        runs: integers (n, 2), first and last speech run (inclusive) of each row within its recording, not negative.
        config: thresholds, and the cap above which a sample is compared.
        progress: told rows done, of n.

    Raises:
        EmbeddingError: shapes that do not fit, rows that are not of unit length, runs that end before they start.
    """
    config = config or RecurringConfig()
    own, spans = recording.astype(np.int64), runs.astype(np.int64)
    _refuse_misfits(vectors, own, spans)
    compared = _compared_rows(own, config)
    names, starts = np.unique(own[compared], return_index=True)
    needed = max(config.min_recordings, int(np.ceil(config.min_share * len(names) - 1e-9))) - 1
    others = np.zeros(len(vectors), np.int64)
    reference = _as_unit(vectors[compared])
    for block in _blocks(len(vectors), len(compared)):
        others[block] = _count_others(_as_unit(vectors[block]), own[block], reference, names, starts, config)
        progress(block.stop, len(vectors))
    recurring = others >= needed
    mirrored = _mirrored(vectors, own, compared, others, recurring, needed, config.similarity)
    marked = _runs_of(own[mirrored], spans[mirrored])
    return RecurringReport(
        others=others.astype(np.int32),
        recurring=recurring,
        touching=_touching(own, spans, marked),
        marked_runs=marked,
        needed=needed,
        compared_recordings=len(names),
        compared_rows=len(compared),
        sampled=len(compared) < len(vectors),
    )


def count_mirrors(
    vectors: npt.NDArray[np.float16],
    recording: Int64s,
    reference: Floats,
    reference_recording: Int64s,
    similarity: float,
) -> Int64s:
    """Count the recordings in which each recurring row is mirrored: it and its nearest row there are mutually nearest.

    A preamble's exact span is mirrored by the same span elsewhere. A span of preamble and a bit of story is not: its
    nearest elsewhere is the span without the story, whose nearest here is the span without the story too.

    Args:
        vectors: float16 (m, d), rows of unit length, all recurring.
        recording: int64 (m,).
        reference: float32 (r, d), recurring rows to look for mirrors in, grouped by recording.
        reference_recording: int64 (r,), ascending.
        similarity: least cosine of a mirror.

    Returns:
        int64 (m,).
    """
    mirrors = np.zeros(len(vectors), np.int64)
    starts = np.unique(reference_recording, return_index=True)[1]
    sizes = np.diff(np.append(starts, len(reference)))
    for name, rows in _by_recording(recording):
        cosine = _as_unit(vectors[rows]) @ reference.T
        nearest_there = np.repeat(np.maximum.reduceat(cosine, starts, axis=1), sizes, axis=1)
        nearest_here = cosine.max(axis=0)[None, :]
        mutual = (cosine >= nearest_there) & (cosine >= nearest_here) & (cosine >= similarity)
        mutual &= (reference_recording != name)[None, :]
        mirrors[rows] = np.logical_or.reduceat(mutual, starts, axis=1).sum(axis=1)
    return mirrors


def _mirrored(
    vectors: npt.NDArray[np.float16],
    recording: Int64s,
    compared: Int64s,
    others: Int64s,
    recurring: Bools,
    least: int,
    similarity: float,
) -> Bools:
    """Recurring rows mirrored in enough recordings, and in at least half of those they recur in."""
    mirrored = np.zeros(len(recurring), np.bool_)
    rows, reference = np.flatnonzero(recurring), compared[recurring[compared]]
    if len(reference):
        mirrors = count_mirrors(
            vectors[rows], recording[rows], _as_unit(vectors[reference]), recording[reference], similarity
        )
        mirrored[rows] = (mirrors >= least) & (2 * mirrors >= others[rows])
    return mirrored


def _runs_of(recording: Int64s, runs: Int64s) -> pl.DataFrame:
    """The speech runs that candidates are made of, each once."""
    spans = pl.DataFrame({"recording": recording, "first": runs[:, 0], "last": runs[:, 1]})
    every = spans.select("recording", run=pl.int_ranges("first", pl.col("last") + 1)).explode("run")
    return every.unique().sort("recording", "run")


def _touching(recording: Int64s, runs: Int64s, marked: pl.DataFrame) -> Bools:
    touching = np.zeros(len(recording), np.bool_)
    of_recording = dict(marked.group_by("recording").agg(pl.col("run").sort()).iter_rows())
    for name, rows in _by_recording(recording):
        here = np.array(of_recording.get(name, []), np.int64)
        low, high = np.searchsorted(here, runs[rows, 0], "left"), np.searchsorted(here, runs[rows, 1], "right")
        touching[rows] = high > low
    return touching


def _by_recording(recording: Int64s) -> Iterator[tuple[int, Int64s]]:
    """Rows of each recording, in ascending order of recordings."""
    order = np.argsort(recording, kind="stable")
    names, sizes = np.unique(recording, return_counts=True)
    stops = np.cumsum(sizes)
    for name, start, stop in zip(names, stops - sizes, stops, strict=True):
        yield int(name), order[start:stop]


def _compared_rows(recording: Int64s, config: RecurringConfig) -> Int64s:
    """Rows to compare with, grouped by recording: all, or whole recordings drawn by seed until the cap is reached."""
    order = np.argsort(recording, kind="stable")
    if len(order) <= config.max_rows:
        return order
    names, sizes = np.unique(recording, return_counts=True)
    drawn = np.random.default_rng(config.seed).permutation(len(names))
    fitting = max(config.min_recordings, int(np.searchsorted(np.cumsum(sizes[drawn]), config.max_rows, "right")))
    return order[np.isin(recording[order], names[drawn[:fitting]])]


def _count_others(
    block: Floats, own: Int64s, reference: Floats, names: Int64s, starts: Int64s, config: RecurringConfig
) -> npt.NDArray[np.int64]:
    nearest = np.maximum.reduceat(block @ reference.T, starts, axis=1)
    near = (nearest >= config.similarity) & (names[None, :] != own[:, None])
    others: npt.NDArray[np.int64] = near.sum(axis=1, dtype=np.int64)
    return others


def _blocks(rows: int, compared: int) -> Iterator[slice]:
    size = max(1, BLOCK_PRODUCTS // max(1, compared))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


def _as_unit(vectors: npt.NDArray[np.float16]) -> Floats:
    wide = vectors.astype(np.float32)
    unit: Floats = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def _refuse_misfits(vectors: npt.NDArray[np.float16], recording: Int64s, runs: Int64s) -> None:
    if vectors.ndim != 2 or recording.shape != (len(vectors),) or runs.shape != (len(vectors), 2):
        raise EmbeddingError(
            f"vectors {vectors.shape}, recording {recording.shape}, runs {runs.shape}.",
            expected="(n, d), (n,) and (n, 2)",
            cause="rejected segments were left in one of the tables",
        )
    if len(runs) and (bool((runs[:, 1] < runs[:, 0]).any()) or int(runs.min()) < 0):
        raise EmbeddingError("A candidate's last run is before its first, or a run is negative.")
    for block in _blocks(len(vectors), vectors.shape[1]):
        length = np.linalg.norm(vectors[block].astype(np.float32), axis=1)
        if not bool((np.abs(length - 1) < 0.01).all()):
            raise EmbeddingError(
                f"Rows {block.start} to {block.stop} hold lengths from {length.min()} to {length.max()}.",
                expected="rows of unit length",
                fix="normalise the vectors, and reject what has none",
            )
