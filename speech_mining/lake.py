"""The lake: partitions of files that are replaced whole, on any filesystem that fsspec reaches.

A partition is a folder that holds one immutable generation, named by the hash of its content, and a small file
`CURRENT` that names it. Publishing writes the generation first and swaps `CURRENT` last, which is one atomic write on
a disk and on an object store alike: a kill at any moment leaves the old partition or the new one. Since the name is a
hash, the same content has the same name on any machine, and doubles as the partition's data version.

What belongs here is files and hashes. What the files mean is in `speech_mining.records`; what passes between a disk and
an object store is in `object_store`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.atomic import sync
from speech_mining.errors import LakeError
from speech_mining.object_store import Cache, digest, read_text, send, sizes
from speech_mining.records import Schema, conform
from speech_mining.sources.disk import told_when_full
from speech_mining.writers import CLAIM, Claim, claimed, only_publisher, owned_name, sweep

if TYPE_CHECKING:  # 25 ms, of everything that imports a lake to name it
    from upath import UPath

CURRENT = "CURRENT"
MANIFEST = "partition.json"
STAGING = ".staging"
ASIDE = ".quarantine"
"""What was found damaged, moved away and kept to look at."""
GENERATION = re.compile(r"[0-9a-f]{32}")
"""What the name of a generation looks like: the first half of the sha256 of its manifest."""
FORMAT = 1
CACHE_BYTES = 20 * 2**30
_BARRED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True)
class NewPartition:
    """A folder being filled; nothing of it is seen until it is published."""

    folder: Path
    reused: dict[str, tuple[Partition, str]] = field(default_factory=dict)
    """Name → the file of a published partition that is taken over unread."""

    def reuse(self, earlier: Partition, name: str, new_name: str | None = None) -> None:
        """Take a file over from a published partition: linked on a disk, copied inside an object store.

        It is not read again: the hash its manifest tells is trusted (`Partition.damaged` reads).
        """
        if is_local(earlier.folder):
            _link(earlier.local_path(name), self.path(new_name or name))
        else:
            self.reused[new_name or name] = (earlier, name)

    def link(self, source: Path, name: str) -> None:
        """Put a file of this machine into the partition, without copying it where the disk allows."""
        _link(source, self.path(name))

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
    cache: Cache

    @property
    def data_version(self) -> str:
        """Hash of the content: equal on any machine for equal content."""
        return str(self.folder.name)

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Name → {"bytes", "sha256"} of every file, as written.

        Raises:
            LakeError: the manifest is gone, or a newer version of this project wrote it.
        """
        try:
            content = json.loads(read_text(self.folder / MANIFEST))
        except FileNotFoundError:
            raise LakeError(
                f"{self.layer} of {'/'.join(self.key)} has no {MANIFEST}.",
                expected=f"one in {self.folder}",
                cause="the partition was replaced while it was read, or files of the lake were removed by hand",
                fix="read it again; `s2s verify` tells what is missing",
            ) from None
        refuse_newer(content, f"{self.layer} of {'/'.join(self.key)}")
        files: dict[str, dict[str, Any]] = content["files"]
        return files

    def path(self, name: str) -> UPath:
        """A file of the partition.

        Raises:
            LakeError: there is no such file.
        """
        path, known = self.folder / name, self.files  # asked first: it refuses what a newer version wrote
        if not path.exists():
            raise LakeError(
                f"{self.layer} of {'/'.join(self.key)} has no file {name}.",
                expected=f"one of {sorted(known)}",
                cause="files of the lake were removed by hand, or the partition is of another version",
                fix="materialize the partition again",
            )
        return path

    def local_path(self, name: str) -> Path:
        """A file of the partition on this machine's disk; one in an object store is fetched to a cache."""
        path = self.path(name)
        if is_local(path):
            return Path(str(path))
        return self.cache.copy_of(path, self.data_version, name, self.files[name])

    def damaged(self) -> set[str]:
        """Names of files that are not what was written.

        On a disk every byte is read (about 1 GB/s); an object store keeps checksums of its own, and is asked for names
        and sizes only.
        """
        if is_local(self.folder):
            return {name for name, facts in self.files.items() if not _agrees(self.folder / name, facts)}
        there = sizes(self.folder)
        return {name for name, facts in self.files.items() if there.get(name) != facts["bytes"]}

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
        root: a path, or any URL that fsspec understands (`s3://bucket/prefix`; keys and the endpoint come from the
            environment, as for any tool of AWS).
        scratch: a folder of this machine for what passes between it and an object store; a disk needs none.
        cache_bytes: what copies of an object store's files may take there.
    """

    def __init__(
        self, root: str | Path | UPath, *, scratch: str | Path | None = None, cache_bytes: int = CACHE_BYTES
    ) -> None:
        from upath import UPath

        self.root = UPath(root)
        if is_local(self.root):
            self.root = UPath(Path(str(self.root)).absolute())
        else:  # other processes write too: what they publish must be seen at once
            self.root = UPath(root, use_listings_cache=False)
        self._scratch = Path(scratch) if scratch else Path(tempfile.gettempdir()) / f"s2s-lake-{os.getuid()}"
        self._cache = Cache(self._scratch / "copies", cache_bytes)

    @property
    def copies(self) -> Path:
        """Where copies of an object store's files are, on this machine; it may not be there yet."""
        return self._cache.folder

    @property
    def folder(self) -> Path | None:
        """Where the lake is on this machine's disks; None for an object store."""
        return Path(str(self.root)) if is_local(self.root) else None

    def find(self, layer: str, *key: str) -> Partition | None:
        """The partition, or None where it was never published."""
        folder = self._folder(layer, key)
        try:
            generation = read_text(folder / CURRENT).strip()
        except FileNotFoundError:
            return None
        return Partition(folder / generation, layer, key, self._cache)

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

        Raises:
            NoRoomError: a disk is full, while the block fills it or after; what was there before stays.
            LakeError: the storage may not be written.
        """
        told = f"The partition {'/'.join((layer, *key))}"
        with told_when_full(told):
            with _told_when_barred(told):
                staging = self._staging()
            try:
                new = NewPartition(staging)
                yield new
                with _told_when_barred(told):
                    self._publish(new, layer, key)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def remove(self, layer: str, *key: str) -> None:
        """Take a partition away; readers see it gone at once."""
        folder = self._folder(layer, key)
        with self._publishing(folder):
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
        area = self.staging_area
        area.mkdir(parents=True, exist_ok=True)
        sweep(area)
        staging = self._aside()
        staging.mkdir()
        return staging

    @property
    def staging_area(self) -> Path:
        """Where partitions are filled before they are published, on this machine; it may not be there yet."""
        return (Path(str(self.root)) if is_local(self.root) else self._scratch) / STAGING

    def _publish(self, new: NewPartition, layer: str, key: tuple[str, ...]) -> None:
        generation = _seal(new, layer, key)
        folder = self._folder(layer, key)
        published = Partition(folder / generation, layer, key, self._cache)
        with self._publishing(folder) as claim:
            if not _is_whole(published):
                self._move(new, published.folder)
            self._swap(folder / CURRENT, generation)
            if claim is None or self._stays(claim, new, published):
                self._remove_others(folder, generation)

    def _stays(self, claim: Claim, new: NewPartition, published: Partition) -> bool:
        """Look again at what was published to an object store; tells whether the rest of the partition may be removed.

        Another writer may have removed it as old at the moment at which it was found whole.
        """
        alone = claim.alone()
        if not alone:
            claim.step_back()
            claim.await_removers()
        current = self.find(published.layer, *published.key)
        ours = current is not None and current.data_version == published.data_version
        if ours and not _is_whole(Partition(published.folder, published.layer, published.key, self._cache)):
            self._move(new, published.folder)
        return alone and ours

    @contextmanager
    def _publishing(self, folder: UPath) -> Iterator[Claim | None]:
        """Change a partition as the only one: under a lock on a disk, by a claim in an object store."""
        if is_local(folder):
            with only_publisher(self.staging_area, str(folder)):
                yield None
        else:
            with claimed(folder) as claim:
                yield claim

    def tidy(self, layer: str, *key: str) -> None:
        """Remove what killed writers left of a partition, and their staging; publishing does it too."""
        folder = self._folder(layer, key)
        if self.find(layer, *key) is not None and self._others(folder):
            with self._publishing(folder) as claim:
                current = self.find(layer, *key)
                if current is not None and (claim is None or claim.alone()):
                    self._remove_others(folder, current.data_version)
        sweep(self.staging_area)

    def restore(self, layer: str, *key: str, generation: str) -> bool:
        """Make a whole generation current where no other is; tells whether that was so."""
        folder = self._folder(layer, key)
        with self._publishing(folder):
            current = self.find(layer, *key)
            if (current is not None and _is_whole(current)) or not _is_whole(
                Partition(folder / generation, layer, key, self._cache)
            ):
                return False
            self._swap(folder / CURRENT, generation)
        return True

    def set_aside(self, place: str, why: Mapping[str, Any], still: Callable[[], bool] = lambda: True) -> UPath | None:
        """Move a file or folder to the quarantine, with the reason beside it; a partition is seen gone at once.

        Args:
            place: path below the root; the file or the partition.
            why: what is told in `<n>.json`.
            still: asked when nobody else can change the partition any more; False leaves it where it is.

        Returns:
            Where it is now; None where it was left.
        """
        source, partition = self.root / place, self.root / _partition_of(place)
        with self._publishing(partition):
            if not still() or not source.exists():
                return None
            target = self._free_place(self.root / ASIDE / place)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(f"{target.name}.json").write_text(json.dumps(dict(why), indent=1, sort_keys=True), "utf-8")
            _move_away(source, target)
        return target

    def _free_place(self, folder: UPath) -> UPath:
        taken = {child.name for child in folder.iterdir()} if folder.exists() else set()
        return folder / str(next(number for number in count(1) if f"{number}.json" not in taken))

    def _others(self, folder: UPath) -> bool:
        return sum(1 for _ in folder.iterdir()) > 2

    def _remove_others(self, folder: UPath, generation: str) -> None:
        """Leave one generation in a partition."""
        for child in list(folder.iterdir()):
            if child.name not in {generation, CURRENT} and not child.name.startswith(CLAIM):
                self._remove_tree(child)

    def _move(self, new: NewPartition, destination: UPath) -> None:
        if not is_local(destination):  # over what is there: another writer of the same content may be sending it too
            _send_all(new, destination)
            return
        self._remove_tree(destination)
        final = Path(str(destination))
        final.parent.mkdir(parents=True, exist_ok=True)
        new.folder.rename(final)
        sync(final.parent)

    def _swap(self, pointer: UPath, generation: str) -> None:
        text = f"{generation}\n"
        if not is_local(pointer):
            pointer.write_text(text, "utf-8")
            return
        final = Path(str(pointer))
        part = self._aside()
        with part.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(final)
        sync(final.parent)

    def _remove_tree(self, path: UPath) -> None:
        """Take away a generation, or whatever else lies in a partition's folder.

        It must vanish at once, or lose its manifest first: one that a kill leaves half removed under its name would be
        taken for whole when the same content is published again.
        """
        if is_local(path):
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
        """A free name in the staging area."""
        return self.staging_area / owned_name()


@contextmanager
def _told_when_barred(what: str) -> Iterator[None]:
    """Turn storage that may not be written into an error that says so."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in _BARRED:
            raise
        raise LakeError(
            f"{what} may not be written: {problem.strerror}{f' ({problem.filename})' if problem.filename else ''}.",
            expected="storage that this user may write",
            cause="it is mounted read-only, or its files belong to another user",
            fix="mount it for writing, or run as the user that owns the lake",
        ) from problem


