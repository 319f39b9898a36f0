"""An export is in its folder whole or not at all: full disks, kills, other content, audio that vanished."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from speech_mining.corpora.formats import FORMATS, RECORD, export_to, exporter
from speech_mining.corpora.manifest import corpus_of
from speech_mining.corpora.material import Planned, plan
from speech_mining.corpora.splits import Shares
from speech_mining.errors import AudioError, LakeError, SettingsError
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, TEXT_TO_TEXT
from speech_mining.sources.writer import BusyError, only_writer
from tests.export_world import SHARES, World, build

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def planned(world: World, shares: Shares = SHARES) -> Planned:
    return plan(world.lake, SPEECH_TO_SPEECH, "deu-eng", shares)


def test_an_unknown_format_is_refused_with_the_list() -> None:
    with pytest.raises(SettingsError, match=r"no export format 'kaldi'.*hugging-face, lhotse-shar.*--format"):
        exporter("kaldi")


def test_a_folder_with_other_content_is_left_alone(world: World, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("three years")
    with pytest.raises(SettingsError, match=r"is not empty, and no export.*--out"):
        export_to(planned(world), "nemo", out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_the_place_is_left_alone(world: World, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SettingsError, match="no export"):
        export_to(planned(world), "nemo", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_the_same_export_is_made_once_and_another_replaces_it(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_to(planned(world), "links", out)
    before = (out / RECORD).stat().st_ino
    assert not export_to(planned(world), "links", out)
    assert (out / RECORD).stat().st_ino == before
    assert export_to(planned(world, Shares(0, 0)), "links", out)
    assert json.loads((out / RECORD).read_text())["lineage"]["shares"] == {"dev": 0, "test": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_at_once_in_one_folder_are_refused(world: World, tmp_path: Path) -> None:
    with only_writer(tmp_path / ".out.lock"), pytest.raises(BusyError):
        export_to(planned(world), "links", tmp_path / "out")


def test_a_full_disk_is_told_and_the_same_command_goes_on(world: World, tmp_path: Path) -> None:
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
{_EXPORT}"""
    full = _run(script, world, tmp_path / "out")
    assert "NoRoomError" in full.stderr
    assert "ulimit -f" in full.stderr
    assert not (tmp_path / "out").exists()
    assert len(list((tmp_path / ".out.exporting" / "clips").glob("*.clips"))) == 12
    assert export_to(planned(world), "web-dataset", tmp_path / "out")
    assert export_to(planned(world), "web-dataset", tmp_path / "other")
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "other")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_that_the_disk_is_full(world: World, tmp_path: Path, name: str) -> None:
    store = tmp_path / ".out.exporting" / "clips"
    planned(world).cut(store)
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
{_EXPORT.replace("web-dataset", name)}"""
    full = _run(script, world, tmp_path / "out")
    assert "NoRoomError: The export of deu-eng could not be written" in full.stderr
    assert not (tmp_path / "out").exists()


def test_a_kill_in_the_middle_leaves_no_folder_and_the_same_command_goes_on(world: World, tmp_path: Path) -> None:
    killing = _EXPORT.replace(
        "workers=1", "workers=1, progress=lambda done, total: done < 5 or os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert _run(killing, world, tmp_path / "out").returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    kept = {path.name: path.stat().st_ino for path in (tmp_path / ".out.exporting" / "clips").glob("*.clips")}
    assert 5 <= len(kept) < 12
    done = []
    export_to(planned(world), "web-dataset", tmp_path / "out", progress=lambda *told: done.append(told))
    export_to(planned(world), "web-dataset", tmp_path / "other")
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "other")
    assert done[-1] == (12, 12)


_EXPORT = """
import os, signal, sys
from pathlib import Path
from speech_mining.corpora.formats import export_to
from speech_mining.corpora.material import plan
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from tests.export_world import SHARES
planned = plan(Lake(sys.argv[1]), SPEECH_TO_SPEECH, "deu-eng", SHARES)
export_to(planned, "web-dataset", Path(sys.argv[2]), workers=1)
"""


def _run(script: str, world: World, out: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", script, str(world.lake.root), str(out)]
    return subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_audio_that_vanished_from_the_disk_is_named(tmp_path: Path) -> None:
    own = build(tmp_path, rows_a_pair=1)
    file = next((tmp_path / "lake" / "raw_audio" / "eng" / "eng2").rglob("*.wav"))
    file.unlink()
    with pytest.raises((AudioError, LakeError), match=r"raw_audio of eng/eng2|eng/eng2, section 1"):
        export_to(planned(own), "nemo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_audiobook_that_vanished_from_the_lake_is_named(tmp_path: Path) -> None:
    own = build(tmp_path, rows_a_pair=1)
    own.lake.remove("raw_audio", "deu", "deu1")
    with pytest.raises(LakeError, match=r"raw_audio of deu/deu1 is not in the lake.*materialize raw_audio"):
        planned(own)


def test_an_empty_corpus_is_no_export(tmp_path: Path) -> None:
    own = build(tmp_path, rows_a_pair=1)
    schema = corpus_of(SPEECH_TO_SPEECH)
    with own.lake.replace("s2s_corpus", "deu-eng") as new:
        new.write_table("corpus.parquet", pl.DataFrame(schema=dict(schema)), schema)
        new.write_json("selection.json", {})
    with pytest.raises(LakeError, match="has no rows"):
        planned(own)


def test_where_everything_is_between_splits_the_fix_is_told(tmp_path: Path) -> None:
    own = build(tmp_path, rows_a_pair=1)
    shutil.rmtree(tmp_path / "lake" / "s2s_corpus")
    frame = (
        build(tmp_path / "other", rows_a_pair=1).lake.partition("s2s_corpus", "deu-eng").read_frame("corpus.parquet")
    )
    crossed = frame.head(1).with_columns(source_readers=pl.lit(frame["source_readers"][1]))
    with own.lake.replace("s2s_corpus", "deu-eng") as new:
        new.write_table("corpus.parquet", crossed, corpus_of(SPEECH_TO_SPEECH))
        new.write_json("selection.json", {})
    with pytest.raises(LakeError, match=r"All 1 rows of deu-eng are between splits.*--dev 0 --test 0"):
        planned(own)


@pytest.mark.parametrize("name", ["fairseq", "nemo", "lhotse-shar"])
def test_formats_of_speech_refuse_a_corpus_without_speech(name: str, world: World, tmp_path: Path) -> None:
    material = planned(world).unheard().cut(tmp_path / "clips")
    from dataclasses import replace

    with pytest.raises(SettingsError, match="s2s, s2t or t2s"):
        exporter(name)(replace(material, kind=TEXT_TO_TEXT), tmp_path)
