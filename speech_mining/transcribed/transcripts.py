"""A folder of recordings with their transcripts, in one of three ways.

- a table, `metadata.csv` or `transcripts.tsv`, in the folder or in each of its splits' folders;
- LibriSpeech's `<speaker>-<chapter>.trans.txt`, a name and a text a line;
- `<name>.txt` beside each `<name>.<suffix>`.

Splits are the folders on the way that are named after one ("train-clean-100"), else all is train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from speech_mining.sources.foreign_text import shown
from speech_mining.transcribed.folder import Folder
from speech_mining.transcribed.languages import Wanted, require_language, settled
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
    seconds,
    span_name,
    split_named,
    split_of_folder,
)
from speech_mining.transcribed.tables import header_of, rows_of
from speech_mining.transcribed.texts_beside import clips_beside

TABLES = ("metadata.csv", "transcripts.tsv")
PATH = ("path", "file_name", "audio", "file")
TEXT = ("text", "transcription", "transcript", "sentence")
TRANSLATION = ("translation",)
LANGUAGE = ("language", "lang", "locale")
TRANSLATION_LANGUAGE = ("translation_language", "tgt_lang")
SPEAKER = ("speaker", "speaker_id", "client_id")
START = ("start", "start_s")
END = ("end", "end_s")


def seen(folder: Path) -> str:
    """The table that lists clips; empty where there is none."""
    return next((str(path.relative_to(folder)) for path in _tables(folder)), "")


def read(folder: Path, wanted: Wanted) -> Reading:
    """Clips of the tables, else of the transcripts.

    Raises:
        TranscribedSpeechError: a table lacks columns, or a language is not told.
    """
    tables = _tables(folder)
    inside = Folder(folder)
    if not tables:
        if not wanted.language:
            raise require_language(str(folder), "language in metadata.csv")
        return Reading(_in_order_of_splits(clips_beside(inside, wanted.language)))
    if len({table.parent for table in tables}) < len(tables):
        raise TranscribedSpeechError(
            f"{folder} holds {' and '.join(table.name for table in tables[:2])}.",
            expected="one table that lists the clips",
            fix="take the other away",
        )
    for table in tables:
        _require(table, wanted)
    clips = (
        listed
        for table in tables
        for listed in listed_rows(
            rows_of(table, inside.shown(inside.root / table.relative_to(folder))),
            lambda row: row.first(*PATH),
            _clip_of(inside, table.relative_to(folder).parent, wanted),
        )
    )
    return Reading(_in_order_of_splits(clips))


def _tables(folder: Path) -> list[Path]:
    here = [folder / name for name in TABLES if (folder / name).is_file()]
    if here:
        return here
    splits = sorted(path for path in folder.iterdir() if path.is_dir() and split_named(path.name))
    return [path / name for path in splits for name in TABLES if (path / name).is_file()]


def _require(table: Path, wanted: Wanted) -> None:
    columns = set(header_of(table))
    if not (columns & set(PATH) and columns & {*TEXT, *TRANSLATION}):
        raise TranscribedSpeechError(
            f"{table} has columns {', '.join(sorted(columns)) or 'that cannot be read'}.",
            expected=f"one of {', '.join(PATH)}, and one of {', '.join((*TEXT, *TRANSLATION))}",
            cause="a table without a line of column names",
        )
    if not (wanted.language or columns & set(LANGUAGE)):
        raise require_language(str(table), "language")
    if columns & set(TRANSLATION) and not (wanted.translation_language or columns & set(TRANSLATION_LANGUAGE)):
        raise require_language(str(table), "translation_language", setting="translation_language")


def _in_order_of_splits(clips: Iterator[Listed]) -> Iterator[Listed]:
    """Train before dev before test, so that a clip listed twice keeps its name in train; rejections first."""
    held = list(clips)
    yield from (listed for listed in held if isinstance(listed, RejectedClip))
    for split in SPLITS:
        yield from (listed for listed in held if isinstance(listed, ListedClip) and listed.split == split)


def _clip_of(folder: Folder, below: Path, wanted: Wanted) -> Callable[[Row], ListedClip]:
    def clip_of(row: Row) -> ListedClip:
        name = row.first(*PATH)
        file = folder.file(name, below=str(below))
        translation = row.first(*TRANSLATION)
        into = settled(wanted.translation_language, row.first(*TRANSLATION_LANGUAGE)) if translation else ""
        start_s, end_s = seconds(row.first(*START)), seconds(row.first(*END))
        return ListedClip(
            row.source,
            row.line,
            span_name(name, start_s, end_s),
            _split_of(row.first("split"), below / name),
            settled(wanted.language, row.first(*LANGUAGE)),
            file,
            start_s=start_s,
            end_s=end_s,
            transcription=row.first(*TEXT),
            translation=translation,
            translation_language=into,
            speaker=row.first(*SPEAKER),
        )

    return clip_of


def _split_of(told: str, path: Path) -> str:
    if told:
        split = split_named(told)
        if split is None:
            raise UnusableClipError("not_in_a_split", f"its split is {shown(told)}")
        return split
    return split_of_folder(path.parent)
