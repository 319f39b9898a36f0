"""How a search divides its memory: length of lists, source rows prepared at once, size of a block.

Arithmetic only; nothing is allocated here. The figures were checked by running searches under a limit that the system
enforces (`tests/test_out_of_core.py`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import product

from speech_mining.errors import SettingsError
from speech_mining.knn.engines.blocks import ABOVE, PREPARED_AT_ONCE, RANK, SAMPLE
from speech_mining.knn.products import Tiling
from speech_mining.knn.settle import COLUMNS, COPIED_BYTES, QUERIES
from speech_mining.knn.toplists import Room

ROOMS = ((24, 24), (16, 8), (8, 4))
"""Candidates kept beyond k, and room beyond those."""
TILES = (Tiling(512, 2048), Tiling(256, 1024), Tiling(128, 512), Tiling(64, 256))
"""From the fastest (a 4 MB block) to the smallest, which takes 1.4 times as long."""
LIBRARY_BYTES = 4_000_000
THREAD_BYTES = 6_000_000
"""What the libraries set up for shapes of blocks they meet, and what each thread of theirs packs rows into."""
LEAST_SHARD = 1024
"""Source rows prepared at once are not cut below this: the target is read and prepared once for each shard."""
PREPARING = 1000
"""Products that could be computed in the time in which a row of the target is read and prepared."""
SEARCHING_AGAIN = 7
"""How often the time of all products it would take to search every row again, in both directions."""
ENDING_BYTES = 48
"""What each row of either side takes for a moment when the errors of a shard are worked out: six float64."""


@dataclass(frozen=True)
class Sizes:
    """What is searched, and with how many threads."""

    source: int
    target: int
    dimension: int
    k: int
    threads: int
    prepared_bytes: int
    """What a row takes in the form the engine multiplies."""


@dataclass(frozen=True)
class Plan:
    """How memory is divided."""

    room: Room
    tiles: Tiling
    shard: int
    """Source rows prepared at once."""


def plan(memory_gb: float | None, sizes: Sizes) -> Plan:
    """Find the fastest division that fits.

    Args:
        memory_gb: working memory in 10^9 bytes besides the two matrices; None takes the fastest.
        sizes: what is searched.

    Raises:
        SettingsError: the smallest division needs more; the least figure that works is named.
    """
    whole = max(1, sizes.source)
    divisions = [Plan(_room(sizes.k, *slack), tiles, whole) for slack, tiles in product(ROOMS, TILES)]
    if memory_gb is None:
        return divisions[0]
    memory_bytes = round(memory_gb * 1e9)
    smallest = [replace(division, shard=min(whole, LEAST_SHARD)) for division in divisions]
    fitting = [division for division in smallest if peak_bytes(division, sizes) <= memory_bytes]
    if not fitting:
        _refuse(memory_gb, min(peak_bytes(division, sizes) for division in smallest), sizes.threads)
    return min((_grown(division, sizes, memory_bytes) for division in fitting), key=lambda each: cost(each, sizes))


def peak_bytes(division: Plan, sizes: Sizes) -> int:
    """What a search so divided holds at most, besides the two matrices.

    The lists of the target and the results of the source are held throughout. Three moments compete for the rest: the
    products of a shard, the exact lists of a shard, and the exact lists of the target, when no shard is left.
    """
    exact = 12 * sizes.k + 4  # a row's neighbours, their cosines, and how many of them are proved
    lists = division.room.row_bytes
    held = sizes.source * exact + sizes.target * (lists + 8)
    prepared = division.shard * (lists + sizes.prepared_bytes)
    multiplying = prepared + _multiplying_bytes(division, sizes)
    ending = prepared + (division.shard + sizes.target) * ENDING_BYTES
    again = sizes.threads * _again_bytes(sizes)
    settling = division.shard * (lists + exact + 16) + sizes.target * 8 + again
    last = sizes.target * (exact + 8) + again
    return held + max(multiplying, ending, settling, last) + LIBRARY_BYTES + sizes.threads * THREAD_BYTES


def _room(k: int, slack: int, more: int) -> Room:
    return Room(k + slack, k + slack + more)


def _multiplying_bytes(division: Plan, sizes: Sizes) -> int:
    """Of all threads: first products with a sample, then a stripe of the target and blocks of products."""
    rows, columns = division.tiles.rows, division.tiles.columns
    source_sample, target_sample = (_sampled(count, division.room.kept) for count in (division.shard, sizes.target))
    starting = target_sample * (4 * sizes.dimension + sizes.prepared_bytes + 4 * PREPARED_AT_ONCE * sizes.threads)
    # as read, as prepared and as the library packs it; blocks are of two heights
    stripe = columns * (4 * sizes.dimension + 2 * sizes.prepared_bytes)
    blocks = 4 * columns * max(2 * rows, source_sample)
    return max(starting, source_sample * sizes.prepared_bytes + sizes.threads * (stripe + blocks))


def _sampled(count: int, kept: int) -> int:
    """Rows of a sample by which lists are started, at most."""
    return min(SAMPLE, RANK * count // (ABOVE * kept))


def _again_bytes(sizes: Sizes) -> int:
    """Of a thread that settles: candidates copied, or queries and base rows, as read and in float32, and products."""
    return max(2 * COPIED_BYTES, 8 * sizes.dimension * (QUERIES + COLUMNS) + 4 * QUERIES * COLUMNS)


def _grown(division: Plan, sizes: Sizes, memory_bytes: int) -> Plan:
    """The same with as many rows in a shard as fit."""
    shards = range(division.shard, max(1, sizes.source) + 1)
    fitting = bisect_right(shards, memory_bytes, key=lambda shard: peak_bytes(replace(division, shard=shard), sizes))
    return replace(division, shard=shards[fitting - 1])


def cost(division: Plan, sizes: Sizes) -> float:
    """Time against that of the fastest division, roughly; it only has to rank them.

    At k = 16, of 16 384 rows the int8 engine searched 0.06, 0.8 and 34 % again with 24, 16 and 8 candidates beyond k,
    at d = 1024 and much the same at 256. Blocks of up to 128 x 512 are as fast as any.
    """
    again = min(1.0, 8 * math.exp(-0.4 * (division.room.kept - sizes.k)))
    multiplying = 1.4 if division.tiles == TILES[-1] else 1.0
    return multiplying * (1 + PREPARING / division.shard) + SEARCHING_AGAIN * again


def _refuse(memory_gb: float, least: int, threads: int) -> None:
    digits = 10 ** (len(str(least)) - 3)
    rounded = -(-least // digits) * digits  # up, or the figure that is named would be refused too
    raise SettingsError(
        f"Neighbours were given {memory_gb:g} GB to work in.",
        expected=f"at least {rounded / 1e9:.10g} GB for the lists, {threads} smallest blocks and a shard of rows",
        fix="give more memory, fewer threads or a smaller k",
    )
