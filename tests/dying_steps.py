"""Jobs whose steps die of memory, each in its own way; a code location of its own, run by `tests/test_budgets.py`.

Every attempt writes down what it was given. A step that is given no more than `FITS_GB` lives.
"""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from resources.budgets import attempt_of, memory_retries, retried_with_half, search_budget
from resources.settings import load_settings

FITS_GB = 1.5
SETTINGS = load_settings(memory={"limit_gb": 8.0, "gpu_share": 0.5, "retry_wait_s": 0.0, "retries": 3})
JOURNAL = "S2S_TEST_JOURNAL"
frame = {"pool": "gpu", "retry_policy": memory_retries(SETTINGS)}


def begin(context: Any) -> float:
    """Write the attempt down; gives what it may take, in 10^9 bytes."""
    attempt = attempt_of(context)
    memory_gb = search_budget(SETTINGS, attempt).memory_gb
    with Path(os.environ[JOURNAL]).open("a") as journal:
        journal.write(json.dumps([context.run.run_id, attempt, memory_gb]) + "\n")
    return memory_gb


def bounded_memory() -> None:
    """Let this process take `FITS_GB` more of addresses than it has now."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + int(FITS_GB * 1e9), resource.RLIM_INFINITY))


@dg.op(**frame)
def takes_what_it_may(context: dg.OpExecutionContext) -> int:
    with retried_with_half(context, SETTINGS):
        memory_gb = begin(context)
        bounded_memory()
        return len(np.empty(int(memory_gb * 1e9), np.int8))


@dg.op(**frame)
def takes_too_much_always(context: dg.OpExecutionContext) -> None:
    with retried_with_half(context, SETTINGS):
        begin(context)
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@dg.op(**frame)
def is_killed(context: dg.OpExecutionContext) -> None:
    with retried_with_half(context, SETTINGS):
        if begin(context) > FITS_GB:
            os.kill(os.getpid(), signal.SIGKILL)


@dg.op(**frame)
def is_wrong(context: dg.OpExecutionContext) -> None:
    with retried_with_half(context, SETTINGS):
        begin(context)
        raise KeyError("no such segment")


@dg.op(**frame)
def takes_its_run_along(context: dg.OpExecutionContext) -> None:
    with retried_with_half(context, SETTINGS):
        if begin(context) > FITS_GB:
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


@dg.job
def takes() -> None:
    takes_what_it_may()


@dg.job(executor_def=dg.in_process_executor)
def always() -> None:
    takes_too_much_always()


@dg.job
def killed() -> None:
    is_killed()


@dg.job(executor_def=dg.in_process_executor)
def wrong() -> None:
    is_wrong()


@dg.job
def run_killed() -> None:
    takes_its_run_along()


defs = dg.Definitions(jobs=[takes, always, killed, wrong, run_killed])
