"""The roll of a language: its blocks of vectors in order, so that one row number means one segment everywhere.

The exact engine reads the blocks through the roll, the FAISS index holds the same vectors under the same ids. Blocks
are ordered by name (numbers by value): the roll depends on what is there, never on the order it came in. Speech and
text have a roll each; what a block of either is called in the lake is its `Layout`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import EmbeddingError, LakeError
from speech_mining.knn.open_files import make_room
from speech_mining.knn.vectors import Chosen, Stack
from speech_mining.lake import Lake, Partition
from speech_mining.records import EMBEDDED_SENTENCES, SEGMENTS, Modality, Schema, audiobook_order, conform

ROLL: Schema = {
    "block": pl.Int32(),
    "audiobook": pl.String(),
    "data_version": pl.String(),  # of the block's embeddings
    "first_row": pl.Int64(),
    "rows": pl.Int64(),
}
ROWS: Schema = {**SEGMENTS, "row": pl.Int64(), "recurring": pl.Boolean()}


@dataclass(frozen=True)
class Layout:
    """How the vectors of a modality lie in the lake.

    Args:
        modality: what is embedded.
        embeddings: the layer of a block's vectors.
        index: the layer of a language's roll and index.
        table: the file that tells what each vector is of.
        items: its schema.
        id: the column that names an item for ever.
        block: what a block is called.
        repeats: the layer that tells which rows of each block are no repeats of another's; empty where none does.
    """

    modality: Modality
    embeddings: str
    index: str
    table: str
    items: Schema
    id: str
    block: str
    repeats: str = ""

    @property
    def roll(self) -> Schema:
        """Columns of `roll.parquet`."""
        return {self.block if name == "audiobook" else name: dtype for name, dtype in ROLL.items()}

    @property
    def rows(self) -> Schema:
        """Columns of `rows.parquet`."""
        return {**self.items, "row": pl.Int64(), "recurring": pl.Boolean()}


SPEECH = Layout("speech", "speech_embeddings", "speech_index", "segments.parquet", SEGMENTS, "segment_id", "audiobook")
TEXT = Layout(
    "text",
    "text_embeddings",
    "text_index",
    "sentences.parquet",
    EMBEDDED_SENTENCES,
    "sentence_id",
    "shard",
    repeats="text_duplicates",
)
LAYOUTS = {layout.modality: layout for layout in (SPEECH, TEXT)}


@dataclass(frozen=True, eq=False)
class Block:
    """The embeddings of one audiobook, or of one shard of text."""

    name: str
    data_version: str
    items: pl.DataFrame
    """`records.SEGMENTS` or `records.EMBEDDED_SENTENCES`, in the vectors' order."""
    vectors: npt.NDArray[np.float16] | Chosen
    """float16 (rows, dimension); may be a memory map."""
    encoder: str
    """Name and version of what made the vectors."""


@dataclass(frozen=True, eq=False)
class Roll:
    """All blocks of a language, in order."""

    blocks: pl.DataFrame
    """`ROLL`, or what the layout makes of it."""
    items: pl.DataFrame
    """`records.SEGMENTS` or `records.EMBEDDED_SENTENCES`; row number = position."""
    stack: Stack
    """float16 (rows, dimension): the blocks' vectors end to end, mapped into memory and not copied."""
    encoder: str
    layout: Layout = SPEECH

    @cached_property
    def vectors(self) -> npt.NDArray[np.float16]:
        """float16 (rows, dimension): all vectors in one array, copied when they are first asked for."""
        return self.stack[:]

    @cached_property
    def version(self) -> str:
        """Changes with any block: which vectors, in which order. It does not depend on how the index came to be."""
        told = self.blocks.select(self.layout.block, "data_version", "rows").rows()
        return hashlib.blake2b(repr((self.encoder, told)).encode(), digest_size=6).hexdigest()

    @property
    def versions(self) -> npt.NDArray[np.int64]:
        """int64 (rows,): a number for the data version of each row's block."""
        numbers = [_version_number(version) for version in self.blocks["data_version"]]
        return np.repeat(np.array(numbers, np.int64), self.blocks["rows"].to_numpy())

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Id of every row's segment or sentence."""
        return self.items[self.layout.id].to_numpy().astype(np.int64)

    @property
    def recordings(self) -> npt.NDArray[np.int64]:
        """Number of the recording of every row, int64 (rows,), counted in order of appearance from 0."""
        if self.items.is_empty():
            return np.empty(0, np.int64)
        number = pl.struct("audiobook", "section").rle_id()
        return self.items.select(number.cast(pl.Int64)).to_series().to_numpy()


