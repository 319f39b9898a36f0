"""A language's index when its audiobooks change: updated by what came and went, or built from scratch, and why.

What was decided at the last training stands beside the index in `index.json`. An exhaustive index is always built from
scratch, which takes seconds and gives the same bytes for the same rows; one with cells keeps its training while that
fits, so it also depends on which rows it was trained on (docs/decisions). What belongs here is that decision and the
difference of two rolls; FAISS is in
`index` and `index_update`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import EmbeddingError
from speech_mining.knn.index_recall import Indexed, examine_index
from speech_mining.knn.index_types import choose_factory, refine_factor, without_numbers
from speech_mining.knn.roll import Roll
from speech_mining.lake import NewPartition, Partition

VERSION = "1"
"""Of the index: changes when the same rows would be indexed otherwise."""
INDEX, RECORD = "index.faiss", "index.json"
OUTGROWN = 2
"""Trained again beyond so many times the rows it was trained for, or when less than one part in so many is left."""

SHOWN_DECIMALS = 6


@dataclass(frozen=True)
class Wish:
    """What the index should be."""

    factory: str = ""
    """A FAISS `index_factory` string; empty chooses by size."""
    rebuild: bool = False
    """Train again, whatever could be kept."""
    seed: int = 0
    """Of the training, and of the sample its recall is measured on."""
    memory_bytes: int | None = None
    """Of the machine that will search it, where the type is chosen by size; None takes this one's."""


@dataclass(frozen=True)
class IndexRecord:
    """What stands in `index.json`: how the index was made, and what it finds."""

    version: str
    wanted: str
    """The factory string of the settings; empty when the type follows the size."""
    factory: str
    encoder: str
    dimension: int
    rows: int
    trained_rows: int
    """Rows of the language when it was trained."""
    trained_on: str
    """`cpu` or `gpu`."""
    seed: int
    refine_factor: int
    """Candidates to compare again for each neighbour; 0 where the index answers by itself."""
    probes: int | None
    recall_at_16: float | None
    recall_by_kind: dict[str, float]
    unrefined_recall_at_16: float | None
    recall_queries: int


@dataclass(frozen=True, eq=False)
class Renewal:
    """An index that holds exactly the rows of a roll."""

    index: Any
    record: IndexRecord
    built: str
    """"updated from generation …", or "from scratch: " and why."""
    added: int
    removed: int

    def write(self, new: NewPartition) -> None:
        """Write the index and its record into a partition being filled."""
        from speech_mining.knn.index import write_index

        write_index(self.index, new.path(INDEX))
        new.write_json(RECORD, asdict(self.record))


@dataclass(frozen=True, eq=False)
class _Made:
    """An index before it is examined, and how it came to be."""

    index: Any
    factory: str
    trained_rows: int
    trained_on: str
    built: str
    added: int
    removed: int = 0


def renew_index(roll: Roll, previous: Partition | None, wish: Wish) -> Renewal:
    """Make the index of a roll, from that of an earlier one where it can be kept, and measure what it finds.

    Args:
        roll: what it shall hold.
        previous: the language's index as it is published now.
        wish: what it shall be.

    Raises:
        EmbeddingError: vectors that cannot be searched, a factory string FAISS does not know, too few rows to train.
    """
    reason = why_from_scratch(roll, previous, wish)
    made = _build(roll, wish, reason) if previous is None or reason else _update(roll, previous, wish)
    factor = refine_factor(made.factory)
    indexed = Indexed(made.index, roll.vectors, roll.ids, np.repeat(roll.blocks["block"], roll.blocks["rows"]))
    recall = examine_index(indexed, factor=factor, seed=wish.seed)
    record = IndexRecord(
        version=VERSION,
        wanted=wish.factory,
        factory=made.factory,
        encoder=roll.encoder,
        dimension=int(roll.vectors.shape[1]),
        rows=len(roll.vectors),
        trained_rows=made.trained_rows,
        trained_on=made.trained_on,
        seed=wish.seed,
        refine_factor=factor,
        probes=recall.probes,
        recall_at_16=_rounded(recall.recall),
        recall_by_kind={kind: round(found, SHOWN_DECIMALS) for kind, found in recall.by_kind.items()},
        unrefined_recall_at_16=_rounded(recall.unrefined),
        recall_queries=recall.queries,
    )
    return Renewal(made.index, record, made.built, made.added, made.removed)


