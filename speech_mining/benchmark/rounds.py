"""Running contenders by turns, each in a process of its own, and reading what the stopwatch printed.

A contender that crashes, is killed or prints anything but figures loses its place and keeps its last words; the others
go on.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from speech_mining.benchmark.contenders import Absent, Contender, Places
from speech_mining.benchmark.embeddings import Sides

STOPWATCH = Path(__file__).parent / "stopwatch.py"
BOOT = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
"""Run as a file, the stopwatch would put its own folder first on sys.path, where its neighbours hide packages."""
LAST_WORDS = 12
"""Lines of standard error that are kept of a contender that fails."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Request:
    """What all contenders are asked."""

    sides: Sides
    k: int
    threads: int
    engine: str
    threshold: float
    repeats: int
    places: Places


@dataclass(frozen=True)
class Measure:
    """One run of one contender, as the stopwatch tells it."""

    peer: str
    version: str
    note: str
    seconds_knn: float
    seconds_mine: float | None
    pairs: int | None
    peak_rss_mb: float


@dataclass(frozen=True)
class Problem:
    """Why a contender has no figures."""

    state: str
    """"not installed" or "failed"."""
    reason: str
    fix: str = ""


@dataclass
class Outcome:
    """All runs of one contender, or what stopped it."""

    contender: Contender
    python: Path | None = None
    measures: list[Measure] = field(default_factory=list)
    problem: Problem | None = None

    @property
    def seconds_knn(self) -> float:
        """Median of the searches in both directions."""
        return statistics.median(measure.seconds_knn for measure in self.measures)

    @property
    def seconds_total(self) -> float | None:
        """Median of search and mining together; None without a mining step."""
        totals = [each.seconds_knn + each.seconds_mine for each in self.measures if each.seconds_mine is not None]
        return statistics.median(totals) if totals else None


def found_by(contender: Contender, scratch: Path) -> Path:
    """The folder that holds what a contender found in its first run."""
    return scratch / "found" / contender.name


def run_rounds(
    contenders: list[Contender], request: Request, scratch: Path, told: Callable[[int, int, str], None]
) -> list[Outcome]:
    """Run every contender once a round, so that a busy moment of the machine hits all alike.

    Args:
        contenders: in the order of their turns.
        request: what they are asked.
        scratch: a folder for files of theirs; it is not emptied.
        told: called with (runs done, runs in all, name of the next).
    """
    outcomes = [_placed(contender, request.places) for contender in contenders]
    for number in range(request.repeats):
        for place, outcome in enumerate(outcomes):
            told(number * len(outcomes) + place, request.repeats * len(outcomes), outcome.contender.name)
            if outcome.problem is None:
                _run(outcome, request, scratch, keep=number == 0)
    told(request.repeats * len(outcomes), request.repeats * len(outcomes), "")
    return outcomes


def _placed(contender: Contender, places: Places) -> Outcome:
    python = contender.python(places)
    if isinstance(python, Absent):
        return Outcome(contender, problem=Problem("not installed", python.reason, python.fix))
    return Outcome(contender, python)


def _run(outcome: Outcome, request: Request, scratch: Path, *, keep: bool) -> None:
    asked = _asked(outcome.contender, request, scratch, keep=keep)
    words = [str(outcome.python), "-c", BOOT, str(STOPWATCH), str(outcome.contender.script), str(asked)]
    # its own folder, so that nothing in the user's is imported by accident
    try:
        ended = subprocess.run(
            words, capture_output=True, text=True, errors="replace", env=_environment(request), cwd=asked.parent
        )
    except OSError as error:
        outcome.problem = Problem("failed", f"{outcome.python} does not run ({error})")
        return
    figures = _figures(ended)
    if isinstance(figures, Problem):
        outcome.problem = figures
    else:
        outcome.measures.append(figures)


def _asked(contender: Contender, request: Request, scratch: Path, *, keep: bool) -> Path:
    """Write what `stopwatch.Asked` describes."""
    own, found = scratch / "own" / contender.name, found_by(contender, scratch)
    for folder in (own, found):
        folder.mkdir(parents=True, exist_ok=True)
    sides = request.sides
    paths = {name: str(getattr(sides, name)) for name in ("source", "target", "warm_source", "warm_target")}
    rest = {
        "k": request.k,
        "threads": request.threads,
        "engine": request.engine,
        "threshold": request.threshold,
        "laser": str(request.places.laser or ""),
        "scratch": str(own),
        "found": str(found) if keep else "",
    }
    asked = own / "asked.json"
    asked.write_text(json.dumps({**paths, **rest}))
    return asked


def _environment(request: Request) -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(THREADS, str(request.threads))}


def _figures(ended: subprocess.CompletedProcess[str]) -> Measure | Problem:
    if ended.returncode != 0:
        return Problem("failed", f"ended with {_code(ended.returncode)}{_last_words(ended.stderr)}")
    try:
        measure = Measure(**json.loads(ended.stdout))
    except (ValueError, TypeError):
        measure = None
    if measure is None or not isinstance(measure.seconds_knn, float) or not isinstance(measure.peak_rss_mb, float):
        printed = ended.stdout.strip()[:200] or "nothing"
        return Problem("failed", f"printed no figures but {printed!r}{_last_words(ended.stderr)}")
    return measure


def _code(code: int) -> str:
    if code >= 0:
        return f"code {code}"
    killed = signal.Signals(-code).name
    return f"signal {killed}" + (", as for want of memory" if killed == "SIGKILL" else "")


def _last_words(stderr: str) -> str:
    lines = stderr.strip().splitlines()[-LAST_WORDS:]
    return ":\n" + "\n".join(lines) if lines else ", without a word"
