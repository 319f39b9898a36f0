"""A language of forty chords, each a word, that keep company: recordings with their words, and it in writing.

A word is a chord of its own; sentences are drawn around a place in a plane, so that words near each other in it stand
together. What is written tells other sentences of the same language.
"""

from __future__ import annotations

import wave
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.lake import Lake
from speech_mining.records import RECORDINGS
from speech_mining.segmentation.audiobook import RUNS
from speech_mining.text.sentences import SENTENCES

RATE_HZ = 16_000
WORD_MS, PAUSE_MS = 120, 600
WORDS = tuple(f"{first}{second}" for first in "bdfgklmn" for second in "aeiou")
LONGEST = 8


@cache
def _places() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Each word's place, float64 (40, 3), and the logarithm of its frequency."""
    chance = np.random.default_rng(5)
    return 1.6 * chance.standard_normal((len(WORDS), 3)), 0.6 * chance.standard_normal(len(WORDS))


def sentences(count: int, seed: int) -> list[list[int]]:
    """Numbers of words, four to eight a sentence."""
    places, frequencies = _places()
    chance = np.random.default_rng(seed)
    told = []
    for _ in range(count):
        about = 1.2 * chance.standard_normal(3)
        scores = frequencies + places @ about
        share = np.exp(scores - scores.max())
        told.append(chance.choice(len(WORDS), chance.integers(4, LONGEST + 1), p=share / share.sum()).tolist())
    return told


def sound(word: int, chance: np.random.Generator) -> npt.NDArray[np.float32]:
    """A word of 120 ms, a chord of two tones, never quite the same."""
    low, high = 250 + 90 * (word % 8), 1200 + 420 * (word // 8)
    at = np.arange(WORD_MS * RATE_HZ // 1000) / RATE_HZ
    swell = np.sin(np.pi * at * 1000 / WORD_MS) ** 0.3
    tones = sum(np.sin(2 * np.pi * hz * (1 + 0.004 * chance.standard_normal()) * at) for hz in (low, high))
    return (0.12 * swell * tones + 2e-4 * chance.standard_normal(len(at))).astype(np.float32)


def recorded(told: list[list[int]], seed: int) -> tuple[npt.NDArray[np.float32], list[tuple[int, int, str]]]:
    """Samples of sentences with pauses between, and each word with its first and last millisecond."""
    chance = np.random.default_rng(seed)
    parts, known, at_ms = [], [], 0
    for sentence in told:
        for word in sentence:
            parts.append(sound(word, chance))
            known.append((at_ms, at_ms + WORD_MS, WORDS[word]))
            at_ms += WORD_MS
        parts.append((2e-4 * chance.standard_normal(PAUSE_MS * RATE_HZ // 1000)).astype(np.float32))
        at_ms += PAUSE_MS
    return np.concatenate(parts), known


def write_speech(lake: Lake, language: str, told: list[list[int]], books: int = 2) -> pl.DataFrame:
    """Segmented audiobooks of a language; returns their words, as `speech_mining.words.audiobooks.TIMINGS`."""
    timings = []
    for number in range(books):
        book = str(70 + number)
        samples, known = recorded(told[number::books], number)
        with lake.replace("raw_audio", language, book) as new:
            _write_wave(new.path("1.wav"), samples)
            row = {**dict.fromkeys(RECORDINGS, None), "audiobook": book, "section": 1, "language": language}
            table = pl.DataFrame([{**row, "file": "1.wav"}], schema=dict(RECORDINGS))
            new.write_table("recordings.parquet", table, RECORDINGS)
        with lake.replace("segments", language, book) as new:
            new.write_table("runs.parquet", _runs(book, known), RUNS)
        timings += [(book, 1, first, last, word) for first, last, word in known]
    columns = {"audiobook": pl.String(), "section": pl.Int32(), "start_ms": pl.Int64(), "end_ms": pl.Int64()}
    return pl.DataFrame(timings, schema={**columns, "word": pl.String()}, orient="row")


def write_text(lake: Lake, language: str, told: list[list[int]]) -> None:
    """A shard of sentences."""
    texts = [" ".join(WORDS[word] for word in sentence) + "." for sentence in told]
    count = len(texts)
    rows = {
        "sentence_id": range(1, count + 1),
        "text": texts,
        "document": ["tones"] * count,
        "line": range(1, count + 1),
        "offset": [0] * count,
        "length": [len(text) for text in texts],
    }
    with lake.replace("text_sentences", language, "tones") as new:
        new.write_table("sentences.parquet", pl.DataFrame(rows, schema=dict(SENTENCES)), SENTENCES)


def _runs(book: str, known: list[tuple[int, int, str]]) -> pl.DataFrame:
    edges = [at for at in range(1, len(known)) if known[at][0] > known[at - 1][1]]
    starts, ends = [0, *edges], [*edges, len(known)]
    spans = [(known[first][0] * 16, known[last - 1][1] * 16) for first, last in zip(starts, ends, strict=True)]
    rows = [(book, 1, number, first, last, first, last) for number, (first, last) in enumerate(spans)]
    return pl.DataFrame(rows, schema=dict(RUNS), orient="row")


def _write_wave(path: Path, samples: npt.NDArray[np.float32]) -> None:
    with wave.open(str(path), "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE_HZ)
        written.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
