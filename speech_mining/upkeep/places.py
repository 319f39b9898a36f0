"""What lies in a lake, partition by partition, from one listing of its files.

What belongs here is names and sizes. No file is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from upath import UPath

from speech_mining.lake import CURRENT, GENERATION, STAGING, Lake, is_local
from speech_mining.object_store import sizes
from speech_mining.writers import CLAIM

Key = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """The folder of a partition, as it was found."""

    layer: str
    key: Key
    generations: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Name of each generation → its files → their bytes."""
    loose: Mapping[str, int] = field(default_factory=dict)
    """Files beside the generations → their bytes: `CURRENT`, and what does not belong there."""

    @property
    def path(self) -> str:
        """Below the root."""
        return "/".join((self.layer, *self.key))

    @property
    def has_current(self) -> bool:
        """Whether readers see a partition."""
        return CURRENT in self.loose

    @property
    def foreign(self) -> dict[str, int]:
        """Loose files that no writer of ours puts there."""
        return {name: size for name, size in self.loose.items() if name != CURRENT and not name.startswith(CLAIM)}

    @property
    def claims(self) -> list[str]:
        """Who says to be publishing it; in an object store only."""
        return [name.removeprefix(CLAIM) for name in self.loose if name.startswith(CLAIM)]


@dataclass(frozen=True)
class Found:
    """Everything below the root of a lake."""

    places: tuple[Place, ...]
    strays: Mapping[str, int]
    """Path → bytes of files that are no part of a partition."""
    aside: Mapping[str, int]
    """Path → bytes of what was put into quarantine."""

    def keys(self, layer: str) -> list[Key]:
        """Keys of the partitions of a layer that readers see."""
        return [place.key for place in self.places if place.layer == layer and place.has_current]


def look(lake: Lake) -> Found:
    """List a lake: one walk of a disk, one listing of an object store."""
    return arranged(listed(lake.root))


def look_again(lake: Lake, place: Place) -> Place:
    """A partition's folder as it is now."""
    files = {f"{place.path}/{name}": size for name, size in listed(lake.root / place.path).items()}
    return next((found for found in arranged(files).places if found.key == place.key), Place(place.layer, place.key))


def listed(root: UPath) -> dict[str, int]:
    """Path below a folder → bytes of every file in it, but for staging; nothing where there is no such folder."""
    return dict(_walked(Path(str(root)), "")) if is_local(root) else sizes(root)


def arranged(files: Mapping[str, int]) -> Found:
    """Sort the files of a lake by partition.

    A partition is the folder that holds `CURRENT`; where none is, the one above what is named like a generation.
    """
    holders = {path.rpartition("/")[0] for path in files if path.endswith(f"/{CURRENT}")}
    inside: dict[str, dict[str, int]] = {}
    strays: dict[str, int] = {}
    aside: dict[str, int] = {}
    for path, size in files.items():
        folder = _partition_folder(path, holders)
        if path.startswith("."):
            aside[path] = size
        elif folder is None:
            strays[path] = size
        else:
            inside.setdefault(folder, {})[path[len(folder) + 1 :]] = size
    return Found(tuple(_place(folder, inside[folder]) for folder in sorted(inside)), strays, aside)


def _partition_folder(path: str, holders: set[str]) -> str | None:
    parts = path.split("/")
    above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
    held = next((folder for folder in above if folder in holders), None)
    if held is not None:
        return held
    named = [at for at in range(1, len(parts) - 1) if GENERATION.fullmatch(parts[at])]
    return "/".join(parts[: named[-1]]) if named else None


def _place(folder: str, files: Mapping[str, int]) -> Place:
    layer, *key = folder.split("/")
    generations: dict[str, dict[str, int]] = {}
    loose: dict[str, int] = {}
    for path, size in files.items():
        first, slash, rest = path.partition("/")
        if slash and GENERATION.fullmatch(first):
            generations.setdefault(first, {})[rest] = size
        else:
            loose[path] = size
    return Place(layer, tuple(key), generations, loose)


def _walked(folder: Path, below: str) -> Iterator[tuple[str, int]]:
    """Files that come and go under the walk are what they were when they were seen, or not seen."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        path = f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if path != STAGING:
                yield from _walked(Path(entry.path), f"{path}/")
        else:
            try:
                yield path, entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
