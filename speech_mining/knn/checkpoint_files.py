"""A search's finished shards as files in a folder, so that a killed one goes on.

    state.json               what is searched, how many source rows are finished, and which files belong to that
    forward.<first>-<stop>   exact lists of these source rows: rows, cosines, depths
    backward.<stop>          running lists of the target: keys, counts, floors, errors

Forward files are written once, the backward one is replaced. Each is written whole and under a name of its own, and
`state.json` last, in one step: a kill at any moment leaves the state before or the state after. Arrays go to the disk
and come back without a copy, so that keeping takes no memory.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speech_mining.atomic import replacing
from speech_mining.knn.fingerprint import Origin
from speech_mining.knn.settle import Settled
from speech_mining.knn.toplists import LOWEST, TopLists

STATE = "state.json"
SHARE = 0.05
"""How much of the time keeping may take: shards that are finished faster are kept several at once."""


class Folder:
    """Keeps the state of one search in a folder, for the same search of the same matrices by the same code."""

    def __init__(
        self,
        folder: Path,
        origin: Origin,
        engine: str,
        *,
        tell: Callable[[str], None] = lambda words: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep shards in `folder`.

        Args:
            folder: made when there is something to keep; holds nothing else.
            origin: what is searched; read whole before the first state is kept.
            engine: what searches.
            tell: hears, in a sentence, what a person should know.
            clock: seconds.
        """
        self.folder, self.restored = folder, 0
        """`restored`: source rows that were found finished."""
        self._origin, self._engine, self._tell, self._clock = origin, engine, tell, clock
        self._began, self._spent, self._failed = clock(), 0.0, False
        self._search: dict[str, Any] = {}
        self._shards: list[dict[str, Any]] = []

    @property
    def finished(self) -> int:
        """Source rows whose neighbours are kept."""
        return int(self._shards[-1]["stop"]) if self._shards else 0

    def restore(self, forward: Settled, backward: TopLists, errors: Any) -> int:
        """Fill in what is kept; 0 where nothing is, or what is there belongs to another search."""
        if not (self.folder / STATE).exists():
            return 0
        try:
            state = json.loads((self.folder / STATE).read_text("utf-8"))
            self._check(state["search"], forward, backward)
            for shard in state["shards"]:
                _read(self.folder, shard, _exact(forward, shard))
            _read(self.folder, state["lists"], _running(backward, errors))
        except (OSError, ValueError, KeyError, TypeError) as error:
            backward.counts[:], backward.floors[:], errors[:] = 0, LOWEST, 0
            self._tell(f"What a stopped search left in {self.folder} is of no use: {error}. The search begins anew.")
            return 0
        self._search, self._shards = state["search"], state["shards"]
        self.restored = self.finished
        self._tell(
            f"{self.restored} of {len(forward.rows)} source rows had been finished by a search that was stopped."
        )
        return self.restored

    def keep(self, done: int, forward: Settled, backward: TopLists, errors: Any) -> None:
        """Keep the state after `done` source rows, unless keeping takes more than its share of the time."""
        began = self._clock()
        if self._failed or self._spent > SHARE * (began - self._began):
            return
        try:
            self._keep(done, forward, backward, errors)
        except OSError as error:  # a full disk stops the keeping, not the search
            self._failed = True
            self._tell(f"Finished shards cannot be kept in {self.folder} ({error}); the search goes on without.")
        self._spent += self._clock() - began

    def remove(self) -> None:
        """Forget everything: the search is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep(self, done: int, forward: Settled, backward: TopLists, errors: Any) -> None:
        if not self._search:
            self._search = {**self._settings(forward, backward), **self._origin.fingerprints()}
        shard: dict[str, Any] = {"first": self.finished, "stop": done}
        shard |= _write(self.folder / f"forward.{self.finished}-{done}", _exact(forward, shard))
        lists = _write(self.folder / f"backward.{done}", _running(backward, errors))
        shards = [*self._shards, shard]
        with replacing(self.folder / STATE) as part:
            part.write_text(json.dumps({"search": self._search, "shards": shards, "lists": lists}, indent=1), "utf-8")
        self._shards = shards
        _remove_all_but(self.folder, {STATE, lists["name"], *(each["name"] for each in shards)})

    def _check(self, kept: Mapping[str, Any], forward: Settled, backward: TopLists) -> None:
        """Refuse what belongs to another search.

        Raises:
            ValueError: it does; what differs is named.
        """
        settings = self._settings(forward, backward)
        differing = [f"another {name}" for name in settings if kept[name] != settings[name]]
        differing += self._origin.differences(kept) if not differing else []
        if differing:
            raise ValueError("it belongs to a search with " + ", ".join(differing))

    def _settings(self, forward: Settled, backward: TopLists) -> dict[str, Any]:
        lengths = [backward.kept, backward.keys.shape[1]]
        return {"engine": self._engine, "k": forward.rows.shape[1], "length of lists": lengths, "code": _code()}


def _exact(forward: Settled, shard: Mapping[str, Any]) -> tuple[Any, ...]:
    rows = slice(shard["first"], shard["stop"])
    return forward.rows[rows], forward.cosines[rows], forward.depths[rows]


def _running(backward: TopLists, errors: Any) -> tuple[Any, ...]:
    return backward.keys, backward.counts, backward.floors, errors


def _write(path: Path, arrays: tuple[Any, ...]) -> dict[str, Any]:
    """Write arrays one after the other; the file's name and checksum."""
    checksum = 0
    with replacing(path) as part, part.open("wb") as file:
        for array in arrays:
            values = array.reshape(-1).view(np.uint8).data
            file.write(values)
            checksum = zlib.crc32(values, checksum)
    return {"name": path.name, "checksum": checksum}


def _read(folder: Path, written: Mapping[str, Any], arrays: tuple[Any, ...]) -> None:
    """Fill arrays from a file.

    Raises:
        OSError: it is not there.
        ValueError: it is not what was written.
    """
    checksum = 0
    with (folder / written["name"]).open("rb") as file:
        for array in arrays:
            values = array.reshape(-1).view(np.uint8).data
            if file.readinto(values) != len(values):
                raise ValueError(f"{written['name']} was cut short")
            checksum = zlib.crc32(values, checksum)
    if checksum != written["checksum"]:
        raise ValueError(f"{written['name']} is damaged")


def _remove_all_but(folder: Path, names: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def _code() -> str:
    """Digest of the code that searches: lists that other code left may mean something else."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
