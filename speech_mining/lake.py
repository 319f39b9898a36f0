"""The lake: partitions of files that are replaced whole, on any filesystem that fsspec reaches.

A partition is a folder that holds one immutable generation, named by the hash of its content, and a small file
`CURRENT` that names it. Publishing writes the generation first and swaps `CURRENT` last, which is one atomic write on
a disk and on an object store alike: a kill at any moment leaves the old partition or the new one. Since the name is a
hash, the same content has the same name on any machine, and doubles as the partition's data version.

What belongs here is files and hashes. What the files mean is in `speech_mining.records`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from upath import UPath

from speech_mining.errors import LakeError
from speech_mining.records import Schema, conform

CURRENT = "CURRENT"
MANIFEST = "partition.json"
STAGING = ".staging"
FORMAT = 1
ABANDONED_S = 3 * 24 * 3600
"""Staging that nobody has touched for so long belongs to a machine that is no more."""


@dataclass(frozen=True)
class NewPartition:
    """A folder being filled; nothing of it is seen until it is published."""

    folder: Path

    def path(self, name: str) -> Path:
        """Where the file `name` is to be written; folders on the way are made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_table(self, name: str, frame: pl.DataFrame, schema: Schema) -> None:
        """Write a table whose columns are exactly those of `schema`, as parquet."""
        self.write_frame(name, conform(frame, schema, name))

    def write_frame(self, name: str, frame: pl.DataFrame) -> None:
        """Write a table that has no fixed schema, as parquet."""
        frame.write_parquet(self.path(name), compression="zstd", statistics=True)

    def write_array(self, name: str, array: npt.NDArray[Any]) -> None:
        """Write an array as .npy, so that it can be mapped into memory."""
        np.save(self.path(name), array, allow_pickle=False)

    def write_json(self, name: str, content: object) -> None:
        """Write JSON with sorted keys, so that equal content has equal bytes."""
        self.path(name).write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False), "utf-8")


