"""Neighbours in the lake, brought up to date: what is computed, what is not, and what a kill costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from speech_mining.knn.exact import both_directions
from speech_mining.knn.incremental import Request
from speech_mining.knn.roll import ROLL, ROWS, call_the_roll, read_blocks, read_roll
from speech_mining.knn.vectors import normalise
from speech_mining.lake import Lake
from speech_mining.mining import renewal
from speech_mining.mining.renewal import Renewed, renew
from speech_mining.records import SEGMENTS, segment_id

PAIR = ("deu", "eng")
DIMENSION = 32


def embed(lake: Lake, language: str, book: int, count: int, take: int = 0, encoder: str = "e") -> None:
    """Write the embeddings of an audiobook; another `take` gives the same segments other vectors."""
    rows = [
        {
            "segment_id": segment_id(str(book), 1, 16_000 * i, 16_000 * (i + 4)),
            "audiobook": str(book),
            "section": 1,
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
    vectors = normalise(np.random.default_rng([book, take]).standard_normal((count, DIMENSION)))
    with lake.replace("speech_embeddings", language, str(book)) as new:
        new.write_table("segments.parquet", pl.DataFrame(rows, schema=dict(SEGMENTS)), SEGMENTS)
        new.write_array("vectors.npy", vectors.astype(np.float16))
        new.write_json("encoder.json", {"name": encoder, "version": "1"})


def index(lake: Lake, language: str, recurring: int = 0) -> None:
    """Write the roll of a language, the first so many rows marked as recurring."""
    roll = call_the_roll(read_blocks(lake, language))
    marked = pl.Series("recurring", np.arange(roll.items.height) < recurring)
    with lake.replace("speech_index", language) as new:
        new.write_table("roll.parquet", roll.blocks, ROLL)
        new.write_table("rows.parquet", roll.items.with_row_index("row").with_columns(marked), ROWS)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    for book, count in ((3, 300), (20, 250)):
        embed(lake, "deu", book, count)
    for book, count in ((7, 280), (11, 310)):
        embed(lake, "eng", book, count)
    index(lake, "deu")
    index(lake, "eng", recurring=4)
    return lake


def renewed(lake: Lake, k: int = 5) -> Renewed:
    """Renew, and compare with a search from nothing."""
    found = renew(lake, PAIR, Request(k), lambda told: None)
    (source, source_recurs), (target, target_recurs) = (read_roll(lake, language) for language in PAIR)
    fresh = both_directions(source.vectors[~source_recurs], target.vectors[~target_recurs], k)
    for table in ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines"):
        np.testing.assert_array_equal(getattr(found.neighbours, table), getattr(fresh, table), err_msg=table)
    np.testing.assert_array_equal(found.source, source.ids[~source_recurs])
    return found


def test_the_first_search_says_why_it_begins_from_nothing(lake: Lake) -> None:
    found = renewed(lake)

    assert "never searched" in found.began and found.left_out == 4
    assert (found.work.products, found.work.saved) == (550 * 586, 0)


def test_nothing_new_costs_nothing_and_writes_nothing(lake: Lake) -> None:
    renewed(lake)
    before = lake.partition("s2s_neighbour_state", "deu-eng").data_version

    again = renewed(lake)

    assert (again.work.products, again.work.saved, again.began) == (0, 550 * 586, "")
    assert lake.partition("s2s_neighbour_state", "deu-eng").data_version == before


def test_a_new_audiobook_costs_its_own_products(lake: Lake) -> None:
    renewed(lake)
    embed(lake, "deu", 5, 12)  # between the two that were there
    index(lake, "deu")

    found = renewed(lake)

    assert found.work.products == 12 * 586 and found.work.rows_new == 12 and found.work.rows_gone == 0


def test_an_audiobook_embedded_again_is_searched_again(lake: Lake) -> None:
    renewed(lake)
    embed(lake, "eng", 7, 280, take=1)
    index(lake, "eng", recurring=4)

    found = renewed(lake)

    assert found.work.rows_new == found.work.rows_gone == 276
    assert 550 * 276 <= found.work.products < 550 * 586 + 550 * 276


def test_a_removed_audiobook_leaves_no_neighbour_behind(lake: Lake) -> None:
    first = renewed(lake)
    gone = set(read_roll(lake, "deu")[0].ids[:300].tolist())
    lake.remove("speech_embeddings", "deu", "3")
    index(lake, "deu")

    found = renewed(lake)

    assert gone & set(first.source.tolist()) and not gone & set(found.source.tolist())
    assert found.work.rows_gone == 300 and found.work.rows_new == 0


def test_speech_that_turns_out_to_recur_leaves_and_comes_back(lake: Lake) -> None:
    renewed(lake)
    index(lake, "deu", recurring=9)
    assert renewed(lake).work.rows_gone == 9
    index(lake, "deu")
    assert renewed(lake).work.rows_new == 9


def test_another_encoder_or_k_begins_from_nothing_and_says_so(lake: Lake) -> None:
    renewed(lake)
    assert renewed(lake, k=6).began == "k 5 became 6"
    for book, count in ((3, 300), (20, 250)):
        embed(lake, "deu", book, count, encoder="better")
    index(lake, "deu")

    found = renewed(lake, k=6)

    assert found.began == "source encoder e 1 became better 1" and found.work.saved == 0


def test_a_search_that_was_stopped_goes_on_where_it_kept_its_state(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(lake, "deu", 8, 2500)
    index(lake, "deu")
    monkeypatch.setattr(renewal, "FIRST_PRODUCTS", 1)  # the least step: 1 024 rows
    monkeypatch.setattr(renewal, "KEPT_EVERY_S", 0.0)

    def stop(told: str) -> None:
        raise KeyboardInterrupt(told)

    with pytest.raises(KeyboardInterrupt, match="1024 of 3050 source rows"):
        renew(lake, PAIR, Request(5), stop)

    found = renewed(lake)
    assert found.began == "" and found.work.rows_new == 3050 - 1024
    assert (3050 - 1024) * 586 <= found.work.products < 3050 * 586


def test_a_state_that_cannot_be_read_is_not_trusted(lake: Lake) -> None:
    renewed(lake)
    lake.partition("s2s_neighbour_state", "deu-eng").local_path("source_rows.npy").write_bytes(b"not an array")

    assert "cannot be read" in renewed(lake).began
    assert renewed(lake).began == ""
