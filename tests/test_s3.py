"""A lake in an object store: copies on this machine, what other processes publish, and what killed writers left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import fsspec
import pytest
from upath import UPath

from resources.settings import load_settings
from s2s_assets.definitions import build
from speech_mining.errors import LakeError
from speech_mining.lake import CURRENT, MANIFEST, Lake
from speech_mining.object_store import Cache
from tests.faulty_server import FaultyServer, faulty_server
from tests.raw_book import RawBook, section, sound
from tests.s3_server import new_bucket, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3: str) -> str:
    return new_bucket(s3)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as serving:
        yield serving


def put(lake: Lake, **files: bytes) -> None:
    with lake.replace("layer", "k") as new:
        for name, content in files.items():
            new.path(name).write_bytes(content)


def objects(bucket: str) -> dict[str, tuple[int, str]]:
    """Every object, with its size and the time it was written."""
    store = fsspec.filesystem("s3", use_listings_cache=False)
    found = store.find(bucket.removeprefix("s3://"), detail=True)
    return {path: (about["size"], str(about["LastModified"])) for path, about in found.items()}


PUBLISH = "import sys\nfrom tests.test_s3 import *\nput(Lake(sys.argv[1], scratch=sys.argv[2]), a=b'two')\n"


def test_what_another_process_publishes_is_seen_at_once(bucket: str, tmp_path: Path) -> None:
    lake = Lake(bucket, scratch=tmp_path)
    put(lake, a=b"one")
    assert lake.keys("layer") == ["k"] and lake.partition("layer", "k").path("a").read_bytes() == b"one"
    root = Path(__file__).parent.parent
    subprocess.run(
        [sys.executable, "-c", PUBLISH, bucket, str(tmp_path / "other")],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True,
    )  # fmt: skip
    assert lake.partition("layer", "k").local_path("a").read_bytes() == b"two"
    assert len(objects(bucket)) == 3


def test_a_copy_is_fetched_once_and_kept_in_scratch(bucket: str, tmp_path: Path) -> None:
    lake = Lake(bucket, scratch=tmp_path)
    put(lake, a=b"one")
    first = lake.partition("layer", "k").local_path("a")
    assert first.is_relative_to(tmp_path) and first.read_bytes() == b"one"
    written = first.stat().st_ino
    assert Lake(bucket, scratch=tmp_path).partition("layer", "k").local_path("a").stat().st_ino == written
    first.write_bytes(b"cut"[:1])
    assert lake.partition("layer", "k").local_path("a").read_bytes() == b"one"


def test_a_copy_that_comes_damaged_is_an_error_and_is_not_kept(bucket: str, tmp_path: Path) -> None:
    lake = Lake(bucket, scratch=tmp_path)
    put(lake, a=b"one")
    found = lake.partition("layer", "k")
    found.path("a").write_bytes(b"eno")
    with pytest.raises(LakeError, match=r"a came damaged, twice.*materialize the partition again"):
        found.local_path("a")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_copies_are_bounded_and_those_in_use_stay(bucket: str, tmp_path: Path) -> None:
    lake = Lake(bucket, scratch=tmp_path)
    put(lake, a=b"a" * 100, b=b"b" * 100, c=b"c" * 100)
    found = lake.partition("layer", "k")

    def copies(cache: Cache) -> list[str]:
        for name in ("a", "b", "c"):
            copy = cache.copy_of(found.path(name), found.data_version, name, found.files[name])
            os.utime(copy, (1e9 + ord(name), 1e9 + ord(name)) if cache.in_use_s == 0 else None)
        return sorted(path.name for path in cache.folder.rglob("*") if path.is_file())

    assert copies(Cache(tmp_path / "idle", 250, in_use_s=0)) == ["b", "c"]
    assert copies(Cache(tmp_path / "busy", 250)) == ["a", "b", "c"]


def test_a_generation_half_sent_by_a_killed_writer_is_not_taken_for_whole_and_goes(bucket: str, tmp_path: Path) -> None:
    lake = Lake(bucket, scratch=tmp_path)
    put(lake, a=b"one", b=b"more")
    whole = lake.partition("layer", "k")
    name, folder = whole.data_version, whole.folder
    put(lake, a=b"two")
    assert not any(name in path for path in objects(bucket))
    (folder / "a").write_bytes(b"one")  # of two files one was sent, and no manifest
    (folder.parent / ("0" * 32) / "x").write_bytes(b"of another run")
    put(lake, a=b"one", b=b"more")
    assert lake.partition("layer", "k").path("b").read_bytes() == b"more"
    assert sorted(path.rpartition("/")[2] for path in objects(bucket)) == sorted(["a", "b", MANIFEST, CURRENT])
    assert lake.partition("layer", "k").damaged() == set()
    (folder / "b").unlink()
    assert lake.partition("layer", "k").damaged() == {"b"}


def test_publishing_what_is_there_sends_no_file_again(bucket: str, tmp_path: Path) -> None:
    lake = Lake(bucket, scratch=tmp_path)
    put(lake, a=b"one")
    before = {path: about for path, about in objects(bucket).items() if not path.endswith(CURRENT)}
    put(lake, a=b"one")
    assert {path: about for path, about in objects(bucket).items() if not path.endswith(CURRENT)} == before


def test_recordings_that_stand_do_not_pass_through_this_machine(
    bucket: str, tmp_path: Path, server: FaultyServer
) -> None:
    book = RawBook(server, bucket, tmp_path)
    book.serve({1: sound(1), 2: sound(2)})
    book.list(section(1))
    book.materialize()
    book.list(section(1, title="another"), section(2))
    book.materialize()
    assert book.contents() == {1: sound(1), 2: sound(2)}
    assert [path for path in tmp_path.rglob("*.mp3")] == []
    before = objects(bucket)
    assert book.materialize()["left_alone"] and objects(bucket) == before


def test_a_book_becomes_segments_in_an_object_store(bucket: str, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, storage_url=bucket, languages="deu")
    job = build(settings).resolve_implicit_global_asset_job_def()
    layers = [dg.AssetKey(["deu", name]) for name in ("raw_audio", "segments")]
    with dg.DagsterInstance.ephemeral() as instance:
        for selection in ([dg.AssetKey("catalogue")], layers):
            books = instance.get_dynamic_partitions("audiobooks_deu")
            done = job.execute_in_process(
                instance=instance,
                asset_selection=selection,
                partition_key=books[0] if books else None,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            assert done.success
    lake = Lake(bucket, scratch=tmp_path / "reader")
    assert lake.partition("segments", "deu", books[0]).read_frame("segments.parquet").height > 10
    assert not UPath(tmp_path / "lake").exists()
