"""Neighbours as a state that is kept: rows that came and went cost their own products, and the rest is left alone.

The state holds, for every row of either side, the start of its list of all rows of the other side by decreasing
cosine: as long as it could be proved, at least k. A row that goes leaves the lists it was in; a list that becomes
shorter than k is searched again. A row that comes is compared with the whole other side, in both directions by the
same products. Lists are exact at every moment, so their first k are the bytes that a search from nothing would give.

Nothing is read from or written to disk here. How lists are merged is in `incremental_lists`; the same update cut in
blocks that processes search apart is `incremental_blocks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from speech_mining.knn.engines.protocol import Engine, Sweep, Tally, Vectors
from speech_mining.knn.exact import check_forms
from speech_mining.knn.hardware import choose_engine, make_engine
from speech_mining.knn.incremental_lists import (
    SPARE,
    Draft,
    Places,
    Side,
    State,
    check_side,
    ends_of,
    first_of,
    lists_of,
    merge,
    opened,
    short_of,
    usable,
    write,
)
from speech_mining.knn.neighbours import Cosines, Neighbours
from speech_mining.knn.plan import Plan, Sizes, plan
from speech_mining.knn.products import Crew, available_threads, bands, crew
from speech_mining.knn.settle import Rough, Settled, settle
from speech_mining.knn.toplists import CLOSED, LOWEST, Floors, TopLists
from speech_mining.knn.vectors import Chosen, check_unit_rows, taken
from speech_mining.progress import Progress, silent

COPIED_BYTES = 16_000_000
"""Chosen rows up to this size are copied once; more are read when they are wanted."""


@dataclass(frozen=True)
class Request:
    """How to search."""

    k: int = 16
    engine: str = "auto"
    memory_gb: float | None = None
    threads: int | None = None
    device_share: float = 1.0
    """Of a GPU's free memory, in (0, 1]: less where an attempt before died of it. What is found stays the same."""
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

    @property
    def any(self) -> bool:
        """Whether the state is another than before."""
        return bool(self.products or self.rows_new or self.rows_gone)


@dataclass(frozen=True, eq=False)
class Updated:
    """The state after an update, and what it amounts to."""

    state: State
    neighbours: Neighbours
    work: Work


@dataclass(frozen=True, eq=False)
class Search:
    """What all steps of an update need."""

    engine: Engine
    reason: str
    """Why this engine."""
    plan: Plan
    k: int
    size: int
    """Length of the lists that are kept."""
    hired: Crew
    tally: Tally


@dataclass(frozen=True, eq=False)
class Found:
    """Proved neighbours of some rows, among those that they were compared with."""

    of_rows: bool
    """Of the rows that were swept over the base; else of the base's."""
    at: Places
    """Whose they are: places among the rows, or in the base."""
    lists: Settled
    """Exact lists of places on the other side, proved to their depths."""
    covers: npt.NDArray[np.bool_]
    """Where everything down to the end of the row's earlier list was found, however short that is."""


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
    check_side(source)
    check_side(target)
    check_forms(source.vectors, target.vectors)
    before = usable(before, source, target, request.k)
    n, m = len(source.ids), len(target.ids)
    with searching(request, n, m, source.vectors.shape[1]) as search:
        sides = opened(before, source, target, search.size)
        _check_new(sides[0], "The source matrix")
        _check_new(sides[1], "The target matrix")
        products, again = _bring_up_to_date(*sides, search)
        told = search.engine.name, search.reason
    return updated(before, sides, (products, again), request.k, told)


@contextmanager
def searching(request: Request, rows: int, columns: int, dimension: int) -> Iterator[Search]:
    """Whatever a search of so many rows of each side needs.

    Raises:
        SettingsError: as `both_directions`.
    """
    name, reason = choose_engine(request.engine, rows, columns, dimension)
    engine, threads = make_engine(name, dimension, request.device_share), request.threads or available_threads()
    size = request.k + SPARE
    divided = plan(request.memory_gb, Sizes(rows, columns, dimension, size, threads, engine.row_bytes()))
    with crew(threads) as hired:
        yield Search(engine, reason, divided, request.k, size, hired, Tally(0, request.progress))


def updated(
    before: State | None, sides: tuple[Draft, Draft], cost: tuple[int, int], k: int, told: tuple[str, str]
) -> Updated:
    """What has become of both sides.

    Args:
        before: the state that was gone on from.
        sides: up to date.
        cost: products computed, and rows searched again.
        k: neighbours in each direction.
        told: the engine, and why it was that one.
    """
    source, target = sides
    products, again = cost
    every = len(source.side.ids) * len(target.side.ids)
    seen = 0 if before is None else len(before.source.ids) + len(before.target.ids)
    new, kept = (sum(len(getattr(draft, name)) for draft in sides) for name in ("new", "kept"))
    work = Work(products, max(0, every - products), new, seen - kept, again)
    found = Neighbours(*first_of(source, k), *first_of(target, k), engine=told[0], reason=told[1])
    return Updated(State(lists_of(source), lists_of(target), k), found, work)


