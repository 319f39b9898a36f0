"""SIGKILL at seeded random moments of every asset: after one more run the lake and Dagster's record are as undisturbed.

A world is mined once, stage by stage, and kept after each. A drill puts the home back to before a stage, kills a run
of it somewhere, runs it again, and holds the lake against the one that was not disturbed, byte for byte.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.drills.worlds import (
    World,
    await_run,
    content,
    in_progress,
    known_runs,
    leftovers,
    wrong,
    wrong_undisturbed,
)  # fmt: skip
from tests.forked_runs import Runner

DRILLS = int(os.environ.get("S2S_DRILLS", "6"))
"""Kills in all."""
STEPS = 8
"""One kill in so many is of a step's own process, which costs a start of Python."""
EARLY = 10
"""One kill in so many comes before the run begins."""
STEP_S = 6.0
"""What a step's own process takes, most of it to import what it needs."""
START_S = 2.0
"""What the start of a run's process takes, at most of the time."""
SEED = 8


@dataclass(frozen=True)
class Kill:
    """One drill: which stage, whose process, when."""

    stage: int
    how: str
    share: float
    """Of what the run takes undisturbed."""
    early: bool
    """Before the run began: while its process starts."""


def plan(world: World, drills: int) -> list[Kill]:
    """Every stage in turn, in an order of chance, each at a moment of its own; some in the process of a step."""
    chance = random.Random(SEED)
    order = [number for number in range(len(world.stages))]
    chance.shuffle(order)
    single = [number for number in order if not world.stages[number].books and number > 1]
    kills = []
    for drill in range(drills):
        of_step = drill % STEPS == STEPS // 2
        stage = single[drill // STEPS % len(single)] if of_step else order[drill % len(order)]
        kills.append(Kill(stage, "step" if of_step else "run", chance.random(), drill % EARLY == EARLY // 2))
    return kills


@pytest.mark.drill
@pytest.mark.slow
@pytest.mark.timeout(DRILLS * 120 + 1200)
def test_whatever_is_killed_one_more_run_makes_the_lake_and_the_record_what_they_were(
    world: World, runner: Runner
) -> None:
    told: Counter[tuple[str, str]] = Counter()
    for kill in plan(world, DRILLS):
        world.restore(kill.stage)
        known = known_runs(world.home)
        ended = killed(world, runner, kill, known)
        at = "the end" if ended == 0 else in_progress(world.home, known)
        told[kill.how, at] += 1
        again(world, runner, kill)
        title = f"{world.stages[kill.stage].title}, {kill}, at {at}"
        assert same(world, kill), title
        assert wrong(world.home) == wrong_undisturbed(world.after(kill.stage)), title
        assert leftovers(world.home) == [], title
        report(told)


def killed(world: World, runner: Runner, kill: Kill, known: set[str]) -> int:
    """Run a stage and kill it; returns how it ended."""
    if kill.how == "step":
        return killed_step(world, runner, kill)
    pid = runner.start(home=world.home, number=str(kill.stage), how="here")
    if kill.early:
        time.sleep(START_S * kill.share)
    else:
        await_run(world.home, known, lambda: alive_and_no_zombie(pid))
        time.sleep(world.seconds[kill.stage] * kill.share)
    os.kill(pid, signal.SIGKILL)
    ended = runner.end()
    assert ended in (0, -signal.SIGKILL)
    return ended


def killed_step(world: World, runner: Runner, kill: Kill) -> int:
    """Kill the process of a step; its run ends by itself, and says so."""
    runner.start(home=world.home, number=str(kill.stage), how="steps")
    step = step_of(world.home)
    time.sleep(STEP_S * kill.share)
    with suppress(ProcessLookupError):
        os.kill(step, signal.SIGKILL)
    return runner.end()


def alive_and_no_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def step_of(home: Path) -> int:
    """The process of the step that runs for a home, once there is one."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                spawned = b"spawn_main" in (process / "cmdline").read_bytes()
                environment = (process / "environ").read_bytes() if spawned else b""
            except OSError:
                continue
            if f"S2S_HOME={home}".encode() in environment.split(b"\0"):
                return int(process.name)
        time.sleep(0.05)
    raise AssertionError("no step began")


def again(world: World, runner: Runner, kill: Kill) -> None:
    runner.start(home=world.home, number=str(kill.stage), how="here")
    assert runner.end() == 0, kill


def same(world: World, kill: Kill) -> bool:
    now, undisturbed = content(world.home), content(world.after(kill.stage))
    differ = sorted(name for name in now.keys() | undisturbed.keys() if now.get(name) != undisturbed.get(name))
    assert differ == []
    return True


def report(told: Counter[tuple[str, str]]) -> None:
    """Keep where the kills fell so far, if a file is asked for."""
    asked = os.environ.get("S2S_DRILLS_REPORT")
    if asked:
        rows = [{"killed": how, "at": at, "kills": number} for (how, at), number in sorted(told.items())]
        Path(asked).write_text(json.dumps(rows, indent=1), "utf-8")
