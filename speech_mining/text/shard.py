"""A shard cleaned into a table of sentences: in memory, or as parquet in bounded memory whatever the shard's size.

Equal shards, settings and versions give equal bytes: rows stand in the order of the source, and row groups are cut by
rows alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from speech_mining.atomic import replacing
from speech_mining.progress import Progress, silent
from speech_mining.records import Schema
from speech_mining.text.cleaning import Cleaning, Dropped, Kept, clean
from speech_mining.text.listing import refuse_changed
from speech_mining.text.readers import Shard, Unread, open_shard
from speech_mining.text.sentences import SENTENCES, sentence_ids

DROPPED: Schema = {
    "reason": pl.String(),  # one of `rules.DropReason`
    "sentences": pl.Int64(),  # of what could not be cut: passages, lines, records
    "characters": pl.Int64(),  # as read; bytes of what could not be read
    "example": pl.String(),  # the first, cut to 200 characters; of what could not be read, why
    "line": pl.Int64(),  # of the example
}
VERSION = "1"
"""Names the rules; raised by whoever changes what is kept."""

_LIBRARIES = ("ftfy", "langcodes", "py3langid", "resiliparse", "sentencex", "warcio")
_ROWS_AT_ONCE = 50_000
_EXAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class CleanShard:
    """What a shard holds, and what it does not give."""

    sentences: pl.DataFrame  # SENTENCES; without rows where they were written to a file
    dropped: pl.DataFrame  # DROPPED, a row a reason
    kept: int  # sentences
    characters: int  # of the kept, as a person reads them

    @property
    def counts(self) -> dict[str, int]:
        """Sentences by what became of them: "kept", and each reason."""
        return {"kept": self.kept, **dict(zip(self.dropped["reason"], self.dropped["sentences"], strict=True))}


def made_with() -> str:
    """What the sentences of a shard depend on beside its bytes and the bounds: our rules, and those of libraries."""
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return f"{VERSION}, {versions}, Unicode {unicodedata.unidata_version}"


def clean_shard(
    shard: Shard, language: str = "", config: Cleaning | None = None, *, progress: Progress = silent
) -> CleanShard:
    """Clean a shard into memory: 1 GB of it takes about as much.

    Args:
        shard: what `list_shards` names.
        language: ISO 639-3 of the sentences wanted; of the shard where it is not told.
        config: the bounds.
        progress: told the bytes read of the packed shard.

    Raises:
        ShardError: see `open_shard`; or the shard is not, or no longer, the file that was listed.
    """
    tally = _Tally()
    frames = list(_frames(shard, language or shard.language, config, tally, progress))
    return tally.report(pl.concat([pl.DataFrame(schema=dict(SENTENCES)), *frames]))


def write_clean_shard(
    shard: Shard, language: str = "", config: Cleaning | None = None, *, out: Path, progress: Progress = silent
) -> CleanShard:
    """Clean a shard into the parquet file `out`, which is either as it was or whole at every moment.

    Memory holds some 50 000 sentences and one passage, whatever the shard's size.

    Args:
        shard: see `clean_shard`.
        language: likewise.
        config: likewise.
        out: the file, made or replaced.
        progress: likewise.
    """
    import pyarrow.parquet as pq

    tally = _Tally()
    empty = pl.DataFrame(schema=dict(SENTENCES))
    schema = _arrow(empty).schema
    with replacing(out) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for frame in _frames(shard, language or shard.language, config, tally, progress):
            writer.write_table(_arrow(frame))
    return tally.report(empty)


@dataclass
class _Tally:
    """Counts of one shard while it is cleaned."""

    kept: int = 0
    characters: int = 0
    _dropped: dict[str, list[Any]] = field(default_factory=dict)

    def unread(self, unread: Unread) -> None:
        self._add(unread.reason, unread.bytes, unread.detail, unread.line)

    def dropped(self, one: Dropped) -> None:
        self._add(one.reason, one.length, one.text, one.line)

    def _add(self, reason: str, characters: int, example: str, line: int) -> None:
        row = self._dropped.setdefault(reason, [0, 0, example[:_EXAMPLE_CHARACTERS], line])
        row[0] += 1
        row[1] += characters

    def report(self, sentences: pl.DataFrame) -> CleanShard:
        rows = [(reason, *row) for reason, row in sorted(self._dropped.items())]
        dropped = pl.DataFrame(rows, schema=dict(DROPPED), orient="row")
        return CleanShard(sentences, dropped, self.kept, self.characters)


def _frames(
    shard: Shard, language: str, config: Cleaning | None, tally: _Tally, progress: Progress
) -> Iterator[pl.DataFrame]:
    refuse_changed(shard, "since it was listed")
    passages = open_shard(shard.address, format=shard.format, meta=shard.meta, tell=tally.unread, progress=progress)
    rows: list[Kept] = []
    for one in clean(passages, language, config):
        if isinstance(one, Dropped):
            tally.dropped(one)
            continue
        rows.append(one)
        tally.kept += 1
        tally.characters += len(one.text)
        if len(rows) == _ROWS_AT_ONCE:
            yield _frame(rows, language)
            rows = []
    if rows:
        yield _frame(rows, language)
    refuse_changed(shard, "while it was read")


def _frame(rows: list[Kept], language: str) -> pl.DataFrame:
    texts = [one.text for one in rows]
    columns = {
        "sentence_id": sentence_ids(texts, language),
        "text": texts,
        **{name: [getattr(one, name) for one in rows] for name in ("document", "line", "offset", "length")},
    }
    return pl.DataFrame(columns, schema=dict(SENTENCES))


def _arrow(frame: pl.DataFrame) -> Any:
    """With 32-bit offsets of strings: a file that every reader takes."""
    import pyarrow as pa

    table = frame.to_arrow()
    strings = [
        pa.string() if pa.types.is_large_string(kind) or "view" in str(kind) else kind for kind in table.schema.types
    ]
    return table.cast(pa.schema(list(zip(table.schema.names, strings, strict=True))))