def why_from_scratch(roll: Roll, previous: Partition | None, wish: Wish) -> str:
    """Why the earlier index cannot be updated, in words for a person; empty where it can."""
    if previous is None:
        return "there was none"
    if wish.rebuild:
        return "so it was asked"
    told = previous.read_json(RECORD) if RECORD in previous.files else {}
    if told.get("version") != VERSION:
        return "the earlier one was made by other code"
    record = IndexRecord(**told)
    return _changed(record, roll, wish) or _outgrown(
        record, roll, previous.read_table("roll.parquet", roll.layout.roll)
    )


def _changed(record: IndexRecord, roll: Roll, wish: Wish) -> str:
    """What is not as it was when the index was trained."""
    rows, dimension = roll.vectors.shape
    if (record.wanted, record.seed) != (wish.factory, wish.seed):
        return f"the settings ask for {wish.factory or 'the type that fits the size'}"
    if (record.encoder, record.dimension) != (roll.encoder, dimension):
        return f"the encoder was {record.encoder or 'none'}"
    fitting = wish.factory or choose_factory(rows, dimension, wish.memory_bytes)
    if without_numbers(fitting) != without_numbers(record.factory):
        return f"{rows} rows ask for {fitting}"
    return "" if "IVF" in record.factory else "an exhaustive index has no training to keep"


def _outgrown(record: IndexRecord, roll: Roll, indexed: pl.DataFrame) -> str:
    """Whether the rows are too many, or too few of them left, for cells that were trained on others."""
    rows = len(roll.vectors)
    if rows > OUTGROWN * record.trained_rows:
        return f"{rows} rows have outgrown a training for {record.trained_rows}"
    kept = int(roll.blocks.join(indexed, on=_block(roll), how="semi")["rows"].sum())
    if OUTGROWN * kept < record.trained_rows:
        return f"{kept} rows are left of those it was trained for, {record.trained_rows}"
    return ""


def _build(roll: Roll, wish: Wish, reason: str) -> _Made:
    from speech_mining.knn.cells import gpu_clone
    from speech_mining.knn.index import build_index

    rows, dimension = roll.vectors.shape
    factory = wish.factory or choose_factory(rows, dimension, wish.memory_bytes)
    index = build_index(roll.vectors, roll.ids, factory=factory, seed=wish.seed)
    device = "gpu" if gpu_clone(index) else "cpu"
    return _Made(index, factory, rows, device, f"from scratch: {reason}", rows)


def _update(roll: Roll, previous: Partition, wish: Wish) -> _Made:
    """Take the blocks that are gone out of the earlier index, and put the new ones in."""
    from speech_mining.knn.index import read_index
    from speech_mining.knn.index_update import can_be_updated, update_index

    record = IndexRecord(**previous.read_json(RECORD))
    try:
        index = read_index(previous.local_path(INDEX))
    except EmbeddingError:
        return _build(roll, wish, "the earlier one could not be read")
    if not can_be_updated(index):
        return _build(roll, wish, f"FAISS cannot take rows out of {record.factory}")
    gone, new = ids_gone(roll, previous), rows_new(roll, previous)
    update_index(index, gone, roll.vectors[new], roll.ids[new])
    told = f"updated from generation {previous.data_version}"
    return _Made(index, record.factory, record.trained_rows, record.trained_on, told, len(new), len(gone))


def ids_gone(roll: Roll, previous: Partition) -> npt.NDArray[np.int64]:
    """Ids in the earlier index whose block is gone or was embedded again."""
    layout = roll.layout
    gone = previous.read_table("roll.parquet", layout.roll).join(roll.blocks, on=_block(roll), how="anti")
    items = previous.read_table("rows.parquet", layout.rows)
    return items.filter(pl.col(layout.block).is_in(gone[layout.block].to_list()))[layout.id].to_numpy().astype(np.int64)


def rows_new(roll: Roll, previous: Partition) -> npt.NDArray[np.int64]:
    """Rows of the roll whose block is not in the earlier index."""
    indexed = previous.read_table("roll.parquet", roll.layout.roll)
    new = roll.blocks.join(indexed, on=_block(roll), how="anti").sort("first_row")
    spans = [np.arange(first, first + rows) for first, rows in new.select("first_row", "rows").iter_rows()]
    return np.concatenate([np.empty(0, np.int64), *spans])


def _block(roll: Roll) -> list[str]:
    """What makes a block the same in two rolls."""
    return [roll.layout.block, "data_version"]


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, SHOWN_DECIMALS)
