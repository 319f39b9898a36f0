"""The checks that look across layers, on lakes with planted defects, and in runs of Dagster that they block."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from resources.settings import Settings, load_settings
from resources.storage import Storage
from s2s_assets.quality_checks import quality_checks, recordings_are_distinct
from s2s_assets.quality_history import histories
from speech_mining.errors import SettingsError
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from speech_mining.quality.audio_faults import FaultLimits, audio_faults, clipped_share
from speech_mining.quality.catalogue import ask
from speech_mining.quality.history import read_history
from tests.asset_checks import Evaluated, evaluated, offending
from tests.quality_lake import PAIRS_OF_DEMO, SECTION_S, S, pair, publish_book, publish_corpus, small_lake

LIMITS = FaultLimits()


def _settings(home: Path, **changed: Any) -> Settings:
    return load_settings(home=home, languages="deu,eng", **changed)


def _evaluate(home: Path) -> dict[str, Evaluated]:
    """Every check of the corpus, as its run does after it is materialized."""
    return evaluated(quality_checks(_settings(home)), _storage(home), "s2s_corpus", "deu-eng")


def _storage(home: Path) -> Storage:
    return Storage(url=str(home / "lake"), scratch=str(home / "downloads"))


def _distinct(home: Path, language: str) -> dg.AssetCheckResult:
    return recordings_are_distinct().judge(_storage(home), language)


def test_a_sound_lake_passes_every_check(tmp_path: Path) -> None:
    small_lake(tmp_path)
    results = _evaluate(tmp_path)
    assert set(results) == {"corpus_is_steady", "no_preambles", "audio_is_sound", "lengths_agree"}
    assert [name for name, result in results.items() if not result.passed] == []
    assert results["audio_is_sound"].metadata["heard_spans"].value == 6
    assert _distinct(tmp_path, "deu").passed


def test_the_sql_of_a_check_finds_its_evidence_again(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    publish_book(lake, "deu", [(0, 5), (5, 10), (20, 24)], recurring=[(5, 10)])
    result = _evaluate(tmp_path)["no_preambles"]
    assert not result.passed and result.severity == dg.AssetCheckSeverity.ERROR
    assert [row["start_sample"] for row in offending(result)] == [5 * S]
    shown = re.search(r"```sql\n(.*)\n```", str(result.metadata["sql"].value), re.DOTALL)
    assert shown and ask(lake, shown[1]).height == 1


def test_odd_lengths_warn_from_their_share(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    publish_corpus(lake, [*PAIRS_OF_DEMO, pair(1.3, (40, 44), (40, 56))])
    result = _evaluate(tmp_path)["lengths_agree"]
    assert not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    assert result.metadata["odd_share"].value == 0.25
    assert [(row["source_s"], row["target_s"]) for row in offending(result)] == [(4.0, 16.0)]


def test_recordings_that_are_there_twice_are_told(tmp_path: Path) -> None:
    import polars as pl

    lake = small_lake(tmp_path)
    with lake.replace("raw_audio", "deu", "d2") as new:
        same = lake.partition("raw_audio", "deu", "d1").read_frame("recordings.parquet")
        new.write_frame("recordings.parquet", same.with_columns(audiobook=pl.lit("d2")))
    result = _distinct(tmp_path, "deu")
    assert not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    assert [row["places"] for row in offending(result)] == ["['d1/1', 'd2/1']"]
    assert _distinct(tmp_path, "eng").passed


def test_clipped_share_counts_samples_at_full_scale() -> None:
    assert clipped_share(np.array([0, 1, -1, 0.5], np.float32)) == 0.5
    assert clipped_share(np.array([0.98, -0.98], np.float32)) == 0
    assert clipped_share(np.empty(0, np.float32)) == 0


def test_clipped_spans_are_heard_and_no_others(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    sound = np.full(SECTION_S * S, 0.1, np.float32)
    sound[6 * S : 6 * S + S // 10] = 1.0  # a tenth of a second in the span from 5 to 10 s: 2 % of it
    publish_book(lake, "deu", [(0, 5), (5, 10), (20, 24)], samples=sound)
    found = audio_faults(lake, SPEECH_TO_SPEECH, "deu-eng", LIMITS)
    assert found.faults.select("fault", "side", "audiobook", "start_s").rows() == [("clipped", "source", "d1", 5.0)]
    assert found.faults["measured"].item() == pytest.approx(0.02)
    assert (found.spans, found.heard_recordings, found.heard_spans) == (6, 2, 6)
    result = _evaluate(tmp_path)["audio_is_sound"]
    assert not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    assert result.metadata["faults"].value == {"clipped": 1}


def test_silent_spans_are_told_without_being_heard(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    publish_book(lake, "eng", [(10, 16), (16, 22), (30, 34)], level_dbfs=-60.0)
    found = audio_faults(lake, SPEECH_TO_SPEECH, "deu-eng", FaultLimits(recordings=0))
    assert found.faults.select("fault", "side", "measured").unique().rows() == [("silent", "target", -60.0)]
    assert (found.faults.height, found.heard_recordings) == (3, 0)


def test_audio_that_vanished_is_a_fault_and_not_a_crash(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    lake.partition("raw_audio", "eng", "e1").local_path("1.flac").unlink()
    lake.partition("raw_audio", "deu", "d1").local_path("1.flac").write_bytes(b"no audio")
    found = audio_faults(lake, SPEECH_TO_SPEECH, "deu-eng", LIMITS)
    assert found.faults["fault"].to_list() == ["unreadable"] * 6


def _accept(home: Path, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    storage = {"storage": Storage(url=str(home / "lake"), scratch=str(home / "downloads"))}
    history = next(one for one in histories(_settings(home)) if one.key.to_user_string() == "s2s_history")
    return dg.materialize([history], partition_key="deu-eng", instance=instance, resources=storage)


def _mined_again(lake: Lake, home: Path, pairs: list[dict[str, Any]], instance: dg.DagsterInstance) -> bool:
    """A run of the corpus, its checks and its history, as Dagster makes it: whether all of it came through."""
    settings = _settings(home)

    @dg.asset(key="s2s_corpus", partitions_def=dg.StaticPartitionsDefinition(["deu-eng"]))
    def corpus() -> None:
        publish_corpus(lake, pairs)

    assets = [one for one in histories(settings) if one.key.to_user_string() == "s2s_history"]
    checks = [
        check
        for check in quality_checks(settings)
        for key in check.check_keys
        if key.asset_key.to_user_string() == "s2s_corpus" and key.name == "corpus_is_steady"
    ]
    storage = {"storage": Storage(url=str(home / "lake"), scratch=str(home / "downloads"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.materialize(
            [corpus, *assets, *checks],
            partition_key="deu-eng",
            instance=instance,
            resources=storage,
            raise_on_error=False,
        ).success


def test_a_corpus_that_drifts_is_blocked_until_it_is_accepted(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    lower = [one | {"score": one["score"] + 0.05} for one in PAIRS_OF_DEMO]
    with dg.DagsterInstance.ephemeral() as instance:
        assert _mined_again(lake, tmp_path, PAIRS_OF_DEMO, instance)  # nothing to compare with
        accepted = read_history(lake, "s2s", "deu-eng")
        assert not _mined_again(lake, tmp_path, lower, instance)
        assert read_history(lake, "s2s", "deu-eng").equals(accepted)  # what is blocked is not recorded
        result = _evaluate(tmp_path)["corpus_is_steady"]
        assert not result.passed and result.severity == dg.AssetCheckSeverity.ERROR
        assert result.description == "score_shift moved by 0.05, allowed 0.01"
        assert _accept(tmp_path, instance).success
        assert _evaluate(tmp_path)["corpus_is_steady"].description == "This corpus is the last accepted one"
        assert _mined_again(lake, tmp_path, lower, instance)


def test_a_lost_pair_is_a_drift_and_another_threshold_is_told(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        assert _accept(tmp_path, instance).success
    publish_corpus(lake, PAIRS_OF_DEMO[:2])
    assert "pairs moved by 0.3333, allowed 0.1" in str(_evaluate(tmp_path)["corpus_is_steady"].description)
    publish_corpus(lake, PAIRS_OF_DEMO, threshold=1.1)
    result = _evaluate(tmp_path)["corpus_is_steady"]
    assert result.passed and result.description == "Not compared: the threshold was 1.06 and is 1.1"


def test_a_history_shows_a_line_for_every_figure(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        _accept(tmp_path, instance)
        publish_corpus(lake, PAIRS_OF_DEMO[:2])
        made = _accept(tmp_path, instance).asset_materializations_for_node("s2s_history")[0].metadata
    assert made["materializations"].value == 2
    lines = str(made["lines"].value)
    assert re.search(r"\| pairs \| !\[pairs\]\(data:image/svg\+xml;base64,\S+\) \| 3 \| 2 \|", lines)
    assert "score_p50" in lines


def test_limits_come_from_the_settings(tmp_path: Path) -> None:
    quality = _settings(tmp_path).quality
    assert (quality.score_shift, quality.lost_share, quality.heard_recordings) == (0.01, 0.1, 8)
    loose = _settings(tmp_path, quality={"score_shift": 0.1})
    assert loose.quality.score_shift == 0.1
    with pytest.raises(SettingsError, match=r"quality\.lost_share"):
        _settings(tmp_path, quality={"lost_share": 2})
