"""Known pairs from a file: of rows, by number or by the rows' words; or of words and their translations.

What belongs here is reading them. What is done with them is in `alignment`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speech_mining.align.refinement import Pairing
from speech_mining.errors import SettingsError

LONGEST_NUMBER = 19
"""Digits of an int64."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """What a file holds of these rows."""

    pairs: Pairing
    skipped: int
    """Lines with a word that has no row."""


def read_dictionary(path: Path, words: tuple[Path, Path] | None = None) -> Dictionary:
    """Read pairs, one a line, with a tab or spaces between: as MUSE's dictionaries are.

    Args:
        path: lines of `source row<TAB>target row`, counted from 0; or of words.
        words: of words, the files that name the rows of the source and of the target, one word a line.

    Raises:
        SettingsError: no such file, a line that is not a pair, a word with two rows, or no pair at all.
    """
    lines = _pairs(path)
    found = _by_number(lines, path) if words is None else _by_word(lines, words)
    if not found:
        raise SettingsError(
            f"{path} pairs no rows; it has {len(lines)} lines.",
            cause="" if words is None else "its words are spelled otherwise, or the two word files are exchanged",
        )
    rows = np.array(found, np.int64)
    return Dictionary(Pairing(rows[:, 0].copy(), rows[:, 1].copy()), len(lines) - len(found))


def read_translations(path: Path) -> dict[str, set[str]]:
    """Every word of a dictionary with all its translations, in lower case; with tabs either may be several words.

    Raises:
        SettingsError: no such file, or a line that is not a pair.
    """
    found: dict[str, set[str]] = {}
    for word, translation in _pairs(path).values():
        found.setdefault(word.lower(), set()).add(translation.lower())
    return found


def _pairs(path: Path) -> dict[int, tuple[str, str]]:
    """Both values of each line that is not empty, by the line's number from 1."""
    pairs = {}
    for number, line in enumerate(_lines(path), 1):
        values = [value.strip() for value in line.split("\t" if "\t" in line.strip() else None)]
        if any(values) and (len(values) != 2 or not all(values)):
            raise SettingsError(
                f"Line {number} of {path} has {len(values)} values.",
                expected="two: source and target, with a tab or a space between",
            )
        if any(values):
            pairs[number] = (values[0], values[1])
    return pairs


def _by_word(lines: dict[int, tuple[str, str]], words: tuple[Path, Path]) -> list[tuple[int, int]]:
    source, target = (_rows_of(file) for file in words)
    return [(source[one], target[other]) for one, other in lines.values() if one in source and other in target]


def _by_number(lines: dict[int, tuple[str, str]], path: Path) -> list[tuple[int, int]]:
    for number, line in lines.items():
        if not all(value.isascii() and value.isdigit() and len(value) < LONGEST_NUMBER for value in line):
            raise SettingsError(
                f"Line {number} of {path} is {' '.join(line)!r}.",
                expected="two row numbers, counted from 0",
                cause="it is a dictionary of words",
                fix="name the rows with --source-words and --target-words",
            )
    return [(int(one), int(other)) for one, other in lines.values()]


def _rows_of(path: Path) -> dict[str, int]:
    """The row of each word; an empty line is a row without one."""
    rows: dict[str, int] = {}
    for row, line in enumerate(_lines(path)):
        word = line.strip()
        if not word:
            continue
        if rows.setdefault(word, row) != row:
            raise SettingsError(
                f"{path} names row {rows[word]} and row {row} {word!r}.",
                expected="one row a word",
                fix="average a word's rows, or keep the first",
            )
    return rows


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").removesuffix("\n").split("\n")  # words may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as text ({error}).") from error
