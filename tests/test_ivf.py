"""The approximate join: what it finds is exact, what it misses is estimated, no byte depends on threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn import approximate, join_cells, join_kernels, join_probes, join_sweep
from speech_mining.knn.approximate import Joined, cell_join
from speech_mining.knn.engines.int8 import Int8
from speech_mining.knn.exact import both_directions
from speech_mining.knn.kernels import key_of, row_of, value_of
from speech_mining.knn.neighbours import Neighbours
from speech_mining.knn.products import crew
from speech_mining.knn.toplists import Room, TopLists
from speech_mining.knn.vectors import Stack, normalise

TABLES = ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines")


def random_rows(count: int, dimension: int, seed: int, dtype: npt.DTypeLike = np.float16) -> npt.NDArray:
    return normalise(np.random.default_rng(seed).standard_normal((count, dimension))).astype(dtype)


def topical_sides(
    rows: int, columns: int, dimension: int, seed: int, cone: float = 1.5
) -> tuple[npt.NDArray, npt.NDArray]:
    """Two sides of rows round common topics, each in a cone of its own."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((30, dimension))
    sides = []
    for count in (rows, columns):
        axis = cone * rng.standard_normal(dimension)
        noise = 0.8 * rng.standard_normal((count, dimension))
        sides.append(normalise(topics[rng.integers(0, 30, count)] + noise + axis).astype(np.float16))
    return sides[0], sides[1]


def true_recall(found: npt.NDArray, exact: npt.NDArray) -> float:
    shares = [len(np.intersect1d(one, other)) / len(other) for one, other in zip(found, exact, strict=True)]
    return float(np.mean(shares))


def assert_same(one: Neighbours, other: Neighbours) -> None:
    for table in TABLES:
        np.testing.assert_array_equal(getattr(one, table), getattr(other, table), err_msg=table)


def assert_sound(found: Neighbours, source: npt.NDArray, target: npt.NDArray) -> None:
    """No row twice, exact cosines, sorted by decreasing cosine, then increasing row, missing ones last."""
    for queries, base, rows, cosines in (
        (source, target, found.forward_rows, found.forward_cosines),
        (target, source, found.backward_rows, found.backward_cosines),
    ):
        products = (queries.astype(np.float64) @ base.astype(np.float64).T).astype(np.float32)
        for query, (row, cosine) in enumerate(zip(rows, cosines, strict=True)):
            there = row >= 0
            assert not (~there[:-1] & there[1:]).any() and np.isneginf(cosine[~there]).all()
            row, cosine = row[there], cosine[there]
            assert len(np.unique(row)) == len(row)
            np.testing.assert_array_equal(cosine, products[query, row])
            np.testing.assert_array_equal(np.lexsort((row, -cosine)), np.arange(len(row)))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 120),
    m=st.integers(0, 120),
    d=st.integers(1, 70),
    k=st.integers(1, 20),
    cells=st.integers(1, 30),
    probes=st.sampled_from([0.5, 1, 2, 4, None]),
    copies=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_found_is_exact_sorted_and_never_found_twice(
    n: int, m: int, d: int, k: int, cells: int, probes: float | None, copies: int, seed: int
) -> None:
    source, target = random_rows(n, d, seed), random_rows(m, d, seed + 1)
    if n and m:  # equal vectors, on one side and across
        target[:copies] = source[0]
        source[: copies // 2] = source[0]

    assert_sound(cell_join(source, target, k, cells=cells, probes=probes).neighbours, source, target)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 150),
    m=st.integers(0, 150),
    d=st.integers(8, 70),
    k=st.integers(1, 20),
    cells=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_with_every_cell_probed_it_equals_the_exact_engine(
    n: int, m: int, d: int, k: int, cells: int, seed: int
) -> None:
    source, target = random_rows(n, d, seed), random_rows(m, d, seed + 1)

    joined = cell_join(source, target, k, cells=cells, probes=cells)

    assert_same(joined.neighbours, both_directions(source, target, k, engine="fp32"))
    assert joined.products == n * m and joined.recall == 1


@pytest.mark.parametrize("slack", [8, 0])
def test_threads_and_blocks_do_not_change_a_byte(monkeypatch: pytest.MonkeyPatch, slack: int) -> None:
    """Without slack, what is found is what the rough lists hold, and any trace of their order would show."""
    monkeypatch.setattr(approximate, "ROOMS", ((slack, 16),))
    source, target = topical_sides(3000, 2500, 64, 1)
    source[100:200] = target[5]  # a hundred ties
    target[300:400] = target[5]
    reference = cell_join(source, target, 8, cells=20, threads=1)

    for threads, band, tile in ((2, 700, 100), (3, 512, 33)):
        monkeypatch.setattr(join_sweep, "BAND_ROWS", band)
        monkeypatch.setattr(join_sweep, "TILE_ROWS", tile)
        other = cell_join(source, target, 8, cells=20, threads=threads)
        assert_same(reference.neighbours, other.neighbours)
        assert (reference.estimate, reference.products) == (other.estimate, other.products)


