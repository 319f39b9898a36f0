"""Rows of parquet files with text, as the Hugging Face hub has them: a few at a time, by the keys of `passages`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from speech_mining.text.listing import file_name
from speech_mining.text.passages import COLUMNS, Passage, passage_of
from speech_mining.text.streams import ReadBytes, ShardError, Tell, Unread, raw_file, until_damage

_ROWS_AT_ONCE = 64
_BUFFER_BYTES = 1 << 20


def passages_of_rows(address: str, most_bytes: int, tell: Tell, read: ReadBytes) -> Iterator[Passage]:
    """Each row's text; row groups are decoded page by page, so that memory does not grow with them.

    Raises:
        ShardError: it is no parquet file, is cut short, has no column of text, or lies where only streams are served.
    """
    with raw_file(address) as handle, closing(_opened(handle, address)) as file:
        columns = [name for name in file.schema_arrow.names if name in COLUMNS]
        batches = file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns, use_threads=False)
        number = 0
        for batch in until_damage(batches, tell):
            for row in _rows(batch):
                number += 1
                passage = passage_of(row, number, file_name(address))
                if passage is None:
                    tell(Unread("malformed", number, 0, "no text"))
                elif len(passage.text) > most_bytes:
                    tell(Unread("too_long_line", number, len(passage.text), f"{len(passage.text)} characters"))
                else:
                    yield passage
            read.reached(number, file.metadata.num_rows)


def _rows(batch: Any) -> list[dict[str, Any]]:
    """Rows as objects; where a text is not UTF-8, which parquet does not check, what is not becomes U+FFFD."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        import pyarrow as pa

        plain = [name for name in batch.schema.names if pa.types.is_string(batch.schema.field(name).type)]
        columns = {name: batch.column(name).cast(pa.binary()).to_pylist() for name in plain}
        told = [
            [None if one is None else one.decode("utf-8", "replace") for one in column] for column in columns.values()
        ]
        rows = [dict(zip(plain, values, strict=True)) for values in zip(*told, strict=True)]
    return rows


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "replace")


def _opened(handle: Any, address: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(handle, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise ShardError(
            f"{address} cannot be read as parquet ({problem}).",
            expected="a whole parquet file, where it can be read from its middle",
            cause="a copy cut short: what describes a parquet file is at its end",
            fix="fetch it again, and from a server that serves ranges",
        ) from None
