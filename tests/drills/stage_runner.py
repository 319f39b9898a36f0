"""Runs stages of a home in processes of their own, which may be killed: see `tests.forked_runs`."""

from __future__ import annotations

from pathlib import Path

import av  # noqa: F401
import dagster as dg
import onnxruntime  # noqa: F401
import silero_vad  # noqa: F401

from demo.home import prepare_home
from demo.pipeline import release_killed_runs, run_stage
from resources.settings import load_settings
from s2s_assets.definitions import build
from tests.drills.worlds import stages_of
from tests.forked_runs import serve

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def location() -> dg.JobDefinition:
    """All assets, for the processes of steps, which find it by name."""
    return build(load_settings()).resolve_implicit_global_asset_job_def()


def run(home: str, number: str, how: str) -> bool:
    """One stage: in this process, or its last asset with a process a step."""
    settings = prepare_home(Path(home))
    with dg.DagsterInstance.get() as instance:
        release_killed_runs(instance)
        stage = stages_of(settings, instance)[int(number)]
        if how == "here":
            run_stage(build(settings), instance, stage, lambda line: None)
            return True
        processes = {"execution": {"config": {"multiprocess": {"max_concurrent": 1}}}}
        with dg.execute_job(
            dg.reconstructable(location),
            instance=instance,
            asset_selection=[stage.assets[-1]],
            run_config={**QUIET, **processes},
            tags={"dagster/partition": stage.partition} if stage.partition else {},
        ) as done:
            return bool(done.success)


def stages(home: str) -> list[str]:
    """Titles of the stages of a home."""
    settings = prepare_home(Path(home))
    with dg.DagsterInstance.get() as instance:
        return [stage.title for stage in stages_of(settings, instance)]


if __name__ == "__main__":
    serve(run)
