"""Runs that nobody will end: their code server, which would notice that they died, died with them.

That is what a power cut leaves on one machine. A run whose process is gone is called failed, so that the daemon
launches it again where `run_retries` is on; left alone it would be STARTED for ever, and hold its places in the pools
and its partitions. In Kubernetes the daemon asks the cluster instead (`run_monitoring`), and nothing is done here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG

from speech_mining.writers import began

_CLOCKS_APART_S = 2.0
"""The kernel counts a process' age from its boot, in whole seconds."""


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Call every run failed that a code server of this machine began, and whose process is gone.

    Returns:
        their ids.
    """
    under_way = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    dead = [run for run in instance.get_runs(under_way) if _of_this_machine(run) and _is_gone(instance, run)]
    for run in dead:
        instance.report_run_failed(run, "Its process is gone, and so was the code server that began it.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]


def _of_this_machine(run: dg.DagsterRun) -> bool:
    told = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    return "socket" in told or told.get("host") in ("localhost", "127.0.0.1")


def _is_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process that wrote the run's first event of itself is no more; unknown is not gone."""
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event else None
        if pid is not None and event is not None and event.step_key is None:
            return not _runs_since(int(str(pid.value)), entry.timestamp)
    return False


def _runs_since(pid: int, moment: float) -> bool:
    """Whether a process of that number is there and began before a moment: numbers are given out again."""
    ticks = began(pid)
    return bool(ticks) and _boot_s() + int(ticks) / os.sysconf("SC_CLK_TCK") <= moment + _CLOCKS_APART_S


def _boot_s() -> float:
    """When this machine began, in seconds since 1970; 0 where it does not say: then every process is old."""
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    return next((float(line[1]) for line in lines if line[:1] == ["btime"]), 0.0)
