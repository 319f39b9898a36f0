"""The `cuda` engine: float16 products in tiles sized to the card, both tables of neighbours folded on the device.

    source part, on the card          target, streamed
    ┌──────────────────────┐   copy lane: pinned pieces → codes of the next stripe
    │ codes, forward lists │   multiply lane: tile = band of the source x stripe; maxima of its groups
    └──────────────────────┘   fold lane: what exceeds a floor goes into the lists of the band and of the stripe

The three lanes run side by side: products of the next tiles are on their way while the hits of one are sorted in, which
costs little arithmetic and many small steps. Where the source does not fit, it is cut in parts, and the target is
streamed once for each.

The same code runs on a CPU (`Cuda(dimension, device="cpu")`), where lanes do nothing and float16 rows are multiplied
in float32: that is how it is tested on machines without a GPU. Nothing here has run on a GPU yet: the lanes' order,
pinned copies and the sizes of tiles are by the book and by arithmetic, and `benchmarks.gpu` is to measure them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, zip_longest
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from speech_mining.errors import SettingsError
from speech_mining.knn.engines.device_lists import GROUP, GROUPS_AT_ONCE, HIT_BYTES, LISTS_AT_ONCE, DeviceLists, places
from speech_mining.knn.engines.fp32 import product_error
from speech_mining.knn.engines.lanes import PIECE_BYTES, Codes, Lane, Loaded, Loader, Mark, full_accumulation, steps
from speech_mining.knn.engines.protocol import Errors, Sweep
from speech_mining.knn.products import Tiling
from speech_mining.knn.toplists import CLOSED, TopLists

TILES = (
    Tiling(32_768, 16_384),
    Tiling(16_384, 16_384),
    Tiling(16_384, 8192),
    Tiling(8192, 8192),
    Tiling(4096, 4096),
    Tiling(2048, 2048),
    Tiling(1024, 1024),
    Tiling(256, 256),
)
"""From the largest, whose products take a GPU a millisecond or two: long enough to hide all the small steps behind."""
AHEAD = 2
"""Tiles that are asked for before the hits of one are looked at: one multiplies while another waits its turn."""
SHARE = 0.9
"""Of the card's free memory; the rest is lost between allocations."""
CPU_BYTES = 1_000_000_000
"""What a CPU is taken to have free."""
ALIGN = 8
"""Values of a row are padded to a multiple of this, or tensor cores are fed by slower loads."""
CORES = 4.0
"""How much worse than float32 addition tensor cores may add."""


@dataclass(frozen=True)
class Division:
    """How a card's memory is divided."""

    tile: Tiling
    part: int
    """Source rows on the card at once, with their lists."""


@dataclass(frozen=True)
class Load:
    """What a card has to hold."""

    source: int
    target: int
    width: int
    """Values in a row of codes."""
    places: int
    """Of a list on the device."""
    product_bytes: int


