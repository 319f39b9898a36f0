"""The cuda engine against the fp32 engine and brute force: on a CPU everywhere, on a GPU where there is one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import SettingsError
from speech_mining.knn import exact, hardware, kernels, plan
from speech_mining.knn.engines import cuda, device_lists, lanes
from speech_mining.knn.engines.cuda import Cuda, Division, Load, divide
from speech_mining.knn.engines.device_lists import DeviceLists, keys_of, values_of
from speech_mining.knn.engines.protocol import Sweep, Tally
from speech_mining.knn.exact import both_directions
from speech_mining.knn.neighbours import Neighbours
from speech_mining.knn.products import Tiling, crew
from speech_mining.knn.toplists import CLOSED, Room, TopLists
from speech_mining.knn.vectors import Stack, normalise
from tests.test_knn import assert_exact, assert_same, random_rows

GPU = torch.cuda.is_available()
ON = ("cpu", pytest.param("cuda", marks=(pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no NVIDIA GPU here"))))
HERE = "cuda" if GPU else "cpu"
"""For properties: hypothesis draws many cases, and one device is enough for each."""

Matrix = npt.NDArray


@contextmanager
def engine_in_force(engine: Cuda, shard: int | None = None) -> Iterator[None]:
    """Whatever is searched is searched by this engine, in shards of so many source rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "choose_engine", lambda *_: ("cuda", "the test asked for it"))
        patch.setattr(exact, "make_engine", lambda *_: engine)
        if shard is not None:
            patch.setattr(
                exact, "plan", lambda memory_gb, sizes: plan.Plan(Room(sizes.k + 3, sizes.k + 7), TILE, shard)
            )
        yield


TILE = Tiling(64, 64)


def found_by(engine: Cuda, source: Matrix, target: Matrix, k: int, shard: int | None = None) -> Neighbours:
    with engine_in_force(engine, shard):
        return both_directions(source, target, k, threads=1)


def swept(engine: Cuda, source: Matrix, target: Matrix, forward: TopLists, backward: TopLists) -> tuple:
    with crew(1) as hired:
        tally = Tally(len(source) * len(target), lambda done, total, /: None)
        return engine.sweep(Sweep(source, target, forward, backward, hired, TILE, tally))


