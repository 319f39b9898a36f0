"""How a search divides its memory: length of lists, source rows prepared at once, size of a block.

Arithmetic only; nothing is allocated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from speech_mining.errors import SettingsError
from speech_mining.knn.products import Tiling
from speech_mining.knn.toplists import Room

ROOMS = ((24, 24), (16, 8), (8, 4))
"""Candidates kept beyond k, and room beyond those. The first is the fastest: at k = 16 and d = 1024 it leaves one row
in a thousand to be searched again; the last holds a list in 40 % of the memory and leaves one in five."""
TILES = (Tiling(512, 2048), Tiling(256, 1024), Tiling(128, 512), Tiling(64, 256))
"""From the fastest (a 4 MB block) to the smallest that still multiplies at a third of full rate."""
FIXED_BYTES = 16_000_000
"""Kept aside for each thread: the libraries' own buffers and what settling holds in hand."""
LEAST_SHARD = 1024
"""Source rows prepared at once are not cut below this: the target is read and prepared once for each shard."""
RESULT_BYTES = 12


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
        SettingsError: the smallest division needs more.
    """
    divisions = [Plan(_room(sizes.k, *slack), tiles, 0) for slack, tiles in product(ROOMS, TILES)]
    if memory_gb is None:
        return Plan(divisions[0].room, divisions[0].tiles, max(1, sizes.source))
    for division in divisions:
        shard = int((memory_gb * 1e9 - _fixed(division, sizes)) // _shard_row_bytes(division, sizes))
        if shard >= min(sizes.source, LEAST_SHARD * _patience(division)):
            return Plan(division.room, division.tiles, max(1, min(shard, sizes.source)))
    least = _fixed(divisions[-1], sizes) + min(sizes.source, LEAST_SHARD) * _shard_row_bytes(divisions[-1], sizes)
    raise SettingsError(
        f"Neighbours were given {memory_gb:g} GB to work in.",
        expected=f"at least {least / 1e9:.3g} GB for the lists, {sizes.threads} smallest blocks and a shard of rows",
        fix="give more memory, fewer threads or a smaller k",
    )


def _patience(division: Plan) -> int:
    """Long lists and large blocks are not worth a shard of a thousand rows: every shard prepares the target again."""
    return 16 if division.room.kept - division.room.most != ROOMS[-1][1] and division.tiles != TILES[-1] else 1


def _room(k: int, slack: int, more: int) -> Room:
    return Room(k + slack, k + slack + more)


def _fixed(division: Plan, sizes: Sizes) -> int:
    """What does not grow with the shard: results, the lists of the target, and each thread's blocks."""
    rows, columns = division.tiles.rows, division.tiles.columns
    results = RESULT_BYTES * sizes.k * (sizes.source + sizes.target)
    lists = (division.room.row_bytes + 16) * sizes.target
    # a stripe of the target as read, as prepared and as the library packs it; the block and its products
    stripe = columns * (4 * sizes.dimension + 2 * sizes.prepared_bytes)
    return results + lists + sizes.threads * (stripe + 2 * 4 * rows * columns + FIXED_BYTES)


def _shard_row_bytes(division: Plan, sizes: Sizes) -> int:
    return division.room.row_bytes + sizes.prepared_bytes + 16
