"""Storage on a bad day: full, read-only, an object store that fails, is slow or cuts answers short."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from speech_mining.lake import CURRENT, STAGING, Lake
from speech_mining.upkeep.verification import verify
from tests.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.kept_lake import unpack
from tests.s3_server import at_endpoint, new_bucket, s3_server

pytestmark = pytest.mark.drill


def publish(lake: Lake, value: int, rows: int = 10) -> None:
    with lake.replace("layer", "k") as new:
        new.write_frame("t.parquet", pl.DataFrame({"a": np.random.default_rng(value).standard_normal(rows)}))
        new.write_array("v.npy", np.full(rows, value))


def limited(how: str, root: Path) -> list[str]:
    """What a process under a limit met: see `limited_writer`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.drills.limited_writer", how, str(root)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    met: list[str] = json.loads(done.stdout)
    return met


def test_a_disk_that_is_full_is_told_whoever_writes_and_the_old_partition_stays(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, 1)
    before = lake.partition("layer", "k").data_version
    for met in limited("full", tmp_path):  # by Polars, by numpy, by Python itself
        assert met.startswith("NoRoomError: The partition layer/k could not be written") and "free some room" in met
    assert lake.partition("layer", "k").data_version == before
    assert list((tmp_path / STAGING).iterdir()) == [] and verify(lake).findings == ()
    publish(lake, 2)
    assert lake.partition("layer", "k").read_array("v.npy")[0] == 2


def test_an_error_that_is_not_of_a_full_disk_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Lake(tmp_path).replace("layer", "k") as new:
        new.link(tmp_path / "nothing", "x")
    with pytest.raises(pl.exceptions.ColumnNotFoundError), Lake(tmp_path).replace("layer", "k") as new:
        new.write_frame("t.parquet", pl.DataFrame({"a": [1]}).select("b"))


@pytest.fixture
def barred() -> Iterator[Path]:
    """A folder in which everybody may read and nobody but root may write."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        unpack(home)
        for path in (home, *home.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield home
        for path in (home, *home.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_storage_that_may_not_be_written_is_told_and_can_be_read_and_verified(barred: Path) -> None:
    rows, findings, met = limited("barred", barred / "lake")
    assert (rows, findings) == ("3 rows", "0 findings")
    assert met.startswith("LakeError: The partition layer/k may not be written: Permission denied")
    assert "read-only" in met


# an object store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def faulty(s3: str, tmp_path: Path) -> Iterator[tuple[Lake, FaultyProxy]]:
    bucket = new_bucket(s3)
    with faulty_proxy(s3) as (url, told), at_endpoint(url):
        yield Lake(bucket, scratch=tmp_path), told


@pytest.mark.parametrize("fault", ["500", "503", "reset", "cut", "slow"])
def test_faults_that_pass_are_outlived_when_a_partition_is_published_and_read(
    faulty: tuple[Lake, FaultyProxy], fault: Fault
) -> None:
    lake, store = faulty
    publish(lake, 1, rows=3_000)
    for method in ("PUT", "GET"):
        store.method, store.faults = method, [fault, fault]
        publish(lake, 2 + (method == "GET"), rows=3_000)
        store.faults = [fault, fault]
        read = lake.partition("layer", "k")
        assert read.read_array("v.npy").tolist() == [2 + (method == "GET")] * 3_000
    store.faults = []
    assert len(store.met) >= 4 and verify(lake).findings == ()


def test_a_store_that_is_gone_for_good_leaves_the_old_partition_and_the_next_run_mends(
    faulty: tuple[Lake, FaultyProxy],
) -> None:
    lake, store = faulty
    publish(lake, 1)
    store.method, store.faults = "PUT", []
    for until in (1, 3):  # the claim is refused; then a file of the generation, after the claim and another file
        store.always = None
        with pytest.raises(OSError), lake.replace("layer", "k") as new:
            for name in ("a", "b", "c"):
                new.path(name).write_text(name * until)
            store.always = "503" if until == 1 else None
            if until == 3:
                _fail_after(store, 2)
    store.always = None
    assert lake.partition("layer", "k").read_array("v.npy")[0] == 1
    publish(lake, 2)
    assert lake.partition("layer", "k").read_array("v.npy")[0] == 2
    assert verify(lake).findings == ()
    names = sorted(path.rpartition("/")[2] for path in lake.root.fs.find(lake.root.path))
    assert names == sorted([CURRENT, "partition.json", "t.parquet", "v.npy"])


def _fail_after(store: FaultyProxy, passed: int) -> None:
    """Let so many requests through, then refuse all."""
    take = store.fault_of
    left = [passed]

    def fault_of(method: str) -> Fault | None:
        if method == "PUT" and left[0] > 0 and store.always is not None:
            left[0] -= 1
            return None
        return take(method)

    store.always = "503"
    store.fault_of = fault_of  # type: ignore[method-assign]
