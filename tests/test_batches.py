from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.encoders.batches import length_batches, padding_waste
from speech_mining.errors import EmbeddingError

lengths_of_items = st.lists(st.integers(1, 400_000), max_size=60)
budgets = st.integers(1, 1_000_000)


def test_batches_worked_by_hand() -> None:
    batches = length_batches([3, 10, 4, 5, 2], budget=10)
    assert [batch.tolist() for batch in batches] == [[1], [3, 2], [0, 4]]


def test_equal_lengths_keep_the_order_given() -> None:
    assert [batch.tolist() for batch in length_batches([7, 7, 7, 7], budget=14)] == [[0, 1], [2, 3]]


def test_no_items_make_no_batches_and_waste_nothing() -> None:
    assert length_batches([], budget=10) == []
    assert padding_waste([], []) == 0.0


def test_padding_waste_worked_by_hand() -> None:
    lengths = [3, 10, 4, 5, 2]
    # padded: 10 + 2 x 5 + 2 x 3 = 26, useful: 24
    assert padding_waste(lengths, length_batches(lengths, budget=10)) == pytest.approx(2 / 26)


@given(lengths_of_items, budgets)
def test_every_item_is_in_one_batch(lengths: list[int], budget: int) -> None:
    positions = [int(position) for batch in length_batches(lengths, budget) for position in batch]
    assert sorted(positions) == list(range(len(lengths)))


@given(lengths_of_items, budgets)
def test_the_budget_is_kept_unless_one_item_alone_exceeds_it(lengths: list[int], budget: int) -> None:
    for batch in length_batches(lengths, budget):
        padded = max(lengths[position] for position in batch) * batch.size
        assert padded <= budget or batch.size == 1


@given(lengths_of_items, budgets)
def test_rows_written_by_batch_come_back_in_the_order_given(lengths: list[int], budget: int) -> None:
    rows = np.zeros(len(lengths), dtype=np.int64)
    for batch in length_batches(lengths, budget):
        rows[batch] = np.asarray(lengths)[batch]
    assert rows.tolist() == lengths


def test_segments_of_3_to_20_s_waste_a_tenth_of_what_their_own_order_wastes() -> None:
    lengths = np.random.default_rng(0).integers(48_000, 320_000, size=2_000)
    in_given_order = np.split(np.arange(2_000), range(16, 2_000, 16))
    waste = padding_waste(lengths, length_batches(lengths, budget=240 * 16_000))
    assert waste < 0.02
    assert padding_waste(lengths, in_given_order) > 10 * waste


@pytest.mark.parametrize("lengths", [[3, 0], [3, -1], [1.5, 2.0], [[1, 2]]])
def test_lengths_that_are_not_positive_integers_are_refused(lengths: list[int]) -> None:
    with pytest.raises(EmbeddingError, match="one positive integer an item"):
        length_batches(lengths, budget=10)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(EmbeddingError, match="budget of 0"):
        length_batches([1], budget=0)
