"""Bytes of a shard, wherever it lies and however it is packed: streamed, memory bounded, damage told from absence.

What belongs here knows addresses, compression and lines of bytes. What a line says is the business of `readers`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, TypeVar

from speech_mining.errors import SpeechMiningError
from speech_mining.progress import Progress

BUFFER_BYTES = 1 << 18
MOST_LINE_BYTES = 1 << 23
"""A line longer than this is skipped unread and counted: 8 MiB is ten novels in a row."""
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)
"""What is raised by bytes that are cut short or changed (pyarrow's errors are OSError and ValueError).

A broken connection is none of these, and never counted as damage: it is a `ShardError`.
"""
_TOLD_EVERY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
"""Of a damaged Zstandard file as much may be lost before the damage: pyarrow gives a piece whole or not at all."""
_GZIP, _ZSTD, _XZ, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


UnreadReason: TypeAlias = Literal[
    "too_long_line",  # longer than a reader may hold in memory
    "malformed",  # not JSON, no text among its keys, no text of a web page, a line with NUL bytes
    "damaged",  # the rest of the shard: it is cut short or changed
]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Unread:
    """Something of a shard that gives no passage."""

    reason: UnreadReason
    line: int  # line, record or row in the shard, from 1
    bytes: int  # 0: not known
    detail: str


Tell: TypeAlias = Callable[[Unread], None]


def tell_nobody(unread: Unread) -> None:
    """For a caller who does not count."""


class ShardError(SpeechMiningError):
    """A shard that cannot be opened, or is not what it was said to be. Damage inside one is counted instead."""


def file_system(address: str) -> tuple[Any, str]:
    """The filesystem of an address, and the path in it.

    Args:
        address: a path of this machine, or a URL that fsspec understands (`s3://…`, `https://…`, `zip://…::…`).

    Raises:
        ShardError: no filesystem has that scheme.
    """
    import fsspec

    local = "://" not in address
    try:
        system, path = fsspec.core.url_to_fs(str(Path(address).expanduser()) if local else address)
    except (ValueError, ImportError) as problem:
        raise ShardError(
            f"{address} cannot be opened: {problem}.", expected="a path, or a URL of a scheme that fsspec knows"
        ) from None
    return system, str(path)


@contextmanager
def raw_file(address: str) -> Iterator[IO[bytes]]:
    """The file as it lies, opened.

    Raises:
        ShardError: it is not there, or must not be read.
    """
    system, path = file_system(address)
    try:
        handle = system.open(path, "rb")
    except (OSError, ValueError) as problem:
        raise unreachable(address, problem) from problem
    with handle:
        yield handle


@contextmanager
def unpacked(address: str, read: Callable[[int], None]) -> Iterator[io.BufferedReader]:
    """The shard's bytes, unpacked as their first bytes say: gzip (of many members), Zstandard, xz, bzip2, or plain.

    Args:
        address: see `file_system`.
        read: told how many bytes of the packed file were read, each time.

    Raises:
        ShardError: now, or while it is read: the file cannot be reached, or is UTF-16. What `DAMAGE` holds is raised
            where the bytes are not what they should be.
    """
    with raw_file(address) as handle:
        packed = io.BufferedReader(_Source(handle, address, read), BUFFER_BYTES)
        yield io.BufferedReader(_Unpacked(_decompressed(packed, address)), BUFFER_BYTES)


def numbered_lines(
    stream: io.BufferedReader, tell: Tell, most_bytes: int = MOST_LINE_BYTES
) -> Iterator[tuple[int, bytes]]:
    """Lines by line feed, with or without a carriage return before it; other breaks are part of a line.

    A line longer than `most_bytes` is passed over piece by piece and told; so is the rest of a damaged stream, of
    which the line that is cut is no part of what is given.

    Yields:
        (number from 1, the line's bytes).
    """
    for number, (line, length) in enumerate(until_damage(_lines(stream, most_bytes), tell), 1):
        if line is None:
            tell(Unread("too_long_line", number, length, f"{length} bytes"))
        else:
            yield number, line


def until_damage(items: Iterable[Item], tell: Tell) -> Iterator[Item]:
    """What can be read before the shard's bytes stop making sense; from there on it is told as one `damaged`."""
    found = iter(items)
    count = 0
    while True:
        try:
            item = next(found)
        except StopIteration:
            return
        except DAMAGE as problem:
            tell(Unread("damaged", count + 1, 0, f"{type(problem).__name__}: {problem}"))
            return
        count += 1
        yield item


def unreachable(address: str, problem: BaseException) -> ShardError:
    """The error of a file that cannot be opened or read to its end, through no fault of its content."""
    return ShardError(
        f"{address} cannot be read ({type(problem).__name__}: {problem}).",
        expected="a file that this user may read",
        cause="it is not there, is not ours to read, or the connection broke",
        fix="look at the address, then run again",
    )


class ReadBytes:
    """Tells a `Progress` how much of a packed file was read, every MiB."""

    def __init__(self, address: str, progress: Progress) -> None:
        self._progress, self._done, self._told = progress, 0, 0
        self._total = size_of(address)

    def __call__(self, count: int) -> None:
        """So many bytes more."""
        self._done += count
        if self._done - self._told >= _TOLD_EVERY_BYTES:
            self._told = self._done
            self._progress(self._done, max(self._done, self._total))

    def reached(self, row: int, rows: int) -> None:
        """So far in a file whose parts are not read in order."""
        self(self._total * row // max(rows, 1) - self._done)

    def finish(self) -> None:
        """The file was read as far as it goes."""
        done = max(self._done, self._total)
        self._progress(done, done)


def size_of(address: str) -> int:
    """Bytes of the file; 0 where its server does not tell."""
    system, path = file_system(address)
    try:
        return int(system.info(path).get("size") or 0)
    except (OSError, ValueError) as problem:
        raise unreachable(address, problem) from problem


class _Source(io.RawIOBase):
    """The packed file: counts what is read, and tells a broken connection from a broken file."""

    def __init__(self, handle: IO[bytes], address: str, read: Callable[[int], None]) -> None:
        self._handle, self._address, self._read = handle, address, read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._handle.read(len(buffer))
        except Exception as problem:  # each filesystem has errors of its own
            raise unreachable(self._address, problem) from problem
        buffer[: len(found)] = found
        self._read(len(found))
        return len(found)


class _Unpacked(io.RawIOBase):
    """What was unpacked before the damage is given before the damage is raised, whatever the buffer asks for."""

    def __init__(self, stream: Any) -> None:
        self._read = getattr(stream, "read1", stream.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._read(min(len(buffer), _PIECE_BYTES))
        buffer[: len(found)] = found
        return len(found)


def _decompressed(packed: Any, address: str) -> Any:
    start = packed.peek(6)
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=packed)
    if start.startswith(_ZSTD):
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")
    if start.startswith(_XZ):
        return lzma.LZMAFile(packed)
    if start.startswith(_BZIP2):
        return bz2.BZ2File(packed)
    if start.startswith(_UTF16):
        raise ShardError(f"{address} is UTF-16.", expected="UTF-8", fix="iconv -f UTF-16 -t UTF-8")
    return packed


def _lines(stream: io.BufferedReader, most_bytes: int) -> Iterator[tuple[bytes | None, int]]:
    """(line, its bytes); None for one that is too long."""
    first = True
    while line := stream.readline(most_bytes + 2):
        if first:
            line, first = line.removeprefix(_BYTE_ORDER_MARK), False
        bare = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(bare) <= most_bytes:
            yield bare, len(bare)
        else:
            yield None, len(bare) + (0 if line.endswith(b"\n") else _rest_of_line(stream))


def _rest_of_line(stream: io.BufferedReader) -> int:
    passed = 0
    while piece := stream.readline(BUFFER_BYTES):
        if piece.endswith(b"\n"):
            return passed + len(piece) - 1
        passed += len(piece)
    return passed
