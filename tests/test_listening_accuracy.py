"""Accuracy by threshold: the interval against scipy and by hand, weights by hand, the suggestion, the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from speech_mining.errors import SettingsError
from speech_mining.listening.accuracy import (
    accuracy_by_threshold,
    effective_trials,
    suggested_threshold,
    wilson,
)
from speech_mining.listening.charts import accuracy_chart
from speech_mining.listening.sampling import Bands, listening_order, spread_sample

BANDS = Bands(1.0)


@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_interval_is_scipys(trials: int, data: st.DataObject, confidence: float) -> None:
    right = data.draw(st.integers(0, trials))
    theirs = binomtest(right, trials).proportion_ci(confidence, method="wilson")
    ours = wilson(right / trials, trials, confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_of_nine_in_ten_by_hand() -> None:
    # z² = 3.8415: centre 0.9 + 0.19207 = 1.09207, reach 1.95996 √(0.009 + 0.0096036) = 0.26733, scale 1.38415
    assert wilson(0.9, 10).low == pytest.approx(0.59585, abs=1e-5)
    assert wilson(0.9, 10).high == pytest.approx(0.98212, abs=1e-5)


@pytest.mark.parametrize(("share", "trials", "confidence"), [(0.5, 0, 0.95), (1.2, 5, 0.95), (0.5, 5, 0.5)])
def test_an_impossible_interval_is_refused(share: float, trials: float, confidence: float) -> None:
    with pytest.raises(SettingsError, match="There is no interval"):
        wilson(share, trials, confidence)


def test_unequal_weights_are_worth_fewer_trials() -> None:
    assert effective_trials(np.ones(7)) == 7
    assert effective_trials(np.array([3.0, 1.0])) == pytest.approx(16 / 10)


def test_a_judgement_weighs_as_many_pairs_as_it_stands_for() -> None:
    # 8 pairs from 1.00, of which 2 are judged (one right); 2 from 1.01, of which 2 are judged (both right)
    scores = np.array([1.001] * 8 + [1.015] * 2)
    curve = accuracy_by_threshold(scores, {0: "right", 1: "wrong", 8: "right", 9: "right"}, BANDS)
    at_floor, above = curve[0], curve[1]
    assert at_floor.accuracy and above.accuracy
    assert at_floor.accuracy.share == pytest.approx((4 * 1 + 1 + 1) / 10)
    assert (at_floor.judged, at_floor.right, at_floor.wrong, at_floor.pairs) == (4, 3, 1, 10)
    assert above.accuracy.share == 1
    # weights 4 4 1 1: 100 / 34 trials
    assert at_floor.accuracy.low == pytest.approx(wilson(0.6, 100 / 34).low)


def test_where_all_bands_are_judged_alike_the_interval_is_the_plain_one() -> None:
    scores = np.array([1.001, 1.011, 1.021, 1.031])
    curve = accuracy_by_threshold(scores, {0: "wrong", 1: "right", 2: "right", 3: "right"}, BANDS)
    assert curve[0].accuracy == wilson(0.75, 4)


def test_partly_counts_only_where_asked() -> None:
    scores, said = np.array([1.001, 1.002]), {0: "right", 1: "partly"}
    strict, lenient = (accuracy_by_threshold(scores, said, BANDS, partly_counts=asked)[0] for asked in (False, True))
    assert strict.accuracy and lenient.accuracy
    assert (strict.accuracy.share, lenient.accuracy.share, strict.partly) == (0.5, 1.0, 1)


def test_nothing_judged_and_no_pairs_are_no_error() -> None:
    assert accuracy_by_threshold(np.empty(0), {}, BANDS) == []
    curve = accuracy_by_threshold(np.array([1.05]), {}, BANDS)
    assert [at.accuracy for at in curve] == [None] * 6
    assert suggested_threshold(curve, 0.5) is None
    assert "nothing judged yet" in accuracy_chart(curve) and "nothing judged yet" in accuracy_chart([])


def test_the_suggestion_is_the_lowest_threshold_whose_lower_bound_reaches_the_wish() -> None:
    scores = np.repeat(np.arange(100, 121) / 100 + 0.001, 10)
    said = {row: "right" if score >= 1.05 else "wrong" for row, score in enumerate(scores)}
    curve = accuracy_by_threshold(scores, said, BANDS)
    # by hand: from 1.04 there are 170 judged and 160 right, at least 0.895; from 1.05 all of 160, at least 0.977
    suggested = [suggested_threshold(curve, precision) for precision in (0.89, 0.90, 0.97, 0.98)]
    assert [at.threshold if at else None for at in suggested] == [1.04, 1.05, 1.05, None]


def test_too_few_judgements_or_an_unheard_band_suggest_nothing() -> None:
    scores = np.array([1.001] * 9 + [1.011] * 9)
    assert suggested_threshold(accuracy_by_threshold(scores, dict.fromkeys(range(9), "right"), BANDS), 0.1) is None
    unheard = np.array([1.001] * 100 + [1.011] * 20)
    curve = accuracy_by_threshold(unheard, dict.fromkeys(range(100, 120), "right"), BANDS)
    found = suggested_threshold(curve, 0.8)
    assert found and found.threshold == 1.01  # at 1.00, 100 of 120 pairs lie in a band that nobody heard


def test_a_score_on_an_edge_belongs_to_the_band_that_begins_there() -> None:
    assert BANDS.of(np.array([1.0, 1.0099999, 1.01, 1.06, 1.2, 7.0, 0.5])).tolist() == [0, 0, 1, 6, 20, 20, 0]


def test_every_band_gets_its_turn_before_any_gets_its_second() -> None:
    scores = np.repeat(np.arange(100, 121) / 100 + 0.001, 5)
    ids = [str(number) for number in range(len(scores))]
    order = listening_order(scores, ids, ids, BANDS, seed=0)
    assert sorted(order.tolist()) == list(range(105))
    for turn in range(5):
        assert sorted(BANDS.of(scores[order[21 * turn : 21 * turn + 21]]).tolist()) == list(range(21))
    assert BANDS.of(scores[order[:21]]).tolist() != BANDS.of(scores[order[21:42]]).tolist()


@given(st.lists(st.floats(1.0, 1.3), min_size=1, max_size=60), st.integers(0, 5))
def test_pairs_that_come_later_change_nothing_in_the_order_within_a_band(scores: list[float], seed: int) -> None:
    ids = [str(number) for number in range(len(scores) + 10)]
    grown = np.array([*scores, *np.linspace(1.0, 1.25, 10)])
    before = listening_order(np.array(scores), ids[: len(scores)], ids[: len(scores)], BANDS, seed)
    after = [row for row in listening_order(grown, ids, ids, BANDS, seed) if row < len(scores)]
    for band in range(21):
        of_band = [[row for row in rows if BANDS.of(grown[[row]])[0] == band] for rows in (before, after)]
        assert of_band[0] == of_band[1]


def test_a_few_samples_show_all_scores() -> None:
    scores = np.repeat(np.arange(100, 121) / 100 + 0.001, 5)
    ids = [str(number) for number in range(len(scores))]
    rows = spread_sample(scores, listening_order(scores, ids, ids, BANDS, 0), BANDS, 5)
    assert BANDS.of(scores[rows]).tolist() == [20, 15, 10, 5, 0]
    few = spread_sample(scores[:3], listening_order(scores[:3], ids[:3], ids[:3], BANDS, 0), BANDS, 5)
    assert len(few) == 3
