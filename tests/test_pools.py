"""Pools of a real instance: set from the settings, read back, and cleared of what dead runs left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import typer
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG
from typer.testing import CliRunner

from resources.dead_runs import _runs_since, end_dead_runs
from resources.pools import free_stale_slots, instance_folder, limits, pool_states, set_pools
from resources.pools_command import pools
from resources.settings import Settings, load_settings
from speech_mining.errors import SettingsError

app = typer.Typer()
app.command()(pools)
WANTED = load_settings(pools={"gpu": 4, "cpu": 8, "download": 3})


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("concurrency: {pools: {granularity: op}}\ntelemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as made:
        yield made


def limits_of(instance: dg.DagsterInstance, settings: Settings = WANTED) -> dict[str, int | None]:
    return {state.name: state.limit for state in pool_states(instance, settings)}


def run_of(instance: dg.DagsterInstance, state: dg.DagsterRunStatus) -> str:
    @dg.job
    def nothing() -> None: ...

    return str(instance.create_run_for_job(nothing, status=state).run_id)


def test_an_instance_takes_the_limits_of_the_settings_and_setting_again_changes_nothing(
    instance: dg.DagsterInstance,
) -> None:
    assert limits_of(instance) == dict.fromkeys(("cpu", "download", "gpu"))
    assert set_pools(instance, WANTED) == {"gpu": (None, 4), "cpu": (None, 8), "download": (None, 3)}
    assert limits_of(instance) == limits(WANTED) == {"gpu": 4, "cpu": 8, "download": 3}
    assert set_pools(instance, WANTED) == {}
    fewer = load_settings(pools={"gpu": 2, "cpu": 8, "download": 3})
    assert set_pools(instance, fewer) == {"gpu": (4, 2)}


def test_a_default_of_the_instance_is_no_limit_that_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster.yaml").write_text("concurrency: {pools: {granularity: op, default_limit: 1}}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    one = load_settings(pools={"gpu": 1, "cpu": 1, "download": 1})
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.initialize_concurrency_limit_to_default("gpu")
        (gpu,) = [state for state in pool_states(instance, one) if state.name == "gpu"]
        assert (gpu.limit, gpu.by_default) == (1, True)
        assert set_pools(instance, one) == {"gpu": (None, 1), "cpu": (None, 1), "download": (None, 1)}
        assert not any(state.by_default for state in pool_states(instance, one))


def test_who_holds_a_place_and_who_waits_is_told(instance: dg.DagsterInstance) -> None:
    set_pools(instance, load_settings(pools={"gpu": 1}))
    alive, other = (run_of(instance, dg.DagsterRunStatus.STARTED) for _ in range(2))
    assert instance.event_log_storage.claim_concurrency_slot("gpu", alive, "deu__speech_index").is_claimed
    assert not instance.event_log_storage.claim_concurrency_slot("gpu", other, "eng__speech_index").is_claimed
    (gpu,) = [state for state in pool_states(instance, WANTED) if state.name == "gpu"]
    (slot,) = gpu.slots
    assert (slot.run_id, slot.step, slot.run_state, slot.stale) == (alive, "deu__speech_index", "STARTED", False)
    assert gpu.waiting == 1
    assert not gpu.as_wanted


def test_places_of_dead_and_deleted_runs_are_stale_and_can_be_taken_back(instance: dg.DagsterInstance) -> None:
    set_pools(instance, WANTED)
    states = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS)
    alive, dead, deleted = (run_of(instance, state) for state in states)
    for run_id in (alive, dead, deleted):
        assert instance.event_log_storage.claim_concurrency_slot("cpu", run_id, "step").is_claimed
    # the run's row alone goes, as when a storage was restored from an older copy: deleting by Dagster frees its places
    instance.run_storage.delete_run(deleted)
    found = {
        slot.run_id: (slot.run_state, slot.stale) for state in pool_states(instance, WANTED) for slot in state.slots
    }
    assert found == {alive: ("STARTED", False), dead: ("FAILURE", True), deleted: ("gone", True)}
    assert {slot.run_id for slot in free_stale_slots(instance, WANTED)} == {dead, deleted}
    left = [slot.run_id for state in pool_states(instance, WANTED) for slot in state.slots]
    assert left == [alive]


@pytest.mark.usefixtures("instance")
def test_the_command_shows_a_difference_applies_it_and_then_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_POOLS__GPU", "4")
    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[3].split() == ["gpu", "4", "-", "0", "0"]
    applied = CliRunner().invoke(app, ["--apply"])
    assert applied.exit_code == 0 and "gpu: no limit → 4" in applied.stderr
    again = CliRunner().invoke(app, ["--apply", "--json"])
    assert again.exit_code == 0 and again.stderr == ""
    assert {pool["name"]: pool["limit"] for pool in json.loads(again.stdout)} == {"cpu": 2, "download": 2, "gpu": 4}


def test_the_command_takes_back_what_a_dead_run_holds(instance: dg.DagsterInstance) -> None:
    set_pools(instance, load_settings())
    dead = run_of(instance, dg.DagsterRunStatus.FAILURE)
    instance.event_log_storage.claim_concurrency_slot("gpu", dead, "deu__speech_index")
    assert f"deu__speech_index of run {dead}: FAILURE, stale" in CliRunner().invoke(app, []).stdout
    freed = CliRunner().invoke(app, ["--free"])
    assert freed.exit_code == 0 and f"taken back: deu__speech_index of run {dead} (FAILURE)" in freed.stderr
    assert dead not in freed.stdout


# Runs that a power cut leaves


def begun(instance: dg.DagsterInstance, pid: int, **tags: str) -> str:
    """A run that a code server of this machine began, as the process of that number."""

    @dg.job
    def nothing() -> None: ...

    given = {GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": "/tmp/gone"}), **tags}
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags=given)
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return str(run.run_id)


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_whose_process_is_gone_is_called_failed_and_gives_its_places_back(instance: dg.DagsterInstance) -> None:
    set_pools(instance, WANTED)
    gone, alive = begun(instance, dead_process()), begun(instance, os.getpid())
    elsewhere = begun(instance, dead_process(), **{GRPC_INFO_TAG: json.dumps({"host": "code.cluster", "port": 4000})})
    for run_id in (gone, alive, elsewhere):
        assert instance.event_log_storage.claim_concurrency_slot("cpu", run_id, "step").is_claimed
    assert end_dead_runs(instance) == [gone]
    states = {run.run_id: run.status.value for run in instance.get_runs()}
    assert states == {gone: "FAILURE", alive: "STARTED", elsewhere: "STARTED"}
    holding = {slot.run_id for state in pool_states(instance, WANTED) for slot in state.slots}
    assert holding == {alive, elsewhere}
    assert end_dead_runs(instance) == []


def test_a_process_that_has_the_number_of_a_dead_one_is_another(instance: dg.DagsterInstance) -> None:
    run_id = begun(instance, os.getpid())
    assert end_dead_runs(instance) == []
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert _runs_since(process.pid, time.time())
        assert not _runs_since(process.pid, time.time() - 3600)
    finally:
        process.communicate()
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]


def test_a_run_that_has_not_told_its_process_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_of(instance, dg.DagsterRunStatus.STARTED)
    assert end_dead_runs(instance) == []


def test_without_an_instance_the_command_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    error = CliRunner().invoke(app, []).exception
    assert isinstance(error, SettingsError) and "nowhere" in str(error) and "make dev" in str(error)


def test_the_instance_is_the_one_of_the_environment_else_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    assert instance_folder({}) == tmp_path / "dagster"
    assert instance_folder({"DAGSTER_HOME": "/srv/dagster"}) == Path("/srv/dagster")


def test_both_files_for_instances_are_what_dagster_reads() -> None:
    import yaml
    from dagster._config import Shape, validate_config
    from dagster._core.instance.config import dagster_instance_config_schema

    from demo.home import _DAGSTER_YAML

    for text in (_DAGSTER_YAML, (Path(__file__).parent.parent / "deploy" / "dagster.yaml").read_text("utf-8")):
        checked = validate_config(Shape(dagster_instance_config_schema()), yaml.safe_load(text))
        assert checked.success, checked.errors
        given = yaml.safe_load(text)
        assert given["run_retries"] == {"enabled": True, "max_retries": 3, "retry_on_asset_or_op_failure": False}
        assert given["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
        assert set(given["retention"]) == {"schedule", "sensor", "auto_materialize"}
        assert "password: {" in text or "postgres" not in text
