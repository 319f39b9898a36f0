"""Lines of a text file that may be packed: plain, gzip (`.gz`) or Zstandard (`.zst`)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

from speech_mining.errors import CatalogueError

_FIRST_BYTES = 65_536


def read_text(path: Path) -> str:
    """The whole file as UTF-8, without a byte order mark; bytes that are none become surrogates.

    Raises:
        CatalogueError: it cannot be read or unpacked.
    """
    return _text(_read(path, None))


def first_line(path: Path) -> str:
    """The first line that is not blank, of those within the first 64 KiB.

    Raises:
        CatalogueError: it cannot be read or unpacked.
    """
    lines = lines_of(_text(_read(path, _FIRST_BYTES)))
    return next((line for line in lines if line.strip()), "")


def lines_of(text: str) -> list[str]:
    """Lines by line feed, with or without a carriage return; other breaks of Unicode are part of a line."""
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _read(path: Path, most_bytes: int | None) -> bytes:
    try:
        with _opened(path) as stream:
            return stream.read(most_bytes)  # type: ignore[no-any-return]
    except (OSError, EOFError, ValueError, zlib.error) as problem:  # ValueError: pyarrow's, of what is not Zstandard
        raise CatalogueError(
            f"{path} cannot be read ({type(problem).__name__}: {problem}).",
            expected="text, plain or packed as its suffix says (.gz, .zst)",
            cause="a file that is damaged, cut short, not ours to read, or packed otherwise",
            fix="look at the file",
        ) from None


def _opened(path: Path) -> Any:
    """A binary stream; pyarrow's is one in all but type."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")
    if suffix == ".zst":
        import pyarrow as pa

        return pa.input_stream(str(path), compression="zstd")
    return path.open("rb")


def _text(content: bytes) -> str:
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
