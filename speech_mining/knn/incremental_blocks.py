"""An update of neighbours cut in blocks of products, which any processes search in any order, and put together again.

A block is some rows that came, or whose lists became short, with a band of the other side. It is named by what it is
searched from, so that one that is there need not be searched again, whoever plans it. What is put together equals
`incremental.update`: each list is proved as deep as every block proves it, and what then falls short is searched again.

Nothing is read from or written to disk here: that is `speech_mining.mining.blocks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.protocol import Vectors
from speech_mining.knn.exact import check_forms
from speech_mining.knn.incremental import Found, Request, Updated, found_between, searching, updated, vectors_at
from speech_mining.knn.incremental_lists import (
    SPARE,
    Draft,
    Places,
    Side,
    State,
    check_side,
    ends_of,
    merge,
    opened,
    short_of,
    usable,
)
from speech_mining.knn.neighbours import Cosines
from speech_mining.knn.products import bands
from speech_mining.knn.settle import Settled
from speech_mining.knn.toplists import CLOSED
from speech_mining.knn.vectors import check_unit_rows

SideName: TypeAlias = Literal["source", "target"]
OTHER: dict[SideName, SideName] = {"source": "target", "target": "source"}
VERSION = 1
"""Changes whenever a block searched before could not be put together with others."""
MERGED_ROWS = 1 << 18
"""Rows merged at a time: sorting two lists of 32 takes half a kilobyte a row, several times over."""
SHORT_ROWS, BASE_ROWS = 1 << 14, 1 << 20
"""Sides of the blocks in which the few rows are searched that fall short only when everything is put together."""


@dataclass(frozen=True)
class Cutting:
    """How an update is cut."""

    products: int
    """Products of a block, at most, unless there would be too many blocks."""
    blocks: int
    """Blocks, at most, unless they would have too many rows (give or take one a side and cause)."""
    rows: int = 10**7
    """Rows of either side of a block, at most: what its lists and its vectors take grows with them."""


@dataclass(frozen=True)
class Block:
    """Some products of an update."""

    name: str
    """Follows from all that it is searched from: ids, versions, where lists end, k."""
    side: SideName
    """Of the rows."""
    rows: tuple[int, int]
    """First and stop: which of the rows that came to the side, or that are searched again."""
    base: tuple[int, int]
    """Which of the rows of the other side that they are compared with."""
    again: bool
    """Whether the rows are searched again for their own sake: nothing is offered to the base."""

    @property
    def products(self) -> int:
        """How many it has."""
        return (self.rows[1] - self.rows[0]) * (self.base[1] - self.base[0])


@dataclass(frozen=True, eq=False)
class Pending:
    """What is to be done about one side."""

    came: Places
    """Rows that were not there before."""
    short: Places
    """Rows that were there, and whose lists have lost too much."""
    ends: Cosines
    """float32 (n,): where each list ends (`incremental_lists.ends_of`); closed for rows that are short."""

    @property
    def stayed(self) -> Places:
        """Rows that were there before."""
        return np.delete(np.arange(len(self.ends)), self.came)


@dataclass(frozen=True, eq=False)
class Agenda:
    """What is to be done about both sides, and in which blocks."""

    pending: dict[SideName, Pending]
    blocks: tuple[Block, ...]

    def places(self, block: Block) -> tuple[Places, Places]:
        """The rows of a block, as places on its side, and its base, as places on the other."""
        own, other = self.pending[block.side], self.pending[OTHER[block.side]]
        rows = (own.short if block.again else own.came)[slice(*block.rows)]
        return rows, _bases(own, other, block.side, block.again)[slice(*block.base)]


@dataclass(frozen=True, eq=False)
class Part:
    """What a block found for the rows of one side."""

    at: npt.NDArray[np.int32]
    """int32 (r,): which of the block's rows of this side."""
    depths: npt.NDArray[np.int32]
    """int32 (r,): so many neighbours are proved."""
    covers: npt.NDArray[np.bool_]
    """bool (r,): whether everything down to the end of the row's earlier list was found."""
    rows: npt.NDArray[np.int32]
    """int32 (sum of depths,): which of the block's rows of the other side, list after list."""
    cosines: npt.NDArray[np.float32]
    """float32 (sum of depths,)."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a block found."""

    rows: Part
    base: Part
    engine: str
    reason: str


def plan_blocks(before: State | None, source: Side, target: Side, k: int, cutting: Cutting) -> Agenda:
    """Cut in blocks what `incremental.update` would search.

    Args:
        before: the state after the last search, as `update` takes it.
        source: all source rows there are now; their vectors are not read.
        target: all target rows.
        k: neighbours in each direction.
        cutting: how large blocks are.

    Raises:
        EmbeddingError: as `update`.
    """
    return _agenda(_opened(before, source, target, k), k, cutting)


