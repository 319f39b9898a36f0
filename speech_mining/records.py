"""The nouns of the field, and the schema of the tables that hold them.

Times are kept as sample counts at 16 kHz and added as integers; milliseconds stand beside them for people and
manifests (`ms = samples // 16`, exact). Languages are ISO 639-3. No module may write one of these tables with other
columns: `conform` is the door.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import polars as pl

from speech_mining.errors import LakeError

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000

Schema: TypeAlias = Mapping[str, pl.DataType]

AUDIOBOOK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What an audiobook's id looks like: it names partitions, and folders of the lake."""
_DIGIT_RUN = re.compile(r"([0-9]+)")

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
    # a span that a user brought and that the recording does not have
    "out_of_range",
    # a segment that could not be embedded
    "silent",
    "not_a_number",
    "too_long",
    "too_short",
    "no_content",
    "out_of_memory",
    # a catalogue entry that is not a finished audiobook in a language we mine
    "unfinished",
    "unknown_language",
    "language_not_wanted",
    "malformed",
]

CATALOGUE: Schema = {
    "audiobook": pl.String(),  # LibriVox project id, digits; of other sources a name: see AUDIOBOOK_ID
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
    "first_seen": pl.Datetime("us", "UTC"),  # when the book was first listed; equal for all its rows in a language
    "last_changed": pl.Datetime("us", "UTC"),  # when any of these rows last changed
    "file_version": pl.String(),  # size and mtime_ns of a local file; null where a source tells nothing of the content
}
TIMESTAMPS: Schema = {  # spans that a user brings, in place of our segmentation
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "start_sample": pl.Int64(),  # at 16 kHz
    "end_sample": pl.Int64(),  # exclusive
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
TRANSCRIBED: Schema = {  # clips of speech whose words are known: what students are trained and examined on
    "clip": pl.String(),  # unique in a set
    "split": pl.String(),  # train, dev or test
    "language": pl.String(),  # ISO 639-3 of the speech
    "file": pl.String(),  # absolute path of the audio file, zip or parquet that holds it
    "place": pl.String(),  # where in the file: "" the whole, "offset:length" bytes of a zip, "row:n" of a parquet
    "start_s": pl.Float64(),  # span of the audio, null: from its start
    "end_s": pl.Float64(),  # exclusive, null: to its end
    "duration_s": pl.Float64(),  # of the span, measured
    "transcription": pl.String(),  # null: not known
    "translation": pl.String(),  # null: not known
    "translation_language": pl.String(),  # ISO 639-3, null where there is no translation
    "speaker": pl.String(),  # null: not told
}
EMBEDDED_SENTENCES: Schema = {
    "sentence_id": pl.Int64(),  # stable: of language and text
    "shard": pl.String(),
    "shard_row": pl.Int64(),  # in the shard's text_sentences, from 0
}

Modality: TypeAlias = Literal["speech", "text"]

ITEM = {"speech": "segment", "text": "sentence"}
"""What one side of a pair is called."""
_PLACE: Mapping[str, Schema] = {
    "speech": {
        "audiobook": pl.String(),
        "section": pl.Int32(),
        "start_sample": pl.Int64(),
        "end_sample": pl.Int64(),
    },
    "text": {"shard": pl.String(), "shard_row": pl.Int64()},
}


def pairs_schema(source: Modality, target: Modality) -> Schema:
    """Columns of pairs: their score, the two items, and where each lies."""
    sides = {"source": source, "target": target}
    return {
        "score": pl.Float64(),
        "cosine": pl.Float32(),
        **{f"{side}_{ITEM[modality]}": pl.Int64() for side, modality in sides.items()},
        **{f"{side}_{name}": dtype for side, modality in sides.items() for name, dtype in _PLACE[modality].items()},
    }


PAIRS: Schema = pairs_schema("speech", "speech")


def modality_of(columns: Sequence[str], side: str) -> Modality:
    """What a side ("source" or "target") of a table of pairs is, by its columns."""
    return "text" if f"{side}_sentence" in columns else "speech"


def item_column(columns: Sequence[str], side: str) -> str:
    """The column that names the segment or sentence of a side for ever."""
    return f"{side}_{ITEM[modality_of(columns, side)]}"


_OF_A_SPAN = {
    "audiobook": "Id of the book: LibriVox's number, or the name of a folder, a manifest's book or a shard.",
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
    "sentence": "Id of the sentence, stable for ever: of its language and text.",
    "sentence_id": "63 bits of a hash of language and text.",
    "shard": "Shard of text it lies in.",
    "shard_row": "Its row in the shard's text_sentences, from 0.",
    "embedder": "Name and version of the encoder.",
    "roll": "Version of the vectors that it was mined among.",
    "text": "The sentence, as a person reads it.",
    "document": "Address or name of the document it was found in.",
    "line": "Line, record or row of the shard, from 1.",
    "offset": "Where it begins in that line as read, characters from 0.",
    "length": "Characters of the line as read.",
    "address": "File of the shard.",
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
    "blaser_qe": "How alike in meaning, BLASER 2.0-QE: about 1 (unrelated) to 5 (the same).",
    "source_toxicity": "Source: probability that it is toxic, MuTox.",
    "target_toxicity": "Target: probability that it is toxic, MuTox.",
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
    "lost_s": "Seconds that could not be decoded.",
    "left_out": "Candidates that the limits left out.",
    "profile": "What the section sounds like: speech, music or noise, or silence.",
    "given": "Whether a user brought the segments.",
    "clip": "Name of a clip of transcribed speech.",
    "split": "train, dev or test.",
    "place": "Where in the file: nothing for all of it, offset:length bytes of a zip, or row:n of a parquet.",
    "start_s": "Start in the file, seconds.",
    "end_s": "End in the file, exclusive, seconds.",
    "transcription": "What is said.",
    "translation": "What is said, in another language.",
    "translation_language": "ISO 639-3 of the translation.",
    "speaker": "Who speaks.",
    "rejected": "Whether the recording is not what was announced, and was left out.",
    "run": "Run of speech, counted from 0 in the recording.",
    "before_sample": "Where a segment that begins with the run begins.",
    "after_sample": "Where a segment that ends with the run ends.",
    "listen_url": "Where the recording may be downloaded.",
    "url_librivox": "The book's page.",
    "authors": "Who wrote it.",
    "reader_ids": "LibriVox's ids of the readers.",
    "first_seen": "When the book was first listed in this language.",
    "last_changed": "When anything that is listed of the book in this language last changed.",
    "file_version": "What tells one content of a local file from another: its size and time of change.",
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


def audiobook_order(audiobook: str) -> tuple[object, ...]:
    """Sort key of audiobooks: numbers first, by value, then names in natural order ("tale 9" before "tale 10")."""
    number = audiobook.isascii() and audiobook.isdigit()
    return (not number, natural_order(audiobook), audiobook)


def natural_order(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Sort key of names: runs of digits count by value, letters without case, and digits stand before letters."""
    parts = _DIGIT_RUN.split(name.casefold())
    return tuple((False, int(part), "") if part[0] in "0123456789" else (True, 0, part) for part in parts if part)


def by_audiobook(column: str = "audiobook") -> pl.Expr:
    """A column's place in `audiobook_order`, to sort a frame by: 14 500 ids take 0.1 s."""
    return pl.col(column).map_batches(_places, return_dtype=pl.UInt32())


def _places(ids: pl.Series) -> pl.Series:
    ordered = sorted(ids.drop_nulls().unique().to_list(), key=audiobook_order)
    places: pl.Series = ids.replace_strict(ordered, range(len(ordered)), default=None, return_dtype=pl.UInt32())
    return places


def segment_id(audiobook: str, section: int, start_sample: int, end_sample: int) -> int:
    """Name a span of a recording for ever: the first 63 bits of BLAKE2b over its coordinates, so it fits FAISS's int64.

    The same span gets the same id on any machine and in any order of materialization.
    """
    name = f"{audiobook}/{section}/{start_sample}/{end_sample}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1