@dataclass(frozen=True)
class Partition:
    """The current generation of a partition, to read."""

    folder: UPath
    layer: str
    key: tuple[str, ...]

    @property
    def data_version(self) -> str:
        """Hash of the content: equal on any machine for equal content."""
        return str(self.folder.name)

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Name → {"bytes", "sha256"} of every file, as written."""
        content: dict[str, dict[str, Any]] = json.loads((self.folder / MANIFEST).read_text("utf-8"))["files"]
        return content

    def path(self, name: str) -> UPath:
        """A file of the partition.

        Raises:
            LakeError: there is no such file.
        """
        path = self.folder / name
        if not path.exists():
            raise LakeError(
                f"{self.layer} of {'/'.join(self.key)} has no file {name}.",
                expected=f"one of {sorted(self.files)}",
                cause="files of the lake were removed by hand, or the partition is of another version",
                fix="materialize the partition again",
            )
        return path

    def local_path(self, name: str) -> Path:
        """A file of the partition on this machine's disk; one in an object store is fetched to a cache."""
        path = self.path(name)
        if _is_local(path):
            return Path(str(path))
        cached = Path(tempfile.gettempdir()) / "s2s-lake-cache" / self.data_version / name
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            part = cached.with_name(f".{cached.name}.{uuid.uuid4().hex}")
            part.write_bytes(path.read_bytes())
            part.replace(cached)
        return cached

    def read_table(self, name: str, schema: Schema) -> pl.DataFrame:
        """Read a table and hold it against its schema."""
        return conform(self.read_frame(name), schema, f"{self.layer}/{name}")

    def read_frame(self, name: str) -> pl.DataFrame:
        """Read a table that has no fixed schema."""
        return pl.read_parquet(self.local_path(name))

    def read_array(self, name: str) -> npt.NDArray[Any]:
        """Map an array into memory, read-only."""
        return np.load(self.local_path(name), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    def read_json(self, name: str) -> Any:
        """Read a JSON file."""
        return json.loads(self.path(name).read_text("utf-8"))


class Lake:
    """All partitions of all layers below one folder or object-store prefix.

    Args:
        root: a path, or any URL that fsspec understands (`s3://bucket/prefix`).
    """

    def __init__(self, root: str | Path | UPath) -> None:
        self.root = UPath(root)
        if _is_local(self.root):
            self.root = UPath(Path(str(self.root)).absolute())

    def find(self, layer: str, *key: str) -> Partition | None:
        """The partition, or None where it was never published."""
        folder = self._folder(layer, key)
        try:
            generation = (folder / CURRENT).read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        return Partition(folder / generation, layer, key)

    def partition(self, layer: str, *key: str) -> Partition:
        """The partition.

        Raises:
            LakeError: it was never published.
        """
        found = self.find(layer, *key)
        if found is None:
            raise LakeError(
                f"{layer} of {'/'.join(key) or 'the lake'} is not there.",
                expected=f"a partition below {self._folder(layer, key)}",
                cause="the asset was not materialized for this partition, or in another home",
                fix=f"materialize {layer} first, or set S2S_HOME to the home that has it",
            )
        return found

    def keys(self, layer: str, *prefix: str) -> list[str]:
        """The last part of the key of every published partition of `layer` below `prefix`, sorted."""
        folder = self._folder(layer, prefix)
        if not folder.exists():
            return []
        return sorted(child.name for child in folder.iterdir() if (child / CURRENT).exists())

    def read_tables(self, layer: str, *prefix: str, name: str, schema: Schema) -> pl.DataFrame:
        """The table `name` of every published partition below `prefix`, one below the other."""
        keys = self.keys(layer, *prefix)
        tables = [self.partition(layer, *prefix, key).read_table(name, schema) for key in keys]
        return pl.concat([pl.DataFrame(schema=dict(schema)), *tables])

    @contextmanager
    def replace(self, layer: str, *key: str) -> Iterator[NewPartition]:
        """Fill a new generation of a partition; it is published when the block ends without an error.

        What was there before stays readable until then, and is removed after. Publishing content that is already
        current changes nothing on disk.
        """
        staging = self._staging()
        try:
            yield NewPartition(staging)
            self._publish(staging, layer, key)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def remove(self, layer: str, *key: str) -> None:
        """Take a partition away; readers see it gone at once."""
        folder = self._folder(layer, key)
        (folder / CURRENT).unlink(missing_ok=True)
        self._remove_tree(folder)

    def _folder(self, layer: str, key: tuple[str, ...]) -> UPath:
        for part in (layer, *key):
            if not part or part in {".", ".."} or any(letter in part for letter in "/\\:\0"):
                raise LakeError(
                    f"{part!r} cannot name a partition.",
                    expected="a name without slashes, colons or dots alone",
                    cause="an identifier from outside was used as it came",
                )
        return self.root.joinpath(layer, *key)

    def _staging(self) -> Path:
        """A folder to fill: inside the lake where it is local, so that publishing is a rename and not a copy."""
        if not _is_local(self.root):
            return Path(tempfile.mkdtemp(prefix="s2s-staging-"))
        area = Path(str(self.root)) / STAGING
        area.mkdir(parents=True, exist_ok=True)
        _sweep(area)
        staging = self._aside()
        staging.mkdir()
        return staging

    def _publish(self, staging: Path, layer: str, key: tuple[str, ...]) -> None:
        generation = _seal(staging, layer, key)
        folder = self._folder(layer, key)
        destination = folder / generation
        if not _is_whole(destination):
            self._remove_tree(destination)
            self._move(staging, destination)
        self._swap(folder / CURRENT, generation)
        for child in list(folder.iterdir()):
            if child.name not in {generation, CURRENT}:
                self._remove_tree(child)

    def _move(self, staging: Path, destination: UPath) -> None:
        if not _is_local(destination):
            # the manifest goes last: a generation without one is not whole, and is written again
            names = sorted((path for path in staging.rglob("*") if path.is_file()), key=lambda p: p.name == MANIFEST)
            for path in names:
                target = destination / path.relative_to(staging).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
            return
        final = Path(str(destination))
        final.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(final)
        _sync_folder(final.parent)

    def _swap(self, pointer: UPath, generation: str) -> None:
        text = f"{generation}\n"
        if not _is_local(pointer):
            pointer.write_text(text, "utf-8")
            return
        final = Path(str(pointer))
        part = self._aside()
        with part.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(final)
        _sync_folder(final.parent)

    def _remove_tree(self, path: UPath) -> None:
        """Take away a generation, or whatever else lies in a partition's folder.

        It must vanish at once, or lose its manifest first: one that a kill leaves half removed under its name would be
        taken for whole when the same content is published again.
        """
        if _is_local(path):
            local, aside = Path(str(path)), self._aside()
            try:
                local.rename(aside)
            except FileNotFoundError:
                return
            if aside.is_dir():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.unlink(missing_ok=True)
        elif path.exists():
            (path / MANIFEST).unlink(missing_ok=True)
            path.fs.rm(path.path, recursive=True)

    def _aside(self) -> Path:
        """A free name in the staging area of a local lake."""
        return Path(str(self.root)) / STAGING / f"{_owner(os.getpid())}{uuid.uuid4().hex}"


def _is_local(path: UPath) -> bool:
    return path.protocol in {"", "file", "local"}


def _is_whole(generation: UPath) -> bool:
    """Whether a generation holds what its name says: a damaged one must not outlive its being written again."""
    try:
        files = json.loads((generation / MANIFEST).read_text("utf-8"))["files"]
        return all(_digest(generation / name) == facts["sha256"] for name, facts in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _digest(path: Path | UPath) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _seal(staging: Path, layer: str, key: tuple[str, ...]) -> str:
    """Write the manifest of a filled folder and return the name of its content."""
    names = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
    files = {name: _facts(staging / name) for name in names}
    content = {"format": FORMAT, "layer": layer, "key": list(key), "files": files}
    text = json.dumps(content, indent=1, sort_keys=True)
    (staging / MANIFEST).write_text(text, "utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _facts(path: Path) -> dict[str, Any]:
    """Size and hash of a file, which is synced to disk on the way."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _owner(pid: int) -> str:
    """Prefix of what a process of this machine stages; on a shared volume a process id alone names nobody."""
    return f"{platform.node()}_{pid}_"


def _sweep(area: Path) -> None:
    """Remove what killed writers left: staging of processes of this machine that are gone, and anything days old."""
    for left in area.iterdir():
        host, _, rest = left.name.rpartition("_")[0].rpartition("_")
        dead = host == platform.node() and rest.isdigit() and not alive(int(rest))
        if dead or _age_s(left) > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
