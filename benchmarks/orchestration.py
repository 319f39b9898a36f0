"""What Dagster costs an audiobook: wall time of a backfill against wall time inside our assets.

Tiny audiobooks (one recording of some seconds each) lie in a folder. A real daemon on a fresh instance takes a backfill
of `raw_audio → segments → speech_embeddings` and starts its runs as a deployment on one machine does: a process a run,
and whatever executor the code location brings for the steps in it. The bodies of the assets are timed where they run
(`benchmarks.orchestration_location`); all the rest of the wall time, asset checks too, is orchestration.

The peer is what Dagster does without a `BackfillPolicy`: a run a book. One run at a time, so that wall times add up.

    python -m benchmarks.orchestration [--books 500] [--a-run 1:4,10:40,0:500] [--rounds 1] [--keep FOLDER]

`--a-run` names sizes of a batch and how many of the books are timed with each (a run a book takes hours for all); the
books that are timed are taken from the middle of one language of `--books` partitions. Core seconds are told too: they
hold on a machine that others use. A size of 0 is the policy as shipped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.orchestration_location import BOOKS_A_RUN, TIMES

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "demo" / "library" / "download"
LANGUAGE = "deu"
LAYERS = ("raw_audio", "segments", "speech_embeddings")
PEER, SHIPPED = "1 a run", "as shipped"
REQUIRED_S = 0.5
"""An audiobook, on average, with the policy as shipped."""


@dataclass(frozen=True)
class Cost:
    """What a backfill cost."""

    books: int
    runs: int
    wall_s: float
    """From the request until the last run has ended."""
    in_assets_s: float
    """Inside the bodies of our assets."""
    core_s: float
    """In the same time, of all processes: daemon, code server, runs, steps."""
    in_assets_core_s: float
    events: int

    @property
    def orchestration_s(self) -> float:
        """An audiobook's share of what is not inside our assets."""
        return (self.wall_s - self.in_assets_s) / self.books

    @property
    def orchestration_core_s(self) -> float:
        """The same in seconds of one core."""
        return (self.core_s - self.in_assets_core_s) / self.books


def write_books(folder: Path, books: int, seconds: float = 5.0) -> None:
    """A folder of recordings as a source reads it: `<language>/<book>/<recording>.flac`, each a stretch of speech."""
    import numpy as np
    import soundfile

    from speech_mining.audio.decode import read_waveform

    speech = np.concatenate([read_waveform(path) for path in sorted(LIBRARY.glob("*ofen*/*.mp3"))])
    length = round(seconds * 16_000)
    for number, start in enumerate(np.linspace(0, len(speech) - length, books).astype(int), start=1):
        book = folder / LANGUAGE / str(number)
        book.mkdir(parents=True)
        soundfile.write(book / "01.flac", speech[start : start + length], 16_000)


@contextlib.contextmanager
def environment(home: Path, source: Path, books_a_run: int) -> Iterator[dict[str, str]]:
    """Of this process and all that it starts; put back at the end."""
    told = {
        "S2S_HOME": str(home),
        "S2S_CATALOGUE_URL": str(source),
        "S2S_LANGUAGES": LANGUAGE,
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(ROOT),
        TIMES: str(home / "times.jsonl"),
        BOOKS_A_RUN: str(books_a_run or ""),
    }
    before = dict(os.environ)
    os.environ.update(told)
    try:
        yield dict(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)


def prepare(home: Path) -> None:
    """A laptop's instance that does one run at a time, and a workspace that names the timed location."""
    from demo.home import prepare_home, set_pools

    settings = prepare_home(home)
    with (home / "dagster" / "dagster.yaml").open("r+", encoding="utf-8") as file:
        import yaml

        config = yaml.safe_load(file)
        config.setdefault("concurrency", {}).setdefault("runs", {})["max_concurrent_runs"] = 1
        file.seek(0)
        file.truncate()
        yaml.safe_dump(config, file)
    location = "- python_module:\n    module_name: benchmarks.orchestration_location\n"
    (home / "workspace.yaml").write_text(f"load_from:\n{location}", "utf-8")
    with dg.DagsterInstance.get() as instance:
        set_pools(instance, settings)


def read_catalogue(instance: dg.DagsterInstance) -> list[str]:
    """Materialize the catalogue in this process; returns the audiobooks, which are partitions then."""
    from resources.settings import load_settings
    from s2s_assets.definitions import build

    job = build(load_settings()).resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("catalogue")], run_config=quiet)
    return list(instance.get_dynamic_partitions(f"audiobooks_{LANGUAGE}"))


