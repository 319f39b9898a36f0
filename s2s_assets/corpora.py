"""`s2s_corpus`: what is left after selection, ready to be trained on, with its provenance in every row.

What belongs here is the layer; the selection is `speech_mining.mining.selection`, the formats are
`speech_mining.corpora`.
"""

from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from partitions.language_pairs import pair_partitions, split
from resources.compute import CPU, OWNERS
from resources.metadata import column_schema, counted, hours, plot, rows
from resources.settings import Settings
from resources.storage import Lake, Storage, published
from speech_mining.corpora import manifest
from speech_mining.corpora.manifest import CORPUS, corpus_frame, write_manifest
from speech_mining.errors import SettingsError
from speech_mining.mining import selection
from speech_mining.mining.selection import Selected, select_non_overlapping
from speech_mining.quality.hours import HOURS, hours_by_threshold, samples_of
from speech_mining.records import PAIRS, RECORDINGS


class CorpusConfig(dg.Config):
    """What one run may select otherwise than the settings say."""

    threshold: float | None = Field(default=None, description="Least score; empty: as in the settings.")
    selection: str | None = Field(default=None, description="greedy or optimal; empty: as in the settings.")


def s2s_corpus(settings: Settings) -> dg.AssetsDefinition:
    """The corpus of a pair of languages."""
    mining = settings.mining

    @dg.asset(
        key="s2s_corpus",
        deps=["s2s_pairs"],
        partitions_def=pair_partitions(settings.mined_pairs),
        automation_condition=dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed(),
        group_name="speech_to_speech",
        kinds={"polars", "parquet", "csv"},
        owners=OWNERS,
        pool=CPU,
        code_version=f"{selection.VERSION}/{manifest.VERSION}/{mining.threshold}/{mining.selection}",
        metadata={"dagster/column_schema": column_schema(CORPUS)},
    )
    def _s2s_corpus(
        context: dg.AssetExecutionContext, config: CorpusConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        """Speech-to-speech translations: pairs above the threshold, of which no two overlap on either side.

        As parquet and as a manifest (TSV.gz, best score first), each row with both recordings, times, readers,
        licences and addresses.
        """
        threshold = mining.threshold if config.threshold is None else config.threshold
        metadata = _select(storage.lake, context.partition_key, threshold, config.selection or mining.selection)
        return published(storage.lake, metadata, "s2s_corpus", context.partition_key)

    return _s2s_corpus


def _select(lake: Lake, pair: str, threshold: float, rule: str) -> dict[str, Any]:
    pairs = lake.partition("s2s_pairs", pair)
    floor = pairs.read_json("scoring.json")["threshold"]
    if threshold < floor:
        raise SettingsError(
            f"A corpus from {threshold} was asked of pairs that are kept from {floor}.",
            expected=f"a threshold of at least {floor}",
            cause="the pairs were materialized with a higher floor",
            fix="materialize s2s_pairs with a lower floor, or raise the threshold",
        )
    table = pairs.read_table("pairs.parquet", PAIRS)
    selected = select_non_overlapping(table.filter(pl.col("score") >= threshold), rule, floor=threshold)
    source, target = (
        lake.read_tables("raw_audio", language, name="recordings.parquet", schema=RECORDINGS)
        for language in split(pair)
    )
    corpus = corpus_frame(selected.frame, source, target, pair)
    by_threshold = hours_by_threshold(pairs.local_path("pairs.parquet"), floor=floor)
    with lake.replace("s2s_corpus", pair) as new:
        new.write_table("corpus.parquet", corpus, CORPUS)
        write_manifest(corpus, new.path("manifest.tsv.gz"))
        new.write_table("hours.parquet", by_threshold, HOURS)
        new.write_json("selection.json", {"threshold": threshold, "selection": rule, "counts": dict(selected.counts)})
    return {"selection": rule, **_figures(pair, corpus, selected, by_threshold, threshold)}


def _figures(
    pair: str, corpus: pl.DataFrame, selected: Selected, by_threshold: pl.DataFrame, threshold: float
) -> dict[str, Any]:
    from speech_mining.quality.plots import as_markdown_image, plot_hours

    return {
        "dagster/row_count": corpus.height,
        "threshold": threshold,
        "source_hours": hours(samples_of(corpus, "source")),
        "target_hours": hours(samples_of(corpus, "target")),
        "hours_per_threshold": plot(
            as_markdown_image(plot_hours(by_threshold, threshold, title=pair)),
            "Sum counts every pair, union every stretch of speech once, post-processed what is left of the best first.",
        ),
        "hours": rows(by_threshold, limit=60),
        "counts": counted(selected.counts),
        "sample": rows(corpus, limit=15),
    }
