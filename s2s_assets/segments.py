"""`segments`: every candidate span between two silences of a book's recordings.

What belongs here is the layer; how speech is found and cut is in `speech_mining.segmentation`.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from partitions.audiobooks import BATCH, audiobooks, each_audiobook
from partitions.languages import layer
from resources.compute import CPU, OWNERS
from resources.metadata import column_schema, hours, rejected, rows
from resources.settings import SegmentationSettings
from resources.storage import Lake, Storage
from speech_mining.errors import SpeechMiningError
from speech_mining.records import RECORDINGS, REJECTIONS, SEGMENTS
from speech_mining.segmentation import segmenter
from speech_mining.segmentation.audiobook import SECTIONS, Recording, SegmentedAudiobook, segment_audiobook
from speech_mining.segmentation.segmenter import SegmentationConfig
from speech_mining.segmentation.voice_activity import VoiceActivity


def segments(language: str, settings: SegmentationSettings) -> dg.AssetsDefinition:
    """The layer of one language."""
    config = SegmentationConfig(
        min_s=settings.min_s,
        max_s=settings.max_s,
        voice_activity=VoiceActivity(threshold=settings.threshold, min_silence_ms=settings.min_silence_ms),
    )

    @dg.asset(
        key=layer(language, "segments"),
        deps=[layer(language, "raw_audio")],
        partitions_def=audiobooks(language),
        backfill_policy=BATCH,
        automation_condition=dg.AutomationCondition.eager(),
        group_name=language,
        kinds={"onnx", "parquet"},
        owners=OWNERS,
        tags={"language": language},
        pool=CPU,
        code_version=f"{segmenter.VERSION}/{settings.min_s}-{settings.max_s}/{settings.min_silence_ms}",
        metadata={"dagster/column_schema": column_schema(SEGMENTS)},
    )
    def _segments(context: dg.AssetExecutionContext, storage: Storage) -> None:
        """Every span between two silences, 3 to 20 s long: a sentence, half of one, or two.

        Which of them say something that is said in another language is found later; here nothing is thrown away.
        """
        each_audiobook(
            context, lambda book: _segment(storage.lake, language, book, config), (SpeechMiningError, OSError)
        )

    return _segments


def _segment(lake: Lake, language: str, book: str, config: SegmentationConfig) -> Mapping[str, Any]:
    audio = lake.partition("raw_audio", language, book)
    recordings = [
        Recording(section, audio.local_path(file), announced_s)
        for section, file, announced_s in audio.read_table("recordings.parquet", RECORDINGS)
        .select("section", "file", "announced_s")
        .iter_rows()
    ]
    found = segment_audiobook(book, recordings, config)
    with lake.replace("segments", language, book) as new:
        new.write_table("segments.parquet", found.segments, SEGMENTS)
        new.write_table("rejections.parquet", found.rejections, REJECTIONS)
        new.write_table("sections.parquet", found.sections, SECTIONS)
    return {**_figures(found), "data_version": lake.partition("segments", language, book).data_version}


def _figures(found: SegmentedAudiobook) -> dict[str, Any]:
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
        "skipped_packets": int(found.sections["skipped_packets"].sum()),
        "sections": rows(found.sections, limit=60),
        "sample": rows(found.segments, limit=10),
        **rejected(found.rejections),
    }
