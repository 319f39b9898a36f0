"""From a recording to its candidate segments, in one pass over the file and at flat memory.

What belongs here is the order of the steps and the tables that come out. How each step is done stands in the module
named for it. Importing this is light: av, soxr and onnxruntime are loaded when a recording is segmented.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.audio.decode import MAX_BAD_SHARE, Decoded, DecodeReport, decode
from speech_mining.errors import SettingsError
from speech_mining.progress import Progress, silent
from speech_mining.records import (
    REJECTIONS,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_MS,
    SEGMENTS,
    conform,
    segment_id,
)
from speech_mining.segmentation.candidates import candidate_spans, covered_runs, long_gaps, speech_within
from speech_mining.segmentation.cut_points import (
    ENERGY_SAMPLES,
    CutRuns,
    block_energies,
    cut_runs,
    split_long_runs,
)
from speech_mining.segmentation.voice_activity import SileroStream, VoiceActivity, speech_runs

VERSION = "1/silero-6.2.3"
"""Changes whenever the same recording and settings would give other segments; the `code_version` of what is made."""

# Whole frames for the model (512) and the energies (80). The fastest of 64 to 2000 frames a block, and among the
# smallest: 8 s.
_BLOCK_SAMPLES = 250 * 512
_SILENCE_DBFS = -120.0


@dataclass(frozen=True)
class SegmentationConfig:
    """Which spans of a recording become candidates."""

    min_s: float = 3.0
    """Shortest segment, inclusive."""
    max_s: float = 20.0
    """Longest segment, inclusive."""
    max_gap_ms: int | None = None
    """Longest silence inside a segment; None, as in the paper: any."""
    max_pad_ms: int = 300
    """A segment begins and ends at most this far from its speech."""
    max_bad_share: float = MAX_BAD_SHARE
    """Share of undecodable packets above which a recording is damaged."""
    voice_activity: VoiceActivity = field(default_factory=VoiceActivity)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_s) and math.isfinite(self.max_s) and self.min_s > 0):
            raise SettingsError(
                f"Segments of {self.min_s} to {self.max_s} seconds were asked for.",
                expected="two positive numbers of seconds",
            )
        if self.min_s >= self.max_s:
            raise SettingsError(
                f"The shortest segment ({self.min_s} s) is not shorter than the longest ({self.max_s} s).",
                expected="min_s below max_s",
                cause="the two were swapped",
            )
        if not 0 <= self.max_pad_ms <= 250 * self.max_s:
            raise SettingsError(
                f"max_pad_ms is {self.max_pad_ms}.",
                expected=f"0 to {250 * self.max_s:.0f}, a quarter of the longest segment",
            )
        if self.max_gap_ms is not None and self.max_gap_ms < 0:
            raise SettingsError(f"max_gap_ms is {self.max_gap_ms}.", expected="zero or more, or none for no limit")
        if not 0 <= self.max_bad_share <= 1:
            raise SettingsError(f"max_bad_share is {self.max_bad_share}.", expected="a share between 0 and 1")


@dataclass(frozen=True)
class SegmentationReport:
    """The figures of one recording."""

    duration_s: float
    speech_s: float
    runs: int
    """Runs of speech, the pieces of split ones counted each."""
    resplit_runs: int
    """Runs with no silence that were longer than a segment may be, and were split at their quietest moments."""
    candidates: int
    coverage: float
    """Share of the speech that lies in at least one candidate, 0..1; 1 when there is no speech."""
    decoding: DecodeReport

    def as_dict(self) -> dict[str, object]:
        """All figures, `decoding` as a dictionary inside."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class SegmentedRecording:
    """What `segment_recording` found."""

    segments: pl.DataFrame
    """`records.SEGMENTS`, ordered by start, then end."""
    rejections: pl.DataFrame
    """`records.REJECTIONS`: one row when the recording gives no segment, else none."""
    report: SegmentationReport


