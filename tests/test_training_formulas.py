from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError, EncoderError
from speech_mining.training.configuration import StudentConfig
from speech_mining.training.examples import Examples
from speech_mining.training.masking import span_mask
from speech_mining.training.passes import Passes, Place
from speech_mining.training.rebalancing import balanced_counts, balanced_shares, pass_batches, pass_draws
from speech_mining.training.schedule import learning_rate
from speech_mining.training.validation import recall_at_1
from tests.student_world import tones

PHASES = (0.1, 0.4, 0.5)


# The configuration


def test_a_configuration_survives_json() -> None:
    config = StudentConfig(size={"width": 8}, architecture="convolutions", phases=(0.2, 0.3, 0.5), seed=7)
    assert StudentConfig.of_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_a_misspelt_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(EncoderError, match=r"names 'learning_rate'.*Expected: names of .*peak_rate"):
        StudentConfig.of_dict({"learning_rate": 1e-4})


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "hubert"},
        {"pooling": "last"},
        {"loss": "cos"},
        {"updates": 0},
        {"updates": 2.5},
        {"updates": True},
        {"peak_rate": 0.0},
        {"peak_rate": float("nan")},
        {"phases": [0.5, 0.4, 0.5]},
        {"phases": "10-40-50"},
        {"phases": [0.5, 0.5]},
        {"alpha": 1.5},
        {"shortest_s": 30.0},
        {"mask_time_length": 0},
        {"size": 3},
        {"start": "/weights", "size": {"hidden_size": 8}},
    ],
)
def test_what_a_configuration_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(EncoderError, match="Expected"):
        StudentConfig.of_dict(wrong)


# The schedule


def test_the_rate_at_the_edges_of_the_three_phases() -> None:
    rates = [learning_rate(update, 100, 1e-4, PHASES) for update in range(100)]
    assert rates[0] == pytest.approx(1e-5, rel=1e-12)
    assert rates[8] == pytest.approx(9e-5, rel=1e-12)
    assert rates[9] == rates[10] == rates[49] == rates[50] == 1e-4
    assert rates[51] == pytest.approx(1e-4 * 49 / 50, rel=1e-12)
    assert rates[99] == pytest.approx(1e-4 / 50, rel=1e-12)


@settings(deadline=None)
@given(updates=st.integers(1, 300), cut=st.tuples(st.integers(0, 10), st.integers(0, 10)))
def test_the_rate_is_never_zero_nor_above_its_peak(updates: int, cut: tuple[int, int]) -> None:
    first, second = sorted(one / 10 for one in cut)
    rates = [learning_rate(one, updates, 2.0, (first, second - first, 1 - second)) for one in range(updates)]
    assert all(0 < rate <= 2.0 for rate in rates)
    turned = rates.index(max(rates))
    assert rates[: turned + 1] == sorted(rates[: turned + 1])
    assert rates[turned:] == sorted(rates[turned:], reverse=True)


def test_there_is_no_rate_beyond_the_last_update() -> None:
    with pytest.raises(EncoderError, match="0 to 9"):
        learning_rate(10, 10, 1.0, PHASES)


# Re-balancing


def test_the_shares_of_languages_are_those_of_equation_2() -> None:
    counts = {"deu": 900, "isl": 100}
    shares = balanced_shares(counts, 0.2)
    powers = {"deu": 0.9**0.2, "isl": 0.1**0.2}
    assert shares == pytest.approx({one: power / sum(powers.values()) for one, power in powers.items()})
    assert shares["isl"] == pytest.approx(0.391873, abs=1e-6)  # 0.630957 / (0.979148 + 0.630957), by hand
    assert balanced_counts(counts, 0.2) == {"deu": 608, "isl": 392}
    assert balanced_counts(counts, 1.0) == counts
    assert balanced_counts(counts, 0.0) == {"deu": 500, "isl": 500}


def test_a_small_language_is_repeated_and_a_large_one_sampled_anew_in_each_pass() -> None:
    languages = ["deu"] * 90 + ["isl"] * 10
    first, second = (pass_draws(languages, 0.2, 3, number) for number in (0, 1))
    taken = Counter(draw.row for draw in first)
    assert {taken[row] for row in range(90)} == {0, 1}
    assert {taken[row] for row in range(90, 100)} <= {3, 4}
    assert sum(taken[row] for row in range(90)) == 61
    assert sum(taken[row] for row in range(90, 100)) == 39
    assert Counter(draw.row for draw in second) != taken
    assert pass_draws(languages, 0.2, 3, 1) == second


