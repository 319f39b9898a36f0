"""A small lake of two languages, made by hand: every layer that SQL reaches, with figures that can be worked out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import soundfile

from speech_mining.corpora.manifest import CORPUS
from speech_mining.knn.roll import ROWS
from speech_mining.lake import Lake
from speech_mining.mining.tables import NEIGHBOURS
from speech_mining.quality.hours import hours_by_threshold
from speech_mining.records import PAIRS, RECORDINGS, REJECTIONS, SEGMENTS, Schema, segment_id
from speech_mining.segmentation.audiobook import RUNS, SECTIONS

S = 16_000
BOOKS = {"deu": "d1", "eng": "e1"}
SECTION_S = 60
_PLAIN: Mapping[type[pl.DataType], object] = {pl.String: "x", pl.Boolean: False, pl.Float64: 0.5, pl.Float32: 0.5}

Spoken = tuple[int, int]
"""Start and end in the recording, seconds."""


def table(rows: Sequence[Mapping[str, Any]], schema: Schema) -> pl.DataFrame:
    """Rows of a table in which only what matters is told."""
    filled = [{name: row.get(name, _plain(dtype)) for name, dtype in schema.items()} for row in rows]
    return pl.DataFrame(filled, schema=dict(schema))


def _plain(dtype: pl.DataType) -> object:
    return _PLAIN.get(type(dtype), 1)


def pair(score: float, source: Spoken, target: Spoken) -> dict[str, Any]:
    """A pair of the two books' first sections."""
    told: dict[str, Any] = {"score": score, "cosine": 0.9}
    for side, (start_s, end_s), book in (("source", source, "d1"), ("target", target, "e1")):
        places = {"audiobook": book, "section": 1, "start_sample": start_s * S, "end_sample": end_s * S}
        places |= {"start_ms": start_s * 1000, "end_ms": end_s * 1000}
        places |= {"segment": segment_id(book, 1, start_s * S, end_s * S)}
        told |= {f"{side}_{name}": value for name, value in places.items()}
    return told | {"source_language": "deu", "target_language": "eng", "source_readers": "A", "target_readers": "B"}


PAIRS_OF_DEMO = [pair(1.20, (0, 5), (10, 16)), pair(1.10, (5, 10), (16, 22)), pair(1.06, (20, 24), (30, 34))]


def publish_corpus(lake: Lake, pairs: Sequence[Mapping[str, Any]], threshold: float = 1.06) -> None:
    """Pairs, and the corpus of those that reach the threshold, of deu-eng."""
    with lake.replace("s2s_pairs", "deu-eng") as new:
        new.write_table("pairs.parquet", table(pairs, PAIRS), PAIRS)
        new.write_json("scoring.json", {"threshold": 1.0})
    hours = hours_by_threshold(lake.partition("s2s_pairs", "deu-eng").local_path("pairs.parquet"))
    with lake.replace("s2s_corpus", "deu-eng") as new:
        kept = [one for one in pairs if one["score"] >= threshold]
        new.write_table("corpus.parquet", table(kept, CORPUS), CORPUS)
        new.write_frame("hours.parquet", hours)
        new.write_json("selection.json", {"threshold": threshold})


def publish_book(
    lake: Lake,
    language: str,
    spans: Sequence[Spoken],
    *,
    recurring: Sequence[Spoken] = (),
    level_dbfs: float = -20.0,
    samples: npt.NDArray[np.float32] | None = None,
) -> None:
    """The one audiobook of a language: a recording of a minute, its segments, and the index over them."""
    book = BOOKS[language]
    place = {"language": language, "audiobook": book, "section": 1}
    with lake.replace("raw_audio", language, book) as new:
        sound = np.full(SECTION_S * S, 0.1, np.float32) if samples is None else samples
        soundfile.write(new.path("1.flac"), sound, S)
        recording = {**place, "file": "1.flac", "sha256": f"of {book}", "readers": f"reader of {language}"}
        new.write_table("recordings.parquet", table([recording], RECORDINGS), RECORDINGS)
        refused = {**place, "section": 2, "reason": "not_found", "detail": "404"}
        new.write_table("rejections.parquet", table([refused], REJECTIONS), REJECTIONS)
    segments = table([_segment(book, span, level_dbfs) for span in spans], SEGMENTS)
    with lake.replace("segments", language, book) as new:
        new.write_table("segments.parquet", segments, SEGMENTS)
        section = {**place, "duration_s": float(SECTION_S), "speech_s": 40.0}
        new.write_table("sections.parquet", table([section], SECTIONS), SECTIONS)
        new.write_table("runs.parquet", table([place], RUNS), RUNS)
        new.write_table("rejections.parquet", table([], REJECTIONS), REJECTIONS)
    again = {segment_id(book, 1, start_s * S, end_s * S) for start_s, end_s in recurring}
    rows = segments.with_columns(row=pl.int_range(pl.len()), recurring=pl.col("segment_id").is_in(list(again)))
    with lake.replace("speech_index", language) as new:
        new.write_table("rows.parquet", rows, ROWS)


def _segment(book: str, span: Spoken, level_dbfs: float) -> dict[str, Any]:
    start_s, end_s = span
    place = {"audiobook": book, "section": 1, "start_sample": start_s * S, "end_sample": end_s * S}
    named = {"segment_id": segment_id(book, 1, start_s * S, end_s * S), "level_dbfs": level_dbfs}
    return {**place, **named, "start_ms": start_s * 1000, "end_ms": end_s * 1000}


def publish_neighbours(lake: Lake) -> None:
    """Two segments that share their nearest neighbour."""
    rows = [{"segment": segment, "neighbours": [7, -1], "cosines": [0.9, 0.0]} for segment in (1, 2)]
    with lake.replace("s2s_neighbours", "deu-eng") as new:
        for direction in ("forward", "backward"):
            new.write_table(f"{direction}.parquet", pl.DataFrame(rows, schema=dict(NEIGHBOURS)), NEIGHBOURS)


def small_lake(home: Path) -> Lake:
    """Two books, three pairs: 14 of the 60 seconds of `d1` are aligned, 16 of `e1`."""
    lake = Lake(home / "lake", scratch=home / "scratch")
    publish_book(lake, "deu", [(0, 5), (5, 10), (20, 24), (30, 40)], recurring=[(30, 40)])
    publish_book(lake, "eng", [(10, 16), (16, 22), (30, 34)])
    publish_neighbours(lake)
    publish_corpus(lake, PAIRS_OF_DEMO)
    return lake
