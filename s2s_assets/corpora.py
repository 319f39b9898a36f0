"""`…_corpus`: what is left after selection, ready to be trained on, with its provenance in every row.

What belongs here is the layer; the selection is `speech_mining.mining.selection`, the formats are
`speech_mining.corpora`.
"""

import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from partitions.language_pairs import pair_partitions, split
from resources.compute import CPU, OWNERS, pod_retries, step_tags
from resources.conditions import eager_and_when_changed
from resources.metadata import column_schema, counted, hours, plot, rows
from resources.settings import Settings
from resources.storage import Lake, Partition, Storage, published
from speech_mining.corpora import manifest
from speech_mining.corpora.manifest import corpus_frame, corpus_schema, write_manifest
from speech_mining.corpora.written import written
from speech_mining.errors import SettingsError
from speech_mining.filters import limits as filters
from speech_mining.filters.limits import Filtered, FilterLimits, with_scores, within_limits
from speech_mining.filters.pair_scores import LAYER, read_scores
from speech_mining.mining import selection
from speech_mining.mining.kinds import Kind
from speech_mining.mining.selection import Selected, select_non_overlapping
from speech_mining.quality.hours import HOURS, hours_by_threshold, samples_of
from speech_mining.records import RECORDINGS

LIMITS = tuple(field.name for field in fields(FilterLimits))
"""Names that the settings, a run's config and the library share."""


class CorpusConfig(dg.Config):
    """What one run may select otherwise than the settings say."""

    threshold: float | None = Field(default=None, description="Least score; empty: as in the settings.")
    selection: str | None = Field(default=None, description="greedy or optimal; empty: as in the settings.")
    least_blaser_qe: float | None = Field(default=None, description="Least BLASER score; empty: as in the settings.")
    most_toxicity: float | None = Field(default=None, description="Most of either side; empty: as in the settings.")
    most_added_toxicity: float | None = Field(default=None, description="Target's over source's; empty: as set.")
    most_lost_toxicity: float | None = Field(default=None, description="Source's over target's; empty: as set.")


@dataclass(frozen=True)
class _Wanted:
    """What a corpus is made with."""

    threshold: float
    selection: str
    limits: FilterLimits
    scores: tuple[str, ...]
    """Columns of the filters that are on."""