def call_the_roll(blocks: Sequence[Block], dimension: int = 0, layout: Layout = SPEECH) -> Roll:
    """Put blocks in order.

    Args:
        blocks: of one language.
        dimension: of the vectors, where there is no block.
        layout: of the blocks.

    Raises:
        EmbeddingError: blocks come from different encoders, or a block's rows and vectors differ in number.
    """
    ordered = sorted(blocks, key=lambda block: audiobook_order(block.name))
    encoders = sorted({block.encoder for block in ordered})
    if len(encoders) > 1:
        raise EmbeddingError(
            f"The blocks of one language come from {len(encoders)} encoders: {', '.join(encoders)}.",
            expected="one encoder a language; vectors of two cannot be compared",
            cause=f"the encoder was changed and some {layout.block}s were not embedded again",
            fix=f"materialize {layout.embeddings} of every {layout.block} of the language",
        )
    sizes = [_rows(block, layout) for block in ordered]
    starts = np.cumsum([0, *sizes])[:-1].tolist() if sizes else []
    return Roll(
        conform(
            pl.DataFrame(
                {
                    "block": list(range(len(ordered))),
                    layout.block: [block.name for block in ordered],
                    "data_version": [block.data_version for block in ordered],
                    "first_row": starts,
                    "rows": sizes,
                },
                schema=dict(layout.roll),
            ),
            layout.roll,
            "roll",
        ),
        pl.concat([block.items for block in ordered]) if ordered else pl.DataFrame(schema=dict(layout.items)),
        Stack([block.vectors for block in ordered], dimension),
        encoders[0] if encoders else "",
        layout,
    )


def read_blocks(lake: Lake, language: str, layout: Layout = SPEECH) -> list[Block]:
    """The embeddings of every audiobook or shard of a language, vectors mapped into memory."""
    names = lake.keys(layout.embeddings, language)
    make_room(len(names))
    return [read_block(lake, language, name, layout) for name in names]


def read_roll(lake: Lake, language: str, layout: Layout = SPEECH) -> tuple[Roll, npt.NDArray[np.bool_]]:
    """The roll that the language's index was made of, and which rows recur.

    What was embedded since the index was made takes no part yet: a search may last for hours, and books come daily.

    Raises:
        LakeError: there is no index yet, or audiobooks that are in it are gone or were embedded again.
    """
    index = lake.partition(layout.index, language)
    indexed = index.read_table("roll.parquet", layout.roll)
    there = set(lake.keys(layout.embeddings, language))
    names = [name for name in indexed[layout.block] if name in there]
    make_room(len(names))
    roll = call_the_roll([read_block(lake, language, name, layout) for name in names], layout=layout)
    if not roll.blocks.equals(indexed):
        lacking = indexed.join(roll.blocks, on=[layout.block, "data_version"], how="anti")
        raise index_is_older(language, layout, lacking[layout.block].to_list())
    return roll, index.read_table("rows.parquet", layout.rows)["recurring"].to_numpy()


def index_is_older(language: str, layout: Layout, changed: Sequence[str]) -> LakeError:
    """What is wrong with an index when blocks that it names are not there as they were."""
    return LakeError(
        f"The index of {language} and its embeddings differ in {len(changed)} blocks, the first is {changed[0]}.",
        expected="the embeddings that the index was made of",
        cause=f"{layout.block}s were removed or embedded again since",
        fix=f"materialize {language}/{layout.index}",
    )


def read_block(lake: Lake, language: str, name: str, layout: Layout = SPEECH) -> Block:
    """The embeddings of one audiobook or shard as they stand in the roll, vectors mapped into memory."""
    partition = lake.partition(layout.embeddings, language, name)
    encoder = partition.read_json("encoder.json")
    block = Block(
        name,
        partition.data_version,
        partition.read_table(layout.table, layout.items),
        partition.read_array("vectors.npy"),
        f"{encoder['name']} {encoder['version']}",
    )
    return _without_repeats(lake, language, block, layout) if layout.repeats else block


def _without_repeats(lake: Lake, language: str, block: Block, layout: Layout) -> Block:
    """A block without the rows that an earlier one has too; what is left is part of its version.

    Repeats are found before anything is embedded, but a shard that comes later may stand before this one in order.
    """
    kept = kept_rows(lake.partition(layout.repeats, language), block.name, layout)
    here = kept[block.items["shard_row"].to_numpy()]
    if here.all():
        return block
    return replace(
        block,
        data_version=f"{block.data_version}-{hashlib.blake2b(np.packbits(here).tobytes(), digest_size=6).hexdigest()}",
        items=block.items.filter(pl.Series(here)),
        vectors=Chosen(block.vectors, np.flatnonzero(here)),
    )


def kept_rows(repeats: Partition, block: str, layout: Layout) -> npt.NDArray[np.bool_]:
    """Which rows of a block are no repeats, bool (rows,).

    Raises:
        LakeError: repeats were looked for before the block was there.
    """
    name = kept_file(block)
    if name not in repeats.files:
        raise LakeError(
            f"Repeats were never looked for in the {layout.block} {block}.",
            cause=f"the {layout.block} came after {layout.repeats} was materialized",
            fix=f"materialize {layout.repeats} of the language",
        )
    return repeats.read_array(name).astype(np.bool_)


def kept_file(block: str) -> str:
    """Where the layer of repeats keeps its answer for a block: bool (rows of its sentences,)."""
    return f"kept/{block}.npy"


def _version_number(version: str) -> int:
    """63 bits of a data version's hash."""
    return int.from_bytes(hashlib.blake2b(version.encode(), digest_size=8).digest(), "big") >> 1


def _rows(block: Block, layout: Layout) -> int:
    if len(block.vectors) != block.items.height:
        raise EmbeddingError(
            f"The {layout.block} {block.name} has {block.items.height} items and {len(block.vectors)} vectors.",
            expected="one vector an item",
            cause="files of the lake were edited by hand",
            fix=f"materialize its {layout.embeddings} again",
        )
    return block.items.height
