"""Embedding a whole audiobook: each recording decoded once, the next while one is embedded; segments are slices.

What belongs here is the walk over recordings. Batching and the model are the encoder's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.encoders.feeding import feed
from speech_mining.encoders.protocol import Embedded, SpeechEncoder, SpeechSpan
from speech_mining.progress import Progress, silent
from speech_mining.records import REJECTIONS, SEGMENTS, conform

VERSION = "1"
Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EmbeddedAudiobook:
    """What an encoder made of a book."""

    segments: pl.DataFrame
    """`records.SEGMENTS`, one row a vector, in the vectors' order."""
    vectors: npt.NDArray[np.float16]
    """float16 (segments, dimension), unit rows."""
    rejections: pl.DataFrame
    """`records.REJECTIONS`, one row a segment that has no vector."""
    lengths: npt.NDArray[np.float32] | None = None
    """float32 (segments,), of the vectors as the encoder made them; None: it does not tell."""


def embed_audiobook(
    segments: pl.DataFrame,
    recordings: Mapping[int, Path],
    encoder: SpeechEncoder,
    language: str,
    *,
    progress: Progress = silent,
    ahead: int = 1,
) -> EmbeddedAudiobook:
    """Embed every segment of a book.

    Args:
        segments: `records.SEGMENTS` of one audiobook.
        recordings: section → audio file, for every section that has segments.
        encoder: of the language.
        language: ISO 639-3.
        progress: told the number of segments done.
        ahead: recordings decoded in advance. Memory holds `ahead + 1` waveforms (230 MB an hour of audio); the
            vectors do not depend on it.
    """
    kept, vectors, lengths, rejected, done = [], [], [], [], 0
    sections = [rows for _, rows in segments.group_by(["section"], maintain_order=True)]

    def decode(of_section: pl.DataFrame) -> tuple[pl.DataFrame, Waveform]:
        return of_section, _waveform(recordings[of_section["section"][0]])

    def embed(decoded: tuple[pl.DataFrame, Waveform]) -> tuple[pl.DataFrame, Embedded]:
        return decoded[0], _embed_recording(*decoded, encoder, language)

    for of_section, embedded in feed(sections, decode, embed, ahead=ahead):
        kept.append(of_section[embedded.kept])
        vectors.append(embedded.vectors)
        lengths.append(embedded.lengths)
        rejected.append(_rejections(of_section, embedded))
        done += of_section.height
        progress(done, segments.height)
    return EmbeddedAudiobook(
        conform(pl.concat(kept) if kept else segments.clear(), SEGMENTS, "segments"),
        np.concatenate(vectors) if vectors else np.empty((0, encoder.dimension), np.float16),
        pl.concat(rejected) if rejected else pl.DataFrame(schema=dict(REJECTIONS)),
        _joined(lengths),
    )


def _joined(lengths: list[npt.NDArray[np.float32] | None]) -> npt.NDArray[np.float32] | None:
    told = [part for part in lengths if part is not None]
    return np.concatenate(told) if told and len(told) == len(lengths) else None


def _waveform(path: Path) -> Waveform:
    from speech_mining.audio.decode import read_waveform

    return read_waveform(path)


def _embed_recording(segments: pl.DataFrame, waveform: Waveform, encoder: SpeechEncoder, language: str) -> Embedded:
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
