"""What a model is trained or examined on: speech and what it says in another language, written or spoken.

What belongs here is the table and its checks, and reading the sound of a side. Where examples come from is
`downstream.sets` and `downstream.mined`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import polars as pl

from speech_mining.audio.decode import Waveform
from speech_mining.errors import LakeError
from speech_mining.records import Schema, conform
from speech_mining.text.sentence_keys import keys
from speech_mining.transcribed.clips import ClipReader

Side: TypeAlias = Literal["source", "target"]

_SOUND: Schema = {
    "file": pl.String(),  # as in records.TRANSCRIBED
    "place": pl.String(),
    "start_s": pl.Float64(),  # null: from its start
    "end_s": pl.Float64(),  # null: to its end
    "duration_s": pl.Float64(),
    "recording": pl.String(),  # SHA-256 of the recording that the clip lies in
}
EXAMPLES: Schema = {
    "example": pl.String(),  # unique in a table
    **{f"source_{name}": dtype for name, dtype in _SOUND.items()},
    "source_words": pl.String(),  # what the source says; null: not known
    **{f"target_{name}": dtype for name, dtype in _SOUND.items()},  # null: the target is text alone
    "target_words": pl.String(),  # what it means in the target's language; null: not known
    "score": pl.Float64(),  # margin of a mined pair; null: a person made it
}


def no_examples() -> pl.DataFrame:
    """A table without rows."""
    return pl.DataFrame(schema=dict(EXAMPLES))


def completed(examples: pl.DataFrame, what: str) -> pl.DataFrame:
    """The table with every column of `EXAMPLES`, null where it has none yet, sorted by name.

    Raises:
        LakeError: other columns, or two examples of one name.
    """
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in EXAMPLES.items() if name not in examples.columns]
    return checked(examples.with_columns(missing), what)


def checked(examples: pl.DataFrame, what: str) -> pl.DataFrame:
    """The table with the columns of `EXAMPLES`, sorted by name.

    Raises:
        LakeError: other columns, or two examples of one name.
    """
    table = conform(examples, EXAMPLES, what).sort("example")
    if table["example"].n_unique() < table.height:
        twice = table.filter(pl.col("example").is_duplicated())["example"][0]
        raise LakeError(f"The example {twice} stands twice in {what}.", expected="each name once")
    return table


def hours(examples: pl.DataFrame, side: Side = "source") -> float:
    """Hours of a side."""
    return float(examples[f"{side}_duration_s"].sum()) / 3600


def sound_of(row: Mapping[str, Any], side: Side, reader: ClipReader) -> Waveform:
    """The sound of a side: float32 (samples,) at 16 kHz.

    Raises:
        AudioError: it cannot be read.
    """
    names = ("file", "place", "start_s", "end_s")
    return reader.read({"clip": row["example"], **{name: row[f"{side}_{name}"] for name in names}})


def words_of(examples: pl.DataFrame) -> dict[str, set[str]]:
    """Side → the distinct things it says, as words are compared; what is not known or has no word is left out."""
    return {side: set(word_keys(examples, side)) - {""} for side in ("source", "target")}


def word_keys(examples: pl.DataFrame, side: str) -> pl.Series:
    """Of each example what its side says, as words are compared; "" where it is not known."""
    return keys(examples[f"{side}_words"])