def test_a_clip_with_two_targets_is_taught_them_in_turn() -> None:
    turns = [draw.turn for number in range(4) for draw in pass_draws(["deu", "deu"], 1.0, 0, number) if draw.row == 0]
    assert turns == [0, 1, 2, 3]
    of_the_repeated = [
        draw.turn for number in range(2) for draw in pass_draws(["deu"] * 3 + ["isl"], 0.0, 0, number) if draw.row == 3
    ]
    assert of_the_repeated == [0, 1, 2, 3]


@settings(deadline=None)
@given(
    durations=st.lists(st.floats(0.3, 20.0), min_size=1, max_size=60),
    budget=st.floats(1.0, 60.0),
    seed=st.integers(0, 5),
)
def test_no_batch_outgrows_its_budget_and_none_is_lost(durations: list[float], budget: float, seed: int) -> None:
    draws = pass_draws(["deu"] * len(durations), 1.0, seed, 0)
    lengths = np.array(durations)
    batches = pass_batches(lengths, draws, budget, seed, 0)
    assert sorted(draw.row for batch in batches for draw in batch) == list(range(len(durations)))
    for batch in batches:
        assert len(batch) == 1 or max(durations[draw.row] for draw in batch) * len(batch) <= budget


def test_batches_hold_clips_of_like_length_and_come_in_random_order() -> None:
    lengths = np.random.default_rng(0).uniform(1, 20, 400)
    batches = pass_batches(lengths, pass_draws(["deu"] * 400, 1.0, 0, 0), 60.0, 0, 0)
    longest = [max(lengths[draw.row] for draw in batch) for batch in batches]
    padded = sum(length * len(batch) for length, batch in zip(longest, batches, strict=True))
    assert padded / lengths.sum() < 1.15
    assert longest != sorted(longest, reverse=True)
    assert batches != pass_batches(lengths, pass_draws(["deu"] * 400, 1.0, 0, 1), 60.0, 0, 1)


@settings(max_examples=20, deadline=None)
@given(stopped=st.integers(0, 12), together=st.integers(1, 3))
def test_updates_go_on_from_any_place_as_if_nothing_had_happened(stopped: int, together: int) -> None:
    lengths = np.random.default_rng(1).uniform(1, 5, 20)
    passes = Passes(lengths, ("deu",) * 15 + ("eng",) * 5, 0.5, 12.0, 4)
    whole = list(passes.updates(0, 13, together, Place()))
    place = whole[stopped - 1].after if stopped else Place()
    assert list(passes.updates(stopped, 13, together, place)) == whole[stopped:]


def test_two_processes_hear_what_one_of_two_micro_batches_hears() -> None:
    passes = Passes(np.full(12, 2.0), ("deu",) * 12, 1.0, 4.0, 0)
    alone = list(passes.updates(0, 4, 1, Place()))
    together = list(passes.updates(0, 2, 2, Place()))
    assert [batch for one in together for batch in one.batches] == [batch for one in alone for batch in one.batches]


# Masks


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 80), min_size=1, max_size=6),
    probability=st.floats(0, 1),
    span=st.integers(1, 90),
    seed=st.integers(0, 9),
)
def test_masks_never_touch_padding_nor_a_whole_row(
    lengths: list[int], probability: float, span: int, seed: int
) -> None:
    mask = span_mask(lengths, max(lengths), probability, span, (seed,))
    beyond = np.arange(max(lengths)) >= np.array(lengths)[:, None]
    assert not mask[beyond].any()
    assert all(mask[row].sum() < length for row, length in enumerate(lengths))


def test_masks_are_drawn_by_seed_and_row_and_not_by_what_is_beside() -> None:
    wide, narrow = span_mask([50, 200], 200, 0.3, 5, (1, 2)), span_mask([50], 50, 0.3, 5, (1, 2))
    np.testing.assert_array_equal(wide[0, :50], narrow[0])
    assert not np.array_equal(narrow, span_mask([50], 50, 0.3, 5, (1, 3)))
    assert not span_mask([50], 50, 0.0, 5, (1, 2)).any()


def test_spans_that_together_cover_a_row_leave_a_place_of_it() -> None:
    mask = span_mask([3] * 300, 3, 1.0, 2, (0,))
    assert mask.sum(1).max() == 2  # two spans of 2 cover 3 places in many of the rows


