"""`segments`: every candidate span between two silences of a book's recordings.

What belongs here is the layer; how speech is found and cut is in `speech_mining.segmentation`.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from partitions.audiobooks import audiobooks
from partitions.batches import BATCH, books_of_run, each_partition
from partitions.languages import layer
from resources.compute import CPU, OWNERS, pod_retries, step_tags
from resources.conditions import when_updated
from resources.findings import Findings
from resources.layer_checks import LayerCheck
from resources.metadata import column_schema, counted, hours, plot, rejected, rows
from resources.segmentation import segmentation_of
from resources.settings import Settings
from resources.storage import Storage
from speech_mining.errors import SpeechMiningError
from speech_mining.quality.checks import CheckOutcome
from speech_mining.records import SEGMENTS
from speech_mining.segmentation.audiobook import SECTIONS, SegmentedAudiobook
from speech_mining.segmentation.book import bring_segments
from speech_mining.segmentation.segmenter import SegmentationConfig, code_version


def segments(language: str, settings: Settings) -> dg.AssetsDefinition:
    """The layer of one language."""
    config = segmentation_of(settings.segmentation)

    @dg.asset(
        key=layer(language, "segments"),
        deps=[layer(language, "raw_audio")],
        partitions_def=audiobooks(language),
        backfill_policy=BATCH,
        automation_condition=when_updated(),
        group_name=language,
        kinds={"onnx", "parquet"},
        owners=OWNERS,
        tags={"language": language},
        op_tags=step_tags(CPU, layer(language, "segments"), settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version=code_version(config),
        metadata={"dagster/column_schema": column_schema(SEGMENTS)},
    )
    def _segments(context: dg.AssetExecutionContext, storage: Storage) -> None:
        """Every span between two silences, 3 to 20 s long: a sentence, half of one, or two.

        Which of them say something that is said in another language is found later; here nothing is thrown away.
        """
        each_partition(context, lambda book: _segment(storage, language, book, config), (SpeechMiningError, OSError))

    return _segments


def sounds_like_speech() -> LayerCheck:
    """A warning that names the sections which sound like music, noise or nothing; they are kept, for a person to judge.

    It looks at the audiobooks of its run, and tells of the whole language.
    """

    def judge(storage: Storage, language: str) -> dg.AssetCheckResult:
        """Every section sounds like somebody reading, by how much of its sound is speech, and in what runs."""
        findings = Findings(storage.lake, language, "sounds_like_speech")
        books = findings.to_look_at(layer(language, "segments"), books_of_run(language))
        looked: list[pl.DataFrame] = []

        def look(book: str) -> CheckOutcome:
            looked.append(storage.lake.partition("segments", language, book).read_table("sections.parquet", SECTIONS))
            odd = looked[-1].filter(pl.col("profile") != "speech")
            return CheckOutcome(odd.is_empty(), odd, {})

        found = findings.judge("segments", books, look)
        sections = pl.concat([pl.DataFrame(schema=dict(SECTIONS)), *looked])
        evidence = {} if found.passed else {"offending_rows": rows(found.offending)}
        return dg.AssetCheckResult(
            passed=found.passed,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"sections": sections.height, "profiles": _profiles(sections), **evidence},
        )

    return LayerCheck("segments", "sounds_like_speech", judge)


def _segment(storage: Storage, language: str, book: str, config: SegmentationConfig) -> Mapping[str, Any]:
    made = bring_segments(storage.lake, language, book, config, quarantine=storage.quarantine)
    return {**_figures(made.found, book), "data_version": made.data_version}


def _figures(found: SegmentedAudiobook, book: str) -> dict[str, Any]:
    from speech_mining.quality.plots import as_markdown_image, plot_audiobook

    spans = found.segments.select((pl.col("end_sample") - pl.col("start_sample")).sum()).item() or 0
    speech_s = float(found.sections["speech_s"].sum())
    covered_s = float((found.sections["speech_s"] * found.sections["coverage"]).sum())
    return {
        "dagster/row_count": found.segments.height,
        "recordings": found.sections.height,
        "audio_hours": round(float(found.sections["duration_s"].sum()) / 3600, 4),
        "speech_hours": round(speech_s / 3600, 4),
        "segment_hours": hours(spans),
        "coverage": round(covered_s / speech_s, 4) if speech_s else 1.0,
        "resplit_runs": int(found.sections["resplit_runs"].sum()),
        "left_out_by_limits": int(found.sections["left_out"].sum()),
        "skipped_packets": int(found.sections["skipped_packets"].sum()),
        "undecodable_seconds": round(float(found.sections["lost_s"].sum()), 2),
        "profiles": _profiles(found.sections),
        "plot": plot(
            as_markdown_image(plot_audiobook(found.sections, found.runs, found.segments, book)),
            "A row a section: blue where segments lie (the darker, the more), red where speech is in none; right, the "
            "share of the speech that is covered.",
        ),
        "sections": rows(found.sections, limit=60),
        "sample": rows(found.segments, limit=10),
        **rejected(found.rejections),
    }


def _profiles(sections: pl.DataFrame) -> dg.JsonMetadataValue:
    """How many sections sound like what."""
    told = sections.group_by("profile").len()
    return counted(dict(zip(told["profile"].cast(pl.String), told["len"], strict=True)))
