"""From a recording to its candidate segments, in one pass over the file and at flat memory.

What belongs here is the order of the steps and the tables that come out. How each step is done stands in the module
named for it. Importing this is light: av, soxr and onnxruntime are loaded when a recording is segmented.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
from speech_mining.segmentation import energy_detector
from speech_mining.segmentation.candidates import candidate_spans, covered_runs, long_gaps, speech_within
from speech_mining.segmentation.cut_points import (
    ENERGY_SAMPLES,
    CutRuns,
    block_energies,
    cut_runs,
    split_long_runs,
)
from speech_mining.segmentation.given_spans import RefusedSpan, checked_spans, merged_spans, slots, speech_before
from speech_mining.segmentation.limits import limited_spans, span_pauses
from speech_mining.segmentation.profile import Profile, profile_of
from speech_mining.segmentation.voice_activity import VoiceActivity, open_detector, speech_runs

VERSION = "1/silero-6.2.3"
"""Changes whenever the same recording and settings would give other segments; see `code_version`."""

GivenSpan = tuple[int | None, int | None]
"""First sample and end of a span that a user brings; one of them missing is a fault of the user's table."""

# Whole frames for the model (512) and the energies (80). The fastest of 64 to 2000 frames a block, and among the
# smallest: 8 s.
_BLOCK_SAMPLES = 250 * 512
_SILENCE_DBFS = -120.0
_ENVELOPE_POINTS = 1600  # twice the width of a picture; a recording of five hours keeps 6 kB


