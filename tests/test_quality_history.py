"""Figures of a corpus over its materializations, and whether it moved further than is allowed."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path

import polars as pl
import pytest

from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from speech_mining.quality.catalogue import ask, question
from speech_mining.quality.drift import DRIFT, DriftTolerance, comparable, drift, score_shift
from speech_mining.quality.history import (
    DECILES,
    HISTORY,
    LAYER,
    by_materialization,
    corpus_figures,
    last_figures,
    last_version,
    read_history,
    record_corpus,
    with_materialization,
)
from speech_mining.quality.sparkline import HEIGHT, MARGIN, WIDTH, sparkline
from tests.quality_lake import PAIRS_OF_DEMO, pair, publish_corpus

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
TOLERANCE = DriftTolerance(score_shift=0.01, lost_share=0.1)


def _lake(folder: Path) -> Lake:
    lake = Lake(folder / "lake")
    publish_corpus(lake, PAIRS_OF_DEMO)
    return lake


def _record(lake: Lake, run_id: str = "run") -> pl.DataFrame:
    return record_corpus(lake, SPEECH_TO_SPEECH, "deu-eng", recorded_at=NOON, run_id=run_id)


def _figures(pairs: float = 100, hours: float = 2.0, shift: float = 0.0, threshold: float = 1.06) -> dict[str, float]:
    scores = {name: 1.06 + 0.02 * place + shift for place, name in enumerate(DECILES)}
    return {"threshold": threshold, "pairs": pairs, "source_hours": hours, "target_hours": hours, **scores}


def _exceeded(before: dict[str, float], now: dict[str, float]) -> list[str]:
    return drift(before, now, TOLERANCE).filter(pl.col("exceeded"))["figure"].to_list()


def test_figures_worked_by_hand(tmp_path: Path) -> None:
    figures = corpus_figures(_lake(tmp_path).partition("s2s_corpus", "deu-eng"), SPEECH_TO_SPEECH)
    assert figures["threshold"] == 1.06
    assert figures["pairs"] == 3
    assert figures["source_hours"] == pytest.approx(14 / 3600)
    assert figures["target_hours"] == pytest.approx(16 / 3600)
    assert figures["score_mean"] == pytest.approx((1.2 + 1.1 + 1.06) / 3)
    assert figures["score_p50"] == pytest.approx(1.1)
    assert figures["score_p10"] == pytest.approx(1.06 + 0.2 * 0.04)
    assert figures["score_p90"] == pytest.approx(1.1 + 0.8 * 0.1)


def test_an_empty_corpus_has_no_scores_and_no_hours(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    publish_corpus(lake, PAIRS_OF_DEMO, threshold=1.5)
    figures = corpus_figures(lake.partition("s2s_corpus", "deu-eng"), SPEECH_TO_SPEECH)
    assert figures == {"threshold": 1.5, "pairs": 0, "source_hours": 0, "target_hours": 0}


def test_a_corpus_is_recorded_once_however_often_it_is_asked(tmp_path: Path) -> None:
    lake = _lake(tmp_path)
    first = _record(lake, "one")
    version = lake.partition(LAYER, "s2s", "deu-eng").data_version
    assert _record(lake, "two").equals(first)
    assert lake.partition(LAYER, "s2s", "deu-eng").data_version == version
    assert first.schema == pl.Schema(dict(HISTORY))
    assert first["run_id"].unique().to_list() == ["one"]


def test_equal_histories_are_equal_bytes(tmp_path: Path) -> None:
    versions = []
    for name in ("a", "b"):
        lake = _lake(tmp_path / name)
        _record(lake)
        versions.append(lake.partition(LAYER, "s2s", "deu-eng").data_version)
    assert versions[0] == versions[1]


def test_history_counts_materializations_and_keeps_the_earlier_ones(tmp_path: Path) -> None:
    lake = _lake(tmp_path)
    first = _record(lake)
    publish_corpus(lake, PAIRS_OF_DEMO[:2])
    second = _record(lake)
    assert second.head(first.height).equals(first)
    assert by_materialization(second).select("materialization", "pairs").rows() == [(1, 3.0), (2, 2.0)]
    assert last_figures(second)["pairs"] == 2
    assert last_version(second) == lake.partition("s2s_corpus", "deu-eng").data_version
    assert read_history(lake, "s2s", "deu-eng").equals(second)
    changed = ask(lake, question("changes")).filter(figure="pairs")
    assert changed.select("materialization", "value", "change").rows() == [(1, 3.0, None), (2, 2.0, -1.0)]


def test_going_back_to_an_earlier_corpus_is_a_materialization_too() -> None:
    history = pl.DataFrame(schema=dict(HISTORY))
    for version in ("a", "b", "a"):
        history = with_materialization(history, {"pairs": 1}, data_version=version, recorded_at=NOON, run_id="r")
    assert history["data_version"].to_list() == ["a", "b", "a"]


def test_nothing_recorded_is_an_empty_history(tmp_path: Path) -> None:
    history = read_history(Lake(tmp_path), "s2s", "deu-eng")
    assert (history.height, last_version(history), last_figures(history)) == (0, None, {})


def test_score_shift_is_how_far_every_pair_moved() -> None:
    assert score_shift(_figures(), _figures(shift=0.03)) == pytest.approx(0.03)
    assert score_shift(_figures(shift=0.03), _figures()) == pytest.approx(0.03)
    one = _figures() | {"score_p90": _figures()["score_p90"] + 0.09}
    assert score_shift(_figures(), one) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("now", "exceeded"),
    [
        (_figures(), []),
        (_figures(pairs=90), []),  # exactly what is allowed
        (_figures(pairs=89), ["pairs"]),
        (_figures(hours=1.7), ["source_hours", "target_hours"]),
        (_figures(pairs=1000, hours=50), []),  # growth is no fault
        (_figures(shift=0.009), []),
        (_figures(shift=-0.011), ["score_shift"]),
        (_figures(shift=math.nan), ["score_shift"]),
        (
            {"threshold": 1.06, "pairs": 0, "source_hours": 0, "target_hours": 0},
            ["pairs", "source_hours", "target_hours"],
        ),
    ],
)
def test_what_moved_too_far_is_told(now: dict[str, float], exceeded: list[str]) -> None:
    assert _exceeded(_figures(), now) == exceeded


def test_a_corpus_of_text_has_no_hours_to_lose() -> None:
    before, now = ({k: v for k, v in _figures(pairs=n).items() if "hours" not in k} for n in (100, 50))
    assert _exceeded(before, now) == ["pairs"]


def test_corpora_cut_at_other_thresholds_are_not_compared() -> None:
    assert not comparable(_figures(), _figures(threshold=1.07))
    assert drift(_figures(), _figures(pairs=1, threshold=1.07), TOLERANCE).equals(pl.DataFrame(schema=dict(DRIFT)))
    assert not comparable({}, _figures())
    assert comparable(_figures(), _figures(pairs=1))


def _line(svg: str) -> list[tuple[float, float]]:
    points = ET.fromstring(svg).find("{http://www.w3.org/2000/svg}polyline")
    assert points is not None
    x_and_y = [point.split(",") for point in points.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in x_and_y]


def test_a_sparkline_runs_from_edge_to_edge() -> None:
    assert _line(sparkline([1, 3, 2])) == [
        (MARGIN, HEIGHT - MARGIN),
        (WIDTH / 2, MARGIN),
        (WIDTH - MARGIN, HEIGHT / 2),
    ]


def test_a_sparkline_of_equal_values_runs_in_the_middle() -> None:
    assert {y for _, y in _line(sparkline([5, 5]))} == {HEIGHT / 2}


def test_a_sparkline_leaves_out_what_is_no_number() -> None:
    assert len(_line(sparkline([1, math.nan, 2, math.inf]))) == 2
    assert _line(sparkline([])) == _line(sparkline([math.nan])) == []


def test_a_pair_more_moves_the_history_by_its_figures(tmp_path: Path) -> None:
    lake = _lake(tmp_path)
    before = last_figures(_record(lake))
    publish_corpus(lake, [*PAIRS_OF_DEMO, pair(1.3, (40, 45), (40, 45))])
    now = last_figures(_record(lake))
    assert now["pairs"] - before["pairs"] == 1
    assert now["source_hours"] - before["source_hours"] == pytest.approx(5 / 3600)
