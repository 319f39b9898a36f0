"""`…_neighbours` → `…_pairs`: from two indexes to scored pairs, for one pair of languages.

One factory for speech with speech (`s2s`), speech with text (`s2t`), text with speech (`t2s`), text with text (`t2t`):
what is mined is a pair of indexes, not of modalities. The two layers are apart because neighbours cost hours of a GPU
while margin, strategy and threshold cost seconds: changing these must not search again. What belongs here is the
layers; the search is `speech_mining.knn`, the scores `speech_mining.mining`.
"""

import time
from collections.abc import Callable, Sequence
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
from speech_mining.knn.roll import Layout
from speech_mining.mining import margin
from speech_mining.mining.kinds import Kind
from speech_mining.mining.strategies import mine
from speech_mining.mining.tables import NEIGHBOURS, neighbours_of, neighbours_tables, pairs_table

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


def neighbours(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    """The k nearest neighbours of every segment or sentence, in both directions."""
    pairs = settings.pairs_of(kind.name)

    @dg.asset(
        key=kind.layer("neighbours"),
        deps=_indexes(kind, pairs),
        partitions_def=pair_partitions(pairs),
        automation_condition=dg.AutomationCondition.eager(),
        group_name=kind.group,
        kinds={"numpy", "parquet"},
        owners=OWNERS,
        op_tags=ONE_GPU,
        pool=GPU,
        code_version=f"3/k{settings.mining.k}",
        metadata={"dagster/column_schema": column_schema(NEIGHBOURS)},
        description=f"For every {kind.source_item} and {kind.target_item} of two languages its k nearest on the other "
        "side, exactly, from one pass over the products.\n\nWhat came or went since the last search costs its own "
        "products and no others. Recurring speech (preambles) takes no part: it would be the nearest neighbour of "
        "every other preamble.",
    )
    def _neighbours(
        context: dg.AssetExecutionContext, config: NeighbourConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        metadata = _search(storage.lake, kind, context.partition_key, config, settings.mining, context.log.info)
        context.log.info(f"{context.partition_key}: {metadata['engine']}, {metadata['products_computed']} products")
        return published(storage.lake, metadata, kind.layer("neighbours"), context.partition_key)

    return _neighbours


def pairs(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    """Scored pairs of segments and sentences."""
    mining = settings.mining

    @dg.asset(
        key=kind.layer("pairs"),
        deps=[kind.layer("neighbours")],
        partitions_def=pair_partitions(settings.pairs_of(kind.name)),
        automation_condition=dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed(),
        group_name=kind.group,
        kinds={"polars", "parquet"},
        owners=OWNERS,
        pool=CPU,
        code_version=f"{margin.VERSION}/{mining.margin}/{mining.strategy}/{mining.floor}",
        metadata={"dagster/column_schema": column_schema(kind.pairs)},
        description="Pairs that say the same, with their margin: how much nearer they are than either is to its "
        "neighbourhood.\n\nKept from the floor (1.00) upward, so that any threshold above it can be compared without "
        "mining again.",
    )
    def _pairs(context: dg.AssetExecutionContext, config: PairConfig, storage: Storage) -> dg.MaterializeResult[None]:
        metadata = _score(storage.lake, kind, context.partition_key, config, settings)
        return published(storage.lake, metadata, kind.layer("pairs"), context.partition_key)

    return _pairs


def _indexes(kind: Kind, pairs: Sequence[str]) -> list[dg.AssetDep]:
    """The indexes that are mined, each leading to the pairs that it takes part in."""
    source, target = kind.layouts
    sides: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        for layout, language in zip((source, target), split(pair), strict=True):
            sides.setdefault((language, layout.index), []).append(pair)
    return [
        dg.AssetDep(layer(language, index), partition_mapping=from_language(language, of_index))
        for (language, index), of_index in sides.items()
    ]


def _search(
    lake: Lake,
    kind: Kind,
    pair: str,
    config: NeighbourConfig,
    mining: MiningSettings,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    from speech_mining.knn.incremental import Request
    from speech_mining.mining.renewal import renew

    languages = split(pair)
    request = Request(config.k or mining.k, config.engine, mining.memory_gb)
    began = time.perf_counter()
    renewed = renew(lake, (languages[0], languages[1]), request, tell, kind)
    seconds = time.perf_counter() - began
    found = renewed.neighbours
    forward, backward = neighbours_tables(found, renewed.source, renewed.target)
    with lake.replace(kind.layer("neighbours"), pair) as new:
        new.write_table("forward.parquet", forward, NEIGHBOURS)
        new.write_table("backward.parquet", backward, NEIGHBOURS)
        # which exact engine ran is a fact about the machine: it is told in the metadata and is no part of the content
        made_from = {"encoders": list(renewed.encoders), "rolls": list(renewed.rolls)}
        new.write_json("search.json", {"k": found.k, "recall": found.recall, **made_from})
    return {
        "dagster/row_count": forward.height + backward.height,
        f"source_{kind.source_item}s": forward.height,
        f"target_{kind.target_item}s": backward.height,
        "left_out_as_recurring": renewed.left_out,
        "k": found.k,
        "engine": found.engine,
        "why_this_engine": found.reason,
        "recall": round(found.recall, 4),
        "encoders": "; ".join(renewed.encoders),
        "rolls": "; ".join(renewed.rolls),
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


def _score(lake: Lake, kind: Kind, pair: str, config: PairConfig, settings: Settings) -> dict[str, Any]:
    mining, found = settings.mining, lake.partition(kind.layer("neighbours"), pair)
    forward, backward = (found.read_table(f"{name}.parquet", NEIGHBOURS) for name in ("forward", "backward"))
    chosen: dict[str, Any] = {
        "margin": config.margin or mining.margin,
        "strategy": config.strategy or mining.strategy,
        "threshold": mining.floor if config.floor is None else config.floor,
    }
    mined = mine(neighbours_of(forward, backward), **chosen)
    sides = [_items(lake, *side) for side in zip(split(pair), kind.layouts, (forward, backward), strict=True)]
    table = pairs_table(mined, sides[0], sides[1], kind)
    with lake.replace(kind.layer("pairs"), pair) as new:
        new.write_table("pairs.parquet", table, kind.pairs)
        made_from = {
            name: told for name, told in found.read_json("search.json").items() if name in ("encoders", "rolls")
        }
        new.write_json("scoring.json", {**chosen, "counts": dict(mined.counts), **made_from})
    return {**_pair_figures(table, settings.threshold_of(kind.name)), **chosen, "counts": counted(mined.counts)}


def _items(lake: Lake, language: str, layout: Layout, neighbours: pl.DataFrame) -> pl.DataFrame:
    """The segments or sentences of a side of the neighbours, in the order of its rows."""
    items = lake.partition(layout.index, language).read_table("rows.parquet", layout.rows)
    order = neighbours.select(pl.col("segment").alias(layout.id))
    gone = order.join(items, on=layout.id, how="anti").height
    if gone:
        raise LakeError(
            f"{gone} of {order.height} {layout.id.removesuffix('_id')}s in the neighbours are not in {layout.index} of "
            f"{language}.",
            expected="neighbours found in the index that is there",
            cause="the language was indexed again since the search",
            fix="materialize the neighbours of the pair",
        )
    return order.join(items, on=layout.id, how="left", maintain_order="left")


def _pair_figures(table: pl.DataFrame, threshold: float) -> dict[str, Any]:
    from speech_mining.quality.plots import as_markdown_image, plot_scores

    return {
        "dagster/row_count": table.height,
        "pairs_at_threshold": table.filter(pl.col("score") >= threshold).height,
        "margins": plot(as_markdown_image(plot_scores(table["score"].to_numpy(), threshold))),
        "sample": rows(table, limit=10),
    }
