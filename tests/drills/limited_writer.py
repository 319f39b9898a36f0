"""Writes to a lake in a process of its own, under a limit or as another user, and prints what it met as JSON.

A fork of a process that has used Polars would wait for threads that are not there.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from speech_mining.errors import SpeechMiningError
from speech_mining.lake import Lake, NewPartition
from speech_mining.upkeep.verification import verify

NOBODY = 65_534
LARGEST_BYTES = 20_000
WRITERS: dict[str, Callable[[NewPartition], None]] = {
    "table": lambda new: new.write_frame("t.parquet", pl.DataFrame({"a": np.random.default_rng(0).random(9_999)})),
    "array": lambda new: new.write_array("v.npy", np.zeros(9_999)),
    "json": lambda new: new.write_json("x.json", ["x" * 30_000]),
}


def full(root: Path) -> list[str]:
    """Write a file of each kind where none may grow larger: what a full disk does, without a disk to fill."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_BYTES, LARGEST_BYTES))
    return [_met(root, write) for write in WRITERS.values()]


def barred(root: Path) -> list[str]:
    """Read, verify and write as somebody to whom nothing belongs."""
    lake = Lake(root)
    verify(lake)  # imports what nobody may not read
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    rows = lake.partition("s2s_corpus", "deu-fra").read_frame("corpus.parquet").height
    return [f"{rows} rows", f"{len(verify(lake).findings)} findings", _met(root, lambda new: None)]


def _met(root: Path, write: Callable[[NewPartition], None]) -> str:
    try:
        with Lake(root).replace("layer", "k") as new:
            write(new)
    except SpeechMiningError as error:
        return f"{type(error).__name__}: {error}"
    return "written"


if __name__ == "__main__":
    print(json.dumps({"full": full, "barred": barred}[sys.argv[1]](Path(sys.argv[2]))))
