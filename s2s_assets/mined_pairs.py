"""`s2s_neighbours` → `s2s_pairs`: from two indexes to scored pairs, for one pair of languages.

The two are apart because neighbours cost hours of a GPU while margin, strategy and threshold cost seconds: changing
these must not search again. What belongs here is the layers; the search is `speech_mining.knn`, the scores
`speech_mining.mining`.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
from pydantic import Field

from partitions.language_pairs import from_language, pair_partitions, split
from partitions.languages import layer
from resources.compute import CPU, GPU, ONE_GPU, OWNERS
from resources.metadata import column_schema, counted, plot, rows
from resources.settings import MiningSettings, Settings
from resources.storage import Lake, Storage, published
from speech_mining.errors import LakeError
from speech_mining.knn.roll import ROWS
from speech_mining.mining import margin
from speech_mining.mining.strategies import mine
from speech_mining.mining.tables import NEIGHBOURS, neighbours_of, neighbours_tables, pairs_table
from speech_mining.records import PAIRS

if TYPE_CHECKING:
    from speech_mining.mining.renewal import Renewed


class NeighbourConfig(dg.Config):
    """What one run may search otherwise than the settings say."""

    k: int | None = Field(default=None, description="Neighbours in each direction; empty: as in the settings.")
    engine: str = Field(default="auto", description="Search engine; 'auto' chooses by hardware and says why.")


class PairConfig(dg.Config):
    """What one run may score otherwise than the settings say."""

    margin: str | None = Field(default=None, description="ratio, distance or absolute; empty: as in the settings.")
    strategy: str | None = Field(default=None, description="forward, backward, intersection, union or max.")
    floor: float | None = Field(default=None, description="Pairs from this score upward are kept.")


def s2s_neighbours(settings: Settings) -> dg.AssetsDefinition:
    """The k nearest neighbours of every segment, in both directions."""
    pairs = settings.mined_pairs

    @dg.asset(
        key="s2s_neighbours",
        deps=[
            dg.AssetDep(layer(language, "speech_index"), partition_mapping=from_language(language, pairs))
            for language in settings.languages
        ],
        partitions_def=pair_partitions(pairs),
        automation_condition=dg.AutomationCondition.eager(),
        group_name="speech_to_speech",
        kinds={"numpy", "parquet"},
        owners=OWNERS,
        op_tags=ONE_GPU,
        pool=GPU,
        code_version=f"2/k{settings.mining.k}",
        metadata={"dagster/column_schema": column_schema(NEIGHBOURS)},
    )
    def _s2s_neighbours(
        context: dg.AssetExecutionContext, config: NeighbourConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        """For every segment of either language its k nearest in the other, exactly, from one pass over the products.

        Segments that came or went since the last search cost their own products and no others. Recurring
        speech (preambles) takes no part: it would be the nearest neighbour of every other preamble.
        """
        metadata = _search(storage.lake, context.partition_key, config, settings.mining, context.log.info)
        context.log.info(f"{context.partition_key}: {metadata['engine']}, {metadata['products_computed']} products")
        return published(storage.lake, metadata, "s2s_neighbours", context.partition_key)

    return _s2s_neighbours


def s2s_pairs(settings: Settings) -> dg.AssetsDefinition:
    """Scored pairs of segments."""
    mining = settings.mining

    @dg.asset(
        key="s2s_pairs",
        deps=["s2s_neighbours"],
        partitions_def=pair_partitions(settings.mined_pairs),
        automation_condition=dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed(),
        group_name="speech_to_speech",
        kinds={"polars", "parquet"},
        owners=OWNERS,
        pool=CPU,
        code_version=f"{margin.VERSION}/{mining.margin}/{mining.strategy}/{mining.floor}",
        metadata={"dagster/column_schema": column_schema(PAIRS)},
    )
    def _s2s_pairs(
        context: dg.AssetExecutionContext, config: PairConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        """Pairs that say the same, with their margin: how much nearer they are than either is to its neighbourhood.

        Kept from the floor (1.00) upward, so that any threshold above it can be compared without mining again.
        """
        metadata = _score(storage.lake, context.partition_key, config, mining)
        return published(storage.lake, metadata, "s2s_pairs", context.partition_key)

    return _s2s_pairs


def _search(
    lake: Lake, pair: str, config: NeighbourConfig, mining: MiningSettings, tell: Callable[[str], None]
) -> dict[str, Any]:
    from speech_mining.knn.incremental import Request
    from speech_mining.mining.renewal import renew

    languages = split(pair)
    request = Request(config.k or mining.k, config.engine, mining.memory_gb)
    began = time.perf_counter()
    renewed = renew(lake, (languages[0], languages[1]), request, tell)
    seconds = time.perf_counter() - began
    found = renewed.neighbours
    forward, backward = neighbours_tables(found, renewed.source, renewed.target)
    with lake.replace("s2s_neighbours", pair) as new:
        new.write_table("forward.parquet", forward, NEIGHBOURS)
        new.write_table("backward.parquet", backward, NEIGHBOURS)
        # which exact engine ran is a fact about the machine: it is told in the metadata and is no part of the content
        new.write_json("search.json", {"k": found.k, "recall": found.recall})
    return {
        "dagster/row_count": forward.height + backward.height,
        "source_segments": forward.height,
        "target_segments": backward.height,
        "left_out_as_recurring": renewed.left_out,
        "k": found.k,
        "engine": found.engine,
        "why_this_engine": found.reason,
        "recall": round(found.recall, 4),
        "encoders": "; ".join(renewed.encoders),
        **_work_figures(renewed, forward.height * backward.height),
        "search_seconds": round(seconds, 3),
    }


def _work_figures(renewed: "Renewed", all_products: int) -> dict[str, Any]:
    """What was searched, and what had been searched before."""
    work = renewed.work
    return {
        "products": all_products,
        "products_computed": work.products,
        "products_saved": work.saved,
        "rows_new": work.rows_new,
        "rows_gone": work.rows_gone,
        "rows_searched_again": work.rows_again,
        "began": f"from nothing: {renewed.began}" if renewed.began else "from what was searched before",
    }


def _score(lake: Lake, pair: str, config: PairConfig, mining: MiningSettings) -> dict[str, Any]:
    neighbours = lake.partition("s2s_neighbours", pair)
    forward, backward = (neighbours.read_table(f"{name}.parquet", NEIGHBOURS) for name in ("forward", "backward"))
    chosen: dict[str, Any] = {
        "margin": config.margin or mining.margin,
        "strategy": config.strategy or mining.strategy,
        "threshold": mining.floor if config.floor is None else config.floor,
    }
    mined = mine(neighbours_of(forward, backward), **chosen)
    sides = [_spans(lake, *side) for side in zip(split(pair), (forward, backward), strict=True)]
    table = pairs_table(mined, *sides)
    with lake.replace("s2s_pairs", pair) as new:
        new.write_table("pairs.parquet", table, PAIRS)
        new.write_json("scoring.json", {**chosen, "counts": dict(mined.counts)})
    return {**_pair_figures(table, mining.threshold), **chosen, "counts": counted(mined.counts)}


def _spans(lake: Lake, language: str, neighbours: pl.DataFrame) -> pl.DataFrame:
    """The segments of a side of the neighbours, in the order of its rows."""
    segments = lake.partition("speech_index", language).read_table("rows.parquet", ROWS)
    order = neighbours.select(pl.col("segment").alias("segment_id"))
    gone = order.join(segments, on="segment_id", how="anti").height
    if gone:
        raise LakeError(
            f"{gone} of {order.height} segments in the neighbours are not in the index of {language}.",
            expected="neighbours found in the index that is there",
            cause="the language was indexed again since the search",
            fix="materialize s2s_neighbours of the pair",
        )
    return order.join(segments, on="segment_id", how="left", maintain_order="left")


def _pair_figures(table: pl.DataFrame, threshold: float) -> dict[str, Any]:
    from speech_mining.quality.plots import as_markdown_image, plot_scores

    return {
        "dagster/row_count": table.height,
        "pairs_at_threshold": table.filter(pl.col("score") >= threshold).height,
        "margins": plot(as_markdown_image(plot_scores(table["score"].to_numpy(), threshold))),
        "sample": rows(table, limit=10),
    }
