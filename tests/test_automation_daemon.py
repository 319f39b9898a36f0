"""The sensor `automation` as production has it: Dagster's daemon, a code server of its own, an instance on disk.

What is asked for lies in the instance's queue. Between two loads of the code location everything but the instance ends,
as when daemon and code server are restarted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time, instance_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.asset_daemon import AssetDaemon

from partitions.audiobooks import add_audiobooks
from tests.asset_checks import passing

TARGET = ModuleTarget("s2s_assets.definitions", None, str(Path(__file__).parent.parent), "s2s")
QUEUE = {"module": "dagster._core.run_coordinator", "class": "QueuedRunCoordinator"}
MONDAY = datetime(2026, 1, 5, 12, 10, tzinfo=timezone.utc)


@contextmanager
def _daemon(instance: dg.DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    """The location in a server process, and the sensor turned on, as it was or anew."""
    with create_test_daemon_workspace_context(TARGET, instance) as workspace:
        request = workspace.create_request_context()
        (entry,) = request.get_code_location_entries().values()
        assert entry.code_location, entry.load_error
        (repository,) = entry.code_location.get_repositories().values()
        instance.start_sensor(repository.get_sensor("automation"))
        yield workspace


def _tick(workspace: WorkspaceProcessContext, instance: dg.DagsterInstance, now: datetime) -> set[tuple[str, str]]:
    """One iteration of the daemon; what it queued is made, and told."""
    with freeze_time(now):
        AssetDaemon(settings={}, pre_sensor_interval_seconds=30)._run_iteration_impl(
            workspace, threadpool_executor=None, amp_tick_futures={}, debug_crash_flags={}
        )
    asked = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])):
        partition = run.tags.get("dagster/partition")
        for asset in run.asset_selection or ():
            asked.add((asset.to_user_string(), partition or ""))
            _log(instance, run.run_id, DagsterEventType.ASSET_MATERIALIZATION, _made(asset, partition))
        _log(instance, run.run_id, DagsterEventType.RUN_SUCCESS, None)
    return asked


def _made(asset: dg.AssetKey, partition: str | None) -> StepMaterializationData:
    return StepMaterializationData(dg.AssetMaterialization(asset, partition=partition))


def _pass(instance: dg.DagsterInstance, asset: str, partition: str, check: str) -> None:
    instance.report_runless_asset_event(passing(instance, dg.AssetKey.from_user_string(asset), partition, check))


def _log(instance: dg.DagsterInstance, run: str, kind: DagsterEventType, told: StepMaterializationData | None) -> None:
    event = DagsterEvent(kind.value, job_name="__ASSET_JOB", event_specific_data=told)
    instance.report_dagster_event(event, run_id=run)


def _make(instance: dg.DagsterInstance, asset: str, partition: str) -> None:
    key = dg.AssetKey.from_user_string(asset)
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))


@pytest.mark.slow
def test_the_daemon_asks_for_what_the_conditions_say_and_remembers_it_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    monkeypatch.setenv("S2S_LANGUAGES", "deu,eng")
    monkeypatch.setenv("S2S_CATALOGUE_URL", "https://librivox.org")
    monkeypatch.setenv("S2S_ENCODER", "sonar")
    minute, week = timedelta(minutes=1), timedelta(days=7)
    with warnings.catch_warnings(), instance_for_test({"run_coordinator": QUEUE}) as instance:
        warnings.simplefilter("ignore")
        for language in ("deu", "eng"):
            add_audiobooks(instance, language, ["1"])
            for layer in ("raw_audio", "segments", "speech_embeddings"):
                _make(instance, f"{language}/{layer}", "1")
            _make(instance, f"{language}/speech_index", language)
        for layer in ("neighbours", "pairs", "corpus", "history"):
            _make(instance, f"s2s_{layer}", "deu-eng")
        for check in ("durations_within_bounds", "scores_reach_the_floor"):
            _pass(instance, "s2s_pairs", "deu-eng", check)
        with _daemon(instance) as workspace:
            assert _tick(workspace, instance, MONDAY) == set()
            add_audiobooks(instance, "deu", ["2"])
            for layer in ("raw_audio", "segments"):
                _make(instance, f"deu/{layer}", "2")
            assert _tick(workspace, instance, MONDAY + minute) == {("deu/speech_embeddings", "2")}
            assert _tick(workspace, instance, MONDAY + 2 * minute) == set()
        monkeypatch.setenv("S2S_MINING__THRESHOLD", "1.07")
        with _daemon(instance) as workspace:
            assert _tick(workspace, instance, MONDAY + 3 * minute) >= {("s2s_corpus", "deu-eng")}
            asked = _tick(workspace, instance, MONDAY + week)
            assert asked >= {("deu/speech_index", "deu")} and not any("eng" in asset for asset, _ in asked)
            asked = _tick(workspace, instance, MONDAY + week + minute)
            assert asked >= {("s2s_neighbours", "deu-eng"), ("s2s_pairs", "deu-eng")}
            assert not any("speech" in asset for asset, _ in asked)
