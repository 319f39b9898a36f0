"""Which source lies at a path: told by what is there, never by a guess between two.

What each of them means is in `recordings_folder`, `manifest` and `stopes_shards`.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl

from speech_mining.errors import CatalogueError, SettingsError
from speech_mining.sources import manifest, stopes_shards
from speech_mining.sources.addresses import AllowedHosts
from speech_mining.sources.lines import first_line
from speech_mining.sources.manifest import Manifest
from speech_mining.sources.protocol import Source
from speech_mining.sources.recording_file import SUFFIXES
from speech_mining.sources.recordings_folder import RecordingsFolder
from speech_mining.sources.stopes_shards import StopesShards, Unit

_SHAPES = (
    "<language>/<book>/<recording>.mp3 (flac, ogg, opus, m4a, wav); a manifest .tsv, .csv or .parquet with the "
    "columns url, language, book; or <language>/<shard>.tsv with lines `audio start end batch_no`"
)


def open_local(address: Path, hosts: AllowedHosts) -> Source:
    """The source at a path; `?unit=ms` or `?unit=frames` may follow the path of shards.

    Raises:
        CatalogueError: nothing is there, or none of the known shapes, or two at once.
        SettingsError: what follows the path is not understood.
    """
    path, unit = _split(address)
    if not path.exists():
        raise CatalogueError(
            f"There is nothing at {path}.",
            expected="a folder or a file",
            cause="a path that is relative to another folder, or a disk that is not mounted",
            fix="give the whole path",
        )
    source = _of_folder(path, unit) if path.is_dir() else _of_file(path, hosts, unit)
    if unit is not None and not isinstance(source, StopesShards):
        raise SettingsError(
            f"{path} holds no shards, and a unit was given.",
            expected="?unit=… only after the path of shards",
            fix="leave it out: a manifest's start and end are seconds",
        )
    return source


def _split(address: Path) -> tuple[Path, Unit | None]:
    path, asked, query = str(address).rpartition("?")
    if not asked or address.exists():
        return address, None
    if dict(parse_qsl(query)).keys() != {"unit"} or (unit := dict(parse_qsl(query))["unit"]) not in ("ms", "frames"):
        raise SettingsError(
            f"{query!r} follows the path {path}.", expected="?unit=ms or ?unit=frames", fix="correct the address"
        )
    return Path(path), cast(Unit, unit)


def _of_folder(root: Path, unit: Unit | None) -> Source:
    languages = sorted(path for path in _children(root) if path.is_dir())
    shards = [path for language in languages for path in _children(language) if stopes_shards.is_shard_name(path)]
    books = [path for language in languages for path in _children(language) if path.is_dir() and _has_audio(path)]
    if shards and books:
        raise _unclear(root, f"both recordings ({books[0]}) and shards ({shards[0]})", "keep them in two folders")
    if shards:
        return StopesShards(root, tuple(sorted(shards)), unit)
    if books:
        return RecordingsFolder(root)
    seen = ", ".join(sorted(path.name for path in _children(root))[:8]) or "nothing"
    raise _unclear(root, f"neither recordings nor shards two levels down; in it: {seen!a}", "look at the layout")


def _of_file(path: Path, hosts: AllowedHosts, unit: Unit | None) -> Source:
    line = "" if path.suffix.lower() == ".parquet" else first_line(path)
    if path.suffix.lower() == ".parquet" or manifest.is_header(line, path):
        return Manifest(path, hosts)
    if stopes_shards.is_shard_name(path) and stopes_shards.is_shard_line(line):
        return StopesShards(path.absolute().parent.parent, (path.absolute(),), unit)
    raise _unclear(path, f"no manifest and no shard; its first line is {line[:80]!a}", "look at the file")


def _children(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []


def _has_audio(book: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in _children(book))


def _unclear(path: Path, met: str, fix: str) -> CatalogueError:
    return CatalogueError(f"{path} holds {met}.", expected=_SHAPES, fix=fix)