def test_another_seed_gives_other_cells() -> None:
    source, target = topical_sides(2000, 2000, 64, 2)

    one, other = (cell_join(source, target, 8, cells=20, probes=2, seed=seed) for seed in (0, 1))

    assert one.products != other.products


def test_recall_is_reached_with_a_part_of_the_products() -> None:
    source, target = topical_sides(9000, 7000, 96, 3)
    exact = both_directions(source, target, 16)

    joined = cell_join(source, target, 16, cells=40)

    assert joined.products < 0.5 * len(source) * len(target)
    assert true_recall(joined.neighbours.forward_rows, exact.forward_rows) >= 0.975
    assert true_recall(joined.neighbours.backward_rows, exact.backward_rows) >= 0.975


@pytest.mark.parametrize("recall", [0.6, 0.9, 0.97])
def test_the_estimate_is_within_sampling_error_of_the_true_recall(recall: float) -> None:
    source, target = topical_sides(6000, 5000, 96, 4)
    exact = both_directions(source, target, 10)

    joined = cell_join(source, target, 10, recall=recall, cells=30)

    forward = true_recall(joined.neighbours.forward_rows, exact.forward_rows)
    backward = true_recall(joined.neighbours.backward_rows, exact.backward_rows)
    assert abs(joined.estimate.forward - forward) <= 4 * joined.estimate.forward_error
    assert abs(joined.estimate.backward - backward) <= 4 * joined.estimate.backward_error
    assert 0 < joined.estimate.forward_error < 0.02
    assert min(forward, backward) >= recall - 4 * joined.estimate.forward_error


def test_more_recall_takes_more_products() -> None:
    source, target = topical_sides(5000, 5000, 64, 5)

    products = [cell_join(source, target, 8, recall=recall, cells=30).products for recall in (0.7, 0.9, 0.99)]

    assert products == sorted(products) and products[0] < products[-1]


def test_one_direction_does_not_pay_for_the_other() -> None:
    """Both directions reach the recall, whichever side is larger."""
    for rows, columns in ((6000, 800), (800, 6000)):
        joined = cell_join(*topical_sides(rows, columns, 64, 6), 8, cells=20)
        assert min(joined.estimate.forward, joined.estimate.backward) >= 0.96


def test_sides_in_cones_of_their_own_share_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = topical_sides(3000, 3000, 64, 7)
    moved = cell_join(*sides, 8, cells=20)
    monkeypatch.setattr(join_cells, "mean_of", lambda side, seed: np.zeros(side.codes.shape[1]))
    unmoved = cell_join(*sides, 8, cells=20)

    assert min(moved.recall, unmoved.recall) >= 0.96
    assert moved.products < 0.7 * unmoved.products


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 7), (7, 0)])
def test_an_empty_side_gives_missing_neighbours(rows: int, columns: int) -> None:
    joined = cell_join(random_rows(rows, 16, 0), random_rows(columns, 16, 1), 3)

    assert joined.neighbours.forward_rows.shape == (rows, 3) and (joined.neighbours.forward_rows == -1).all()
    assert joined.neighbours.backward_rows.shape == (columns, 3) and (joined.neighbours.backward_rows == -1).all()
    assert joined.recall == 1 and joined.products == 0


def test_fewer_rows_than_cells_make_fewer_cells() -> None:
    source, target = random_rows(3, 16, 0), random_rows(4, 16, 1)

    joined = cell_join(source, target, 2, cells=1000, recall=1.0)

    assert joined.cells == 7
    assert_same(joined.neighbours, both_directions(source, target, 2))


def test_rows_that_are_all_equal_are_found() -> None:
    rows = np.repeat(random_rows(1, 32, 0), 300, axis=0)

    joined = cell_join(rows, rows[:200], 4, cells=10)

    np.testing.assert_array_equal(joined.neighbours.forward_rows, np.tile(np.arange(4), (300, 1)))
    np.testing.assert_array_equal(joined.neighbours.backward_rows, np.tile(np.arange(4), (200, 1)))


