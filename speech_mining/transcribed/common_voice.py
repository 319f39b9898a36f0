"""Common Voice: `train.tsv`, `dev.tsv`, `test.tsv` or `validated.tsv` beside `clips/`.

Columns of all releases since 2019 begin with or hold `client_id`, `path`, `sentence`; `locale` came with release 6. The
oldest name clips without `.mp3`. Quotes in sentences are bare.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speech_mining.transcribed.folder import Folder
from speech_mining.transcribed.languages import Wanted, require_language, settled
from speech_mining.transcribed.listing import (
    SPLITS,
    Listed,
    ListedClip,
    Reading,
    Row,
    TranscribedSpeechError,
    listed_rows,
)
from speech_mining.transcribed.tables import header_of, rows_of

COLUMNS = frozenset({"client_id", "path", "sentence"})
CLIPS = "clips"


def seen(folder: Path) -> str:
    """The table of Common Voice that lies in a folder; empty where none does."""
    names = (f"{split}.tsv" for split in (*SPLITS, "validated"))
    return next((name for name in names if (folder / name).is_file() and set(header_of(folder / name)) >= COLUMNS), "")


def read(folder: Path, wanted: Wanted) -> Reading:
    """Clips of the splits, or of `validated.tsv` as train where there are no splits.

    Raises:
        TranscribedSpeechError: there is no such table, or its language is not told.
    """
    tables = {split: folder / f"{split}.tsv" for split in SPLITS if (folder / f"{split}.tsv").is_file()}
    validated = folder / "validated.tsv"
    notes: tuple[str, ...] = ()
    if tables and validated.is_file():
        notes = ("validated.tsv is not read: train, dev and test are",)
    tables = tables or ({"train": validated} if validated.is_file() else {})
    if not tables:
        raise TranscribedSpeechError(
            f"{folder} holds no table of Common Voice.", expected="train.tsv, dev.tsv, test.tsv or validated.tsv"
        )
    for table in tables.values():
        _require_columns(table, wanted)
    return Reading(_clips(Folder(folder), tables, wanted), notes)


def clip_file(folder: Folder, row: Row) -> Path:
    """The file of a row's clip; a name without suffix is an MP3's.

    Raises:
        UnusableClipError: see `Folder.file`.
    """
    name = row.first("path")
    return folder.file(name if not name or Path(name).suffix else f"{name}.mp3", below=CLIPS)


def _clips(folder: Folder, tables: dict[str, Path], wanted: Wanted) -> Iterator[Listed]:
    for split, table in tables.items():

        def clip_of(row: Row, split: str = split) -> ListedClip:
            return ListedClip(
                row.source,
                row.line,
                row.first("path"),
                split,
                settled(wanted.language, row.first("locale"), overrides=True),
                clip_file(folder, row),
                transcription=row.first("sentence"),
                speaker=row.first("client_id"),
            )

        yield from listed_rows(rows_of(table, table.name), lambda row: row.first("path"), clip_of)


def _require_columns(table: Path, wanted: Wanted) -> None:
    columns = header_of(table)
    if not set(columns) >= COLUMNS:
        raise TranscribedSpeechError(
            f"{table} has columns {', '.join(columns) or 'that cannot be read'}.",
            expected="client_id, path and sentence among them",
            cause="it is no table of Common Voice",
        )
    if not wanted.language and "locale" not in columns:
        raise require_language(str(table), "locale")
