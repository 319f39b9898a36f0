"""Which sentences of a language come for the first time: exact, out of core, first in the order of shards.

Each shard is read once, and its hashes are kept in scratch as sorted runs: 12 bytes for each different sentence. Then
the runs of all shards are gone through side by side, one range of hashes after the other; a range and the set that
finds repeats in it fit the processor's cache. What is carried through all ranges is a bit for each row.

    10⁹ rows: 12 GB of scratch at most, 0.125 GB for bits, 0.7 GB to sort 2²⁴ rows, 0.04 GB for a range and its set;
    one pass that reads 12 GB in all. Memory is bounded by `memory_gb`, whatever the number of rows.

A new shard costs its own rows and the pass over hashes. A shard that was removed leaves nothing behind: what it
repeated in later shards is back, since a mask is always computed from all runs, as if from scratch. A run is written
whole or not at all, and named for the shard and its version, so a killed process is gone on from where it was.

What belongs here is runs and masks. When two sentences are the same is in `sentence_keys`; what becomes of a repeat is
the caller's.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.atomic import replacing
from speech_mining.errors import LakeError, SettingsError
from speech_mining.progress import Progress, silent
from speech_mining.text.sentence_keys import KEY_VERSION, expected_collisions, normalised_key, sentence_hash

__all__ = [
    "KEY_VERSION",
    "SentenceShard",
    "expected_collisions",
    "first_occurrences",
    "normalised_key",
    "sentence_hash",
]

SUFFIX = ".run"
TRAILER = b"s2srun01"
BATCH_ROWS = 1 << 16
BYTES_A_SORTED_ROW = 40
"""Hashes, their order, both again sorted, and what tells which come first."""
BYTES_A_RANGED_ROW = 48
"""A hash, up to four places of 8 bytes in the set, and the slices being read."""
LEAST_SORTED_ROWS, MOST_SORTED_ROWS = 1 << 16, 1 << 24
LEAST_RANGE_ROWS, MOST_RANGE_ROWS = 1 << 18, 1 << 24
ROWS_A_SLICE = 1 << 10
"""Of each run in a range: below that, opening files would cost more than reading them."""
SAMPLES_A_RANGE = 64


@dataclass(frozen=True)
class SentenceShard:
    """A parquet file of sentences, and the version of what it holds."""

    path: Path
    version: str = ""
    """Changes when the content does; by default the file's size and time of change."""

    def identity(self, column: str) -> str:
        """What its run is named for."""
        stat = self.path.stat()
        version = self.version or f"{stat.st_size}/{stat.st_mtime_ns}"
        told = json.dumps([str(self.path.absolute()), version, column, KEY_VERSION])
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _Plan:
    """How much is sorted at once, and how much compared."""

    sorted_rows: int
    range_rows: int


