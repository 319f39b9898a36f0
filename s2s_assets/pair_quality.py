"""`…_pairs` → `…_pair_quality`: what BLASER 2.0-QE and MuTox say of each pair, from its embeddings alone.

Of every kind that is mined, since SONAR's speech and text share one space. Apart from the corpus, since scoring costs a
model while a limit costs a second: another limit scores nothing again. What belongs here is the layers; the models and
what is scored again are in `speech_mining.filters`.
"""

from typing import Any

import dagster as dg
import polars as pl

from partitions.language_pairs import pair_partitions, split
from resources.budgets import memory_retries
from resources.compute import GPU, OWNERS, step_tags
from resources.gpu_steps import Means, gpu_step
from resources.metadata import column_schema, counted, rows
from resources.progress_log import telling
from resources.settings import FilterSettings, Settings
from resources.storage import Lake, Storage, published
from speech_mining.filters.blaser import BlaserQe
from speech_mining.filters.limits import FILTER_SCORES, pair_key
from speech_mining.filters.mutox import Mutox
from speech_mining.filters.pair_scores import LAYER, MADE_BY, SCORES, PairModels, PairScores, score_pairs
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.progress import Progress
from speech_mining.records import Schema

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


def pair_quality(settings: Settings) -> list[dg.AssetsDefinition]:
    """The scores of mined pairs, a layer a kind; none where no filter is on."""
    mined = [kind for kind in KINDS if settings.pairs_of(kind.name)]
    return [_pair_quality(kind, settings) for kind in mined] if settings.filters.columns else []


def _pair_quality(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=kind.layer(LAYER),
        deps=[kind.layer("pairs")],
        partitions_def=pair_partitions(settings.pairs_of(kind.name)),
        automation_condition=dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed(),
        group_name=kind.group,
        kinds={"pytorch", "parquet"},
        owners=OWNERS,
        op_tags=step_tags(GPU, kind.layer(LAYER), settings),
        pool=GPU,
        retry_policy=memory_retries(settings),
        code_version=_code_version(settings.filters),
        metadata={"dagster/column_schema": column_schema(_columns(kind, settings.filters))},
        description="BLASER's score of every mined pair and MuTox's of both its sides, whichever are on; limits are "
        "applied later.\n\nPairs whose embeddings and models are as they were keep their scores.",
    )
    def _scores(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        told = telling(context, "scored")
        with gpu_step(context, settings) as means:
            metadata = _score(storage.lake, kind, context.partition_key, _models(settings, means), told)
        return published(storage.lake, {**metadata, **means.metadata}, kind.layer(LAYER), context.partition_key)

    return _scores


def _columns(kind: Kind, filters: FilterSettings) -> Schema:
    ids = {name: kind.pairs[name] for name in pair_key(list(kind.pairs))}
    return {**ids, **{name: FILTER_SCORES[name] for name in filters.columns}}


def _code_version(filters: FilterSettings) -> str:
    blaser = f"{BlaserQe.code_version}:{filters.blaser}" if filters.blaser else ""
    mutox = f"{Mutox.code_version}:{filters.mutox}:{filters.vector_length}" if filters.mutox else ""
    return f"{blaser}/{mutox}"


def _models(settings: Settings, means: Means) -> PairModels:
    filters, device, folder = settings.filters, means.device, settings.model_dir
    return PairModels(
        BlaserQe(filters.blaser, device=device, model_dir=folder) if filters.blaser else None,
        Mutox(filters.mutox, device=device, model_dir=folder) if filters.mutox else None,
        filters.vector_length,
    )


def _score(lake: Lake, kind: Kind, pair: str, models: PairModels, progress: Progress) -> dict[str, Any]:
    source, target = split(pair)
    found = score_pairs(lake, (source, target), models, kind, progress=progress)
    with lake.replace(kind.layer(LAYER), pair) as new:
        new.write_table(SCORES, found.frame, models.schema(kind))
        new.write_json(MADE_BY, found.made_by)
    return _figures(found)


def _figures(found: PairScores) -> dict[str, Any]:
    return {
        "dagster/row_count": found.frame.height,
        **{f"{name}_version": version for name, version in found.made_by["versions"].items()},
        "scored": counted(found.scored),
        "taken_over": counted(found.taken_over),
        "quantiles": rows(_quantiles(found.frame)),
        "sample": rows(found.frame, limit=10),
    }


def _quantiles(scores: pl.DataFrame) -> pl.DataFrame:
    columns = [name for name in FILTER_SCORES if name in scores.columns]
    table = [{"score": name, **{f"{q:.0%}": scores[name].quantile(q) for q in QUANTILES}} for name in columns]
    return pl.DataFrame(table)
