"""`…_history`: the figures of a corpus at each of its accepted materializations.

What belongs here is the layer; the figures are `speech_mining.quality.history`. It stands behind the blocking checks of
the corpus, so what they refuse is not recorded. Materializing it by hand accepts a corpus that drifted.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import polars as pl

from partitions.language_pairs import pair_partitions
from resources.compute import CPU, OWNERS, pod_retries, step_tags
from resources.conditions import eager_and_when_changed
from resources.metadata import column_schema, rows
from resources.settings import Settings
from resources.storage import Storage, published
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.quality import history
from speech_mining.quality.history import HISTORY, LAYER, by_materialization, record_corpus
from speech_mining.quality.sparkline import as_markdown_sparkline


def histories(settings: Settings) -> list[dg.AssetsDefinition]:
    """The history of every kind of corpus that is mined."""
    return [_history(kind, settings) for kind in KINDS if settings.pairs_of(kind.name)]


def _history(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=kind.layer("history"),
        deps=[kind.layer("corpus")],
        partitions_def=pair_partitions(settings.pairs_of(kind.name)),
        automation_condition=eager_and_when_changed(),
        group_name="quality",
        kinds={"parquet"},
        owners=OWNERS,
        op_tags=step_tags(CPU, kind.layer("history"), settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version=history.VERSION,
        metadata={"dagster/column_schema": column_schema(HISTORY)},
        description="Threshold, pairs, hours and the distribution of scores of every accepted materialization.\n\n"
        "A corpus that fails a blocking check does not get here. Materialize this by hand to accept it: the next "
        "one is then compared with it.",
    )
    def _recorded(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        now, pair = datetime.now(timezone.utc), context.partition_key
        recorded = record_corpus(storage.lake, kind, pair, recorded_at=now, run_id=context.run.run_id)
        return published(storage.lake, figures_of(recorded), LAYER, kind.name, pair)

    return _recorded


def figures_of(recorded: pl.DataFrame) -> Mapping[str, Any]:
    """What is shown of a history: a line a figure, drawn and in numbers, and every materialization.

    Args:
        recorded: columns `HISTORY`.
    """
    table = by_materialization(recorded)
    return {
        "materializations": table.height,
        "lines": dg.MetadataValue.md(_lines(recorded)),
        "every_materialization": rows(table.tail(50), limit=50),
    }


def _lines(recorded: pl.DataFrame) -> str:
    lines = ["| figure | history | first | last |", "|---|---|---|---|"]
    for (name,), of_figure in recorded.group_by("figure", maintain_order=True):
        values = of_figure.sort("materialization")["value"].to_list()
        lines.append(f"| {name} | {as_markdown_sparkline(values, str(name))} | {values[0]:.6g} | {values[-1]:.6g} |")
    return "\n".join(lines)
