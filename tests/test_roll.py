"""The roll of a language, and neighbours and pairs as tables of segments."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError, LakeError
from speech_mining.knn.exact import both_directions
from speech_mining.knn.roll import Block, call_the_roll, read_roll
from speech_mining.lake import Lake
from speech_mining.mining.strategies import mine
from speech_mining.mining.tables import neighbours_of, neighbours_tables, pairs_table
from speech_mining.records import SEGMENTS, segment_id


def _segments(book: str, count: int, per_section: int = 2) -> pl.DataFrame:
    rows = [
        {
            "segment_id": segment_id(book, 1 + i // per_section, 16_000 * i, 16_000 * (i + 4)),
            "audiobook": book,
            "section": 1 + i // per_section,
            "start_sample": 16_000 * i,
            "end_sample": 16_000 * (i + 4),
            "start_ms": 1000 * i,
            "end_ms": 1000 * (i + 4),
            "first_run": i,
            "last_run": i,
            "level_dbfs": -20.0,
            "coverage": 1.0,
        }
        for i in range(count)
    ]
    return pl.DataFrame(rows, schema=dict(SEGMENTS))


def _vectors(count: int, seed: int = 0, dimension: int = 16) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, dimension))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def _block(book: str, count: int, encoder: str = "e 1") -> Block:
    return Block(book, f"version-{book}", _segments(book, count), _vectors(count, int(book)), encoder)


def test_blocks_stand_in_numeric_order_whatever_order_they_come_in() -> None:
    roll = call_the_roll([_block("100", 2), _block("9", 3), _block("20", 1)])
    assert roll.blocks["audiobook"].to_list() == ["9", "20", "100"]
    assert roll.blocks["first_row"].to_list() == [0, 3, 4]
    assert roll.vectors.shape == (6, 16)
    assert roll.recordings.tolist() == [0, 0, 1, 2, 3, 3]
    assert np.array_equal(roll.vectors[4:], _vectors(2, 100))


def test_a_language_without_audiobooks_has_an_empty_roll() -> None:
    roll = call_the_roll([], dimension=8)
    assert roll.vectors.shape == (0, 8)
    assert roll.ids.tolist() == roll.recordings.tolist() == []


def test_vectors_of_two_encoders_are_not_put_together() -> None:
    with pytest.raises(EmbeddingError, match=r"2 encoders: e 1, e 2.*embed"):
        call_the_roll([_block("1", 1), _block("2", 1, encoder="e 2")])


def test_a_block_whose_vectors_and_segments_differ_in_number_is_named() -> None:
    with pytest.raises(EmbeddingError, match="audiobook 7 has 3 items and 2 vectors"):
        call_the_roll([Block("7", "v", _segments("7", 3), _vectors(2), "e 1")])


def _publish(lake: Lake, book: str, count: int, seed: int) -> None:
    with lake.replace("speech_embeddings", "deu", book) as new:
        new.write_table("segments.parquet", _segments(book, count), SEGMENTS)
        new.write_array("vectors.npy", _vectors(count, seed))
        new.write_json("encoder.json", {"name": "e", "version": "1"})


def test_an_index_is_read_with_the_blocks_it_names_and_refused_when_one_is_another(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from speech_mining.knn.roll import ROLL, ROWS, read_blocks

    lake = Lake(tmp_path)
    _publish(lake, "1", 3, seed=1)
    roll = call_the_roll(read_blocks(lake, "deu"))
    table = roll.items.with_row_index("row").with_columns(recurring=pl.lit(False))
    with lake.replace("speech_index", "deu") as new:
        new.write_table("roll.parquet", roll.blocks, ROLL)
        new.write_table("rows.parquet", table, ROWS)
    assert read_roll(lake, "deu")[0].ids.tolist() == roll.ids.tolist()
    _publish(lake, "2", 4, seed=3)  # embedded since: it takes no part before the next index
    assert read_roll(lake, "deu")[0].ids.tolist() == roll.ids.tolist()
    _publish(lake, "1", 3, seed=2)
    with pytest.raises(LakeError, match=r"differ in 1 blocks, the first is 1.*materialize deu/speech_index"):
        read_roll(lake, "deu")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 6), st.integers(0, 99))
def test_neighbours_come_back_from_tables_as_they_went_in(n: int, m: int, k: int, seed: int) -> None:
    source, target = _vectors(n, seed), _vectors(m, seed + 1)
    found = both_directions(source, target, k=k)
    ids = [np.random.default_rng(seed + side).permutation(1000)[:size] for side, size in enumerate((n, m))]
    back = neighbours_of(*neighbours_tables(found, *ids))
    kept = back.forward_rows.shape[1]
    for name in ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines"):
        assert np.array_equal(getattr(back, name), getattr(found, name)[:, :kept]), name
    assert (found.forward_rows[:, kept:] == -1).all()


def test_a_neighbour_that_the_other_table_does_not_have_is_refused() -> None:
    found = both_directions(_vectors(3), _vectors(4, 1), k=2)
    forward, backward = neighbours_tables(found, np.arange(3), np.arange(4))
    with pytest.raises(LakeError, match="neighbours name segments that the other side does not have"):
        neighbours_of(forward, backward.head(2))


def test_pairs_carry_the_spans_of_both_sides() -> None:
    source, target = _segments("1", 4), _segments("2", 5)
    vectors = _vectors(5, 3)
    found = both_directions(vectors[:4], vectors, k=3)
    mined = mine(found, threshold=1.0)
    table = pairs_table(mined, source, target)
    assert table.height == len(mined.score) > 0
    for row, i, j in zip(table.iter_rows(named=True), mined.source, mined.target, strict=True):
        assert row["source_segment"] == source["segment_id"][int(i)]
        assert row["target_start_sample"] == target["start_sample"][int(j)]
        assert row["source_audiobook"] == "1"
        assert row["target_audiobook"] == "2"
