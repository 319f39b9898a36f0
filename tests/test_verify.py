"""`s2s verify`: what is wrong with a lake is found, told and mended, and nothing else is touched."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import typer
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from typer.testing import CliRunner
from upath import UPath

from resources.verify_command import verify as command
from speech_mining.errors import LakeError
from speech_mining.lake import ASIDE, CURRENT, FORMAT, MANIFEST, STAGING, Lake, Partition
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from speech_mining.upkeep.findings import KINDS, Finding
from speech_mining.upkeep.places import arranged, look
from speech_mining.upkeep.verification import Verified, Wish, repair, verify
from tests.kept_lake import send, unpack
from tests.s3_server import new_bucket, s3_server

BOOK = ("raw_audio", "deu", "8001")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return unpack(tmp_path)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


def kinds(verified: Verified) -> list[str]:
    return sorted(finding.kind for finding in verified.findings)


def folder(lake: Lake, *names: str) -> Path:
    return Path(str(lake.partition(*names).folder))


def manifest_with(lake: Lake, names: tuple[str, ...], **changed: Any) -> None:
    """Write a generation's manifest otherwise, and the generation under the name that fits it."""
    import hashlib

    old = folder(lake, *names)
    text = json.dumps({**json.loads((old / MANIFEST).read_text()), **changed}, indent=1, sort_keys=True)
    new = old.with_name(hashlib.sha256(text.encode()).hexdigest()[:32])
    old.rename(new)
    (new / MANIFEST).write_text(text)
    (new.parent / CURRENT).write_text(f"{new.name}\n")


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


# what is found


def test_a_lake_that_nobody_touched_has_nothing_wrong(lake: Lake) -> None:
    verified = verify(lake)
    assert verified.findings == ()
    assert verified.partitions == 23
    assert verified.bytes_read == verified.bytes_listed > 300_000


