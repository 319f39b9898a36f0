"""What a sentence of a text corpus is: its row, its name for ever, and the wording that an encoder reads. Pure.

The text is stored once, as a person reads it. What an encoder wants of it (lower case, no quotes around) is derived,
so that two encoders share one table.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from speech_mining.records import Schema

SENTENCES: Schema = {
    "sentence_id": pl.Int64(),  # see sentence_id(): the same text of a language has the same id everywhere
    "text": pl.String(),  # as a person reads it, cleaned
    "document": pl.String(),  # URL or id of the document, line of the meta file, else name of the shard's file
    "line": pl.Int64(),  # line, record or row of the shard, from 1
    "offset": pl.Int64(),  # where the sentence begins in that passage as read, in characters (Unicode code points)
    "length": pl.Int32(),  # characters of the passage as read, before cleaning
}

_QUOTES = frozenset(('""', "''", "“”", "„“", "„”", "‘’", "‚‘", "«»", "»«", "‹›", "「」", "『』"))


@dataclass(frozen=True)
class Wording:
    """How an encoder wants its text: LASER, as the 2021 paper fed it, both; SONAR and LaBSE neither."""

    lower_case: bool = False
    strip_quotes: bool = False


def as_read(text: str, wording: Wording) -> str:
    """The text that an encoder reads; with both settings it is `evaluation.wording.normalised`.

    Quotes go only where they enclose the whole: `"A," he said, "B."` is not enclosed, its first quote ends before the
    last one begins.
    """
    bare = " ".join(unicodedata.normalize("NFC", text).split())
    if wording.strip_quotes:
        bare = _without_quotes(bare)
    return bare.lower() if wording.lower_case else bare


def sentence_id(text: str, language: str) -> int:
    """Name a sentence: the first 63 bits of BLAKE2b over language and text, so it fits FAISS's int64.

    The same text has the same id in every shard, on any machine. Of 10^9 different sentences of a language, 0.05
    pairs are expected to share one (n^2 / 2^64).
    """
    digest = hashlib.blake2b(f"{language}\n{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def sentence_ids(texts: Iterable[str], language: str) -> pl.Series:
    """Int64, the id of each text; 600 000 a second on a core."""
    return pl.Series("sentence_id", [sentence_id(text, language) for text in texts], dtype=pl.Int64())


def _without_quotes(text: str) -> str:
    while len(text) > 1 and text[0] + text[-1] in _QUOTES and not set(text[1:-1]) & {text[0], text[-1]}:
        text = text[1:-1].strip()
    return text
