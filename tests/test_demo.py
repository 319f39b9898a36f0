"""The main job as a newcomer runs it: one command, real audio, real Dagster, and the figures that were promised."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from speech_mining.corpora.manifest import read_manifest
from speech_mining.lake import STAGING, Lake
from speech_mining.records import RECORDINGS, SEGMENTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]  # the whole demo, several times

LANGUAGES = ["deu", "eng", "fra", "spa"]
PAIRS = ["deu-eng", "deu-fra", "deu-spa", "eng-fra", "eng-spa", "fra-spa"]
COMMAND = [sys.executable, "-c", "from speech_mining.cli.app import main; main()", "demo", "--json", "--home"]


def _run(home: Path) -> dict[str, Any]:
    told = subprocess.run([*COMMAND, str(home)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr[-3000:]
    summary: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return summary


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def summary(home: Path) -> dict[str, Any]:
    return _run(home)


@pytest.fixture(scope="module")
def lake(home: Path, summary: dict[str, Any]) -> Lake:
    return Lake(home / "lake")


def test_the_figures_that_were_promised_are_reached(summary: dict[str, Any]) -> None:
    pairs = summary["language_pairs"]
    assert sorted(pairs) == PAIRS
    right, mined = (sum(pair[name] for pair in pairs.values()) for name in ("true_positives", "pairs"))
    assert right / mined >= 0.95
    assert sum(pair["precision"] for pair in pairs.values()) / 6 >= 0.95
    assert sum(pair["recall"] for pair in pairs.values()) / 6 >= 0.80


def test_speech_is_found_in_text_in_all_sixteen_directions(summary: dict[str, Any], lake: Lake) -> None:
    mined = summary["text"]["speech_to_text"]
    assert sorted(mined["language_pairs"]) == [f"{spoken}-{written}" for spoken in LANGUAGES for written in LANGUAGES]
    assert mined["precision"] >= 0.95 and mined["recall"] >= 0.85
    assert all(pair["recall"] >= 0.85 and pair["precision"] >= 0.90 for pair in mined["language_pairs"].values())
    rolls = [lake.partition("text_index", language).read_frame("roll.parquet") for language in LANGUAGES]
    assert summary["text"]["sentences"] == sum(int(roll["rows"].sum()) for roll in rolls)
    said = lake.partition("s2t_corpus", "deu-deu").read_frame("corpus.parquet")
    assert said.height == mined["language_pairs"]["deu-deu"]["pairs"]


def test_the_summary_counts_what_is_there(summary: dict[str, Any], lake: Lake) -> None:
    assert summary["audiobooks"] == 9
    assert summary["recordings"] == 28
    assert 25 / 60 <= summary["audio_hours"] <= 40 / 60
    books = [(language, book) for language in ("deu", "eng", "fra", "spa") for book in lake.keys("segments", language)]
    found = sum(lake.partition("segments", *book).read_table("segments.parquet", SEGMENTS).height for book in books)
    assert summary["segments"] == found
    assert summary["pairs"] == sum(pair["pairs"] for pair in summary["language_pairs"].values())


def test_hours_are_told_at_every_threshold_three_ways_on_both_sides(summary: dict[str, Any]) -> None:
    for pair in summary["language_pairs"].values():
        assert list(pair["hours"]) == [f"{1 + step / 100:.2f}" for step in range(21)]
        for hours in pair["hours"].values():
            for side in ("source", "target"):
                assert hours["sum"][side] >= hours["union"][side] >= hours["post_processed"][side] >= 0
        at_threshold = pair["hours"]["1.06"]["post_processed"]
        assert at_threshold["source"] == pytest.approx(pair["source_hours"], abs=1e-3)


def test_no_preamble_is_mined(lake: Lake) -> None:
    spoken = pl.read_parquet(Path(__file__).parent.parent / "demo/library/sentences.parquet")
    preambles = spoken.filter(pl.col("kind") == "preamble")
    mined = pl.concat([lake.partition("s2s_corpus", pair).read_frame("corpus.parquet") for pair in PAIRS])
    on = {"source_audiobook": "audiobook", "source_section": "section"}
    near = mined.join(preambles, left_on=list(on), right_on=list(on.values()))
    shared = pl.min_horizontal("source_end_ms", "end_ms") - pl.max_horizontal("source_start_ms", "start_ms")
    inside = near.filter(2 * shared > pl.col("source_end_ms") - pl.col("source_start_ms"))
    assert inside.height <= 0.01 * mined.height


def test_a_row_of_a_corpus_leads_back_to_its_recording(lake: Lake) -> None:
    row = lake.partition("s2s_corpus", "deu-eng").read_frame("corpus.parquet").row(0, named=True)
    partition = lake.partition("raw_audio", "deu", row["source_audiobook"])
    recordings = partition.read_table("recordings.parquet", RECORDINGS)
    recording = recordings.filter(pl.col("section") == row["source_section"]).row(0, named=True)
    assert recording["url"] == row["source_url"]
    assert recording["readers"] == row["source_readers"] != ""
    content = partition.local_path(recording["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == recording["sha256"]


def test_the_manifest_is_sorted_and_has_the_score_first(lake: Lake) -> None:
    partition = lake.partition("s2s_corpus", "eng-spa")
    path = partition.local_path("manifest.tsv.gz")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert lines[0].split("\t")[0] == "score"
    scores = [float(line.split("\t")[0]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 1.06
    assert read_manifest(path).equals(partition.read_frame("corpus.parquet"))


def test_the_index_is_read_by_plain_faiss_and_knows_every_segment(lake: Lake) -> None:
    import faiss

    partition = lake.partition("speech_index", "deu")
    index = faiss.read_index(str(partition.local_path("index.faiss")))
    rows = partition.read_frame("rows.parquet")
    assert index.ntotal == rows.height
    book = rows["audiobook"][0]
    vectors = lake.partition("speech_embeddings", "deu", book).read_array("vectors.npy")
    _, found = index.search(vectors[:5].astype("float32"), 1)
    assert found[:, 0].tolist() == rows["segment_id"][:5].to_list()


def _content(home: Path) -> dict[str, str]:
    return {
        path.relative_to(home).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((home / "lake").rglob("*"))
        if path.is_file()
    }


def test_a_run_that_was_killed_and_run_again_gives_the_same_bytes_as_an_undisturbed_one(
    home: Path, summary: dict[str, Any], tmp_path: Path
) -> None:
    for seconds in (12.0, 25.0):
        with subprocess.Popen(
            [*COMMAND, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as running:
            time.sleep(seconds)
            os.killpg(running.pid, signal.SIGKILL)
    assert _run(tmp_path) == summary
    assert _content(tmp_path) == _content(home)
    assert list((tmp_path / "lake" / STAGING).iterdir()) == []
    assert list((tmp_path / "downloads").rglob("*.*")) == []
