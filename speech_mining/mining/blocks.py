"""Neighbours of a large pair, searched in blocks by processes that share nothing but the lake.

One process plans, any number search a block each, one merges: what passes between them stands in a scratch layer beside
the neighbours, the plan under the name of its run, each block under the name of what it is searched from. So a block
that is there is never searched again, whichever run or machine has left it, and a process that dies costs its block.
When the merged state is published, the layer is emptied.

What belongs here is the lake. The arithmetic is `speech_mining.knn.incremental_blocks`; one process that does it all is
`renewal`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import LakeError
from speech_mining.knn.incremental import Request
from speech_mining.knn.incremental_blocks import (
    OTHER,
    VERSION,
    Agenda,
    Block,
    Cutting,
    Outcome,
    Part,
    Pending,
    SideName,
    closed,
    plan_blocks,
    put_together,
    search_block,
)
from speech_mining.knn.incremental_lists import Places, Side
from speech_mining.knn.open_files import make_room
from speech_mining.knn.roll import Layout, Roll, index_is_older, read_block
from speech_mining.knn.vectors import Chosen, Stack
from speech_mining.lake import Lake, Partition
from speech_mining.mining.kinds import Kind
from speech_mining.mining.renewal import Kept, Renewed, in_memory_if_small, read_state, write_state
from speech_mining.progress import Progress

SIDES: tuple[SideName, SideName] = ("source", "target")
LAYER = "neighbour_blocks"
TOLD_EVERY_S = 60.0
"""Seconds between two words of a block about how far it is."""

Teller = Callable[[str], None]


@dataclass(frozen=True)
class Shared:
    """A pair whose neighbours several processes search, and the plan they follow."""

    lake: Lake
    kind: Kind
    pair: tuple[str, str]
    plan: str
    """What the plan is kept under: one for each run."""

    @property
    def layer(self) -> str:
        """Of the plan and the blocks."""
        return self.kind.layer(LAYER)

    @property
    def key(self) -> str:
        """Of the pair."""
        return "-".join(self.pair)

    @property
    def state(self) -> Kept:
        """Where the state of the pair is kept."""
        return Kept(self.lake, self.kind.layer("neighbour_state"), self.key)


@dataclass(frozen=True)
class Searched:
    """What a block cost."""

    name: str
    products: int
    seconds: float
    engine: str
    again: bool = False
    """Whether it had been there before it was asked for."""


@dataclass(frozen=True, eq=False)
class Merged:
    """Neighbours of a pair as of now, and the blocks that they were put together from."""

    renewed: Renewed
    blocks: tuple[Searched, ...]
    reused: int
    """Blocks that an earlier run had left, and that were not searched again."""


@dataclass(frozen=True, eq=False)
class _Plan:
    """A plan as it is kept."""

    shared: Shared
    kept: Partition
    told: dict[str, Any]

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(
            Block(**{**block, "rows": tuple(block["rows"]), "base": tuple(block["base"])})
            for block in self.told["blocks"]
        )

    @property
    def agenda(self) -> Agenda:
        return Agenda({side: self._pending(side) for side in SIDES}, self.blocks)

    def _pending(self, side: SideName) -> Pending:
        return Pending(*(self.kept.read_array(f"{side}_{name}.npy") for name in ("came", "short", "ends")))

    def side(self, side: SideName) -> Side:
        """A side whose vectors are opened when the first of them is asked for."""
        rows = self.kept.read_array(f"{side}_rows.npy")
        form = (len(rows), int(self.told["dimension"]))
        ids, versions = (self.kept.read_array(f"{side}_{name}.npy") for name in ("ids", "versions"))
        return Side(ids, versions, _Unopened(form, lambda: self.vectors(side, np.arange(len(rows)))))

    def vectors(self, side: SideName, places: Places) -> Chosen:
        """Vectors of some rows of a side; only the audiobooks or shards that have any of them are opened."""
        rows = self.kept.read_array(f"{side}_rows.npy")[places]
        number = SIDES.index(side)
        layout, language = self.shared.kind.layouts[number], self.shared.pair[number]
        books = self.kept.read_table(f"{side}_roll.parquet", layout.roll)
        return _opened(self.shared.lake, language, layout, books, rows)


class _Unopened:
    """Vectors that few ask for: a merge only does for rows that fall short."""

    def __init__(self, shape: tuple[int, int], opener: Callable[[], Chosen]) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(np.float16), 2
        self._opener: Callable[[], Chosen] = opener
        self._vectors: Chosen | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if self._vectors is None:
            self._vectors = self._opener()
        return self._vectors[rows]


def plan(shared: Shared, request: Request, cutting: Cutting, tell: Teller) -> list[Block]:
    """Cut in blocks what is to be searched, and keep the plan.

    Args:
        shared: what is searched; a plan of the same name is replaced.
        request: how: k counts here.
        cutting: how large blocks are.
        tell: told what was found to do.

    Returns:
        The blocks that no run has left yet.

    Raises:
        LakeError: an index is missing or older than its embeddings.
    """
    rolls = [_indexed(shared.lake, *side) for side in zip(shared.pair, shared.kind.layouts, strict=True)]
    encoders = (rolls[0][0].encoder, rolls[1][0].encoder)
    before = shared.lake.find(shared.state.layer, shared.key)
    state, _ = read_state(shared.state, encoders, request.k)
    rows = [np.flatnonzero(~recurs) for _, recurs in rolls]
    sides = [_side(roll, at) for (roll, _), at in zip(rolls, rows, strict=True)]
    agenda = plan_blocks(state, sides[0], sides[1], request.k, cutting)
    there = set(shared.lake.keys(shared.layer, shared.key))
    missing = [block for block in agenda.blocks if block.name not in there]
    told = {
        "version": VERSION,
        "k": request.k,
        "state": before.data_version if before else "",
        "encoders": list(encoders),
        "rolls": [roll.version for roll, _ in rolls],
        "left_out": sum(int(recurs.sum()) for _, recurs in rolls),
        "dimension": rolls[0][0].stack.shape[1],
        "blocks": [asdict(block) for block in agenda.blocks],
        "reused": len(agenda.blocks) - len(missing),
    }
    _keep(shared, [roll for roll, _ in rolls], (rows, sides, agenda), told)
    products = sum(block.products for block in agenda.blocks)
    tell(f"{products} products in {len(agenda.blocks)} blocks, {len(missing)} of them to be searched")
    return missing


def _indexed(lake: Lake, language: str, layout: Layout) -> tuple[Roll, npt.NDArray[np.bool_]]:
    """The roll as the index tells it, and which rows recur; an object store would have to send all vectors otherwise.

    Raises:
        LakeError: audiobooks or shards that are in it are gone or were embedded again.
    """
    index = lake.partition(layout.index, language)
    books = index.read_table("roll.parquet", layout.roll)
    _refuse_older(lake, language, layout, books)
    rows = index.read_table("rows.parquet", layout.rows)
    encoder, dimension = "", 0
    for name in books.filter(pl.col("rows") > 0)[layout.block].head(1):
        first = read_block(lake, language, name, layout)
        encoder, dimension = first.encoder, int(first.vectors.shape[1])
    items = rows.select(list(layout.items))
    return Roll(books, items, Stack([], dimension), encoder, layout), rows["recurring"].to_numpy()


def _refuse_older(lake: Lake, language: str, layout: Layout, books: pl.DataFrame) -> None:
    """Refuse an index whose own blocks are gone or others; what came since takes no part in it."""
    there = set(lake.keys(layout.embeddings, language))
    changed = [
        name
        for name, version in books.select(layout.block, "data_version").iter_rows()
        # of a shard without its repeats the version has a second part; a block looks closer at what it opens
        if name not in there
        or lake.partition(layout.embeddings, language, name).data_version != version.partition("-")[0]
    ]
    if changed:
        raise index_is_older(language, layout, changed)


def _side(roll: Roll, rows: Places) -> Side:
    return Side(roll.ids[rows], roll.versions[rows], Chosen(roll.stack, rows))


def _keep(
    shared: Shared, rolls: list[Roll], planned: tuple[list[Places], list[Side], Agenda], told: dict[str, Any]
) -> None:
    all_rows, sides, agenda = planned
    with shared.lake.replace(shared.layer, shared.key, shared.plan) as new:
        for name, roll, rows, side in zip(SIDES, rolls, all_rows, sides, strict=True):
            pending = agenda.pending[name]
            arrays = {"rows": rows, "ids": side.ids, "versions": side.versions, **vars(pending)}
            for array_name, array in arrays.items():
                new.write_array(f"{name}_{array_name}.npy", array)
            new.write_table(f"{name}_roll.parquet", roll.blocks, roll.layout.roll)
        new.write_json("plan.json", told)


def _read_plan(shared: Shared) -> _Plan | None:
    kept = shared.lake.find(shared.layer, shared.key, shared.plan)
    return None if kept is None else _Plan(shared, kept, kept.read_json("plan.json"))


def _opened(lake: Lake, language: str, layout: Layout, books: pl.DataFrame, rows: Places) -> Chosen:
    """Some rows of a roll.

    Raises:
        LakeError: one of their blocks was embedded again since.
    """
    firsts = books["first_row"].to_numpy()
    number = np.searchsorted(firsts, rows, "right") - 1
    used = np.unique(number)
    named = books[used.tolist()]
    make_room(named.height)
    opened = [read_block(lake, language, name, layout) for name in named[layout.block]]
    changed = [
        block.name
        for block, version in zip(opened, named["data_version"], strict=True)
        if block.data_version != version
    ]
    if changed:
        raise LakeError(
            f"{len(changed)} {layout.block}s of {language} were embedded again while their neighbours were being "
            f"searched: {', '.join(changed[:5])}.",
            expected="the embeddings that the plan was made of",
            cause=f"{layout.embeddings} was materialized during the run",
            fix=f"materialize {language}/{layout.index} and the neighbours again: blocks whose rows are the same are "
            "not searched again",
        )
    starts = np.cumsum([0, *(len(block.vectors) for block in opened)])[:-1]
    place = np.searchsorted(used, number)
    return Chosen(Stack([block.vectors for block in opened]), rows - firsts[number] + starts[place])


def search(shared: Shared, name: str, request: Request, tell: Teller) -> Searched | None:
    """Search a block and keep what it found.

    Args:
        shared: what is searched.
        name: of the block.
        request: with which engine, and in how much memory; k is the plan's.
        tell: told, now and then, how far it is.

    Returns:
        What it cost; None where the plan is gone, because another run has merged in the meantime.

    Raises:
        LakeError: the plan has no such block, or embeddings have changed since.
    """
    planned = _read_plan(shared)
    if planned is None:
        tell(f"the plan of block {name} is gone: another run of the pair has merged since")
        return None
    found = shared.lake.find(shared.layer, shared.key, name)
    if found is not None:
        tell(f"block {name} is there: it is not searched again")
        return replace(_searched(found, name), again=True)
    block = _block(planned, name)
    began = time.perf_counter()
    outcome = _search(planned, block, request, tell)
    told = Searched(name, block.products, round(time.perf_counter() - began, 3), outcome.engine)
    with shared.lake.replace(shared.layer, shared.key, name) as new:
        for part_name, part in (("rows", outcome.rows), ("base", outcome.base)):
            for field, array in vars(part).items():
                new.write_array(f"{part_name}_{field}.npy", array)
        new.write_json("told.json", {**asdict(told), "reason": outcome.reason})
    tell(f"block {name}: {told.products} products in {told.seconds} s, {outcome.engine} ({outcome.reason})")
    return told


def _block(planned: _Plan, name: str) -> Block:
    for block in planned.blocks:
        if block.name == name:
            return block
    raise LakeError(
        f"The plan of {planned.shared.key} has no block {name}.",
        expected=f"one of {len(planned.blocks)} blocks",
        cause="the pair was planned anew since the block was asked for",
        fix="materialize the neighbours again: blocks whose rows are the same are not searched again",
    )


def _search(planned: _Plan, block: Block, request: Request, tell: Teller) -> Outcome:
    agenda, other = planned.agenda, OTHER[block.side]
    rows, base = agenda.places(block)
    pending = agenda.pending[other]
    ends = closed(len(base)) if block.again else pending.ends[base]
    unseen = np.flatnonzero(np.isin(base, pending.came))
    own, others = (
        in_memory_if_small(planned.vectors(side, places)) for side, places in ((block.side, rows), (other, base))
    )
    asked = replace(request, k=int(planned.told["k"]), progress=_told_now_and_then(tell))
    return search_block(own, others, ends, asked, unseen)


def _told_now_and_then(tell: Teller) -> Progress:
    last = time.monotonic()

    def progress(done: int, total: int, /) -> None:
        nonlocal last
        if time.monotonic() - last >= TOLD_EVERY_S:
            last = time.monotonic()
            tell(f"{done} of {total} products, {100 * done / max(1, total):.0f} %")

    return progress


def _searched(found: Partition, name: str) -> Searched:
    told = found.read_json("told.json")
    return Searched(name, int(told["products"]), float(told["seconds"]), str(told["engine"]))


def _outcome(found: Partition) -> Outcome:
    told = found.read_json("told.json")
    parts = [Part(**{name: found.read_array(f"{part}_{name}.npy") for name in _PART}) for part in ("rows", "base")]
    return Outcome(parts[0], parts[1], str(told["engine"]), str(told["reason"]))


_PART = ("at", "depths", "covers", "rows", "cosines")


def merge(shared: Shared, request: Request, cutting: Cutting, searched_here: int, tell: Teller) -> Merged:
    """Put the blocks together and keep the state.

    A plan that is gone, or whose state another run has replaced, is made anew: after that run there is nothing left to
    do.

    Args:
        shared: what was searched.
        request: how to search what is still to be searched.
        cutting: how large blocks are, where they are planned anew.
        searched_here: products that may be missing, to be searched by this process.
        tell: told how far it is.

    Raises:
        LakeError: more than that is missing.
    """
    planned = _read_plan(shared)
    if planned is None or not _is_current(planned, request):
        plan(shared, request, cutting, tell)
        planned = _read_plan(shared)
    if planned is None:
        raise LakeError(
            f"The plan of {shared.key} vanished as soon as it was kept.",
            cause=f"another run of the pair, or a sweep of {shared.layer}, is under way",
            fix="materialize the neighbours again when it has ended",
        )
    _search_missing(planned, request, searched_here, tell)
    encoders = (str(planned.told["encoders"][0]), str(planned.told["encoders"][1]))
    state, began = read_state(shared.state, encoders, request.k)
    source, target = (planned.side(side) for side in SIDES)
    updated = put_together(state, source, target, planned.agenda, _outcomes(planned), request)
    if state is None or updated.work.any:
        write_state(shared.state, encoders, updated.state)
    rolls = (str(planned.told["rolls"][0]), str(planned.told["rolls"][1]))
    left_out = int(planned.told["left_out"])
    renewed = Renewed(updated.neighbours, source.ids, target.ids, updated.work, began, left_out, encoders, rolls)
    found = [shared.lake.partition(shared.layer, shared.key, block.name) for block in planned.blocks]
    told = tuple(_searched(each, block.name) for each, block in zip(found, planned.blocks, strict=True))
    return Merged(renewed, told, int(planned.told["reused"]))


def _is_current(planned: _Plan, request: Request) -> bool:
    """Whether a plan was made of the state that is there, for this k and by this code."""
    state = planned.shared.lake.find(planned.shared.state.layer, planned.shared.key)
    now = {"version": VERSION, "k": request.k, "state": state.data_version if state else ""}
    return all(planned.told[name] == told for name, told in now.items())


def _search_missing(planned: _Plan, request: Request, most: int, tell: Teller) -> None:
    shared = planned.shared
    there = set(shared.lake.keys(shared.layer, shared.key))
    missing = [block for block in planned.blocks if block.name not in there]
    products = sum(block.products for block in missing)
    if products > most:
        raise LakeError(
            f"{len(missing)} of {len(planned.blocks)} blocks of {shared.key} were not searched.",
            expected=f"all of them, or at most {most} products missing",
            cause="index or state changed during the run, or the blocks were swept away",
            fix="materialize the neighbours again: blocks that are there are not searched again",
        )
    for block in missing:
        search(shared, block.name, request, tell)


def _outcomes(planned: _Plan) -> Iterator[Outcome]:
    """What the blocks found, one after the other."""
    shared = planned.shared
    for block in planned.blocks:
        yield _outcome(shared.lake.partition(shared.layer, shared.key, block.name))


def discard(lake: Lake, kind: Kind, pair: tuple[str, str]) -> int:
    """Empty the scratch layer of a pair whose neighbours are published; gives how many plans and blocks it held."""
    key = "-".join(pair)
    names = lake.keys(kind.layer(LAYER), key)
    for name in names:
        lake.remove(kind.layer(LAYER), key, name)
    return len(names)


__all__ = ["Cutting", "Merged", "Searched", "Shared", "discard", "merge", "plan", "search"]
