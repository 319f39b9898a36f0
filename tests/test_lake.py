"""The lake's promises: whole partitions, replaced atomically, named by their content."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from speech_mining.errors import LakeError
from speech_mining.lake import CURRENT, FORMAT, MANIFEST, STAGING, Lake
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


# several at once, clocks that jump, formats that are newer

TURN = """
import sys
from tests.test_lake import _publish
from speech_mining.lake import Lake
lake = Lake(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for n in range(150):
    _publish(lake, int(sys.argv[2]) + n % 3, "k")
"""


def _lastingly_damaged(lake: Lake) -> bool:
    """Whether what is current is damaged, and not merely replaced while it is read."""
    found = lake.find("layer", "k")
    try:
        bad = found is not None and bool(found.damaged())
    except (LakeError, FileNotFoundError):
        bad = True
    now = lake.find("layer", "k")
    return bad and found is not None and now is not None and now.data_version == found.data_version


def test_of_writers_of_one_partition_at_once_each_ends_and_one_wins_whole(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", TURN, str(tmp_path), str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONPATH": "."},
        )
        for first in (10, 11)
    ]  # 11 and 12 are written by both: the same content under the same name
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    lake = Lake(tmp_path)
    while any(writer.poll() is None for writer in writers):
        assert not _lastingly_damaged(lake)
    for writer in writers:
        with writer:
            writer.communicate()
        assert writer.returncode == 0
    whole = lake.partition("layer", "k")
    assert whole.damaged() == set() and whole.read_frame("t.parquet").height in {12, 13}
    assert sorted(child.name for child in whole.folder.parent.iterdir()) == sorted([CURRENT, whole.data_version])
    assert list((tmp_path / STAGING).iterdir()) == []


def test_a_writer_that_finds_its_content_current_does_not_lose_it_to_the_one_before(lake: Lake) -> None:
    """What the lock, or the claim, is for: between two steps of one writer, another publishes the old content again."""
    _publish(lake, 3, "k")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda turn: _publish(lake, 3 + turn % 2, "k"), range(40)))
    whole = lake.partition("layer", "k")
    assert whole.damaged() == set() and whole.read_frame("t.parquet").height in {3, 4}


def test_staging_of_a_living_writer_stays_though_the_clock_jumped_by_years(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    with lake.replace("layer", "k") as new:
        new.write_json("x.json", {"a": 1})
        for path in (new.path("x.json"), new.folder):
            os.utime(path, (0, 0))  # as if the clock had stood in 1970 when it was written
        _publish(lake, 3, "other")  # opening a staging sweeps
    assert lake.partition("layer", "k").read_json("x.json") == {"a": 1}


@pytest.mark.parametrize(("host", "process"), [(platform.node(), f"{2**22 + 1}.1"), (platform.node(), "1.7")])
def test_staging_of_a_process_that_is_gone_is_swept_also_where_its_number_is_taken(
    tmp_path: Path, host: str, process: str
) -> None:
    left = tmp_path / STAGING / f"{host}_{process}_{'a' * 32}"
    left.mkdir(parents=True)
    _publish(Lake(tmp_path), 3, "k")
    assert not left.exists()


def test_staging_of_another_machine_is_swept_only_when_the_disk_says_that_it_is_old(tmp_path: Path) -> None:
    area = tmp_path / STAGING
    old, young = (area / f"elsewhere_7.1_{letter * 32}" for letter in "ab")
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "x").write_text("x")
        os.utime(left, (0, 0))
    os.utime(old / "x", (0, 0))
    _publish(Lake(tmp_path), 3, "k")
    assert not old.exists() and young.exists()


def test_a_lock_that_a_killed_publisher_left_blocks_nobody_and_goes(tmp_path: Path) -> None:
    area = tmp_path / STAGING
    area.mkdir()
    (area / ".0123456789abcdef0123.lock").write_text("7 on elsewhere")
    _publish(Lake(tmp_path), 3, "k")
    assert list(area.iterdir()) == []


def test_a_partition_of_a_newer_format_is_refused_by_name(lake: Lake) -> None:
    _publish(lake, 3, "k")
    manifest = lake.partition("layer", "k").folder / MANIFEST
    told = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**told, "format": FORMAT + 1}), "utf-8")
    newer = rf"layer of k is written in format {FORMAT + 1}.*format {FORMAT} or an earlier.*newer version"
    with pytest.raises(LakeError, match=newer):
        lake.partition("layer", "k").read_frame("t.parquet")
    with pytest.raises(LakeError, match=newer):
        lake.partition("layer", "k").read_array("v.npy")


def test_a_partition_without_its_manifest_says_so(lake: Lake) -> None:
    _publish(lake, 3, "k")
    (lake.partition("layer", "k").folder / MANIFEST).unlink()
    with pytest.raises(LakeError, match=rf"layer of k has no {MANIFEST}.*s2s verify"):
        lake.partition("layer", "k").read_frame("t.parquet")