class Cuda:
    """Candidates by float16 products on a GPU.

    Products are stored as float16 too: writing them and reducing them twice then moves six bytes a product instead of
    twelve, which at 4.8 TB/s takes a third of the time of multiplying rows of 1024 at 790 TFLOP/s, and not two thirds.
    It costs little certainty: the bound at 1024 values is 7.4e-4 (2.5e-4 with float32, which `products` can ask for;
    4.5e-3 for int8), and of 32 000 rows none had to be searched again, where int8 left 15.
    """

    name = "cuda"

    def __init__(
        self,
        dimension: int,
        device: str = "cuda",
        division: Division | None = None,
        products: torch.dtype = torch.float16,
        free_share: float = 1.0,
    ) -> None:
        """Rows of `dimension` values; without a `division`, a share of what is free when a sweep begins is divided."""
        self.dimension = dimension
        self._device, self._division, self._products = torch.device(device), division, products
        self._free_share = free_share

    def row_bytes(self) -> int:
        """Nothing: rows are rounded on the device, and pass through pinned memory of a fixed size."""
        return 0

    def usual_error(self) -> float:
        """A little more than the bound of float16 rows."""
        return 1.01 * self._rounding()

    def sweep(self, work: Sweep) -> tuple[Errors, Errors]:
        """Multiply every tile once.

        Raises:
            SettingsError: the card has not enough memory free for the smallest tile.
        """
        source_rests, target_rests = (np.zeros(len(side), np.float32) for side in (work.source, work.target))
        if len(source_rests) and len(target_rests):
            division = self._division or self._divided(work)
            with full_accumulation():
                _sweep(work, _Card(self._device, self._products, division, work), source_rests, target_rests)
        return (
            self.errors(source_rests, float(target_rests.max(initial=0))),
            self.errors(target_rests, float(source_rests.max(initial=0))),
        )

    def errors(self, own: npt.NDArray[np.float32], other: float) -> Errors:
        """Error bound of rows with these rests, against rows whose rests are at most `other`.

        With x = x' + e and y = y' + f, x.y - x'.y' = e.y + x'.f, at most |e||y| + |f|(|x| + |e|) (Cauchy-Schwarz); a
        hundredth more allows for lengths that are not quite 1 and for rests that are computed in float32.
        """
        rests = own.astype(np.float64)
        return 1.01 * (rests + other * (1 + rests)) + self._rounding()

    def _rounding(self) -> float:
        """Bound on what adding up and storing add to the error.

        Tensor cores multiply float16 exactly. They add in groups, truncating each product to the last place of the
        largest (2^-23 of it), then the sum (Fasi, Higham, Mikaitis & Pranesh 2021, "Numerical behavior of NVIDIA
        tensor cores"; their oldest cards, newer ones keep more bits). That is once for each of the d products, and
        twice for each group's sum; with groups of two or more, at most 2 d 2^-23 |x||y|: four times the bound of
        float32 additions that are rounded to nearest. Stored as float16, a number below 2 moves by half of 2^-10.
        """
        stored = 2.0**-11 if self._products == torch.float16 else 0.0
        return CORES * product_error(self.dimension) + stored

    def _divided(self, work: Sweep) -> Division:
        held = max(places(lists) if is_wanted(lists) else 0 for lists in (work.forward, work.backward))
        load = Load(len(work.source), len(work.target), _padded(self.dimension, ALIGN), held, self._products.itemsize)
        return divide(self._free_share * _free_bytes(self._device), load)


