"""The margins, against numbers worked by hand and against the textbook formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import SettingsError
from speech_mining.knn import Neighbours, both_directions, normalise
from speech_mining.mining.margin import distance_margin, mean_cosines, ratio_margin, score_candidates


def by_hand() -> Neighbours:
    """Two source rows, three target rows, k = 2.

    Mean cosines: source 0.75 and 0.25; target 0.875, 0.375 and 0.25.
    """
    return Neighbours(
        np.array([[0, 1], [1, 2]]),
        np.array([[1.0, 0.5], [0.25, 0.25]], np.float32),
        np.array([[0, 1], [0, 1], [1, 0]]),
        np.array([[1.0, 0.75], [0.5, 0.25], [0.25, 0.25]], np.float32),
    )


@pytest.mark.parametrize(
    ("margin", "forward", "backward_first"),
    [
        ("ratio", [[1 / 0.8125, 0.5 / 0.5625], [0.25 / 0.3125, 1.0]], [1 / 0.8125, 0.75 / 0.5625]),
        ("distance", [[0.1875, -0.0625], [-0.0625, 0.0]], [0.1875, 0.1875]),
        ("absolute", [[1.0, 0.5], [0.25, 0.25]], [1.0, 0.75]),
    ],
)
def test_scores_worked_by_hand(margin: str, forward: list[list[float]], backward_first: list[float]) -> None:
    scored = score_candidates(by_hand(), margin)

    np.testing.assert_allclose(scored.forward_scores, forward, rtol=1e-15)
    np.testing.assert_allclose(scored.backward_scores[0], backward_first, rtol=1e-15)
    assert (scored.count, scored.undefined) == (10, 0)


def test_the_mean_runs_over_the_neighbours_that_exist() -> None:
    rows = np.array([[3, 5, -1], [-1, -1, -1]])
    cosines = np.array([[0.5, 0.25, -np.inf], [-np.inf] * 3], np.float32)

    np.testing.assert_array_equal(mean_cosines(rows, cosines), [0.375, np.nan])


def test_a_ratio_without_a_positive_denominator_is_undefined_and_counted() -> None:
    rows = np.zeros((1, 1), np.int64)
    opposite = np.full((1, 1), -0.5, np.float32)

    scored = score_candidates(Neighbours(rows, opposite, rows, opposite))

    assert np.isnan(scored.forward_scores).all() and np.isnan(scored.backward_scores).all()
    assert (scored.count, scored.undefined) == (2, 2)
    np.testing.assert_array_equal(
        ratio_margin(np.array([0.5, 0.5]), np.array([0.2, -0.2]), np.array([-0.2, -0.3])), [np.nan, np.nan]
    )
    assert distance_margin(np.array([-0.5]), np.array([-0.5]), np.array([-0.5])) == 0


def test_missing_neighbours_have_no_score_and_are_not_counted() -> None:
    rows, cosines = np.array([[0, -1]]), np.array([[0.5, -np.inf]], np.float32)

    scored = score_candidates(Neighbours(rows, cosines, rows, cosines), "absolute")

    np.testing.assert_array_equal(scored.forward_scores, [[0.5, np.nan]])
    assert (scored.count, scored.undefined) == (2, 0)


def test_an_empty_side_scores_nothing() -> None:
    empty, missing = np.empty((0, 2), np.int64), np.full((3, 2), -1)
    scored = score_candidates(
        Neighbours(empty, empty.astype(np.float32), missing, np.full((3, 2), -np.inf, np.float32))
    )

    assert scored.forward_scores.shape == (0, 2) and np.isnan(scored.backward_scores).all()
    assert (scored.count, scored.undefined) == (0, 0)


def test_an_unknown_margin_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"no margin 'cosine'.*ratio, distance, absolute"):
        score_candidates(by_hand(), "cosine")


def textbook(source: npt.NDArray, target: npt.NDArray, k: int, margin: str) -> npt.NDArray:
    """Scores of all n * m pairs, from the full matrix of cosines."""
    cosines = source.astype(np.float64) @ target.astype(np.float64).T
    source_mean = np.sort(cosines, axis=1)[:, ::-1][:, :k].mean(axis=1)
    target_mean = np.sort(cosines.T, axis=1)[:, ::-1][:, :k].mean(axis=1)
    level = (source_mean[:, None] + target_mean[None, :]) / 2
    return {"ratio": cosines / level, "distance": cosines - level, "absolute": cosines}[margin]


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 25),
    m=st.integers(1, 25),
    k=st.integers(1, 30),
    margin=st.sampled_from(["ratio", "distance", "absolute"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_equal_the_textbook_and_both_directions_agree(n: int, m: int, k: int, margin: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # shifted, so that mean cosines stay well above 0 and every ratio is defined
    source, target = (normalise(rng.random((count, 12)) + 0.2) for count in (n, m))
    neighbours = both_directions(source, target, k)
    expected = textbook(source, target, k, margin)

    scored = score_candidates(neighbours, margin)

    rows, columns = np.nonzero(neighbours.forward_rows >= 0)
    np.testing.assert_allclose(
        scored.forward_scores[rows, columns], expected[rows, neighbours.forward_rows[rows, columns]], atol=1e-6
    )
    forward = {
        (row, other): score
        for row, (others, scores) in enumerate(zip(neighbours.forward_rows, scored.forward_scores, strict=True))
        for other, score in zip(others, scores, strict=True)
    }
    for row, (others, scores) in enumerate(zip(neighbours.backward_rows, scored.backward_scores, strict=True)):
        for other, score in zip(others, scores, strict=True):
            assert (other, row) not in forward or forward[other, row] == score
