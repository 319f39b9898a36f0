"""`…_neighbours` → `…_pairs`: from two indexes to scored pairs, for one pair of languages.

One factory for speech with speech (`s2s`), speech with text (`s2t`), text with speech (`t2s`), text with text (`t2t`):
what is mined is a pair of indexes, not of modalities. The two layers are apart because neighbours cost hours of a GPU
while margin, strategy and threshold cost seconds: changing these must not search again. What belongs here is the
layers; the search is `speech_mining.knn`, the scores `speech_mining.mining`.

Neighbours have two shapes: one step, or a graph of a plan, a step for each block of products, and a merge. Both publish
the same bytes. What passes between the steps of the graph stands in the lake; Dagster is told only what comes after
what, so that nothing depends on an I/O manager that pods would have to share.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.storage.tags import RETRY_STRATEGY_TAG
from pydantic import Field

from partitions.language_pairs import from_language, pair_partitions, split
from partitions.languages import layer
from resources.budgets import memory_retries, retried_with_half, search_memory_gb, share
from resources.compute import CPU, GPU, OWNERS, pod_retries, step_tags
from resources.conditions import eager, eager_and_when_changed
from resources.gpu_steps import gpu_step
from resources.metadata import column_schema, counted, plot, rows
from resources.settings import Settings
from resources.storage import Lake, Storage, published
from speech_mining.errors import LakeError
from speech_mining.knn.roll import Layout
from speech_mining.mining import margin
from speech_mining.mining.kinds import Kind
from speech_mining.mining.strategies import mine
from speech_mining.mining.tables import NEIGHBOURS, neighbours_of, neighbours_tables, pairs_table

if TYPE_CHECKING:
    from speech_mining.knn.incremental import Request
    from speech_mining.mining.blocks import Cutting, Searched, Shared
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
    return _in_blocks(kind, settings) if settings.fans_out else _in_one_step(kind, settings)


def _described(kind: Kind, settings: Settings) -> dict[str, Any]:
    """What the asset says of itself, in either shape."""
    return {
        "key": kind.layer("neighbours"),
        "partitions_def": pair_partitions(settings.pairs_of(kind.name)),
        "automation_condition": eager(),
        "group_name": kind.group,
        "kinds": {"numpy", "parquet"},
        "owners": OWNERS,
        "code_version": f"3/k{settings.mining.k}",
        "metadata": {"dagster/column_schema": column_schema(NEIGHBOURS)},
        "description": f"For every {kind.source_item} and {kind.target_item} of two languages its k nearest on the "
        "other side, exactly, from one pass over the products.\n\nWhat came or went since the last search costs its "
        "own products and no others. Recurring speech (preambles) takes no part: it would be the nearest neighbour of "
        "every other preamble.",
    }


def _in_one_step(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    def _neighbours(
        context: dg.AssetExecutionContext, config: NeighbourConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        with gpu_step(context, settings) as means:
            request = _request(config, settings, means.attempt)
            told = _search(storage.lake, kind, context.partition_key, request, context.log.info)
        context.log.info(f"{context.partition_key}: {told['engine']}, {told['products_computed']} products")
        return published(storage.lake, {**told, **means.metadata}, kind.layer("neighbours"), context.partition_key)

    made: dg.AssetsDefinition = dg.asset(
        **_described(kind, settings),
        deps=_indexes(kind, settings.pairs_of(kind.name)),
        op_tags=step_tags(GPU, kind.layer("neighbours"), settings),
        pool=GPU,
        retry_policy=memory_retries(settings),
    )(_neighbours)
    return made


def _in_blocks(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    """The same as a graph: a block that dies costs its own products, and no others."""
    indexes = {
        "_".join(index.asset_key.path): dg.AssetIn(
            index.asset_key, partition_mapping=index.partition_mapping, dagster_type=dg.Nothing
        )
        for index in _indexes(kind, settings.pairs_of(kind.name))
    }
    plan = _planning(kind, settings, list(indexes))
    search, merge = _searching(kind, settings), _merging(kind, settings)

    @dg.config_mapping
    def as_of_one_step(config: NeighbourConfig) -> dict[str, Any]:
        given = {name: value for name, value in config.model_dump().items() if value is not None}
        return {each.name: {"config": given} for each in (plan, search, merge)}

    def _neighbours(**indexes: Any) -> Any:
        return merge(plan(**indexes).map(search).collect())

    made: dg.AssetsDefinition = dg.graph_asset(**_described(kind, settings), ins=indexes, config=as_of_one_step)(
        _neighbours
    )
    return made


def _planning(kind: Kind, settings: Settings, indexes: Sequence[str]) -> dg.OpDefinition:
    @dg.op(
        name=kind.layer("plan_blocks"),
        description="Cuts what is to be searched in blocks; those that an earlier run has left are not searched.",
        ins={name: dg.In(dg.Nothing) for name in indexes},
        out=dg.DynamicOut(dg.Nothing),
        pool=CPU,
        tags=step_tags(CPU, kind.layer("plan_blocks"), settings),
        retry_policy=memory_retries(settings),
    )
    def plan_blocks(
        context: dg.OpExecutionContext, config: NeighbourConfig, storage: Storage
    ) -> Iterator[dg.DynamicOutput[None]]:
        # else a run that is started again in place of a dead one would leave out the blocks that were under way, which
        # neither failed nor succeeded; those that are in the lake are not searched again
        context.instance.add_run_tags(context.run_id, {RETRY_STRATEGY_TAG: ReexecutionStrategy.ALL_STEPS.value})
        with retried_with_half(context, settings) as attempt:
            request = _request(config, settings, attempt)
            names = _plan(_shared(context, kind, storage), request, settings, context.log.info)
        for number, name in enumerate(names, 1):
            yield dg.DynamicOutput(None, mapping_key=f"b{number:03d}_{name}")

    return plan_blocks


def _searching(kind: Kind, settings: Settings) -> dg.OpDefinition:
    @dg.op(
        name=kind.layer("search_block"),
        description="Searches a block and leaves what it found in the lake.",
        ins={"planned": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        pool=GPU,
        tags=step_tags(GPU, kind.layer("neighbours"), settings),
        retry_policy=memory_retries(settings),
    )
    def search_block(context: dg.OpExecutionContext, config: NeighbourConfig, storage: Storage) -> None:
        from speech_mining.mining.blocks import search

        name = str(context.get_mapping_key()).rpartition("_")[2]
        with gpu_step(context, settings) as means:
            request = _request(config, settings, means.attempt)
            search(_shared(context, kind, storage), name, request, context.log.info)

    return search_block


def _merging(kind: Kind, settings: Settings) -> dg.OpDefinition:
    @dg.op(
        name=kind.layer("merge_blocks"),
        description="Puts the blocks together, in order, and publishes the neighbours.",
        ins={"searched": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        pool=CPU,
        tags=step_tags(CPU, kind.layer("merge_blocks"), settings),
        retry_policy=memory_retries(settings),
    )
    def merge_blocks(
        context: dg.OpExecutionContext, config: NeighbourConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        with retried_with_half(context, settings) as attempt:
            shared, request = _shared(context, kind, storage), _request(config, settings, attempt)
            metadata = _merge(shared, request, settings, context.log.info)
        return published(storage.lake, metadata, kind.layer("neighbours"), context.partition_key)

    return merge_blocks


def _shared(context: dg.OpExecutionContext, kind: Kind, storage: Storage) -> "Shared":
    """The pair of a run; a run that goes on from where another failed follows that one's plan."""
    from speech_mining.mining.blocks import Shared

    source, target = split(context.partition_key)
    return Shared(storage.lake, kind, (source, target), f"plan-{context.run.root_run_id or context.run.run_id}")


