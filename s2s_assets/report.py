"""`quality_report`: all corpora side by side; `truth_comparison`: what is right in them, where the truth is known.

What belongs here is the layers; the counting is in `speech_mining.quality`, the comparison in
`speech_mining.evaluation`.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from resources.compute import CPU, OWNERS, pod_retries, step_tags
from resources.conditions import eager_with_what_is_there_and_when_changed
from resources.judgements import known_judgements
from resources.metadata import plot, rows
from resources.settings import Settings
from resources.storage import Lake, Storage, published
from resources.transcripts import known_transcripts
from resources.truth import COMPARED, known_truths
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.quality.hours import hours_together
from speech_mining.quality.summary import Mined, Summary, precision_of, recall_of, summarise

PAGE = "report.html"


def _all_corpora(settings: Settings, kinds: Sequence[Kind] = KINDS) -> list[dg.AssetDep]:
    return [
        dg.AssetDep(kind.layer("corpus"), partition_mapping=dg.AllPartitionMapping())
        for kind in kinds
        if settings.pairs_of(kind.name)
    ]


def quality_report(settings: Settings) -> dg.AssetsDefinition:
    """The report over every pair."""

    @dg.asset(
        key="quality_report",
        deps=_all_corpora(settings),
        automation_condition=eager_with_what_is_there_and_when_changed(),
        group_name="quality",
        kinds={"duckdb", "parquet"},
        owners=OWNERS,
        op_tags=step_tags(CPU, "quality_report", settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version="2",
    )
    def _quality_report(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """Hours of every corpus at every threshold, three ways and on both sides: sum, union, post-processed.

        `report.html` tells it in one file that needs no network, with pairs of every corpus to listen to.
        """
        mined = [Mined(kind, settings.pairs_of(kind.name)) for kind in KINDS]
        summary = summarise(storage.lake, settings.languages, mined)
        hours = _hours(summary)
        with storage.lake.replace("quality_report") as new:
            new.write_frame("hours.parquet", hours)
            new.write_frame("pairs.parquet", _pairs(summary))
            new.write_json("summary.json", summary.as_dict())
            new.path(PAGE).write_text(_page(storage.lake, settings, summary), "utf-8")
        figures = _figures(summary, hours, settings.mining.threshold)
        figures["page"] = dg.MetadataValue.path(str(storage.lake.partition("quality_report").path(PAGE)))
        return published(storage.lake, figures, "quality_report")

    return _quality_report


def _page(lake: Lake, settings: Settings, summary: Summary) -> str:
    from speech_mining.report import report_html

    return report_html(lake, summary, transcripts=known_transcripts(settings), judged=known_judgements(settings))


def truth_comparison(settings: Settings) -> dg.AssetsDefinition:
    """The comparison with known translations; only there when settings name a truth."""

    @dg.asset(
        key="truth_comparison",
        deps=_all_corpora(settings, COMPARED),
        automation_condition=eager_with_what_is_there_and_when_changed(),
        group_name="quality",
        kinds={"parquet"},
        owners=OWNERS,
        op_tags=step_tags(CPU, "truth_comparison", settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version="1",
    )
    def _truth_comparison(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """Precision and recall of every corpus against the known translations.

        A pair is right when its spans overlap the true sentences by more than half of their union, and its text is the
        true one. No other asset reads the truth.
        """
        summary = summarise(storage.lake, settings.languages, known_truths(settings))
        compared = _compared(summary)
        wrong, missed = (_joined(summary, kind) for kind in ("wrong", "missed"))
        with storage.lake.replace("truth_comparison") as new:
            new.write_frame("comparison.parquet", compared)
            new.write_frame("wrong.parquet", wrong)
            new.write_frame("missed.parquet", missed)
            new.write_json("summary.json", summary.as_dict())
        text = [pair for pair in summary.with_text if pair.comparison]
        written = {
            "text_precision": round(precision_of(text) or 0.0, 4),
            "text_recall": round(recall_of(text) or 0.0, 4),
        }
        metadata = {
            "precision": round(summary.precision or 0.0, 4),
            "recall": round(summary.recall or 0.0, 4),
            **(written if text else {}),
            "by_pair": rows(compared, limit=100),
            "wrong": rows(wrong, limit=30),
            "missed": rows(missed, limit=30),
        }
        return published(storage.lake, metadata, "truth_comparison")

    return _truth_comparison


def _hours(summary: Summary) -> pl.DataFrame:
    tables = [pair.hours.select(pl.lit(pair.pair).alias("language_pair"), pl.all()) for pair in summary.language_pairs]
    return pl.concat(tables) if tables else pl.DataFrame({"language_pair": [], "threshold": []})


def _pairs(summary: Summary) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "kind": pair.kind.name,
                "language_pair": pair.pair,
                "pairs": pair.pairs,
                "threshold": pair.threshold,
                "source_hours": None if pair.source_hours is None else round(pair.source_hours, 4),
                "target_hours": None if pair.target_hours is None else round(pair.target_hours, 4),
            }
            for pair in (*summary.language_pairs, *summary.with_text)
        ],
        infer_schema_length=None,
    )


def _figures(summary: Summary, hours: pl.DataFrame, threshold: float) -> dict[str, Any]:
    from speech_mining.quality.plots import as_markdown_image, plot_hours

    figures: dict[str, Any] = {
        "audiobooks": summary.audiobooks,
        "recordings": summary.recordings,
        "audio_hours": round(summary.audio_hours, 4),
        "segments": summary.segments,
        "pairs": summary.pairs,
        "by_pair": rows(_pairs(summary), limit=100),
    }
    if hours.height:
        total = hours_together([pair.hours for pair in summary.language_pairs])
        image = as_markdown_image(plot_hours(total, threshold, title="all pairs"))
        figures["hours_per_threshold"] = plot(image)
        figures["hours"] = rows(total, limit=60)
    return figures


def _compared(summary: Summary) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "kind": pair.kind.name,
                "language_pair": pair.pair,
                "precision": round(pair.comparison.precision, 4),
                "recall": round(pair.comparison.recall, 4),
                "right": pair.comparison.true_positives,
                "mined": pair.comparison.mined,
                "truths": pair.comparison.truths,
            }
            for pair in (*summary.language_pairs, *summary.with_text)
            if pair.comparison
        ]
    )


def _joined(summary: Summary, kind: str) -> pl.DataFrame:
    tables = [
        getattr(pair.comparison, kind).select(
            pl.lit(pair.kind.name).alias("kind"), pl.lit(pair.pair).alias("pair"), pl.all()
        )
        for pair in (*summary.language_pairs, *summary.with_text)
        if pair.comparison
    ]
    return pl.concat(tables, how="diagonal") if tables else pl.DataFrame()
