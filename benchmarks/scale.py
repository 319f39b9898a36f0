"""Orchestration at scale: what Dagster's pages, sensors and conditions cost on a synthetic library of any size.

    python -m benchmarks.scale --books 14500 --languages 4 --pairs 6
    python -m benchmarks.scale --books 50000 --languages 40 --pairs 700 --only load,sensor,graphql --home DIR
    python -m benchmarks.scale --only graphql,automation --storage postgres --out measured.json

Each row names what is required and says whether it holds. The library is seeded once a home and taken again from there.
Read the medians: the least and the most of the repeats tell how busy the machine was.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from benchmarks.event_writes import concurrent_writes
from benchmarks.postgres import missing, temporary_postgres
from benchmarks.refreshes import Growth, refreshes
from benchmarks.served import MODULE, Home, Process, Webserver, daemon, query, webserver
from benchmarks.synthetic_library import (
    BOOK_LAYERS,
    Size,
    lay_out,
    list_books,
    listed,
    make_layers,
    seed_instance,
    store,
)
from partitions.audiobooks import add_audiobooks
from resources.settings import load_settings
from resources.storage import Storage
from s2s_assets.discovery import LAYERS, discovery
from speech_mining.benchmark.machine import describe_machine
from speech_mining.lake import Lake

SEEDED = "seeded.json"
PAGE_ASSETS = 10
"""The lineage page asks for the state of so many assets at once (seen in its requests)."""
LANGUAGE_LAYERS = ("listing", *BOOK_LAYERS, "speech_index")
ARRIVING = 100
STEADY_SHARE = 0.05
"""Memory is called bounded where the second half of a watch adds at most this share."""


@dataclass(frozen=True)
class Row:
    """One thing that was measured."""

    what: str
    values: Sequence[float]
    unit: str = "s"
    at_most: float | None = None
    """What is required of the median; None: it is told, not judged."""
    note: str = ""

    @property
    def median(self) -> float:
        """Of the repeats."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """Whether it holds what is required."""
        if self.at_most is None:
            return ""
        return "holds" if self.median <= self.at_most else "MISSES"


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    size: Size
    repeats: int
    ticks: int
    storage: str
    refresh_books: int
    write_seconds: float


def main() -> None:
    """Seed, measure, print."""
    chosen = _arguments()
    asked = Asked(
        Size(chosen.books, chosen.languages, chosen.pairs),
        chosen.repeats,
        chosen.ticks,
        chosen.storage,
        chosen.refresh_books,
        chosen.write_seconds,
    )
    with _folder(chosen.home) as folder:
        rows = measure(asked, folder, chosen.only.split(",") if chosen.only else list(MEASURES), _tell)
    if chosen.out:
        told = {"facts": facts(asked), "rows": [asdict(row) | {"verdict": row.verdict} for row in rows]}
        chosen.out.write_text(json.dumps(told, indent=1), "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--books", type=int, default=2000)
    parser.add_argument("--languages", type=int, default=4, help="1 to 40")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--only", default="", help=f"some of {','.join(MEASURES)}")
    parser.add_argument("--storage", choices=("sqlite", "postgres"), default="sqlite", help="of the instance")
    parser.add_argument("--repeats", type=int, default=7, help="of every question and every load")
    parser.add_argument("--ticks", type=int, default=4, help="idle evaluations to wait for, half a minute each")
    parser.add_argument("--refresh-books", type=int, default=400, help="audiobooks a language that are there before")
    parser.add_argument("--write-seconds", type=float, default=6.0, help="of each round of concurrent writes")
    parser.add_argument("--home", type=Path, help="where the library is seeded and kept; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="a file of JSON for the figures")
    return parser.parse_args()


@contextmanager
def _folder(home: Path | None) -> Iterator[Path]:
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        yield home.absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="s2s-scale-") as made:
            yield Path(made)


def measure(asked: Asked, folder: Path, names: Sequence[str], tell: Callable[[str], None]) -> list[Row]:
    """Every measure that is named, in the order of `MEASURES`.

    Args:
        asked: sizes and repeats.
        folder: where the library is, or will be.
        names: keys of `MEASURES`.
        tell: told of every figure as it comes.

    Raises:
        KeyError: there is no measure of that name.
    """
    unknown = set(names) - set(MEASURES)
    if unknown:
        raise KeyError(f"no measure {', '.join(sorted(unknown))} in {', '.join(MEASURES)}")
    tell(json.dumps(facts(asked)))
    rows: list[Row] = []
    with temporary_postgres() if asked.storage == "postgres" else nullcontext() as cluster:
        home = Home(folder, asked.size)
        home.prepare(cluster.storage if cluster else None)
        if set(names) & NEED_A_LIBRARY:
            seconds, events = seeded(home, again=cluster is not None)
            tell(f"seeded with {events} events in {seconds:.0f} s")
        for name in MEASURES:
            for row in MEASURES[name](home, asked) if name in names else ():
                rows.append(row)
                tell(told(row))
    return rows


def facts(asked: Asked) -> dict[str, Any]:
    """The machine, the software and the size."""
    return {
        "date": dt.date.today().isoformat(),
        **describe_machine(),
        "dagster": version("dagster"),
        "storage": asked.storage,
        **asdict(asked.size),
    }


def told(row: Row) -> str:
    """A row as a line."""
    required = "" if row.at_most is None else f"at most {row.at_most:g} {row.unit}: {row.verdict}"
    spread = f"{min(row.values):.3g} … {max(row.values):.3g}" if len(row.values) > 1 else ""
    return f"{row.what:54s} {row.median:9.3f} {row.unit:4s} {spread:20s} {required:24s} {row.note}".rstrip()


def _tell(line: str) -> None:
    print(line, flush=True)


def seeded(home: Home, *, again: bool = False) -> tuple[float, int]:
    """Seed a home that was not seeded yet; returns the seconds it took and the events there are."""
    mark = home.folder / SEEDED
    if mark.exists() and not again:
        kept = json.loads(mark.read_text("utf-8"))
        if kept["size"] != asdict(home.size):
            raise ValueError(f"{home.folder} holds a library of {kept['size']}, not of {asdict(home.size)}")
        return 0.0, int(kept["events"])
    began = time.perf_counter()
    books, lake = home.size.books_of(), Lake(home.folder / "lake")
    list_books(lake, home.size, books)
    lay_out(lake, LAYERS, books)
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        events = seed_instance(instance, home.size, books)
    mark.write_text(json.dumps({"size": asdict(home.size), "events": events}), "utf-8")
    return time.perf_counter() - began, events


# The code location

_LOAD = "import time; began = time.process_time(); import {}; print(time.process_time() - began)"


def load_rows(home: Home, asked: Asked) -> list[Row]:
    """The code location against `import dagster`, by turns, compiled before; processor seconds, others are at work."""
    seconds: dict[str, list[float]] = {"dagster": [], MODULE: []}
    environment = {**home.environment, "PYTHONPYCACHEPREFIX": str(home.folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for turn in range(asked.repeats + 1):
        for module, measured in seconds.items():
            words = [sys.executable, "-c", _LOAD.format(module)]
            ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            if ended.returncode != 0:
                raise RuntimeError(f"import {module} failed: {ended.stderr[-1000:]}")
            measured += [float(ended.stdout)] if turn else []
    ratios = [ours / theirs for ours, theirs in zip(seconds[MODULE], seconds["dagster"], strict=True)]
    return [
        Row("import dagster", seconds["dagster"]),
        Row("the code location, import dagster included", seconds[MODULE]),
        Row("the code location / import dagster", ratios, "×", at_most=2),
    ]


# The sensor


def sensor_rows(home: Home, asked: Asked) -> list[Row]:
    """The sensor `audiobooks` where no book is a partition yet, then with nothing new, then with a round of retries.

    All books are asked for in one tick, which is more than the settings of any real home allow.
    """
    settings = load_settings(
        home=home.folder, languages=home.size.codes, ingest={"books_a_run": 1000, "most_runs": 1000, "retry_hours": 6}
    )
    now = dt.datetime(2026, 2, 1, tzinfo=dt.timezone.utc)
    lake = home.folder / "lake"
    if not lake.exists():
        list_books(Lake(lake), home.size, home.size.books_of())
    with dg.instance_for_test() as instance:
        tick = _ticker(instance, Storage(url=str(lake), scratch=str(home.folder / "downloads")), settings)
        cold, requests = tick(now)
        idle = [tick(now)[0] for _ in range(asked.repeats)]
        retried, _ = tick(now + dt.timedelta(hours=7))
    return [
        Row("sensor audiobooks, from cold", [cold], at_most=60, note=f"{asked.size.books} books, {requests} runs"),
        Row("sensor audiobooks, nothing changed", idle, at_most=5),
        Row("sensor audiobooks, a round of trying again", [retried], at_most=60),
    ]


def _ticker(
    instance: dg.DagsterInstance, storage: Storage, settings: Any
) -> Callable[[dt.datetime], tuple[float, int]]:
    """Evaluates the sensor at a time, with the cursor of the last; returns the seconds and the runs asked for."""
    cursor: str | None = None

    def tick(now: dt.datetime) -> tuple[float, int]:
        nonlocal cursor
        sensor = discovery(settings, clock=lambda: now)
        context = dg.build_sensor_context(instance, cursor=cursor, resources={"storage": storage})
        began = time.perf_counter()
        result = sensor(context)
        seconds = time.perf_counter() - began
        if not isinstance(result, dg.SensorResult):
            raise RuntimeError(f"the sensor asked for nothing: {result}")
        cursor = result.cursor
        return seconds, len(result.run_requests or [])

    return tick


# Pages


def graphql_rows(home: Home, asked: Asked) -> list[Row]:
    """What the pages ask, as they ask it; the first answer of each stands apart: it fills the caches of an instance."""
    with webserver(home) as served:
        rows = [row for name, variables in questions(home) for row in _question(served, name, variables, asked.repeats)]
        return [*rows, *_served_memory(served, home, asked)]


def questions(home: Home) -> list[tuple[str, dict[str, Any]]]:
    """Name of a query → its variables, for the largest language."""
    largest = home.size.codes[0]
    first = [{"path": [language, name]} for language in home.size.codes for name in LANGUAGE_LAYERS][:PAGE_ASSETS]
    segments = {"path": [largest, "segments"]}
    return [
        ("lineage_structure", {"location": MODULE}),
        ("lineage_live", {"assets": first}),
        ("lineage_stale", {"assets": first}),
        ("asset_health", {"assets": first}),
        ("partitions", {"asset": segments}),
        ("partition_detail", {"asset": segments, "partition": "1"}),
    ]


def _question(served: Webserver, name: str, variables: Mapping[str, Any], repeats: int) -> list[Row]:
    text = query(name)
    first, answer = served.ask(text, variables)
    used = served.processor_s()
    seconds = [served.ask(text, variables)[0] for _ in range(repeats)]
    worked = (served.processor_s() - used) / repeats
    note = f"{len(json.dumps(answer)) / 1e3:.0f} kB; {worked:.2f} s of a processor"
    return [Row(f"GraphQL {name}, first", [first]), Row(f"GraphQL {name}", seconds, at_most=2, note=note)]


def _served_memory(served: Webserver, home: Home, asked: Asked) -> list[Row]:
    """Memory of the webserver and the code server while the heaviest questions come again and again."""
    watched: list[dict[str, float]] = []
    for _ in range(max(6, 4 * asked.repeats)):
        for name, variables in questions(home):
            served.ask(query(name), variables)
        watched.append(served.memory_mb())
    return [row for role in ("webserver", "code server") for row in _memory_rows(role, watched, "rounds")]


def _memory_rows(role: str, watched: Sequence[Mapping[str, float]], of_what: str) -> list[Row]:
    held = [each.get(role, 0.0) for each in watched]
    half = held[len(held) // 2 :]
    per_step = float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 1 else 0.0
    growth = per_step * len(half) / half[0] if half[0] else 0.0
    note = f"{held[0]:.0f} MB at first, {held[-1]:.0f} MB after {len(held)} {of_what}"
    return [
        Row(f"memory of the {role}", [max(held)], "MB", note=note),
        Row(f"memory of the {role}, growth in the second half", [100 * growth], "%", at_most=100 * STEADY_SHARE),
    ]


# Automation


def automation_rows(home: Home, asked: Asked) -> list[Row]:
    """Evaluations by a real daemon: the first, idle ones, and one with new books, embedded by nobody yet."""
    with webserver(home) as served, daemon(home) as running:
        seen = Evaluations(served, running)
        served.ask(query("start_sensor"), seen.where)
        idle = seen.until(asked.ticks + 1)
        arrived = _arrive(home)
        later = seen.until(lambda ticks: any(map(_asked_for, ticks)) or len(ticks) > 4)
        idle += seen.until(asked.ticks)
        used = seen.processor_s
    busy = next((tick for tick in later if _asked_for(tick)), None)
    if busy is None:
        raise RuntimeError(f"{arrived} new audiobooks, and nothing was asked for in {len(later)} evaluations")
    note = f"{used / seen.ended:.1f} s of a processor an evaluation, the daemon's other work included"
    found = [Row("automation, the first evaluation", [_seconds(idle[0])], at_most=30, note=note)]
    if idle[1:]:
        found.append(Row("automation, nothing new", [_seconds(tick) for tick in idle[1:]], at_most=30))
    requested = f"{arrived} audiobooks, {_asked_for(busy)} partitions asked for"
    found.append(Row(f"automation, {arrived} new audiobooks", [_seconds(busy)], at_most=30, note=requested))
    return [*found, *_memory_rows("daemon", seen.memory, "evaluations")]


class Evaluations:
    """The ticks of the sensor `automation` that end from now on, and what the daemon holds and uses meanwhile."""

    def __init__(self, served: Webserver, running: Process) -> None:
        self.where = {"location": MODULE, "name": "automation"}
        self.memory: list[dict[str, float]] = []
        self._served, self._running = served, running
        self._told = self._first = len(self._all())
        self._began_s = running.processor_s()

    @property
    def ended(self) -> int:
        """How many ended."""
        return self._told - self._first

    @property
    def processor_s(self) -> float:
        """Processor seconds of the daemon, its start not counted."""
        return self._running.processor_s() - self._began_s

    def until(self, enough: int | Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait for so many further evaluations, or for some of which `enough` is true; the oldest first.

        Raises:
            RuntimeError: one failed, or none ended for ten minutes.
        """
        new: list[dict[str, Any]] = []
        until = time.monotonic() + 600
        while not (len(new) >= enough if isinstance(enough, int) else enough(new)):
            time.sleep(0.5)
            ticks = self._all()[self._told :]
            if len(ticks) > len(new):
                self.memory.append(self._running.memory_mb())
                until = time.monotonic() + 600
            elif time.monotonic() > until:
                raise RuntimeError("no evaluation ended for ten minutes: see daemon.log in the home")
            new = ticks
        self._told += len(new)
        return new

    def _all(self) -> list[dict[str, Any]]:
        _, answer = self._served.ask(query("ticks"), self.where)
        ended = [tick for tick in answer["sensorOrError"]["sensorState"]["ticks"] if tick["endTimestamp"]]
        failed = [tick["error"]["message"] for tick in ended if tick["error"]]
        if failed:
            raise RuntimeError(f"an evaluation failed: {failed[0]}")
        return sorted(ended, key=lambda tick: float(tick["timestamp"]))


