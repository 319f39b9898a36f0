"""The real code location, with a clock around the bodies of the book layers: what `benchmarks.orchestration` serves.

Replaced before the location is built: how many audiobooks a run has, `dagster.asset`, so that every call of an asset's
function is timed, and for the peer (a run a book) our executor of batches. The rest is what a deployment loads.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from partitions import batches
from resources import batch_executor

BOOKS_A_RUN, TIMES = "ORCHESTRATION_BOOKS_A_RUN", "ORCHESTRATION_TIMES"
"""Variables that tell the processes of runs how many audiobooks a run has (none: as shipped), and where times go."""


def note(**told: Any) -> None:
    """Append a line of JSON; lines this short are written whole by one call, from many processes too."""
    with Path(os.environ[TIMES]).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(told) + "\n")


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which notes wall and processor seconds of every call."""

    @functools.wraps(function)
    def _timed(*arguments: Any, **named: Any) -> Any:
        began, before = time.perf_counter(), sum(os.times()[:4])
        try:
            return function(*arguments, **named)
        finally:
            seconds, of_cores = time.perf_counter() - began, sum(os.times()[:4]) - before
            note(what=function.__name__, seconds=seconds, core_seconds=of_cores)

    return _timed


_asset = dg.asset


def _timed_asset(**options: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        return _asset(**options)(timed(function))

    return decorate


if os.environ.get(BOOKS_A_RUN):
    batches.BATCH = dg.BackfillPolicy.multi_run(int(os.environ[BOOKS_A_RUN]))
if os.environ.get(BOOKS_A_RUN) == "1":  # the peer: what Dagster does by itself
    batch_executor.batches_in_process = lambda base: base  # type: ignore[assignment]
if os.environ.get(TIMES):
    dg.asset = _timed_asset  # type: ignore[assignment]

from s2s_assets.definitions import defs  # noqa: E402

__all__ = ["defs"]
