"""What nothing refers to, and may go: with its bytes and the reason.

Nothing is removed that a living process holds, or that is younger than what a search may take: a state or a block of a
search that is under way has no neighbours yet. Ages are told by the disk's clock, never by this machine's.

What belongs here is the lake, and the folders of the home beside it. What settings ask for is handed in (`Kept`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upath import UPath

from speech_mining.lake import ASIDE, CURRENT, Lake, is_local
from speech_mining.mining.kinds import KINDS
from speech_mining.object_store import read_text
from speech_mining.sources.writer import BusyError, only_writer
from speech_mining.upkeep.places import Found, Place, look
from speech_mining.writers import abandoned, disk_time_s, held_here, sweep, touched_s

LEAST_AGE_S = 24 * 3600.0
"""A state or a block of a search that was touched so lately may belong to one that is under way."""
COPY_AGE_S = 3600.0
"""A copy that was used so lately may be open."""


@dataclass(frozen=True)
class Kept:
    """What the settings in force ask for.

    Args:
        languages: of speech.
        text_languages: of text.
        pairs: kind (s2s, s2t …) → its pairs.
        students: names.
    """

    languages: frozenset[str]
    text_languages: frozenset[str]
    pairs: Mapping[str, frozenset[str]]
    students: frozenset[str]


@dataclass(frozen=True)
class Home:
    """The folders of a home beside the lake, and what may be taken of them.

    Args:
        downloads: where recordings arrive.
        scratch: what layers keep for themselves from run to run.
        training: what training resumes from.
        aside_bytes: what the lake's quarantine may hold.
    """

    downloads: Path
    scratch: Path
    training: Path
    aside_bytes: int


@dataclass(frozen=True)
class Wish:
    """What to look for.

    Args:
        kept: by the settings; None: nothing is unused.
        busy: names of partitions and languages that runs under way are at.
        least_age_s: see `LEAST_AGE_S`.
    """

    kept: Kept | None = None
    busy: frozenset[str] = frozenset()
    least_age_s: float = LEAST_AGE_S


@dataclass(frozen=True)
class Leftover:
    """Something that may go."""

    kind: str
    what: str
    """Path, below the lake's root or of this machine."""
    bytes: int
    reason: str
    remove: Callable[[], bool] = field(repr=False, compare=False)
    """Removes it; False where it is in use or gone since."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": self.kind, "what": self.what, "bytes": self.bytes, "reason": self.reason}


def collect(lake: Lake, home: Home, wish: Wish | None = None) -> list[Leftover]:
    """Everything that may go; nothing is removed by looking."""
    wish, found = wish or Wish(), look(lake)
    free = [place for place in found.places if not wish.busy & set(place.key)]
    return [
        *_generations(lake, free),
        *_staging(lake),
        *_searches(lake, free, wish),
        *_aside(lake, found, home.aside_bytes),
        *_copies(lake, found),
        *_downloads(lake, home.downloads, wish),
        *_scratch(lake, home.scratch, wish),
        *(_unused(lake, free, home, wish.kept) if wish.kept is not None else ()),
    ]


# of the lake


def _generations(lake: Lake, places: list[Place]) -> Iterator[Leftover]:
    """Generations beside the current one, which killed writers left."""
    for place in places:
        if not place.has_current or any(held_here(claim, claim=True) is not False for claim in place.claims):
            continue
        current = read_text(lake.root / place.path / CURRENT).strip()
        for name, files in place.generations.items():
            if name != current and current in place.generations:
                yield Leftover(
                    "orphan",
                    f"{place.path}/{name}",
                    sum(files.values()),
                    "a generation that is not current",
                    lambda place=place: _done(lake.tidy, place.layer, *place.key),  # type: ignore[misc]
                )


def _staging(lake: Lake) -> Iterator[Leftover]:
    for left in abandoned(lake.staging_area):
        yield Leftover(
            "staging",
            str(left),
            folder_bytes(left),
            "its writer was killed",
            lambda: _done(sweep, lake.staging_area),
        )


def _searches(lake: Lake, places: list[Place], wish: Wish) -> Iterator[Leftover]:
    """States of searches whose neighbours are gone, and blocks of searches that were merged since."""
    there = {place.path for place in places if place.has_current}
    for kind in KINDS:
        neighbours, state, blocks = (kind.layer(name) for name in ("neighbours", "neighbour_state", "neighbour_blocks"))
        for place in places:
            merged = f"{neighbours}/{place.key[0]}" if place.key else ""
            if place.layer == state and merged not in there and _age_s(lake, place) > wish.least_age_s:
                yield _partition(lake, place, "search", f"a state, and no {neighbours} that it is of")
            if place.layer == blocks and merged in there and _is_older(lake, place, merged):
                yield _partition(lake, place, "search", f"a block that is merged in {neighbours}")


def _aside(lake: Lake, found: Found, most_bytes: int) -> Iterator[Leftover]:
    """What the quarantine holds beyond its budget: the oldest go first."""
    held = sum(found.aside.values())
    units: dict[str, int] = {}
    for path, size in found.aside.items():
        if path.startswith(f"{ASIDE}/"):
            units[_unit(path)] = units.get(_unit(path), 0) + size
    for unit in sorted(units, key=lambda unit: (_touched_s(lake.root / f"{unit}.json"), unit)):
        if held <= most_bytes:
            return
        held -= units[unit]
        yield Leftover(
            "quarantine",
            unit,
            units[unit],
            f"the quarantine holds more than {most_bytes / 1e6:.0f} MB",
            lambda unit=unit: _remove_unit(lake, unit),  # type: ignore[misc]
        )


def _unit(path: str) -> str:
    """The number under which something was put aside: `.quarantine/segments/deu/47/1/…` and `….json` are one."""
    parts = path.split("/")
    numbers = [at for at, part in enumerate(parts) if part.removesuffix(".json").isdigit() and at >= 2]
    told = [at for at in numbers if at == len(parts) - 1 and parts[at].endswith(".json")]
    at = told[0] if told else next((at for at in numbers if at + 1 < len(parts)), len(parts) - 1)
    return "/".join([*parts[:at], parts[at].removesuffix(".json")])


def _copies(lake: Lake, found: Found) -> Iterator[Leftover]:
    """Copies of an object store's generations that are no more."""
    if is_local(lake.root) or not lake.copies.is_dir():
        return
    there = {name for place in found.places for name in place.generations}
    now_s = disk_time_s(lake.copies)
    for folder in sorted(lake.copies.iterdir()):
        if folder.name not in there and now_s - touched_s(folder) > COPY_AGE_S:
            yield _folder("copy", folder, "a copy of what the store has no more")