def pairs(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    """Scored pairs of segments and sentences."""
    mining = settings.mining

    @dg.asset(
        key=kind.layer("pairs"),
        deps=[kind.layer("neighbours")],
        partitions_def=pair_partitions(settings.pairs_of(kind.name)),
        automation_condition=eager_and_when_changed(),
        group_name=kind.group,
        kinds={"polars", "parquet"},
        owners=OWNERS,
        op_tags=step_tags(CPU, kind.layer("pairs"), settings),
        retry_policy=pod_retries(settings),
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


def _request(config: NeighbourConfig, settings: Settings, attempt: int) -> "Request":
    from speech_mining.knn.incremental import Request

    memory_gb = search_memory_gb(settings, attempt)
    return Request(config.k or settings.mining.k, config.engine, memory_gb, device_share=share(attempt))


def _cutting(settings: Settings) -> "Cutting":
    from speech_mining.mining.blocks import Cutting

    asked = settings.fan_out
    return Cutting(asked.products, asked.most_blocks, asked.rows)


def _search(lake: Lake, kind: Kind, pair: str, request: "Request", tell: Callable[[str], None]) -> dict[str, Any]:
    from speech_mining.mining.blocks import discard
    from speech_mining.mining.renewal import renew

    source, target = split(pair)
    began = time.perf_counter()
    renewed = renew(lake, (source, target), request, tell, kind)
    seconds = time.perf_counter() - began
    metadata = _publish(lake, kind, pair, renewed)
    discard(lake, kind, (source, target))  # what runs in blocks have left, before the settings were others
    return {**metadata, "search_seconds": round(seconds, 3)}


def _plan(shared: "Shared", request: "Request", settings: Settings, tell: Callable[[str], None]) -> list[str]:
    """Names of the blocks that are worth a step of their own."""
    from speech_mining.mining.blocks import plan

    if request.engine == "ivf":
        tell("ivf is searched in one step: its cells are found on both sides as a whole")
        return []
    missing = plan(shared, request, _cutting(settings), tell)
    worth_a_step = sum(block.products for block in missing) > settings.fan_out.in_place
    return [block.name for block in missing] if worth_a_step else []


def _merge(shared: "Shared", request: "Request", settings: Settings, tell: Callable[[str], None]) -> dict[str, Any]:
    from speech_mining.mining.blocks import discard, merge

    if request.engine == "ivf":
        return _search(shared.lake, shared.kind, shared.key, request, tell)
    began = time.perf_counter()
    merged = merge(shared, request, _cutting(settings), settings.fan_out.in_place, tell)
    seconds = time.perf_counter() - began
    metadata = _publish(shared.lake, shared.kind, shared.key, merged.renewed)
    discard(shared.lake, shared.kind, shared.pair)
    return {
        **metadata,
        "search_seconds": round(sum(block.seconds for block in merged.blocks), 3),
        "merge_seconds": round(seconds, 3),
        "blocks": len(merged.blocks),
        "blocks_of_earlier_runs": merged.reused,
        "blocks_searched": rows(_blocks_table(merged.blocks)),
    }


def _blocks_table(blocks: Sequence["Searched"]) -> pl.DataFrame:
    schema = {"block": pl.String, "products": pl.Int64, "seconds": pl.Float64, "engine": pl.String}
    told = [(block.name, block.products, block.seconds, block.engine) for block in blocks]
    return pl.DataFrame(told, schema, orient="row").sort("seconds", descending=True, maintain_order=True)


def _publish(lake: Lake, kind: Kind, pair: str, renewed: "Renewed") -> dict[str, Any]:
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
