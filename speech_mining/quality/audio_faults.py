"""Spans of a corpus that are silent or clipped, as their audio is.

Silence is told by the level that segmentation measured of every segment, so all spans are looked at. Clipping needs the
audio: some recordings are decoded, chosen by a hash of their names, so that the same ones are heard on any machine and
a corpus that grows keeps hearing those that it heard.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.audio.decode import read_waveform
from speech_mining.errors import AudioError, LakeError
from speech_mining.lake import Lake
from speech_mining.mining.kinds import Kind
from speech_mining.quality.catalogue import ask, filled
from speech_mining.records import RECORDINGS, Schema

FULL_SCALE = 0.99
"""From this magnitude a sample counts as clipped: an MP3 of clipped audio overshoots and undershoots 1 by some."""

AUDIO_FAULTS: Schema = {
    "fault": pl.String(),  # silent, clipped, or unreadable
    "side": pl.String(),
    "language": pl.String(),
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "segment": pl.Int64(),
    "start_s": pl.Float64(),
    "measured": pl.Float64(),  # silent: level in dBFS; clipped: share of samples at full scale
}
Waveform: TypeAlias = npt.NDArray[np.float32]


_LEVELS = """
SELECT spans.side, spans.language, spans.audiobook, spans.section, spans.segment, spans.start_sample,
       spans.end_sample, segments.level_dbfs
FROM spans LEFT JOIN segments ON segments.segment_id = spans.segment AND segments.language = spans.language
WHERE kind = $kind AND language_pair = $pair
ORDER BY side, audiobook, section, start_sample
"""


@dataclass(frozen=True)
class FaultLimits:
    """What counts as a fault.

    Args:
        least_level_dbfs: a span is silent below this level.
        clipped_share: a span is clipped when at least this share of its samples is at full scale.
        recordings: how many of each side are decoded, at most.
    """

    least_level_dbfs: float = -50.0
    clipped_share: float = 0.001
    recordings: int = 8


@dataclass(frozen=True, eq=False)
class AudioFaults:
    """What was found, and how much was looked at."""

    faults: pl.DataFrame
    """Columns `AUDIO_FAULTS`."""
    spans: int
    """Whose level was looked at."""
    heard_recordings: int
    heard_spans: int
    sql: str
    """What found the silent ones."""


def clipped_share(samples: Waveform) -> float:
    """Share of samples at full scale, 0 to 1; 0 of no samples.

    Args:
        samples: float32 (n,), full scale is 1.
    """
    return float(np.mean(np.abs(samples) >= FULL_SCALE)) if len(samples) else 0.0


def audio_faults(lake: Lake, kind: Kind, pair: str, limits: FaultLimits) -> AudioFaults:
    """Look for silent and clipped spans in a corpus.

    Args:
        lake: to read.
        kind: of the corpus; a side of text has no audio.
        pair: such as `deu-eng`.
        limits: what counts as a fault.
    """
    asked = {"kind": kind.name, "pair": pair}
    only = {"kind": [kind.name], "language_pair": [pair], "language": pair.split("-")}
    spans = ask(lake, _LEVELS, bound=asked, only=only)
    silent = spans.filter(pl.col("level_dbfs") < limits.least_level_dbfs)
    faults, recordings, heard = [_faults(silent, "silent", silent["level_dbfs"])], 0, 0
    for _, of_side in spans.group_by("side", maintain_order=True):
        for _, of_recording in _chosen(of_side, limits.recordings):
            found = _heard(lake, of_recording, limits)
            faults.append(found)
            recordings, heard = recordings + 1, heard + of_recording.height
    every = pl.concat([pl.DataFrame(schema=dict(AUDIO_FAULTS)), *faults])
    return AudioFaults(every, spans.height, recordings, heard, filled(_LEVELS, asked))


def _chosen(spans: pl.DataFrame, most: int) -> list[tuple[tuple[object, ...], pl.DataFrame]]:
    """The spans of the recordings whose names hash lowest."""
    groups = list(spans.group_by("audiobook", "section", maintain_order=True))
    return sorted(groups, key=lambda group: _hash(*group[0]))[:most]


def _hash(audiobook: object, section: object) -> bytes:
    return hashlib.blake2b(f"{audiobook}/{section}".encode(), digest_size=8).digest()


def _heard(lake: Lake, spans: pl.DataFrame, limits: FaultLimits) -> pl.DataFrame:
    """The clipped spans of one recording; all of them where it cannot be read."""
    try:
        waveform = read_waveform(_recording(lake, *spans.select("language", "audiobook", "section").row(0)))
    except (AudioError, LakeError):
        return _faults(spans, "unreadable", pl.Series([math.nan] * spans.height))
    places = spans.select("start_sample", "end_sample").iter_rows()
    shares = pl.Series([clipped_share(waveform[start:end]) for start, end in places], dtype=pl.Float64())
    return _faults(spans, "clipped", shares).filter(pl.col("measured") >= limits.clipped_share)


def _recording(lake: Lake, language: str, audiobook: str, section: int) -> Path:
    partition = lake.partition("raw_audio", language, audiobook)
    of_section = partition.read_table("recordings.parquet", RECORDINGS).filter(pl.col("section") == section)
    if of_section.is_empty():
        raise LakeError(f"raw_audio of {language}/{audiobook} has no section {section}.")
    return partition.local_path(of_section["file"][0])


def _faults(spans: pl.DataFrame, fault: str, measured: pl.Series) -> pl.DataFrame:
    named = spans.with_columns(
        fault=pl.lit(fault), start_s=pl.col("start_sample") / 16_000, measured=measured.cast(pl.Float64)
    )
    return named.select(pl.col(name).cast(dtype) for name, dtype in AUDIO_FAULTS.items())
