"""Neighbours as a state that is kept: rows that came and went cost their own products, and the rest is left alone.

The state holds, for every row of either side, the start of its list of all rows of the other side by decreasing
cosine: as long as it could be proved, at least k. A row that goes leaves the lists it was in; a list that becomes
shorter than k is searched again. A row that comes is compared with the whole other side, in both directions by the
same products. Lists are exact at every moment, so their first k are the bytes that a search from nothing would give.

Nothing is read from or written to disk here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.knn.engines.protocol import Engine, Sweep, Tally, Vectors
from speech_mining.knn.exact import check_forms
from speech_mining.knn.hardware import choose_engine, make_engine
from speech_mining.knn.neighbours import MISSING_COSINE, MISSING_ROW, Neighbours
from speech_mining.knn.plan import Plan, Sizes, plan
from speech_mining.knn.products import Crew, available_threads, bands, crew
from speech_mining.knn.settle import Rough, Settled, settle
from speech_mining.knn.toplists import CLOSED, LOWEST, Floors, TopLists
from speech_mining.knn.vectors import Chosen, check_unit_rows, taken
from speech_mining.progress import Progress, silent

SPARE = 16
"""Neighbours kept beyond k, where they can be proved: what a list can lose before it is searched again."""
COPIED_BYTES = 16_000_000
"""Chosen rows up to this size are copied once; more are read when they are wanted."""

Ids: TypeAlias = npt.NDArray[np.int64]
Places: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Side:
    """What one side consists of now."""

    ids: Ids
    """int64 (n,), each once: what a row is called for ever."""
    versions: Ids
    """int64 (n,): a row whose version differs from the one that was seen is another row."""
    vectors: Vectors
    """float16 or float32 (n, d), unit rows."""


@dataclass(frozen=True, eq=False)
class Lists:
    """The neighbours of one side's rows, as far as they are proved."""

    ids: Ids
    versions: Ids
    rows: npt.NDArray[np.int32]
    """int32 (n, size): places of the other side; whatever stands beyond `depths` means nothing."""
    cosines: npt.NDArray[np.float32]
    """float32 (n, size), decreasing; equal ones by increasing place."""
    depths: npt.NDArray[np.int32]
    """int32 (n,): the first so many are the best of the other side."""


@dataclass(frozen=True, eq=False)
class State:
    """What is kept between searches."""

    source: Lists
    target: Lists
    k: int


@dataclass(frozen=True)
class Request:
    """How to search."""

    k: int = 16
    engine: str = "auto"
    memory_gb: float | None = None
    threads: int | None = None
    progress: Progress = field(default=silent, compare=False)


@dataclass(frozen=True, eq=False)
class Work:
    """What an update cost."""

    products: int
    """Products computed."""
    saved: int
    """Products of a search from nothing that were not computed."""
    rows_new: int
    rows_gone: int
    rows_again: int
    """Rows whose lists had become too short and were searched in full."""


@dataclass(frozen=True, eq=False)
class Updated:
    """The state after an update, and what it amounts to."""

    state: State
    neighbours: Neighbours
    work: Work


@dataclass(frozen=True, eq=False)
class _Search:
    """What all steps of an update need."""

    engine: Engine
    plan: Plan
    k: int
    size: int
    hired: Crew
    tally: Tally


@dataclass(eq=False)
class _Draft:
    """One side while it is being brought up to date."""

    side: Side
    rows: Places
    cosines: npt.NDArray[np.float32]
    depths: npt.NDArray[np.int64]
    whole: npt.NDArray[np.bool_]
    """Whether a row's list holds every row of the other side that it was compared with."""
    new: Places
    """Places of rows that were not there before."""
    kept: Places


def update(before: State | None, source: Side, target: Side, request: Request) -> Updated:
    """Bring neighbours up to date with both sides.

    Args:
        before: the state after the last search of these sides, None to begin with. A state of another k is not used,
            nor one whose rows stood in another order: ties would fall otherwise.
        source: all source rows there are now.
        target: all target rows.
        request: how to search.

    Returns:
        The new state; `Neighbours` whose rows are places in `source` and `target`, equal to what `both_directions`
        finds; and what was computed.

    Raises:
        EmbeddingError: as `both_directions`, or an id that names two rows.
        SettingsError: as `both_directions`.
    """
    _check(source)
    _check(target)
    check_forms(source.vectors, target.vectors)
    usable = before if before is not None and before.k == request.k and _in_order(before, source, target) else None
    n, m, dimension = len(source.ids), len(target.ids), source.vectors.shape[1]
    name, reason = choose_engine(request.engine, n, m, dimension)
    engine, threads = make_engine(name, dimension), request.threads or available_threads()
    sizes = Sizes(n, m, dimension, request.k + SPARE, threads, engine.row_bytes())
    with crew(threads) as hired:
        tally = Tally(0, request.progress)
        search = _Search(engine, plan(request.memory_gb, sizes), request.k, request.k + SPARE, hired, tally)
        drafts = _drafts(usable, source, target, search.size)
        _check_new(drafts[0], "The source matrix")
        _check_new(drafts[1], "The target matrix")
        products, again = _bring_up_to_date(*drafts, search)
    state = State(_lists(drafts[0]), _lists(drafts[1]), request.k)
    seen = 0 if usable is None else len(usable.source.ids) + len(usable.target.ids)
    new, kept = (sum(len(places) for places in each) for each in zip(*((d.new, d.kept) for d in drafts), strict=True))
    work = Work(products, max(0, n * m - products), new, seen - kept, again)
    tables = (*_first(drafts[0], request.k), *_first(drafts[1], request.k))
    return Updated(state, Neighbours(*tables, engine=name, reason=reason), work)


