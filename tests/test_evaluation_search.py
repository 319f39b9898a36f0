from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.evaluation.intervals import Bootstrap, estimate
from speech_mining.evaluation.retrieval import recall_at_k
from speech_mining.evaluation.search import similarity_search

MARGINS = ("ratio", "distance", "cosine")
seeds = st.integers(0, 2**32 - 1)


def unit(angles_deg: list[float]) -> np.ndarray:
    radians = np.radians(angles_deg)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def noisy(seed: int, n: int, m: int, d: int = 6, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Queries and candidates with a common direction, as encoders have; the first n say the same."""
    chance = np.random.default_rng(seed)
    candidates = chance.standard_normal((m, d)) + 1.5
    return candidates[:n] + noise * chance.standard_normal((n, d)), candidates


def brute_force(queries: np.ndarray, candidates: np.ndarray, answers: np.ndarray, margin: str, k: int) -> np.ndarray:
    """How many outdo the right one, by the formulas as they are written."""
    left, right = (
        (side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
        for side in (queries, candidates)
    )
    cosines = (left @ right.T).astype(np.float32).astype(np.float64)
    forward = np.sort(cosines, axis=1)[:, ::-1][:, :k].mean(axis=1)
    backward = np.sort(cosines, axis=0)[::-1][:k].mean(axis=0)
    level = (forward[:, None] + backward[None]) / 2
    scores = {"cosine": cosines, "distance": cosines - level, "ratio": np.where(level > 0, cosines / level, -np.inf)}
    own = scores[margin][np.arange(len(queries)), answers]
    return np.minimum((scores[margin] >= own[:, None]).sum(axis=1) - 1, 5)


# Search


def test_the_margin_finds_what_the_cosine_misses_in_a_case_worked_by_hand() -> None:
    # Candidate 0 is a hub: near to everything. Query 1 (30 degrees) is at 30 from the hub and at 31 from its own
    # candidate; both queries lie near the hub, so that its neighbourhood is dense and its margin low.
    queries, candidates = unit([0, 30]), unit([0, 61])
    answers = np.array([0, 1])
    near = similarity_search(queries, candidates, answers, margin="cosine", k=2)
    assert near.best.tolist() == [0, 0] and near.outdone.tolist() == [0, 1]
    # k = 2: mean of query 1 (cos 30 + cos 31) / 2 = .8616; of the hub (1 + cos 30) / 2 = .9330; of candidate 1
    # (cos 61 + cos 31) / 2 = .6710. Ratio to the hub .8660 / .8973 = .965, to its own .8572 / .7663 = 1.119.
    for margin in ("ratio", "distance"):
        found = similarity_search(queries, candidates, answers, margin=margin, k=2)
        assert found.best.tolist() == [0, 1] and found.at(1).all()


@pytest.mark.parametrize("margin", MARGINS)
@given(seed=seeds, n=st.integers(1, 40), more=st.integers(0, 60), k=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_the_search_equals_brute_force(margin: str, seed: int, n: int, more: int, k: int) -> None:
    queries, candidates = noisy(seed, n, n + more)
    answers = np.random.default_rng(seed).permutation(n + more)[:n]
    found = similarity_search(queries, candidates, answers, margin=margin, k=k)
    expected = brute_force(queries, candidates, answers, margin, k)
    np.testing.assert_array_equal(found.outdone, expected)
    np.testing.assert_array_equal(found.best == answers, expected == 0)


@pytest.mark.parametrize("margin", ("ratio", "distance"))
@pytest.mark.parametrize(("own_deg", "outdone"), [(2, 1), (-0.1, 4)])
def test_a_candidate_beyond_the_nearest_sixteen_counts_where_the_margin_prefers_it(
    margin: str, own_deg: float, outdone: int
) -> None:
    # The query at 30 degrees has its own candidate among twenty at 0 to -0.8; the farthest of all is a lonely one at
    # 61. Eight other queries stand by the twenty, so that only the lonely one's neighbourhood is thin.
    queries = unit([30, *[0] * 8])
    candidates = unit([own_deg, *[-0.04 * place for place in range(20)], 61])
    answers = np.array([0, *range(1, 9)])
    assert similarity_search(queries, candidates, answers, margin="cosine").outdone[0] == outdone - 1
    found = similarity_search(queries, candidates, answers, margin=margin)
    assert found.best[0] == 21
    assert found.outdone[0] == brute_force(queries, candidates, answers, margin, 4)[0] == outdone


@given(seed=seeds, n=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_a_perfect_encoder_makes_no_error(seed: int, n: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((n, 16)) + 0.5
    for margin in MARGINS:
        found = similarity_search(vectors, 3 * vectors, np.arange(n), margin=margin)
        assert found.at(1).all() and found.best.tolist() == list(range(n))


@pytest.mark.parametrize("margin", MARGINS)
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_permuting_rows_changes_nothing(margin: str, seed: int) -> None:
    queries, candidates = noisy(seed, 30, 50)
    chance = np.random.default_rng(seed)
    order, places = chance.permutation(30), chance.permutation(50)
    plain = similarity_search(queries, candidates, np.arange(30), margin=margin)
    back = np.argsort(places)
    moved = similarity_search(queries[order], candidates[places], back[order], margin=margin)
    np.testing.assert_array_equal(moved.outdone, plain.outdone[order])
    np.testing.assert_array_equal(places[moved.best], plain.best[order])


@pytest.mark.parametrize("margin", ("distance", "cosine"))
@given(seed=seeds, more=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_distractors_never_lower_the_error(margin: str, seed: int, more: int) -> None:
    queries, candidates = noisy(seed, 25, 25 + more)
    fewer = similarity_search(queries, candidates[:25], np.arange(25), margin=margin)
    many = similarity_search(queries, candidates, np.arange(25), margin=margin)
    assert (many.outdone >= fewer.outdone).all()


def test_with_the_ratio_a_distractor_can_turn_an_error_into_a_hit() -> None:
    # It raises the query's mean, which weighs the more in the ratio the lower the candidate's own mean is.
    repaired = 0
    for seed in range(60):
        queries, candidates = noisy(seed, 12, 24)
        fewer = similarity_search(queries, candidates[:12], np.arange(12), margin="ratio")
        many = similarity_search(queries, candidates, np.arange(12), margin="ratio")
        repaired += int((many.outdone < fewer.outdone).sum())
    assert repaired > 0


@given(seed=seeds, k=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_by_cosine_the_search_agrees_with_recall_at_k(seed: int, k: int) -> None:
    queries, candidates = noisy(seed, 30, 45)
    found = similarity_search(queries, candidates, np.arange(30), margin="cosine")
    assert found.at(k).mean() == pytest.approx(recall_at_k(queries, candidates, k))


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("count", [6, 30])
def test_an_encoder_that_says_the_same_for_everything_finds_nothing(margin: str, count: int) -> None:
    found = similarity_search(np.ones((count, 4)), np.ones((count, 4)), np.arange(count), margin=margin)
    assert not found.at(5).any() and (found.best != np.arange(count)).all()


def test_a_single_candidate_is_always_found() -> None:
    found = similarity_search(unit([0, 100]), unit([180]), np.array([0, 0]))
    assert found.at(1).all() and found.best.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("queries", "candidates", "answers", "told"),
    [
        (np.ones((0, 2)), np.ones((3, 2)), [], "0 queries"),
        (np.ones((2, 2)), np.ones((3, 2)), [0], "1 answers for 2 queries"),
        (np.ones((2, 2)), np.ones((3, 2)), [0, 3], "0 to 3"),
        (np.ones((1, 2)), np.ones((3, 2)), [-1], "-1 to -1"),
        (np.ones((1, 2)), np.ones((3, 4)), [0], "one dimension"),
        (np.full((1, 2), np.nan), np.ones((3, 2)), [0], "The queries"),
        (np.ones((1, 2)), np.zeros((3, 2)), [0], "The candidates"),
    ],
)
def test_malformed_sides_are_refused(queries: np.ndarray, candidates: np.ndarray, answers: list, told: str) -> None:
    with pytest.raises(EmbeddingError, match=told):
        similarity_search(queries, candidates, np.array(answers, np.int64))


def test_an_unknown_margin_and_impossible_depths_are_refused() -> None:
    one, answer = np.ones((1, 2)), np.array([0])
    with pytest.raises(SettingsError, match="no margin 'absolute'"):
        similarity_search(one, one, answer, margin="absolute")
    with pytest.raises(SettingsError, match="k or depth is 0"):
        similarity_search(one, one, answer, k=0)
    with pytest.raises(SettingsError, match="k is 6"):
        similarity_search(one, one, answer).at(6)


# Intervals


def test_an_estimate_worked_by_hand() -> None:
    alike = estimate(np.array([2, 2, 2]), np.array([4, 4, 4]))
    assert (alike.value, alike.low, alike.high) == (0.5, 0.5, 0.5)
    assert estimate(np.array([1, 0]), np.array([1, 3])).value == 0.25  # of the sums, not the mean of the rows' shares


def test_the_interval_of_a_share_is_as_wide_as_the_binomial_s() -> None:
    wrong = np.arange(1000) < 200
    found = estimate(wrong, bootstrap=Bootstrap(resamples=4000))
    deviation = np.sqrt(0.2 * 0.8 / 1000)
    assert found.low == pytest.approx(0.2 - 1.96 * deviation, abs=0.002)
    assert found.high == pytest.approx(0.2 + 1.96 * deviation, abs=0.002)
    narrow = estimate(wrong, bootstrap=Bootstrap(resamples=4000, level=0.5))
    assert found.low < narrow.low < 0.2 < narrow.high < found.high


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_does_not_move_an_interval_and_the_seed_does(seed: int) -> None:
    chance = np.random.default_rng(seed)
    parts, wholes = chance.integers(0, 5, 200), chance.integers(1, 9, 200)
    order = chance.permutation(200)
    found = estimate(parts, wholes)
    assert found == estimate(parts[order], wholes[order])
    assert found != estimate(parts, wholes, Bootstrap(seed=1))
    assert found.low <= found.value <= found.high


def test_many_resamples_are_drawn_in_parts_as_well_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from speech_mining.evaluation import intervals

    wrong = np.arange(300) < 30
    at_once = estimate(wrong)
    monkeypatch.setattr(intervals, "_DRAWS_AT_ONCE", 900)
    assert estimate(wrong) == at_once


def test_an_undefined_share_is_nan_and_no_rows_are_an_error() -> None:
    assert np.isnan(estimate(np.array([1]), np.array([0])).value)
    with pytest.raises(EmbeddingError, match="at least 1"):
        estimate(np.array([]))
    with pytest.raises(EmbeddingError, match="shape"):
        estimate(np.array([1, 2]), np.array([1]))
    with pytest.raises(SettingsError, match="0 resamples"):
        Bootstrap(resamples=0)
