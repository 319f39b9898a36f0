"""The lists of both sides while they are brought up to date: what of them stays, and how neighbours enter them.

A list is proved down to its last neighbour. What is found later, in whatever order and by whichever process, is merged
into it no further than both are proved, so that a list is exact at every moment.

Nothing is searched here: that is `incremental`, and `incremental_blocks` where the products are cut in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.knn.engines.protocol import Vectors
from speech_mining.knn.neighbours import MISSING_COSINE, MISSING_ROW, Cosines, Rows
from speech_mining.knn.settle import Settled
from speech_mining.knn.toplists import CLOSED, LOWEST

SPARE = 16
"""Neighbours kept beyond k, where they can be proved: what a list can lose before it is searched again."""

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


@dataclass(eq=False)
class Draft:
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


def check_side(side: Side) -> None:
    """Refuse a side whose parts do not belong together.

    Raises:
        EmbeddingError: they differ in number, or an id names two rows.
    """
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


def usable(before: State | None, source: Side, target: Side, k: int) -> State | None:
    """The state, unless it is of another k or its rows stood in another order: ties would fall otherwise."""
    return before if before is not None and before.k == k and _in_order(before, source, target) else None


def _in_order(before: State, source: Side, target: Side) -> bool:
    places = (_was(now, then) for now, then in ((source, before.source), (target, before.target)))
    return all((np.diff(was[was >= 0]) > 0).all() for was in places)


def opened(before: State | None, source: Side, target: Side, size: int) -> tuple[Draft, Draft]:
    """Both sides with what is left of their lists."""
    if before is None:
        return _blank(source, size), _blank(target, size)
    source_was, target_was = (_was(now, then) for now, then in ((source, before.source), (target, before.target)))
    target_is, source_is = _is(target_was, len(before.target.ids)), _is(source_was, len(before.source.ids))
    return (
        _kept(source, before.source, source_was, target_is, size),
        _kept(target, before.target, target_was, source_is, size),
    )


def _blank(side: Side, size: int) -> Draft:
    count = len(side.ids)
    return Draft(
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


def _kept(side: Side, then: Lists, was: Places, other_is: Places, size: int) -> Draft:
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


def ends_of(draft: Draft, places: Places, k: int) -> Cosines:
    """Where the lists of some rows end: no neighbour with a lower cosine can enter them.

    Returns:
        float32 (rows,): `LOWEST` for a list that takes everything, `CLOSED` for one that has lost too much: it takes
        nothing, since it will be searched again.
    """
    depths, whole = draft.depths[places], draft.whole[places]
    last = draft.cosines[places, np.maximum(depths - 1, 0)]
    return np.where(whole, LOWEST, np.where(depths >= k, last, CLOSED)).astype(np.float32)


def short_of(draft: Draft, others: int, k: int) -> Places:
    """Rows whose lists are no longer proved far enough, among so many rows of the other side."""
    return np.flatnonzero(draft.depths < min(k, others))


def merge(draft: Draft, at: Places, others: Places, found: Settled, covers: npt.NDArray[np.bool_]) -> None:
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
    write(draft, at[blank], others[np.maximum(found.rows[blank], 0)], found.cosines[blank], found.depths[blank])
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
    write(draft, at[mixed], rows, cosines, np.minimum(ends, np.minimum(size, depths[mixed] + found.depths[mixed])))


def write(draft: Draft, at: Places, rows: Places, cosines: Cosines, depths: npt.NDArray[Any]) -> None:
    """Put lists in the place of those that are there."""
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


def lists_of(draft: Draft) -> Lists:
    """What is kept of a side."""
    side = draft.side
    listed = np.arange(draft.rows.shape[1]) < draft.depths[:, None]
    rows = np.where(listed, draft.rows, 0).astype(np.int32)  # what stands beyond the depth depends on history
    cosines = np.where(listed, draft.cosines, np.float32(0))
    return Lists(side.ids, side.versions, rows, cosines, draft.depths.astype(np.int32))


def first_of(draft: Draft, k: int) -> tuple[Rows, Cosines]:
    """The k nearest of every row of a side, missing where there are fewer."""
    listed = np.arange(k) < draft.depths[:, None]
    return (
        np.where(listed, draft.rows[:, :k], MISSING_ROW),
        np.where(listed, draft.cosines[:, :k], np.float32(MISSING_COSINE)),
    )
