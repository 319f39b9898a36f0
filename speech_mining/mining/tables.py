"""Neighbours and pairs as tables: rows of the engines turned into segment ids, and back.

What is kept on disk speaks of segments, never of rows: a row number is only good as long as a roll, a segment id for
ever.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import LakeError
from speech_mining.knn.neighbours import MISSING_COSINE, MISSING_ROW, Neighbours
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, Kind
from speech_mining.mining.strategies import Mined
from speech_mining.records import Schema, conform

NEIGHBOURS: Schema = {
    "segment": pl.Int64(),
    "neighbours": pl.List(pl.Int64()),  # segment ids of the other side, by decreasing cosine
    "cosines": pl.List(pl.Float32()),
}

Ids = npt.NDArray[np.int64]


def neighbours_tables(found: Neighbours, source: Ids, target: Ids) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables (`NEIGHBOURS`) of both directions, from lists of rows.

    Args:
        found: of matrices whose rows have the ids below.
        source: int64 (n,), segment id of each source row.
        target: int64 (m,), of each target row.
    """
    forward = _table(source, target, found.forward_rows, found.forward_cosines)
    backward = _table(target, source, found.backward_rows, found.backward_cosines)
    return forward, backward


def neighbours_of(forward: pl.DataFrame, backward: pl.DataFrame) -> Neighbours:
    """Lists of rows again, where row = position in the tables (`forward` for sources, `backward` for targets).

    Raises:
        LakeError: a list names a segment that the other table does not have.
    """
    source, target = forward["segment"].to_numpy(), backward["segment"].to_numpy()
    k = max(_longest(forward), _longest(backward), 1)
    return Neighbours(*_lists(forward, target, k), *_lists(backward, source, k))


def pairs_table(
    mined: Mined, source: pl.DataFrame, target: pl.DataFrame, kind: Kind = SPEECH_TO_SPEECH
) -> pl.DataFrame:
    """The mined pairs with what they speak of (`records.pairs_schema`), in the order of `mined`.

    Args:
        mined: pairs of rows.
        source: `records.SEGMENTS` or `records.EMBEDDED_SENTENCES` of the source rows.
        target: of the target rows.
        kind: the modalities of the two.
    """
    scores = pl.DataFrame({"score": mined.score, "cosine": mined.cosine})
    sides = {"source": source[mined.source], "target": target[mined.target]}
    named = [items.rename({name: _column(name, side) for name in items.columns}) for side, items in sides.items()]
    table = pl.concat([scores, *named], how="horizontal")
    return conform(table.select(list(kind.pairs)), kind.pairs, "pairs")


def _column(name: str, side: str) -> str:
    """`segment_id` becomes `source_segment`, what else is told of an item only gets its side."""
    return f"{side}_{name.removesuffix('_id')}"


def _table(own: Ids, other: Ids, rows: npt.NDArray[np.int64], cosines: npt.NDArray[np.float32]) -> pl.DataFrame:
    present = rows >= 0
    ids = other[rows[present]] if present.any() else np.empty(0, np.int64)
    lengths = present.sum(1)
    flat = pl.DataFrame(
        {"segment": np.repeat(np.arange(len(own)), lengths), "neighbours": ids, "cosines": cosines[present]}
    )
    lists = flat.group_by("segment", maintain_order=True).agg("neighbours", "cosines")
    positions = pl.DataFrame({"segment": np.arange(len(own))})
    table = positions.join(lists, on="segment", how="left", maintain_order="left").with_columns(
        pl.col("neighbours", "cosines").fill_null([]), segment=pl.Series(own, dtype=pl.Int64)
    )
    return conform(table, NEIGHBOURS, "neighbours")


def _lists(table: pl.DataFrame, other: Ids, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    rows = np.full((table.height, k), MISSING_ROW, np.int64)
    cosines = np.full((table.height, k), MISSING_COSINE, np.float32)
    lengths = table["neighbours"].list.len().to_numpy()
    present = np.arange(k) < lengths[:, None].astype(np.int64)
    ids = table["neighbours"].explode(empty_as_null=False).drop_nulls().to_numpy()
    rows[present] = _positions(ids, other)
    cosines[present] = table["cosines"].explode(empty_as_null=False).drop_nulls().to_numpy()
    return rows, cosines


def _longest(table: pl.DataFrame) -> int:
    return int(table.select(pl.col("neighbours").list.len().max().fill_null(0)).item())


def _positions(ids: Ids, among: Ids) -> Ids:
    order = np.argsort(among, kind="stable")
    place = np.minimum(np.searchsorted(among, ids, sorter=order), max(len(among) - 1, 0))
    found = order[place] if len(among) else np.zeros(len(ids), np.int64)
    unknown = np.ones(len(ids), np.bool_) if not len(among) else among[found] != ids
    if unknown.any():
        raise LakeError(
            f"{int(unknown.sum())} neighbours name segments that the other side does not have.",
            cause="the two tables of neighbours are of different runs",
            fix="materialize s2s_neighbours again",
        )
    return found.astype(np.int64)