def _check(side: Side) -> None:
    if len(side.ids) != len(side.vectors) or len(side.versions) != len(side.ids):
        raise EmbeddingError(
            f"{len(side.ids)} ids and {len(side.versions)} versions for {len(side.vectors)} rows.",
            expected="one of each for every row",
        )
    ordered = np.sort(side.ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise EmbeddingError(
            f"Id {twice[0]} names more than one row ({len(twice)} repetitions in all).",
            expected="one id for each row of a side",
            cause="a block was put together twice",
        )


def _in_order(before: State, source: Side, target: Side) -> bool:
    places = (_was(now, then) for now, then in ((source, before.source), (target, before.target)))
    return all((np.diff(was[was >= 0]) > 0).all() for was in places)


def _check_new(draft: _Draft, name: str) -> None:
    """Look at rows that were not looked at before: all of them would take a tenth of an update's time."""
    every = len(draft.new) == len(draft.side.ids)
    check_unit_rows(_vectors(draft, draft.new), name if every else f"What is new in {name[0].lower()}{name[1:]}")


def _drafts(before: State | None, source: Side, target: Side, size: int) -> tuple[_Draft, _Draft]:
    """Both sides with what is left of their lists."""
    if before is None:
        return _blank(source, size), _blank(target, size)
    source_was, target_was = (_was(now, then) for now, then in ((source, before.source), (target, before.target)))
    target_is, source_is = _is(target_was, len(before.target.ids)), _is(source_was, len(before.source.ids))
    return (
        _kept(source, before.source, source_was, target_is, size),
        _kept(target, before.target, target_was, source_is, size),
    )


def _blank(side: Side, size: int) -> _Draft:
    count = len(side.ids)
    return _Draft(
        side,
        np.empty((count, size), np.int64),
        np.zeros((count, size), np.float32),
        np.zeros(count, np.int64),
        np.ones(count, np.bool_),
        np.arange(count),
        np.empty(0, np.int64),
    )


def _was(now: Side, then: Lists) -> Places:
    """Where each row stood before, -1 for those that are new."""
    if not len(then.ids):
        return np.full(len(now.ids), -1, np.int64)
    order = np.argsort(then.ids, kind="stable")
    place = order[np.minimum(np.searchsorted(then.ids, now.ids, sorter=order), len(then.ids) - 1)]
    same = (then.ids[place] == now.ids) & (then.versions[place] == now.versions)
    return np.where(same, place, -1)


def _is(was: Places, count: int) -> Places:
    """Where each row that stood before stands now, -1 for those that are gone."""
    places = np.full(count, -1, np.int64)
    stayed = np.flatnonzero(was >= 0)
    places[was[stayed]] = stayed
    return places


def _kept(side: Side, then: Lists, was: Places, other_is: Places, size: int) -> _Draft:
    """Lists of the rows that stayed, without the neighbours that are gone."""
    draft = _blank(side, size)
    kept = np.flatnonzero(was >= 0)
    before = was[kept]
    depths = then.depths[before].astype(np.int64)
    listed = np.arange(size) < depths[:, None]
    rows = then.rows[before].astype(np.int64)
    rows[~listed] = 0
    rows = other_is[rows] if len(other_is) else rows
    alive = listed & (rows >= 0)
    left = alive.sum(1)
    cosines = then.cosines[before]
    torn = np.flatnonzero(left < depths)
    order = np.argsort(~alive[torn], axis=1, kind="stable")
    rows[torn] = np.take_along_axis(rows[torn], order, 1)
    cosines[torn] = np.take_along_axis(cosines[torn], order, 1)
    draft.rows[kept], draft.cosines[kept], draft.depths[kept] = rows, cosines, left
    draft.whole[kept] = depths == len(other_is)
    draft.new, draft.kept = np.flatnonzero(was < 0), kept
    return draft


def _bring_up_to_date(source: _Draft, target: _Draft, search: _Search) -> tuple[int, int]:
    """Compare what is new, then search again what is short; gives products computed and rows searched again."""
    everything = np.arange(len(target.side.ids))
    search.tally.expect(len(source.new) * len(everything) + len(target.new) * len(source.kept))
    products = _compare(source, source.new, target, everything, search)
    products += _compare(target, target.new, source, source.kept, search)
    again = 0
    for draft, other in ((source, target), (target, source)):
        short = np.flatnonzero(draft.depths < min(search.k, len(other.side.ids)))
        again += len(short)
        products += _search_again(draft, short, other, search)
    return products, again


def _compare(new: _Draft, places: Places, old: _Draft, others: Places, search: _Search) -> int:
    """Offer all products of rows that came with rows of the other side to the lists of both."""
    if not len(places) or not len(others):
        return 0
    rows, base = _vectors(new, places), _vectors(old, others)
    floors = _floors(old, others, search)
    lists, errors = TopLists.above(floors.copy(), search.plan.room), np.zeros(len(others))
    for shard in bands(len(places), search.plan.shard):
        part, own = rows[shard], TopLists.empty(shard.stop - shard.start, search.plan.room)
        work = Sweep(part, base, own, lists, search.hired, search.plan.tiles, search.tally, shard.start)
        own_errors, other_errors = search.engine.sweep(work)
        np.maximum(errors, other_errors, out=errors)
        found = settle(part, base, Rough(own, own_errors), search.size, search.hired, min(search.k, len(others)))
        _merge(new, places[shard], others, found, np.zeros(len(part), np.bool_))
    _merge_offered(old, others, new, places, (floors, lists, errors), search)
    return len(places) * len(others)


def _floors(draft: _Draft, places: Places, search: _Search) -> Floors:
    """Where the lists of some rows end: what is below cannot change them.

    A list that has lost too much takes nothing: it will be searched again.
    """
    depths, whole = draft.depths[places], draft.whole[places]
    # the last term is some steps of float32, so that rounding does not make the floor too high to prove the last
    last = draft.cosines[places, np.maximum(depths - 1, 0)] - np.float32(search.engine.usual_error() + 2.0**-21)
    floors = np.where(depths >= search.k, last, CLOSED)
    return np.where(whole, LOWEST, floors).astype(np.float32)


def _merge_offered(
    old: _Draft,
    others: Places,
    new: _Draft,
    places: Places,
    offered: tuple[Floors, TopLists, npt.NDArray[np.float64]],
    search: _Search,
) -> None:
    """Settle what was offered to rows that were compared with, and put it into their lists."""
    floors, lists, errors = offered
    old.depths[others[floors == CLOSED]] = 0
    open_ended = np.flatnonzero(floors == LOWEST)
    limited = np.flatnonzero((floors > LOWEST) & (floors < CLOSED) & (lists.counts > 0))
    for some, wanted in ((open_ended, min(search.k, len(places))), (limited, 0)):
        if not len(some):
            continue
        own = TopLists(lists.keys[some], lists.counts[some], lists.floors[some], lists.kept)
        rough = Rough(own, errors[some])
        at = others[some]
        found = settle(_vectors(old, at), _vectors(new, places), rough, search.size, search.hired, wanted)
        last = old.cosines[at, np.maximum(old.depths[at] - 1, 0)]
        covers = (own.floors < _least_values(last, errors[some])) & (old.depths[at] > 0) & ~old.whole[at]
        _merge(old, at, places, found, covers)


def _least_values(cosines: npt.NDArray[np.float32], errors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """As `kernels.least_value`: whatever has a lower value has an exact product below the cosine."""
    bound = cosines.astype(np.float64) - errors
    nearest = bound.astype(np.float32)
    return np.where(nearest > bound, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _merge(draft: _Draft, at: Places, others: Places, found: Settled, covers: npt.NDArray[np.bool_]) -> None:
    """Put proved neighbours among `others` into the lists of the rows `at`.

    A list is proved down to its last neighbour, and so is what was found; of the two together nothing is proved
    beyond the end of either, unless that one holds everything there is.

    Args:
        draft: whose lists they are.
        at: places of its rows.
        others: places that the rows found stand for, ascending.
        found: exact lists, proved to their depths.
        covers: where everything down to the end of the list in the draft was found, however short that is.
    """
    depths, whole = draft.depths[at], draft.whole[at]
    all_found = found.depths == len(others)
    draft.whole[at] = whole & all_found & (depths + found.depths <= draft.rows.shape[1])
    blank = whole & (depths == 0)
    _write(draft, at[blank], others[np.maximum(found.rows[blank], 0)], found.cosines[blank], found.depths[blank])
    ends_early = ~blank & ~covers & ~all_found & (found.depths == 0)
    last = draft.cosines[at, np.maximum(depths - 1, 0)]
    enters = ~blank & (found.depths > 0) & (whole | (found.cosines[:, 0] >= last))
    mixed = np.flatnonzero(enters | ends_early)
    own = _keys(draft.rows[at[mixed]], draft.cosines[at[mixed]], depths[mixed])
    come = _keys(others[np.maximum(found.rows[mixed], 0)], found.cosines[mixed], found.depths[mixed])
    merged = -np.sort(-np.concatenate([own, come], axis=1), axis=1)
    ends = np.minimum(
        _end(own, depths[mixed], merged, whole[mixed]),
        _end(come, found.depths[mixed], merged, covers[mixed] | all_found[mixed]),
    )
    size = draft.rows.shape[1]
    rows, cosines = _of_keys(merged[:, :size])
    _write(draft, at[mixed], rows, cosines, np.minimum(ends, np.minimum(size, depths[mixed] + found.depths[mixed])))


def _write(draft: _Draft, at: Places, rows: Places, cosines: npt.NDArray[np.float32], depths: npt.NDArray[Any]) -> None:
    draft.rows[at], draft.cosines[at], draft.depths[at] = rows, cosines, depths


def _end(keys: Places, depths: npt.NDArray[Any], merged: Places, endless: npt.NDArray[np.bool_]) -> Places:
    """How many of the merged keys stand at or before the end of a list."""
    last = keys[np.arange(len(keys)), np.maximum(depths - 1, 0)]
    count = np.where(depths > 0, (merged >= last[:, None]).sum(1), 0)
    return np.where(endless, merged.shape[1], count)


def _keys(rows: Places, cosines: npt.NDArray[np.float32], depths: npt.NDArray[Any]) -> Places:
    """Neighbours as numbers that are ordered like them: decreasing cosine, then increasing row."""
    bits = np.ascontiguousarray(cosines).view(np.int32)
    upper = (bits ^ ((bits >> 31) & np.int32(_LAST))).astype(np.int64)
    listed = np.arange(rows.shape[1]) < depths[:, None]
    return np.where(listed, (upper << 32) | (_LAST - rows), np.iinfo(np.int64).min + 1)


def _of_keys(keys: Places) -> tuple[Places, npt.NDArray[np.float32]]:
    upper = (keys >> 32).astype(np.int32)
    return _LAST - (keys & _LAST), (upper ^ ((upper >> 31) & np.int32(_LAST))).view(np.float32)


_LAST = 0x7FFFFFFF


def _search_again(draft: _Draft, short: Places, other: _Draft, search: _Search) -> int:
    """Compare some rows with the whole other side, for their own sake."""
    base = other.side.vectors
    search.tally.expect(len(short) * len(base))
    for part in bands(len(short), search.plan.shard):
        at = short[part]
        rows, lists = _vectors(draft, at), TopLists.empty(len(at), search.plan.room)
        nobody = TopLists.closed(len(base))
        work = Sweep(rows, base, lists, nobody, search.hired, search.plan.tiles, search.tally)
        errors, _ = search.engine.sweep(work)
        found = settle(rows, base, Rough(lists, errors), search.size, search.hired, min(search.k, len(base)))
        _write(draft, at, np.maximum(found.rows, 0), found.cosines, found.depths)
        draft.whole[at] = found.depths == len(base)
    return len(short) * len(base)


def _vectors(draft: _Draft, places: Places) -> Vectors:
    """Rows of a side, copied where they are few."""
    vectors = draft.side.vectors
    if len(places) == len(vectors):
        return vectors
    if len(places) * vectors.shape[1] * vectors.dtype.itemsize <= COPIED_BYTES:
        return taken(vectors, places)
    return Chosen(vectors, places)


def _lists(draft: _Draft) -> Lists:
    side = draft.side
    listed = np.arange(draft.rows.shape[1]) < draft.depths[:, None]
    rows = np.where(listed, draft.rows, 0).astype(np.int32)  # what stands beyond the depth depends on history
    cosines = np.where(listed, draft.cosines, np.float32(0))
    return Lists(side.ids, side.versions, rows, cosines, draft.depths.astype(np.int32))


def _first(draft: _Draft, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    listed = np.arange(k) < draft.depths[:, None]
    return (
        np.where(listed, draft.rows[:, :k], MISSING_ROW),
        np.where(listed, draft.cosines[:, :k], np.float32(MISSING_COSINE)),
    )