Damage = Callable[[Lake, Path], object]
DAMAGES: dict[str, tuple[str, bool, Damage]] = {
    # what is done: the kind it is, whether names and sizes show it, how
    "a bit of a recording": ("damaged", False, lambda lake, book: flip(next(book.rglob("*.mp3")))),
    "a recording cut short": ("damaged", True, lambda lake, book: os.truncate(next(book.rglob("*.mp3")), 100)),
    "a file gone": ("damaged", True, lambda lake, book: (book / "recordings.parquet").unlink()),
    "a manifest gone": ("damaged", True, lambda lake, book: (book / MANIFEST).unlink()),
    "a manifest that is no JSON": ("damaged", True, lambda lake, book: (book / MANIFEST).write_text("{")),
    "a manifest edited": ("damaged", True, lambda lake, book: flip(book / MANIFEST)),
    "of another book": ("damaged", True, lambda lake, book: manifest_with(lake, BOOK, key=["deu", "8"])),
    "a newer format": ("newer_format", True, lambda lake, book: manifest_with(lake, BOOK, format=FORMAT + 1)),
    "CURRENT gone": ("no_current", True, lambda lake, book: (book.parent / CURRENT).unlink()),
    "CURRENT empty": ("broken_current", True, lambda lake, book: (book.parent / CURRENT).write_text("")),
    "CURRENT of nothing": ("broken_current", True, lambda lake, book: (book.parent / CURRENT).write_text("0" * 32)),
    "CURRENT binary": ("broken_current", True, lambda lake, book: (book.parent / CURRENT).write_bytes(b"\xff\x00")),
    "a file of another": ("foreign", True, lambda lake, book: (book / "notes.txt").write_text("mine")),
    "a file beside": ("foreign", True, lambda lake, book: (book.parent / "notes.txt").write_text("mine")),
    "an old generation": ("orphan", True, lambda lake, book: shutil.copytree(book, book.with_name("0" * 32))),
    "a file in the lake": ("stray", True, lambda lake, book: (book.parents[2] / "notes.txt").write_text("mine")),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_each_damage_is_found_as_what_it_is(lake: Lake, what: str) -> None:
    kind, by_size, damage = DAMAGES[what]
    damage(lake, folder(lake, *BOOK))
    found = [finding for finding in verify(lake).findings if finding.kind != "behind"]
    assert [finding.kind for finding in found] == [kind]
    assert all((each.found, each.consequence, each.remedy) != ("", "", "") for each in found)
    quick = [kind for kind in kinds(verify(lake, Wish(quick=True))) if kind != "behind"]
    assert quick == ([kind] if by_size else [])


def test_a_table_with_other_columns_is_found_although_its_bytes_are_whole(lake: Lake) -> None:
    with lake.replace("segments", "deu", "8001") as new:
        new.write_frame("segments.parquet", pl.DataFrame({"segment": [1]}))
    (finding,) = [each for each in verify(lake).findings if each.kind == "other_columns"]
    assert "segment_id" in finding.found and "materialize deu/segments of 8001" in finding.remedy


def test_a_table_that_does_not_open_is_found(lake: Lake) -> None:
    with lake.replace("segments", "deu", "8001") as new:
        new.path("segments.parquet").write_bytes(b"no parquet")
    assert "other_columns" in kinds(verify(lake))


def test_staging_of_the_dead_is_found_and_that_of_the_living_is_not(lake: Lake) -> None:
    assert lake.folder is not None
    with lake.replace("layer", "k") as new:
        new.write_json("x.json", {})
        assert verify(lake).findings == ()
        (lake.folder / STAGING / f"{platform.node()}_{2**22 + 1}.1_{'a' * 32}").mkdir()
        assert kinds(verify(lake)) == ["staging"]
    assert [repair(lake, finding) for finding in verify(lake).findings] == ["removed"]
    assert list((lake.folder / STAGING).iterdir()) == []


def test_only_the_layers_that_were_asked_for_are_looked_at(lake: Lake) -> None:
    flip(next(folder(lake, *BOOK).rglob("*.mp3")))
    assert verify(lake, Wish(frozenset({"segments"}))).findings == ()
    assert kinds(verify(lake, Wish(frozenset({"raw_audio"})))) == ["damaged"]


def test_a_book_named_like_a_generation_is_a_book() -> None:
    book, generation = "a" * 32, "b" * 32
    files = {
        f"raw_audio/deu/{book}/{CURRENT}": 33,
        f"raw_audio/deu/{book}/{generation}/x": 1,
        f"raw_audio/deu/{generation}/{book}/y": 1,
    }
    found = arranged(files)
    assert [(place.key, list(place.generations)) for place in found.places] == [
        (("deu", book), [generation]),
        (("deu", generation), [book]),
    ]


# what is behind


def published(lake: Lake, names: tuple[str, ...], **json_changes: dict[str, Any]) -> None:
    """Publish a partition again with some of its JSON files changed, or with a file more."""
    before = lake.partition(*names)
    with lake.replace(*names) as new:
        for name in before.files:
            new.reuse(before, name)
        for name, changes in json_changes.items():
            path = new.path(f"{name}.json")
            told = before.read_json(f"{name}.json") if f"{name}.json" in before.files else {}
            path.unlink(missing_ok=True)
            new.write_json(f"{name}.json", {**told, **changes})


def behind(lake: Lake) -> set[str]:
    return {finding.place for finding in verify(lake).findings if finding.kind == "behind"}


def test_embeddings_that_changed_leave_the_index_behind_and_nothing_else(lake: Lake) -> None:
    published(lake, ("speech_embeddings", "deu", "8001"), more={"x": 1})
    assert behind(lake) == {"speech_index/deu"}


def test_a_book_that_came_leaves_the_index_behind_and_is_not_listed(lake: Lake) -> None:
    for layer in ("raw_audio", "segments", "speech_embeddings"):
        source = lake.partition(layer, "deu", "8001")
        with lake.replace(layer, "deu", "9") as new:
            for name in source.files:
                new.reuse(source, name)
    assert behind(lake) == {"speech_index/deu"}
    assert kinds(verify(lake)) == ["behind", "unlisted", "unlisted", "unlisted"]


def test_an_index_that_changed_leaves_neighbours_behind_and_then_pairs_and_corpus(lake: Lake) -> None:
    published(lake, ("speech_index", "deu"), encoder={"encoder": "another 2"})
    assert behind(lake) == {"s2s_neighbours/deu-fra", "s2t_neighbours/deu-fra"}
    published(lake, ("s2s_neighbours", "deu-fra"), search={"rolls": ["a", "b"]})
    assert {"s2s_neighbours/deu-fra", "s2s_pairs/deu-fra"} <= behind(lake)
    published(lake, ("s2s_pairs", "deu-fra"), scoring={"rolls": ["c", "d"]})
    assert {"s2s_pairs/deu-fra", "s2s_corpus/deu-fra"} <= behind(lake)


def test_other_segments_leave_the_embeddings_behind(lake: Lake) -> None:
    partition = lake.partition("segments", "fra", "8002")
    with lake.replace("segments", "fra", "8002") as new:
        for name in partition.files:
            new.reuse(partition, name)
        fewer = partition.read_frame("segments.parquet").head(-1)
        new.path("segments.parquet").unlink()
        new.write_frame("segments.parquet", fewer)
    assert behind(lake) == {"speech_embeddings/fra/8002"}


def test_what_lost_its_source_is_behind(lake: Lake) -> None:
    lake.remove("segments", "fra", "8002")
    assert behind(lake) == {"speech_embeddings/fra/8002"}
    lake.remove("s2s_neighbours", "deu-fra")
    assert "s2s_pairs/deu-fra" in behind(lake)


def test_sections_that_were_listed_since_leave_recordings_behind(lake: Lake) -> None:
    catalogue = lake.partition("catalogue")
    listed = catalogue.read_frame("catalogue.parquet")
    with lake.replace("catalogue") as new:
        for name in catalogue.files:
            new.reuse(catalogue, name)
        new.path("catalogue.parquet").unlink()
        new.write_frame("catalogue.parquet", listed.filter(~((pl.col("language") == "deu") & (pl.col("section") == 2))))
    assert behind(lake) == {"raw_audio/deu/8001"}


def test_a_book_that_is_listed_no_more_is_told(lake: Lake) -> None:
    catalogue = lake.partition("catalogue")
    listed = catalogue.read_frame("catalogue.parquet")
    with lake.replace("catalogue") as new:
        for name in catalogue.files:
            new.reuse(catalogue, name)
        new.path("catalogue.parquet").unlink()
        new.write_frame("catalogue.parquet", listed.filter(language="fra"))
    assert {finding.place for finding in verify(lake).findings if finding.kind == "unlisted"} == {
        f"{layer}/deu/8001" for layer in ("raw_audio", "segments", "speech_embeddings")
    }


def test_two_encoders_in_a_language_are_told(lake: Lake) -> None:
    source = lake.partition("speech_embeddings", "deu", "8001")
    with lake.replace("speech_embeddings", "deu", "7") as new:
        for name in source.files:
            new.reuse(source, name)
        new.path("encoder.json").unlink()
        new.write_json("encoder.json", {**source.read_json("encoder.json"), "version": "another"})
    (told,) = [each for each in verify(lake).findings if each.place == "speech_embeddings/deu"]
    assert "2 encoders" in told.found


def test_text_that_changed_leaves_what_is_made_of_it_behind(lake: Lake) -> None:
    (shard,) = lake.keys("text_sentences", "fra")
    published(lake, ("text_sentences", "fra", shard), more={"x": 1})
    assert behind(lake) == {"text_duplicates/fra"}
    published(lake, ("text_embeddings", "fra", shard), more={"x": 1})
    assert behind(lake) == {"text_duplicates/fra", "text_index/fra"}


# what is mended


def mend(lake: Lake) -> dict[str, str]:
    """Repair everything; returns what was done by kind."""
    return {finding.kind: repair(lake, finding) for finding in verify(lake).findings if finding.act}


@pytest.mark.parametrize("what", ["CURRENT gone", "CURRENT empty", "CURRENT of nothing", "an old generation"])
def test_what_can_be_mended_without_loss_is(lake: Lake, what: str) -> None:
    before = lake.partition(*BOOK).data_version
    DAMAGES[what][2](lake, folder(lake, *BOOK))
    assert all(mend(lake).values())
    assert verify(lake).findings == ()
    assert lake.partition(*BOOK).data_version == before


def test_which_of_two_whole_generations_was_meant_is_not_guessed(lake: Lake, tmp_path: Path) -> None:
    book = folder(lake, *BOOK)
    shutil.copytree(book, tmp_path / "kept")
    with lake.replace(*BOOK) as new:
        new.write_json("x.json", {})
    shutil.move(tmp_path / "kept", book)
    (book.parent / CURRENT).unlink()
    (finding,) = [each for each in verify(lake).findings if each.kind == "no_current"]
    assert finding.act == "set_aside" and "2 generations" in finding.found


def test_what_is_damaged_is_moved_aside_with_its_reason_and_nothing_of_it_is_lost(lake: Lake) -> None:
    assert lake.folder is not None
    book = folder(lake, *BOOK)
    flip(next(book.rglob("*.mp3")))
    files = {path.name: path.read_bytes() for path in book.rglob("*") if path.is_file()}
    done = mend(lake)
    assert lake.find(*BOOK) is None
    kept = lake.folder / ASIDE / "/".join(BOOK) / "1"
    assert done["damaged"].endswith(str(kept))
    assert {path.name: path.read_bytes() for path in (kept / book.name).rglob("*") if path.is_file()} == files
    assert json.loads(kept.with_name("1.json").read_text())["kind"] == "damaged"
    assert behind(lake) == {"segments/deu/8001"}


def test_what_is_moved_aside_twice_is_kept_twice(lake: Lake) -> None:
    assert lake.folder is not None
    for _ in range(2):
        (folder(lake, *BOOK) / "notes.txt").write_text("mine")
        mend(lake)
    generation = lake.partition(*BOOK).data_version
    kept = lake.folder / ASIDE / "/".join(BOOK) / generation / "notes.txt"
    assert sorted(path.name for path in kept.iterdir()) == ["1", "1.json", "2", "2.json"]
    assert verify(lake).findings == ()


def test_a_partition_that_was_made_again_meanwhile_is_left_alone(lake: Lake) -> None:
    source = lake.partition(*BOOK)
    whole = {name: source.local_path(name).read_bytes() for name in source.files}
    flip(next(folder(lake, *BOOK).rglob("*.mp3")))
    (finding,) = verify(lake).findings
    with lake.replace(*BOOK) as new:
        for name, body in whole.items():
            if not name.endswith(".mp3"):
                new.path(name).write_bytes(body)
    assert repair(lake, finding) == ""
    assert lake.find(*BOOK) is not None


def test_what_a_newer_version_wrote_is_left_to_it_and_refused_by_name(lake: Lake) -> None:
    manifest_with(lake, BOOK, format=FORMAT + 1)
    with pytest.raises(LakeError, match=rf"written in format {FORMAT + 1}.*newer version"):
        lake.partition(*BOOK).read_frame("recordings.parquet")
    (finding,) = [each for each in verify(lake).findings if each.kind == "newer_format"]
    assert repair(lake, finding) == "" and lake.find(*BOOK) is not None


def test_an_object_store_is_verified_and_mended(lake: Lake, s3: str, tmp_path: Path) -> None:
    there = send(lake, new_bucket(s3), tmp_path / "scratch")
    assert verify(there).findings == ()
    book = there.partition(*BOOK).folder
    recording = next(name for name in there.partition(*BOOK).files if name.endswith(".mp3"))
    body = bytearray((book / recording).read_bytes())
    body[50] ^= 1
    (book / recording).write_bytes(bytes(body))
    (there.root / "segments/fra/8002" / CURRENT).unlink()
    (there.root / "segments/deu/8001" / ("0" * 32) / "x").write_bytes(b"half sent")
    found = verify(there).findings
    assert sorted(finding.kind for finding in found) == ["behind", "damaged", "no_current", "orphan"]
    assert [bool(repair(there, finding)) for finding in found if finding.act] == [True, True, True]
    assert {finding.place for finding in verify(there).findings} == {"segments/deu/8001"}
    aside = there.root / ASIDE / "/".join(BOOK) / "1"
    assert (UPath(aside) / book.name / recording).read_bytes() == bytes(body)


# Dagster's record, and the command


@pytest.fixture
def home(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose instance remembers the fixture's books as batches do, and its pair as single runs do."""
    instance = tmp_path / "dagster"
    instance.mkdir()
    (instance / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(instance))
    with dg.DagsterInstance.get() as remembered:
        for language, book in (("deu", "8001"), ("fra", "8002")):
            made = lake.partition("segments", language, book)
            remember(remembered, made, [language, "segments"], book, batched=True)
        remember(remembered, lake.partition("s2s_pairs", "deu-fra"), ["s2s_pairs"], "deu-fra", batched=False)
        remember(remembered, lake.partition("catalogue"), ["catalogue"], None, batched=False)
    return tmp_path


def remember(
    instance: dg.DagsterInstance, made: Partition, asset: list[str], partition: str | None, *, batched: bool
) -> None:
    version = made.data_version
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            dg.AssetKey(asset),
            partition=partition,
            metadata={"data_version": version} if batched else {},
            tags={DATA_VERSION_TAG: "of code and inputs" if batched else version},
        )
    )


