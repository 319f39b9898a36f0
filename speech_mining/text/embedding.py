"""Embedding a shard of sentences: only what is no repeat, and what was embedded before is taken over.

Which encoder is the caller's choice; batching is the encoder's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.encoders.protocol import Sentence, TextEncoder
from speech_mining.progress import Progress, silent
from speech_mining.records import EMBEDDED_SENTENCES, Schema, conform
from speech_mining.text.sentences import Wording, as_read

VERSION = "1"
AT_ONCE = 16_384
"""Sentences handed to the encoder together: it sorts them by length, and the bar moves as often."""
Lengths: TypeAlias = npt.NDArray[np.float32]
REFUSED: Schema = {"sentence_id": pl.Int64(), "shard_row": pl.Int64(), "reason": pl.String(), "detail": pl.String()}


@dataclass(frozen=True, eq=False)
class Earlier:
    """What was embedded before with the same encoder and wording."""

    sentences: pl.DataFrame
    """`records.EMBEDDED_SENTENCES`, in the vectors' order."""
    vectors: npt.NDArray[np.float16]
    """float16 (rows, dimension); may be a memory map."""
    lengths: Lengths | None = None
    """float32 (rows,), of the vectors as the encoder made them; None: they are not known."""


@dataclass(frozen=True, eq=False)
class EmbeddedShard:
    """What an encoder made of a shard."""

    sentences: pl.DataFrame
    """`records.EMBEDDED_SENTENCES`, one row a vector, in the vectors' order."""
    vectors: npt.NDArray[np.float16]
    """float16 (sentences, dimension), unit rows."""
    refused: pl.DataFrame
    """`REFUSED`: sentences that have no vector."""
    taken_over: int
    lengths: Lengths | None = None
    """float32 (sentences,), of the vectors as the encoder made them; None: not known of all, or there is no vector."""


def embed_shard(
    shard: str,
    sentences: pl.DataFrame,
    language: str,
    encoder: TextEncoder,
    wording: Wording,
    *,
    earlier: Earlier | None = None,
    progress: Progress = silent,
) -> EmbeddedShard:
    """Embed sentences of a shard.

    Memory holds all vectors of the shard: 2 GB for a million sentences of 1 024 dimensions.

    Args:
        shard: its name.
        sentences: columns `sentence_id`, `shard_row`, `text`; each id once.
        language: ISO 639-3.
        encoder: of text.
        wording: what the encoder reads of a text.
        earlier: vectors that are taken over by their sentence's id.
        progress: told the sentences that have a vector or were refused.
    """
    known = _known(sentences, earlier)
    vectors, lengths = np.zeros((sentences.height, encoder.dimension), np.float16), _Lengths(sentences.height)
    if earlier is not None:
        there = np.flatnonzero(known >= 0)
        vectors[there] = earlier.vectors[known[there]]
        lengths.take_over(there, earlier, known[there])
    new, refused = np.flatnonzero(known < 0), []
    has_vector = known >= 0
    texts = sentences["text"]
    for start in range(0, len(new), AT_ONCE):
        rows = new[start : start + AT_ONCE]
        embedded = encoder.embed([Sentence(as_read(texts[int(row)], wording), language) for row in rows])
        kept = rows[embedded.kept]
        vectors[kept] = embedded.vectors
        lengths.put(kept, embedded.lengths)
        has_vector[kept] = True
        refused += [(int(rows[one.item]), one.reason, one.detail) for one in embedded.rejected]
        progress(sentences.height - len(new) + start + len(rows), sentences.height)
    described = sentences.select("sentence_id", pl.lit(shard).alias("shard"), "shard_row")
    return EmbeddedShard(
        conform(described.filter(pl.Series(has_vector)), EMBEDDED_SENTENCES, "sentences"),
        vectors if has_vector.all() else vectors[has_vector],
        _refused(sentences, refused),
        sentences.height - len(new),
        lengths.of(has_vector),
    )


class _Lengths:
    """Lengths of a shard's vectors, told only if they are known of all."""

    def __init__(self, rows: int) -> None:
        self._lengths = np.full(rows, np.nan, np.float32)

    def take_over(self, rows: npt.NDArray[np.int64], earlier: Earlier, earlier_rows: npt.NDArray[np.int64]) -> None:
        """Those of vectors that were there before."""
        self.put(rows, None if earlier.lengths is None else earlier.lengths[earlier_rows])

    def put(self, rows: npt.NDArray[np.int64], lengths: Lengths | None) -> None:
        """Those of some rows; None: the encoder does not tell."""
        if lengths is not None:
            self._lengths[rows] = lengths

    def of(self, has_vector: npt.NDArray[np.bool_]) -> Lengths | None:
        """Of the rows that have a vector."""
        told: Lengths = self._lengths[has_vector]
        return told if len(told) and not np.isnan(told).any() else None


def _known(sentences: pl.DataFrame, earlier: Earlier | None) -> npt.NDArray[np.int64]:
    """The earlier row of each sentence, -1 where there is none."""
    if earlier is None:
        return np.full(sentences.height, -1, np.int64)
    rows = earlier.sentences.select("sentence_id").with_row_index("earlier")
    joined = sentences.select("sentence_id").join(rows, on="sentence_id", how="left", maintain_order="left")
    known: npt.NDArray[np.int64] = joined["earlier"].cast(pl.Int64).fill_null(-1).to_numpy()
    return known


def _refused(sentences: pl.DataFrame, refused: list[tuple[int, Any, str]]) -> pl.DataFrame:
    rows = [row for row, _, _ in refused]
    return conform(
        sentences[rows]
        .select("sentence_id", "shard_row")
        .with_columns(
            pl.Series("reason", [reason for _, reason, _ in refused], dtype=pl.String),
            pl.Series("detail", [detail for _, _, detail in refused], dtype=pl.String),
        ),
        REFUSED,
        "refused",
    )
