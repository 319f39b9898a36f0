"""The tokens of audiobooks: recordings are decoded, cut into word-sized pieces, and described, one after the other.

What belongs here is reading. Pieces come from a table of known words where there is one for the recording, else what
the voice activity detector calls speech is cut where an encoder hears another word, or where the sound changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from speech_mining.audio.decode import Waveform
from speech_mining.encoders.features import HOP
from speech_mining.errors import EmbeddingError
from speech_mining.lake import Lake
from speech_mining.progress import Progress, silent
from speech_mining.records import RECORDINGS, SAMPLES_PER_MS, Schema, conform
from speech_mining.words.boundaries import BoundaryConfig, Span, word_spans
from speech_mining.words.cepstra import Frames, cepstra
from speech_mining.words.heard_boundaries import Hearing, heard_in, heard_spans
from speech_mining.words.tokens import Tokens, Utterance, tokens_of

TIMINGS: Schema = {
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "start_ms": pl.Int64(),
    "end_ms": pl.Int64(),
    "word": pl.String(),
}
PIECES: Schema = {
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "start_ms": pl.Int64(),
    "end_ms": pl.Int64(),
    "utterance": pl.Int64(),  # from 0; words of one utterance keep each other company
    "said": pl.String(),  # the word, null where it is not known
}
FRAME_MS = HOP // SAMPLES_PER_MS


@dataclass(frozen=True)
class Listener:
    """An encoder, and the language that it hears."""

    encoder: Hearing
    language: str


@dataclass(frozen=True)
class CutConfig:
    """How recordings become utterances and pieces."""

    pause_ms: int = 400
    """A longer silence ends an utterance."""
    boundaries: BoundaryConfig = field(default_factory=BoundaryConfig)
    """Of pieces that are cut where the sound changes."""
    listener: Listener | None = None
    """Who hears where words begin and end; None cuts where the sound changes."""


@dataclass(frozen=True, eq=False)
class Section:
    """One recording."""

    audiobook: str
    section: int
    path: Path
    runs: pl.DataFrame
    """Columns start_sample and end_sample: where somebody speaks, in order."""
    known: pl.DataFrame
    """Columns `TIMINGS`; empty where no words are known."""


@dataclass(frozen=True, eq=False)
class Heard:
    """The tokens of a language, and where each stands."""

    tokens: Tokens
    pieces: pl.DataFrame
    """Columns `PIECES`, a row a token."""


def hear(sections: Iterable[Section], config: CutConfig, progress: Progress = silent, count: int = 0) -> Heard:
    """The tokens of recordings. One recording is in memory at a time, and 800 bytes a token.

    Args:
        sections: recordings, in order.
        config: how they are cut.
        progress: told recordings.
        count: how many there are.

    Raises:
        AudioError: a recording cannot be decoded.
    """
    tables: list[pl.DataFrame] = []
    tokens = tokens_of(_utterances(sections, config, tables, progress, count))
    every = pl.concat(tables) if tables else pl.DataFrame(schema={**PIECES, "place": pl.Int64()})
    kept = pl.DataFrame({"utterance": tokens.utterances, "place": tokens.places})
    pieces = kept.join(every, on=["utterance", "place"], how="left", maintain_order="left")
    return Heard(tokens, conform(pieces.select(PIECES.keys()), PIECES, "pieces"))


def sections_of(lake: Lake, language: str, known: pl.DataFrame | None) -> list[Section]:
    """The recordings of a language that are segmented, by audiobook and section.

    Args:
        lake: where they are.
        language: ISO 639-3.
        known: columns `TIMINGS`; None where no words are known. A recording it has no word of is cut by its sound.
    """
    from speech_mining.segmentation.audiobook import RUNS

    words = pl.DataFrame(schema=dict(TIMINGS)) if known is None else known.select(TIMINGS.keys())
    found: list[Section] = []
    for book in lake.keys("segments", language):
        audio = lake.partition("raw_audio", language, book)
        runs = lake.partition("segments", language, book).read_table("runs.parquet", RUNS)
        files = audio.read_table("recordings.parquet", RECORDINGS).sort("section")
        for section, file in files.select("section", "file").iter_rows():
            own = pl.col("section") == section
            of_book = words.filter(own, pl.col("audiobook") == book)
            found.append(Section(book, section, audio.local_path(file), runs.filter(own), of_book))
    return found


def read_timings(path: Path) -> pl.DataFrame:
    """Known words of recordings, columns `TIMINGS` and what else there is, from parquet or tab-separated text.

    Raises:
        EmbeddingError: no such table, or a column is missing.
    """
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, separator="\t")
        typed = table.with_columns(pl.col(name).cast(dtype) for name, dtype in TIMINGS.items())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise EmbeddingError(
            f"{path} is no table of known words ({error}).",
            expected=f"columns {', '.join(TIMINGS)}, parquet or tab-separated",
        ) from None
    wrong = typed.filter((pl.col("end_ms") <= pl.col("start_ms")) | (pl.col("start_ms") < 0)).height
    if wrong:
        raise EmbeddingError(f"{wrong} words of {path} end before they begin.", expected="0 <= start_ms < end_ms")
    return typed


def _utterances(
    sections: Iterable[Section], config: CutConfig, tables: list[pl.DataFrame], progress: Progress, count: int
) -> Iterator[Utterance]:
    from speech_mining.audio.decode import read_waveform

    number = 0
    for done, section in enumerate(sections, 1):
        waveform = read_waveform(section.path)
        frames = cepstra(waveform)
        for spans, said in _cut(section, waveform, frames, config):
            tables.append(_table(section, number, spans, said))
            yield Utterance(frames, spans)
            number += 1
        progress(done, count)


def _cut(
    section: Section, waveform: Waveform, frames: Frames, config: CutConfig
) -> Iterator[tuple[list[Span], list[str | None]]]:
    """Spans of each utterance, and the word of each where it is known."""
    if section.known.height:
        known = section.known.sort("start_ms")
        spans = [_within(start, end, len(frames)) for start, end in known.select("start_ms", "end_ms").iter_rows()]
        for part in _by_pause(spans, config.pause_ms // FRAME_MS):
            yield [spans[at] for at in part], [known["word"][at] for at in part]
        return
    rows = section.runs.sort("start_sample").select("start_sample", "end_sample").iter_rows()
    runs = [(start // HOP, min(end // HOP, len(frames))) for start, end in rows]
    cut = _cutter(waveform, frames, config)
    for part in _by_pause(runs, config.pause_ms // FRAME_MS):
        found = [piece for at in part for piece in cut(runs[at])]
        yield found, [None] * len(found)


def _within(start_ms: int, end_ms: int, count: int) -> Span:
    first = min(round(start_ms / FRAME_MS), count)
    return first, min(max(first, round(end_ms / FRAME_MS)), count)


def _cutter(waveform: Waveform, frames: Frames, config: CutConfig) -> Callable[[Span], list[Span]]:
    """How a stretch of speech of one recording is cut."""
    if config.listener:
        heard = heard_in(waveform, config.listener.language, config.listener.encoder)
        return lambda run: heard_spans(heard, run)
    return lambda run: [
        (run[0] + begin, run[0] + end) for begin, end in word_spans(frames[slice(*run)], config.boundaries)
    ]


def _by_pause(spans: list[Span], longest: int) -> list[range]:
    """Numbers of spans that follow each other without a longer pause."""
    if not spans:
        return []
    ends = np.maximum.accumulate([end for _, end in spans])
    breaks = [at for at in range(1, len(spans)) if spans[at][0] - ends[at - 1] > longest]
    edges = [0, *breaks, len(spans)]
    return [range(begin, end) for begin, end in itertools.pairwise(edges)]


def _table(section: Section, number: int, spans: list[Span], said: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "audiobook": [section.audiobook] * len(spans),
            "section": [section.section] * len(spans),
            "start_ms": [first * FRAME_MS for first, _ in spans],
            "end_ms": [last * FRAME_MS for _, last in spans],
            "utterance": [number] * len(spans),
            "said": said,
            "place": list(range(len(spans))),
        },
        schema={**PIECES, "place": pl.Int64()},
    )