def is_local(path: UPath) -> bool:
    """Whether a path is on this machine's disks."""
    return path.protocol in {"", "file", "local"}


def _send_all(new: NewPartition, destination: UPath) -> None:
    """Fill a generation of an object store; the manifest goes last, since one without it is not whole."""
    for path in _names(new.folder):
        if path != MANIFEST:
            send(new.folder / path, destination / path)
    for name, (earlier, earlier_name) in sorted(new.reused.items()):
        send(earlier.path(earlier_name), destination / name)
    send(new.folder / MANIFEST, destination / MANIFEST)


def _is_whole(partition: Partition) -> bool:
    """Whether a generation holds what its name says: a damaged one must not outlive its being written again."""
    try:
        return not partition.damaged()
    except (OSError, ValueError, KeyError, LakeError):
        return False


def _partition_of(place: str) -> str:
    """The partition's folder of a path: what stands before a generation's name, or the path itself."""
    parts = place.split("/")
    inside = next((at for at, part in enumerate(parts) if GENERATION.fullmatch(part)), len(parts))
    return "/".join(parts[:inside])


def _move_away(source: UPath, target: UPath) -> None:
    if is_local(source):
        Path(str(source)).rename(str(target))
        return
    for name in sizes(source) or [""]:  # a folder's files, or the file itself
        if name != CURRENT and not name.startswith(CLAIM):
            source.fs.cp_file("/".join(filter(None, (source.path, name))), "/".join(filter(None, (target.path, name))))
    (source / CURRENT).unlink(missing_ok=True)
    source.fs.rm(source.path, recursive=True)