@contextlib.contextmanager
def daemon(home: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`dagster-daemon run`, until the block ends."""
    words = [sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(home / "workspace.yaml")]
    with (home / "daemon.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=dict(environment), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def wait_for_daemon(instance: dg.DagsterInstance, most_s: float = 180) -> None:
    """Until its backfills and queue are alive: its start is no cost of an audiobook."""
    ends = time.monotonic() + most_s
    wanted = {"BACKFILL", "QUEUED_RUN_COORDINATOR"}
    while not wanted <= set(instance.get_daemon_heartbeats()):
        if time.monotonic() > ends:
            raise TimeoutError(f"The daemon gave no sign of life in {most_s:g} s.")
        time.sleep(0.5)
    time.sleep(5)  # the code server's definitions are loaded in these


def request(instance: dg.DagsterInstance, books: Sequence[str]) -> str:
    """Ask for a backfill, as the UI does."""
    from dagster._core.execution.backfill import PartitionBackfill

    from resources.settings import load_settings
    from s2s_assets.definitions import build

    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id=uuid.uuid4().hex[:8],
        asset_graph=build(load_settings()).resolve_asset_graph(),
        partition_names=list(books),
        asset_selection=[dg.AssetKey([LANGUAGE, name]) for name in LAYERS],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id


def wait_for_runs(instance: dg.DagsterInstance, backfill: str, most_s: float) -> list[Any]:
    """Until the daemon says that the backfill is over; its runs."""
    ends = time.monotonic() + most_s
    while (found := instance.get_backfill(backfill)) is None or found.status.value in ("REQUESTED", "COMPLETING"):
        if time.monotonic() > ends:
            raise TimeoutError(f"The backfill is not over after {most_s:g} s.")
        time.sleep(1)
    records = list(instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill})))
    ended = [record.dagster_run for record in records]
    broken = [run.run_id for run in ended if run.status != dg.DagsterRunStatus.SUCCESS]
    if broken or found.status.value != "COMPLETED_SUCCESS":
        raise RuntimeError(f"The backfill ended as {found.status.value}; runs that failed: {broken}.")
    return records


def core_seconds(pid: int) -> float:
    """What a process, its descendants and those of them that have ended have taken of the cores so far."""
    parents, seconds = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # one that has just ended: its parent has its time
            fields = place.read_text("utf-8").rpartition(")")[2].split()
            parents[int(place.parent.name)] = int(fields[1])
            seconds[int(place.parent.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def descends(child: int) -> bool:
        return child == pid or (child in parents and descends(parents[child]))

    return sum(taken for process, taken in seconds.items() if descends(process))


def measure(source: Path, books_a_run: int, books: int, home: Path, most_s: float = 7200) -> Cost:
    """One backfill of so many audiobooks on a fresh home."""
    with environment(home, source, books_a_run) as variables:
        prepare(home)
        with dg.DagsterInstance.get() as instance:
            known = read_catalogue(instance)
            chosen = known[: min(books, len(known))]
            (home / "times.jsonl").write_text("", "utf-8")
            with daemon(home, variables) as process:
                wait_for_daemon(instance)
                began, before = time.time(), core_seconds(process.pid)
                records = wait_for_runs(instance, request(instance, chosen), most_s)
                ended, of_cores = max(float(record.end_time) for record in records), core_seconds(process.pid) - before
            events = sum(len(instance.all_logs(record.dagster_run.run_id)) for record in records)
            made = [instance.get_materialized_partitions(dg.AssetKey([LANGUAGE, name])) for name in LAYERS]
    if any(not set(chosen) <= set(found) for found in made):
        raise RuntimeError("Not every audiobook was made.")
    told = [json.loads(line) for line in (home / "times.jsonl").read_text("utf-8").splitlines()]
    return Cost(
        books=len(chosen),
        runs=len(records),
        wall_s=ended - began,
        in_assets_s=sum(line["seconds"] for line in told),
        core_s=of_cores,
        in_assets_core_s=sum(line["core_seconds"] for line in told),
        events=events,
    )


def report(costs: Mapping[str, Sequence[Cost]]) -> bool:
    """Print medians and ratios; whether the policy as shipped keeps to what is required."""
    medians = {name: statistics.median(cost.orchestration_s for cost in rounds) for name, rounds in costs.items()}
    peer = medians.get(PEER, max(medians.values()))
    for name, rounds in costs.items():
        middle = sorted(rounds, key=lambda cost: cost.orchestration_s)[len(rounds) // 2]
        print(
            f"{name:28} {middle.books:4} books {middle.runs:4} runs {middle.wall_s:8.1f} s in all, "
            f"{middle.in_assets_s:8.1f} s in assets: {middle.orchestration_s:7.3f} s an audiobook "
            f"({middle.orchestration_core_s:.3f} core s), {peer / middle.orchestration_s:5.1f} × less than the peer, "
            f"{middle.events / middle.books:.1f} events a book",
            flush=True,
        )
    ours = medians.get(SHIPPED, min(medians.values()))
    kept = "kept" if ours <= REQUIRED_S else "NOT KEPT"
    print(f"required: {REQUIRED_S} s an audiobook; {SHIPPED}: {ours:.3f} s, {kept}")
    return ours <= REQUIRED_S


def main() -> None:
    """Print the machine, the data, seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=500)
    parser.add_argument("--a-run", default="1:4,10:40,0:500")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="Keep the homes here, to look at.")
    asked = parser.parse_args()
    sizes = [tuple(map(int, size.split(":"))) for size in asked.a_run.split(",")]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"dagster {dg.__version__}, SQLite; {asked.books} audiobooks of 5 s; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        write_books(folder / "books", asked.books)
        costs: dict[str, list[Cost]] = {}
        for books_a_run, books in sizes * asked.rounds:
            name = f"{books_a_run} a run" if books_a_run else SHIPPED
            home = folder / f"home_{books_a_run}_{uuid.uuid4().hex[:4]}"
            costs.setdefault(name, []).append(measure(folder / "books", books_a_run, books, home))
            print(costs[name][-1], flush=True)
            if asked.keep is None:
                shutil.rmtree(home, ignore_errors=True)
    report(costs)


if __name__ == "__main__":
    main()
