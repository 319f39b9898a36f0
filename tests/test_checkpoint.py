"""Finished shards on disk: gone on with after any kill, never mixed with those of another search."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speech_mining.cli.matrices import Embeddings, Sides
from speech_mining.knn import both_directions, normalise, plan
from speech_mining.knn.checkpoint_files import Folder
from speech_mining.knn.neighbours import Neighbours
from speech_mining.knn.settle import Settled
from speech_mining.knn.toplists import Room, TopLists

TABLES = ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines")


class StoppedError(Exception):
    """Stands for a kill between two shards."""


class Stopping(Folder):
    """Stops after so many shards."""

    shards = 1

    def keep(self, *state: Any) -> None:
        super().keep(*state)
        self.shards -= 1
        if not self.shards:
            raise StoppedError


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    for name, count, seed in (("src", 50_000, 0), ("tgt", 300, 1)):
        rows = normalise(np.random.default_rng(seed).standard_normal((count, 8)))
        rows[::7] = rows[0]  # equal vectors, so that a list that is mixed up shows
        np.save(tmp_path / f"{name}.npy", rows)
    return Sides(Embeddings(tmp_path / "src.npy"), Embeddings(tmp_path / "tgt.npy"))


def search(sides: Sides, checkpoint: Folder | None = None, k: int = 3, **options: Any) -> Neighbours:
    return both_directions(
        sides.source.matrix, sides.target.matrix, k, engine="fp32", threads=1, checkpoint=checkpoint, **options
    )


def stop(sides: Sides, folder: Path, shards: int, **options: Any) -> None:
    stopping = Stopping(folder, sides, "fp32", clock=lambda: 0.0)  # keeping takes no time
    stopping.shards = shards
    with pytest.raises(StoppedError):
        search(sides, stopping, **options)


def assert_same(one: Neighbours, other: Neighbours) -> None:
    for table in TABLES:
        np.testing.assert_array_equal(getattr(one, table), getattr(other, table), err_msg=table)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_search_goes_on_and_computes_only_what_is_left(sides: Sides, tmp_path: Path, shards: int) -> None:
    stop(sides, tmp_path / "kept", shards)
    told: list[int] = []

    folder = Folder(tmp_path / "kept", sides, "fp32")
    found = search(sides, folder, progress=lambda done, total, /: told.append(done))

    assert (
        folder.restored
        == told[0] // 300
        == json.loads((tmp_path / "kept" / "state.json").read_text())["shards"][shards - 1]["stop"]
    )
    assert folder.restored in (12_500, 25_000)
    assert told[-1] == 50_000 * 300
    assert_same(found, search(sides))


def test_a_search_can_be_stopped_again_and_again(sides: Sides, tmp_path: Path) -> None:
    for _ in range(3):
        stop(sides, tmp_path / "kept", 1)

    folder = Folder(tmp_path / "kept", sides, "fp32")
    assert_same(search(sides, folder), search(sides))
    assert folder.restored == 37_500


def spoil(name: str, how: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoiled(folder: Path) -> None:
        path = next(path for path in sorted(folder.iterdir()) if path.name.startswith(name))
        path.write_bytes(how(path.read_bytes()))

    return spoiled


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil("backward", lambda kept: kept[:-1]), "backward.25000 was cut short"),
        (spoil("backward", lambda kept: kept[:9] + bytes([kept[9] ^ 1]) + kept[10:]), "backward.25000 is damaged"),
        (spoil("forward", lambda kept: kept[:-4] + b"\0\0\0\7"), "forward.0-12500 is damaged"),
        (spoil("forward", lambda kept: b""), "forward.0-12500 was cut short"),
        (lambda folder: next(folder.glob("forward.12500*")).unlink(), "No such file"),
        (spoil("state", lambda kept: kept[:40]), "of no use"),
        (spoil("state", lambda kept: b"[]"), "of no use"),
        (spoil("state", lambda kept: kept.replace(b'"code": "', b'"code": "x')), "a search with another code"),
        (spoil("state", lambda kept: kept.replace(b"fp32", b"int8")), "a search with another engine"),
    ],
)
def test_a_state_that_is_damaged_or_of_other_code_is_discarded_with_a_word(
    sides: Sides, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    stop(sides, tmp_path / "kept", 2)
    damage(tmp_path / "kept")
    said: list[str] = []

    folder = Folder(tmp_path / "kept", sides, "fp32", tell=said.append)
    found = search(sides, folder)

    assert folder.restored == 0 and message in said[0] and "begins anew" in said[0]
    assert_same(found, search(sides))


def test_a_state_of_other_matrices_k_or_division_is_not_gone_on_with(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(sides, tmp_path / "kept", 2)
    rooms = plan.ROOMS
    rows = np.load(tmp_path / "tgt.npy")
    np.save(tmp_path / "other.npy", rows[::-1])
    other = Sides(sides.source, Embeddings(tmp_path / "other.npy"))

    options: dict[str, Any]
    for searched, options, message in (
        (other, {}, "the target matrix is another (other values)"),
        (sides, {"k": 4}, "another k, another length of lists"),
        (sides, {"rooms": ((5, 6),)}, "another length of lists"),
    ):
        monkeypatch.setattr(plan, "ROOMS", options.pop("rooms", rooms))
        said: list[str] = []
        folder = Folder(tmp_path / "kept", searched, "fp32", tell=said.append)
        with pytest.raises(StoppedError):  # before it keeps anything
            search(searched, folder, progress=_stop, **options)
        assert message in said[0] and folder.restored == 0


def _stop(done: int, total: int, /) -> None:
    if done:
        raise StoppedError


def test_keeping_takes_no_more_than_its_share_of_the_time(sides: Sides, tmp_path: Path) -> None:
    hours = iter(range(0, 1000))
    slow = Folder(tmp_path / "kept", sides, "fp32", clock=lambda: float(next(hours)))
    kept: list[int] = []

    class Watched(Folder):
        def _keep(self, done: int, *state: Any) -> None:
            super()._keep(done, *state)
            kept.append(done)

    slow.__class__ = Watched
    assert_same(search(sides, slow), search(sides))
    assert kept == [12_500]  # keeping took one hour of two, so the next is due after the twentieth


def test_what_was_passed_over_is_kept_with_the_next(sides: Sides, tmp_path: Path) -> None:
    now = [0.0]

    class Skipping(Folder):
        def keep(self, done: int, *state: Any) -> None:
            now[0] += 100.0 if done == 37_500 else 0.0
            super().keep(done, *state)
            if done == 37_500:
                raise StoppedError

        def _keep(self, done: int, *state: Any) -> None:
            super()._keep(done, *state)
            now[0] += 1.0

    with pytest.raises(StoppedError):
        search(sides, Skipping(tmp_path / "kept", sides, "fp32", clock=lambda: now[0]))
    state = json.loads((tmp_path / "kept" / "state.json").read_text())

    assert [(shard["first"], shard["stop"]) for shard in state["shards"]] == [(0, 12_500), (12_500, 37_500)]
    assert_same(search(sides, Folder(tmp_path / "kept", sides, "fp32")), search(sides))


def test_a_full_disk_stops_the_keeping_and_not_the_search(sides: Sides, tmp_path: Path) -> None:
    said: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        found = search(sides, Folder(tmp_path / "kept", sides, "fp32", tell=said.append))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert len(said) == 1 and "File too large" in said[0] and "goes on without" in said[0]
    assert_same(found, search(sides))


def test_files_that_no_state_names_are_removed(sides: Sides, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".backward.900.x.part").write_bytes(b"of a run that was killed")

    stop(sides, tmp_path / "kept", 2)

    names = ["backward.25000", "forward.0-12500", "forward.12500-25000", "state.json"]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == names
    folder = Folder(tmp_path / "kept", sides, "fp32")
    folder.remove()
    assert not (tmp_path / "kept").exists()


KEEPING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_checkpoint import Nobody, filled
from speech_mining.knn.checkpoint_files import Folder

folder = Folder(Path(sys.argv[2]), Nobody(), "fp32", clock=lambda: 0.0)
for done in range(1, 1001):
    folder.keep(done, *filled(done))
"""


