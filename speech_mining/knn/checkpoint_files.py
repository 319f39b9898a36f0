"""A search's finished shards as files in a folder, so that a killed one goes on.

The exact lists of each shard are a file of their own, written once. The target's running lists are replaced after
every shard. `state.json` names the files that belong together and is replaced last: a kill at any moment leaves the
state before or the state after.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from speech_mining.atomic import replacing
from speech_mining.knn.settle import Settled
from speech_mining.knn.toplists import TopLists

VERSION = 1
"""Changes whenever shards written before could not be gone on with."""
STATE = "state.json"


class Folder:
    """Keeps the state of one search in a folder."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Keep shards in `folder`.

        Args:
            folder: where; made when there is something to keep.
            identity: of the inputs and of whatever else decides the result; what was kept under another is not used.
        """
        self.folder, self.identity = folder, f"{VERSION}/{identity}"
        self.restored = 0
        """Source rows that were found finished."""
        self._shards: list[tuple[int, int]] = []

    @property
    def finished(self) -> int:
        """Source rows whose neighbours are kept."""
        return self._shards[-1][1] if self._shards else 0

    def restore(self, forward: Settled, backward: TopLists, errors: Any) -> int:
        """Fill in what is kept; 0 where nothing is, or what is there belongs to another search."""
        try:
            state = json.loads((self.folder / STATE).read_text("utf-8"))
            shape = [len(forward.rows), *backward.keys.shape, backward.kept]
            if state["identity"] != self.identity or state["shape"] != shape:
                return 0
            self._read_backward(state["done"], backward, errors)
            for first, stop in state["shards"]:
                self._read_shard(first, stop, forward)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return 0
        self._shards = [(first, stop) for first, stop in state["shards"]]
        self.restored = int(state["done"])
        return self.restored

    def keep(self, done: int, forward: Settled, backward: TopLists, errors: Any) -> None:
        """Write the shard that was finished and the running lists, then the state that names them."""
        first = self.finished
        shard = slice(first, done)
        with replacing(self._shard(first, done)) as part:
            _save(part, rows=forward.rows[shard], cosines=forward.cosines[shard], depths=forward.depths[shard])
        with replacing(self._lists(done)) as part:
            used = np.arange(backward.keys.shape[1]) < backward.counts[:, None]
            _save(part, keys=backward.keys[used], counts=backward.counts, floors=backward.floors, errors=errors)
        self._shards.append((first, done))
        shape = [len(forward.rows), *backward.keys.shape, backward.kept]
        state = {"identity": self.identity, "shape": shape, "done": done, "shards": self._shards}
        with replacing(self.folder / STATE) as part:
            part.write_text(json.dumps(state), "utf-8")
        for path in self.folder.glob("lists-*.npz"):
            if path != self._lists(done):
                path.unlink()

    def remove(self) -> None:
        """Forget everything: the search is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _shard(self, first: int, stop: int) -> Path:
        return self.folder / f"shard-{first}-{stop}.npz"

    def _lists(self, done: int) -> Path:
        return self.folder / f"lists-{done}.npz"

    def _read_shard(self, first: int, stop: int, forward: Settled) -> None:
        with self._shard(first, stop).open("rb") as file, np.load(file, allow_pickle=False) as kept:
            forward.rows[first:stop], forward.cosines[first:stop] = kept["rows"], kept["cosines"]
            forward.depths[first:stop] = kept["depths"]

    def _read_backward(self, done: int, backward: TopLists, errors: Any) -> None:
        with self._lists(done).open("rb") as file, np.load(file, allow_pickle=False) as kept:
            counts = kept["counts"]
            backward.keys[np.arange(backward.keys.shape[1]) < counts[:, None]] = kept["keys"]
            backward.counts[:], backward.floors[:], errors[:] = counts, kept["floors"], kept["errors"]


def _save(path: Path, **tables: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, **tables)
