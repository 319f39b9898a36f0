"""Dagster's instance on a real Postgres, as production has it: started here, from Debian's package."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from benchmarks.event_writes import concurrent_writes
from benchmarks.postgres import Cluster, missing, temporary_postgres
from benchmarks.synthetic_library import Size, listed, made_events, seed_instance, store
from partitions.audiobooks import add_audiobooks, audiobooks, known_audiobooks
from resources.compute import GPU

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")
DEPLOYED = Path(__file__).parent.parent / "deploy" / "dagster.yaml"
BOOKS = ["10", "9", "11"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with temporary_postgres() as running:
        yield running


@pytest.fixture
def deployed(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME with the dagster.yaml of production; only the port is the cluster's."""
    told = yaml.safe_load(DEPLOYED.read_text("utf-8"))
    told["storage"]["postgres"]["postgres_db"]["port"] = cluster.port
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": told["storage"], **_plain(told)}), "utf-8")
    return tmp_path


def _plain(told: dict[str, object]) -> dict[str, object]:
    """The blocks that need no cluster of Kubernetes."""
    names = ("telemetry", "nux", "concurrency", "run_monitoring", "run_retries", "retention", "schedules", "sensors")
    return {name: told[name] for name in names if name in told}


def test_the_deployed_configuration_keeps_everything_in_postgres(deployed: Path) -> None:
    with dg.DagsterInstance.from_config(str(deployed)) as instance:
        kinds = {
            type(storage).__name__
            for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
        }
    assert kinds == {"PostgresRunStorage", "PostgresEventLogStorage", "PostgresScheduleStorage"}


def test_a_run_and_what_it_made_are_there_when_the_instance_is_opened_again(deployed: Path) -> None:
    @dg.asset(key=["deu", "pages"], partitions_def=audiobooks("deu"))
    def pages() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"pages": 3}, data_version=dg.DataVersion("v1"))

    with dg.DagsterInstance.from_config(str(deployed)) as instance:
        assert add_audiobooks(instance, "deu", BOOKS) == BOOKS
        run = dg.materialize([pages], partition_key="9", instance=instance).run_id
        instance.event_log_storage.set_concurrency_slots(GPU, 3)
    with dg.DagsterInstance.from_config(str(deployed)) as instance:
        assert known_audiobooks(instance, "deu") == BOOKS  # in the order they came in: batches are meant in it
        assert add_audiobooks(instance, "deu", [*BOOKS, "12"]) == ["12"]
        assert instance.get_materialized_partitions(dg.AssetKey(["deu", "pages"])) == {"9"}
        found = instance.get_run_by_id(run)
        assert found is not None
        assert found.status is dg.DagsterRunStatus.SUCCESS
        assert instance.event_log_storage.get_concurrency_info(GPU).slot_count == 3


def test_a_library_is_seeded_alike_in_both_databases(deployed: Path) -> None:
    size = Size(30, 2, 1)
    books, key = size.books_of(), dg.AssetKey(["eng", "segments"])
    with dg.DagsterInstance.from_config(str(deployed)) as postgres, dg.instance_for_test() as sqlite:
        assert seed_instance(postgres, size, books) == seed_instance(sqlite, size, books)
        for each in (postgres, sqlite):
            assert known_audiobooks(each, "eng") == books["eng"]
            assert each.get_materialized_partitions(key) == set(books["eng"])


def test_events_stored_in_bulk_are_those_that_are_stored_one_by_one(deployed: Path) -> None:
    with dg.DagsterInstance.from_config(str(deployed)) as instance:
        for name in ("bulk", "single"):
            events = [*listed(name, ["1", "2"]), *made_events("a-run", [dg.AssetKey([name, "segments"])], ["1", "2"])]
            if name == "bulk":
                store(instance, events)
            for event in events if name == "single" else ():
                instance.store_event(event)
        bulk, single = (
            [
                sorted(map(str, instance.get_event_tags_for_asset(dg.AssetKey([name, "listing"])))),
                instance.get_materialized_partitions(dg.AssetKey([name, "segments"])),
                instance.get_materialized_partitions(dg.AssetKey([name, "listing"])),
                dg.AssetKey([name, "segments"]) in instance.all_asset_keys(),
            ]
            for name in ("bulk", "single")
        )
    assert bulk == single


def test_two_processes_write_at_once_and_no_event_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": cluster.storage}), "utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        before = _events(instance)
        wrote = concurrent_writes(tmp_path, writers=2, seconds=1.0)
        assert wrote.failed == []
        assert _events(instance) - before == len(wrote.seconds) + 2  # and each one's first


def _events(instance: dg.DagsterInstance) -> int:
    key, count, cursor = dg.AssetKey(["eng", "segments"]), 0, None
    while True:
        page = instance.fetch_materializations(key, limit=1000, cursor=cursor)
        count, cursor = count + len(page.records), page.cursor
        if not page.has_more:
            return count


def test_a_cluster_leaves_nothing_behind() -> None:
    with temporary_postgres() as short:
        folders = [path for path in Path("/tmp").glob("s2s-postgres-*") if _listens(path, short.port)]
        assert len(folders) == 1
    assert not folders[0].exists()
    with socket.socket() as asking:
        assert asking.connect_ex((short.host, short.port)) != 0


def _listens(folder: Path, port: int) -> bool:
    return (folder / f".s.PGSQL.{port}").exists()


def test_the_server_does_not_run_as_root(cluster: Cluster) -> None:
    folder = next(path for path in Path("/tmp").glob("s2s-postgres-*") if _listens(path, cluster.port))
    assert (folder / "data").stat().st_uid != 0 or os.getuid() != 0
