"""One audiobook, from its recordings in the lake to its segments in the lake.

What belongs here is the step as a whole, for whoever takes it: an asset, or the command. How a recording is segmented
is in `segmenter`, what becomes of those that cannot be in `audiobook`.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from speech_mining.lake import Lake, Partition
from speech_mining.progress import Progress, silent
from speech_mining.records import RECORDINGS, REJECTIONS, SEGMENTS
from speech_mining.segmentation.audiobook import RUNS, SECTIONS, Recording, SegmentedAudiobook, segment_audiobook
from speech_mining.segmentation.segmenter import SegmentationConfig, code_version, parameters
from speech_mining.sources.quarantine import Quarantine, Refusal
from speech_mining.sources.renewal import given_spans

LAYER = "segments"
BROKEN = frozenset({"empty_file", "not_audio", "no_audio", "damaged", "duration_mismatch"})
"""Why a recording is put where a person may look at it; one without speech is whole."""


@dataclass(frozen=True, eq=False)
class Segmented:
    """A book whose segments are in the lake."""

    found: SegmentedAudiobook
    data_version: str


def bring_segments(
    lake: Lake,
    language: str,
    audiobook: str,
    config: SegmentationConfig,
    *,
    quarantine: Quarantine | None = None,
    progress: Progress = silent,
) -> Segmented:
    """Segment the recordings of a book and publish its partition of `segments`.

    Args:
        lake: has the recordings, and in its catalogue the spans that a source may have brought.
        language: ISO 639-3.
        audiobook: its id.
        config: lengths and thresholds.
        quarantine: where recordings that cannot be decoded are copied to.
        progress: told the number of recordings done.

    Raises:
        LakeError: its recordings are not there.
    """
    audio = lake.partition("raw_audio", language, audiobook)
    table = audio.read_table("recordings.parquet", RECORDINGS)
    recordings = [
        Recording(section, audio.local_path(file), announced_s)
        for section, file, announced_s in table.select("section", "file", "announced_s").iter_rows()
    ]
    spans = given_spans(lake, language, audiobook)
    given = spans if spans.height else None
    found = segment_audiobook(audiobook, recordings, config, given=given, progress=progress)
    with lake.replace(LAYER, language, audiobook) as new:
        new.write_table("segments.parquet", found.segments, SEGMENTS)
        new.write_table("rejections.parquet", found.rejections, REJECTIONS)
        new.write_table("sections.parquet", found.sections, SECTIONS)
        new.write_table("runs.parquet", found.runs, RUNS)
        new.write_json("segmentation.json", {"code_version": code_version(config), "parameters": parameters(config)})
    if quarantine is not None:
        _quarantine(quarantine, audio, table, found.rejections)
    return Segmented(found, lake.partition(LAYER, language, audiobook).data_version)


def _quarantine(quarantine: Quarantine, audio: Partition, recordings: pl.DataFrame, rejections: pl.DataFrame) -> None:
    """Copy what is broken, with its reason; forget what is whole by now."""
    whole = rejections.filter(pl.col("start_sample").is_null() & pl.col("reason").is_in(sorted(BROKEN)))
    broken = {
        section: (reason, detail) for section, reason, detail in whole.select("section", "reason", "detail").rows()
    }
    for row in recordings.iter_rows(named=True):
        if row["section"] not in broken:
            quarantine.release(row["language"], row["audiobook"], row["section"])
            continue
        reason, detail = broken[row["section"]]
        refusal = Refusal(
            language=row["language"],
            audiobook=row["audiobook"],
            section=row["section"],
            reason=reason,
            found=detail,
            expected="a recording that can be decoded, of the length announced",
            url=row["url"],
        )
        quarantine.put(audio.local_path(row["file"]), refusal)
