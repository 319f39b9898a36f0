"""The roll of a language: its blocks of vectors in order, so that one row number means one segment everywhere.

The exact engine reads the blocks through the roll, the FAISS index holds the same vectors under the same segment ids.
Blocks are ordered by audiobook (numerically): the roll depends on what is there, never on the order it came in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import EmbeddingError, LakeError
from speech_mining.knn.vectors import Stack
from speech_mining.lake import Lake
from speech_mining.records import SEGMENTS, Schema, audiobook_order, conform

ROLL: Schema = {
    "block": pl.Int32(),
    "audiobook": pl.String(),
    "data_version": pl.String(),  # of the block's embeddings
    "first_row": pl.Int64(),
    "rows": pl.Int64(),
}
ROWS: Schema = {**SEGMENTS, "row": pl.Int64(), "recurring": pl.Boolean()}


@dataclass(frozen=True, eq=False)
class Block:
    """The embeddings of one audiobook."""

    audiobook: str
    data_version: str
    segments: pl.DataFrame
    """`records.SEGMENTS`, in the vectors' order."""
    vectors: npt.NDArray[np.float16]
    """float16 (rows, dimension); may be a memory map."""
    encoder: str
    """Name and version of what made the vectors."""


@dataclass(frozen=True, eq=False)
class Roll:
    """All blocks of a language, in order."""

    blocks: pl.DataFrame
    """`ROLL`."""
    segments: pl.DataFrame
    """`records.SEGMENTS`; row number = position."""
    stack: Stack
    """float16 (rows, dimension): the blocks' vectors end to end, mapped into memory and not copied."""
    encoder: str

    @cached_property
    def vectors(self) -> npt.NDArray[np.float16]:
        """float16 (rows, dimension): all vectors in one array, copied when they are first asked for."""
        return self.stack[:]

    @property
    def versions(self) -> npt.NDArray[np.int64]:
        """int64 (rows,): a number for the data version of each row's block."""
        numbers = [_version_number(version) for version in self.blocks["data_version"]]
        return np.repeat(np.array(numbers, np.int64), self.blocks["rows"].to_numpy())

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Segment id of every row."""
        return self.segments["segment_id"].to_numpy().astype(np.int64)

    @property
    def recordings(self) -> npt.NDArray[np.int64]:
        """Number of the recording of every row, int64 (rows,), counted in order of appearance from 0."""
        if self.segments.is_empty():
            return np.empty(0, np.int64)
        number = pl.struct("audiobook", "section").rle_id()
        return self.segments.select(number.cast(pl.Int64)).to_series().to_numpy()


def call_the_roll(blocks: Sequence[Block], dimension: int = 0) -> Roll:
    """Put blocks in order.

    Raises:
        EmbeddingError: blocks come from different encoders, or a block's rows and vectors differ in number.
    """
    ordered = sorted(blocks, key=lambda block: audiobook_order(block.audiobook))
    encoders = sorted({block.encoder for block in ordered})
    if len(encoders) > 1:
        raise EmbeddingError(
            f"The blocks of one language come from {len(encoders)} encoders: {', '.join(encoders)}.",
            expected="one encoder a language; vectors of two cannot be compared",
            cause="the encoder was changed and some audiobooks were not embedded again",
            fix="materialize speech_embeddings of every audiobook of the language",
        )
    sizes = [_rows(block) for block in ordered]
    starts = np.cumsum([0, *sizes])[:-1].tolist() if sizes else []
    return Roll(
        conform(
            pl.DataFrame(
                {
                    "block": list(range(len(ordered))),
                    "audiobook": [block.audiobook for block in ordered],
                    "data_version": [block.data_version for block in ordered],
                    "first_row": starts,
                    "rows": sizes,
                },
                schema=dict(ROLL),
            ),
            ROLL,
            "roll",
        ),
        pl.concat([block.segments for block in ordered]) if ordered else pl.DataFrame(schema=dict(SEGMENTS)),
        Stack([block.vectors for block in ordered], dimension),
        encoders[0] if encoders else "",
    )


def read_blocks(lake: Lake, language: str) -> list[Block]:
    """The embeddings of every audiobook of a language, vectors mapped into memory."""
    return [_read_block(lake, language, book) for book in lake.keys("speech_embeddings", language)]


def read_roll(lake: Lake, language: str) -> tuple[Roll, npt.NDArray[np.bool_]]:
    """The roll that the language's index was made of, and which rows recur.

    Raises:
        LakeError: there is no index yet, or audiobooks were embedded again since it was made.
    """
    index = lake.partition("speech_index", language)
    roll = call_the_roll(read_blocks(lake, language))
    indexed = index.read_table("roll.parquet", ROLL)
    if not roll.blocks.equals(indexed):
        changed = roll.blocks.join(indexed, on=["audiobook", "data_version"], how="full").filter(
            pl.any_horizontal(pl.col("block", "block_right").is_null())
        )
        raise LakeError(
            f"The index of {language} and its embeddings differ in {changed.height} blocks.",
            expected="an index made of the embeddings that are there",
            cause="audiobooks were added, removed or embedded again since",
            fix=f"materialize {language}/speech_index",
        )
    return roll, index.read_table("rows.parquet", ROWS)["recurring"].to_numpy()


def _read_block(lake: Lake, language: str, book: str) -> Block:
    partition = lake.partition("speech_embeddings", language, book)
    encoder = partition.read_json("encoder.json")
    return Block(
        book,
        partition.data_version,
        partition.read_table("segments.parquet", SEGMENTS),
        partition.read_array("vectors.npy"),
        f"{encoder['name']} {encoder['version']}",
    )


def _version_number(version: str) -> int:
    """63 bits of a data version's hash."""
    return int.from_bytes(hashlib.blake2b(version.encode(), digest_size=8).digest(), "big") >> 1


def _rows(block: Block) -> int:
    if len(block.vectors) != block.segments.height:
        raise EmbeddingError(
            f"Audiobook {block.audiobook} has {block.segments.height} segments and {len(block.vectors)} vectors.",
            expected="one vector a segment",
            cause="files of the lake were edited by hand",
            fix="materialize its speech_embeddings again",
        )
    return block.segments.height
