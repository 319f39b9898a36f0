"""SIGKILL while shards of text are cleaned and embedded: each partition is the old or the new one, and the rest is done
by the next run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from speech_mining.lake import Lake
from speech_mining.text.known_shards import keep, list_again
from tests.forked_runs import Runner
from tests.raw_book import leftovers
from tests.test_text_assets import FIRST, SECOND
from tests.text_kill_runner import settings_of

LINES = 1200
KILLS = (("text_sentences", 0), ("text_sentences", 1), ("text_embeddings", 0))
"""A run is killed while it is at the shard behind this one of this layer, or shortly after."""
DELAY_S = 0.03


@dataclass
class World:
    runner: Runner
    shards: Path
    home: Path
    """Two shards taken in, of which both have changed and been listed again since, with a third."""
    names: list[str]
    before: dict[tuple[str, str], str]
    after: dict[tuple[str, str], str]


def _lines(seed: int) -> list[str]:
    """Different sentences of the miniature world, in pairs."""
    chance = random.Random(seed)
    return sorted({f"{chance.choice(FIRST)[:-1]}, and {chance.choice(SECOND)}" for _ in range(LINES)})


def _list(home: Path, shards: Path) -> None:
    settings = settings_of(str(home), str(shards))
    lake = Lake(settings.lake_url)
    keep(lake, list_again(lake, settings.text_shards, settings.text.format))


def _versions(home: Path) -> dict[tuple[str, str], str]:
    lake = Lake(home / "lake")
    return {
        (layer, name): lake.partition(layer, "eng", name).data_version
        for layer in ("text_sentences", "text_embeddings")
        for name in lake.keys(layer, "eng")
    }


def _content(home: Path) -> dict[str, bytes]:
    lake = home / "lake"
    layers = ("text_sentences", "text_duplicates", "text_embeddings")
    files = (path for layer in layers for path in (lake / layer).rglob("*") if path.is_file())
    return {str(path.relative_to(lake)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kills")
    shards, home, done = folder / "shards", folder / "home", folder / "done"
    shards.mkdir()
    runner = Runner("tests.text_kill_runner")
    for content, names in ((1, "ab"), (2, "abc")):
        for name in names:
            (shards / f"{name}.txt").write_text("\n".join(_lines(ord(name) * content)))
        _list(home, shards)
        if content == 1:
            runner.start(home=home, shards=shards)
            assert runner.end() == 0
    shutil.copytree(home, done)
    runner.start(home=done, shards=shards)
    assert runner.end() == 0
    names = [path.name for path in sorted((done / "lake" / "text_sentences" / "eng").iterdir())]
    yield World(runner, shards, home, names, _versions(home), _versions(done))
    runner.stop()


def _wait_for(home: Path, layer: str, name: str, version: str) -> None:
    pointer, until = home / "lake" / layer / "eng" / name / "CURRENT", time.monotonic() + 60
    while not (pointer.exists() and pointer.read_text().strip() == version):
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_killed_run_leaves_every_shard_old_or_new_and_the_next_one_does_the_rest(
    world: World, tmp_path: Path
) -> None:
    assert not set(world.before.values()) & set(world.after.values())
    chance = random.Random(5)
    found: list[tuple[str, ...]] = []
    for number, (layer, place) in enumerate(KILLS):
        home = tmp_path / str(number)
        shutil.copytree(world.home, home)
        pid = world.runner.start(home=home, shards=world.shards)
        _wait_for(home, layer, world.names[place], world.after[layer, world.names[place]])
        time.sleep(chance.uniform(0, DELAY_S))
        os.kill(pid, signal.SIGKILL)
        assert world.runner.end() == -signal.SIGKILL
        now = _versions(home)
        lake = Lake(home / "lake")
        for (its_layer, name), version in now.items():
            assert version in (world.before.get((its_layer, name)), world.after[its_layer, name])
            assert lake.partition(its_layer, "eng", name).damaged() == set()
        found.append(tuple(sorted(f"{key[0]} {key[1][0]}" for key in now if now[key] == world.after[key])))
        whole = {name: _pointer(home, name) for name in world.names if _is_new(world, now, name)}
        world.runner.start(home=home, shards=world.shards)
        assert world.runner.end() == 0
        assert _versions(home) == world.after and leftovers(home) == []
        assert {name: _pointer(home, name) for name in whole} == whole  # what was cleaned is not cleaned again
    assert len(set(found)) >= 3  # else the moments were not spread over the way
    assert all(len(one) < len(world.after) for one in found)


def _is_new(world: World, now: dict[tuple[str, str], str], name: str) -> bool:
    return now.get(("text_sentences", name)) == world.after["text_sentences", name]


def _pointer(home: Path, name: str) -> int:
    """Changes whenever the shard's sentences are published, be they the same."""
    return (home / "lake" / "text_sentences" / "eng" / name / "CURRENT").stat().st_ino


def test_taken_in_from_nothing_the_shards_are_the_same_bytes(world: World, tmp_path: Path) -> None:
    done = world.home.with_name("done")
    _list(tmp_path, world.shards)
    world.runner.start(home=tmp_path, shards=world.shards)
    assert world.runner.end() == 0
    assert _content(tmp_path) == _content(done)