def held(lists: TopLists, row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The candidates in a list, and their values."""
    keys = lists.keys[row, : lists.counts[row]]
    return 0x7FFFFFFF - (keys & 0x7FFFFFFF), np.array([kernels.value_of(key) for key in keys], np.float32)


def assert_lists_hold(lists: TopLists, errors: npt.NDArray, cosines: npt.NDArray) -> None:
    """Nothing above a floor is missing, nothing stands twice, values are right, floors are no higher than needed."""
    for row, (floor, error, exactly) in enumerate(zip(lists.floors, errors, cosines, strict=True)):
        rows, values = held(lists, row)
        missing = np.setdiff1d(np.arange(len(exactly)), rows)
        assert len(set(rows)) == len(rows) <= lists.kept < lists.keys.shape[1]
        assert exactly[missing].max(initial=-np.inf) <= floor + error
        assert np.abs(values - exactly[rows]).max(initial=0) <= error
        if len(exactly) > lists.kept:
            assert floor <= np.sort(exactly)[-lists.kept] + error


divisions = st.builds(
    lambda rows, columns, part: Division(Tiling(rows, columns), part),
    st.integers(20, 250),
    st.integers(20, 250),
    st.integers(15, 400),
)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 300),
    m=st.integers(0, 300),
    d=st.integers(1, 70),
    k=st.integers(1, 20),
    division=divisions,
    copies=st.integers(0, 80),
    rising=st.booleans(),
    shard=st.none() | st.integers(30, 200),
    kind=st.sampled_from([torch.float16, torch.float32]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_division_gives_the_bytes_of_brute_force(
    n: int, m: int, d: int, k: int, division: Division, copies: int, rising: bool, shard: int | None, kind, seed: int
) -> None:
    source, target = random_rows(n, d, seed), random_rows(m, d, seed + 1)
    if n and m:  # equal vectors, on one side and across
        target[:copies] = source[0]
        source[: copies // 2] = source[0]
    if rising and n:  # every tile is better than all before it
        target = target[np.argsort(target.astype(np.float32) @ source[0].astype(np.float32))]

    found = found_by(Cuda(d, HERE, division, kind), source, target, k, shard)

    assert_exact(found, source, target, k)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 200),
    m=st.integers(1, 200),
    types=st.sampled_from([(np.float32, np.float32), (np.float16, np.float32), (np.float32, np.float16)]),
    division=divisions,
    shard=st.none() | st.integers(30, 150),
    seed=st.integers(0, 2**32 - 1),
)
def test_float32_rows_give_the_bytes_of_the_fp32_engine(
    n: int, m: int, types: tuple, division: Division, shard: int | None, seed: int
) -> None:
    source, target = random_rows(n, 40, seed, types[0]), random_rows(m, 40, seed + 1, types[1])

    assert_same(
        found_by(Cuda(40, HERE, division), source, target, 5, shard), both_directions(source, target, 5, engine="fp32")
    )


@pytest.mark.parametrize("device", ON)
def test_a_large_set_is_searched_as_by_fp32(device: str) -> None:
    source, target = random_rows(3000, 256, 1), random_rows(5000, 256, 2)
    target[:1500] = normalise(source[:1500] + 0.7 * target[:1500]).astype(np.float16)

    assert_same(found_by(Cuda(256, device), source, target, 16), both_directions(source, target, 16, engine="fp32"))


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize("size", [64, 4000])
def test_more_equal_vectors_than_a_list_holds_are_searched_again(
    device: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_lists, "GROUPS_AT_ONCE", 50)
    monkeypatch.setattr(device_lists, "LISTS_AT_ONCE", 7)
    source, target = random_rows(40, 32, 1), random_rows(600, 32, 2)
    target[300:500] = source[0]  # two hundred ties for the first place
    source[10:30] = source[0]

    found = found_by(Cuda(32, device, Division(Tiling(size, size), 4000)), source, target, 16)

    np.testing.assert_array_equal(found.forward_rows[0], np.arange(300, 316))
    assert_exact(found, source, target, 16)


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_vectors_in_one_narrow_cone_keep_their_order(device: str, kind: torch.dtype) -> None:
    """Cosines between 0.9995 and 1 are one or two steps of float16 apart: all rests on the certificates."""
    axis = random_rows(1, 48, 5, np.float32)
    source = normalise(axis + 0.003 * random_rows(300, 48, 6, np.float32)).astype(np.float16)
    target = normalise(axis + 0.003 * random_rows(400, 48, 7, np.float32)).astype(np.float16)

    assert_exact(found_by(Cuda(48, device, products=kind), source, target, 16), source, target, 16)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 250),
    m=st.integers(1, 250),
    kept=st.integers(1, 30),
    room=st.integers(1, 120),
    division=divisions,
    copies=st.integers(0, 60),
    dtype=st.sampled_from([np.float16, np.float32]),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_is_in_no_list_is_below_its_floor(
    n: int, m: int, kept: int, room: int, division: Division, copies: int, dtype: type, seed: int
) -> None:
    source, target = random_rows(n, 24, seed, dtype), random_rows(m, 24, seed + 1, dtype)
    target[:copies] = source[0]
    forward, backward = (TopLists.empty(count, Room(kept, kept + room)) for count in (n, m))

    errors = swept(Cuda(24, HERE, division), source, target, forward, backward)

    cosines = source.astype(np.float64) @ target.astype(np.float64).T
    assert_lists_hold(forward, errors[0], cosines)
    assert_lists_hold(backward, errors[1], cosines.T)


@pytest.mark.parametrize("device", ON)
def test_lists_go_on_from_what_they_hold(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the source comes in shards, and when both sides are parts of something larger."""
    monkeypatch.setattr(device_lists, "LISTS_AT_ONCE", 11)
    source, target = random_rows(190, 24, 1), random_rows(210, 24, 2)
    room, engine = Room(9, 14), Cuda(24, device, Division(Tiling(50, 40), 70))
    forward, backward, errors = TopLists.empty(190, room), TopLists.empty(210, room), 0.0

    with crew(1) as hired:
        for rows in (slice(0, 100), slice(100, 190)):
            for columns in (slice(0, 33), slice(33, 210)):
                parts = [
                    TopLists(*lists.part(own), lists.kept) for lists, own in ((forward, rows), (backward, columns))
                ]
                tally = Tally(1, lambda done, total, /: None)
                work = Sweep(source[rows], target[columns], *parts, hired, TILE, tally, rows.start, columns.start)
                errors = max(errors, *(float(side.max()) for side in engine.sweep(work)))

    cosines = source.astype(np.float64) @ target.astype(np.float64).T
    assert_lists_hold(forward, np.full(190, errors), cosines)
    assert_lists_hold(backward, np.full(210, errors), cosines.T)


@pytest.mark.parametrize("device", ON)
def test_a_direction_that_nobody_wants_is_left_alone(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = random_rows(70, 16, 1), random_rows(90, 16, 2)
    loaded: list[TopLists] = []
    load = DeviceLists.load
    monkeypatch.setattr(
        DeviceLists, "load", lambda lists, rows, device: (loaded.append(lists), load(lists, rows, device))[1]
    )
    forward, backward = TopLists.empty(70, Room(5, 9)), TopLists.closed(90)
    backward.keys[:] = 7

    errors = swept(Cuda(16, device), source, target, forward, backward)

    assert_lists_hold(forward, errors[0], source.astype(np.float64) @ target.astype(np.float64).T)
    assert loaded and all(lists is forward for lists in loaded)
    assert not backward.counts.any() and (backward.keys == 7).all() and (backward.floors == CLOSED).all()


@pytest.mark.parametrize("device", ON)
def test_single_lists_may_be_closed_or_start_high(device: str) -> None:
    source, target = random_rows(60, 16, 1), random_rows(400, 16, 2)
    floors = np.full(60, -np.inf, np.float32)
    floors[:20], floors[20:40] = CLOSED, 0.4
    forward, backward = TopLists.above(floors, Room(200, 210)), TopLists.closed(400)

    swept(Cuda(16, device), source, target, forward, backward)

    rough = source.astype(np.float64) @ target.astype(np.float64).T
    assert not forward.counts[:20].any() and (forward.floors[:20] == CLOSED).all()
    np.testing.assert_allclose(forward.counts[20:40], (rough[20:40] > 0.4).sum(1), atol=1)
    assert (forward.floors[20:40] == np.float32(0.4)).all() and (forward.counts[40:] == 200).all()


@pytest.mark.parametrize("device", ON)
def test_places_that_no_candidate_took_are_not_read(device: str) -> None:
    """Lists of uneven length, in memory that holds whatever it held; one was filled beyond what is kept."""
    source, target = random_rows(60, 16, 1), random_rows(60, 16, 2)
    cosines = source.astype(np.float64) @ target.astype(np.float64).T
    floors = np.linspace(-1, 0.6, 60, dtype=np.float32)
    forward = TopLists.above(floors.copy(), Room(12, 20))
    forward.keys[:] = 2**62
    kernels.put_all(cosines[:1, :18].astype(np.float32), np.arange(18)[None], forward.part(slice(0, 1)), 12)
    cosines[1:, :18] = -np.inf

    with crew(1) as hired:
        tally = Tally(1, lambda done, total, /: None)
        work = Sweep(source, target[18:], forward, TopLists.closed(42), hired, TILE, tally, target_offset=18)
        error = float(Cuda(16, device).sweep(work)[0].max())

    for row, floor in enumerate(floors):
        rows, values = held(forward, row)
        assert rows.max(initial=0) < 60 and np.abs(values - cosines[row, rows]).max(initial=0) <= error
        assert abs(len(rows) - min(12, (cosines[row] > floor).sum())) <= 1


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (0, 0)])
def test_an_empty_side_gives_missing_neighbours(device: str, n: int, m: int) -> None:
    source, target = np.empty((n, 8), np.float16), np.empty((m, 8), np.float16)
    source[:], target[:] = random_rows(1, 8, 0), random_rows(1, 8, 1)

    found = found_by(Cuda(8, device), source, target, 3)

    assert found.forward_rows.shape == (n, 3) and (found.forward_rows == -1).all()
    assert found.backward_rows.shape == (m, 3) and (found.backward_rows == -1).all()


