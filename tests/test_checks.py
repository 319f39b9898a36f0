"""Asset checks on a lake with planted defects: they fail, and the rows that break the claim are in their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from resources.settings import load_settings
from resources.storage import Storage
from s2s_assets.checks import checks
from s2s_assets.definitions import build
from speech_mining.corpora.manifest import CORPUS
from speech_mining.errors import SettingsError
from speech_mining.lake import Lake
from speech_mining.quality.hours import hours_by_threshold
from speech_mining.records import PAIRS, REJECTIONS, SEGMENTS
from speech_mining.segmentation.audiobook import SECTIONS
from tests.asset_checks import Evaluated, evaluated, offending

S = 16_000


def _pair(number: int, source_start_s: int, target_start_s: int, score: float, length_s: int = 5) -> dict[str, Any]:
    return {
        "score": score,
        "cosine": 0.9,
        "source_segment": number,
        "target_segment": 100 + number,
        "source_audiobook": "1",
        "source_section": 1,
        "source_start_sample": source_start_s * S,
        "source_end_sample": (source_start_s + length_s) * S,
        "target_audiobook": "2",
        "target_section": 1,
        "target_start_sample": target_start_s * S,
        "target_end_sample": (target_start_s + length_s) * S,
    }


def _corpus(pairs: pl.DataFrame) -> pl.DataFrame:
    texts = {name: pl.lit("x") for name, dtype in CORPUS.items() if dtype == pl.String() and name not in PAIRS}
    times = {
        f"{side}_{end}_ms": pl.col(f"{side}_{end}_sample") // 16
        for side in ("source", "target")
        for end in ("start", "end")
    }
    return pairs.with_columns(**texts, **times)


def _publish(lake: Lake, rows: list[dict[str, Any]]) -> None:
    pairs = pl.DataFrame(rows, schema=dict(PAIRS))
    with lake.replace("s2s_pairs", "deu-eng") as new:
        new.write_table("pairs.parquet", pairs, PAIRS)
        new.write_json("scoring.json", {"threshold": 1.0})
    hours = hours_by_threshold(lake.partition("s2s_pairs", "deu-eng").local_path("pairs.parquet"))
    with lake.replace("s2s_corpus", "deu-eng") as new:
        new.write_table("corpus.parquet", _corpus(pairs), CORPUS)
        new.write_frame("hours.parquet", hours)
        new.write_json("selection.json", {"threshold": 1.06})


def _evaluate(home: Path, asset: str, partition: str | None) -> dict[str, Evaluated]:
    """Run every check of an asset, as its run does after the asset is materialized."""
    settings = load_settings(home=home, languages="deu,eng")
    storage = Storage(url=settings.lake_url, scratch=str(home / "downloads"))
    return evaluated(checks(settings), storage, asset, partition)


def test_a_sound_corpus_passes_every_check(tmp_path: Path) -> None:
    _publish(Lake(tmp_path / "lake"), [_pair(1, 0, 0, 1.2), _pair(2, 10, 20, 1.1)])
    found = _evaluate(tmp_path, "s2s_corpus", "deu-eng")
    assert {name: evaluation.passed for name, evaluation in found.items()} == {
        "no_overlap": True,
        "one_to_one": True,
        "scores_reach_the_threshold": True,
        "hours_per_threshold": True,
    }


def test_pairs_that_overlap_are_shown(tmp_path: Path) -> None:
    _publish(Lake(tmp_path / "lake"), [_pair(1, 0, 0, 1.2), _pair(2, 4, 20, 1.1)])
    found = _evaluate(tmp_path, "s2s_corpus", "deu-eng")
    assert not found["no_overlap"].passed
    assert found["no_overlap"].severity == dg.AssetCheckSeverity.ERROR
    assert len(offending(found["no_overlap"])) >= 1
    assert found["one_to_one"].passed


def test_a_score_below_the_threshold_is_shown(tmp_path: Path) -> None:
    _publish(Lake(tmp_path / "lake"), [_pair(1, 0, 0, 1.2), _pair(2, 10, 20, 1.01)])
    found = _evaluate(tmp_path, "s2s_corpus", "deu-eng")
    assert [row["score"] for row in offending(found["scores_reach_the_threshold"])] == [1.01]


def test_an_empty_corpus_is_told_by_the_hours_check(tmp_path: Path) -> None:
    _publish(Lake(tmp_path / "lake"), [])
    found = _evaluate(tmp_path, "s2s_corpus", "deu-eng")
    assert not found["hours_per_threshold"].passed
    assert found["hours_per_threshold"].severity == dg.AssetCheckSeverity.WARN


def test_a_pair_longer_than_a_segment_may_be_is_shown(tmp_path: Path) -> None:
    _publish(Lake(tmp_path / "lake"), [_pair(1, 0, 0, 1.2), _pair(2, 30, 30, 1.1, length_s=25)])
    found = _evaluate(tmp_path, "s2s_pairs", "deu-eng")
    assert len(offending(found["durations_within_bounds"])) >= 1
    assert found["scores_reach_the_floor"].passed


def test_lost_speech_a_missing_recording_and_a_bad_vector_are_shown(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rejection = {"audiobook": "1", "section": 2, "reason": "not_found", "detail": "404"}
    section = {name: 1 for name in SECTIONS} | {"audiobook": "1", "coverage": 0.5, "given": False, "rejected": False}
    with lake.replace("raw_audio", "deu", "1") as new:
        new.write_frame("rejections.parquet", pl.DataFrame([rejection]).pipe(_filled))
    with lake.replace("segments", "deu", "1") as new:
        new.write_frame("segments.parquet", pl.DataFrame(schema=dict(SEGMENTS)))
        new.write_table("sections.parquet", pl.DataFrame([section], schema=dict(SECTIONS)), SECTIONS)
    with lake.replace("speech_embeddings", "deu", "1") as new:
        new.write_array("vectors.npy", np.array([[1, 0], [0.5, 0]], np.float16))
    arrived = _evaluate(tmp_path, "deu/raw_audio", None)["every_recording_arrived"]
    assert offending(arrived)[0]["reason"] == "not_found"
    assert arrived.severity == dg.AssetCheckSeverity.WARN
    covered = _evaluate(tmp_path, "deu/segments", None)["speech_is_covered"]
    assert offending(covered)[0]["coverage"] == pytest.approx(0.5)
    unit = _evaluate(tmp_path, "deu/speech_embeddings", None)["vectors_are_unit"]
    assert offending(unit) == [{"row": 1, "length": 0.5}]


def _filled(frame: pl.DataFrame) -> pl.DataFrame:
    missing = {name: pl.lit(None, dtype) for name, dtype in REJECTIONS.items() if name not in frame.columns}
    return frame.with_columns(**missing).select([pl.col(name).cast(dtype) for name, dtype in REJECTIONS.items()])


def test_a_corpus_below_the_floor_of_its_pairs_is_refused_and_hours_begin_at_the_floor(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, languages="deu,eng")
    lake = Lake(settings.lake_url)
    with lake.replace("s2s_pairs", "deu-eng") as new:
        new.write_table("pairs.parquet", pl.DataFrame(schema=dict(PAIRS)), PAIRS)
        new.write_json("scoring.json", {"threshold": 1.04})
    job = build(settings).resolve_implicit_global_asset_job_def()

    def run(threshold: float) -> None:
        config = {"ops": {"s2s_corpus": {"config": {"threshold": threshold}}}}
        with dg.DagsterInstance.ephemeral() as instance:
            job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey("s2s_corpus")],
                partition_key="deu-eng",
                run_config=config,
            )

    with pytest.raises(SettingsError, match=r"from 1\.02 was asked of pairs that are kept from 1\.04"):
        run(1.02)
    run(1.06)
    assert lake.partition("s2s_corpus", "deu-eng").read_frame("hours.parquet")["threshold"].min() == 1.04