def test_float32_rows_stacks_and_memory_maps_are_joined_alike(tmp_path: object) -> None:
    source, target = topical_sides(900, 700, 48, 8)
    np.save(f"{tmp_path}/source.npy", source)
    mapped = np.load(f"{tmp_path}/source.npy", mmap_mode="r")
    stacked = Stack([target[:300], target[300:301], target[301:]])
    reference = cell_join(source, target, 6, cells=8)

    assert_same(reference.neighbours, cell_join(mapped, stacked, 6, cells=8).neighbours)
    wide = cell_join(source.astype(np.float32), target.astype(np.float32), 6, cells=8)
    np.testing.assert_array_equal(wide.neighbours.forward_rows, reference.neighbours.forward_rows)


def test_what_it_did_is_told() -> None:
    source, target = topical_sides(2000, 1500, 64, 9)
    told: list[tuple[int, int]] = []

    joined = cell_join(source, target, 8, cells=20, progress=lambda done, total, /: told.append((done, total)))

    assert joined.neighbours.engine == "ivf" and joined.cells == 20
    assert f"recall {joined.estimate.forward:.3f} forward" in joined.neighbours.reason
    assert f"{100 * joined.products / (2000 * 1500):.1f} % of the products" in joined.neighbours.reason
    assert told[-1] == (2 * 2000 * 1500, 2 * 2000 * 1500)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_probes_that_are_asked_for_are_made() -> None:
    source, target = topical_sides(3000, 3000, 64, 10)

    joined = cell_join(source, target, 8, cells=30, probes=5)

    assert abs(joined.source_probes - 5) < 0.1 and abs(joined.target_probes - 5) < 0.1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"recall": 0.0}, "recall of 0.0 .*more than 0 and at most 1"),
        ({"recall": 1.2}, "recall of 1.2 .*exact engine"),
        ({"recall": float("nan")}, "recall of nan"),
        ({"cells": 0}, "cells is 0"),
        ({"probes": 0}, "probes is 0"),
        ({"probes": -3}, "probes is -3"),
        ({"k": 0}, "k is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"memory_gb": 1e-3}, "given 0.001 GB .*at least .* GB for the codes and lists of 100 rows"),
    ],
)
def test_a_request_that_cannot_work_is_refused(asked: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        cell_join(random_rows(50, 8, 0), random_rows(50, 8, 1), **asked)


def test_the_memory_named_as_least_is_enough() -> None:
    sides = random_rows(50, 8, 0), random_rows(50, 8, 1)
    with pytest.raises(SettingsError) as refused:
        cell_join(*sides, memory_gb=1e-3, threads=1)
    least = float(refused.value.expected.split("at least ")[1].split(" GB")[0])

    joined = cell_join(*sides, 4, memory_gb=least * 1.01, threads=1)

    assert_sound(joined.neighbours, *sides)


def test_bad_rows_are_named() -> None:
    target = random_rows(9, 16, 0)
    target[3] = np.nan
    with pytest.raises(EmbeddingError, match="The target matrix has 1 of 9 rows that hold NaN or infinity: rows 3"):
        cell_join(random_rows(4, 16, 1), target)


def test_a_processor_without_int8_products_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "int8_works", lambda: False)
    with pytest.raises(SettingsError, match=r"does not multiply int8 .*fp32"):
        cell_join(random_rows(4, 16, 0), random_rows(4, 16, 1))


@settings(max_examples=60, deadline=None)
@given(
    order=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 30),
    columns=st.integers(1, 90),
    kept=st.integers(1, 12),
    levels=st.integers(1, 40),
)
def test_lists_keep_the_best_pairs_once_in_whatever_order_they_come(
    order: int, rows: int, columns: int, kept: int, levels: int
) -> None:
    """Blocks in any order, some twice, with many equal values: the lists hold the largest keys."""
    rng = np.random.default_rng(order)
    products = rng.integers(-levels, levels, (rows, columns)).astype(np.int32)
    room = Room(kept, kept + 5)
    lists = TopLists.empty(rows, room), TopLists.empty(columns, room)
    numbers = rng.permutation(1000)[:rows], rng.permutation(1000)[:columns]
    sides = [
        (np.full(count, 0.5, np.float32), number.astype(np.int64), own.keys, own.counts, own.floors)
        for count, number, own in zip((rows, columns), numbers, lists, strict=True)
    ]
    for _ in range(3):  # every pair is met three times
        for which in np.array_split(rng.permutation(rows).astype(np.int32), 3):
            cut = int(rng.integers(0, columns + 1))
            for first, stop in ((cut, columns), (0, cut)):
                block = np.ascontiguousarray(products[which, first:stop])
                join_kernels.fold_gathered(block, which, sides[0], first, sides[1], kept)
    for own in lists:
        join_kernels.cut_all(own.keys, own.counts, kept)

    for place in range(rows):
        expected = sorted(key_of(np.float32(0.25) * products[place, j], numbers[1][j]) for j in range(columns))[-kept:]
        assert sorted(lists[0].keys[place, : lists[0].counts[place]]) == expected
    for place in range(columns):
        expected = sorted(key_of(np.float32(0.25) * products[i, place], numbers[0][i]) for i in range(rows))[-kept:]
        assert sorted(lists[1].keys[place, : lists[1].counts[place]]) == expected


