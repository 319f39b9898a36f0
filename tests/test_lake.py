"""The lake's promises: whole partitions, replaced atomically, named by their content."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from speech_mining.errors import LakeError
from speech_mining.lake import CURRENT, MANIFEST, STAGING, Lake
from tests.s3_server import new_bucket, s3_server

SCHEMA = {"a": pl.Int32(), "b": pl.String()}


def _publish(lake: Lake, value: int, *key: str) -> None:
    with lake.replace("layer", *key) as new:
        new.write_table("t.parquet", pl.DataFrame({"b": ["x"] * value, "a": list(range(value))}), SCHEMA)
        new.write_array("v.npy", np.arange(value, dtype=np.float16))


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(params=["disk", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "disk":
        return Lake(tmp_path)
    return Lake(new_bucket(request.getfixturevalue("s3")), scratch=tmp_path)


def test_what_was_published_is_read_back(lake: Lake) -> None:
    _publish(lake, 3, "deu", "47")
    read = lake.partition("layer", "deu", "47")
    assert read.read_table("t.parquet", SCHEMA)["a"].to_list() == [0, 1, 2]
    assert read.read_array("v.npy").tolist() == [0, 1, 2]
    assert lake.keys("layer", "deu") == ["47"]


def test_publishing_again_replaces_and_leaves_one_generation(lake: Lake) -> None:
    _publish(lake, 3, "k")
    first = lake.partition("layer", "k").data_version
    _publish(lake, 4, "k")
    read = lake.partition("layer", "k")
    assert read.data_version != first
    assert read.read_frame("t.parquet").height == 4
    assert sorted(child.name for child in read.folder.parent.iterdir()) == sorted([CURRENT, read.data_version])


def test_equal_content_has_an_equal_version_wherever_it_is_written(tmp_path: Path) -> None:
    versions = set()
    for place in ("one", "two"):
        _publish(Lake(tmp_path / place), 5, "k")
        versions.add(Lake(tmp_path / place).partition("layer", "k").data_version)
    assert len(versions) == 1


def test_an_error_while_filling_leaves_the_old_partition(lake: Lake) -> None:
    _publish(lake, 3, "k")
    with pytest.raises(RuntimeError), lake.replace("layer", "k") as new:
        new.write_json("x.json", {})
        raise RuntimeError("disk on fire")
    assert lake.partition("layer", "k").read_frame("t.parquet").height == 3


def test_a_partition_that_is_absent_is_named_with_its_fix(lake: Lake) -> None:
    assert lake.find("layer", "nope") is None
    assert lake.keys("layer") == []
    with pytest.raises(LakeError, match=r"layer of nope is not there.*materialize layer first"):
        lake.partition("layer", "nope")


def test_a_file_that_vanished_is_named(lake: Lake) -> None:
    _publish(lake, 3, "k")
    with pytest.raises(LakeError, match=r"no file gone\.parquet.*t\.parquet"):
        lake.partition("layer", "k").read_frame("gone.parquet")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b", "c:d", "a\0b"])
def test_a_key_cannot_leave_the_lake(lake: Lake, name: str) -> None:
    with pytest.raises(LakeError, match="cannot name a partition"):
        lake.find("layer", name)


def test_a_table_with_other_columns_is_refused(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"missing \['b'\], unknown \['c'\]"), lake.replace("layer", "k") as new:
        new.write_table("t.parquet", pl.DataFrame({"a": [1], "c": [2]}), SCHEMA)
    assert lake.find("layer", "k") is None


def test_removing_takes_the_partition_away(lake: Lake) -> None:
    _publish(lake, 3, "k")
    lake.remove("layer", "k")
    assert lake.find("layer", "k") is None
    assert lake.keys("layer") == []


def test_a_generation_that_a_kill_left_half_removed_is_not_taken_for_whole(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    _publish(lake, 3, "k")
    first = Path(str(lake.partition("layer", "k").folder))
    aside = tmp_path / "aside"
    shutil.copytree(first, aside)
    _publish(lake, 4, "k")
    assert not first.exists()
    (aside / MANIFEST).unlink()  # what a removal that goes by file takes first
    aside.rename(first)
    _publish(lake, 3, "k")
    assert lake.partition("layer", "k").read_frame("t.parquet").height == 3


WRITER = """
import sys
from tests.test_lake import _publish
from speech_mining.lake import Lake
lake = Lake(sys.argv[1])
print("ready", flush=True)
for n in range(10_000):
    _publish(lake, 100 + n % 2, "k")
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_partition(tmp_path: Path) -> None:
    moments = random.Random(7)
    lake = Lake(tmp_path)
    _publish(lake, 100, "k")
    for _ in range(20):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONPATH": "."},
        )
        with writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(moments.uniform(0, 0.1))
            writer.send_signal(signal.SIGKILL)
        read = lake.partition("layer", "k")
        rows = read.read_frame("t.parquet").height
        assert rows in {100, 101}
        assert read.read_array("v.npy").shape == (rows,)
    _publish(lake, 7, "k")
    folder = lake.partition("layer", "k").folder
    assert sorted(child.name for child in folder.parent.iterdir()) == sorted([CURRENT, folder.name])
    assert list((tmp_path / STAGING).iterdir()) == []


def test_a_damaged_generation_is_mended_by_writing_the_same_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for _ in range(2):
        with lake.replace("segments", "deu", "1") as new:
            new.write_json("counts.json", {"segments": 3})
        partition = lake.partition("segments", "deu", "1")
        assert partition.read_json("counts.json") == {"segments": 3}
        partition.local_path("counts.json").write_text("{", "utf-8")