@dataclass(frozen=True)
class _Segment:
    """Part of a run: some rows of a shard, each different hash once, sorted."""

    run: Path
    at: int
    """Where its hashes begin in the file; the rows follow them."""
    count: int
    """Of different hashes."""
    base: int
    """The shard's row that its row 0 is."""

    def hashes(self, first: int, stop: int) -> npt.NDArray[np.uint64]:
        """Hashes of places `first:stop`, ascending."""
        return self._read(self.at + 8 * first, np.dtype(np.uint64), stop - first)

    @property
    def rows(self) -> npt.NDArray[np.uint32]:
        """Where each hash comes first, counted from `base`."""
        return self._read(self.at + 8 * self.count, np.dtype(np.uint32), self.count)

    @property
    def mapped(self) -> npt.NDArray[np.uint64]:
        """All hashes, of which a few are looked at."""
        return np.memmap(self.run, np.uint64, "r", self.at, (self.count,))

    def _read(self, at: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        with self.run.open("rb", buffering=0) as file:
            file.seek(at)
            return np.frombuffer(file.read(count * dtype.itemsize), dtype)


@dataclass(frozen=True)
class _Run:
    """All of a shard's hashes."""

    path: Path

    @cached_property
    def footer(self) -> dict[str, Any]:
        """The number of rows, and where segments lie."""
        with self.path.open("rb") as file:
            file.seek(-len(TRAILER) - 8, io.SEEK_END)
            size = int.from_bytes(file.read(8), "little")
            file.seek(-len(TRAILER) - 8 - size, io.SEEK_END)
            footer: dict[str, Any] = json.loads(file.read(size))
            return footer

    @property
    def rows(self) -> int:
        """Of the shard."""
        return int(self.footer["rows"])

    @property
    def segments(self) -> list[_Segment]:
        """In the order of rows; those without a hash are left out."""
        return [_Segment(self.path, *told) for told in self.footer["segments"] if told[1]]


def first_occurrences(
    shards: Sequence[SentenceShard | Path],
    *,
    scratch: Path,
    memory_gb: float = 4.0,
    column: str = "text",
    progress: Progress = silent,
) -> Iterator[tuple[Path, npt.NDArray[np.bool_]]]:
    """Tell which rows of each shard hold a sentence that no earlier row, in the order of shards, holds.

    Args:
        shards: of one language, in the order in which the first wins.
        scratch: a folder of this language's own: runs lie there, and those of shards that are no more are removed.
        memory_gb: 10⁹ bytes that the work may take, besides the interpreter, its libraries and a batch being read.
        column: strings, which are hashed by `sentence_hash`, or Int64 hashes, which are taken as they are. Two
            different sentences with one hash are taken for the same: see `expected_collisions`.
        progress: told the shards read.

    Yields:
        Each shard's path and bool (rows,), True where the row is kept; in the order given.

    Raises:
        SettingsError: a shard twice, too little memory (with the least that would do), or no such column.
        LakeError: a shard cannot be read.
    """
    given = [shard if isinstance(shard, SentenceShard) else SentenceShard(shard) for shard in shards]
    _refuse_twice(given)
    plan = _plan(memory_gb, len(given))
    runs = [_Run(scratch / f"{_identity(shard, column)}{SUFFIX}") for shard in given]
    _tidy(scratch, {run.path.name for run in runs})
    for done, (shard, run) in enumerate(zip(given, runs, strict=True), start=1):
        if not run.path.exists():
            _write_run(shard.path, column, run.path, plan.sorted_rows)
        progress(done, len(given))
    segments = [run.segments for run in runs]
    repeats = _repeats([segment for own in segments for segment in own], plan, memory_gb)
    return _masks(given, runs, segments, repeats)


def _refuse_twice(shards: list[SentenceShard]) -> None:
    seen: set[Path] = set()
    for shard in shards:
        path = shard.path.absolute()
        if path in seen:
            raise SettingsError(f"The shard {path} is named twice.", expected="each shard once")
        seen.add(path)


def _identity(shard: SentenceShard, column: str) -> str:
    try:
        return shard.identity(column)
    except OSError as error:
        raise LakeError(
            f"The shard {shard.path} cannot be read ({error.strerror}).",
            cause="it was removed after shards were listed",
            fix="list the shards again",
        ) from error


def _plan(memory_gb: float, shards: int) -> _Plan:
    """Half of the memory to sort, or else to compare; which do not happen at the same time."""
    least_gb = (LEAST_SORTED_ROWS * BYTES_A_SORTED_ROW + LEAST_RANGE_ROWS * BYTES_A_RANGED_ROW) / 1e9
    if memory_gb < least_gb:
        raise SettingsError(f"De-duplication may take {memory_gb} GB.", expected=f"at least {least_gb:.3f} GB")
    sorted_rows = int(memory_gb * 0.9e9 / BYTES_A_SORTED_ROW)
    range_rows = min(int(memory_gb * 0.5e9 / BYTES_A_RANGED_ROW), MOST_RANGE_ROWS)
    return _Plan(min(sorted_rows, MOST_SORTED_ROWS), min(max(LEAST_RANGE_ROWS, ROWS_A_SLICE * shards), range_rows))


def _tidy(scratch: Path, wanted: set[str]) -> None:
    """Remove runs of shards that are no more, and what a killed process left half written."""
    scratch.mkdir(parents=True, exist_ok=True)
    for path in scratch.iterdir():
        stale = path.suffix == SUFFIX and path.name not in wanted
        if stale or (path.suffix == ".part" and f"{SUFFIX}." in path.name):
            path.unlink(missing_ok=True)


# --- runs -------------------------------------------------------------------------------------------------------------


def _write_run(shard: Path, column: str, run: Path, sorted_rows: int) -> None:
    told: list[tuple[int, int, int]] = []
    with replacing(run) as part, part.open("wb") as file:
        rows = 0
        for hashes in _gathered(_hashes(shard, column), sorted_rows):
            unique, first = _sorted(hashes)
            told.append((file.tell(), len(unique), rows))
            file.write(unique.data)
            file.write(first.data)
            file.write(b"\0" * (-file.tell() % 8))
            rows += len(hashes)
        footer = json.dumps({"rows": rows, "segments": told}).encode()
        file.write(footer + len(footer).to_bytes(8, "little") + TRAILER)


def _hashes(shard: Path, column: str) -> Iterator[npt.NDArray[np.uint64]]:
    """A shard's hashes, a batch of rows at a time."""
    import pyarrow
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(shard) as file:
            _require_column(shard, column, file.schema_arrow)
            for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
                values = pl.Series(pl.from_arrow(batch.column(0)))
                if values.null_count():
                    raise LakeError(f"{shard} has rows without {column}.", expected="no nulls")
                own = sentence_hash(values) if values.dtype == pl.String else values
                yield own.to_numpy().view(np.uint64)
    except (OSError, pyarrow.ArrowException) as error:
        raise LakeError(
            f"The shard {shard} cannot be read ({error}).",
            expected="parquet",
            cause="it was cut short, or is no parquet",
        ) from error


def _require_column(shard: Path, column: str, schema: Any) -> None:
    import pyarrow

    found = schema.field(column).type if column in schema.names else None
    known = (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(), pyarrow.int64())
    if found not in known:
        raise SettingsError(
            f"The shard {shard} has {f'the column {column} of {found}' if found else f'no column {column}'}.",
            expected=f"strings or 64-bit integers in one of {', '.join(schema.names)}",
        )


def _gathered(batches: Iterator[npt.NDArray[np.uint64]], most: int) -> Iterator[npt.NDArray[np.uint64]]:
    """The same hashes in arrays of `most`; the last is shorter."""
    waiting: list[npt.NDArray[np.uint64]] = []
    count = 0
    for batch in batches:
        first = 0
        while first < len(batch):
            piece = batch[first : first + most - count]
            waiting.append(piece)
            first, count = first + len(piece), count + len(piece)
            if count == most:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _sorted(hashes: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Each different hash once, ascending, and the first row that has it."""
    order = np.argsort(hashes)
    ascending = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
    return ascending[starts], np.minimum.reduceat(order, starts).astype(np.uint32)


# --- what repeats -----------------------------------------------------------------------------------------------------


def _repeats(segments: list[_Segment], plan: _Plan, memory_gb: float) -> npt.NDArray[np.uint8]:
    """A bit for each hash of each segment, lowest first: whether an earlier segment has it. Segments begin at bytes."""
    starts = _starts(segments)
    needed_gb = (starts[-1] // 8 + LEAST_RANGE_ROWS * BYTES_A_RANGED_ROW) / 1e9
    if needed_gb > memory_gb:
        raise SettingsError(
            f"De-duplication of {starts[-1]} sentences may take {memory_gb} GB.",
            expected=f"at least {needed_gb:.3f} GB",
        )
    repeats = np.zeros(starts[-1] // 8, np.uint8)
    cuts = _cuts(segments, plan.range_rows)
    for place in range(len(cuts) - 1):
        _compare(segments, starts, cuts[place], cuts[place + 1], repeats)
    return repeats


def _starts(segments: list[_Segment]) -> list[int]:
    """The first bit of each segment, and one past the last."""
    counts = [-(-segment.count // 8) * 8 for segment in segments]
    return [0, *np.cumsum(counts, dtype=np.int64).tolist()]


def _cuts(segments: list[_Segment], range_rows: int) -> npt.NDArray[np.int64]:
    """Places in every segment, (ranges + 1, segments): ranges of hashes that hold about `range_rows` in all.

    Hashes of one's own need not be spread evenly, so the limits are quantiles of a sample.
    """
    counts = np.array([segment.count for segment in segments], np.int64)
    ranges = max(1, -(-int(counts.sum()) // range_rows))
    step = max(1, int(counts.sum()) // (ranges * SAMPLES_A_RANGE))
    sampled = [segment.mapped[step // 2 :: step] for segment in segments] if ranges > 1 else []
    sample = np.sort(np.concatenate(sampled)) if sampled else np.empty(0, np.uint64)
    limits = np.unique(sample[np.arange(1, ranges) * len(sample) // ranges]) if len(sample) else sample
    inner = [np.searchsorted(segment.mapped, limits) for segment in segments] if len(limits) else []
    cuts = np.zeros((len(limits) + 2, len(segments)), np.int64)
    if inner:
        cuts[1:-1] = np.stack(inner, axis=1)
    cuts[-1] = counts
    return cuts


def _compare(
    segments: list[_Segment],
    starts: list[int],
    first: npt.NDArray[np.int64],
    stop: npt.NDArray[np.int64],
    repeats: npt.NDArray[np.uint8],
) -> None:
    """Mark what repeats in one range of hashes."""
    from speech_mining.text.sentence_kernels import mark_repeats

    filled = np.flatnonzero(stop > first)
    slices = [segments[number].hashes(int(first[number]), int(stop[number])) for number in filled]
    hashes = np.concatenate(slices) if slices else np.empty(0, np.uint64)
    seen = np.zeros(1 << max(1, int(2 * len(hashes)).bit_length()), np.uint64)
    places = np.array([starts[number] + first[number] for number in filled], np.int64)
    mark_repeats(hashes, places, (stop - first)[filled], seen, repeats)


def _masks(
    shards: list[SentenceShard], runs: list[_Run], segments: list[list[_Segment]], repeats: npt.NDArray[np.uint8]
) -> Iterator[tuple[Path, npt.NDArray[np.bool_]]]:
    first = 0
    for shard, run, own in zip(shards, runs, segments, strict=True):
        kept = np.zeros(run.rows, np.bool_)
        for segment in own:
            stop = first + -(-segment.count // 8)
            again = np.unpackbits(repeats[first:stop], count=segment.count, bitorder="little")
            kept[segment.base + segment.rows[again == 0].astype(np.int64)] = True
            first = stop
        yield shard.path, kept
