"""How figures are shown in Dagster's UI: typed entries, table schemas, samples, plots.

What belongs here is presentation only; figures come from the library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from speech_mining.quality.hours import hours_of
from speech_mining.records import DESCRIPTIONS, Schema

if TYPE_CHECKING:
    from speech_mining.knn.index_renewal import Renewal

SHOWN_DECIMALS = 4


def column_schema(schema: Schema) -> dg.TableSchema:
    """The columns of a table of the lake, as the UI's Columns tab shows them."""
    described = {name: dg.TableColumn(name, str(dtype), DESCRIPTIONS.get(name)) for name, dtype in schema.items()}
    return dg.TableSchema(columns=list(described.values()))


def rows(frame: pl.DataFrame, *, limit: int = 20) -> dg.TableMetadataValue:
    """The first rows of a table, to look at."""
    shown = frame.head(limit)
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in shown.to_dicts()],
        schema=dg.TableSchema(columns=[dg.TableColumn(name, str(dtype)) for name, dtype in frame.schema.items()]),
    )


def _cell(value: object) -> Any:
    """A value as the UI can show it: ids beyond 2^53 as text, since a browser's numbers would round them."""
    if isinstance(value, float):
        return round(value, SHOWN_DECIMALS)
    if value is None or isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    return str(value)


def counted(reasons: Mapping[str, int]) -> dg.JsonMetadataValue:
    """What was rejected, by reason; an empty object says that nothing was."""
    return dg.MetadataValue.json(dict(sorted(reasons.items())))


def rejected(rejections: pl.DataFrame) -> dict[str, Any]:
    """Entries about a table of `records.REJECTIONS`: how many, why, and examples."""
    if rejections.is_empty():
        return {"rejected": 0}
    reasons = rejections.group_by("reason").len().sort("reason")
    return {
        "rejected": rejections.height,
        "rejected_by_reason": counted(dict(zip(reasons["reason"], reasons["len"], strict=True))),
        "rejected_examples": rows(rejections),
    }


def hours(samples: int) -> float:
    """Hours of audio at 16 kHz, rounded for people."""
    return round(hours_of(samples), SHOWN_DECIMALS)


def plot(markdown_image: str, *notes: str) -> dg.MarkdownMetadataValue:
    """A plot, embedded, with lines of text below it."""
    return dg.MetadataValue.md("\n\n".join([markdown_image, *notes]))


def listed(values: Sequence[str], *, limit: int = 30) -> dg.MarkdownMetadataValue:
    """A list that may be long."""
    shown = [f"- {value}" for value in values[:limit]]
    more = [f"- … and {len(values) - limit} more"] if len(values) > limit else []
    return dg.MetadataValue.md("\n".join(shown + more) or "none")


def index_figures(renewal: Renewal) -> dict[str, Any]:
    """Entries about an index: what it is, how it came to be, what it finds."""
    from speech_mining.knn.index import describe_index

    record = renewal.record
    told = {
        **describe_index(renewal.index),
        "factory": record.factory,
        "built": renewal.built,
        "added": renewal.added,
        "removed": renewal.removed,
        "trained_rows": record.trained_rows,
        "trained_on": record.trained_on,
        "refine_factor": record.refine_factor,
        "recall_at_16": record.recall_at_16,
        "recall_by_kind": record.recall_by_kind,
        "unrefined_recall_at_16": record.unrefined_recall_at_16,
        "recall_queries": record.recall_queries,
    }
    return {f"index_{name}": value for name, value in told.items() if value is not None}
