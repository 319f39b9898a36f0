"""All that is wrong with a lake, and the repairs.

What belongs here is the order: what lies where, each partition by itself on several threads, then what was made of
what. What Dagster remembers is compared by whoever has an instance (`resources.record`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

from speech_mining.lake import MANIFEST, Lake
from speech_mining.progress import Progress, silent
from speech_mining.upkeep.findings import Finding
from speech_mining.upkeep.lineage import Lineage
from speech_mining.upkeep.partitions import Look, inspect
from speech_mining.upkeep.places import Found, Key, Place, look, look_again
from speech_mining.writers import abandoned, sweep

UNREADABLE = frozenset({"no_current", "broken_current", "damaged", "newer_format", "other_columns"})


@dataclass(frozen=True)
class Wish:
    """What to verify.

    Args:
        layers: of the lake; empty for all.
        quick: names and sizes only, no bytes and no tables.
        threads: that read.
    """

    layers: frozenset[str] = frozenset()
    quick: bool = False
    threads: int = field(default_factory=lambda: min(8, 2 * (os.cpu_count() or 1)))

    def takes(self, layer: str) -> bool:
        """Whether a layer is asked for."""
        return not self.layers or layer in self.layers


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what is wrong with it."""

    findings: tuple[Finding, ...]
    partitions: int
    bytes_listed: int
    bytes_read: int
    read_s: float
    """Seconds that reading and hashing took."""


def verify(lake: Lake, wish: Wish | None = None, progress: Progress = silent) -> Verified:
    """Look at everything.

    Args:
        lake: on a disk or in an object store.
        wish: what of it.
        progress: told the bytes done, of those to do.
    """
    wish = wish or Wish()
    found = look(lake)
    chosen = [place for place in found.places if wish.takes(place.layer)]
    began = time.perf_counter()
    read, findings = _inspected(lake, chosen, wish, progress)
    read_s = time.perf_counter() - began
    readable = _readable(found, findings)
    findings += Lineage(lake, lambda layer: readable.get(layer, [])).behind(wish.layers)
    findings += [] if wish.layers else _left_over(lake, found)
    held = sum(_bytes(place) for place in chosen)
    return Verified(tuple(findings), len(chosen), held, read, read_s)


def repair(lake: Lake, finding: Finding) -> str:
    """Do what a finding's remedy says; returns what was done, empty where nothing was.

    Everything is looked at again first, as the only one who may change the partition: what was repaired or replaced
    since is left alone.
    """
    acts: dict[str, Callable[[Lake, Finding], str]] = {
        "tidy": _tidy,
        "sweep": _sweep,
        "restore": _restore,
        "set_aside": _set_aside,
    }
    act = acts.get(finding.act)
    return act(lake, finding) if act else ""


def _inspected(lake: Lake, places: Sequence[Place], wish: Wish, progress: Progress) -> tuple[int, list[Finding]]:
    total = sum(_bytes(place) for place in places) if not wish.quick else len(places)
    counter = _Counter(progress, total)
    sight = Look(wish.quick, counter.add if not wish.quick else lambda read: None)

    def one(place: Place) -> list[Finding]:
        wrong = inspect(lake, place, sight)
        if wrong:  # a run may have replaced it since it was listed
            wrong = inspect(lake, look_again(lake, place), Look(wish.quick))
        if wish.quick:
            counter.add(1)
        return wrong

    with ThreadPoolExecutor(wish.threads) as pool:
        findings = [finding for wrong in pool.map(one, places) for finding in wrong]
    return (0 if wish.quick else counter.done), findings


class _Counter:
    """Bytes done, counted by several threads."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._lock = progress, total, Lock()
        self.done = 0

    def add(self, read: int) -> None:
        with self._lock:
            self.done += read
            self._progress(self.done, self._total)


def _readable(found: Found, findings: Sequence[Finding]) -> dict[str, list[Key]]:
    """Layer → keys of partitions that can be compared: those that are damaged cannot."""
    broken = {(finding.layer, finding.key) for finding in findings if finding.kind in UNREADABLE}
    keys: dict[str, list[Key]] = {}
    for place in found.places:
        if place.has_current and (place.layer, place.key) not in broken:
            keys.setdefault(place.layer, []).append(place.key)
    return keys


def _left_over(lake: Lake, found: Found) -> list[Finding]:
    """What is no part of any partition."""
    area = lake.staging_area
    staged = [
        Finding(
            "staging",
            "",
            (),
            f"{left.name} in {area}",
            "takes room; its writer was killed",
            "removed",
            "sweep",
            left.name,
        )
        for left in abandoned(area)
    ]
    return staged + [
        Finding(
            "stray",
            "",
            (),
            f"{path}, {size} bytes",
            "nothing reads it",
            "nothing: it is not of this project; remove it if it is not yours either",
        )
        for path, size in sorted(found.strays.items())
    ]


def _bytes(place: Place) -> int:
    """What the files of its generations take, but for their manifests."""
    sizes = (files for files in place.generations.values())
    return sum(size for files in sizes for name, size in files.items() if name != MANIFEST)


def _tidy(lake: Lake, finding: Finding) -> str:
    lake.tidy(finding.layer, *finding.key)
    return "removed"


def _sweep(lake: Lake, finding: Finding) -> str:
    sweep(lake.staging_area)
    return "removed"


def _restore(lake: Lake, finding: Finding) -> str:
    done = lake.restore(finding.layer, *finding.key, generation=finding.target)
    return f"CURRENT names {finding.target} again" if done else ""


def _set_aside(lake: Lake, finding: Finding) -> str:
    place = Place(finding.layer, finding.key)

    def still() -> bool:
        now = inspect(lake, look_again(lake, place))
        return any((each.kind, each.target) == (finding.kind, finding.target) for each in now)

    where = lake.set_aside(finding.target, finding.as_dict(), still)
    return f"moved to {where}" if where is not None else ""
