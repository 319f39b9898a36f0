"""The state of `incremental` as files in a folder: one .npy a table, mapped into memory when it is read.

What belongs here is the names and the check that they belong together. When a folder replaces another is the caller's
business.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import LakeError
from speech_mining.knn.incremental_lists import Lists, State

VERSION = 1
"""Changes whenever a state written before could not be gone on with."""
TABLES = ("ids", "versions", "rows", "cosines", "depths")


def write_state(state: State, folder: Path) -> None:
    """Write the files of a state into a folder that nobody reads yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in state_tables(state).items():
        np.save(folder / name, table)


def state_tables(state: State) -> dict[str, npt.NDArray[Any]]:
    """The tables of a state by the names of their files."""
    sides = {"source": state.source, "target": state.target}
    tables = {f"{side}_{table}.npy": getattr(lists, table) for side, lists in sides.items() for table in TABLES}
    return {**tables, "k.npy": np.array([VERSION, state.k], np.int64)}


def read_state(folder: Path) -> State:
    """Read what `write_state` wrote.

    Raises:
        LakeError: another version wrote it, or its tables do not belong together.
    """
    return state_of(lambda name: np.load(folder / name, mmap_mode="r", allow_pickle=False))


def state_of(read: Callable[[str], npt.NDArray[Any]]) -> State:
    """Put a state together from its tables.

    Raises:
        LakeError: as `read_state`.
    """
    version, k = (int(number) for number in read("k.npy"))
    source, target = (Lists(*(read(f"{side}_{table}.npy") for table in TABLES)) for side in ("source", "target"))
    fitting = all(len({len(getattr(lists, table)) for table in TABLES}) == 1 for lists in (source, target))
    if version != VERSION or not fitting or source.rows.shape[1] != target.rows.shape[1]:
        raise LakeError(
            f"The kept neighbours are of version {version}, with tables of {len(source.rows)} and {len(target.rows)} "
            "rows that do not belong together."
            if version == VERSION
            else f"The kept neighbours are of version {version}.",
            expected=f"version {VERSION}, one row in each table for every row of a side",
            fix="remove them: the next search begins from nothing",
        )
    return State(source, target, k)