def rows_rounded_the_same_way(count: int) -> npt.NDArray[np.float32]:
    """All values lie just below the middle between two float16 numbers, so that every rest points along its row."""
    value = np.float32((1 + 0.99 * 2.0**-11) / 32)
    return np.full((count, 1024), value, np.float32)


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_the_error_bound_holds_where_rounding_adds_up(device: str, kind: torch.dtype) -> None:
    rows = rows_rounded_the_same_way(3)
    lists = [TopLists.empty(3, Room(4, 8)) for _ in range(2)]

    errors = swept(Cuda(1024, device, products=kind), rows, rows, *lists)

    exactly = rows.astype(np.float64) @ rows.astype(np.float64).T
    for own, bounds in zip(lists, errors, strict=True):
        off = np.array([np.abs(held(own, row)[1] - exactly[row, held(own, row)[0]]).max() for row in range(3)])
        assert (off > 9e-4).all() and (off <= bounds).all() and (bounds < 3e-3).all()


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_the_error_bound_holds_for_random_rows(device: str, kind: torch.dtype) -> None:
    rows = random_rows(400, 1024, 3)
    lists = [TopLists.empty(400, Room(400, 401)) for _ in range(2)]

    errors, _ = swept(Cuda(1024, device, products=kind), rows, rows, *lists)

    exactly = rows.astype(np.float64) @ rows.astype(np.float64).T
    off = max(np.abs(held(lists[0], row)[1] - exactly[row, held(lists[0], row)[0]]).max() for row in range(400))
    assert 0 < off <= errors.min() and errors.max() < (8e-4 if kind == torch.float16 else 3e-4)


