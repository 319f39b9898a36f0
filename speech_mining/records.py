"""The nouns of the field, and the schema of the tables that hold them.

Times are kept as sample counts at 16 kHz and added as integers; milliseconds stand beside them for people and
manifests (`ms = samples // 16`, exact). Languages are ISO 639-3. No module may write one of these tables with other
columns: `conform` is the door.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, TypeAlias

import polars as pl

from speech_mining.errors import LakeError

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000

Schema: TypeAlias = Mapping[str, pl.DataType]

RejectionReason: TypeAlias = Literal[
    # a recording that could not be fetched
    "not_found",
    "server_error",
    "connection",
    "forbidden_url",
    "too_large",
    "checksum_mismatch",
    "gone",
    # a recording that could not be decoded
    "empty_file",
    "not_audio",
    "no_audio",
    "damaged",
    "duration_mismatch",
    "no_speech",
    # a segment that could not be embedded
    "silent",
    "not_a_number",
    "too_long",
    "too_short",
    "no_content",
    # a catalogue entry that is not a finished audiobook in a language we mine
    "unfinished",
    "unknown_language",
    "language_not_wanted",
    "malformed",
]

CATALOGUE: Schema = {
    "audiobook": pl.String(),  # LibriVox project id, digits
    "section": pl.Int32(),  # 1-based position in the book
    "language": pl.String(),  # ISO 639-3 of the section
    "title": pl.String(),
    "authors": pl.String(),
    "section_title": pl.String(),
    "readers": pl.String(),
    "reader_ids": pl.String(),
    "duration_s": pl.Int32(),  # as announced
    "listen_url": pl.String(),
    "url_librivox": pl.String(),
    "licence": pl.String(),
}
RECORDINGS: Schema = {
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "language": pl.String(),
    "file": pl.String(),  # relative to the partition
    "bytes": pl.Int64(),
    "sha256": pl.String(),
    "announced_s": pl.Int32(),
    "url": pl.String(),
    "title": pl.String(),
    "section_title": pl.String(),
    "readers": pl.String(),
    "licence": pl.String(),
}
SEGMENTS: Schema = {
    "segment_id": pl.Int64(),  # stable, 63 bits of a hash: see segment_id()
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "start_sample": pl.Int64(),  # at 16 kHz
    "end_sample": pl.Int64(),  # exclusive
    "start_ms": pl.Int64(),
    "end_ms": pl.Int64(),
    "first_run": pl.Int32(),  # index of the first speech run inside, counted from 0 in its recording
    "last_run": pl.Int32(),  # inclusive
    "level_dbfs": pl.Float32(),  # RMS level of the span
    "coverage": pl.Float32(),  # share of the span that is speech, 0..1
}
REJECTIONS: Schema = {
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "start_sample": pl.Int64(),  # null: the whole recording
    "end_sample": pl.Int64(),
    "reason": pl.String(),
    "detail": pl.String(),
}
PAIRS: Schema = {
    "score": pl.Float64(),
    "cosine": pl.Float32(),
    "source_segment": pl.Int64(),
    "target_segment": pl.Int64(),
    "source_audiobook": pl.String(),
    "source_section": pl.Int32(),
    "source_start_sample": pl.Int64(),
    "source_end_sample": pl.Int64(),
    "target_audiobook": pl.String(),
    "target_section": pl.Int32(),
    "target_start_sample": pl.Int64(),
    "target_end_sample": pl.Int64(),
}

_OF_A_SPAN = {
    "audiobook": "LibriVox's id of the book.",
    "section": "Position of the recording in the book, from 1.",
    "start_ms": "Start in the recording, milliseconds.",
    "end_ms": "End in the recording, exclusive, milliseconds.",
    "start_sample": "Start in the recording, samples at 16 kHz.",
    "end_sample": "End in the recording, exclusive, samples at 16 kHz.",
    "language": "ISO 639-3.",
    "url": "Where the recording may be downloaded.",
    "title": "Title of the book.",
    "section_title": "Title of the section.",
    "readers": "Who reads.",
    "licence": "Licence of the recording.",
    "segment": "Id of the segment, stable for ever.",
}
DESCRIPTIONS: Mapping[str, str] = {
    **_OF_A_SPAN,
    **{
        f"{side}_{name}": f"{side.title()}: {text}"
        for side in ("source", "target")
        for name, text in _OF_A_SPAN.items()
    },
    "score": "Margin: how much nearer the two are than either is to its neighbourhood. Higher is better.",
    "cosine": "Cosine of the two vectors.",
    "segment_id": "63 bits of a hash of audiobook, section, start and end.",
    "first_run": "First run of speech inside, counted from 0 in the recording.",
    "last_run": "Last run of speech inside.",
    "level_dbfs": "RMS level, dB below full scale.",
    "coverage": "Share that is speech, 0 to 1.",
    "recurring": "Heard in many recordings of the language: a preamble or the like, not mined.",
    "row": "Position in the language's roll.",
    "neighbours": "Segments of the other language, nearest first.",
    "cosines": "Their cosines.",
    "bytes": "Size of the file.",
    "sha256": "Hash of the file.",
    "file": "Name of the file in the partition.",
    "announced_s": "Duration that the catalogue announces, seconds.",
    "duration_s": "Duration, seconds.",
    "listen_url": "Where the recording may be downloaded.",
    "url_librivox": "The book's page.",
    "authors": "Who wrote it.",
    "reader_ids": "LibriVox's ids of the readers.",
}
"""What a column of any table of the lake holds, for people."""


def conform(frame: pl.DataFrame, schema: Schema, table: str) -> pl.DataFrame:
    """Order and cast the columns of `frame` as `schema` says.

    Raises:
        LakeError: a column is missing or cannot be cast; extra columns are an error too, since silently dropped
            columns are how lineage is lost.
    """
    missing = [name for name in schema if name not in frame.columns]
    extra = [name for name in frame.columns if name not in schema]
    if missing or extra:
        raise LakeError(
            f"A table of {table} has columns {frame.columns}.",
            expected=f"{list(schema)} (missing {missing}, unknown {extra})",
            cause="it was made by another version of this project",
            fix="materialize the partition again",
        )
    return frame.select([pl.col(name).cast(dtype) for name, dtype in schema.items()])


def segment_id(audiobook: str, section: int, start_sample: int, end_sample: int) -> int:
    """Name a span of a recording for ever: the first 63 bits of BLAKE2b over its coordinates, so it fits FAISS's int64.

    The same span gets the same id on any machine and in any order of materialization.
    """
    name = f"{audiobook}/{section}/{start_sample}/{end_sample}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1
