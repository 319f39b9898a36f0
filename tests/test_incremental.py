"""Neighbours as a state: after any history, the bytes of a search from nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError
from speech_mining.knn import incremental
from speech_mining.knn.exact import both_directions
from speech_mining.knn.incremental import Request, Side, State, update
from speech_mining.knn.vectors import normalise

DIMENSION = 24


@dataclass
class Library:
    """One side whose rows come and go: id -> version. A row's vector follows from both."""

    salt: int
    rows: dict[int, int] = field(default_factory=dict)

    def side(self) -> Side:
        ids = np.array(sorted(self.rows), np.int64)
        versions = np.array([self.rows[row] for row in sorted(self.rows)], np.int64)
        return Side(ids, versions, self.vectors(ids, versions))

    def vectors(self, ids: npt.NDArray[np.int64], versions: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        made = np.empty((len(ids), DIMENSION), np.float32)
        for place, (row, version) in enumerate(zip(ids.tolist(), versions.tolist(), strict=True)):
            # a third of the rows are copies of a few: ties, on one side and across
            seed = (row % 5, 0, 0) if row % 3 == 0 else (row, version, self.salt)
            made[place] = np.random.default_rng(seed).standard_normal(DIMENSION)
        return normalise(made).astype(np.float16) if len(made) else made.astype(np.float16)


def assert_from_nothing(state: State | None, source: Side, target: Side, request: Request) -> State:
    updated = update(state, source, target, request)
    fresh = both_directions(source.vectors, target.vectors, request.k, engine="fp32")
    for table in ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines"):
        np.testing.assert_array_equal(getattr(updated.neighbours, table), getattr(fresh, table), err_msg=table)
    assert updated.work.products + updated.work.saved >= len(source.ids) * len(target.ids)
    return updated.state


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["source", "target", "both"]),
        st.sampled_from(["add", "remove", "replace"]),
        st.integers(0, 400),  # where
        st.integers(1, 120),  # how many ids from there
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(
    changes=CHANGES, k=st.integers(1, 9), engine=st.sampled_from(["fp32", "int8", "faiss"]), first=st.integers(0, 300)
)
def test_any_history_of_rows_ends_in_the_bytes_of_a_search_from_nothing(
    changes: list[tuple[str, str, int, int]], k: int, engine: str, first: int
) -> None:
    source, target = Library(1, dict.fromkeys(range(first), 0)), Library(2, dict.fromkeys(range(0, 2 * first, 2), 0))
    request, state = Request(k, engine), None
    state = assert_from_nothing(state, source.side(), target.side(), request)
    for which, what, start, count in changes:
        for library in {"source": [source], "target": [target], "both": [source, target]}[which]:
            _change(library, what, start, count)
        state = assert_from_nothing(state, source.side(), target.side(), request)


def _change(library: Library, what: str, start: int, count: int) -> None:
    for row in range(start, start + count):
        if what == "remove":
            library.rows.pop(row, None)
        elif what == "add":
            library.rows.setdefault(row, 0)
        elif row in library.rows:
            library.rows[row] += 1


def sides(rows: int, columns: int, dimension: int = 64, seed: int = 0) -> tuple[Side, Side]:
    rng = np.random.default_rng(seed)
    return tuple(  # type: ignore[return-value]
        Side(
            np.arange(count, dtype=np.int64) * 10,
            np.zeros(count, np.int64),
            normalise(rng.standard_normal((count, dimension))).astype(np.float16),
        )
        for count in (rows, columns)
    )


def without(side: Side, gone: npt.NDArray[np.int64]) -> Side:
    stay = np.setdiff1d(np.arange(len(side.ids)), gone)
    return Side(side.ids[stay], side.versions[stay], side.vectors[:][stay])


def test_nothing_new_computes_nothing() -> None:
    source, target = sides(900, 700)
    state = update(None, source, target, Request()).state

    again = update(state, source, target, Request())

    assert (again.work.products, again.work.saved) == (0, 900 * 700)
    assert again.work.rows_new == again.work.rows_gone == again.work.rows_again == 0


@pytest.mark.parametrize("engine", ["fp32", "int8"])
def test_a_row_that_comes_is_compared_with_the_other_side_alone(engine: str) -> None:
    source, target = sides(900, 700, 192)
    state = update(None, without(source, np.array([5, 6])), without(target, np.array([0])), Request(8, engine)).state

    updated = update(state, source, target, Request(8, engine))

    assert updated.work.products == 2 * 700 + 1 * 898
    assert updated.work.saved == 900 * 700 - updated.work.products
    assert_from_nothing(state, source, target, Request(8, engine))


def test_rows_that_go_are_made_up_for_by_the_spare_neighbours() -> None:
    source, target = sides(900, 700)
    state = update(None, source, target, Request()).state
    gone = np.arange(0, 700, 100)

    updated = update(state, source, without(target, gone), Request())

    assert updated.work.rows_gone == len(gone) and updated.work.rows_again <= 9
    assert_from_nothing(state, source, without(target, gone), Request())


def test_lists_that_lose_more_than_they_can_spare_are_searched_again() -> None:
    source, target = sides(300, 400)
    state = update(None, source, target, Request()).state
    nearest = update(state, source, target, Request()).neighbours.forward_rows[7]
    best = state.source.rows[7, : state.source.depths[7]]

    updated = update(state, source, without(target, best), Request())

    assert set(nearest.tolist()) <= set(best.tolist()) and updated.work.rows_again >= 1
    assert_from_nothing(state, source, without(target, best), Request())


def test_another_k_begins_again() -> None:
    source, target = sides(200, 300)
    state = update(None, source, target, Request(4)).state

    updated = update(state, source, target, Request(5))

    assert updated.work.products == 200 * 300 and updated.state.k == 5


def test_few_bytes_of_copies_and_little_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = sides(1500, 1300)
    part = without(source, np.arange(0, 1500, 3)), without(target, np.arange(1, 1300, 4))
    monkeypatch.setattr(incremental, "COPIED_BYTES", 0)
    request = Request(memory_gb=0.07, threads=1)

    state = assert_from_nothing(None, *part, request)

    assert_from_nothing(state, source, target, request)


def test_rows_in_another_order_begin_again() -> None:
    source, target = sides(40, 30)
    state = update(None, source, target, Request(4)).state
    turned = Side(source.ids[::-1], source.versions, source.vectors[:][::-1])

    assert update(state, turned, target, Request(4)).work.products == 40 * 30
    assert_from_nothing(state, turned, target, Request(4))


def test_ids_need_not_ascend() -> None:
    source, target = sides(400, 300)
    shuffled = Side(np.random.default_rng(0).permutation(source.ids), source.versions, source.vectors)
    state = update(None, without(shuffled, np.arange(50, 60)), target, Request()).state

    assert_from_nothing(state, shuffled, target, Request())
    assert update(state, shuffled, target, Request()).work.products == 10 * 300


def test_an_id_for_two_rows_is_refused() -> None:
    source, target = sides(20, 30)
    with pytest.raises(EmbeddingError, match="Id 10 names more than one row"):
        update(None, Side(np.minimum(source.ids, 10), source.versions, source.vectors), target, Request())
    with pytest.raises(EmbeddingError, match="19 ids and 20 versions for 20 rows"):
        update(None, Side(source.ids[:-1], source.versions, source.vectors), target, Request())
