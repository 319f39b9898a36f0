"""Embedding a whole audiobook: each recording decoded once, its segments sliced in memory.

What belongs here is the walk over recordings. Batching and the model are the encoder's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.encoders.protocol import Embedded, SpeechEncoder, SpeechSpan
from speech_mining.progress import Progress, silent
from speech_mining.records import REJECTIONS, SEGMENTS, conform

VERSION = "1"


@dataclass(frozen=True, eq=False)
class EmbeddedAudiobook:
    """What an encoder made of a book."""

    segments: pl.DataFrame
    """`records.SEGMENTS`, one row a vector, in the vectors' order."""
    vectors: npt.NDArray[np.float16]
    """float16 (segments, dimension), unit rows."""
    rejections: pl.DataFrame
    """`records.REJECTIONS`, one row a segment that has no vector."""


def embed_audiobook(
    segments: pl.DataFrame,
    recordings: Mapping[int, Path],
    encoder: SpeechEncoder,
    language: str,
    *,
    progress: Progress = silent,
) -> EmbeddedAudiobook:
    """Embed every segment of a book.

    Args:
        segments: `records.SEGMENTS` of one audiobook.
        recordings: section → audio file, for every section that has segments.
        encoder: of the language.
        language: ISO 639-3.
        progress: told the number of segments done.
    """
    kept, vectors, rejected, done = [], [], [], 0
    for (section,), of_section in segments.group_by(["section"], maintain_order=True):
        embedded = _embed_recording(of_section, recordings[int(str(section))], encoder, language)
        kept.append(of_section[embedded.kept])
        vectors.append(embedded.vectors)
        rejected.append(_rejections(of_section, embedded))
        done += of_section.height
        progress(done, segments.height)
    return EmbeddedAudiobook(
        conform(pl.concat(kept) if kept else segments.clear(), SEGMENTS, "segments"),
        np.concatenate(vectors) if vectors else np.empty((0, encoder.dimension), np.float16),
        pl.concat(rejected) if rejected else pl.DataFrame(schema=dict(REJECTIONS)),
    )


def _embed_recording(segments: pl.DataFrame, path: Path, encoder: SpeechEncoder, language: str) -> Embedded:
    from speech_mining.audio.decode import read_waveform

    waveform = read_waveform(path)
    spans = segments.select("start_sample", "end_sample").iter_rows()
    return encoder.embed([SpeechSpan(waveform, start, end, language) for start, end in spans])


def _rejections(segments: pl.DataFrame, embedded: Embedded) -> pl.DataFrame:
    items = [rejected.item for rejected in embedded.rejected]
    return conform(
        segments[items]
        .select("audiobook", "section", "start_sample", "end_sample")
        .with_columns(
            pl.Series("reason", [rejected.reason for rejected in embedded.rejected], dtype=pl.String),
            pl.Series("detail", [rejected.detail for rejected in embedded.rejected], dtype=pl.String),
        ),
        REJECTIONS,
        "rejections",
    )