def test_an_equal_value_of_a_lower_row_takes_the_place_of_a_higher_one() -> None:
    """Also where nothing else in a group of products is good enough."""
    lists = TopLists.empty(1, Room(1, 2)), TopLists.closed(64)
    numbers = np.arange(64, dtype=np.int64)[::-1].copy()
    rows, columns = (
        (np.ones(len(own), np.float32), number, own.keys, own.counts, own.floors)
        for own, number in zip(lists, (numbers[:1], numbers), strict=True)
    )
    for first in (0, 32):
        which = np.zeros(1, np.int32)
        join_kernels.fold_gathered(np.full((1, 32), 5, np.int32), which, rows, first, columns, 1)

    assert row_of(lists[0].keys[0, 0]) == 0


@given(value=st.floats(-1, 1, width=32), row=st.integers(0, 2**31 - 2))
def test_keys_are_those_of_the_exact_lists(value: float, row: int) -> None:
    key = join_kernels._key_of(np.float32(value), row)

    assert key == key_of(np.float32(value), row)
    assert value_of(key) == value == join_kernels._value_of(key) and row_of(key) == row


def test_the_chosen_reaches_are_the_cheapest_that_meet_the_sample() -> None:
    rng = np.random.default_rng(0)
    forward, backward = (
        join_probes.Gaps(*(rng.exponential(0.1, (80, 6)).astype(np.float32) for _ in range(2))) for _ in range(2)
    )
    gaps = np.sort(rng.exponential(0.2, 3000).astype(np.float32))
    costs = tuple(join_probes.Cost(gaps, np.arange(3001) * dear, 80) for dear in (1.0, 2.5))

    reach = join_probes._cheapest(forward, backward, costs, 0.9)

    def met(source: float, target: float) -> bool:
        return all(((each.source <= source) | (each.target <= target)).mean() >= 0.9 for each in (forward, backward))

    assert met(reach.source, reach.target)
    paid = costs[0].share(reach.source) + costs[1].share(reach.target)
    tried = np.linspace(0, 0.6, 60)
    cheapest = min(costs[0].share(a) + costs[1].share(b) for a in tried for b in tried if met(a, b))
    assert paid <= 1.02 * cheapest


def test_centroids_are_unit_directions_and_gather_what_is_alike() -> None:
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 12, 1500)
    topics = 3 * rng.standard_normal((12, 64))
    engine = Int8(64)
    with crew(2) as hired:
        work = join_cells.Workforce(engine, hired)
        rows = normalise(topics[topic] + rng.standard_normal((1500, 64)) + 9).astype(np.float16)
        side = join_cells.prepare(rows, work)
        mean = join_cells.mean_of(side, 0)
        centroids = join_cells.train_centroids([side], [mean], 36, 0, work)
        homes = join_cells.find_homes(side, centroids, centroids.shifts(mean), work)

    lengths = np.linalg.norm(centroids.codes * centroids.units[:, None], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=0.02)
    shared = np.zeros((36, 12), int)
    np.add.at(shared, (homes.cells, topic), 1)
    assert shared.max(axis=1).sum() > 0.9 * len(rows)


def test_cells_follow_the_size() -> None:
    assert join_cells.choose_cells(0, 0) == join_cells.choose_cells(150, 20) == 1
    assert join_cells.choose_cells(200_000, 10) == 1000
    assert join_cells.choose_cells(10**9, 10**9) == join_cells.MOST_CELLS


def test_the_door_takes_the_engine_by_name() -> None:
    source, target = topical_sides(700, 900, 48, 11)

    found = both_directions(source, target, 6, engine="ivf")

    assert_same(found, cell_join(source, target, 6).neighbours)
    assert found.engine == "ivf"


def test_the_lower_recall_counts() -> None:
    empty = Neighbours(*(np.empty((0, 1), kind) for kind in (np.int64, np.float32) * 2))
    judged = join_probes.Estimate(0.99, 0.97, 0.0, 0.0, 1)

    assert Joined(empty, judged, 1, 1.0, 1.0, 0).recall == 0.97
