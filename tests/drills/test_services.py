"""What runs are under: the daemon, the code server and Postgres are killed under them, and two runs meet."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from benchmarks.postgres import Cluster, missing, temporary_postgres
from resources.settings import load_settings
from s2s_assets.definitions import build
from tests.drills.worlds import World, content, leftovers, wrong
from tests.faulty_server import free_port
from tests.forked_runs import Runner

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.timeout(1800)]
LISTED = 2
"""The stage before which the catalogue and the texts are listed, and nothing is made."""
OF_BOOKS = ("raw_audio", "segments", "speech_embeddings")
BOOKS = {"deu": "8001", "fra": "8002"}
PAIR = "deu-fra"
OF_PAIRS = ("s2s_neighbours", "s2s_pairs", "s2s_corpus")
COMPARED = (*OF_BOOKS, "speech_index", *OF_PAIRS)
WITHIN_S = 600.0


def partitions() -> set[AssetKeyPartitionKey]:
    """Two books, their languages' indexes and the pair: what a backfill is asked for."""
    of_books = {(dg.AssetKey([language, name]), book) for language, book in BOOKS.items() for name in OF_BOOKS}
    indexes = {(dg.AssetKey([language, "speech_index"]), language) for language in BOOKS}
    pairs = {(dg.AssetKey(name), PAIR) for name in OF_PAIRS}
    return {AssetKeyPartitionKey(asset, key) for asset, key in of_books | indexes | pairs}


class Services:
    """A code server and a daemon of a home, as processes that may be killed and started again."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._environment = {**os.environ, "S2S_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
        self._workspace = folder / "workspace.yaml"
        server = {"host": "127.0.0.1", "port": self._port, "location_name": "s2s"}
        self._workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        server = ["dagster", "api", "grpc", "-m", "s2s_assets.definitions", "-h", "127.0.0.1", "-p", str(self._port)]
        daemon = ["dagster._daemon", "run", "-w", str(self._workspace)]
        words = [sys.executable, "-m", *(server if name == "code server" else daemon)]
        root = Path(__file__).parents[2]
        with (self._folder / f"{name.replace(' ', '_')}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(words, env=self._environment, stdout=log, stderr=log, cwd=root)

    def kill(self, name: str) -> None:
        self._running[name].kill()
        self._running.pop(name).wait()

    def await_code(self) -> None:
        """Wait until the code server answers."""
        until = time.monotonic() + WITHIN_S
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            time.sleep(0.2)
        raise AssertionError("the code server does not answer")

    def stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
        for process in self._running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def services(home: Path, folder: Path) -> Iterator[Services]:
    folder.mkdir()
    both = Services(home, folder)
    try:
        both.start("code server")  # a backfill fails whose assets the daemon finds nowhere
        both.await_code()
        both.start("daemon")
        yield both
    finally:
        both.stop()


def ask_for(instance: dg.DagsterInstance) -> str:
    """A backfill of `partitions`; returns its id."""
    graph = build(load_settings()).resolve_asset_graph()
    wanted = PartitionBackfill.from_asset_graph_subset(
        backfill_id=uuid.uuid4().hex[:8],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset.from_asset_partition_set(partitions(), graph),
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(wanted)
    return str(wanted.backfill_id)


def await_end(instance: dg.DagsterInstance, backfill: str) -> BulkActionStatus:
    """Wait until a backfill and all its runs have ended."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        known = instance.get_backfill(backfill)
        open_runs = [run for run in instance.get_runs() if run.status not in FINISHED_STATUSES]
        if known is not None and known.status in BULK_ACTION_TERMINAL_STATUSES and not open_runs:
            return known.status
        time.sleep(0.5)
    raise AssertionError(f"backfill {backfill} did not end in {WITHIN_S} s")


def await_runs(instance: dg.DagsterInstance, at_least: int) -> None:
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        if instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])) >= at_least:
            return
        time.sleep(0.1)
    raise AssertionError("no run began")


def of_layers(home: Path) -> dict[str, bytes | str]:
    return {name: body for name, body in content(home).items() if name.split("/")[0] in COMPARED}


@pytest.mark.parametrize("service", ["daemon", "code server"])
def test_a_backfill_outlives_the_kill_of_what_runs_it(world: World, tmp_path: Path, service: str) -> None:
    world.restore(LISTED)
    chance = random.Random(service)
    with dg.DagsterInstance.from_config(str(world.home / "dagster")) as instance:
        with services(world.home, tmp_path / "services") as both:
            backfill = ask_for(instance)
            await_runs(instance, 1)
            time.sleep(chance.uniform(0, 10))
            both.kill(service)
            both.start(service)
            both.await_code()
            if await_end(instance, backfill) != BulkActionStatus.COMPLETED_SUCCESS:
                assert await_end(instance, ask_for(instance)) == BulkActionStatus.COMPLETED_SUCCESS
    assert of_layers(world.home) == of_layers(world.after(len(world.stages) - 1))
    assert wrong(world.home) == [] and leftovers(world.home) == []


def test_two_runs_of_the_same_partitions_at_once_end_and_leave_one_whole_lake(world: World, runner: Runner) -> None:
    world.restore(LISTED)
    other = Runner("tests.drills.stage_runner")
    try:
        for each in (runner, other):
            each.start(home=world.home, number=str(LISTED), how="here")
        ended = [each.end() for each in (runner, other)]
    finally:
        other.stop()
    assert 0 in ended and set(ended) <= {0, 1}  # one may have been told that the other is at it
    assert of_layers(world.home) == of_layers(world.after(LISTED))
    assert wrong(world.home) == [] and leftovers(world.home) == []


@pytest.fixture
def postgres() -> Iterator[Cluster]:
    if missing():
        pytest.skip(missing())
    with temporary_postgres() as cluster:
        yield cluster


def test_a_run_whose_postgres_crashes_ends_and_the_next_makes_the_same_lake(
    world: World, runner: Runner, postgres: Cluster
) -> None:
    world.restore(0)
    (world.home / "dagster" / "dagster.yaml").write_text(
        json.dumps({"telemetry": {"enabled": False}, "storage": postgres.storage})
    )
    for number in range(LISTED):
        runner.start(home=world.home, number=str(number), how="here")
        assert runner.end() == 0
    runner.start(home=world.home, number=str(LISTED), how="here")
    time.sleep(world.seconds[LISTED] / 2)
    crash(postgres)
    assert runner.end() in (0, 1)
    runner.start(home=world.home, number=str(LISTED), how="here")
    assert runner.end() == 0
    assert of_layers(world.home) == of_layers(world.after(LISTED))
    assert wrong(world.home) == [] and leftovers(world.home) == []


def crash(postgres: Cluster) -> None:
    """Kill a process of the server as the kernel would: Postgres ends every connection, recovers, and serves again."""
    import psycopg2

    address = {"host": postgres.host, "port": postgres.port, "user": "dagster", "password": postgres.password}
    with closing(psycopg2.connect(**address, dbname="dagster")) as connection:
        os.kill(connection.get_backend_pid(), signal.SIGKILL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            psycopg2.connect(**address, dbname="dagster").close()
            return
        except psycopg2.OperationalError:
            time.sleep(0.2)
    raise AssertionError("Postgres did not come back")
