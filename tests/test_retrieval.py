from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError
from speech_mining.evaluation.retrieval import mean_of, preference, recall_at_k, recall_by_direction

QUERIES = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_recall_of_a_case_worked_by_hand() -> None:
    # Query 0 is nearest to its own candidate, query 1 to candidate 2 (cosine 1 against 0.6), query 2 to candidate 0.
    candidates = np.array([[2.0, 0.1], [0.8, 0.6], [0.0, 3.0]])
    assert recall_at_k(QUERIES, candidates) == pytest.approx(1 / 3)
    # Query 1 has its own second; query 2 has cosines 0.74, 0.99, 0.71 with the three, its own comes third.
    assert recall_at_k(QUERIES, candidates, k=2) == pytest.approx(2 / 3)
    assert recall_at_k(QUERIES, candidates, k=3) == 1.0


def test_distractors_beyond_the_last_query_can_only_lower_recall() -> None:
    assert recall_at_k(QUERIES, np.vstack([QUERIES, [[5.0, 0.0]]])) == pytest.approx(2 / 3)


def test_an_encoder_that_says_the_same_for_everything_finds_nothing() -> None:
    assert recall_at_k(np.ones((4, 3)), np.ones((4, 3))) == 0.0


def test_a_single_pair_is_always_found() -> None:
    assert recall_at_k(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])) == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0.1, 100.0))
def test_identical_sides_are_found_whatever_their_length_and_order(seed: int, count: int, scale: float) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((count, 16))
    order = chance.permutation(count)
    assert recall_at_k(vectors[order], scale * vectors[order]) == 1.0


@given(st.integers(0, 2**32 - 1))
def test_recall_grows_with_k(seed: int) -> None:
    chance = np.random.default_rng(seed)
    queries, candidates = chance.standard_normal((2, 20, 4))
    recalls = [recall_at_k(queries, candidates, k) for k in range(1, 21)]
    assert recalls == sorted(recalls) and recalls[-1] == 1.0


def test_many_queries_are_counted_as_few_are() -> None:
    chance = np.random.default_rng(3)
    queries, candidates = chance.standard_normal((2, 2100, 3))
    cosines = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        candidates / np.linalg.norm(candidates, axis=1)[:, None]
    ).T
    assert recall_at_k(queries, candidates) == np.mean(cosines.argmax(axis=1) == np.arange(2100))


def test_every_direction_between_languages_is_told_once() -> None:
    sides = {"fra": QUERIES, "deu": QUERIES, "eng": QUERIES[:, ::-1]}
    recalls = recall_by_direction(sides, sides)
    assert list(recalls) == [
        ("deu", "eng"), ("deu", "fra"), ("eng", "deu"), ("eng", "fra"), ("fra", "deu"), ("fra", "eng"),
    ]  # fmt: skip
    assert recalls["deu", "fra"] == 1.0
    assert recalls["deu", "eng"] == pytest.approx(1 / 3)  # only (1, 1) is the same mirrored
    assert mean_of(recalls) == pytest.approx((2 * 1 + 4 / 3) / 6)


def test_preference_of_a_case_worked_by_hand() -> None:
    references = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    exact = np.array([[1.0, 0.1], [1.0, 0.5], [2.0, 4.0], [1.0, 0.0]])
    altered = np.array([[1.0, 0.2], [1.0, 0.4], [1.0, 2.0], [0.0, 1.0]])
    assert preference(exact, altered, references) == 0.5  # won, lost, tied, won


@pytest.mark.parametrize(
    ("queries", "candidates", "told"),
    [
        (np.zeros((0, 2)), np.ones((3, 2)), "m >= n >= 1"),
        (np.ones((3, 2)), np.ones((2, 2)), "not aligned"),
        (np.ones((3, 2)), np.ones((3, 4)), "not aligned"),
        (np.ones(3), np.ones((3, 2)), r"shape \(3,\)"),
        (np.zeros((3, 2)), np.ones((3, 2)), "queries a row is zero"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), "candidates a row is zero or not finite"),
    ],
)
def test_malformed_sides_are_refused(queries: np.ndarray, candidates: np.ndarray, told: str) -> None:
    with pytest.raises(EmbeddingError, match=told):
        recall_at_k(queries, candidates)


def test_a_k_of_zero_an_empty_mean_and_unequal_spans_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="k is 0"):
        recall_at_k(QUERIES, QUERIES, k=0)
    with pytest.raises(EmbeddingError, match="no direction"):
        mean_of({})
    with pytest.raises(EmbeddingError, match="differ"):
        preference(QUERIES, QUERIES[:2], QUERIES)
    with pytest.raises(EmbeddingError, match="no span"):
        preference(QUERIES[:0], QUERIES[:0], QUERIES[:0])
