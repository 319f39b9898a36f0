"""Segmenting a whole audiobook: a recording that cannot be used is a rejection, and the rest of the book survives.

What belongs here is the walk over recordings; one recording is `segmenter`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from speech_mining.audio.decode import check_duration
from speech_mining.errors import AudioError
from speech_mining.progress import Progress, silent
from speech_mining.records import REJECTIONS, SEGMENTS, Schema, conform
from speech_mining.segmentation.segmenter import (
    GivenSpan,
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
    "candidates": pl.Int64(),  # segments that are kept: none of a recording that is rejected
    "left_out": pl.Int64(),  # candidates that a limit left out
    "coverage": pl.Float64(),  # share of the speech that lies in a candidate, 0..1
    "skipped_packets": pl.Int64(),
    "lost_s": pl.Float64(),  # audio that could not be decoded
    "profile": pl.Enum(["speech", "music_or_noise", "silence"]),
    "given": pl.Boolean(),  # the segments are spans that a user brought
    "rejected": pl.Boolean(),  # far from its announced length; nothing of it is kept
}
RUNS: Schema = {
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "run": pl.Int32(),  # what first_run and last_run of a segment count, from 0 in each recording
    "start_sample": pl.Int64(),
    "end_sample": pl.Int64(),
    "before_sample": pl.Int64(),  # where a segment is cut that begins with the run
    "after_sample": pl.Int64(),  # where a segment is cut that ends with it
}
GIVEN_COLUMNS = ("audiobook", "section", "start_sample", "end_sample")


@dataclass(frozen=True, eq=False)
class SegmentedAudiobook:
    """What was found in a book."""

    segments: pl.DataFrame
    """`records.SEGMENTS`, by section, then start, then end."""
    rejections: pl.DataFrame
    """`records.REJECTIONS`: whole recordings that gave nothing, and why."""
    sections: pl.DataFrame
    """`SECTIONS`: the figures of every recording that could be decoded."""
    runs: pl.DataFrame
    """`RUNS`: runs of speech (or, where spans were given, the slots between their boundaries) of what is kept."""


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
    given: pl.DataFrame | None = None,
    progress: Progress = silent,
) -> SegmentedAudiobook:
    """Segment every recording of a book.

    Args:
        audiobook: its id.
        recordings: in order of section.
        config: lengths and thresholds.
        given: spans that a user brings (`records.TIMESTAMPS`; rows of other books are passed over). A section that has
            some is cut exactly there, whatever their length; a section that has none is cut between silences.
        progress: told the number of recordings done.
    """
    spans = _given_spans(audiobook, given)
    book = _Book(audiobook, [], [_orphans(audiobook, spans, recordings)], [], [])
    for number, recording in enumerate(recordings, start=1):
        of_section = spans.get(recording.section)
        try:
            found = segment_recording(
                recording.path, audiobook=audiobook, section=recording.section, config=config, given=of_section
            )
        except AudioError as error:
            book.rejections.append(rejected_recording(audiobook, recording.section, error.reason, str(error)))
        else:
            book.take(recording, found, given=of_section is not None)
        progress(number, len(recordings))
    return book.closed()


@dataclass(frozen=True, eq=False)
class _Book:
    """The tables of a book while they grow."""

    audiobook: str
    segments: list[pl.DataFrame]
    rejections: list[pl.DataFrame]
    sections: list[Mapping[str, Any]]
    runs: list[pl.DataFrame]

    def take(self, recording: Recording, found: SegmentedRecording, *, given: bool) -> None:
        """Add a recording; of one that is not what was announced only the figures are kept, and the reason."""
        fault = _duration_fault(recording, found)
        self.sections.append(_figures(self.audiobook, recording, found, given=given, rejected=fault is not None))
        if fault is not None:
            self.rejections.append(rejected_recording(self.audiobook, recording.section, fault.reason, str(fault)))
            return
        self.segments.append(found.segments)
        self.rejections.append(found.rejections)
        self.runs.append(_run_rows(self.audiobook, recording.section, found))

    def closed(self) -> SegmentedAudiobook:
        """The tables."""
        return SegmentedAudiobook(
            pl.concat([pl.DataFrame(schema=dict(SEGMENTS)), *self.segments]),
            pl.concat([pl.DataFrame(schema=dict(REJECTIONS)), *self.rejections]),
            conform(pl.DataFrame(self.sections, schema=dict(SECTIONS)), SECTIONS, "sections"),
            pl.concat([pl.DataFrame(schema=dict(RUNS)), *self.runs]),
        )


def _duration_fault(recording: Recording, found: SegmentedRecording) -> AudioError | None:
    try:
        check_duration(found.report.decoding, recording.announced_s)
    except AudioError as error:
        return error
    return None


def _given_spans(audiobook: str, given: pl.DataFrame | None) -> dict[int, list[GivenSpan]]:
    """Section → its spans, in the order given."""
    spans: dict[int, list[GivenSpan]] = {}
    if given is not None:
        of_book = given.filter(pl.col("audiobook") == audiobook)
        for _, section, start, end in of_book.select(GIVEN_COLUMNS).iter_rows():
            spans.setdefault(section, []).append((start, end))
    return spans


def _orphans(audiobook: str, spans: Mapping[int, list[GivenSpan]], recordings: list[Recording]) -> pl.DataFrame:
    """Spans of sections that have no recording: one rejection a section, so that nothing given vanishes unseen."""
    known = {recording.section for recording in recordings}
    rows = [
        {
            "audiobook": audiobook,
            "section": section,
            "start_sample": None,
            "end_sample": None,
            "reason": "not_found",
            "detail": f"{len(of_section)} spans are given of section {section}, which has no recording",
        }
        for section, of_section in spans.items()
        if section not in known
    ]
    return pl.DataFrame(rows, schema=dict(REJECTIONS))


def _run_rows(audiobook: str, section: int, found: SegmentedRecording) -> pl.DataFrame:
    runs = found.runs
    frame = pl.DataFrame(
        {
            "run": np.arange(len(runs)),
            "start_sample": runs.starts,
            "end_sample": runs.ends,
            "before_sample": runs.before,
            "after_sample": runs.after,
        }
    ).with_columns(audiobook=pl.lit(audiobook), section=pl.lit(section))
    return conform(frame, RUNS, "runs")


def _figures(
    audiobook: str, recording: Recording, found: SegmentedRecording, *, given: bool, rejected: bool
) -> Mapping[str, Any]:
    report = found.report
    return {
        "audiobook": audiobook,
        "section": recording.section,
        "duration_s": report.duration_s,
        "announced_s": recording.announced_s,
        "speech_s": report.speech_s,
        "runs": report.runs,
        "resplit_runs": report.resplit_runs,
        "candidates": 0 if rejected else report.candidates,
        "left_out": report.left_out,
        "coverage": 0.0 if rejected else report.coverage,
        "skipped_packets": report.decoding.skipped_packets,
        "lost_s": report.decoding.lost_s,
        "profile": report.profile,
        "given": given,
        "rejected": rejected,
    }
