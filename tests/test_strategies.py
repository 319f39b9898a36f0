"""Which candidates become pairs, against a slow reference written independently, pair by pair."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import SettingsError
from speech_mining.knn import Neighbours, both_directions, normalise
from speech_mining.mining.margin import score_candidates
from speech_mining.mining.strategies import BEST, STRATEGIES, mine

Pair = tuple[float, int, int]


def by_hand() -> Neighbours:
    """Absolute margins; source 0 and 1 both want target 0, which wants source 1; target 1 wants source 0."""
    return Neighbours(
        np.array([[0, 1], [0, 1]]),
        np.array([[0.75, 0.5], [0.875, 0.25]], np.float32),
        np.array([[1, 0], [0, 1]]),
        np.array([[0.875, 0.75], [0.5, 0.25]], np.float32),
    )


@pytest.mark.parametrize(
    ("strategy", "pairs"),
    [
        ("forward", [(0.875, 1, 0), (0.75, 0, 0)]),
        ("backward", [(0.875, 1, 0), (0.5, 0, 1)]),
        ("intersection", [(0.875, 1, 0)]),
        ("union", [(0.875, 1, 0), (0.75, 0, 0), (0.5, 0, 1)]),
        ("max", [(0.875, 1, 0), (0.5, 0, 1)]),
    ],
)
def test_pairs_worked_by_hand(strategy: str, pairs: list[Pair]) -> None:
    mined = mine(by_hand(), margin="absolute", strategy=strategy, threshold=-1)

    assert list(zip(mined.score, mined.source, mined.target, strict=True)) == pairs
    assert (mined.score.dtype, mined.cosine.dtype) == (np.float64, np.float32)
    assert (mined.source.dtype, mined.target.dtype) == (np.int64, np.int64)
    np.testing.assert_array_equal(mined.cosine, mined.score.astype(np.float32))


def test_counts_tell_where_every_candidate_went() -> None:
    counts = mine(by_hand(), margin="absolute", threshold=0.6).counts

    assert counts == {"candidates": 8, "undefined": 0, "best": 3, "below_threshold": 1, "taken": 1, "pairs": 1}


def test_a_pair_at_the_threshold_is_kept() -> None:
    assert len(mine(by_hand(), margin="absolute", strategy="union", threshold=0.75).score) == 2


def test_the_best_neighbour_is_the_one_with_the_highest_margin_not_the_nearest() -> None:
    """Target 0 is a hub: nearest to both sources, but near to everything."""
    hub = Neighbours(
        np.array([[0, 1]]),
        np.array([[0.75, 0.625]], np.float32),
        np.array([[0, -1], [0, -1]]),
        np.array([[1.0, -np.inf], [0.25, -np.inf]], np.float32),
    )

    assert mine(hub, strategy="forward", threshold=0).target.tolist() == [1]
    assert mine(hub, strategy="forward", threshold=0, best="nearest").target.tolist() == [0]


def test_a_nearest_neighbour_without_a_margin_leaves_its_row_without_a_pair() -> None:
    """The mean cosines of source 0 and target 0 cancel out; target 1 would do."""
    neighbours = Neighbours(
        np.array([[0, 1]]),
        np.array([[0.5, 0.25]], np.float32),
        np.array([[0, -1], [0, -1]]),
        np.array([[-0.5, -np.inf], [0.25, -np.inf]], np.float32),
    )

    assert mine(neighbours, strategy="forward", threshold=0).target.tolist() == [1]
    assert mine(neighbours, strategy="forward", threshold=0, best="nearest").counts["best"] == 0


def test_ties_go_to_the_lower_source_then_the_lower_target() -> None:
    rows, ties = np.array([[0, 1], [0, 1]]), np.full((2, 2), 0.5, np.float32)

    for strategy, pairs in {
        "forward": [(0, 0), (1, 0)],
        "backward": [(0, 0), (0, 1)],
        "union": [(0, 0), (0, 1), (1, 0)],
        "max": [(0, 0)],
    }.items():
        mined = mine(Neighbours(rows, ties, rows, ties), strategy=strategy, threshold=0)
        assert list(zip(mined.source, mined.target, strict=True)) == pairs, strategy


def slow_reference(neighbours: Neighbours, margin: str, strategy: str, threshold: float, best: str) -> list[Pair]:
    """LASER's retrieval modes, one pair at a time over dictionaries."""
    places = slice(1) if best == "nearest" else slice(None)
    scored = score_candidates(neighbours, margin)
    forward: dict[int, Pair] = {}
    for source, (targets, scores) in enumerate(zip(neighbours.forward_rows, scored.forward_scores, strict=True)):
        pairs = [
            (float(s), source, int(t)) for t, s in zip(targets[places], scores[places], strict=True) if not np.isnan(s)
        ]
        if pairs:
            forward[source] = min(pairs, key=lambda pair: (-pair[0], pair[2]))
    backward: dict[int, Pair] = {}
    for target, (sources, scores) in enumerate(zip(neighbours.backward_rows, scored.backward_scores, strict=True)):
        pairs = [
            (float(s), int(o), target) for o, s in zip(sources[places], scores[places], strict=True) if not np.isnan(s)
        ]
        if pairs:
            backward[target] = min(pairs, key=lambda pair: (-pair[0], pair[1]))
    ahead, back = set(forward.values()), set(backward.values())
    chosen = {"forward": ahead, "backward": back, "intersection": ahead & back}.get(strategy, ahead | back)
    ordered = sorted((pair for pair in chosen if pair[0] >= threshold), key=lambda pair: (-pair[0], *pair[1:]))
    if strategy != "max":
        return ordered
    kept: list[Pair] = []
    for pair in ordered:
        if all(pair[1] != other[1] and pair[2] != other[2] for other in kept):
            kept.append(pair)
    return kept


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(0, 30),
    m=st.integers(0, 30),
    k=st.integers(1, 8),
    margin=st.sampled_from(["ratio", "distance", "absolute"]),
    strategy=st.sampled_from(STRATEGIES),
    threshold=st.sampled_from([-2.0, 0.0, 0.5, 1.06]),
    best=st.sampled_from(BEST),
    seed=st.integers(0, 2**32 - 1),
)
def test_pairs_equal_the_slow_reference(
    n: int, m: int, k: int, margin: str, strategy: str, threshold: float, best: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # few small integers, so that equal rows and equal scores are common
    source, target = (
        normalise(rng.integers([-1, -1, -1, 2], [2, 2, 2, 5], (count, 4)).astype(float)) for count in (n, m)
    )
    neighbours = both_directions(source, target, k)

    mined = mine(neighbours, margin=margin, strategy=strategy, threshold=threshold, best=best)

    found = list(zip(mined.score.tolist(), mined.source.tolist(), mined.target.tolist(), strict=True))
    assert found == slow_reference(neighbours, margin, strategy, threshold, best)


def test_planted_translations_are_found_one_to_one() -> None:
    rng = np.random.default_rng(0)
    meanings = rng.standard_normal((400, 64))
    source = normalise(np.concatenate([meanings[:300], rng.standard_normal((200, 64))]))
    order = rng.permutation(400)
    target = normalise((meanings + 0.5 * rng.standard_normal(meanings.shape))[order])

    mined = mine(both_directions(source, target, 16), threshold=1.6)

    right = order[mined.target] == mined.source
    assert right.mean() >= 0.99 and right.sum() >= 297
    assert len(set(mined.source.tolist())) == len(set(mined.target.tolist())) == len(mined.source)


def test_no_neighbours_give_no_pairs_of_the_right_types() -> None:
    empty = both_directions(np.empty((0, 4), np.float32), np.eye(4, dtype=np.float32), 3)

    for strategy, best in product(STRATEGIES, BEST):
        mined = mine(empty, strategy=strategy, best=best)
        assert (len(mined.score), mined.score.dtype, mined.source.dtype) == (0, np.float64, np.int64)
        assert mined.counts["candidates"] == 0


def test_the_ratio_threshold_is_not_lent_to_other_margins() -> None:
    assert mine(by_hand()).counts["pairs"] >= 1
    with pytest.raises(SettingsError, match=r"distance margin .* without a threshold.*1\.06 belongs to the ratio"):
        mine(by_hand(), margin="distance")
    with pytest.raises(SettingsError, match="threshold is not a number"):
        mine(by_hand(), threshold=float("nan"))
    with pytest.raises(SettingsError, match=r"no strategy 'best'.*intersection"):
        mine(by_hand(), strategy="best")
    with pytest.raises(SettingsError, match=r"no best neighbour by 'cosine'.*margin, nearest"):
        mine(by_hand(), best="cosine")
