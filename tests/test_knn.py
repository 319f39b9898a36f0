"""Exact neighbours in both directions, against brute force in float64."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn import hardware, plan, products, settle
from speech_mining.knn.exact import both_directions
from speech_mining.knn.neighbours import Neighbours
from speech_mining.knn.vectors import normalise

ENGINES = ("int8", "fp32", "faiss")


def random_rows(count: int, dimension: int, seed: int, dtype: npt.DTypeLike = np.float16) -> npt.NDArray:
    return normalise(np.random.default_rng(seed).standard_normal((count, dimension))).astype(dtype)


def brute_force(queries: npt.NDArray, base: npt.NDArray, k: int) -> tuple[npt.NDArray, npt.NDArray]:
    """Full sort of the products; float16 ones are exact in float64, so every bit must agree."""
    cosines = (queries.astype(np.float64) @ base.astype(np.float64).T).astype(np.float32)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    missing = max(0, k - len(base))
    rows = np.pad(order, ((0, 0), (0, missing)), constant_values=-1)
    return rows, np.pad(np.take_along_axis(cosines, order, 1), ((0, 0), (0, missing)), constant_values=-np.inf)


def assert_exact(found: Neighbours, source: npt.NDArray, target: npt.NDArray, k: int) -> None:
    rows, cosines = brute_force(source, target, k)
    np.testing.assert_array_equal(found.forward_rows, rows)
    np.testing.assert_array_equal(found.forward_cosines, cosines)
    rows, cosines = brute_force(target, source, k)
    np.testing.assert_array_equal(found.backward_rows, rows)
    np.testing.assert_array_equal(found.backward_cosines, cosines)


def assert_same(one: Neighbours, other: Neighbours) -> None:
    for table in ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines"):
        np.testing.assert_array_equal(getattr(one, table), getattr(other, table), err_msg=table)


@pytest.mark.parametrize("engine", ENGINES)
def test_neighbours_worked_by_hand(engine: str) -> None:
    source = np.array([[1, 0], [0, 1]], np.float16)
    target = np.array([[0, 1], [0.6, 0.8], [1, 0]], np.float32)

    found = both_directions(source, target, 2, engine=engine)

    np.testing.assert_array_equal(found.forward_rows, [[2, 1], [0, 1]])
    np.testing.assert_allclose(found.forward_cosines, [[1, 0.6], [1, 0.8]], rtol=1e-6)
    np.testing.assert_array_equal(found.backward_rows, [[1, 0], [1, 0], [0, 1]])
    np.testing.assert_allclose(found.backward_cosines, [[1, 0], [0.8, 0.6], [1, 0]], rtol=1e-6)
    assert found.engine == engine and "asked for" in found.reason


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 150),
    m=st.integers(0, 150),
    d=st.integers(1, 70),
    k=st.integers(1, 20),
    engine=st.sampled_from(ENGINES),
    copies=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_engine_equals_brute_force_to_the_bit(
    n: int, m: int, d: int, k: int, engine: str, copies: int, seed: int
) -> None:
    source, target = random_rows(n, d, seed), random_rows(m, d, seed + 1)
    if n and m:  # equal vectors, on one side and across
        target[:copies] = source[0]
        source[: copies // 2] = source[0]

    assert_exact(both_directions(source, target, k, engine=engine), source, target, k)


@pytest.mark.parametrize("engine", ENGINES)
def test_more_equal_vectors_than_the_slack_are_searched_again(engine: str) -> None:
    source, target = random_rows(40, 32, 1), random_rows(600, 32, 2)
    target[300:500] = source[0]  # two hundred ties for the first place

    found = both_directions(source, target, 16, engine=engine)

    np.testing.assert_array_equal(found.forward_rows[0], np.arange(300, 316))
    assert_exact(found, source, target, 16)


@pytest.mark.parametrize("engine", ENGINES)
def test_vectors_in_one_narrow_cone_keep_their_order(engine: str) -> None:
    """Anisotropic embeddings: all cosines lie between 0.9995 and 1, a few float32 steps apart."""
    axis = random_rows(1, 48, 5, np.float32)
    source = normalise(axis + 0.003 * random_rows(300, 48, 6, np.float32)).astype(np.float16)
    target = normalise(axis + 0.003 * random_rows(400, 48, 7, np.float32)).astype(np.float16)

    assert_exact(both_directions(source, target, 16, engine=engine), source, target, 16)


@pytest.mark.parametrize("values", [1, 2, 3, 30])
def test_rows_of_few_large_values_are_searched_exactly(values: int) -> None:
    """Worst for codes of eight bits: a rotation of single values has few distinct results."""
    rng = np.random.default_rng(values)
    sides = []
    for count in (700, 900):
        rows = np.zeros((count, 256), np.float32)
        for row in rows:
            row[rng.choice(256, values, replace=False)] = rng.choice([-1.0, 1.0, 0.5], values)
        sides.append(normalise(rows).astype(np.float16))

    assert_exact(both_directions(*sides, 4, engine="int8"), *sides, 4)


@pytest.mark.parametrize("engine", ["int8", "fp32"])
def test_values_of_uneven_size_are_searched_exactly(engine: str) -> None:
    """Some dimensions a thousand times larger than others, as in real embedding spaces."""
    scales = np.geomspace(1, 1000, 192)
    source, target = (
        normalise(np.random.default_rng(seed).standard_normal((count, 192)) * scales).astype(np.float16)
        for seed, count in ((0, 2500), (1, 2100))
    )

    assert_exact(both_directions(source, target, 16, engine=engine), source, target, 16)


def test_threads_and_blocks_do_not_change_a_byte() -> None:
    source, target = random_rows(900, 24, 8), random_rows(700, 24, 9)
    source[100:200] = target[5]

    reference = both_directions(source, target, 5, threads=1)

    for threads, memory_gb in [(2, None), (3, 0.06), (1, 0.02)]:
        assert_same(reference, both_directions(source, target, 5, threads=threads, memory_gb=memory_gb))


def test_float32_rows_agree_between_engines() -> None:
    source, target = random_rows(200, 100, 10, np.float32), random_rows(300, 100, 11, np.float32)

    int8, fp32, faiss = (both_directions(source, target, 7, engine=engine) for engine in ENGINES)

    assert_same(fp32, faiss)
    assert_same(fp32, int8)
    np.testing.assert_array_equal(fp32.forward_rows, brute_force(source, target, 7)[0])


def test_memory_maps_and_strided_rows_are_searched_as_they_are(tmp_path: Path) -> None:
    source, target = random_rows(300, 16, 12), random_rows(200, 16, 13)
    np.save(tmp_path / "source.npy", source)
    mapped = np.load(tmp_path / "source.npy", mmap_mode="r")

    assert_exact(both_directions(mapped, np.asfortranarray(target), 4), source, target, 4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_swapping_the_sides_swaps_the_directions(seed: int) -> None:
    source, target = random_rows(60, 20, seed), random_rows(80, 20, seed + 1)

    there, back = both_directions(source, target, 6), both_directions(target, source, 6)

    np.testing.assert_array_equal(there.forward_rows, back.backward_rows)
    np.testing.assert_array_equal(there.backward_cosines, back.forward_cosines)


def test_a_missing_neighbour_is_minus_one_with_minus_infinity() -> None:
    found = both_directions(random_rows(3, 8, 0), random_rows(2, 8, 1), 4)

    assert (found.forward_rows[:, 2:] == -1).all() and np.isneginf(found.forward_cosines[:, 2:]).all()
    assert (found.backward_rows[:, 3:] == -1).all() and (found.backward_rows[:, :3] >= 0).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_side_gives_missing_neighbours(engine: str) -> None:
    found = both_directions(np.empty((0, 8), np.float16), random_rows(5, 8, 1), 3, engine=engine)

    assert found.forward_rows.shape == (0, 3)
    assert (found.backward_rows == -1).all() and found.backward_rows.shape == (5, 3)


def test_auto_says_what_it_took_and_why() -> None:
    found = both_directions(random_rows(3, 8, 0), random_rows(2, 8, 1), 1)

    assert found.engine == "fp32" and "auto took fp32" in found.reason and "8 values" in found.reason


def test_auto_takes_int8_where_the_processor_has_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = random_rows(30, 256, 0), random_rows(20, 256, 1)
    chosen = {}
    for instructions in ("AMX", ""):
        monkeypatch.setattr(hardware, "int8_is_fast", lambda known=instructions: known)
        chosen[instructions] = both_directions(*sides, 3)

    assert chosen["AMX"].engine == "int8" and "AMX" in chosen["AMX"].reason
    assert chosen[""].engine == "fp32" and "no int8 instructions" in chosen[""].reason
    assert_same(chosen["AMX"], chosen[""])


def test_cuda_is_refused_by_name_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cuda_device", lambda: "")
    with pytest.raises(SettingsError, match="no CUDA device"):
        both_directions(random_rows(3, 8, 0), random_rows(2, 8, 1), 1, engine="cuda")


def test_a_torch_without_int8_products_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert products.int8_works()
    monkeypatch.setattr(products, "multiply_codes", lambda left, right, out: out.numpy())  # whatever memory held
    assert not products.int8_works()


def test_progress_rises_to_the_number_of_products() -> None:
    told: list[tuple[int, int]] = []

    both_directions(
        random_rows(1200, 8, 0), random_rows(900, 8, 1), 2, progress=lambda done, total, /: told.append((done, total))
    )

    assert told[-1] == (1200 * 900, 1200 * 900) and len(told) > 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.__setitem__(3, np.nan), "1 of 9 rows that hold NaN or infinity: rows 3"),
        (lambda rows: rows.__setitem__((slice(2, 9), 0), np.inf), "7 of 9 rows that hold NaN .* rows 2, 3, 4, 5, 6, …"),
        (lambda rows: rows.__setitem__(4, 0), "1 of 9 rows that are zero: rows 4"),
        (lambda rows: rows.__setitem__(5, rows[5] * 2), "1 of 9 rows that are not of unit length .*row 5 has length 2"),
    ],
)
def test_bad_rows_are_named(spoil: object, message: str) -> None:
    target = random_rows(9, 16, 0)
    spoil(target)  # type: ignore[operator]

    with pytest.raises(EmbeddingError, match=f"The target matrix has {message}"):
        both_directions(random_rows(4, 16, 1), target)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones(4, np.float32), "shape \\(4,\\)"),
        (np.eye(4), "float64 .*Expected: two dimensions .*float16 or float32"),
        (np.eye(4, dtype=np.int32), "int32"),
        (np.empty((2, 0), np.float32), "dimension 0"),
    ],
)
def test_what_is_not_a_matrix_of_embeddings_is_refused(matrix: npt.NDArray, message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        both_directions(matrix, random_rows(2, 4, 0))


def test_sides_of_different_dimension_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="source rows have 8 values, the target rows 9"):
        both_directions(random_rows(2, 8, 0), random_rows(2, 9, 0))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"engine": "int9"}, "no engine 'int9'.*auto, int8, fp32, cuda, ivf, faiss"),
        ({"k": 0}, "k is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"memory_gb": -1.0}, "memory_gb is -1"),
        ({"memory_gb": 1e-6}, "at least .* GB for the lists"),
    ],
)
def test_a_request_that_cannot_work_is_refused(asked: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        both_directions(random_rows(50, 8, 0), random_rows(50, 8, 1), **asked)


@given(memory_gb=st.floats(0.08, 4), rows=st.integers(0, 100_000), dimension=st.integers(1, 1024), k=st.integers(1, 40))
def test_a_plan_fits_the_memory_given(memory_gb: float, rows: int, dimension: int, k: int) -> None:
    sizes = plan.Sizes(rows, 20_000, dimension, k, 1, dimension + 8)
    try:
        found = plan.plan(memory_gb, sizes)
    except SettingsError as refused:
        assert "at least" in str(refused)
        return

    results, lists = 12 * k * (rows + 20_000), 8 * found.room.most * (20_000 + found.shard)
    assert results + lists + found.shard * dimension + 4 * found.tiles.rows * found.tiles.columns <= memory_gb * 1e9
    assert k < found.room.kept < found.room.most and 1 <= found.shard <= max(1, rows)


def test_the_error_bound_holds_for_float32_products() -> None:
    rows = random_rows(500, 1024, 3)
    rough = rows.astype(np.float32) @ rows.astype(np.float32).T

    error = np.abs(rough - rows.astype(np.float64) @ rows.astype(np.float64).T).max()

    assert 0 < error < settle.product_error(1024) < 1e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_without_slack_the_second_search_still_finds_all(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """With lists of k alone no row can be certified: everything rests on the second search."""
    monkeypatch.setattr(plan, "ROOMS", ((0, 1),))
    source, target = random_rows(300, 16, 20), random_rows(5000, 16, 21)

    assert_exact(both_directions(source, target, 4, engine=engine), source, target, 4)


def test_tables_that_do_not_belong_together_are_refused() -> None:
    rows, cosines = np.zeros((2, 3), np.int64), np.zeros((2, 3), np.float32)
    with pytest.raises(EmbeddingError, match="Forward lists hold 3 neighbours, backward ones 2"):
        Neighbours(rows, cosines, rows[:, :2], cosines[:, :2])
    with pytest.raises(EmbeddingError, match="name rows from 2 to 2"):
        Neighbours(rows + 2, cosines, rows, cosines)
    with pytest.raises(EmbeddingError, match="forward neighbours are uint32"):
        Neighbours(rows.astype(np.uint32), cosines, rows, cosines)  # type: ignore[arg-type]


@settings(max_examples=40)
@given(scale=st.floats(1e-150, 1e150), seed=st.integers(0, 1000))
def test_scaling_a_vector_changes_nothing(scale: float, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((5, 33))

    np.testing.assert_allclose(normalise(rows * scale), normalise(rows), rtol=0, atol=1e-7)


def test_normalised_rows_have_unit_length_and_the_input_stays() -> None:
    rows = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float16)
    before = rows.copy()

    lengths = np.linalg.norm(normalise(rows).astype(np.float64), axis=1)

    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    np.testing.assert_array_equal(rows, before)


def test_normalising_names_zero_and_nan_rows() -> None:
    rows = np.ones((4, 3))
    rows[2] = 0
    with pytest.raises(EmbeddingError, match="1 of 4 rows that are zero: rows 2"):
        normalise(rows)
    rows[1, 1] = np.nan
    with pytest.raises(EmbeddingError, match="rows that hold NaN or infinity: rows 1"):
        normalise(rows)


def test_importing_the_door_loads_neither_torch_nor_faiss_nor_numba() -> None:
    code = (
        "import sys, speech_mining.knn.index, speech_mining.mining.strategies, speech_mining.cli.mine\n"
        "sys.exit(' '.join({'torch', 'faiss', 'numba'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
