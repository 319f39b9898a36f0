"""`human_judgement`: what people said becomes an asset, with the threshold that follows from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from resources.judgements import judgements_path
from resources.listen_command import listening_room
from resources.report_command import report
from resources.settings import Settings, load_settings
from resources.storage import Storage
from s2s_assets.judgements import JudgementConfig, human_judgement, human_judgements
from speech_mining.errors import LakeError, SettingsError
from speech_mining.listening.judgements import Journal
from speech_mining.listening.room import Room
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from tests.listening_lake import PAIR, make_lake

SCORES = [1.005 + 0.01 * number for number in range(20)] * 2


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    make_lake(tmp_path, SCORES)
    return load_settings(home=tmp_path, languages=("deu", "eng"))


def judged(settings: Settings, judge: str = "ada") -> Room:
    """A room in which every pair from 1.06 was found right, all others wrong."""
    room = listening_room(settings, PAIR, "s2s", judge)
    for row, (source, target) in enumerate(room.candidates.pair_of):
        room.say(source, target, "right" if room.candidates.scores[row] >= 1.06 else "wrong")
    return room


def materialised(settings: Settings, **config: Any) -> dict[str, Any]:
    run = dg.RunConfig(ops={"human_judgement": JudgementConfig(**config)}) if config else None
    result = dg.materialize(
        [human_judgement(SPEECH_TO_SPEECH, settings)],
        partition_key=PAIR,
        resources={"storage": Storage.of(settings)},
        run_config=run,
    )
    return {
        name: value.value
        for name, value in result.asset_materializations_for_node("human_judgement")[0].metadata.items()
    }


def test_judgements_become_a_table_a_curve_and_a_suggestion(settings: Settings) -> None:
    judged(settings)
    told = materialised(settings, precision=0.85)
    # by hand: from 1.05 there are 30 judged and 28 right, at least 0.787; from 1.06 all of 28, at least 0.879
    assert (told["right"], told["wrong"], told["judges"], told["bad_lines"]) == (28, 12, 1, 0)
    assert told["suggested_threshold"] == 1.06
    assert "data:image/svg+xml" in told["accuracy_by_threshold"]
    partition = Storage.of(settings).lake.partition("human_judgement", PAIR)
    assert partition.read_json("suggestion.json") == {"precision": 0.85, "partly_counts": False, "threshold": 1.06}
    curve = partition.read_frame("accuracy.parquet")
    assert curve.filter(pl.col("threshold") == 1.06).select("judged", "right", "accuracy").row(0) == (28, 28, 1.0)
    assert curve["low"][6] == pytest.approx(0.8794, abs=1e-4)


def test_a_wish_that_cannot_be_met_suggests_nothing(settings: Settings) -> None:
    judged(settings)
    told = materialised(settings, precision=0.99)
    assert "suggested_threshold" not in told and "No threshold is sure enough" in told["suggestion"]


def test_a_spoiled_file_is_told_of_and_the_rest_counts(settings: Settings) -> None:
    room = judged(settings)
    with room.journal.path.open("a") as file:
        file.write("a note by hand\n")
    stranger = replace(room.journal.read().lines[0], source="12345")
    room.journal.append(stranger)
    told = materialised(settings)
    assert (told["bad_lines"], told["judged_pairs"], told["dagster/row_count"]) == (1, 40, 41)
    table = Storage.of(settings).lake.partition("human_judgement", PAIR).read_frame("judgements.parquet")
    assert table.filter(~pl.col("current"))["source"].to_list() == ["12345"]
    bad = Storage.of(settings).lake.partition("human_judgement", PAIR).read_frame("bad_lines.parquet")
    assert bad.rows() == [(41, "it is not JSON")]


def test_nobody_listened_yet_is_no_error_and_the_same_again_changes_nothing(settings: Settings) -> None:
    assert materialised(settings)["judged_pairs"] == 0
    first = Storage.of(settings).lake.partition("human_judgement", PAIR).data_version
    materialised(settings)
    assert Storage.of(settings).lake.partition("human_judgement", PAIR).data_version == first


def test_two_judges_count_by_the_strictest(settings: Settings) -> None:
    room = judged(settings)
    other = replace(room, judge="bob")
    other.say(*room.candidates.pair_of[0], "wrong")
    assert (materialised(settings)["right"], materialised(settings)["judges"]) == (27, 2)


def test_every_kind_that_is_mined_has_its_judgements(settings: Settings) -> None:
    keys = {asset.key.to_user_string() for asset in human_judgements(settings)}
    assert {"human_judgement", "s2t_human_judgement"} <= keys


def test_a_pair_that_is_not_mined_is_refused_with_those_that_are(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"'eng-deu' is not mined as s2s.*deu-eng"):
        listening_room(settings, "eng-deu", "s2s", "ada")
    with pytest.raises(SettingsError, match="no kind 'x2x'"):
        listening_room(settings, PAIR, "x2x", "ada")
    with pytest.raises(LakeError, match="s2t_pairs of deu-eng is not there"):
        listening_room(settings, PAIR, "s2t", "ada")
    with pytest.raises(SettingsError, match="name has 101 letters"):
        listening_room(settings, PAIR, "s2s", "a" * 101)


def test_judgements_lie_in_the_home_and_not_in_the_lake(settings: Settings, tmp_path: Path) -> None:
    judged(settings)
    path = judgements_path(settings, "s2s", PAIR)
    assert path == tmp_path / "judgements" / "s2s" / "deu-eng.jsonl"
    assert len(Journal(path).read().lines) == 40


def test_the_command_writes_the_report_of_the_home_with_what_people_said(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2S_LANGUAGES", "deu,eng")
    judged(settings)
    report(output=None, samples=1, audio_mb=1.0, seed=0, open_browser=False)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Judged by people: 28 right, 0 partly, 12 wrong" in page
    with pytest.raises(SettingsError, match="The report was not written"):
        report(output=Path("/proc/report.html"), samples=0, audio_mb=0.0, seed=0, open_browser=False)
