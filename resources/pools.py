"""Pools: how many steps of a kind run at once on an instance, and who is at it.

An instance keeps its limits in its own storage, so the settings reach it only when somebody sets them: `make dev` and
`s2s demo` do, and in production `s2s pools --apply` before the daemon starts. What belongs here is setting and reading
back; which step belongs to which pool is said by its asset.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.instance import InstanceRef
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from resources.compute import CPU, DOWNLOAD, GPU
from resources.settings import Settings, home
from speech_mining.errors import SettingsError

if TYPE_CHECKING:
    from dagster._utils.concurrency import ConcurrencyKeyInfo

INSTANCE = "dagster"
"""Folder of the instance in the home, where DAGSTER_HOME names no other."""
GONE = "gone"
"""State of a run that holds a slot and is no longer known."""


@dataclass(frozen=True)
class Slot:
    """A place in a pool that a step holds."""

    run_id: str
    step: str
    run_state: str
    """Of the run, as Dagster words it: STARTED, FAILURE, …; `gone`: it was deleted."""
    stale: bool
    """The run has ended, and nobody took its place back yet."""


@dataclass(frozen=True)
class PoolState:
    """A pool as the instance has it, beside what the settings say."""

    name: str
    wanted: int | None
    """None: a pool that the settings do not know."""
    limit: int | None
    """None: never set, so that any number of steps may run at once."""
    by_default: bool
    """The limit is the default of dagster.yaml."""
    slots: tuple[Slot, ...]
    waiting: int
    """Steps that wait for a slot."""

    @property
    def as_wanted(self) -> bool:
        """Whether the limit is what the settings say."""
        return self.wanted is None or self.wanted == self.limit


def limits(settings: Settings) -> dict[str, int]:
    """Pool → steps at once."""
    return {GPU: settings.pools.gpu, CPU: settings.pools.cpu, DOWNLOAD: settings.pools.download}


def set_pools(instance: dg.DagsterInstance, settings: Settings) -> dict[str, tuple[int | None, int]]:
    """Give each pool the number of steps that the settings allow at once; each is set in one transaction.

    Steps that run already keep their places, also where the limit becomes lower than their number.

    Returns:
        pool → the limit before and after, of those that changed.
    """
    changed: dict[str, tuple[int | None, int]] = {}
    for pool, limit in limits(settings).items():
        before = _limit_of(instance.event_log_storage.get_concurrency_info(pool))
        if before != limit:
            instance.event_log_storage.set_concurrency_slots(pool, limit)
            changed[pool] = (before, limit)
    return changed


def pool_states(instance: dg.DagsterInstance, settings: Settings) -> list[PoolState]:
    """Every pool that the settings or the instance know, by name."""
    wanted, storage = limits(settings), instance.event_log_storage
    names = sorted({*wanted, *storage.get_concurrency_keys()})
    infos = {name: storage.get_concurrency_info(name) for name in names}
    run_states = _run_states(instance, {slot.run_id for info in infos.values() for slot in info.claimed_slots})
    return [_state(info, wanted.get(name), run_states) for name, info in infos.items()]


def free_stale_slots(instance: dg.DagsterInstance, settings: Settings) -> list[Slot]:
    """Take back the places of runs that have ended, as the daemon does some time after a run's end."""
    stale = [slot for state in pool_states(instance, settings) for slot in state.slots if slot.stale]
    for run_id in dict.fromkeys(slot.run_id for slot in stale):
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return stale


def instance_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The folder of the instance in force: DAGSTER_HOME, else the one in the home."""
    named = (os.environ if environment is None else environment).get("DAGSTER_HOME")
    return Path(named) if named else home().absolute() / INSTANCE


@contextmanager
def opened_instance() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance in force.

    Raises:
        SettingsError: there is none.
    """
    folder = instance_folder()
    if not (folder / "dagster.yaml").is_file():
        raise SettingsError(
            f"There is no Dagster instance in {folder}.",
            expected="a folder with a dagster.yaml",
            cause="DAGSTER_HOME is not set, or S2S_HOME names another home",
            fix="set DAGSTER_HOME; on a laptop `make dev` or `s2s demo` makes an instance in the home",
        )
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder.absolute()))) as instance:
        yield instance


def _limit_of(info: ConcurrencyKeyInfo) -> int | None:
    """What was set; the default of dagster.yaml does not count, since it may change."""
    return None if info.using_default_limit else info.limit


def _run_states(instance: dg.DagsterInstance, run_ids: set[str]) -> dict[str, dg.DagsterRunStatus]:
    known = instance.get_runs(dg.RunsFilter(run_ids=sorted(run_ids))) if run_ids else []
    return {run.run_id: run.status for run in known}


def _state(info: ConcurrencyKeyInfo, wanted: int | None, run_states: Mapping[str, dg.DagsterRunStatus]) -> PoolState:
    slots = [_slot(slot.run_id, slot.step_key, run_states.get(slot.run_id)) for slot in info.claimed_slots]
    waiting, by_default = len(info.pending_steps) - info.assigned_step_count, info.using_default_limit
    return PoolState(info.concurrency_key, wanted, info.limit, by_default, tuple(slots), waiting)


def _slot(run_id: str, step: str, state: dg.DagsterRunStatus | None) -> Slot:
    return Slot(run_id, step, GONE if state is None else state.value, state is None or state in FINISHED_STATUSES)
