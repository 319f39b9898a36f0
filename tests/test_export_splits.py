"""Nobody is heard in two splits, and growth moves nothing."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from speech_mining.corpora.splits import BETWEEN, Shares, counted, place, reader_names, with_splits
from speech_mining.errors import SettingsError

SHARES = Shares(dev=0.25, test=0.25)
COLUMNS = ("source_audiobook", "source_readers", "target_audiobook", "target_readers")
rows_of_any_kind = st.lists(
    st.tuples(
        st.integers(0, 15).map("book{}".format),
        st.lists(st.integers(0, 15).map("Reader {}".format), min_size=1, max_size=2).map(", ".join),
        st.integers(16, 31).map("book{}".format),
        st.lists(st.integers(8, 31).map("Reader {}".format), min_size=1, max_size=2).map(", ".join),
    ),
    min_size=1,
    max_size=40,
)


def split(rows: list[tuple[str, ...]], readers: dict[str, list[str]] | None = None) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=list(COLUMNS), orient="row")
    return with_splits(frame, _readers(rows) if readers is None else readers, SHARES)


def _readers(rows: list[tuple[str, ...]]) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for source, heard, target, answered in rows:
        told.setdefault(source, []).append(heard)
        told.setdefault(target, []).append(answered)
    return told


@given(rows_of_any_kind)
def test_no_audiobook_and_no_reader_is_in_two_splits(rows: list[tuple[str, ...]]) -> None:
    places: dict[str, set[str]] = {}
    for row in split(rows).filter(pl.col("split") != BETWEEN).iter_rows(named=True):
        for side in ("source", "target"):
            for name in (row[f"{side}_audiobook"], *reader_names(row[f"{side}_readers"])):
                places.setdefault(name, set()).add(row["split"])
    assert all(len(splits) == 1 for splits in places.values())


@given(rows_of_any_kind, rows_of_any_kind)
def test_growth_moves_no_row(rows: list[tuple[str, ...]], more: list[tuple[str, ...]]) -> None:
    readers = _readers([*rows, *more])
    before, after = split(rows, readers), split([*more, *rows], readers)
    assert after["split"].to_list()[len(more) :] == before["split"].to_list()


@given(st.text(min_size=1), st.floats(0, 0.4), st.floats(0, 0.1))
def test_a_larger_share_only_adds(name: str, share: float, more: float) -> None:
    assume((share + more) * 2 < 1)
    small, large = place(name, Shares(share, share)), place(name, Shares(share + more, share + more))
    assert small in ("train", large)


def test_a_solo_reading_hangs_on_its_reader_alone() -> None:
    held = next(f"Reader {n}" for n in range(100) if place(f"reader/reader {n}", SHARES) == "test")
    books = [f"book{n}" for n in range(30)]
    assert {place(f"audiobook/{book}", SHARES) for book in books} == {"train", "dev", "test"}
    found = split([(book, held, book, held) for book in books])
    assert found["split"].unique().to_list() == ["test"]


def test_a_row_that_would_tie_two_splits_is_between_and_counted() -> None:
    names = {place(f"reader/reader {n}", SHARES): f"Reader {n}" for n in range(100)}
    found = split([("a", names["train"], "b", names["test"]), ("a", names["train"], "c", names["train"])])
    assert found["split"].to_list() == ["between", "train"]
    assert counted(found) == {"train": 1, "dev": 0, "test": 0, "between": 1}


def test_shares_are_kept_over_many_names() -> None:
    found = [place(f"reader/{n}", Shares(0.1, 0.2)) for n in range(20_000)]
    assert abs(found.count("dev") / 20_000 - 0.1) < 0.01
    assert abs(found.count("test") / 20_000 - 0.2) < 0.01


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.6, 0.6), (1.0, 0.0)])
def test_shares_that_cannot_be_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match="cannot be"):
        Shares(*shares)


def test_a_written_side_is_not_asked_for_its_readers() -> None:
    frame = pl.DataFrame({"source_audiobook": ["a"], "source_readers": ["Ann"], "target_text": ["x"]})
    assert with_splits(frame, {"a": ["Ann"]}, Shares(0, 0))["split"].to_list() == ["train"]
