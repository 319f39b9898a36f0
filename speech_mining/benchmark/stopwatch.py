"""Time one contender in this process and print what it took, as one line of JSON.

    python stopwatch.py SCRIPT.py ASKED.json

Runs in the interpreter of the contender, so it needs the standard library and numpy alone. Loading and imports are not
timed; a search of the first few hundred rows goes before, so that no compiled code is loaded and no thread started on
the clock. Whatever a peer prints goes to standard error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt


class Asked(TypedDict):
    """What a contender is asked; the parent process writes it as JSON."""

    source: str
    """Path of a .npy file, float32 (n, d), unit rows."""
    target: str
    """The same, (m, d)."""
    warm_source: str
    """The first rows of `source`."""
    warm_target: str
    k: int
    threads: int
    engine: str
    """Of ours; nothing to the peers."""
    threshold: float
    """Least ratio margin of a pair."""
    laser: str
    """Folder with LASER's source/mine_bitexts.py; nothing to the others."""
    scratch: str
    """A folder of this run's own, for what a peer must have on disk."""
    found: str
    """Folder for tables.npz and pairs.npz, or "" to keep neither."""


class Contender(Protocol):
    """What a script offers under the name `Contender`; its constructor loads the two matrices.

    One without a mining step has `mines = False`; one that finds no neighbours (a yardstick) gives no tables.
    """

    mines: bool
    note: str
    """What the reader should know about how it ran."""

    def search(self) -> None:
        """Find the neighbours in both directions. Timed."""

    def mine(self) -> None:
        """Choose pairs from what `search` found. Timed."""

    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """`forward_rows` int64 (n, k) and `backward_rows` (m, k), -1 where there is no neighbour."""

    def pairs(self) -> dict[str, npt.NDArray[Any]]:
        """`score`, `source` and `target` of each pair."""


def main() -> None:
    """Measure the script named in the first argument."""
    script, asked_at = sys.argv[1:]
    with _own_output() as output:
        asked: Asked = json.loads(Path(asked_at).read_text())
        print(json.dumps(measure(_loaded(Path(script)), asked)), file=output, flush=True)


def measure(module: Any, asked: Asked) -> dict[str, Any]:
    """Warm up, load, search, mine, and keep what was found where it was asked to be kept.

    Returns:
        peer, version, note, seconds_knn, seconds_mine and pairs (None without a mining step), peak_rss_mb (10^6
        bytes, of this whole process up to the last pair).
    """
    small: Asked = {**asked, "source": asked["warm_source"], "target": asked["warm_target"]}
    module.Contender(small).search()
    contender: Contender = module.Contender(asked)
    seconds_knn = _seconds(contender.search)
    seconds_mine = _seconds(contender.mine) if contender.mines else None
    peak_bytes = _peak_bytes()
    pairs = contender.pairs() if contender.mines else {}
    if asked["found"]:
        _keep(Path(asked["found"]) / "tables.npz", contender.tables())
        _keep(Path(asked["found"]) / "pairs.npz", pairs)
    return {
        "peer": module.NAME,
        "version": module.version(asked),
        "note": contender.note,
        "seconds_knn": seconds_knn,
        "seconds_mine": seconds_mine,
        "pairs": len(pairs["score"]) if contender.mines else None,
        "peak_rss_mb": peak_bytes / 1e6,
    }


def _keep(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _peak_bytes() -> int:
    """Most memory this process had; ru_maxrss would be at least what the parent had when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _own_output() -> Any:
    """Keep standard output for the figures; all else that is printed goes to standard error."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w")


def _loaded(script: Path) -> Any:
    """Load a script by its path: as a package it would need one, by its folder it would hide its namesakes."""
    described = importlib.util.spec_from_file_location(f"contender_{script.stem}", script)
    if described is None or described.loader is None:
        raise ImportError(f"{script} is not a Python file")
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