# of the home


def _downloads(lake: Lake, folder: Path, wish: Wish) -> Iterator[Leftover]:
    """Recordings under way of books that are whole in the lake, and that nobody is at."""
    for book in sorted(folder.glob("[!.]*/[!.]*")):
        if wish.busy & {book.name, book.parent.name} or not book.is_dir():
            continue
        if lake.find("raw_audio", book.parent.name, book.name) is None:
            continue
        if lake.find("incomplete", book.parent.name, book.name) is None:
            lock = book.with_name(f".{book.name}.lock")
            yield _folder("download", book, "the book is whole in the lake", lock)


def _scratch(lake: Lake, folder: Path, wish: Wish) -> Iterator[Leftover]:
    """Cut clips of corpora, and sentence keys of languages, that are no more."""
    for clips in sorted(folder.glob("clips/*/*")):
        kind, pair = clips.parent.name, clips.name
        if clips.is_dir() and pair not in wish.busy and lake.find(f"{kind}_corpus", pair) is None:
            yield _folder(
                "scratch", clips, f"clips of {kind}_corpus {pair}, which is no more", clips.with_suffix(".lock")
            )
    for keys in sorted(folder.glob("text_duplicates/*")):
        if keys.is_dir() and keys.name not in wish.busy and not lake.keys("text_sentences", keys.name):
            yield _folder("scratch", keys, f"sentence keys of {keys.name}, which has no text any more")


# what the settings do not ask for


