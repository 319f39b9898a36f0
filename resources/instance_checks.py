"""What `s2s doctor` looks at beside the machine: settings, lake, instance, pools, devices, memory.

What belongs here is one function a row, which tells what it found or raises; nothing is changed. The only address that
is asked is that of the instance's own storage.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from resources.settings import Settings, load_settings
from speech_mining.cli.doctor import AbsentError, Check, Finding
from speech_mining.errors import SettingsError

if TYPE_CHECKING:
    import dagster as dg

    from resources.pools import PoolState

_RUNS = "runs of the UI and the daemon"
_IN_YAML = "set {} in dagster.yaml, see docs/resources.md"
_GIB = 2**30


def findings() -> list[Finding]:
    """Every row; without readable settings only that one, and of an instance that does not open only one."""
    try:
        settings = load_settings()
    except Exception:
        return [Check("Settings", "everything", lambda: str(load_settings()), "correct what is named").finding()]
    rows = [
        Check("Lake", "everything", partial(_lake, settings), "set S2S_HOME or storage_url to where you may write"),
        Check("Execution", _RUNS, partial(_execution, settings), "see docs/kubernetes.md", needed=False),
        Check("Memory budgets", "mining", partial(_budgets, settings), "see docs/resources.md", needed=False),
        Check("Devices", "steps on GPUs", partial(_devices, settings), "see docs/resources.md", needed=False),
    ]
    return [*(row.finding() for row in rows), *_of_instance(settings)]


def _of_instance(settings: Settings) -> list[Finding]:
    """The rows about the instance, which is opened once: one that does not answer takes its time to say so."""
    from resources.pools import opened_instance

    try:
        with opened_instance() as instance:
            return [row.finding() for row in _rows_of(instance, settings)]
    except Exception as problem:
        return [_unopened(problem)]


def _rows_of(instance: dg.DagsterInstance, settings: Settings) -> list[Check]:
    rows: list[tuple[str, str, Callable[[], str], str]] = [
        ("Dagster instance", _RUNS, partial(_storage, instance), "see deploy/dagster.yaml"),
        ("Pools", "bounding what runs at once", partial(_pools, settings, instance), "s2s pools --apply"),
        ("Stale slots", "bounding what runs at once", partial(_stale, settings, instance), "s2s pools --free"),
        (
            "Daemons",
            "schedules, queued runs, retries",
            partial(_daemons, instance),
            "start dagster-daemon, or make dev",
        ),
        ("Run monitoring", "ending runs that died", partial(_monitoring, instance), _IN_YAML.format("run_monitoring")),
        ("Run retries", "runs that died of memory", partial(_retries, instance), _IN_YAML.format("run_retries")),
    ]
    return [Check(*row, needed=False) for row in rows]


def _unopened(problem: Exception) -> Finding:
    """One row on an instance that is not there or does not answer; the secrets of its address are not told."""
    first: BaseException = problem
    while first.__cause__ is not None:
        first = first.__cause__
    told = problem.found if isinstance(problem, SettingsError) else f"{type(first).__name__}: {first}"
    fix = "make dev makes one in the home; else set DAGSTER_HOME, and see deploy/dagster.yaml"
    return Finding("Dagster instance", "optional", told.strip().splitlines()[0], _RUNS, fix)


# The lake and this machine


def _lake(settings: Settings) -> str:
    """Whether it can be written, and the room beside it; an object store is not asked."""
    url = settings.lake_url
    if "://" in url and not url.startswith("file://"):
        return f"{url.split('://')[0]}:// (an object store is not asked here)"
    folder = Path(url.removeprefix("file://"))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise AbsentError(f"{there} cannot be written by user {os.getuid()}")
    free = shutil.disk_usage(there).free
    if free < settings.storage.reserve_mb * 2**20:
        raise AbsentError(f"{free / _GIB:.1f} GiB free in {there}, storage.reserve_mb is {settings.storage.reserve_mb}")
    return f"{folder}, writable, {free / _GIB:.1f} GiB free"


def _execution(settings: Settings) -> str:
    if settings.execution == "local":
        return "local: each step a process of this machine"
    where = "inside a cluster" if "KUBERNETES_SERVICE_HOST" in os.environ else "outside the cluster"
    return f"k8s: each step a pod; this is {where}"


def _budgets(settings: Settings) -> str:
    from resources.budgets import repeats_budget, search_budget

    rows = {"a search": search_budget(settings), "finding repeats": repeats_budget(settings)}
    told = [f"{name} {budget.memory_gb:.1f} GB ({budget.why})" for name, budget in rows.items()]
    return f"{'; '.join(told)}; halved up to {settings.memory.retries} times when memory did not suffice"


def _devices(settings: Settings) -> str:
    from resources.devices import holder_of, lock_folder, visible_devices

    devices, folder = visible_devices(), lock_folder(settings)
    if not devices:
        raise AbsentError("no GPU is visible: steps of pool gpu use the CPU")
    if settings.execution == "local" and settings.pools.gpu > len(devices):
        raise AbsentError(f"pools.gpu is {settings.pools.gpu}, and {len(devices)} devices are visible")
    holders = [(device, holder_of(device, folder)) for device in devices]
    return "; ".join(f"{device.told}: {holder.told if holder else 'free'}" for device, holder in holders)


# The instance


def _storage(instance: dg.DagsterInstance) -> str:
    """The kind of its storage, which is asked for the number of runs."""
    kind = type(instance.event_log_storage).__name__.removesuffix("EventLogStorage").replace("Sqlite", "SQLite")
    return f"{kind} storage, {instance.get_runs_count()} runs; {instance.root_directory}"


def _pools(settings: Settings, instance: dg.DagsterInstance) -> str:
    from resources.pools import pool_states

    states = pool_states(instance, settings)
    told = "; ".join(_pool(state) for state in states)
    if not all(state.as_wanted for state in states):
        raise AbsentError(told)
    return told


def _pool(state: PoolState) -> str:
    limit = "no limit" if state.limit is None else f"{len(state.slots)} of {state.limit} taken"
    unlike = "" if state.as_wanted else f", the settings say {state.wanted}"
    holders = sorted({slot.run_id[:8] for slot in state.slots})
    by = f" by runs {', '.join(holders)}" if holders else ""
    return f"{state.name}: {limit}{by}, {state.waiting} wait{unlike}"


def _stale(settings: Settings, instance: dg.DagsterInstance) -> str:
    from resources.pools import pool_states

    stale = [slot for state in pool_states(instance, settings) for slot in state.slots if slot.stale]
    if stale:
        raise AbsentError("; ".join(f"{slot.step} of run {slot.run_id[:8]} ({slot.run_state})" for slot in stale))
    return "none: every slot that is taken belongs to a run that lives"


def _daemons(instance: dg.DagsterInstance) -> str:
    """How old the last sign of life of each daemon is."""
    statuses = instance.get_daemon_statuses()
    ages = {
        name: None if status.last_heartbeat is None else time.time() - status.last_heartbeat.timestamp
        for name, status in sorted(statuses.items())
    }
    told = ", ".join(f"{name.lower()} {'never' if age is None else f'{age:.0f} s ago'}" for name, age in ages.items())
    if not all(status.healthy for status in statuses.values()):
        raise AbsentError(f"last seen: {told}")
    return f"last seen: {told}"


def _monitoring(instance: dg.DagsterInstance) -> str:
    """Whether the daemon looks after runs whose process or pod is gone."""
    if not instance.run_monitoring_enabled:
        raise AbsentError("off: a run that dies stays STARTED")
    who = "the daemon asks for each run's worker"
    if not instance.run_launcher.supports_check_run_worker_health:
        who = "the code server notices a run's process that dies, as long as it lives itself"
    return f"on, every {instance.run_monitoring_poll_interval_seconds} s; {who}"


def _retries(instance: dg.DagsterInstance) -> str:
    if not instance.run_retries_enabled:
        raise AbsentError("off: a run that dies is not launched again")
    also = "" if instance.run_retries_retry_on_asset_or_op_failure else ", not where a step failed by itself"
    return f"on, {instance.run_retries_max_retries} times{also}"