def _asked_for(tick: Mapping[str, Any]) -> int:
    return int(tick["requestedAssetMaterializationCount"])


def _seconds(tick: Mapping[str, Any]) -> float:
    return float(tick["endTimestamp"]) - float(tick["timestamp"])


def _arrive(home: Home) -> int:
    """New audiobooks in the largest language, fetched and segmented: their embeddings are asked for next."""
    language = home.size.codes[0]
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        number = instance.event_log_storage.get_dynamic_partitions(f"audiobooks_{language}")
        new = [str(10**6 + len(number) + place) for place in range(ARRIVING)]
        add_audiobooks(instance, language, new)
        store(instance, listed(language, new))
        make_layers(instance, language, new, LAYERS)
    return len(new)


# What is new


def refresh_rows(home: Home, asked: Asked) -> list[Row]:
    """The index of a language and the neighbours of a pair, by how many audiobooks are new."""
    with tempfile.TemporaryDirectory(dir=home.folder) as folder:
        grown = refreshes(Path(folder), asked.refresh_books)
    return [row for growth in grown for row in _growth_rows(growth)]


def _growth_rows(growth: Growth) -> list[Row]:
    seconds = ", ".join(f"{new}: {s:.2f}" for new, s in zip(growth.new, growth.seconds, strict=True))
    found = [Row(f"{growth.what}, nothing new", [growth.seconds[0]], note=f"new: seconds {seconds}")]
    found += [Row(f"{growth.what}, for each new audiobook", [1000 * growth.slope_s], "ms")]
    if growth.products:
        found += [Row(f"{growth.what}, exponent of the products", [growth.products_exponent], "", at_most=1.1)]
    return [*found, Row(f"{growth.what}, exponent of the time", [growth.exponent], "", at_most=1.25)]