def refuse_newer(manifest: dict[str, Any], what: str) -> None:
    """Say so where a partition was written by a version of this project that is newer than this one.

    Raises:
        LakeError: it was.
    """
    written = manifest.get("format", FORMAT)
    if written > FORMAT:
        raise LakeError(
            f"{what} is written in format {written} of the lake.",
            expected=f"format {FORMAT} or an earlier one",
            cause="a newer version of this project wrote it",
            fix="read it with that version or a later one, or materialize it again with this one",
        )


def _agrees(path: UPath, facts: dict[str, Any]) -> bool:
    try:
        return bool(path.stat().st_size == facts["bytes"] and digest(path) == facts["sha256"])
    except OSError:
        return False


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # or a copy would be written into what it is linked with
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _seal(new: NewPartition, layer: str, key: tuple[str, ...]) -> str:
    """Write the manifest of a filled folder and return the name of its content."""
    files = {name: _facts(new.folder / name) for name in _names(new.folder)}
    files.update({name: earlier.files[earlier_name] for name, (earlier, earlier_name) in new.reused.items()})
    content = {"format": FORMAT, "layer": layer, "key": list(key), "files": files}
    text = json.dumps(content, indent=1, sort_keys=True)
    with (new.folder / MANIFEST).open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _facts(path: Path) -> dict[str, Any]:
    """Size and hash of a file, which is synced to disk on the way."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


__all__ = [
    "ASIDE",
    "CURRENT",
    "FORMAT",
    "GENERATION",
    "MANIFEST",
    "STAGING",
    "Lake",
    "NewPartition",
    "Partition",
    "is_local",
    "refuse_newer",
]