def _check_new(draft: Draft, name: str) -> None:
    """Look at rows that were not looked at before: all of them would take a tenth of an update's time."""
    every = len(draft.new) == len(draft.side.ids)
    rows = vectors_at(draft.side.vectors, draft.new)
    check_unit_rows(rows, name if every else f"What is new in {name[0].lower()}{name[1:]}")


def _bring_up_to_date(source: Draft, target: Draft, search: Search) -> tuple[int, int]:
    """Compare what is new, then search again what is short; gives products computed and rows searched again."""
    everything = np.arange(len(target.side.ids))
    search.tally.expect(len(source.new) * len(everything) + len(target.new) * len(source.kept))
    products = _compare(source, source.new, target, everything, search)
    products += _compare(target, target.new, source, source.kept, search)
    again = 0
    for draft, other in ((source, target), (target, source)):
        short = short_of(draft, len(other.side.ids), search.k)
        again += len(short)
        products += _search_again(draft, short, other, search)
    return products, again


def _compare(new: Draft, places: Places, old: Draft, others: Places, search: Search) -> int:
    """Offer all products of rows that came with rows of the other side to the lists of both."""
    if not len(places) or not len(others):
        return 0
    ends = ends_of(old, others, search.k)
    old.depths[others[ends == CLOSED]] = 0
    rows, base = vectors_at(new.side.vectors, places), vectors_at(old.side.vectors, others)
    for found in found_between(rows, base, ends, search):
        if found.of_rows:
            merge(new, places[found.at], others, found.lists, found.covers)
        else:
            merge(old, others[found.at], places, found.lists, found.covers)
    return len(places) * len(others)


def found_between(rows: Vectors, base: Vectors, ends: Cosines, search: Search) -> Iterator[Found]:
    """All products of some rows with a base, for the lists of both.

    Args:
        rows: rows that came; their lists take everything.
        base: rows of the other side.
        ends: float32 (base rows,), where their lists end (`incremental_lists.ends_of`).
        search: how.

    Yields:
        The lists of some rows after the other, then those of the base.
    """
    floors = _floors(ends, search)
    lists = TopLists.above(floors.copy(), search.plan.room) if (ends < CLOSED).any() else TopLists.closed(len(base))
    errors = np.zeros(len(base))
    for shard in bands(len(rows), search.plan.shard):
        part, own = rows[shard], TopLists.empty(shard.stop - shard.start, search.plan.room)
        work = Sweep(part, base, own, lists, search.hired, search.plan.tiles, search.tally, shard.start)
        own_errors, base_errors = search.engine.sweep(work)
        np.maximum(errors, base_errors, out=errors)
        settled = settle(part, base, Rough(own, own_errors), search.size, search.hired, min(search.k, len(base)))
        yield Found(True, np.arange(shard.start, shard.stop), settled, np.zeros(len(part), np.bool_))
    yield from _found_by_base(rows, base, ends, (floors, lists, errors), search)


def _floors(ends: Cosines, search: Search) -> Floors:
    """What rough products must exceed to be worth a look."""
    # the last term is some steps of float32, so that rounding does not make the floor too high to prove the last
    floors: Floors = ends - np.float32(search.engine.usual_error() + 2.0**-21)
    return floors


def _found_by_base(
    rows: Vectors,
    base: Vectors,
    ends: Cosines,
    offered: tuple[Floors, TopLists, npt.NDArray[np.float64]],
    search: Search,
) -> Iterator[Found]:
    """Settle what was offered to the rows that were compared with."""
    floors, lists, errors = offered
    open_ended = np.flatnonzero(floors == LOWEST)
    limited = np.flatnonzero((floors > LOWEST) & (floors < CLOSED) & (lists.counts > 0))
    for some, wanted in ((open_ended, min(search.k, len(rows))), (limited, 0)):
        if not len(some):
            continue
        own = TopLists(lists.keys[some], lists.counts[some], lists.floors[some], lists.kept)
        settled = settle(vectors_at(base, some), rows, Rough(own, errors[some]), search.size, search.hired, wanted)
        yield Found(False, some, settled, own.floors < _least_values(ends[some], errors[some]))


def _least_values(cosines: Cosines, errors: npt.NDArray[np.float64]) -> Floors:
    """As `kernels.least_value`: whatever has a lower value has an exact product below the cosine."""
    bound = cosines.astype(np.float64) - errors
    nearest = bound.astype(np.float32)
    return np.where(nearest > bound, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _search_again(draft: Draft, short: Places, other: Draft, search: Search) -> int:
    """Compare some rows with the whole other side, for their own sake."""
    base = other.side.vectors
    search.tally.expect(len(short) * len(base))
    nobody = np.full(len(base), CLOSED, np.float32)
    for found in found_between(vectors_at(draft.side.vectors, short), base, nobody, search):
        at = short[found.at]
        write(draft, at, np.maximum(found.lists.rows, 0), found.lists.cosines, found.lists.depths)
        draft.whole[at] = found.lists.depths == len(base)
    return len(short) * len(base)


def vectors_at(vectors: Vectors, places: Places) -> Vectors:
    """Rows of a side, copied where they are few."""
    if len(places) == len(vectors):
        return vectors
    if len(places) * vectors.shape[1] * vectors.dtype.itemsize <= COPIED_BYTES:
        return taken(vectors, places)
    return Chosen(vectors, places)
