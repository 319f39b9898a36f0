"""`s2s export`, `s2s reconstruct` and the export assets, as a user meets them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import dagster as dg
import pytest
import typer
from typer.testing import CliRunner

from partitions.language_pairs import pair_partitions
from resources.export_command import export
from resources.reconstruct_command import reconstruct
from resources.settings import ExportSettings, load_settings
from resources.storage import Storage
from s2s_assets.exports import exports
from s2s_assets.published import published_manifests
from speech_mining.corpora.formats import FORMATS, export_to
from speech_mining.corpora.material import plan
from speech_mining.corpora.reconstruct import read_links
from speech_mining.errors import LakeError, SettingsError
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, SPEECH_TO_TEXT
from tests.export_world import SHARES, World, build
from tests.faulty_server import Answer, FaultyServer, faulty_server


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    monkeypatch.setenv("S2S_LANGUAGES", "deu,eng")
    return build(tmp_path, rows_a_pair=1)


def command(function: object, *words: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(function)  # type: ignore[type-var]
    found = CliRunner().invoke(app, list(words))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.stdout


def test_the_command_writes_an_export_and_tells_its_lineage(world: World, tmp_path: Path) -> None:
    words = ("deu-eng", "--format", "nemo", "--out", str(tmp_path / "out"), "--dev", "0.3", "--test", "0.3", "--json")
    code, told = command(export, *words)
    assert code == 0
    assert json.loads(told)["counts"] == {"train": 2, "dev": 2, "test": 2, "between": 0}
    assert len((tmp_path / "out" / "dev.jsonl").read_text().splitlines()) == 2
    code, told = command(export, *words[:-1])
    assert (code, "Nothing has changed" in told) == (0, True)


def test_the_command_exports_speech_with_text(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _ = command(export, "deu-eng", "--kind", "s2t", "-f", "fairseq", "-o", str(out), "--dev", "0", "--test", "0")
    assert code == 0
    assert "tgt_text" in (out / "train.tsv").read_text().partition("\n")[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("deu-eng", "-f", "kaldi"), "no export format 'kaldi'"),
        (("deu-eng", "-f", "nemo", "--kind", "x2y"), "no kind 'x2y'"),
        (("deu/../x", "-f", "nemo"), "is no language pair"),
        (("deu-eng", "-f", "nemo", "--dev", "1.5"), "cannot be"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_made(
    world: World, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        command(export, *words, "-o", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_settings_know_every_format() -> None:
    element = get_args(ExportSettings.model_fields["formats"].annotation)[0]
    assert get_args(element) == tuple(FORMATS)


def test_there_are_no_export_assets_unless_asked_for(world: World) -> None:
    assert exports(load_settings()) == []


def test_an_export_asset_keeps_its_format_in_the_lake(world: World) -> None:
    settings = load_settings(
        exports={"formats": ["nemo", "links"], "dev_share": 0.3, "test_share": 0.3}, speech_text_pairs="deu-eng"
    )
    made = exports(settings)
    keys = {asset.key.to_user_string() for asset in made}
    assert {"s2s_export_nemo", "s2s_export_links", "s2t_export_nemo", "s2t_export_links"} == keys
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*made, dg.AssetSpec("s2s_corpus"), dg.AssetSpec("s2t_corpus")],
            partition_key="deu-eng",
            instance=instance,
            resources={"storage": Storage.of(settings)},
        )
    assert result.success
    partition = world.lake.partition("s2s_export_nemo", "deu-eng")
    assert partition.data_version in str(result.asset_materializations_for_node("s2s_export_nemo")[0].tags)
    metadata = result.asset_materializations_for_node("s2s_export_nemo")[0].metadata
    assert metadata["dagster/row_count"].value == 6
    assert len(partition.path("test.jsonl").read_text().splitlines()) == 2
    assert not partition.damaged()
    assert world.lake.partition("s2t_export_links", "deu-eng").path("links.tsv.gz").exists()


@pytest.fixture
def served(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """The recordings on loopback, in the place of their origin."""
    with faulty_server() as server:
        for file in (world.lake.folder or Path()).rglob("*.wav"):
            server.at(f"/{file.parent.parent.name}.wav", Answer(body=file.read_bytes()))
        librivox = {"mirrors": {"https://archive.example": server.url}, "allowed_hosts": ["archive.example"]}
        monkeypatch.setenv("S2S_LIBRIVOX", json.dumps({**librivox, "attempts": 2, "first_wait_s": 0.0}))
        yield server


def links_of(world: World, folder: Path, kind: object = SPEECH_TO_SPEECH) -> Path:
    export_to(plan(world.lake, kind, "deu-eng", SHARES), "links", folder)  # type: ignore[arg-type]
    return folder / "links.tsv.gz"


def test_a_corpus_is_made_again_from_its_links_to_the_byte(world: World, served: FaultyServer, tmp_path: Path) -> None:
    export_to(plan(world.lake, SPEECH_TO_SPEECH, "deu-eng", SHARES), "nemo", tmp_path / "first")
    links = links_of(world, tmp_path / "links")
    code, _ = command(reconstruct, str(links), "--out", str(tmp_path / "again"), "--format", "nemo")
    assert code == 0
    first, again = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.flac")} for name in ("first", "again")
    )
    assert first == again
    assert len(first) == 12
    assert (tmp_path / "first" / "test.jsonl").read_text() == (tmp_path / "again" / "test.jsonl").read_text()
    assert not (tmp_path / ".again.recordings").exists()


def test_links_of_speech_and_text_hold_no_text(world: World, served: FaultyServer, tmp_path: Path) -> None:
    links = links_of(world, tmp_path / "links", SPEECH_TO_TEXT)
    table = read_links(links)
    assert not [name for name in table.frame.columns if name.endswith("_text")]
    assert b"Sentence" not in links.read_bytes()
    code, _ = command(reconstruct, str(links), "--out", str(tmp_path / "again"), "--format", "web-dataset")
    assert code == 0


def test_what_is_gone_or_changed_is_a_rejection_and_the_rest_is_made(
    world: World, served: FaultyServer, tmp_path: Path
) -> None:
    served.at("/deu0.wav", Answer(status=404))
    served.at("/eng1.wav", Answer(body=b"RIFF" + bytes(5000)))
    links = links_of(world, tmp_path / "links")
    code, told = command(reconstruct, str(links), "--out", str(tmp_path / "again"), "--format", "nemo", "--json")
    assert code == 1
    found = json.loads(told)
    reasons = {row["url"].rpartition("/")[2]: row["reason"] for row in found["rejections"]}
    assert reasons == {"deu0.wav": "not_found", "eng1.wav": "checksum_mismatch"}
    assert found["lineage"]["selection"]["rows_lost"] == 2
    assert sum(found["lineage"]["counts"].values()) == 4
    assert len(list((tmp_path / ".again.recordings").iterdir())) >= 10


def test_a_recording_that_was_fetched_is_not_asked_for_again(
    world: World, served: FaultyServer, tmp_path: Path
) -> None:
    links = links_of(world, tmp_path / "links")
    for name in ("one", "one"):
        command(reconstruct, str(links), "--out", str(tmp_path / name), "--format", "nemo", "--keep")
    kept = sorted(path.name for path in (tmp_path / ".one.recordings").iterdir())
    assert len(kept) == 12
    assert all(hashlib.sha256((tmp_path / ".one.recordings" / name).read_bytes()).hexdigest() == name for name in kept)
    assert len(served.requests) == 12


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b\x08\x00cut"])
def test_a_file_that_is_no_table_of_links_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "links.tsv.gz").write_bytes(content)
    with pytest.raises(LakeError, match="cannot be read as a table of links"):
        read_links(tmp_path / "links.tsv.gz")


def test_a_published_manifest_is_a_table_beside_ours(world: World, tmp_path: Path) -> None:
    manifest = tmp_path / "theirs.tsv"
    manifest.write_text("1.2\tdeu0_1.0_4.0\teng0_1.0_4.0\twhat\n1.1\tdeu0_8.0_9.0\tother_0.0_2.0\tever\n")
    pattern = r"(?P<recording>.+)_(?P<start>[0-9.]+)_(?P<end>[0-9.]+)"
    told = {"manifest": manifest, "pair": "deu-eng", "source": "column_2", "target": "column_3", "pattern": pattern}
    settings = load_settings(published={"theirs": {**told, "unit": "seconds"}})
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*published_manifests(settings), dg.AssetSpec("s2s_corpus", partitions_def=pair_partitions(["deu-eng"]))],
            instance=instance,
            resources={"storage": Storage.of(settings)},
        )
    found = result.asset_materializations_for_node("published__theirs")[0].metadata
    comparison = found["comparison"].value
    assert (comparison["rows"], comparison["our_rows"], comparison["shared_rows"]) == (2, 6, 1)
    assert world.lake.partition("published", "theirs").read_frame("manifest.parquet").columns[3] == "column_4"
    assert [row.data["column"] for row in found["columns"].records] == ["score", "column_2", "column_3", "column_4"]


def test_a_published_manifest_of_a_pair_that_is_not_mined_is_told(world: World, tmp_path: Path) -> None:
    settings = load_settings(published={"theirs": {"manifest": tmp_path / "x", "pair": "eng-deu"}})
    with pytest.raises(SettingsError, match=r"published\.theirs is of eng-deu, which is not mined"):
        published_manifests(settings)