def run(home: Path, *options: str) -> tuple[int, dict[str, Any]]:
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ["--home", str(home), "--json", *options], catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)


def test_the_command_ends_with_0_where_nothing_is_wrong_and_dagster_agrees(home: Path) -> None:
    code, told = run(home)
    assert (code, told["findings"], told["left"]) == (0, [], 0)
    assert told["partitions"] == 23 and told["bytes_read"] > 0


def test_files_newer_than_the_record_are_told_to_dagster_once(home: Path, lake: Lake) -> None:
    published(lake, ("s2s_pairs", "deu-fra"), more={"x": 1})
    code, told = run(home)
    assert code == 1 and [each["kind"] for each in told["findings"]] == ["unrecorded"]
    code, told = run(home, "--repair")
    assert code == 0 and [each["done"] for each in told["findings"]] == ["told to Dagster"]
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("s2s_pairs"))
        assert event is not None and event.asset_materialization is not None
        assert event.asset_materialization.metadata["told_by"].value == "s2s verify --repair"
    assert run(home)[0] == 0


def test_what_dagster_remembers_and_the_lake_lost_is_told(home: Path, lake: Lake) -> None:
    lake.remove("segments", "deu", "8001")
    code, told = run(home, "--allow", "behind")
    assert code == 1
    assert {each["place"] for each in told["findings"] if each["kind"] == "lost"} == {"segments/deu/8001"}