def test_masks_cover_about_the_share_that_is_asked_for() -> None:
    mask = span_mask([1000] * 200, 1000, 0.05, 10, (0,))
    assert mask.mean() == pytest.approx(0.05, abs=0.003)
    # each mask is whole spans: an edge up is followed by no edge down for ten places
    starts = np.flatnonzero(np.diff(mask[0].astype(int)) == 1)
    assert all(mask[0, start + 1 : start + 11].all() for start in starts if start < 980)


# Losses


def _vectors() -> tuple[Any, Any]:
    chance = np.random.default_rng(0)
    vectors, targets = chance.standard_normal((5, 7)), chance.standard_normal((5, 7))
    return vectors, targets / np.linalg.norm(targets, axis=1, keepdims=True)


@pytest.mark.parametrize("loss", ["cosine", "l1", "l2", "contrastive"])
def test_each_loss_is_its_formula(loss: str) -> None:
    import torch

    from speech_mining.training.losses import distances

    vectors, targets = _vectors()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = np.exp(unit @ targets.T / 0.1)
    expected = {
        "cosine": 1 - (unit * targets).sum(1),
        "l1": np.abs(vectors - targets).sum(1),
        "l2": ((vectors - targets) ** 2).sum(1),
        "contrastive": -np.log(np.diag(logits) / logits.sum(1)),
    }[loss]
    found = distances(torch.from_numpy(vectors), torch.from_numpy(targets), loss, 0.1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_sentence_said_twice_is_no_negative_of_itself() -> None:
    import torch

    from speech_mining.training.losses import distances

    vectors, targets = _vectors()
    targets[1] = targets[0]
    found = distances(torch.from_numpy(vectors), torch.from_numpy(targets), "contrastive", 0.1).numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = np.exp(unit @ targets.T / 0.1)
    assert found[0] == pytest.approx(-math.log(logits[0, 0] / (logits[0].sum() - logits[0, 1])), rel=1e-5)


def test_there_is_no_other_loss() -> None:
    import torch

    from speech_mining.training.losses import distances

    with pytest.raises(EncoderError, match="no loss 'huber'"):
        distances(torch.ones(1, 2), torch.ones(1, 2), "huber", 0.1)


# Examinations


def test_recall_at_1_counts_sentences_once_and_languages_alike() -> None:
    targets = np.eye(4)[[0, 1, 1, 2, 3]]
    languages = ["deu", "deu", "deu", "eng", "eng"]
    right = recall_at_1(targets, targets, languages)
    # One of the three German clips is wrong; the other sentence that is said twice is right both times.
    vectors = targets.copy()
    vectors[0] = [0.1, 1, 0, 0]
    assert (right, recall_at_1(vectors, targets, languages)) == (1.0, pytest.approx((2 / 3 + 1) / 2))


def test_one_vector_for_everything_finds_one_sentence_and_a_tie_finds_none() -> None:
    targets = np.eye(4)
    assert recall_at_1(np.tile([1.0, 0, 0, 0], (4, 1)), targets, ["deu"] * 4) == 0.25
    assert recall_at_1(np.ones((4, 4)), targets, ["deu"] * 4) == 0.0


def test_vectors_without_direction_are_no_examination() -> None:
    with pytest.raises(EmbeddingError, match="1 of them without a direction"):
        recall_at_1(np.array([[1.0, 0], [np.nan, 0]]), np.eye(2), ["deu", "deu"])


# Examples


def test_the_fingerprint_tells_of_names_lengths_and_targets() -> None:
    known = tones(4, 1)
    assert tones(4, 1).fingerprint == known.fingerprint
    longer = known.clips.with_columns(pl.col("duration_s") + 0.5)
    others = [
        Examples(longer, known.targets, known.target_rows, known.read),
        Examples(known.clips, known.targets, [(0,)] * 4, known.read),
        Examples(known.clips, -known.targets, known.target_rows, known.read),
    ]
    assert len({known.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize("rows", [[(0,), (0,), (0,)], [(0,), (), (0,), (0,)], [(0,), (8,), (0,), (0,)]])
def test_examples_refuse_targets_that_are_not_there(rows: list[tuple[int, ...]]) -> None:
    known = tones(4, 1)
    with pytest.raises(EncoderError, match="Expected"):
        Examples(known.clips, known.targets, rows, known.read)
