"""Hugging Face datasets as parquet: `train-00000-of-00002.parquet` in the folder, in `data/`, or in a split's folder.

The column `audio` is a struct of `bytes` and `path`; where a row has no bytes, its path names a file of the folder.
Rows are read a few dozen at a time, so that memory holds them and not the row group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speech_mining.audio.decode import Held
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
    readable,
    split_named,
    split_of_folder,
)
from speech_mining.transcribed.places import MOST_BYTES, row_place

AUDIO = "audio"
TEXT = ("sentence", "text", "transcription", "transcript")
TRANSLATION = ("translation",)
LANGUAGE = ("language", "locale", "lang")
TRANSLATION_LANGUAGE = ("translation_language", "tgt_lang")
SPEAKER = ("speaker_id", "client_id", "speaker")
_TOLD = (*TEXT, *TRANSLATION, *LANGUAGE, *TRANSLATION_LANGUAGE, *SPEAKER)
_SHARD = re.compile(r"(?P<name>.+?)-[0-9]{5}-of-[0-9]{5}(-[0-9a-f]+)?")
_DEEPEST = 3
_BUFFER_BYTES = 1 << 20
BATCH_ROWS = 16
"""Of Common Voice 0.6 MB, of half a minute of 16 kHz PCM 15 MB."""


def seen(folder: Path) -> str:
    """The first parquet with audio; empty where there is none."""
    inside = Folder(folder)
    found = (path for path in inside.files(deepest=_DEEPEST) if isinstance(path, Path) and path.suffix == ".parquet")
    return next((inside.shown(path) for path in found if inside.holds(path) and _has_audio(path)), "")


def read(folder: Path, wanted: Wanted) -> Reading:
    """Clips of all shards, by split.

    Raises:
        TranscribedSpeechError: shards of several configurations, none with audio, or a language is not told.
    """
    inside = Folder(folder)
    shards, rejected, other = _shards(inside)
    _require_one(inside, [path for _, path in shards])
    for _, path in shards:
        if _has_audio(path):
            _require_columns(path, wanted)
    notes = (f"not read, for their names are no split's: {', '.join(other)}",) if other else ()
    return Reading(_clips(inside, shards, rejected, wanted), notes)


def _shards(folder: Folder) -> tuple[list[tuple[str, Path]], list[RejectedClip], list[str]]:
    """Split and path of every shard, in order; links that lead out; and names of what is in no split."""
    shards: list[tuple[str, Path]] = []
    rejected: list[RejectedClip] = []
    other: list[str] = []
    for path in folder.files(deepest=_DEEPEST):
        if isinstance(path, RejectedClip):
            rejected.append(path)
        elif path.suffix == ".parquet":
            split = _split_of(folder, path)
            if not folder.holds(path):
                detail = "a link that leads out; download the set into a folder of its own, not into the hub's cache"
                rejected.append(RejectedClip(folder.shown(path), None, "", "outside", detail))
            elif split is None:
                other.append(folder.shown(path))
            else:
                shards.append((split, path))
    return sorted(shards, key=lambda shard: (SPLITS.index(shard[0]), shard[1])), rejected, other


def _split_of(folder: Folder, path: Path) -> str | None:
    named = split_named(path.stem)
    if named:
        return named
    return None if _SHARD.fullmatch(path.stem) else split_of_folder(path.parent.relative_to(folder.root))


def _require_one(folder: Folder, paths: list[Path]) -> None:
    """A set of several languages has a folder for each: which one is meant must be said."""
    configurations = sorted({_configuration(folder, path) for path in paths})
    if len(configurations) > 1:
        raise TranscribedSpeechError(
            f"{folder.root} holds several configurations: {', '.join(name or '.' for name in configurations)}.",
            expected="the shards of one",
            fix="give the folder of one as the address",
        )
    if not any(_has_audio(path) for path in paths):
        raise TranscribedSpeechError(
            f"{folder.root} holds no parquet with audio.",
            expected="shards named after a split, with a column audio of bytes and path",
        )


def _configuration(folder: Folder, path: Path) -> str:
    parts = path.parent.relative_to(folder.root).parts
    return "/".join(part for part in parts if part != "data" and split_named(part) is None)


def _has_audio(path: Path) -> bool:
    import pyarrow as pa

    schema = _schema(path)
    kind = schema.field(AUDIO).type if schema is not None and AUDIO in schema.names else None
    return kind is not None and pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes", "path"}


def _schema(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return None


def _require_columns(path: Path, wanted: Wanted) -> None:
    columns = set(_texts_of(path))
    if not columns & {*TEXT, *TRANSLATION}:
        raise TranscribedSpeechError(
            f"{path} has texts {', '.join(sorted(columns)) or 'of no kind we know'}.",
            expected=f"a column of text named {', '.join((*TEXT, *TRANSLATION))}",
        )
    if not (wanted.language or columns & set(LANGUAGE)):
        raise require_language(str(path), " or ".join(LANGUAGE))
    if columns & set(TRANSLATION) and not (wanted.translation_language or columns & set(TRANSLATION_LANGUAGE)):
        raise require_language(str(path), "translation_language", setting="translation_language")


def _texts_of(path: Path) -> list[str]:
    """Columns we know that hold text, or numbers that may name a speaker."""
    import pyarrow as pa

    schema = _schema(path)
    told = [schema.field(name) for name in _TOLD if name in schema.names]
    return [
        field.name
        for field in told
        if pa.types.is_string(field.type)
        or pa.types.is_large_string(field.type)
        or (pa.types.is_integer(field.type) and field.name in SPEAKER)
    ]


def _clips(
    folder: Folder, shards: list[tuple[str, Path]], rejected: list[RejectedClip], wanted: Wanted
) -> Iterator[Listed]:
    import pyarrow as pa

    yield from rejected
    for split, path in shards:
        if not _has_audio(path):
            detail = "it has no column audio of bytes and path, or is no parquet"
            yield RejectedClip(folder.shown(path), None, "", "malformed", detail)
            continue
        try:
            yield from _of_shard(folder, path, split, wanted)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as problem:
            detail = f"its rows cannot be read ({type(problem).__name__})"
            yield RejectedClip(folder.shown(path), None, "", "malformed", detail)


def _of_shard(folder: Folder, path: Path, split: str, wanted: Wanted) -> Iterator[Listed]:
    row = 0
    with opened(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=[AUDIO, *_texts_of(path)], use_threads=False):
            for cells in batch.to_pylist():
                yield _listed(folder, path, row, split, cells, wanted)
                row += 1


def opened(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile` that reads by pages, at the memory of two of them and a batch.

    Measured on a row group of 256 MB: 52 MB where pages hold 5 MB, 300 MB with pyarrow's own settings. Writers that put
    a row group into one page cost twice the row group.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)


def sounds_of(path: Path) -> Iterator[bytes | None]:
    """The audio of every row in turn, in one pass; None where a row has none.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    with opened(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=[f"{AUDIO}.bytes"], use_threads=False):
            yield from batch.column(0).field("bytes").to_pylist()


