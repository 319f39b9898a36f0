"""Tables that list clips: tab-separated ones, whose quotes mean nothing, and comma-separated ones, where they do.

Lines are read one by one at flat memory. A line that is broken costs that line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from speech_mining.sources.foreign_text import shown
from speech_mining.transcribed.listing import RejectedClip, Row, TranscribedSpeechError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# pandas, with quoting off, writes a backslash before quotes, tabs and backslashes: CoVoST 2 and fairseq do.
_ESCAPED = re.compile(r"\\([\"\\\t])")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_MOST_LINES = 50
"""Of one comma-separated record; a quote that is never closed would swallow the rest of the table."""


def header_of(path: Path) -> tuple[str, ...]:
    """Columns of a table by its suffix, `.csv` or else tab-separated; none where the first line is no text.

    Raises:
        TranscribedSpeechError: the file may not be read.
    """
    for _, text in _lines(path):
        if text is None:
            return ()
        return tuple(_one_record(text) or ()) if _is_csv(path) else tuple(text.split("\t"))
    return ()


def rows_of(path: Path, source: str) -> Iterator[Row | RejectedClip]:
    """Rows of a table, by its suffix.

    Raises:
        TranscribedSpeechError: the file may not be read.
    """
    return _comma_separated(path, source) if _is_csv(path) else _tab_separated(path, source)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Number and text of each line that is not blank, without its end; None for what is not UTF-8."""
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, start=1):
                bare = content.removeprefix(_BYTE_ORDER_MARK) if number == 1 else content
                bare = bare.removesuffix(b"\n").removesuffix(b"\r")
                if bare.strip():
                    yield number, _decoded(bare)
    except OSError as problem:
        raise TranscribedSpeechError(
            f"{path} cannot be read: {problem.strerror}.", expected="a table that this user may read"
        ) from problem


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _tab_separated(path: Path, source: str) -> Iterator[Row | RejectedClip]:
    header = header_of(path)
    lines = _lines(path)
    next(lines, None)
    for number, text in lines:
        cells = None if text is None else _cells(text, len(header))
        if cells is None:
            yield _broken(source, number, text, header)
        else:
            yield Row(source, number, dict(zip(header, cells, strict=True)))


def _cells(text: str, columns: int) -> list[str] | None:
    if "\0" in text:
        return None
    cells = text.split("\t")
    if len(cells) > columns and "\\\t" in text:
        hidden = _ESCAPE.sub(lambda escape: "\0" if escape[1] == "\t" else escape[0], text)
        cells = [cell.replace("\0", "\\\t") for cell in hidden.split("\t")]
    return [_bare(cell) for cell in cells] if len(cells) == columns else None


def _bare(cell: str) -> str:
    """A cell without the escapes of its writer."""
    if '"' not in cell and "\\" not in cell:
        return cell
    if cell.startswith('"') and cell.endswith('"') and '""' in cell[1:-1] and _is_quoted(cell[1:-1]):
        cell = cell[1:-1].replace('""', '"')
    return _ESCAPED.sub(r"\1", cell)


def _is_quoted(inside: str) -> bool:
    """Whether every quote inside is doubled, so that nobody can have meant them otherwise."""
    return '"' not in inside.replace('""', "")


def _broken(source: str, number: int, text: str | None, header: tuple[str, ...]) -> RejectedClip:
    detail = "not UTF-8" if text is None else f"{text.count(chr(9)) + 1} cells where {len(header)} are expected"
    shown_line = "" if text is None else f": {shown(text[:60])}"
    return RejectedClip(source, number, "", "malformed", detail + shown_line)


def _comma_separated(path: Path, source: str) -> Iterator[Row | RejectedClip]:
    """A record may hold line feeds in quotes; where no end of it is found near by, its first line is the broken one."""
    header = header_of(path)
    lines = list(_lines(path))[1:]
    place = 0
    while place < len(lines):
        number, text = lines[place]
        cells, used = _record([line for _, line in lines[place : place + _MOST_LINES]], len(header))
        place += used
        if cells is None:
            detail = "not UTF-8" if text is None else f"not {len(header)} cells, or a quote is open: {shown(text[:60])}"
            yield RejectedClip(source, number, "", "malformed", detail)
        else:
            yield Row(source, number, dict(zip(header, cells, strict=True)))


def _record(lines: list[str | None], columns: int) -> tuple[list[str] | None, int]:
    """The cells of the record that begins with the first line, and how many lines it has; None where it is broken."""
    joined = ""
    for used, line in enumerate(lines, start=1):
        if line is None:
            break
        joined = line if used == 1 else f"{joined}\n{line}"
        cells = _one_record(joined)
        if cells is not None:
            return (cells, used) if len(cells) == columns else (None, 1)
        if used == 1 and line.count('"') % 2 == 0:
            break
    return None, 1


def _one_record(text: str) -> list[str] | None:
    try:
        records = list(csv.reader([text], strict=True))
    except csv.Error:  # a quote that is open, or in the middle; a cell of more than 128 KiB
        return None
    return records[0] if len(records) == 1 else None