@pytest.mark.parametrize("device", ON)
def test_each_row_has_a_bound_of_its_own(device: str) -> None:
    """Rows that float16 holds exactly are trusted further than rows that it rounds, in every stripe and part."""
    source, target = (random_rows(count, 64, count, np.float32) for count in (90, 130))
    source[::2], target[::3] = source[::2].astype(np.float16), target[::3].astype(np.float16)
    engine = Cuda(64, device, Division(Tiling(20, 25), 40))

    errors = swept(engine, source, target, *(TopLists.empty(count, Room(5, 9)) for count in (90, 130)))

    rests = [np.linalg.norm(side - side.astype(np.float16).astype(np.float32), axis=1) for side in (source, target)]
    np.testing.assert_allclose(errors[0], engine.errors(rests[0], float(rests[1].max())), rtol=1e-5)
    np.testing.assert_allclose(errors[1], engine.errors(rests[1], float(rests[0].max())), rtol=1e-5)
    assert errors[0][1::2].min() > errors[0][::2].max()


def test_the_usual_error_is_a_little_more_than_that_of_float16_rows() -> None:
    engine = Cuda(1024, "cpu")
    bound = float(engine.errors(np.zeros(1, np.float32), 0.0)[0])

    assert bound < engine.usual_error() < 1.02 * bound


@pytest.mark.parametrize("device", ON)
def test_sums_are_kept_in_float32_during_a_sweep_and_as_they_were_after(device: str) -> None:
    allowed = torch.backends.cuda.matmul
    before = allowed.allow_fp16_reduced_precision_reduction
    seen: list[tuple[int, bool]] = []
    try:
        for wish in (True, False):
            allowed.allow_fp16_reduced_precision_reduction = wish
            with engine_in_force(Cuda(8, device)):
                both_directions(
                    random_rows(9, 8, 0),
                    random_rows(9, 8, 1),
                    2,
                    progress=lambda done, _, /: seen.append((done, allowed.allow_fp16_reduced_precision_reduction)),
                )
            assert allowed.allow_fp16_reduced_precision_reduction is wish
    finally:
        allowed.allow_fp16_reduced_precision_reduction = before
    assert [reduced for done, reduced in seen if done] == [False, False]  # one tile, twice


