"""Every export is read back by what people train with, and says what the corpus says."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import yaml

from speech_mining.corpora import fairseq, hugging_face, web_dataset
from speech_mining.corpora.formats import FORMATS, export_to
from speech_mining.corpora.material import Planned, plan
from speech_mining.corpora.splits import Shares
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, SPEECH_TO_TEXT, TEXT_TO_SPEECH, Kind
from tests.export_world import HOSTILE, SHARES, World, build

BOTH = pytest.mark.parametrize("kind", [SPEECH_TO_SPEECH, SPEECH_TO_TEXT], ids=lambda kind: kind.name)
SPLIT_ROWS = {"train": 6, "dev": 6, "test": 6}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"), title=HOSTILE)


def planned(world: World, kind: Kind = SPEECH_TO_SPEECH, shares: Shares = SHARES) -> Planned:
    return plan(world.lake, kind, "deu-eng", shares)


def expected(world: World, kind: Kind) -> dict[str, dict[str, Any]]:
    """By id: what each row should say, from the corpus itself and not by way of an exporter."""
    return {row["id"]: row for row in planned(world, kind).frame.iter_rows(named=True)}


def span(world: World, row: dict[str, Any], side: str) -> np.ndarray:
    whole = world.waveforms[row[f"{side}_language"], row[f"{side}_audiobook"]]
    return whole[row[f"{side}_start_sample"] : row[f"{side}_end_sample"]]


def heard(packed: bytes) -> np.ndarray:
    return np.asarray(soundfile.read(io.BytesIO(packed), dtype="int16")[0])


@BOTH
def test_datasets_reads_hugging_face(world: World, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    export_to(planned(world, kind), "hugging-face", tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 6, "validation": 6, "test": 6}
    wanted = expected(world, kind)
    for split, rows in found.items():
        for side in kind.spoken:
            assert rows.features[f"{side}_audio"] == datasets.Audio(sampling_rate=16_000)
            rows = rows.cast_column(f"{side}_audio", datasets.Audio(decode=False))
        assert rows["score"] == sorted(rows["score"], reverse=True)
        for row in rows:
            told = wanted.pop(row["id"])
            assert told["split"] == {"validation": "dev"}.get(split, split)
            assert {name: row[name] for name in row if name in told} == {
                name: told[name] for name in told if name != "split"
            }
            for side in kind.spoken:
                assert np.array_equal(heard(row[f"{side}_audio"]["bytes"]), span(world, told, side))
    assert not wanted


def test_hugging_face_is_sharded_by_the_size_of_the_audio(world: World, tmp_path: Path) -> None:
    material = planned(world).cut(tmp_path / "clips")
    hugging_face.write(material, _made(tmp_path / "out"), shard_bytes=400_000)
    names = sorted(path.name for path in (tmp_path / "out" / "data").glob("train-*"))
    assert names == [f"train-{number:05d}-of-{len(names):05d}.parquet" for number in range(len(names))]
    assert len(names) > 1
    rows = pl.concat([pl.read_parquet(tmp_path / "out" / "data" / name) for name in names])
    assert rows["id"].to_list() == material.frame.filter(split="train")["id"].to_list()


@BOTH
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its tars open
def test_webdataset_reads_its_tars(world: World, kind: Kind, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    export_to(planned(world, kind), "web-dataset", tmp_path / "out")
    wanted = expected(world, kind)
    for split in SPLIT_ROWS:
        url = str(tmp_path / "out" / f"{split}-000000.tar")
        rows = list(webdataset.WebDataset(url, shardshuffle=False))
        assert len(rows) == 6
        for row in rows:
            told = wanted.pop(row["__key__"])
            assert {**json.loads(row["json"])} == json.loads(json.dumps(told))
            assert told["split"] == split
            assert np.array_equal(heard(row["src.flac"]), span(world, told, "source"))
            if kind == SPEECH_TO_SPEECH:
                assert np.array_equal(heard(row["tgt.flac"]), span(world, told, "target"))
            else:
                assert row["tgt.txt"].decode() == told["target_text"]
    assert not wanted


def test_web_dataset_is_sharded(world: World, tmp_path: Path) -> None:
    material = planned(world).cut(tmp_path / "clips")
    web_dataset.write(material, _made(tmp_path / "out"), shard_bytes=1)
    assert len(list((tmp_path / "out").glob("train-*.tar"))) == 6


@BOTH
@pytest.mark.filterwarnings("ignore")
def test_lhotse_reads_shar(world: World, kind: Kind, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    export_to(planned(world, kind), "lhotse-shar", tmp_path / "out")
    wanted = expected(world, kind)
    for split in SPLIT_ROWS:
        for cut in lhotse.CutSet.from_shar(in_dir=tmp_path / "out" / split):
            told = wanted.pop(cut.id)
            assert cut.custom["split"] == told["split"] == split
            assert cut.custom["source_title"] == HOSTILE
            assert np.array_equal(_int16(cut.load_audio()), span(world, told, "source"))
            [supervision] = cut.supervisions
            assert (supervision.language, supervision.speaker) == ("deu", told["source_readers"])
            if kind == SPEECH_TO_SPEECH:
                assert np.array_equal(_int16(cut.load_target_recording()), span(world, told, "target"))
            else:
                assert supervision.custom == {"translation": told["target_text"], "translation_language": "eng"}
            lhotse.validate(cut)
    assert not wanted


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(samples[0] * 32_768), dtype=np.int16)


@BOTH
def test_fairseq2_reads_the_zips_of_fairseq_tables(world: World, kind: Kind, tmp_path: Path) -> None:
    data = pytest.importorskip("fairseq2.data.data_pipeline")
    export_to(planned(world, kind), "fairseq", tmp_path / "out")
    read = data.FileMapper(root_dir=tmp_path / "out")
    wanted = expected(world, kind)
    audio = {"src_audio": "source", "tgt_audio": "target"} if kind == SPEECH_TO_SPEECH else {"audio": "source"}
    for split in SPLIT_ROWS:
        for row in _as_fairseq_reads(tmp_path / "out" / f"{split}.tsv"):
            told = wanted.pop(row["id"])
            assert (told["split"], row["src_lang"], row["tgt_lang"]) == (split, "deu", "eng")
            for column, side in audio.items():
                samples = heard(bytes(read(row[column])["data"]))
                frames = row[column.replace("audio", "n_frames")]
                assert np.array_equal(samples, span(world, told, side))
                assert int(frames) == len(samples)
            if kind == SPEECH_TO_TEXT:
                assert row["tgt_text"] == told["target_text"].replace("\t", " ").replace("\n", " ")
    assert not wanted


def _as_fairseq_reads(path: Path) -> list[dict[str, str]]:
    """As `SpeechToTextDatasetCreator._load_samples_from_tsv` opens its tables."""
    with path.open() as table:
        rows = csv.DictReader(
            table, delimiter="\t", quotechar=None, doublequote=False, lineterminator="\n", quoting=csv.QUOTE_NONE
        )
        return [dict(row) for row in rows]


@pytest.mark.filterwarnings("ignore")
def test_where_only_the_target_is_speech_it_is_the_audio(world: World, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    for name in FORMATS:
        export_to(planned(world, TEXT_TO_SPEECH), name, tmp_path / name)
    wanted = expected(world, TEXT_TO_SPEECH)
    for row in _as_fairseq_reads(tmp_path / "fairseq" / "test.tsv"):
        assert row["src_text"].startswith("Sentence")
        assert row["audio"].startswith("target-000.zip:")
        assert row["speaker"] == wanted[row["id"]]["target_readers"]
    for cut in lhotse.CutSet.from_shar(in_dir=tmp_path / "lhotse-shar" / "test"):
        assert np.array_equal(_int16(cut.load_audio()), span(world, wanted[cut.id], "target"))
        assert cut.supervisions[0].custom["translation_language"] == "deu"


def test_fairseq_config_says_waveforms_at_16_khz(world: World, tmp_path: Path) -> None:
    export_to(planned(world), "fairseq", tmp_path / "out")
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config == {"use_audio_input": True, "use_sample_rate": 16_000, "audio_root": "."}


def test_a_full_zip_is_followed_by_another(world: World, tmp_path: Path) -> None:
    material = planned(world).cut(tmp_path / "clips")
    fairseq.write(material, _made(tmp_path / "out"), zip_bytes=300_000)
    zips = sorted((tmp_path / "out").glob("source-*.zip"))
    assert len(zips) > 1
    for split in SPLIT_ROWS:
        for row in _as_fairseq_reads(tmp_path / "out" / f"{split}.tsv"):
            name, offset, length = row["src_audio"].split(":")
            content = (tmp_path / "out" / name).read_bytes()[int(offset) : int(offset) + int(length)]
            assert len(heard(content)) == int(row["src_n_frames"])


@BOTH
def test_a_nemo_manifest_names_files_that_last_as_long_as_it_says(world: World, kind: Kind, tmp_path: Path) -> None:
    export_to(planned(world, kind), "nemo", tmp_path / "out")
    wanted = expected(world, kind)
    for split in SPLIT_ROWS:
        for line in (tmp_path / "out" / f"{split}.jsonl").read_text().split("\n")[:-1]:
            row = json.loads(line)
            told = wanted.pop(row["id"])
            audio = (tmp_path / "out" / row["audio_filepath"]).read_bytes()
            assert np.array_equal(heard(audio), span(world, told, "source"))
            assert row["duration"] == len(heard(audio)) / 16_000
            assert row["text"] == told.get("target_text", "")
            if kind == SPEECH_TO_SPEECH:
                answer = (tmp_path / "out" / row["target_audio_filepath"]).read_bytes()
                assert np.array_equal(heard(answer), span(world, told, "target"))
    assert not wanted


@BOTH
@pytest.mark.parametrize("name", FORMATS)
def test_an_export_made_twice_has_the_same_bytes(world: World, kind: Kind, name: str, tmp_path: Path) -> None:
    for place, workers in (("one", 1), ("two", 3)):
        assert export_to(planned(world, kind), name, tmp_path / place, workers=workers)
    one, two = (_bytes(tmp_path / place) for place in ("one", "two"))
    assert one == two
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_card_tells_hours_and_shows_hostile_names_as_text(world: World, tmp_path: Path) -> None:
    hostile = planned(world)
    named = hostile.lineage.as_dict() | {"readers": {"source": [HOSTILE, "x" * 10_240], "target": ["Ann"]}}
    from speech_mining.corpora.card import Lineage, card

    page = card(Lineage(**named))
    assert "| train | 6 |" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert "x" * 300 not in page
    assert "Public Domain Mark 1.0" in page


def test_no_audiobook_is_in_two_splits_of_an_export(world: World) -> None:
    frame = planned(world).frame
    for side in ("source", "target"):
        assert frame.group_by(f"{side}_audiobook").agg(pl.col("split").n_unique())["split"].max() == 1
    assert planned(world).lineage.counts == {**SPLIT_ROWS, "between": 0}


def test_what_is_between_splits_is_left_out_and_told(world: World) -> None:
    plans = [planned(world, shares=Shares(dev=0.0, test=percent / 100)) for percent in range(0, 45, 3)]
    crossing = [each for each in plans if each.lineage.counts["between"]]
    assert crossing
    for each in plans:
        assert each.frame["split"].is_in(["train", "test"]).all()
        assert each.frame.height + each.lineage.counts["between"] == 18


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