@dataclass(frozen=True)
class SegmentationConfig:
    """Which spans of a recording become candidates."""

    min_s: float = 3.0
    """Shortest segment, inclusive."""
    max_s: float = 20.0
    """Longest segment, inclusive."""
    max_gap_ms: int | None = None
    """Longest silence inside a segment; None, as in the paper: any."""
    max_per_hour: int | None = None
    """Most segments kept for an hour of recording, those between the longest silences; None: all."""
    max_ends: int | None = None
    """Most segments kept that begin at the same place; None: all."""
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
        for name in ("max_per_hour", "max_ends"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise SettingsError(f"{name} is {limit}.", expected="one or more, or none for no limit")
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
    left_out: int
    """Candidates that `max_per_hour` and `max_ends` left out; the speech covered is the same without them."""
    coverage: float
    """Share of the speech that lies in at least one candidate, 0..1; 1 when there is no speech."""
    profile: Profile
    """What the recording sounds like as a whole, see `profile.profile_of`."""
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
    """`records.REJECTIONS`: one row when the recording gives no segment, one for each given span that was refused."""
    runs: CutRuns
    """What `first_run` and `last_run` count: runs of speech, or the slots between given boundaries."""
    envelope: npt.NDArray[np.float32]
    """float32 (at most 1600,), the loudest 5 ms of each stretch as RMS, 0..1: enough for a picture."""
    report: SegmentationReport


def code_version(config: SegmentationConfig) -> str:
    """Name the code and the parameters in force: equal where the same recordings give the same segments.

    What is usually chosen is spelled out; anything else that differs from its default adds a hash of all parameters.
    """
    activity = config.voice_activity
    version = VERSION if activity.detector == "silero" else f"1/{energy_detector.VERSION}"
    named = f"{version}/{config.min_s}-{config.max_s}/{activity.min_silence_ms}"
    usual = SegmentationConfig(
        min_s=config.min_s,
        max_s=config.max_s,
        max_pad_ms=min(SegmentationConfig.max_pad_ms, int(250 * config.max_s)),
        voice_activity=VoiceActivity(min_silence_ms=activity.min_silence_ms, detector=activity.detector),
    )
    if config == usual:
        return named
    return f"{named}/{hashlib.sha256(json.dumps(parameters(config), sort_keys=True).encode()).hexdigest()[:12]}"


def parameters(config: SegmentationConfig) -> Mapping[str, Any]:
    """Every parameter in force, as plain values for JSON; those of `voice_activity` nested."""
    return asdict(config)


def segment_recording(
    path: Path,
    *,
    audiobook: str,
    section: int,
    config: SegmentationConfig | None = None,
    given: list[GivenSpan] | None = None,
    progress: Progress = silent,
) -> SegmentedRecording:
    """Find every candidate segment of a recording.

    Args:
        path: a local audio file, any container that `speech_mining.audio.decode` accepts.
        audiobook: id of the book, part of every `segment_id`.
        section: 1-based position in the book, part of every `segment_id`.
        config: lengths and thresholds; None for the defaults.
        given: spans that a user brings, in samples at 16 kHz: exactly they become segments, of whatever length; None:
            spans between silences.
        progress: told how many bytes of the file are read.

    Returns:
        segments, rejections and figures. A recording without usable speech is not an error: it has no segments, and
        one rejection with the reason "no_speech" or "too_short". A given span that lies outside the recording, or is
        none, is a rejection with the reason "out_of_range" or "malformed".

    Raises:
        AudioError: the file cannot be decoded; see `speech_mining.audio.decode.decode`.
    """
    config = config or SegmentationConfig()
    decoded = decode(path, max_bad_share=config.max_bad_share)
    probabilities, energies = _listen(decoded, config, progress)
    starts, ends = speech_runs(probabilities, decoded.report.samples, config.voice_activity)
    heard = _Heard(audiobook, section, decoded.report, energies, starts, ends)
    return _between_silences(heard, config) if given is None else _as_given(heard, given)


@dataclass(frozen=True, eq=False)
class _Heard:
    """What is known of a recording before any span is chosen."""

    audiobook: str
    section: int
    decoding: DecodeReport
    energies: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    @property
    def speech(self) -> int:
        """Samples of speech."""
        return int((self.ends - self.starts).sum())


def _between_silences(heard: _Heard, config: SegmentationConfig) -> SegmentedRecording:
    samples = heard.decoding.samples
    runs = cut_runs(heard.starts, heard.ends, heard.energies, samples, config.max_pad_ms * SAMPLES_PER_MS)
    shortest, longest = math.ceil(config.min_s * SAMPLE_RATE_HZ), math.floor(config.max_s * SAMPLE_RATE_HZ)
    runs, resplit = split_long_runs(runs, heard.energies, shortest, longest)
    first, last = candidate_spans(runs.before, runs.after, shortest, longest, _breaks(runs, config))
    found = len(first)
    first, last = _limited(runs, first, last, samples, config)
    segments = _segments(
        heard,
        runs.before[first],
        runs.after[last],
        (first, last),
        speech_within(runs.starts, runs.ends, first, last),
    )
    covered = int((runs.ends - runs.starts)[covered_runs(len(runs), first, last)].sum())
    report = _report(heard, len(runs), segments, covered, resplit=resplit, left_out=found - len(first))
    rejections = _rejections(report, config, heard.audiobook, heard.section)
    return SegmentedRecording(segments, rejections, runs, envelope(heard.energies), report)


def _as_given(heard: _Heard, given: list[GivenSpan]) -> SegmentedRecording:
    starts, ends, refused = checked_spans(given, heard.decoding.samples)
    boundaries, first, last = slots(starts, ends)
    union = merged_spans(starts, ends)
    spoken, covered = (
        speech_before(heard.starts, heard.ends, until) - speech_before(heard.starts, heard.ends, since)
        for since, until in ((starts, ends), union)
    )
    segments = _segments(heard, starts, ends, (first, last), spoken)
    report = _report(heard, len(heard.starts), segments, int(covered.sum()))
    runs = CutRuns(boundaries[:-1], boundaries[1:], boundaries[:-1], boundaries[1:])
    rejections = _refused_spans(heard.audiobook, heard.section, refused)
    return SegmentedRecording(segments, rejections, runs, envelope(heard.energies), report)


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


def envelope(energies: npt.NDArray[np.float32], points: int = _ENVELOPE_POINTS) -> npt.NDArray[np.float32]:
    """The loudest 5 ms of each of at most `points` equal stretches, as RMS: float32, from `block_energies`."""
    step = max(-(-len(energies) // points), 1)
    filled = np.zeros(-(-len(energies) // step) * step, dtype=np.float32)
    filled[: len(energies)] = energies
    loudest = filled.reshape(-1, step).max(axis=1, initial=0)
    return np.asarray(np.sqrt(loudest / ENERGY_SAMPLES), dtype=np.float32)


def _listen(
    decoded: Decoded, config: SegmentationConfig, progress: Progress
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Decode once, and keep of every block only what later steps need: 0.9 kB a second."""
    detector = open_detector(config.voice_activity.detector)
    probabilities, energies = [], []
    for block in decoded.blocks(_BLOCK_SAMPLES):
        probabilities.append(detector(block))
        energies.append(block_energies(block))
        progress(decoded.bytes_done, decoded.bytes_total)
    progress(decoded.bytes_total, decoded.bytes_total)
    return np.concatenate([*probabilities, detector.rest()]), np.concatenate(energies)


def _breaks(runs: CutRuns, config: SegmentationConfig) -> npt.NDArray[np.bool_] | None:
    if config.max_gap_ms is None:
        return None
    return long_gaps(runs.starts, runs.ends, config.max_gap_ms * SAMPLES_PER_MS)


def _limited(
    runs: CutRuns,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    samples: int,
    config: SegmentationConfig,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if config.max_ends is None and config.max_per_hour is None:
        return first, last
    pauses = span_pauses(runs.starts, runs.ends, samples, first, last)
    hours = samples / SAMPLE_RATE_HZ / 3600
    most = None if config.max_per_hour is None else math.ceil(config.max_per_hour * hours)
    kept = limited_spans(first, last, pauses, max_ends=config.max_ends, most=most)
    return first[kept], last[kept]


def _report(
    heard: _Heard, runs: int, segments: pl.DataFrame, covered: int, *, resplit: int = 0, left_out: int = 0
) -> SegmentationReport:
    return SegmentationReport(
        duration_s=heard.decoding.duration_s,
        speech_s=heard.speech / SAMPLE_RATE_HZ,
        runs=runs,
        resplit_runs=resplit,
        candidates=segments.height,
        left_out=left_out,
        coverage=covered / heard.speech if heard.speech else 1.0,
        profile=profile_of(heard.energies, heard.decoding.samples, heard.starts, heard.ends),
        decoding=heard.decoding,
    )


def _segments(
    heard: _Heard,
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    runs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    speech: npt.NDArray[np.int64] | npt.NDArray[np.float64],
) -> pl.DataFrame:
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    ids = [segment_id(heard.audiobook, heard.section, *span) for span in spans]
    frame = pl.DataFrame(
        {
            "segment_id": pl.Series(ids, dtype=pl.Int64),
            "start_sample": starts,
            "end_sample": ends,
            "start_ms": starts // SAMPLES_PER_MS,
            "end_ms": ends // SAMPLES_PER_MS,
            "first_run": runs[0],
            "last_run": runs[1],
            "level_dbfs": _levels(heard.energies, heard.decoding.samples, starts, ends),
            "coverage": speech / np.maximum(ends - starts, 1),
        }
    ).with_columns(audiobook=pl.lit(heard.audiobook), section=pl.lit(heard.section))
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


def _refused_spans(audiobook: str, section: int, refused: list[RefusedSpan]) -> pl.DataFrame:
    rows = [
        {
            "audiobook": audiobook,
            "section": section,
            "start_sample": span.start,
            "end_sample": span.end,
            "reason": span.reason,
            "detail": span.detail,
        }
        for span in refused
    ]
    return pl.DataFrame(rows, schema=dict(REJECTIONS))