def corpus(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    """The corpus of a pair of languages: speech with speech, speech with text, text with text."""
    scores = settings.filters.columns

    @dg.asset(
        key=kind.layer("corpus"),
        deps=[kind.layer("pairs"), *([kind.layer(LAYER)] if scores else [])],
        partitions_def=pair_partitions(settings.pairs_of(kind.name)),
        automation_condition=eager_and_when_changed(),
        group_name=kind.group,
        kinds={"polars", "parquet", "csv"},
        owners=OWNERS,
        op_tags=step_tags(CPU, kind.layer("corpus"), settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version=_code_version(kind, settings),
        metadata={"dagster/column_schema": column_schema(corpus_schema(scores, kind))},
        description=f"Translations, {kind.group.replace('_', ' ')}: pairs above the threshold, of which no two overlap "
        "on either side.\n\nAs parquet and as a manifest (TSV.gz, best score first), each row with both recordings or "
        "documents, places, readers, licences and addresses. Pairs that the filters refuse are counted, and stand in "
        "nobody's way.",
    )
    def _corpus(
        context: dg.AssetExecutionContext, config: CorpusConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        metadata = _select(storage.lake, kind, context.partition_key, _wanted(kind, config, settings))
        return published(storage.lake, metadata, kind.layer("corpus"), context.partition_key)

    return _corpus


def _code_version(kind: Kind, settings: Settings) -> str:
    mining, limits = settings.mining, settings.filters.model_dump(include=set(LIMITS))
    plain = f"{selection.VERSION}/{manifest.VERSION}/{settings.threshold_of(kind.name)}/{mining.selection}"
    return f"{plain}/{filters.VERSION}/{limits}" if settings.filters.columns else plain


def _wanted(kind: Kind, config: CorpusConfig, settings: Settings) -> _Wanted:
    """What the run asks for, and where it asks nothing what the settings do."""
    asked = {name: getattr(config, name) for name in LIMITS if getattr(config, name) is not None}
    chosen = settings.filters.but(asked)
    threshold = settings.threshold_of(kind.name) if config.threshold is None else config.threshold
    limits = FilterLimits(**{name: getattr(chosen, name) for name in LIMITS})
    return _Wanted(threshold, config.selection or settings.mining.selection, limits, settings.filters.columns)


def _select(lake: Lake, kind: Kind, pair: str, wanted: _Wanted) -> dict[str, Any]:
    pairs = lake.partition(kind.layer("pairs"), pair)
    scoring = pairs.read_json("scoring.json")
    floor, threshold = scoring["threshold"], wanted.threshold
    if threshold < floor:
        raise SettingsError(
            f"A corpus from {threshold} was asked of pairs that are kept from {floor}.",
            expected=f"a threshold of at least {floor}",
            cause="the pairs were materialized with a higher floor",
            fix=f"materialize {kind.layer('pairs')} with a lower floor, or raise the threshold",
        )
    scores = read_scores(lake, pair, wanted.scores, kind) if wanted.scores else None
    table = pairs.read_table("pairs.parquet", kind.pairs)
    filtered = _filtered(table.filter(pl.col("score") >= threshold), scores, wanted.limits)
    selected = select_non_overlapping(filtered.kept, wanted.selection, floor=threshold)
    corpus = corpus_frame(selected.frame, *_sides(lake, kind, pair, selected.frame), pair, scores, scoring)
    by_threshold = _hours(pairs, _filtered(table, scores, wanted.limits).kept if scores is not None else None, floor)
    with lake.replace(kind.layer("corpus"), pair) as new:
        new.write_table("corpus.parquet", corpus, corpus_schema(wanted.scores, kind))
        write_manifest(corpus, new.path("manifest.tsv.gz"))
        new.write_table("hours.parquet", by_threshold, HOURS)
        new.write_json("selection.json", _record(wanted, selected, filtered.dropped))
    cost = _filter_figures(wanted, filtered.dropped)
    return {"selection": wanted.selection, **_figures(kind, pair, corpus, selected, by_threshold, threshold), **cost}


def _filtered(pairs: pl.DataFrame, scores: pl.DataFrame | None, limits: FilterLimits) -> Filtered:
    """Pairs without those that break a limit; all of them where no filter is on."""
    if scores is None:
        return within_limits(pairs, FilterLimits())
    found = within_limits(with_scores(pairs, scores), limits)
    return Filtered(found.kept.select(list(pairs.columns)), found.dropped)


def _sides(lake: Lake, kind: Kind, pair: str, selected: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is told of either side: its recordings, or the sentences that were selected."""
    modalities = {"source": kind.source, "target": kind.target}
    source, target = (
        lake.read_tables("raw_audio", language, name="recordings.parquet", schema=RECORDINGS)
        if modalities[side] == "speech"
        else written(lake, language, selected.select(shard=f"{side}_shard", shard_row=f"{side}_shard_row"))
        for side, language in zip(modalities, split(pair), strict=True)
    )
    return source, target


def _hours(pairs: Partition, kept: pl.DataFrame | None, floor: float) -> pl.DataFrame:
    """Hours at every threshold, of all pairs or of those that the filters leave."""
    if kept is None:
        return hours_by_threshold(pairs.local_path("pairs.parquet"), floor=floor)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.parquet"
        kept.write_parquet(file)
        return hours_by_threshold(file, floor=floor)


def _record(wanted: _Wanted, selected: Selected, dropped: pl.DataFrame) -> dict[str, Any]:
    """What the corpus was made with, as kept beside it."""
    plain = {"threshold": wanted.threshold, "selection": wanted.selection, "counts": dict(selected.counts)}
    return {**plain, "limits": asdict(wanted.limits), "filtered": dropped.to_dicts()} if wanted.scores else plain


def _filter_figures(wanted: _Wanted, dropped: pl.DataFrame) -> dict[str, Any]:
    """Limits and what each cost; nothing where no filter is on."""
    limits = {name: limit for name, limit in asdict(wanted.limits).items() if limit is not None}
    return {**limits, "filtered": rows(dropped)} if wanted.scores else {}


def _figures(
    kind: Kind, pair: str, corpus: pl.DataFrame, selected: Selected, by_threshold: pl.DataFrame, threshold: float
) -> dict[str, Any]:
    from speech_mining.quality.plots import as_markdown_image, plot_hours

    spoken = {
        **{f"{side}_hours": hours(samples_of(corpus, side)) for side in kind.spoken},
        "hours_per_threshold": plot(
            as_markdown_image(plot_hours(by_threshold, threshold, title=pair)),
            "Sum counts every pair, union every stretch of speech once, post-processed what is left of the best first.",
        ),
    }
    silent = {"source", "target"} - set(kind.spoken)
    return {
        "dagster/row_count": corpus.height,
        "threshold": threshold,
        **(spoken if kind.spoken else {}),
        "hours": rows(by_threshold.select(name for name in HOURS if name.partition("_")[0] not in silent), limit=60),
        "counts": counted(selected.counts),
        "sample": rows(corpus, limit=15),
    }
