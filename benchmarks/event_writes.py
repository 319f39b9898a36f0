"""How fast several processes write events to one instance, as runs do that are under way at once.

python -m benchmarks.event_writes --home DIR --seconds 5        # one writer: what `concurrent_writes` starts
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from benchmarks.synthetic_library import made_events

SECONDS = 6.0


@dataclass(frozen=True)
class Writes:
    """What writers of one instance saw."""

    writers: int
    seconds: list[float]
    """Of every write, all writers."""
    failed: list[str]
    """Errors, `database is locked` for one."""
    lasted_s: float

    @property
    def a_second(self) -> float:
        """Events a second, all writers together."""
        return len(self.seconds) / self.lasted_s


def concurrent_writes(dagster_home: Path, writers: int, seconds: float = SECONDS) -> Writes:
    """Let so many processes write events at the same time, each as a run of its own; all begin at one moment."""
    with dg.DagsterInstance.from_config(str(dagster_home)):  # several at once in a new home trip over its tables
        pass
    words = [sys.executable, "-m", "benchmarks.event_writes", "--home", str(dagster_home), "--seconds", str(seconds)]
    started = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(writers)
    ]
    try:
        for writer in started:
            _line(writer)  # it is ready
        for writer in started:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        told = [json.loads(_line(writer)) for writer in started]
    finally:
        for writer in started:
            writer.kill()
            writer.communicate()
    failed = [error for one in told for error in one["failed"]]
    return Writes(writers, [s for one in told for s in one["seconds"]], failed, max(one["lasted_s"] for one in told))


def _line(writer: subprocess.Popen[str]) -> str:
    assert writer.stdout is not None
    line = writer.stdout.readline()
    if not line:
        raise RuntimeError(f"a writer ended with code {writer.wait()}; what it said is above")
    return line


def main() -> None:
    """Write until the time is over; one line of JSON tells what each write took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.event_writes", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    with dg.DagsterInstance.from_config(str(chosen.home)) as instance:
        run_id, key = str(uuid.uuid4()), dg.AssetKey(["eng", "segments"])
        events = made_events(run_id, [key], [str(number) for number in range(20_000)])
        instance.store_event(next(events))  # tables and files are there
        print("ready", flush=True)
        sys.stdin.readline()
        seconds: list[float] = []
        failed: list[str] = []
        began = time.perf_counter()
        while time.perf_counter() - began < chosen.seconds:
            at = time.perf_counter()
            try:
                instance.store_event(next(events))
            except Exception as error:  # whatever a database says when it gives way is what is measured
                failed.append(f"{type(error).__name__}: {error}"[:200])
            seconds.append(time.perf_counter() - at)
        print(json.dumps({"seconds": seconds, "failed": failed, "lasted_s": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
