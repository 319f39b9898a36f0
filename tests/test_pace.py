"""Requests are far enough apart, over threads and processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from speech_mining.sources.pace import Pace

ASK = """
import sys, time
from pathlib import Path
from speech_mining.sources.pace import Pace
pace = Pace(0.2, clock=time.monotonic, now=time.time, sleep=time.sleep, shared=Path(sys.argv[1]))
for _ in range(3):
    pace.wait()
    print(time.time(), flush=True)
"""


def _paced(waits: list[float], shared: Path | None = None, *, now: float = 1000.0, interval_s: float = 1.0) -> Pace:
    return Pace(interval_s, clock=lambda: 50.0, now=lambda: now, sleep=waits.append, shared=shared)


def test_a_process_alone_waits_for_itself() -> None:
    waits = list[float]()
    pace = _paced(waits)
    for _ in range(3):
        pace.wait()
    assert waits == [1.0, 2.0]


def test_two_that_share_a_file_wait_for_each_other(tmp_path: Path) -> None:
    ours, theirs = list[float](), list[float]()
    one, other = _paced(ours, tmp_path / "a" / "pace"), _paced(theirs, tmp_path / "a" / "pace")
    one.wait()
    other.wait()
    other.wait()
    one.wait()
    assert (ours, theirs) == ([3.0], [1.0, 2.0])


@pytest.mark.parametrize("content", ["", "nonsense", "999999999", "-5", "nan", "1000"])
def test_a_file_that_makes_no_sense_is_no_reason_to_wait(tmp_path: Path, content: str) -> None:
    (tmp_path / "pace").write_text(content)
    waits = list[float]()
    _paced(waits, tmp_path / "pace").wait()
    assert waits == []
    assert float((tmp_path / "pace").read_text()) == 1001.0


def test_without_a_pace_there_is_no_file(tmp_path: Path) -> None:
    waits = list[float]()
    pace = _paced(waits, tmp_path / "pace", interval_s=0.0)
    pace.wait()
    pace.wait()
    assert waits == [] and not (tmp_path / "pace").exists()


def test_three_processes_ask_as_often_as_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK, str(tmp_path / "pace")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    asked = sorted(float(line) for process in processes for line in process.communicate()[0].splitlines())
    assert len(asked) == 9
    # a thread may be woken late, never early: over all of them the pace holds
    assert asked[-1] - asked[0] >= 8 * 0.2 - 0.05
    assert time.time() >= asked[-1]
