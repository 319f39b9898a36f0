"""The world that drills disturb: mined once a module, stage by stage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from demo.mirror import serve_library
from tests.drills.worlds import World, keep, open_home, seconds_of_last_run, stages_of, write_settings
from tests.forked_runs import Runner
from tests.tiny_library import make_library, written_settings

LIBRARY = os.environ.get("S2S_DRILLS_LIBRARY", "tiny")
"""`miniature`: all of the demo's, in four languages; else two small books cut out of it."""


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runner = Runner("tests.drills.stage_runner")
    yield runner
    runner.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, runner: Runner) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("drills")
    home, environment = folder / "home", dict(os.environ)
    try:
        if LIBRARY == "miniature":
            write_settings(home, {})
            yield mined(home, folder / "kept", runner)
        else:
            make_library(folder / "library")
            with serve_library(folder / "library") as mirror:
                write_settings(home, written_settings(folder / "library", mirror.url))
                yield mined(home, folder / "kept", runner)
    finally:
        os.environ.clear()
        os.environ.update(environment)


def mined(home: Path, kept: Path, runner: Runner) -> World:
    """Run every stage to its end, and keep the home before each."""
    settings, seconds, number = open_home(home), [], 0
    while True:
        with dg.DagsterInstance.get() as instance:
            stages = stages_of(settings, instance)
        keep(home, kept / str(number))
        if number == len(stages):
            return World(home, kept, settings, tuple(stages), tuple(seconds))
        runner.start(home=home, number=str(number), how="here")
        assert runner.end() == 0, stages[number].title
        seconds.append(seconds_of_last_run(home))
        number += 1
