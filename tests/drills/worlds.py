"""A home that is mined stage by stage, kept after each, so that a kill can be tried at any of them again and again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import tomlkit

from demo.home import prepare_home, set_pools
from demo.pipeline import Stage, first_stages, further_stages
from resources.record import disagreements
from resources.settings import FILE, Settings
from speech_mining.lake import STAGING, Lake
from speech_mining.upkeep.places import look
from speech_mining.upkeep.verification import verify

OF_THE_CLOCK = ("catalogue", "catalogue_reading")
"""Layers that tell when something was first seen: no two readings are equal to the byte."""
TIMES = ("first_seen", "last_changed")


@dataclass(frozen=True)
class World:
    """A home, and what it was after every stage."""

    home: Path
    kept: Path
    """A folder a stage: the home before it; the last is the home after all."""
    settings: Settings
    stages: tuple[Stage, ...]
    seconds: tuple[float, ...]
    """What the run of each stage took undisturbed, without the start of its process."""

    def restore(self, number: int) -> None:
        """Make the home what it was before a stage. Generations are never written again, so they are linked."""
        restore(self.kept / str(number), self.home)

    def after(self, number: int) -> Path:
        """The home as it was after a stage, undisturbed."""
        return self.kept / str(number + 1)


def write_settings(home: Path, settings: Mapping[str, Any]) -> None:
    """`s2s.toml`, so that every process of the home has the same settings."""
    home.mkdir(parents=True, exist_ok=True)
    (home / FILE).write_text(tomlkit.dumps(settings), "utf-8")


def open_home(home: Path) -> Settings:
    """Point this process at a home, and make what is missing of it."""
    settings = prepare_home(home)
    with dg.DagsterInstance.get() as instance:
        set_pools(instance, settings)
    return settings


def stages_of(settings: Settings, instance: dg.DagsterInstance) -> list[Stage]:
    """Every stage; those after the first are known once the first were run."""
    return [*first_stages(settings), *further_stages(settings, instance)]


def keep(home: Path, kept: Path) -> None:
    """Copy a home: the lake by links, the rest, which is written in place, byte by byte."""
    restore(home, kept)


def restore(source: Path, target: Path) -> None:
    """Make `target` what `source` is."""
    shutil.rmtree(target, ignore_errors=True)
    for folder, _, files in os.walk(source):
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True)
        linked = "lake" in place.relative_to(target).parts
        for name in files:
            if linked and name != "CURRENT":
                os.link(Path(folder) / name, place / name)
            else:
                shutil.copy2(Path(folder) / name, place / name)


def content(home: Path) -> dict[str, bytes | str]:
    """Every file of the lake, byte for byte; of what the clock is in, the tables without their times."""
    lake = home / "lake"
    files: dict[str, bytes | str] = {
        path.relative_to(lake).as_posix(): path.read_bytes()
        for path in lake.rglob("*")
        if path.is_file() and path.relative_to(lake).parts[0] not in OF_THE_CLOCK
    }
    return {**files, **_without_times(Lake(lake))}


def _without_times(lake: Lake) -> dict[str, str]:
    partition = lake.find("catalogue")
    if partition is None:
        return {}
    tables = {name: partition.read_frame(name) for name in partition.files if name.endswith(".parquet")}
    plain = {name: table.drop([time for time in TIMES if time in table.columns]) for name, table in tables.items()}
    return {f"catalogue/{name}": table.write_json() for name, table in plain.items()}


def leftovers(home: Path) -> list[str]:
    """What a finished run should not leave: staging, locks, downloads; when a server was last asked may stay."""
    staged = (home / "lake" / STAGING).glob("*")
    arrived = (path for path in (home / "downloads").rglob("*") if path.is_file() and path.name != ".pace")
    return sorted(str(path.relative_to(home)) for path in (*staged, *arrived))


@cache
def wrong_undisturbed(home: Path) -> list[str]:
    """`wrong` of a home that is kept: it is the same every time."""
    return wrong(home)


def wrong(home: Path) -> list[str]:
    """What `s2s verify` finds in a home, Dagster's record included; nothing of what is merely not made yet."""
    lake = Lake(home / "lake")
    found = [*verify(lake).findings]
    places = [(place.layer, place.key) for place in look(lake).places if place.has_current]
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        found += disagreements(instance, lake, places)
    return [f"{finding.kind} {finding.place}: {finding.found}" for finding in found]


def in_progress(home: Path, run_ids: set[str]) -> str:
    """The step that the newest run was at, as Dagster recorded it; where it was killed."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        new = [run for run in instance.get_runs() if run.run_id not in run_ids]
        if not new:
            return "before the run was recorded"
        begun: dict[str, bool] = {}
        for event in instance.all_logs(new[0].run_id):
            happened = event.dagster_event
            if happened is None or happened.step_key is None:
                continue
            if happened.is_step_start:  # what is planned has a step too, long before it begins
                begun[happened.step_key] = False
            elif happened.is_step_success or happened.is_step_failure:
                begun[happened.step_key] = True
        at = [step for step, ended in begun.items() if not ended]
        return at[-1].replace("__", "/") if at else ("between steps" if begun else "before the first step")


def known_runs(home: Path) -> set[str]:
    """Ids of the runs that the instance remembers."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        return {run.run_id for run in instance.get_runs()}


def await_run(home: Path, known: set[str], process: Callable[[], bool], within_s: float = 300) -> None:
    """Wait until a run that was not known before has begun, or the process that would begin it is gone."""
    until = time.monotonic() + within_s
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        while time.monotonic() < until and process():
            new = [run for run in instance.get_runs(limit=3) if run.run_id not in known]
            if any(run.status == dg.DagsterRunStatus.STARTED for run in new):
                return
            time.sleep(0.02)


def seconds_of_last_run(home: Path) -> float:
    """What the newest run took, as Dagster recorded it."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        (record,) = instance.get_run_records(limit=1)
        return float((record.end_time or 0) - (record.start_time or 0))