class Nobody:
    """Matrices that are always the same."""

    def fingerprints(self) -> dict[str, Any]:
        return {"source": {}, "target": {}}

    def differences(self, kept: Any) -> list[str]:
        return []


def filled(done: int) -> tuple[Settled, TopLists, npt.NDArray[np.float64]]:
    """A state in which every number tells after how many rows it was kept."""
    each = np.arange(1, 1001)
    rows = np.repeat(np.where(each <= done, each, 0)[:, None], 4, axis=1)
    forward = Settled(rows, rows.astype(np.float32), rows[:, 0].astype(np.int32), 0)
    backward = TopLists.empty(5000, Room(6, 8))
    backward.keys[:], backward.counts[:], backward.floors[:] = done, done, done
    return forward, backward, np.full(5000, float(done))


def test_a_kill_at_any_moment_leaves_one_state_whole(tmp_path: Path) -> None:
    chance = random.Random(0)
    for turn in range(12):
        kept = tmp_path / str(turn)
        command = [sys.executable, "-c", KEEPING, str(Path(__file__).parent), str(kept)]
        with subprocess.Popen(command) as keeping:
            while not (kept / "state.json").exists() and keeping.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.1))
            keeping.kill()
        forward, backward, errors = filled(0)
        said: list[str] = []
        done = Folder(kept, Nobody(), "fp32", tell=said.append).restore(forward, backward, errors)
        expected, lists, _ = filled(done)

        assert done and not any("of no use" in words for words in said)
        np.testing.assert_array_equal(forward.rows, expected.rows)
        np.testing.assert_array_equal(forward.depths, expected.depths)
        np.testing.assert_array_equal(backward.keys, lists.keys)
        assert (errors == done).all() and (backward.counts == done).all()
