"""Runs in processes of their own, forked after the imports so that twenty of them start at once, to be killed.

The module that makes a run calls `serve`; a test talks to it through `Runner`: a line of JSON for each run, answered by
its pid; an empty line, answered by how it ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def serve(make: Callable[..., bool]) -> None:
    """Run until there is nothing more; `make` is given what a line of JSON holds, and tells whether it did it."""
    print("ready", flush=True)
    for line in sys.stdin:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run(make, json.loads(line), write)
        os.close(write)
        print(pid, flush=True)
        with os.fdopen(read, encoding="utf-8") as imported:
            _learn(imported.read())
        sys.stdin.readline()  # until then the pid is nobody else's, and may be killed
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(make: Callable[..., bool], order: dict[str, str], told: int) -> None:
    """A run in its own process: it ends here, after it has told what it imported."""
    try:
        done = make(**order)
    except BaseException:  # the interpreter of a fork cannot end as usual: threads of its parent are not there to end
        traceback.print_exc()
        done = False
    os.write(told, " ".join(sorted(sys.modules)).encode())
    os._exit(0 if done else 1)


def _learn(names: str) -> None:
    """Import what a run imported, so that the next need not: 3.5 s become 1."""
    for name in names.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


class Runner:
    """The process that forks runs."""

    def __init__(self, module: str) -> None:
        root = Path(__file__).parent.parent
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert self._line() == "ready"

    def start(self, **order: str | Path) -> int:
        """Begin a run; returns its pid."""
        self._say(json.dumps({name: str(told) for name, told in order.items()}))
        return int(self._line())

    def end(self) -> int:
        """Wait for the run; 0 for success, negative for a signal."""
        self._say("")
        return int(self._line())

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
