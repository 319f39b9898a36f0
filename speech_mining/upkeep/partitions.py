"""Whether a partition is what was written: its pointer, its manifest, its files, its tables.

What belongs here is one partition by itself. Whether it was made of what is there now is `lineage`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from speech_mining.errors import LakeError
from speech_mining.lake import CURRENT, FORMAT, GENERATION, MANIFEST, Lake
from speech_mining.object_store import digest, read_text
from speech_mining.upkeep.findings import Act, Finding, FindingKind
from speech_mining.upkeep.places import Place
from speech_mining.upkeep.tables import missing_columns
from speech_mining.writers import held_here

Counter = Callable[[int], None]
"""Told the bytes that were read."""
LOST = "readers fail, and what is made of it cannot be made again"


@dataclass(frozen=True)
class Look:
    """How closely to look."""

    quick: bool = False
    """Names and sizes only; nothing is read but manifests."""
    count: Counter = lambda read: None


def inspect(lake: Lake, place: Place, look: Look | None = None) -> list[Finding]:
    """Everything that is wrong with a partition by itself; nothing for one that is as it was written."""
    look = look or Look()
    if not place.has_current:
        return _without_current(lake, place, look)
    current = _current(lake, place)
    if current not in place.generations:
        return _broken(lake, place, current, look)
    wrong = _generation(lake, place, current, look)
    return [*wrong, *_left_over(place, current)]


def asset_of(layer: str, key: tuple[str, ...]) -> str:
    """How a person names what to materialize: `deu/segments of 47`, `s2s_pairs of deu-fra`."""
    if len(key) == 2:
        return f"{key[0]}/{layer} of {key[1]}"
    return f"{layer} of {key[0]}" if key else layer


def _current(lake: Lake, place: Place) -> str:
    try:
        return read_text(lake.root / place.path / CURRENT).strip()
    except (OSError, ValueError):
        return ""


def _without_current(lake: Lake, place: Place, look: Look) -> list[Finding]:
    if place.claims or not place.generations:
        return _left_over(place, "")
    return [_restorable(lake, place, "no_current", f"{len(place.generations)} generations and no {CURRENT}", look)]


def _broken(lake: Lake, place: Place, current: str, look: Look) -> list[Finding]:
    shown = current if GENERATION.fullmatch(current) else repr(current[:40])
    found = f"{CURRENT} names {shown}, and there is {', '.join(place.generations) or 'no generation'}"
    return [_restorable(lake, place, "broken_current", found, look)]


def _restorable(lake: Lake, place: Place, kind: FindingKind, found: str, look: Look) -> Finding:
    """CURRENT is written again where one whole generation is there; else nobody can tell which was meant."""
    whole = [name for name in place.generations if not _generation(lake, place, name, Look(count=look.count))]
    act: Act
    if len(whole) == 1:
        remedy, act, target = f"{CURRENT} is made to name {whole[0]}", "restore", whole[0]
    else:
        made = asset_of(place.layer, place.key)
        remedy, act, target = f"moved to the quarantine; then materialize {made}", "set_aside", place.path
    return Finding(kind, place.layer, place.key, found, "readers see no partition", remedy, act, target)


def _left_over(place: Place, current: str) -> list[Finding]:
    """What lies beside the current generation."""
    if any(held_here(claim, claim=True) is not False for claim in place.claims):
        return []  # somebody is writing it at this moment
    at = (place.layer, place.key)
    orphans = [
        Finding(
            "orphan",
            *at,
            f"generation {name}, {sum(files.values())} bytes",
            "takes room; a writer was killed before it could remove it",
            "removed",
            "tidy",
        )
        for name, files in place.generations.items()
        if name != current and current
    ]
    return orphans + [
        Finding(
            "foreign",
            *at,
            f"{name}, {size} bytes, beside the generations",
            "the next materialization removes it",
            "moved to the quarantine",
            "set_aside",
            f"{place.path}/{name}",
        )
        for name, size in place.foreign.items()
    ]


def _generation(lake: Lake, place: Place, name: str, look: Look) -> list[Finding]:
    folder = lake.root / place.path / name
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest = json.loads(text)
        files: Mapping[str, Mapping[str, Any]] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return [_damaged(place, f"{name} has no manifest that can be read")]
    if manifest.get("format", FORMAT) > FORMAT:
        return [_newer(place, manifest["format"])]
    if hashlib.sha256(text).hexdigest()[:32] != name:
        return [_damaged(place, f"the manifest of {name} is not the one that was written")]
    if [manifest["layer"], *manifest["key"]] != [place.layer, *place.key]:
        return [_damaged(place, f"{name} is of {manifest['layer']} {'/'.join(manifest['key'])}")]
    there = place.generations[name]
    bad = _bad_files(folder, files, there, look)
    if bad:
        return [_damaged(place, "; ".join(bad))]
    foreign = [_foreign(place, f"{name}/{file}") for file in sorted(set(there) - set(files) - {MANIFEST})]
    return foreign if look.quick else [*foreign, *_tables(folder, place, files)]


def _bad_files(
    folder: UPath, files: Mapping[str, Mapping[str, Any]], there: Mapping[str, int], look: Look
) -> list[str]:
    bad = []
    for file, facts in sorted(files.items()):
        if file not in there:
            bad.append(f"{file} is missing")
        elif there[file] != facts["bytes"]:
            bad.append(f"{file} has {there[file]} bytes of {facts['bytes']}")
        elif not look.quick:
            bad += _bad_bytes(folder / file, facts)
            look.count(there[file])
    return bad


def _bad_bytes(path: UPath, facts: Mapping[str, Any]) -> list[str]:
    try:
        read = digest(path)
    except OSError as problem:
        return [f"{path.name} cannot be read ({problem.strerror or problem})"]
    return [] if read == facts["sha256"] else [f"{path.name} has other bytes than were written"]


def _tables(folder: UPath, place: Place, files: Mapping[str, Any]) -> list[Finding]:
    """Whether tables open and have their columns: a whole file may be of another version of this project."""
    import polars as pl

    wrong = []
    for file in files:
        if file.endswith(".parquet"):
            try:
                with (folder / file).open("rb") as handle:
                    missing = missing_columns(place.layer, file, pl.read_parquet_schema(handle))
            except (OSError, LakeError, pl.exceptions.PolarsError) as problem:
                missing = [f"(it does not open: {problem})"]
            if missing:
                wrong.append(_columns(place, file, missing))
    return wrong


def _damaged(place: Place, found: str) -> Finding:
    remedy = f"moved to the quarantine; then materialize {asset_of(place.layer, place.key)}"
    return Finding("damaged", place.layer, place.key, found, LOST, remedy, "set_aside", place.path)


def _newer(place: Place, written: int) -> Finding:
    return Finding(
        "newer_format",
        place.layer,
        place.key,
        f"format {written}; this version knows {FORMAT}",
        "this version refuses to read it",
        "use the version that wrote it or a later one, or materialize it again with this one",
    )


def _columns(place: Place, file: str, missing: list[str]) -> Finding:
    return Finding(
        "other_columns",
        place.layer,
        place.key,
        f"{file} has no {', '.join(missing)} as this version writes it",
        "what reads the table refuses it",
        f"materialize {asset_of(place.layer, place.key)}",
    )


def _foreign(place: Place, file: str) -> Finding:
    return Finding(
        "foreign",
        place.layer,
        place.key,
        f"{file} is not in the manifest",
        "nothing reads it; it goes with its generation",
        "moved to the quarantine",
        "set_aside",
        f"{place.path}/{file}",
    )
