"""`speech_index`: the roll of a language's vectors, the FAISS index over it, and the speech that recurs in it.

What belongs here is the layer; the roll and the index are in `speech_mining.knn`, recurring speech in
`speech_mining.mining.recurring`.
"""

import time
from collections.abc import Callable
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from partitions.languages import language_partition, layer
from resources.budgets import memory_of, memory_retries
from resources.compute import GPU, OWNERS, step_tags
from resources.conditions import on_schedule
from resources.gpu_steps import gpu_step
from resources.metadata import column_schema, hours, index_figures, rows
from resources.settings import Settings
from resources.storage import Lake, Storage, published
from speech_mining.knn import index_renewal
from speech_mining.knn.index_renewal import INDEX, Renewal, Wish, renew_index
from speech_mining.knn.roll import ROLL, ROWS, Roll, call_the_roll, read_blocks
from speech_mining.mining.recurring import VERSION, RecurringConfig, RecurringReport, recurring_rows


class IndexConfig(dg.Config):
    """What one run may do otherwise."""

    rebuild: bool = Field(default=False, description="Train the FAISS index again, where it would only be updated.")


def speech_index(language: str, settings: Settings) -> dg.AssetsDefinition:
    """The layer of one language."""
    recurs = RecurringConfig(
        similarity=settings.recurring.similarity,
        min_recordings=settings.recurring.min_recordings,
        min_share=settings.recurring.min_share,
    )
    reindex = on_schedule(settings.remine_cron)

    @dg.asset(
        key=layer(language, "speech_index"),
        deps=[dg.AssetDep(layer(language, "speech_embeddings"), partition_mapping=dg.AllPartitionMapping())],
        partitions_def=language_partition(language),
        automation_condition=reindex,
        group_name=language,
        kinds={"faiss"},
        owners=OWNERS,
        tags={"language": language},
        op_tags=step_tags(GPU, layer(language, "speech_index"), settings),
        pool=GPU,
        retry_policy=memory_retries(settings),
        code_version=_code_version(recurs, settings.index_factory),
        metadata={"dagster/column_schema": column_schema(ROWS)},
    )
    def _speech_index(
        context: dg.AssetExecutionContext, config: IndexConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        """All vectors of a language in one order, searchable, with preambles and other recurring speech marked.

        Row numbers are shared by the roll (what the exact engine reads) and the FAISS index (under segment ids). An
        index with cells is updated by the audiobooks that came and went, and trained again when they outgrow it; its
        recall against exact search is measured every time.
        """
        wish = Wish(settings.index_factory, rebuild=config.rebuild, memory_bytes=memory_of(settings).total_bytes)
        with gpu_step(context, settings) as means:
            figures = _index(storage.lake, language, recurs, wish, context.log.info)
        return published(storage.lake, {**figures, **means.metadata}, "speech_index", language)

    return _speech_index


def _index(
    lake: Lake, language: str, recurs: RecurringConfig, wish: Wish, tell: Callable[[str], None]
) -> dict[str, Any]:
    roll = call_the_roll(read_blocks(lake, language))
    tell(f"{roll.items.height} segments of {roll.blocks.height} audiobooks")
    recurring = _recurring(roll, recurs)
    began = time.perf_counter()
    renewal = renew_index(roll, lake.find("speech_index", language), wish)
    described = {**index_figures(renewal), "index_build_seconds": round(time.perf_counter() - began, 3)}
    tell(f"index {renewal.built}")
    _write(lake, language, roll, recurring, renewal)
    described["index_bytes"] = lake.partition("speech_index", language).files[INDEX]["bytes"]
    return {**described, **_figures(roll, recurring)}


def _recurring(roll: Roll, config: RecurringConfig) -> RecurringReport:
    runs = roll.items.select("first_run", "last_run").to_numpy()
    return recurring_rows(roll.vectors, roll.recordings, runs, config)


def _code_version(recurs: RecurringConfig, factory: str) -> str:
    """Changes when the same embeddings would give another index, or other recurring speech."""
    recurring = f"{VERSION}/{recurs.similarity}/{recurs.min_recordings}/{recurs.min_share}"
    return f"{recurring}/{index_renewal.VERSION}/{factory or 'by size'}"


def _write(lake: Lake, language: str, roll: Roll, recurring: RecurringReport, renewal: Renewal) -> None:
    table = roll.items.with_row_index("row").with_columns(pl.Series("recurring", recurring.dropped))
    with lake.replace("speech_index", language) as new:
        renewal.write(new)
        new.write_table("roll.parquet", roll.blocks, ROLL)
        new.write_table("rows.parquet", table, ROWS)
        new.write_json("encoder.json", {"encoder": roll.encoder})


def _figures(roll: Roll, recurring: RecurringReport) -> dict[str, Any]:
    dropped = roll.items.filter(pl.Series(recurring.dropped))
    return {
        "dagster/row_count": roll.items.height,
        "audiobooks": roll.blocks.height,
        "dimension": int(roll.vectors.shape[1]),
        "encoder": roll.encoder,
        "segment_hours": hours(int((roll.items["end_sample"] - roll.items["start_sample"]).sum())),
        "recurring_segments": int(recurring.dropped.sum()),
        "recurring_runs": recurring.marked_runs.height,
        "recurring_examples": rows(
            dropped.select("audiobook", "section", "start_ms", "end_ms", "first_run", "last_run")
        ),
        "roll": rows(roll.blocks, limit=100),
    }