def divide(free: float, load: Load) -> Division:
    """Find the largest tiles with which a quarter of the memory is left for the source, or as much as it needs.

    Args:
        free: bytes.
        load: what has to fit.

    Raises:
        SettingsError: not even the smallest does.
    """
    for tile in TILES:
        rows, columns = min(_padded(load.source), tile.rows), min(_padded(load.target), tile.columns)
        part = int((SHARE * free - tile_bytes(Tiling(rows, columns), load)) // row_bytes(load))
        if part >= min(load.source, rows) and (part >= load.source or part * row_bytes(load) >= free / 4):
            return Division(Tiling(rows, columns), min(part, load.source))
    least = tile_bytes(TILES[-1], load) + TILES[-1].rows * row_bytes(load)
    raise SettingsError(
        f"The GPU has {free / 1e9:.2g} GB of memory free.",
        expected=f"at least {2 * least / SHARE / 1e9:.2g} GB",
        cause="other processes hold its memory",
        fix='end them, or take engine "int8" or "fp32", which give the same neighbours',
    )


def tile_bytes(tile: Tiling, load: Load) -> float:
    """What tiles of this size take besides the source: products in flight, stripes, what is looked into."""
    products = (AHEAD + 1) * (1 + 2 / GROUP) * load.product_bytes + 24 / GROUP
    stripes = 2 * (tile.columns + GROUP) * row_bytes(load)
    # groups that are looked into, lists that are cut, and pieces of rows while they are rounded
    passing = GROUPS_AT_ONCE * GROUP * HIT_BYTES + LISTS_AT_ONCE * 4 * 8 * load.places + 4 * PIECE_BYTES
    return tile.rows * tile.columns * products + stripes + passing


def row_bytes(load: Load) -> int:
    """What a row takes on the card: codes, rest, list, count and floor."""
    return 2 * load.width + 4 + 8 * load.places + 12


def is_wanted(lists: TopLists) -> bool:
    """Whether any of the lists takes anything."""
    return bool((lists.floors < CLOSED).any())


def _padded(count: int, multiple: int = GROUP) -> int:
    return -(-count // multiple) * multiple


def _free_bytes(device: torch.device) -> float:
    """Memory that can be had: what the card has free, and what torch holds of it without use."""
    if device.type != "cuda":
        return CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


@dataclass(eq=False)
class _Room:
    """Memory of a tile: its products and the maxima of their groups."""

    products: torch.Tensor
    along_rows: torch.Tensor
    along_columns: torch.Tensor
    ready: Mark
    free: Mark

    @classmethod
    def empty(cls, tile: Tiling, kind: torch.dtype, device: torch.device) -> _Room:
        most = tile.rows * tile.columns
        products, along_rows, along_columns = (
            torch.empty(size, dtype=kind, device=device) for size in (most, most // GROUP, most // GROUP)
        )
        return cls(products, along_rows, along_columns, Mark(), Mark())

    def shaped(self, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Products (rows, columns), the maxima along rows (rows, c), along columns (r, columns)."""
        return (
            self.products[: rows * columns].view(rows, columns),
            self.along_rows[: rows * columns // GROUP].view(rows, columns // GROUP),
            self.along_columns[: rows * columns // GROUP].view(rows // GROUP, columns),
        )


class _Card:
    """A device during a sweep: its lanes, and the memory that is used again and again."""

    def __init__(self, device: torch.device, products: torch.dtype, division: Division, work: Sweep) -> None:
        self.device = device
        self.copying, self.multiplying, self.folding = (Lane(device) for _ in range(3))
        self.loader = Loader(self.copying, device)
        self.tile = Tiling(min(division.tile.rows, len(work.source)), min(division.tile.columns, len(work.target)))
        self.part, width = min(division.part, len(work.source)), _padded(work.source.shape[1], ALIGN)
        with self.copying.work():  # the last group of a tile may reach beyond the rows there are
            self.source = Codes.empty(self.part + GROUP, width, device)
            self.stripes = [Codes.empty(self.tile.columns + GROUP, width, device) for _ in range(2)]
        room = Tiling(_padded(self.tile.rows), _padded(self.tile.columns))
        with self.multiplying.work():
            self.rooms = [_Room.empty(room, products, device) for _ in range(AHEAD + 1)]

    def lists(self, lists: TopLists, rows: slice) -> DeviceLists | None:
        """Some rows' lists on the device, none where nobody wants them."""
        if not is_wanted(lists):
            return None
        with self.folding.work():
            return DeviceLists.load(lists, rows, self.device)

    def finish(self) -> None:
        """Wait for all lanes, so that no memory is given back while it is in use."""
        for lane in (self.copying, self.multiplying, self.folding):
            lane.finish()


@dataclass(frozen=True, eq=False)
class _Stripe:
    """Target rows on the device."""

    columns: slice
    loaded: Loaded
    lists: DeviceLists | None


@dataclass(frozen=True, eq=False)
class _Tile:
    """Products of a band of the source with a stripe of the target."""

    band: slice
    """Counted from the part's first row."""
    stripe: _Stripe
    room: _Room
    is_last: bool
    """Of its stripe."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        columns = self.stripe.columns
        return self.band.stop - self.band.start, columns.stop - columns.start

    @property
    def padded(self) -> tuple[int, int]:
        """The same as they are multiplied: whole groups both ways."""
        rows, columns = self.shape
        return _padded(rows), _padded(columns)


Rests: TypeAlias = npt.NDArray[np.float32]


def _sweep(work: Sweep, card: _Card, source_rests: Rests, target_rests: Rests) -> None:
    try:
        for rows in steps(slice(0, len(work.source)), card.part):
            _Part(work, card, rows, source_rests, target_rests).run()
    finally:
        card.finish()


class _Part:
    """Some source rows against the whole target."""

    def __init__(self, work: Sweep, card: _Card, rows: slice, source_rests: Rests, target_rests: Rests) -> None:
        self.work, self.card, self.rows = work, card, rows
        self.source_rests, self.target_rests = source_rests, target_rests
        self.loaded = card.loader.load(work.source, rows, card.source)
        self.lists = card.lists(work.forward, rows)

    def run(self) -> None:
        """Multiply all tiles; hits are looked at when the next ones have been asked for."""
        waiting: deque[_Tile] = deque()
        for tile in self._tiles():
            self._multiply(tile)
            waiting.append(tile)
            if len(waiting) > AHEAD:
                self._fold(waiting.popleft())
        for tile in waiting:
            self._fold(tile)
        self.card.source.free = self.card.multiplying.mark()
        with self.card.folding.work():
            self.source_rests[self.rows] = self.loaded.rests.cpu().numpy()
            if self.lists is not None:
                self.lists.unload(self.work.forward, self.rows)

    def _tiles(self) -> Iterator[_Tile]:
        rooms, size = cycle(self.card.rooms), self.rows.stop - self.rows.start
        for stripe in self._stripes():
            for band in steps(slice(0, size), self.card.tile.rows):
                yield _Tile(band, stripe, next(rooms), band.stop == size)

    def _stripes(self) -> Iterator[_Stripe]:
        """Stripe after stripe; a thread brings the next while one is multiplied."""
        card, target, memory = self.card, self.work.target, cycle(self.card.stripes)
        every = list(steps(slice(0, len(target)), card.tile.columns))
        bring = self.work.crew.pool.submit
        coming = bring(card.loader.load, target, every[0], next(memory))
        for columns, following in zip_longest(every, every[1:]):
            loaded = coming.result()
            if following is not None:
                coming = bring(card.loader.load, target, following, next(memory))
            yield _Stripe(columns, loaded, card.lists(self.work.backward, columns))
            loaded.codes.free = card.multiplying.mark()

    def _multiply(self, tile: _Tile) -> None:
        lane, room, (high, wide) = self.card.multiplying, tile.room, tile.padded
        with lane.work():
            # the source was loaded before the stripe, on the same lane
            lane.after(tile.stripe.loaded.there, room.free)
            products, along_rows, along_columns = room.shaped(high, wide)
            band = self.card.source.values[tile.band.start : tile.band.start + high]
            multiply_halves(band, tile.stripe.loaded.codes.values[:wide], products)
            rows, columns = tile.shape
            products[rows:] = -torch.inf
            products[:, columns:] = -torch.inf
            if self.lists is not None:
                torch.amax(products.view(high, GROUP, wide // GROUP), 1, out=along_rows)
            if tile.stripe.lists is not None:
                torch.amax(products.view(GROUP, high // GROUP, wide), 0, out=along_columns)
            room.ready = lane.mark()

    def _fold(self, tile: _Tile) -> None:
        lane = self.card.folding
        with lane.work():
            lane.after(tile.room.ready)
            self._fold_rows(tile)
            self._fold_columns(tile)
            tile.room.free = lane.mark()
        rows, columns = tile.shape
        self.work.tally.add(rows * columns)

    def _fold_rows(self, tile: _Tile) -> None:
        if self.lists is None:
            return
        (rows, _), (high, wide) = tile.shape, tile.padded
        products, maxima, _ = tile.room.shaped(high, wide)
        lists, first = self.lists.part(tile.band), tile.stripe.columns.start
        if first == 0:
            lists.start(maxima[:rows])
        lists.fold(products.view(high, GROUP, wide // GROUP)[:rows], maxima[:rows], self.work.target_offset + first)

    def _fold_columns(self, tile: _Tile) -> None:
        stripe, (_, columns), (high, wide) = tile.stripe, tile.shape, tile.padded
        if stripe.lists is not None:
            products, _, maxima = tile.room.shaped(high, wide)
            groups = products.view(GROUP, high // GROUP, wide).permute(2, 0, 1)
            first = self.rows.start + tile.band.start
            if tile.band.start == 0:
                stripe.lists.start(maxima.t()[:columns])
            stripe.lists.fold(groups[:columns], maxima.t()[:columns], self.work.source_offset + first)
        if tile.is_last:
            self.target_rests[stripe.columns] = stripe.loaded.rests.cpu().numpy()
            if stripe.lists is not None:
                stripe.lists.unload(self.work.backward, stripe.columns)


def multiply_halves(left: torch.Tensor, right: torch.Tensor, products: torch.Tensor) -> None:
    """Write the inner products of all rows: float16 (a, p), (b, p) -> float16 or float32 (a, b), summed in float32."""
    if left.device.type != "cuda":
        products.copy_(left.float() @ right.float().t())
    elif products.dtype == torch.float16:
        torch.mm(left, right.t(), out=products)
    else:
        torch.mm(left, right.t(), out_dtype=torch.float32, out=products)