def test_what_is_moved_aside_is_told_as_lost_by_the_same_command(home: Path, lake: Lake) -> None:
    flip(folder(lake, "segments", "deu", "8001") / "segments.parquet")
    code, told = run(home, "--repair")
    by_kind = {each["kind"]: each["done"] for each in told["findings"]}
    assert code == 1 and set(by_kind) == {"damaged", "lost", "behind"}
    assert by_kind["damaged"] and not by_kind["lost"]


def test_kinds_that_are_allowed_do_not_count(home: Path, lake: Lake) -> None:
    published(lake, ("speech_embeddings", "deu", "8001"), more={"x": 1})
    assert run(home)[0] == 1
    code, told = run(home, "--allow", "behind")
    assert code == 0 and [each["kind"] for each in told["findings"]] == ["behind"]


def test_every_kind_is_told_in_words_and_has_a_consequence() -> None:
    assert all(told for told in KINDS.values())
    assert Finding("orphan", "a", ("b",), "", "", "").place == "a/b"


def test_a_listing_knows_every_partition_of_the_lake(lake: Lake) -> None:
    assert ("8001",) == look(lake).keys("raw_audio")[0][1:]
    assert look(lake).keys(SPEECH_TO_SPEECH.layer("corpus")) == [("deu-fra",)]
