"""How many runs and processes many audiobooks lead to: the daemon's own code, real processes, real backfills."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from benchmarks.orchestration import LAYERS, ROOT, environment, measure, write_books
from demo.home import prepare_home
from partitions.audiobooks import add_audiobooks
from partitions.batches import BATCH
from resources.batch_executor import batches_in_process

TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def processes() -> dg.JobDefinition:
    """Two steps that tell which process they ran in."""
    books = dg.StaticPartitionsDefinition(["1", "2", "3"])

    def tell(context: dg.AssetExecutionContext) -> None:
        for book in context.partition_keys:
            context.add_asset_metadata({"pid": os.getpid(), "parent": os.getppid()}, partition_key=book)

    @dg.asset(partitions_def=books, backfill_policy=BATCH)
    def first(context: dg.AssetExecutionContext) -> None:
        tell(context)

    @dg.asset(partitions_def=books, backfill_policy=BATCH, deps=[first])
    def second(context: dg.AssetExecutionContext) -> None:
        tell(context)

    definitions = dg.Definitions(
        assets=[first, second],
        jobs=[dg.define_asset_job("both")],
        executor=batches_in_process(dg.multi_or_in_process_executor),
    )
    return definitions.resolve_job_def("both")


def _pids(tmp_path: Path, tags: dict[str, str]) -> set[int]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        with dg.execute_job(dg.reconstructable(processes), instance=instance, tags=tags) as result:
            assert result.success
        keys = (dg.AssetKey("first"), dg.AssetKey("second"))
        records = [record for key in keys for record in instance.fetch_materializations(key, 10).records]
        return {record.asset_materialization.metadata["pid"].value for record in records}  # type: ignore[union-attr,misc]


def test_the_steps_of_a_batch_share_the_process_of_their_run(tmp_path: Path) -> None:
    assert _pids(tmp_path, dict(zip(TAGS, ("1", "3"), strict=True))) == {os.getpid()}


def test_the_steps_of_any_other_run_have_a_process_each(tmp_path: Path) -> None:
    pids = _pids(tmp_path, {"dagster/partition": "1"})
    assert len(pids) == 2 and os.getpid() not in pids


@contextmanager
def _served(home: Path) -> Iterator[tuple[dg.DagsterInstance, WorkspaceProcessContext]]:
    """An instance on disk and the code location as the daemon sees it: from another process."""
    with environment(home, home, 0):
        prepare_home(home)
        with (
            dg.DagsterInstance.get() as instance,
            WorkspaceProcessContext(
                instance, ModuleTarget("s2s_assets.definitions", None, str(ROOT), "ours")
            ) as workspace,
        ):
            yield instance, workspace


def _tick(instance: dg.DagsterInstance, workspace: Any, minute: int) -> None:
    """Evaluate the automation conditions once, as the daemon does, so many minutes from now."""
    from dagster._daemon.asset_daemon import AssetDaemon

    daemon = AssetDaemon(settings=instance.get_auto_materialize_settings(), pre_sensor_interval_seconds=0)
    with freeze_time(datetime.now(timezone.utc) + timedelta(minutes=minute)):
        daemon._run_iteration_impl(workspace, None, {}, {})


def _make(instance: dg.DagsterInstance, layer: str, books: list[str]) -> None:
    for book in books:
        instance.report_runless_asset_event(dg.AssetMaterialization(["deu", layer], partition=book))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.keys` is deprecated")  # the daemon's own
def test_sixty_new_audiobooks_are_embedded_by_two_runs(tmp_path: Path) -> None:
    """The sensor `automation` asks for one backfill, and the backfill for batches of fifty and ten."""
    from dagster._daemon.backfill import execute_backfill_iteration

    new = [str(number) for number in range(101, 161)]
    with _served(tmp_path) as (instance, workspace):
        add_audiobooks(instance, "deu", ["1"])
        for layer in LAYERS:
            _make(instance, layer, ["1"])
        request = workspace.create_request_context()
        (sensor,) = [
            sensor
            for location in request.code_locations
            for repository in location.get_repositories().values()
            for sensor in repository.get_sensors()
            if sensor.name == "automation"
        ]
        instance.start_sensor(sensor)
        _tick(instance, workspace, 1)
        assert instance.get_backfills() == [] and instance.get_runs_count() == 0
        add_audiobooks(instance, "deu", new)
        _make(instance, "raw_audio", new)
        _make(instance, "segments", new)
        _tick(instance, workspace, 3)
        ticks = instance.get_ticks(sensor.get_remote_origin_id(), sensor.selector_id)
        assert [tick.tick_data.error for tick in ticks] == [None, None]
        (backfill,) = instance.get_backfills()
        assert instance.get_runs_count() == 0
        list(execute_backfill_iteration(workspace, logging.getLogger("daemon")))
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id}))
        ranges = sorted(tuple(run.tags[tag] for tag in TAGS) for run in runs)
        assert ranges == [("101", "150"), ("151", "160")]
        assert {key.to_user_string() for run in runs for key in run.asset_selection or ()} == {"deu/speech_embeddings"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources`:DeprecationWarning")  # Dagster's own backfills
def test_the_benchmark_of_orchestration_measures_five_audiobooks_through_a_real_daemon(tmp_path: Path) -> None:
    write_books(tmp_path / "books", 5)
    cost = measure(tmp_path / "books", 3, 5, tmp_path / "home", most_s=500)
    assert (cost.books, cost.runs) == (5, 2)
    assert 0 < cost.in_assets_s < cost.wall_s
    assert 0 < cost.in_assets_core_s < cost.core_s
    assert cost.events > 5 * len(LAYERS)