def segment_recording(
    path: Path,
    *,
    audiobook: str,
    section: int,
    config: SegmentationConfig | None = None,
    progress: Progress = silent,
) -> SegmentedRecording:
    """Find every candidate segment of a recording.

    Args:
        path: a local audio file, any container that `speech_mining.audio.decode` accepts.
        audiobook: id of the book, part of every `segment_id`.
        section: 1-based position in the book, part of every `segment_id`.
        config: lengths and thresholds; None for the defaults.
        progress: told how many bytes of the file are read.

    Returns:
        segments, rejections and figures. A recording without usable speech is not an error: it has no segments, and
        one rejection with the reason "no_speech" or "too_short".

    Raises:
        AudioError: the file cannot be decoded; see `speech_mining.audio.decode.decode`.
    """
    config = config or SegmentationConfig()
    decoded = decode(path, max_bad_share=config.max_bad_share)
    probabilities, energies = _listen(decoded, progress)
    samples = decoded.report.samples
    starts, ends = speech_runs(probabilities, samples, config.voice_activity)
    runs = cut_runs(starts, ends, energies, samples, config.max_pad_ms * SAMPLES_PER_MS)
    shortest, longest = math.ceil(config.min_s * SAMPLE_RATE_HZ), math.floor(config.max_s * SAMPLE_RATE_HZ)
    runs, resplit = split_long_runs(runs, energies, shortest, longest)
    first, last = candidate_spans(runs.before, runs.after, shortest, longest, _breaks(runs, config))
    report = _report(runs, first, last, resplit, decoded.report)
    segments = _segments(runs, first, last, energies, samples, audiobook, section)
    return SegmentedRecording(segments, _rejections(report, config, audiobook, section), report)


def rejected_recording(audiobook: str, section: int, reason: str, detail: str) -> pl.DataFrame:
    """One row of `records.REJECTIONS` for a whole recording."""
    row = {
        "audiobook": audiobook,
        "section": section,
        "start_sample": None,
        "end_sample": None,
        "reason": reason,
        "detail": detail,
    }
    return conform(pl.DataFrame([row]), REJECTIONS, "rejections")


def _listen(decoded: Decoded, progress: Progress) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Decode once, and keep of every block only what later steps need: 0.9 kB a second."""
    model = SileroStream()
    probabilities, energies = [], []
    for block in decoded.blocks(_BLOCK_SAMPLES):
        probabilities.append(model(block))
        energies.append(block_energies(block))
        progress(decoded.bytes_done, decoded.bytes_total)
    progress(decoded.bytes_total, decoded.bytes_total)
    return np.concatenate(probabilities), np.concatenate(energies)


def _breaks(runs: CutRuns, config: SegmentationConfig) -> npt.NDArray[np.bool_] | None:
    if config.max_gap_ms is None:
        return None
    return long_gaps(runs.starts, runs.ends, config.max_gap_ms * SAMPLES_PER_MS)


def _report(
    runs: CutRuns,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    resplit: int,
    decoding: DecodeReport,
) -> SegmentationReport:
    lengths = runs.ends - runs.starts
    speech = int(lengths.sum())
    covered = int(lengths[covered_runs(len(runs), first, last)].sum())
    return SegmentationReport(
        duration_s=decoding.duration_s,
        speech_s=speech / SAMPLE_RATE_HZ,
        runs=len(runs),
        resplit_runs=resplit,
        candidates=len(first),
        coverage=covered / speech if speech else 1.0,
        decoding=decoding,
    )


def _segments(
    runs: CutRuns,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    energies: npt.NDArray[np.float32],
    samples: int,
    audiobook: str,
    section: int,
) -> pl.DataFrame:
    starts, ends = runs.before[first], runs.after[last]
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    frame = pl.DataFrame(
        {
            "segment_id": pl.Series([segment_id(audiobook, section, *span) for span in spans], dtype=pl.Int64),
            "start_sample": starts,
            "end_sample": ends,
            "start_ms": starts // SAMPLES_PER_MS,
            "end_ms": ends // SAMPLES_PER_MS,
            "first_run": first,
            "last_run": last,
            "level_dbfs": _levels(energies, samples, starts, ends),
            "coverage": speech_within(runs.starts, runs.ends, first, last) / np.maximum(ends - starts, 1),
        }
    ).with_columns(audiobook=pl.lit(audiobook), section=pl.lit(section))
    return conform(frame, SEGMENTS, "segments")


def _levels(
    energies: npt.NDArray[np.float32], samples: int, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """RMS level in dB below full scale: 10 log10(mean of squares), not below -120."""
    grid = np.minimum(np.arange(len(energies) + 1) * ENERGY_SAMPLES, samples)
    total = np.concatenate(([0.0], np.cumsum(energies, dtype=np.float64)))
    power = (np.interp(ends, grid, total) - np.interp(starts, grid, total)) / np.maximum(ends - starts, 1)
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (_SILENCE_DBFS / 10))), dtype=np.float64)


def _rejections(report: SegmentationReport, config: SegmentationConfig, audiobook: str, section: int) -> pl.DataFrame:
    if report.candidates:
        return pl.DataFrame(schema=dict(REJECTIONS))
    if not report.runs:
        detail = f"no speech in {report.duration_s:.1f} s"
        return rejected_recording(audiobook, section, "no_speech", detail)
    detail = f"{report.speech_s:.1f} s of speech, and no span of {config.min_s:g} to {config.max_s:g} s"
    return rejected_recording(audiobook, section, "too_short", detail)