# Databases


def write_rows(home: Home, asked: Asked) -> list[Row]:
    """Events written by 1, 4 and 16 processes at once, to SQLite and, where it is installed, to Postgres."""
    rows = _written(home, "SQLite", None, asked)
    if missing():
        return [*rows, Row("Postgres", [float("nan")], note=missing())]
    with temporary_postgres() as cluster:
        return [*rows, *_written(home, "Postgres", cluster.storage, asked)]


def _written(home: Home, name: str, storage: Mapping[str, Any] | None, asked: Asked) -> list[Row]:
    rows = []
    for writers in (1, 4, 16):
        with tempfile.TemporaryDirectory(dir=home.folder) as folder:
            place = replace(home, folder=Path(folder))
            place.prepare(storage)
            wrote = concurrent_writes(place.dagster, writers, asked.write_seconds)
        note = f"{wrote.a_second:.0f} events a second; {len(wrote.failed)} failed {wrote.failed[:1] or ''}"
        rows.append(Row(f"{name}, {writers} writers: a write", wrote.seconds, note=note))
        rows.append(Row(f"{name}, {writers} writers: the worst write", [max(wrote.seconds)], at_most=1))
    return rows


def browser_rows(home: Home, asked: Asked) -> list[Row]:
    """The lineage and the partitions page in a real Chromium, until they are drawn."""
    from benchmarks.drawn_pages import absent, drawn

    if absent():
        return [Row("pages in Chromium", [float("nan")], note=absent())]
    with webserver(home) as served:
        pages = drawn(served, home.size.codes[0], home.folder)
    return [Row(f"{name} page in Chromium, until drawn", [seconds], note=note) for name, seconds, note in pages]


MEASURES: Mapping[str, Callable[[Home, Asked], list[Row]]] = {
    "load": load_rows,
    "sensor": sensor_rows,
    "graphql": graphql_rows,
    "browser": browser_rows,
    "automation": automation_rows,
    "refresh": refresh_rows,
    "writes": write_rows,
}
NEED_A_LIBRARY = {"sensor", "graphql", "browser", "automation"}


if __name__ == "__main__":
    main()