def _opened(before: State | None, source: Side, target: Side, k: int) -> tuple[Draft, Draft]:
    check_side(source)
    check_side(target)
    check_forms(source.vectors, target.vectors)
    return opened(usable(before, source, target, k), source, target, k + SPARE)


def _agenda(sides: tuple[Draft, Draft], k: int, cutting: Cutting) -> Agenda:
    source, target = sides
    pending: dict[SideName, Pending] = {
        "source": _pending(source, len(target.side.ids), k),
        "target": _pending(target, len(source.side.ids), k),
    }
    of_side: dict[SideName, Side] = {"source": source.side, "target": target.side}
    return Agenda(pending, tuple(_cut(of_side, pending, k, cutting)))


def _pending(draft: Draft, others: int, k: int) -> Pending:
    every = np.arange(len(draft.side.ids))
    short = draft.kept[np.isin(draft.kept, short_of(draft, others, k)) & ~draft.whole[draft.kept]]
    return Pending(draft.new, short, ends_of(draft, every, k))


def _bases(own: Pending, other: Pending, side: SideName, again: bool) -> Places:
    """What rows of a side are compared with: what came to the target meets only what had been in the source."""
    return other.stayed if side == "target" and not again else np.arange(len(other.ends))


def _cut(sides: dict[SideName, Side], pending: dict[SideName, Pending], k: int, cutting: Cutting) -> Iterator[Block]:
    causes: list[tuple[SideName, bool]] = [("source", False), ("target", False), ("source", True), ("target", True)]
    rectangles = []
    for side, again in causes:
        own, other = pending[side], pending[OTHER[side]]
        rectangles.append((side, again, own.short if again else own.came, _bases(own, other, side, again)))
    every = sum(len(rows) * len(base) for _, _, rows, base in rectangles)
    allowed = replace(cutting, products=max(cutting.products, -(-every // cutting.blocks)))
    for side, again, rows, base in rectangles:
        ends = np.empty(0, np.float32) if again else pending[OTHER[side]].ends
        first, second = _parts(len(rows), len(base), allowed, again)
        told_of_rows = _bands(sides[side], rows, first)
        told_of_base = _bands(sides[OTHER[side]], base, second, ends)
        for own_band, own_digest in told_of_rows:
            for base_band, base_digest in told_of_base:
                name = _digest(repr((VERSION, SPARE, k, again)).encode(), own_digest, base_digest).hex()
                yield Block(name, side, own_band, base_band, again)


def _parts(rows: int, base: int, cutting: Cutting, again: bool) -> tuple[int, int]:
    """In how many bands rows and base are cut, so that the blocks' lists are fewest: they are what is written."""
    wanted = -(-rows * base // cutting.products)
    if not wanted:
        return 0, 0
    least, least_of_base = -(-rows // cutting.rows), -(-base // cutting.rows)
    cuts = [(first, max(least_of_base, -(-wanted // first))) for first in range(least, max(wanted, least) + 1)]
    able = [cut for cut in cuts if cut[0] <= rows and cut[1] <= base] or [(rows, base)]
    return min(able, key=lambda cut: cut[1] * rows + (0 if again else cut[0] * base))


def _bands(side: Side, places: Places, parts: int, ends: Cosines | None = None) -> list[tuple[tuple[int, int], bytes]]:
    """Near-equal bands of some rows, each with what tells it from others."""
    told = []
    for band in bands(len(places), -(-len(places) // parts)) if parts else []:
        at = places[band]
        more = b"" if ends is None or not len(ends) else ends[at].tobytes()
        told.append(((band.start, band.stop), _digest(side.ids[at].tobytes(), side.versions[at].tobytes(), more)))
    return told


def _digest(*parts: bytes) -> bytes:
    hashed = hashlib.blake2b(digest_size=10)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.digest()


def search_block(
    rows: Vectors, base: Vectors, ends: Cosines, request: Request, unseen: Places | None = None
) -> Outcome:
    """Search a block.

    Args:
        rows: float16 or float32 (a, d), its rows.
        base: the same, (b, d).
        ends: float32 (b,), where the lists of the base end; all `CLOSED` where the rows are searched again.
        request: how to search; memory is divided for this block.
        unseen: rows of the base that were not looked at before; None: all of them.

    Raises:
        EmbeddingError: as `both_directions`; rows at fault are counted from the beginning of the block.
        SettingsError: as `both_directions`.
    """
    check_unit_rows(rows, "The block")
    check_unit_rows(base if unseen is None else vectors_at(base, unseen), "What is new in the block's base")
    with searching(request, len(rows), len(base), rows.shape[1]) as search:
        search.tally.expect(len(rows) * len(base))
        found = list(found_between(rows, base, ends, search))
        own, others = ([each for each in found if each.of_rows is of_rows] for of_rows in (True, False))
        return Outcome(_part(own), _part(others), search.engine.name, search.reason)


def closed(count: int) -> Cosines:
    """Ends of lists that take nothing."""
    return np.full(count, CLOSED, np.float32)


def _part(found: Sequence[Found]) -> Part:
    listed = [np.arange(each.lists.rows.shape[1]) < each.lists.depths[:, None] for each in found]
    return Part(
        _joined([each.at for each in found], np.int32),
        _joined([each.lists.depths for each in found], np.int32),
        _joined([each.covers for each in found], np.bool_),
        _joined([each.lists.rows[here] for each, here in zip(found, listed, strict=True)], np.int32),
        _joined([each.lists.cosines[here] for each, here in zip(found, listed, strict=True)], np.float32),
    )


def _joined(arrays: Sequence[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(array.astype(dtype) for array in arrays)])


def put_together(
    before: State | None,
    source: Side,
    target: Side,
    agenda: Agenda,
    outcomes: Iterable[Outcome],
    request: Request,
) -> Updated:
    """Bring neighbours up to date with what the blocks found.

    Args:
        before: as `plan_blocks` took it.
        source: likewise.
        target: likewise; vectors are read only of rows that fall short at the end.
        agenda: what `plan_blocks` planned.
        outcomes: of its blocks, in their order.
        request: how to search what falls short.

    Returns:
        What `update` returns. The neighbours are the same; lists may be proved beyond k to another depth.
    """
    sides = _opened(before, source, target, request.k)
    of_side: dict[SideName, Draft] = {"source": sides[0], "target": sides[1]}
    for side, draft in of_side.items():
        _begin_again(draft, agenda.pending[side].short)
    told: dict[str, str] = {}
    for block, outcome in zip(agenda.blocks, outcomes, strict=True):
        rows, base = agenda.places(block)
        _take_in(outcome.rows, of_side[block.side], rows, base)
        _take_in(outcome.base, of_side[OTHER[block.side]], base, rows)
        told.setdefault(outcome.engine, outcome.reason)
    again = sum(len(pending.short) for pending in agenda.pending.values())
    products = sum(block.products for block in agenda.blocks)
    for draft, other in (sides, sides[::-1]):
        short = short_of(draft, len(other.side.ids), request.k)
        again += len(short)
        products += _search_short(draft, short, other, request)
    named = ", ".join(told) or "none", "; ".join(dict.fromkeys(told.values())) or "nothing was to be searched"
    return updated(usable(before, source, target, request.k), sides, (products, again), request.k, named)


def _begin_again(draft: Draft, rows: Places) -> None:
    """Empty some lists: what is compared with them from now on is everything there is."""
    draft.depths[rows], draft.whole[rows] = 0, True


def _take_in(part: Part, draft: Draft, places: Places, others: Places) -> None:
    """Merge what a block found into the lists of a side."""
    size, starts = draft.rows.shape[1], np.concatenate([[0], np.cumsum(part.depths, dtype=np.int64)])
    for band in bands(len(part.at), MERGED_ROWS):
        depths, flat = part.depths[band], slice(int(starts[band.start]), int(starts[band.stop]))
        listed = np.arange(size) < depths[:, None]
        rows, cosines = np.full(listed.shape, -1, np.int64), np.full(listed.shape, -np.inf, np.float32)
        rows[listed], cosines[listed] = part.rows[flat], part.cosines[flat]
        merge(draft, places[part.at[band]], others, Settled(rows, cosines, depths, 0), part.covers[band])


def _search_short(draft: Draft, short: Places, other: Draft, request: Request) -> int:
    """Search again rows that fell short when everything was put together; gives the products it took.

    Few do: those whose earlier list a block could not prove to be covered, within the error of its products.
    """
    _begin_again(draft, short)
    for rows in bands(len(short), SHORT_ROWS):
        own = vectors_at(draft.side.vectors, short[rows])
        for band in bands(len(other.side.ids), BASE_ROWS):
            base = np.arange(band.start, band.stop)
            outcome = search_block(own, vectors_at(other.side.vectors, base), closed(len(base)), request, base[:0])
            _take_in(outcome.rows, draft, short[rows], base)
    return len(short) * len(other.side.ids)