def _unused(lake: Lake, places: list[Place], home: Home, kept: Kept) -> Iterator[Leftover]:
    books = _listed(lake)
    for place in places:
        reason = _why_unused(place, kept, books)
        if reason:
            yield _partition(lake, place, "unused", reason)
    for folder in sorted(home.training.glob("*")):
        if folder.is_dir() and folder.name not in kept.students:
            yield _folder("unused", folder, f"the settings name no student {folder.name}")


def _why_unused(place: Place, kept: Kept, books: set[tuple[str, ...]]) -> str:
    layer, first = place.layer, place.key[0] if place.key else ""
    kind = next((kind.name for kind in KINDS if layer.startswith(f"{kind.name}_")), "")
    of_speech = layer in {"raw_audio", "segments", "speech_embeddings", "speech_index", "incomplete"}
    of_text = layer in {"text_sentences", "text_duplicates", "text_embeddings", "text_index"}
    of_student = layer in {
        "transcribed_speech", "teacher_embeddings", "student_encoder", "encoder_evaluation", "current_encoder"
    }  # fmt: skip
    if of_speech and first not in kept.languages:
        return f"the settings name no language {first}"
    if of_speech and len(place.key) == 2 and books and place.key not in books:
        return "the catalogue does not list the audiobook any more"
    if of_text and first not in kept.text_languages:
        return f"the settings name no text of {first}"
    if of_student and first not in kept.students:
        return f"the settings name no student {first}"
    if kind and first not in kept.pairs.get(kind, frozenset()):
        return f"the settings do not mine {first} as {kind}"
    return ""


def _listed(lake: Lake) -> set[tuple[str, ...]]:
    """Language and id of every audiobook of the catalogue."""
    catalogue = lake.find("catalogue")
    if catalogue is None:
        return set()
    return set(catalogue.read_frame("catalogue.parquet").select("language", "audiobook").unique().rows())


# how things go


def folder_bytes(path: Path) -> int:
    """What a file or a folder takes."""
    files = path.rglob("*") if path.is_dir() else iter([path])
    total = 0
    for each in files:
        with suppress(FileNotFoundError):
            total += each.lstat().st_size
    return total


def _partition(lake: Lake, place: Place, kind: str, reason: str) -> Leftover:
    size = sum(sum(files.values()) for files in place.generations.values())
    return Leftover(kind, place.path, size, reason, lambda: _done(lake.remove, place.layer, *place.key))


def _folder(kind: str, folder: Path, reason: str, lock: Path | None = None) -> Leftover:
    return Leftover(kind, str(folder), folder_bytes(folder), reason, lambda: _remove_folder(folder, lock))


def _remove_folder(folder: Path, lock: Path | None) -> bool:
    """Under the lock of whoever fills it, where it has one."""
    if lock is None:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    try:
        with only_writer(lock, wait_s=0):
            shutil.rmtree(folder, ignore_errors=True)
    except BusyError:
        return False
    return not folder.exists()


def _remove_unit(lake: Lake, unit: str) -> bool:
    told = lake.root / f"{unit}.json"
    if is_local(lake.root):
        path = Path(str(lake.root / unit))
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    elif (lake.root / unit).exists():
        lake.root.fs.rm((lake.root / unit).path, recursive=True)
    told.unlink(missing_ok=True)
    return True


def _done(act: Callable[..., None], *names: Any) -> bool:
    act(*names)
    return True


def _touched_s(path: UPath) -> float:
    """When a file was written; a generation's files are written once."""
    try:
        return float(path.stat().st_mtime)
    except FileNotFoundError:
        return float("inf")


def _is_older(lake: Lake, place: Place, other: str) -> bool:
    """Whether a partition was published before another."""
    return _touched_s(lake.root / place.path / CURRENT) < _touched_s(lake.root / other / CURRENT)


def _age_s(lake: Lake, place: Place) -> float:
    if not is_local(lake.root):
        return _store_time_s(lake) - _touched_s(lake.root / place.path / CURRENT)
    return disk_time_s(lake.staging_area) - touched_s(Path(str(lake.root / place.path)))


def _store_time_s(lake: Lake) -> float:
    """What time it is in an object store: of something that is written now."""
    probe = lake.root / ".staging" / "clock"
    probe.write_bytes(b"")
    try:
        return float(probe.stat().st_mtime)
    finally:
        probe.unlink(missing_ok=True)
