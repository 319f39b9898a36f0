"""`s2s gc`: what nothing refers to is listed and removed, what anybody holds or refers to stays."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import typer
from typer.testing import CliRunner

from resources.gc_command import gc as command
from speech_mining.lake import ASIDE, STAGING, Lake
from speech_mining.sources.writer import only_writer
from speech_mining.upkeep.collection import COPY_AGE_S, Home, Kept, Leftover, Wish, collect
from speech_mining.upkeep.verification import repair, verify
from tests.kept_lake import send, unpack
from tests.s3_server import new_bucket, s3_server

DEAD = f"{platform.node()}_{2**22 + 1}.1_"
ALL = Kept(
    frozenset({"deu", "fra"}),
    frozenset({"fra"}),
    {"s2s": frozenset({"deu-fra"}), "s2t": frozenset({"deu-fra"})},
    frozenset(),
)
NOW = Wish(least_age_s=-1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return unpack(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "downloads", tmp_path / "scratch", tmp_path / "training", 10**6)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


def told(leftovers: list[Leftover]) -> list[tuple[str, str]]:
    return sorted((each.kind, each.what) for each in leftovers)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path, size: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x").write_bytes(b"x" * size)
    return folder


def test_a_lake_in_order_has_no_leftovers_and_looking_changes_nothing(lake: Lake, home: Home) -> None:
    assert lake.folder is not None
    before = content(lake.folder)
    assert collect(lake, home, replace(NOW, kept=ALL)) == []
    assert content(lake.folder) == before


def test_what_killed_writers_left_is_told_with_its_bytes_and_goes(lake: Lake, home: Home) -> None:
    assert lake.folder is not None
    before = content(lake.folder)
    current = lake.folder / "segments" / "deu" / "8001"
    old = fill(current / ("0" * 32), 100)
    fill(lake.folder / STAGING / f"{DEAD}{'a' * 32}", 50)
    found = collect(lake, home)
    assert sorted((each.kind, each.bytes) for each in found) == [("orphan", 100), ("staging", 50)]
    assert all(each.remove() for each in found)
    assert not old.exists() and content(lake.folder) == before


def test_staging_of_a_living_process_stays(lake: Lake, home: Home) -> None:
    with lake.replace("layer", "k") as new:
        new.write_json("x.json", {})
        assert collect(lake, home, NOW) == []


def test_a_generation_is_no_orphan_while_its_partition_has_no_current_one(lake: Lake, home: Home) -> None:
    assert lake.folder is not None
    (lake.folder / "segments" / "deu" / "8001" / "CURRENT").unlink()  # s2s verify --repair restores it
    assert collect(lake, home, NOW) == []


def test_downloads_of_a_whole_book_go_unless_it_is_being_fetched(lake: Lake, home: Home) -> None:
    done, under_way = fill(home.downloads / "deu" / "8001"), fill(home.downloads / "deu" / "8003")
    fill(home.downloads / ".lake")
    (found,) = collect(lake, home)
    assert (found.kind, found.what) == ("download", str(done))
    with only_writer(done.with_name(".8001.lock"), wait_s=0):
        assert not found.remove() and done.exists()
    assert found.remove() and not done.exists() and under_way.exists()


def test_downloads_of_a_book_that_is_to_be_tried_again_stay(lake: Lake, home: Home) -> None:
    fill(home.downloads / "deu" / "8001")
    with lake.replace("incomplete", "deu", "8001") as new:
        new.write_json("x.json", {})
    assert collect(lake, home) == []


def test_what_a_run_is_at_stays(lake: Lake, home: Home) -> None:
    fill(home.downloads / "deu" / "8001")
    lake.remove("s2s_neighbours", "deu-fra")
    assert len(collect(lake, home, NOW)) == 2
    assert collect(lake, home, replace(NOW, busy=frozenset({"deu-fra", "8001"}))) == []


def test_a_state_without_neighbours_goes_when_it_is_old(lake: Lake, home: Home) -> None:
    lake.remove("s2s_neighbours", "deu-fra")
    assert collect(lake, home) == []  # it may be of a search that is under way
    (found,) = collect(lake, home, NOW)
    assert (found.kind, found.what) == ("search", "s2s_neighbour_state/deu-fra")
    assert found.remove() and lake.find("s2s_neighbour_state", "deu-fra") is None


def test_blocks_go_once_neighbours_are_newer(lake: Lake, home: Home) -> None:
    assert lake.folder is not None
    for block in ("a", "b"):
        with lake.replace("s2s_neighbour_blocks", "deu-fra", block) as new:
            new.write_json("x.json", {})
    merged = (lake.folder / "s2s_neighbours" / "deu-fra" / "CURRENT").stat().st_mtime
    current = lake.folder / "s2s_neighbour_blocks" / "deu-fra" / "a" / "CURRENT"
    os.utime(current, (merged - 9, merged - 9))
    assert told(collect(lake, home, NOW)) == [("search", "s2s_neighbour_blocks/deu-fra/a")]


def test_the_quarantine_is_kept_within_its_budget_oldest_first(lake: Lake, home: Home) -> None:
    assert lake.folder is not None
    for age, book in ((30, "deu/8001"), (20, "fra/8002")):
        (recording, *_) = sorted((lake.folder / "raw_audio" / book).rglob("*.mp3"))
        recording.write_bytes(b"damaged" * 1000)
        (finding,) = [each for each in verify(lake).findings if each.kind == "damaged"]
        repair(lake, finding)
        reason = lake.folder / ASIDE / "raw_audio" / book / "1.json"
        os.utime(reason, (time.time() - age, time.time() - age))
    held = sum(path.stat().st_size for path in (lake.folder / ASIDE).rglob("*") if path.is_file())
    assert collect(lake, replace(home, aside_bytes=held)) == []
    (found,) = collect(lake, replace(home, aside_bytes=held - 1))
    assert (found.kind, found.what) == ("quarantine", f"{ASIDE}/raw_audio/deu/8001/1")
    found.remove()
    assert not (lake.folder / f"{found.what}.json").exists() and not (lake.folder / found.what).exists()
    assert (lake.folder / ASIDE / "raw_audio" / "fra" / "8002" / "1").is_dir()


def test_scratch_of_corpora_and_texts_that_are_no_more_goes(lake: Lake, home: Home) -> None:
    fill(home.scratch / "clips" / "s2s" / "deu-fra")
    fill(home.scratch / "text_duplicates" / "fra")
    gone = [fill(home.scratch / "clips" / "s2s" / "deu-eng"), fill(home.scratch / "text_duplicates" / "eng")]
    assert [what for _, what in told(collect(lake, home))] == [str(path) for path in gone]


def test_partitions_that_no_setting_asks_for_go_only_when_it_is_asked(lake: Lake, home: Home) -> None:
    fewer = replace(ALL, languages=frozenset({"deu"}), pairs={"s2s": frozenset(), "s2t": frozenset({"deu-fra"})})
    fill(home.training / "old_student")
    assert collect(lake, home, NOW) == []
    found = collect(lake, home, replace(NOW, kept=fewer))
    assert [what for _, what in told(found)] == sorted(
        [
            *(f"{layer}/fra/8002" for layer in ("raw_audio", "segments", "speech_embeddings")),
            "speech_index/fra",
            *(f"s2s_{layer}/deu-fra" for layer in ("neighbour_state", "neighbours", "pairs", "corpus")),
            str(home.training / "old_student"),
        ]
    )


def test_an_audiobook_that_is_listed_no_more_is_unused(lake: Lake, home: Home) -> None:
    source = lake.partition("raw_audio", "deu", "8001")
    with lake.replace("raw_audio", "deu", "9") as new:
        for name in source.files:
            new.reuse(source, name)
    assert told(collect(lake, home, replace(NOW, kept=ALL))) == [("unused", "raw_audio/deu/9")]


def test_an_object_store_loses_orphans_and_copies_of_what_is_no_more(
    lake: Lake, home: Home, s3: str, tmp_path: Path
) -> None:
    there = send(lake, new_bucket(s3), tmp_path / "machine")
    (there.root / "segments/deu/8001" / ("0" * 32) / "x").write_bytes(b"half sent")
    partition = there.partition("segments", "deu", "8001")
    held = partition.local_path("segments.parquet")
    gone = fill(there.copies / ("1" * 32))
    long_ago = time.time() - 2 * COPY_AGE_S
    for path in (gone / "x", gone):
        os.utime(path, (long_ago, long_ago))
    found = collect(there, home)
    assert told(found) == [("copy", str(gone)), ("orphan", f"segments/deu/8001/{'0' * 32}")]
    assert all(each.remove() for each in found)
    assert collect(there, home) == [] and held.exists() and verify(there).findings == ()


def test_a_generation_that_somebody_is_sending_to_an_object_store_is_no_orphan(
    lake: Lake, home: Home, s3: str, tmp_path: Path
) -> None:
    there = send(lake, new_bucket(s3), tmp_path / "machine")
    book = there.root / "segments/deu/8001"
    (book / ("0" * 32) / "x").write_bytes(b"half sent")
    (book / f".writing.another-machine_7.1_{'a' * 32}").write_bytes(b"")
    assert collect(there, home) == [] and verify(there).findings == ()


def run(home: Path, *options: str) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ["--home", str(home), "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_command_removes_nothing_unless_it_is_told_to(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = tmp_path / "dagster"
    instance.mkdir()
    (instance / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(instance))
    left = fill(tmp_path / "downloads" / "deu" / "8001")
    log = fill(instance / "storage" / "01234567-89ab-cdef-0123-456789abcdef")
    with dg.DagsterInstance.get() as remembered:
        run_id = remembered.create_run_for_job(dg.GraphDefinition("nothing").to_job()).run_id
    known = fill(instance / "storage" / run_id)
    listed = run(tmp_path)
    assert sorted(each["kind"] for each in listed["leftovers"]) == ["download", "log"]
    assert listed["bytes_removed"] == 0 and left.exists() and log.exists()
    assert run(tmp_path, "--delete")["bytes_removed"] == listed["bytes"]
    assert not left.exists() and not log.exists() and known.exists()
    shutil.rmtree(tmp_path / "lake" / "segments")
    assert run(tmp_path)["leftovers"] == []
