"""Runs stages of a home in processes of their own, which may be killed: see `tests.forked_runs`."""

from __future__ import annotations

from pathlib import Path

import av  # noqa: F401
import dagster as dg
import onnxruntime  # noqa: F401
import silero_vad  # noqa: F401
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.reconstruct import ReconstructableRepository

from demo.home import prepare_home
from demo.pipeline import release_killed_runs, run_stage
from resources.settings import load_settings
from s2s_assets.definitions import build
from tests.drills.worlds import stages_of
from tests.forked_runs import serve

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def location() -> dg.Definitions:
    """The code location, for the processes of steps, which find it by name."""
    return build(load_settings())


LOCATION = ReconstructableRepository.for_module(
    "tests.drills.stage_runner", "location", working_directory=str(Path(__file__).parents[2])
)


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
            LOCATION.get_reconstructable_job(IMPLICIT_ASSET_JOB_NAME),
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
