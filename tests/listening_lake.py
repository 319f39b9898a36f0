"""A lake of tones, to be listened to: each segment has a pitch of its own, so that a cut tells where it is from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import soundfile

from speech_mining.corpora.manifest import corpus_frame, corpus_schema
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from speech_mining.mining.tables import NEIGHBOURS
from speech_mining.quality.hours import HOURS, hours_by_threshold
from speech_mining.records import PAIRS, RECORDINGS, SEGMENTS, conform, segment_id
from speech_mining.segmentation.audiobook import SECTIONS

RATE_HZ = 16_000
SEGMENT_S = 1
PAIR = "deu-eng"
THRESHOLD = 1.06
BOOKS = {"deu": "11", "eng": "22"}


def pitch_hz(language: str, number: int) -> int:
    """The pitch of a segment: no two of a lake share one."""
    return 200 + 40 * number + (20 if language == "eng" else 0)


def make_lake(home: Path, scores: list[float], told: Mapping[str, str] | None = None) -> Lake:
    """One book a language, whose segments are pairs with these scores; `told` replaces facts of recordings."""
    lake = Lake(home / "lake")
    for language in BOOKS:
        _make_book(lake, language, len(scores), told or {})
    pairs = _pairs(scores)
    with lake.replace("s2s_pairs", PAIR) as new:
        new.write_table("pairs.parquet", pairs, PAIRS)
        new.write_json("scoring.json", {"threshold": 1.0})
    _make_corpus(lake, pairs)
    with lake.replace("s2s_neighbours", PAIR) as new:
        near = pairs.select(
            segment="source_segment",
            neighbours=pl.concat_list("target_segment"),
            cosines=pl.concat_list(pl.col("cosine")),
        )
        new.write_table("forward.parquet", near.cast(dict(NEIGHBOURS)), NEIGHBOURS)  # type: ignore[arg-type]
    return lake


def place(language: str, number: int) -> tuple[str, int, int, int]:
    """Audiobook, section, start and end of a segment."""
    return BOOKS[language], 1, number * SEGMENT_S * RATE_HZ, (number + 1) * SEGMENT_S * RATE_HZ


def _make_book(lake: Lake, language: str, segments: int, told: Mapping[str, str]) -> None:
    times = np.arange(SEGMENT_S * RATE_HZ) / RATE_HZ
    tones = [0.4 * np.sin(2 * np.pi * pitch_hz(language, number) * times) for number in range(segments)]
    facts = {"title": f"A book in {language}", "section_title": "One", "readers": "Ada", "licence": "Public Domain"}
    with lake.replace("raw_audio", language, BOOKS[language]) as new:
        soundfile.write(new.path("one.flac"), np.concatenate(tones), RATE_HZ)
        row = {
            **{"audiobook": BOOKS[language], "section": 1, "language": language, "file": "one.flac", "bytes": 1},
            **{"sha256": "", "announced_s": segments * SEGMENT_S, "url": "https://archive.org/one.mp3"},
            **{**facts, **told},
        }
        new.write_table("recordings.parquet", pl.DataFrame([row]), RECORDINGS)
    places = [place(language, number) for number in range(segments)]
    rows = [{"segment_id": segment_id(*at), "start_sample": at[2], "end_sample": at[3]} for at in places]
    table = pl.DataFrame(rows).with_columns(
        **{"audiobook": pl.lit(BOOKS[language]), "section": 1, "first_run": 0, "last_run": 0},  # type: ignore[arg-type]
        start_ms=pl.col("start_sample") // 16,
        end_ms=pl.col("end_sample") // 16,
        level_dbfs=-20.0,  # type: ignore[arg-type]
        coverage=1.0,  # type: ignore[arg-type]
    )
    with lake.replace("segments", language, BOOKS[language]) as new:
        new.write_table("segments.parquet", table, SEGMENTS)
        sections = pl.DataFrame(schema=dict(SECTIONS))
        new.write_table("sections.parquet", sections, SECTIONS)


def _pairs(scores: list[float]) -> pl.DataFrame:
    rows = []
    for number, score in enumerate(scores):
        source, target = place("deu", number), place("eng", number)
        rows.append(
            {
                "score": score,
                "cosine": 0.9,
                "source_segment": segment_id(*source),
                "target_segment": segment_id(*target),
                **_names("source", source),
                **_names("target", target),
            }
        )
    return conform(pl.DataFrame(rows), PAIRS, "pairs")


def _names(side: str, at: tuple[str, int, int, int]) -> dict[str, object]:
    return {
        f"{side}_{name}": value
        for name, value in zip(("audiobook", "section", "start_sample", "end_sample"), at, strict=True)
    }


def _make_corpus(lake: Lake, pairs: pl.DataFrame) -> None:
    sides = [
        lake.read_tables("raw_audio", language, name="recordings.parquet", schema=RECORDINGS) for language in BOOKS
    ]
    corpus = corpus_frame(pairs.filter(pl.col("score") >= THRESHOLD), sides[0], sides[1], PAIR)
    hours = hours_by_threshold(lake.partition("s2s_pairs", PAIR).local_path("pairs.parquet"))
    with lake.replace("s2s_corpus", PAIR) as new:
        new.write_table("corpus.parquet", corpus, corpus_schema((), SPEECH_TO_SPEECH))
        new.write_table("hours.parquet", hours, HOURS)
        new.write_json("selection.json", {"threshold": THRESHOLD, "selection": "greedy", "counts": {}})
