"""CoVoST 2: translations of Common Voice's sentences, beside its `clips/`.

Either the tables that its `get_covost_splits.py` makes, `covost_v2.<source>_<target>.<split>.tsv` of `path sentence
translation client_id`; or what is downloaded, `covost_v2.<source>_<target>.tsv` of `path translation split`, which
Common Voice's `validated.tsv` completes. As that program does, the split `train_covost` belongs to train. Where the
translators wrote REMOVE, for want of a sentence to translate, there is a transcription and no translation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from speech_mining.sources.foreign_text import shown
from speech_mining.transcribed.common_voice import clip_file
from speech_mining.transcribed.directions import named_language, the_one_wanted
from speech_mining.transcribed.folder import Folder
from speech_mining.transcribed.languages import Wanted
from speech_mining.transcribed.listing import (
    SPLITS,
    Listed,
    ListedClip,
    Reading,
    RejectedClip,
    Row,
    TranscribedSpeechError,
    UnusableClipError,
    listed_rows,
)
from speech_mining.transcribed.tables import header_of, rows_of

_TABLE = re.compile(r"covost_v2\.(?P<source>[A-Za-z-]+)_(?P<target>[A-Za-z-]+)(?:\.(?P<split>train|dev|test))?\.tsv")
_MARK = re.compile(r"\bREMOVE\b")
_SPLIT_OF_RAW = {"train": "train", "train_covost": "train", "dev": "dev", "test": "test"}


@dataclass(frozen=True)
class _Pair:
    """A direction of translation, and its tables."""

    name: str
    language: str
    translation_language: str
    splits: dict[str, Path]
    raw: Path | None


def seen(folder: Path) -> str:
    """The first table of CoVoST 2 that lies in a folder; empty where none does."""
    return next((path.name for path in sorted(folder.glob("covost_v2.*.tsv")) if _TABLE.fullmatch(path.name)), "")


def read(folder: Path, wanted: Wanted) -> Reading:
    """Clips of one direction.

    Raises:
        TranscribedSpeechError: none, or several, and the languages wanted do not choose; or a table is missing.
    """
    pair = the_one_wanted(folder, _pairs(folder), wanted, nothing="no table of CoVoST 2")
    inside = Folder(folder)
    if pair.splits:
        notes = (f"{pair.raw.name} is not read: its splits are",) if pair.raw is not None else ()
        for table in pair.splits.values():
            _require(table, ("path", "sentence", "translation"))
        return Reading(_of_splits(inside, pair), notes)
    if pair.raw is None:
        raise TranscribedSpeechError(f"{folder} holds no table of {pair.name}.")
    _require(pair.raw, ("path", "translation", "split"))
    _require(folder / "validated.tsv", ("client_id", "path", "sentence"))
    return Reading(_of_raw(inside, pair, pair.raw))


def _pairs(folder: Path) -> list[_Pair]:
    found: dict[str, _Pair] = {}
    for path in sorted(folder.glob("covost_v2.*.tsv")):
        told = _TABLE.fullmatch(path.name)
        if told is None:
            continue
        name = f"{told['source']}_{told['target']}"
        pair = found.get(name) or _Pair(name, _code(path, told["source"]), _code(path, told["target"]), {}, None)
        if told["split"]:
            found[name] = _Pair(
                name, pair.language, pair.translation_language, {**pair.splits, told["split"]: path}, pair.raw
            )
        else:
            found[name] = _Pair(name, pair.language, pair.translation_language, pair.splits, path)
    return list(found.values())


def _code(path: Path, name: str) -> str:
    return named_language(path, name, example="covost_v2.fr_en.tsv")


def _of_splits(folder: Folder, pair: _Pair) -> Iterator[Listed]:
    for split in SPLITS:
        table = pair.splits.get(split)
        if table is not None:
            yield from listed_rows(rows_of(table, table.name), _name, _clip_of(folder, pair, split))


def _clip_of(folder: Folder, pair: _Pair, split: str) -> Callable[[Row], ListedClip]:
    def clip_of(row: Row) -> ListedClip:
        return ListedClip(
            row.source,
            row.line,
            _name(row),
            split,
            pair.language,
            clip_file(folder, row),
            transcription=row.first("sentence"),
            translation=_translation(row),
            translation_language=pair.translation_language,
            speaker=row.first("client_id"),
        )

    return clip_of


def _translation(row: Row) -> str:
    told = row.first("translation")
    return "" if _MARK.search(told) else told


def _of_raw(folder: Folder, pair: _Pair, table: Path) -> Iterator[Listed]:
    """Join with what Common Voice says, as CoVoST's own program does: by path, and only where both list it."""
    said: dict[str, tuple[str, str]] = {}
    for row in rows_of(folder.root / "validated.tsv", "validated.tsv"):
        if isinstance(row, Row):
            said[_name(row)] = (row.first("sentence"), row.first("client_id"))
        else:
            yield row
    for split in SPLITS:
        clip_of = _clip_of(folder, pair, split)

        def joined(row: Row, clip_of: Callable[[Row], ListedClip] = clip_of) -> ListedClip:
            told = said.get(_name(row))
            if told is None:
                raise UnusableClipError("not_listed", "validated.tsv of Common Voice does not have it")
            return clip_of(Row(row.source, row.line, {**row.cells, "sentence": told[0], "client_id": told[1]}))

        yield from listed_rows(_of_split(table, split), _name, joined)
    yield from listed_rows(_of_split(table, ""), _name, _in_no_split)


def _of_split(table: Path, split: str) -> Iterator[Row | RejectedClip]:
    """Rows of a split; broken lines are in none."""
    for row in rows_of(table, table.name):
        if (_SPLIT_OF_RAW.get(row.first("split"), "") if isinstance(row, Row) else "") == split:
            yield row


def _in_no_split(row: Row) -> ListedClip:
    raise UnusableClipError("not_in_a_split", f"its split is {shown(row.first('split'))}")


def _name(row: Row) -> str:
    return row.first("path")


def _require(table: Path, columns: tuple[str, ...]) -> None:
    if not table.is_file():
        raise TranscribedSpeechError(
            f"There is no {table}.",
            expected="Common Voice's tables and clips/ beside CoVoST's",
            fix="unpack CoVoST's archive into the folder of Common Voice's language",
        )
    found = header_of(table)
    if not set(found) >= set(columns):
        raise TranscribedSpeechError(
            f"{table} has columns {', '.join(found) or 'that cannot be read'}.",
            expected=f"{', '.join(columns)} among them",
        )
