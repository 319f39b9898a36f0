"""How figures are shown: nothing that a browser would round, nothing that it cannot show."""

from __future__ import annotations

import dagster as dg
import polars as pl

from resources.metadata import column_schema, hours, rejected, rows
from speech_mining.records import PAIRS, REJECTIONS


def _records(value: dg.TableMetadataValue) -> list[dict[str, object]]:
    return [dict(record.data) for record in value.records]


def test_an_id_of_63_bits_is_shown_as_text_and_a_float_rounded() -> None:
    shown = rows(pl.DataFrame({"segment_id": [3148037547097188437], "score": [1.23456789], "n": [5], "gone": [None]}))
    assert _records(shown) == [{"segment_id": "3148037547097188437", "score": 1.2346, "n": 5, "gone": None}]


def test_only_the_first_rows_are_shown() -> None:
    assert len(_records(rows(pl.DataFrame({"n": range(100)}), limit=7))) == 7


def test_every_column_of_pairs_is_described() -> None:
    assert all(column.description for column in column_schema(PAIRS).columns)


def test_rejections_are_counted_by_reason() -> None:
    row = {"audiobook": "1", "section": 1, "start_sample": None, "end_sample": None, "detail": ""}
    frame = pl.DataFrame([row | {"reason": reason} for reason in ("b", "a", "b")], schema=dict(REJECTIONS))
    told = rejected(frame)
    assert told["rejected"] == 3
    assert told["rejected_by_reason"].data == {"a": 1, "b": 2}
    assert rejected(frame.clear()) == {"rejected": 0}


def test_hours_are_samples_at_16_khz() -> None:
    assert hours(16_000 * 3600 * 2) == 2.0