@pytest.mark.parametrize("device", ON)
def test_progress_rises_tile_by_tile_to_the_number_of_products(device: str) -> None:
    told: list[tuple[int, int]] = []

    with engine_in_force(Cuda(8, device, Division(Tiling(50, 70), 120))):
        both_directions(random_rows(200, 8, 0), random_rows(90, 8, 1), 2, progress=lambda *state: told.append(state))

    assert told[-1] == (200 * 90, 200 * 90) and len(told) >= 10
    assert told == sorted(told)


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize("form", ["array", "fortran", "memory map", "stack"])
def test_rows_reach_the_device_whole_and_in_pieces(
    device: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PIECE_BYTES", 4 * 12 * 7 + 1)
    rows = random_rows(100, 12, 1, np.float32)
    np.save(tmp_path / "rows.npy", rows)
    forms = {
        "array": lambda: rows,
        "fortran": lambda: np.asfortranarray(rows),
        "memory map": lambda: np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "stack": lambda: Stack([rows[:33], rows[33:34], rows[34:]]),
    }
    place = torch.device(device)
    codes, loader = lanes.Codes.empty(100, 16, place), lanes.Loader(lanes.Lane(place), place)

    loaded = loader.load(forms[form](), slice(5, 95), codes)
    loaded.there.wait()

    rounded = rows[5:95].astype(np.float16)
    np.testing.assert_array_equal(codes.values[:90, :12].cpu().numpy(), rounded)
    assert not codes.values[:, 12:].any() and not codes.values[90:].any()
    np.testing.assert_allclose(
        loaded.rests.cpu().numpy(), np.linalg.norm(rows[5:95] - rounded.astype(np.float32), axis=1), rtol=1e-5
    )


@given(
    values=st.lists(st.floats(-1.125, 1.125, width=32, allow_subnormal=False), min_size=1, max_size=20),
    row=st.integers(0, 2**31 - 2),
)
def test_keys_are_those_of_the_compiled_loops(values: list[float], row: int) -> None:
    floats = np.array(values, np.float32)

    keys = keys_of(torch.from_numpy(floats), torch.full((len(floats),), row))

    np.testing.assert_array_equal(keys.numpy(), [kernels.key_of(value, row) for value in floats])
    np.testing.assert_array_equal(values_of(keys).numpy(), floats)


@given(
    free=st.floats(1e8, 2e11),
    source=st.integers(1, 10**8),
    target=st.integers(1, 10**8),
    width=st.integers(1, 4096),
    places=st.integers(66, 300),
    product_bytes=st.sampled_from([2, 4]),
)
def test_a_division_fits_the_card(
    free: float, source: int, target: int, width: int, places: int, product_bytes: int
) -> None:
    load = Load(source, target, width, places, product_bytes)
    try:
        found = divide(free, load)
    except SettingsError as refused:
        needed = float(str(refused).split("at least ")[1].split(" GB")[0])
        assert needed * 1e9 > free
        assert divide(1.1e9 * needed, load).part
        return

    tile, buffers = found.tile, cuda.AHEAD + 1
    products = buffers * tile.rows * tile.columns * product_bytes
    stripes = 2 * tile.columns * 2 * width + 8 * places * tile.columns
    assert products + stripes + found.part * (2 * width + 8 * places) <= cuda.SHARE * free
    assert 1 <= found.part <= source and (found.part >= tile.rows or found.part == source)


def test_a_card_without_free_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_free_bytes", lambda device: 1e8)

    with pytest.raises(SettingsError, match=r"GPU has 0\.1 GB of memory free.*at least .* GB.*\"int8\" or \"fp32\""):
        found_by(Cuda(8, "cpu"), random_rows(9, 8, 0), random_rows(9, 8, 1), 2)


def test_a_full_h200_takes_the_largest_tiles_and_ten_million_source_rows() -> None:
    assert divide(140e9, Load(10_000_000, 10**8, 1024, 105, 2)) == Division(cuda.TILES[0], 10_000_000)


class Clock(dict):
    """How far each lane was known to be; waiting for it by the host proves nothing about lanes."""

    def synchronize(self) -> None:
        pass


class ClockedLane(lanes.Lane):
    """A lane that keeps a vector clock: what it has done, and what it has waited for others to do."""

    active = threading.local()
    used: ClassVar[list[tuple[int, bool, object, Clock]]] = []

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.clock = Clock({self: 0})

    @contextmanager
    def work(self) -> Iterator[None]:
        before, self.active.lane = getattr(self.active, "lane", None), self
        yield
        self.active.lane = before

    def mark(self) -> lanes.Mark:
        return lanes.Mark(Clock(self.clock))  # type: ignore[arg-type]

    def after(self, *marks: lanes.Mark) -> None:
        for mark in marks:
            for lane, time in (mark.event or {}).items():
                self.clock[lane] = max(time, self.clock.get(lane, 0))

    @classmethod
    def touch(cls, memory: torch.Tensor, writes: bool) -> None:
        lane = cls.active.lane
        lane.clock[lane] += 1
        cls.used.append((memory.untyped_storage().data_ptr(), writes, lane, Clock(lane.clock)))


def watched(call: Callable, reads: tuple[int, ...], writes: tuple[int, ...]) -> Callable:
    """A function whose tensors at these places are noted as read or written."""

    def noted(*given: object) -> object:
        for place in reads + writes:
            ClockedLane.touch(given[place], place in writes)
        return call(*given)

    return noted


def test_no_lane_touches_memory_that_another_may_still_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A race shows on a GPU only, and seldom; that every two uses are ordered by marks can be seen anywhere."""
    monkeypatch.setattr(cuda, "Lane", ClockedLane)
    monkeypatch.setattr(ClockedLane, "used", [])
    monkeypatch.setattr(lanes, "_round", watched(lanes._round, (), (1,)))
    monkeypatch.setattr(cuda, "multiply_halves", watched(cuda.multiply_halves, (0, 1), (2,)))
    monkeypatch.setattr(DeviceLists, "start", watched(DeviceLists.start, (1,), ()))
    monkeypatch.setattr(DeviceLists, "fold", watched(DeviceLists.fold, (1, 2), ()))

    found_by(Cuda(8, "cpu", Division(Tiling(20, 30), 50)), random_rows(120, 8, 0), random_rows(150, 8, 1), 3)

    conflicts = [
        (one, other)
        for one, other in itertools.combinations(ClockedLane.used, 2)
        if one[0] == other[0] and (one[1] or other[1]) and one[2] is not other[2]
    ]
    assert len({lane for _, _, lane, _ in ClockedLane.used}) == 3 and len(conflicts) > 100
    for (_, _, lane, then), (_, _, _, now) in conflicts:
        assert now.get(lane, 0) >= then[lane]


def test_an_error_on_the_way_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(*_: object) -> None:
        raise OSError("the disk is gone")

    source, target = random_rows(90, 8, 0), random_rows(90, 8, 1)
    monkeypatch.setattr(lanes, "_round", counted(lanes._round, torn, 3))

    with pytest.raises(OSError, match="the disk is gone"):
        found_by(Cuda(8, "cpu", Division(Tiling(20, 20), 90)), source, target, 2)


def counted(first: Callable, then: Callable, calls: int) -> Callable:
    """The first function so many times, then the other."""
    left = [calls]

    def call(*given: object) -> object:
        left[0] -= 1
        return (first if left[0] >= 0 else then)(*given)

    return call


def test_the_engine_of_that_name_is_made() -> None:
    made = hardware.make_engine("cuda", 8)

    assert made.name == "cuda" and isinstance(made, Cuda) and made.row_bytes() == 0


def test_auto_takes_a_gpu_for_a_search_that_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cuda_device", lambda: "a card")

    assert hardware.choose_engine("auto", 10**5, 10**5, 1024) == ("cuda", "auto took cuda: a card is here")
    assert hardware.choose_engine("auto", 10**3, 10**3, 1024)[0] != "cuda"
    assert hardware.choose_engine("cuda", 10, 10, 8) == ("cuda", "cuda was asked for")
