"""Shards of text in the formats people have, as a stream of passages: memory bounded whatever the shard's size.

What belongs here turns a shard into passages. Where shards lie is in `listing`, bytes in `streams`, web archives in
`web_archives`, tables in `parquet_rows`; sentences are cut and cleaned in `cleaning`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal, TypeAlias, get_args

from speech_mining.errors import SettingsError
from speech_mining.progress import Progress, silent
from speech_mining.text.listing import Shard, file_name, list_shards
from speech_mining.text.passages import Passage, passage_of
from speech_mining.text.streams import (
    DAMAGE,
    MOST_LINE_BYTES,
    ReadBytes,
    ShardError,
    Tell,
    Unread,
    numbered_lines,
    tell_nobody,
    unpacked,
)

__all__ = ["Format", "Passage", "Shard", "ShardError", "Unread", "list_shards", "open_shard"]

Format: TypeAlias = Literal["auto", "lines", "paragraphs", "json_lines", "wet", "parquet"]

_PACKED = (".gz", ".zst", ".xz", ".bz2")
_SUFFIXES: dict[str, Format] = {
    ".jsonl": "json_lines",
    ".json": "json_lines",
    ".ndjson": "json_lines",
    ".wet": "wet",
    ".warc": "wet",
    ".parquet": "parquet",
}
_FIRST_BYTES: tuple[tuple[bytes, Format], ...] = ((b"WARC/", "wet"), (b"{", "json_lines"), (b"PAR1", "parquet"))


def open_shard(
    address: str,
    *,
    format: str = "auto",
    meta: str = "",
    most_line_bytes: int = MOST_LINE_BYTES,
    tell: Tell = tell_nobody,
    progress: Progress = silent,
) -> Iterator[Passage]:
    """Read a shard from its start to its end, once.

    Args:
        address: a path, or a URL that fsspec understands. How it is packed (gzip, Zstandard, xz, bzip2) is seen from
            its first bytes.
        format: `lines` (a sentence a line), `paragraphs` (a paragraph a line), `json_lines` (CCNet, OSCAR, mC4 …),
            `wet` (WET, or WARC whose HTML becomes text), `parquet`; `auto` goes by name and first bytes, and takes
            what is neither JSON nor an archive nor parquet for `paragraphs`.
        meta: for `lines` and `paragraphs`, a file of as many lines: line n is what is known of line n of the shard,
            and becomes its document.
        most_line_bytes: a longer line, record or text is passed over and told as `too_long_line`.
        tell: told what gives no passage.
        progress: told the bytes of the packed file, as they are read.

    Raises:
        SettingsError: the format is none of these, or has no use for a meta file.
        ShardError: the shard cannot be reached, is not of its format, or its meta file is not as long. A shard that
            is cut short or damaged is no error: what could be read is given, and `damaged` is told.
    """
    if format not in get_args(Format):
        raise SettingsError(f"{format!r} is no format of text.", expected=", ".join(get_args(Format)))
    kind = _detected(address) if format == "auto" else format
    if meta and kind not in ("lines", "paragraphs"):
        raise SettingsError(
            f"{address} is {kind} and has the meta file {meta}.",
            expected="a meta file beside lines or paragraphs only: other formats tell of their documents themselves",
        )
    read = ReadBytes(address, progress)
    if kind == "parquet":
        from speech_mining.text.parquet_rows import passages_of_rows

        yield from passages_of_rows(address, most_line_bytes, tell, read)
    else:
        yield from _streamed(address, kind, meta, most_line_bytes, tell, read)
    read.finish()


def _detected(address: str) -> str:
    """The format by the name's suffix before that of the packing, else by the first bytes."""
    name = file_name(address).lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    known = _SUFFIXES.get(PurePosixPath(name).suffix)
    if known is not None:
        return known
    try:
        with unpacked(address, lambda _: None) as stream:
            start = stream.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except DAMAGE:
        return "paragraphs"
    return next((kind for first, kind in _FIRST_BYTES if start.startswith(first)), "paragraphs")


def _streamed(
    address: str, kind: str, meta: str, most_line_bytes: int, tell: Tell, read: ReadBytes
) -> Iterator[Passage]:
    name = file_name(address)
    with ExitStack() as opened:
        stream = opened.enter_context(unpacked(address, read))
        if kind == "wet":
            from speech_mining.text.web_archives import documents

            yield from documents(stream, name, most_line_bytes, tell)
        elif kind == "json_lines":
            yield from _records(numbered_lines(stream, tell, most_line_bytes), name, tell)
        else:
            told = _Told(tell)
            passages = _plain(numbered_lines(stream, told, most_line_bytes), name, kind == "lines", told)
            if meta:
                about = opened.enter_context(unpacked(meta, lambda _: None))
                passages = _with_meta(passages, numbered_lines(about, _refuse), told, meta)
            yield from passages


def _plain(found: Iterator[tuple[int, bytes]], name: str, sentences: bool, tell: Tell) -> Iterator[Passage]:
    for number, line in found:
        if b"\0" in line:  # UTF-16 that does not say so would read as l e t t e r s, of which the most are kept
            tell(Unread("malformed", number, len(line), "NUL bytes: a binary file, or UTF-16"))
        else:
            yield Passage(_text(line), name, number, None, sentences)


@dataclass
class _Told:
    """Passes on what is told, and remembers what the meta file must be held against."""

    tell: Tell
    last_line: int = 0
    damaged: bool = False

    def __call__(self, unread: Unread) -> None:
        self.damaged = self.damaged or unread.reason == "damaged"
        self.last_line = max(self.last_line, unread.line)
        self.tell(unread)


def _with_meta(
    passages: Iterator[Passage], about: Iterator[tuple[int, bytes]], told: _Told, meta: str
) -> Iterator[Passage]:
    """Each passage with its line of the meta file as its document; a damaged shard ends the meta file too."""
    last = 0
    for passage in passages:
        last = passage.line
        line = next((line for number, line in about if number == last), None)
        if line is None:
            raise _not_as_long(meta, f"has no line {last}")
        yield replace(passage, document=_text(line))
    last = max(last, told.last_line)
    if not told.damaged and (more := next((number for number, _ in about if number > last), 0)):
        raise _not_as_long(meta, f"has a line {more}, and the shard ends at {last}")


def _refuse(unread: Unread) -> None:
    raise ShardError(f"The meta file cannot be read: {unread.reason} at line {unread.line}, {unread.detail}.")


def _not_as_long(meta: str, found: str) -> ShardError:
    return ShardError(
        f"{meta} {found}.",
        expected="as many lines as the shard has, line for line",
        cause="the meta file of another shard, or one of the two was cut or filtered alone",
        fix="make the two again together: from here on every sentence would be said to come from elsewhere",
    )


def _records(found: Iterator[tuple[int, bytes]], name: str, tell: Tell) -> Iterator[Passage]:
    for number, line in found:
        if not line or line.isspace():
            continue
        try:
            passage = passage_of(json.loads(_text(line)), number, name)
        except (ValueError, RecursionError) as problem:
            tell(Unread("malformed", number, len(line), f"{type(problem).__name__}: {problem}"))
            continue
        if passage is None:
            tell(Unread("malformed", number, len(line), "it has no text, raw_content or content"))
        else:
            yield passage


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
