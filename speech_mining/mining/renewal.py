"""Neighbours of two languages in the lake, brought up to date: what was searched before is not searched again.

The state stands in a layer of its own beside the neighbours that are made from it. It is written first and as the
search goes on, so that a killed run goes on where the last write was; were the neighbours of another moment than the
state, the next run would mend it without a product.

What belongs here is one process that does it all; `blocks` shares the search out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from speech_mining.errors import LakeError
from speech_mining.knn.engines.protocol import Vectors
from speech_mining.knn.exact import both_directions
from speech_mining.knn.incremental import Request, Work, update
from speech_mining.knn.incremental_files import VERSION, state_of, state_tables
from speech_mining.knn.incremental_lists import Side, State
from speech_mining.knn.neighbours import Neighbours
from speech_mining.knn.roll import Roll, read_roll
from speech_mining.knn.vectors import Chosen
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, Kind

KEPT_EVERY_S = 300.0
"""Seconds of search between two writes of the state: what a kill can cost."""
FIRST_PRODUCTS = 10**11
"""Products before the first write; from then on the measured rate decides. Two cores take two to four minutes."""
IN_MEMORY_BYTES = 2**30
"""A side up to this size is read once; a larger one stays mapped, and is read as it is needed."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """Where the state of a pair is kept."""

    lake: Lake
    layer: str
    pair: str


@dataclass(frozen=True, eq=False)
class Renewed:
    """Neighbours of a pair as of now."""

    neighbours: Neighbours
    source: Ids
    """Ids of the rows' segments or sentences."""
    target: Ids
    work: Work
    began: str
    """Why the search began from nothing, empty where it went on from a state."""
    left_out: int
    """Recurring segments, and repeated sentences, that took no part."""
    encoders: tuple[str, str]
    """Name and version of what embedded each side."""
    rolls: tuple[str, str]
    """Version of each side's roll."""


def renew(
    lake: Lake,
    pair: tuple[str, str],
    request: Request,
    tell: Callable[[str], None],
    kind: Kind = SPEECH_TO_SPEECH,
) -> Renewed:
    """Bring the neighbours of a pair up to date.

    Args:
        lake: where the indexes and the state are.
        pair: the languages.
        request: how to search.
        tell: told, now and then, how far it is.
        kind: the modalities of the two.

    Raises:
        LakeError: an index is missing or older than its embeddings.
    """
    kept = Kept(lake, kind.layer("neighbour_state"), "-".join(pair))
    rolls = [read_roll(lake, language, layout) for language, layout in zip(pair, kind.layouts, strict=True)]
    source, target = (_side(roll, ~recurs) for roll, recurs in rolls)
    encoders = (rolls[0][0].encoder, rolls[1][0].encoder)
    left_out = sum(int(recurs.sum()) for _, recurs in rolls)
    if request.engine == "ivf":
        found, work = _approximate(source, target, request)
        began = "an approximate search keeps no state"
    else:
        state, began = read_state(kept, encoders, request.k)
        found, work = _in_steps(kept, encoders, state, (source, target), request, tell)
    versions = (rolls[0][0].version, rolls[1][0].version)
    return Renewed(found, source.ids, target.ids, work, began, left_out, encoders, versions)


def _approximate(source: Side, target: Side, request: Request) -> tuple[Neighbours, Work]:
    """Search by cells; what is kept of exact searches is left as it is."""
    found = both_directions(
        source.vectors, target.vectors, request.k, engine="ivf", memory_gb=request.memory_gb, threads=request.threads
    )
    every = len(source.ids) * len(target.ids)
    products = every if found.products is None else found.products
    return found, Work(products, max(0, every - products), len(source.ids) + len(target.ids), 0, 0)


def _side(roll: Roll, takes_part: npt.NDArray[np.bool_]) -> Side:
    rows = np.flatnonzero(takes_part)
    return Side(roll.ids[rows], roll.versions[rows], in_memory_if_small(Chosen(roll.stack, rows)))


def in_memory_if_small(chosen: Chosen) -> Vectors:
    """Rows of a roll, read at once where they are few."""
    small = chosen.shape[0] * chosen.shape[1] * chosen.dtype.itemsize <= IN_MEMORY_BYTES
    return chosen[:] if small else chosen


def read_state(place: Kept, encoders: tuple[str, str], k: int) -> tuple[State | None, str]:
    """The state of a pair, or why there is none to go on from."""
    kept = place.lake.find(place.layer, place.pair)
    if kept is None:
        return None, "this pair was never searched"
    made_by = kept.read_json("state.json")
    now = _made_by(encoders, k)
    differing = [f"{name} {made_by.get(name)} became {now[name]}" for name in now if made_by.get(name) != now[name]]
    if differing:
        return None, ", ".join(differing)
    try:
        return state_of(kept.read_array), ""
    except (LakeError, ValueError, OSError) as error:
        return None, f"what was kept cannot be read ({error})"


def _made_by(encoders: tuple[str, str], k: int) -> dict[str, object]:
    return {"version": VERSION, "k": k, "source encoder": encoders[0], "target encoder": encoders[1]}


def _in_steps(
    kept: Kept,
    encoders: tuple[str, str],
    state: State | None,
    sides: tuple[Side, Side],
    request: Request,
    tell: Callable[[str], None],
) -> tuple[Neighbours, Work]:
    """Take in the new source rows by and by, and keep the state after each step."""
    source, target = sides
    works: list[Work] = []
    products = float(FIRST_PRODUCTS)
    while True:
        part = _next_part(state, source, max(1024, int(products / max(1, len(target.ids)))))
        began = time.perf_counter()
        updated = update(state, part, target, request)
        seconds = time.perf_counter() - began
        if state is None or updated.work.any:
            write_state(kept, encoders, updated.state)
        works.append(updated.work)
        if len(part.ids) == len(source.ids):
            return updated.neighbours, _total(works, len(source.ids) * len(target.ids))
        rate = updated.work.products / max(seconds, 1e-3)
        tell(f"{len(part.ids)} of {len(source.ids)} source rows compared, {rate:.3g} products a second")
        state, products = updated.state, KEPT_EVERY_S * rate


def _next_part(state: State | None, source: Side, most: int) -> Side:
    """The source rows that were there before, and so many of the new ones, in their order."""
    known = np.empty(0, np.int64) if state is None else state.source.ids
    new = np.flatnonzero(~np.isin(source.ids, known))
    if len(new) <= most:
        return source
    stay = np.delete(np.arange(len(source.ids)), new[most:])
    return Side(source.ids[stay], source.versions[stay], Chosen(source.vectors, stay))


def _total(works: list[Work], all_products: int) -> Work:
    products = sum(work.products for work in works)
    return replace(
        works[-1],
        products=products,
        saved=max(0, all_products - products),
        rows_new=sum(work.rows_new for work in works),
        rows_gone=sum(work.rows_gone for work in works),
        rows_again=sum(work.rows_again for work in works),
    )


def write_state(kept: Kept, encoders: tuple[str, str], state: State) -> None:
    """Keep the state of a pair."""
    with kept.lake.replace(kept.layer, kept.pair) as new:
        for name, table in state_tables(state).items():
            new.write_array(name, table)
        new.write_json("state.json", _made_by(encoders, state.k))