def _listed(folder: Folder, path: Path, row: int, split: str, cells: dict[str, Any], wanted: Wanted) -> Listed:
    source = folder.shown(path)
    audio = cells[AUDIO] or {}
    name = readable(audio.get("path") or f"{path.stem}:{row}")
    told = Row(
        source, row, {column: str(cell) for column, cell in cells.items() if column != AUDIO and cell is not None}
    )
    try:
        translation = told.first(*TRANSLATION)
        into = settled(wanted.translation_language, told.first(*TRANSLATION_LANGUAGE)) if translation else ""
        file, place, held = _audio(folder, path, row, audio)
        return ListedClip(
            source,
            row,
            name,
            split,
            settled(wanted.language, told.first(*LANGUAGE)),
            file,
            place,
            transcription=told.first(*TEXT),
            translation=translation,
            translation_language=into,
            speaker=told.first(*SPEAKER),
            held=held,
        )
    except UnusableClipError as unusable:
        return RejectedClip(source, row, name, unusable.reason, unusable.detail)


def _audio(folder: Folder, path: Path, row: int, audio: dict[str, Any]) -> tuple[Path, str, Held | None]:
    content = audio.get("bytes")
    if content is None:
        if not audio.get("path"):
            raise UnusableClipError("missing_clip", "its audio has neither bytes nor path")
        return folder.file(audio["path"]), "", None
    if len(content) > MOST_BYTES:
        raise UnusableClipError("too_large", f"{len(content)} bytes, at most {MOST_BYTES} are read")
    return path, row_place(row), Held(f"{path}:{row}", content)
