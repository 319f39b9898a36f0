"""Segmenting a whole audiobook: a recording that cannot be used is a rejection, and the rest of the book survives.

What belongs here is the walk over recordings; one recording is `segmenter`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from speech_mining.audio.decode import check_duration
from speech_mining.errors import AudioError
from speech_mining.progress import Progress, silent
from speech_mining.records import REJECTIONS, SEGMENTS, Schema, conform
from speech_mining.segmentation.segmenter import (
    SegmentationConfig,
    SegmentedRecording,
    rejected_recording,
    segment_recording,
)

SECTIONS: Schema = {
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "duration_s": pl.Float64(),  # as decoded
    "announced_s": pl.Int32(),
    "speech_s": pl.Float64(),
    "runs": pl.Int32(),
    "resplit_runs": pl.Int32(),
    "candidates": pl.Int64(),
    "coverage": pl.Float64(),  # share of the speech that lies in a candidate, 0..1
    "skipped_packets": pl.Int64(),
}


@dataclass(frozen=True, eq=False)
class SegmentedAudiobook:
    """What was found in a book."""

    segments: pl.DataFrame
    """`records.SEGMENTS`, by section, then start, then end."""
    rejections: pl.DataFrame
    """`records.REJECTIONS`: whole recordings that gave nothing, and why."""
    sections: pl.DataFrame
    """`SECTIONS`: the figures of every recording that could be decoded."""


@dataclass(frozen=True)
class Recording:
    """A file to segment."""

    section: int
    path: Path
    announced_s: int | None


def segment_audiobook(
    audiobook: str,
    recordings: list[Recording],
    config: SegmentationConfig | None = None,
    *,
    progress: Progress = silent,
) -> SegmentedAudiobook:
    """Segment every recording of a book.

    Args:
        audiobook: its id.
        recordings: in order of section.
        config: lengths and thresholds.
        progress: told the number of recordings done.
    """
    segments, rejections, sections = [], [], []
    for number, recording in enumerate(recordings, start=1):
        try:
            found = segment_recording(recording.path, audiobook=audiobook, section=recording.section, config=config)
            check_duration(found.report.decoding, recording.announced_s)
        except AudioError as error:
            rejections.append(rejected_recording(audiobook, recording.section, error.reason, str(error)))
        else:
            segments.append(found.segments)
            rejections.append(found.rejections)
            sections.append(_figures(audiobook, recording, found))
        progress(number, len(recordings))
    return SegmentedAudiobook(
        pl.concat([pl.DataFrame(schema=dict(SEGMENTS)), *segments]),
        pl.concat([pl.DataFrame(schema=dict(REJECTIONS)), *rejections]),
        conform(pl.DataFrame(sections, schema=dict(SECTIONS)), SECTIONS, "sections"),
    )


def _figures(audiobook: str, recording: Recording, found: SegmentedRecording) -> Mapping[str, Any]:
    report = found.report
    return {
        "audiobook": audiobook,
        "section": recording.section,
        "duration_s": report.duration_s,
        "announced_s": recording.announced_s,
        "speech_s": report.speech_s,
        "runs": report.runs,
        "resplit_runs": report.resplit_runs,
        "candidates": report.candidates,
        "coverage": report.coverage,
        "skipped_packets": report.decoding.skipped_packets,
    }
