"""A language of chords and its translation: speech that a tiny model learns in seconds, and a lake that was "mined"."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import soundfile

from speech_mining.downstream.examples import EXAMPLES
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, SPEECH_TO_TEXT, Kind
from speech_mining.records import RECORDINGS, segment_id

RATE_HZ = 16_000
WORD_S, PAUSE_S = 0.16, 0.5
WORDS = ("red", "green", "blue", "white", "black", "brown", "pink", "grey")
CHORDS_HZ = {
    "deu": tuple((300 + 220 * word, 3000 - 180 * word + 400 * (word % 3)) for word in range(8)),
    "eng": tuple((400 + 310 * ((3 * word) % 8), 2900 + 150 * word - 300 * (word % 2)) for word in range(8)),
}
LEARNING: dict[str, Any] = {
    "width": 32,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "vocabulary": 60,
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "batch_seconds": 12.0,
    "peak_rate": 5e-3,
    "updates": 80,
    "checkpoint_every": 50,
    "longest_tokens": 12,
}
"""Enough for a model to learn what the chords mean."""

Sentence = tuple[int, ...]
SENTENCES: tuple[Sentence, ...] = tuple(
    sorted(itertools.permutations(range(8), 2), key=lambda one: hashlib.sha256(repr(one).encode()).digest())
)
"""56, in an order that has nothing to do with what they say."""


def text(sentence: Sentence) -> str:
    return " ".join(WORDS[word] for word in sentence)


def speak(sentence: Sentence, language: str, seed: int = 0) -> npt.NDArray[np.float32]:
    at = np.arange(round(WORD_S * RATE_HZ)) / RATE_HZ
    swell = np.sin(np.pi * at / WORD_S) ** 0.3
    words = [0.1 * swell * sum(np.sin(2 * np.pi * hz * at) for hz in CHORDS_HZ[language][word]) for word in sentence]
    whole = np.concatenate(words)
    return (whole + np.random.default_rng(seed).normal(0, 1e-3, len(whole))).astype(np.float32)


def examples(folder: Path, sentences: list[Sentence], *, name: str = "clip", spoken: bool = False) -> pl.DataFrame:
    """A clip each, told in text and, where `spoken`, in the other language's chords."""
    rows = []
    for number, sentence in enumerate(sentences):
        row: dict[str, Any] = {"example": f"{name}-{number:03d}", "target_words": text(sentence)}
        for side, language in (("source", "deu"), ("target", "eng")) if spoken else (("source", "deu"),):
            path = folder / f"{name}-{number:03d}-{language}.wav"
            samples = speak(sentence, language, number)
            write(path, samples)
            row |= {
                f"{side}_file": str(path),
                f"{side}_place": "",
                f"{side}_duration_s": len(samples) / RATE_HZ,
                f"{side}_recording": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        rows.append(row)
    return pl.DataFrame([{key: row.get(key) for key in EXAMPLES} for row in rows], schema=dict(EXAMPLES))


def write(path: Path, samples: npt.NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE_HZ, format="WAV", subtype="PCM_16")


def write_set(folder: Path, parts: dict[str, list[Sentence]], language: str, other: str) -> None:
    """A set of transcribed speech with translations."""
    lines = ["path\ttext\ttranslation\tlanguage\ttranslation_language\tsplit"]
    for split, sentences in parts.items():
        for number, sentence in enumerate(sentences):
            name = f"{split}-{number:03d}.wav"
            write(folder / name, speak(sentence, language, 500 + number))
            # what is transcribed differs by language, so that only a translation can be equal to it
            words = [text(sentence) if one == "eng" else f"de {text(sentence)}" for one in (language, other)]
            lines.append("\t".join([name, *words, language, other, split]))
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n")


class MinedLake:
    """Audiobooks of chords in both languages, their text, and pairs as mining leaves them.

    Args:
        home: of the platform.
        sentences: told once in each language, ten to a recording.
        wrong: of the pairs the last so many have another one's target, and a low score.
    """

    def __init__(self, home: Path, sentences: list[Sentence], wrong: int = 4) -> None:
        self.lake = Lake(home / "lake")
        self.sentences, self.wrong = sentences, wrong
        self.spans = {language: self._tell(language) for language in ("deu", "eng")}
        self._write_text()
        for kind in (SPEECH_TO_TEXT, SPEECH_TO_SPEECH):
            self._write_pairs(kind)

    def _tell(self, language: str) -> list[dict[str, Any]]:
        spans: list[dict[str, Any]] = []
        rows = []
        with self.lake.replace("raw_audio", language, f"{language}1") as new:
            for section, first in enumerate(range(0, len(self.sentences), 10), start=1):
                samples, at = [], 0
                for number, sentence in enumerate(self.sentences[first : first + 10]):
                    pause = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
                    spoken = speak(sentence, language, 1000 + first + number)
                    start = at + len(pause)
                    at = start + len(spoken)
                    samples += [pause, spoken]
                    spans.append(
                        {"audiobook": f"{language}1", "section": section, "start_sample": start, "end_sample": at}
                    )
                path = new.path(f"{section}.wav")
                write(path, np.concatenate(samples))
                rows.append(self._recording(path, language, section))
            new.write_table("recordings.parquet", pl.DataFrame(rows, schema=dict(RECORDINGS)), RECORDINGS)
        return spans

    def _recording(self, path: Path, language: str, section: int) -> dict[str, Any]:
        content = path.read_bytes()
        known = {
            "audiobook": f"{language}1",
            "section": section,
            "language": language,
            "file": path.name,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        return {name: known.get(name) for name in RECORDINGS}

    def _write_text(self) -> None:
        told = pl.DataFrame(
            {
                "text": [text(one) for one in self.sentences],
                "document": "told",
                "line": list(range(1, len(self.sentences) + 1)),
                "offset": 0,
                "length": [len(text(one)) for one in self.sentences],
            }
        )
        with self.lake.replace("text_sentences", "eng", "told") as new:
            new.write_frame("sentences.parquet", told)
            new.write_json("shard.json", {"address": "told.txt"})

    def _write_pairs(self, kind: Kind) -> None:
        count = len(self.sentences)
        rows = []
        for number in range(count):
            wrong = number >= count - self.wrong
            other = number if not wrong else count - self.wrong + (number + 1 - (count - self.wrong)) % self.wrong
            row: dict[str, Any] = {"score": 1.02 if wrong else 1.2 - 0.001 * number, "cosine": 0.9}
            row |= self._place("source", "deu", number)
            row |= {"target_sentence": other, "target_shard": "told", "target_shard_row": other}
            row |= self._place("target", "eng", other)
            rows.append({name: row[name] for name in kind.pairs})
        with self.lake.replace(kind.layer("pairs"), "deu-eng") as new:
            new.write_table("pairs.parquet", pl.DataFrame(rows, schema=dict(kind.pairs)), kind.pairs)
            new.write_json("scoring.json", {"threshold": 1.0, "margin": "ratio", "strategy": "max"})

    def _place(self, side: str, language: str, number: int) -> dict[str, Any]:
        span = self.spans[language][number]
        told = {
            **span,
            "segment": segment_id(span["audiobook"], span["section"], span["start_sample"], span["end_sample"]),
        }
        return {f"{side}_{name}": value for name, value in told.items()}

    def truth(self, folder: Path) -> tuple[Path, Path]:
        """Known truths of both kinds, written as the settings take them."""
        both = [
            {"number": number, **{f"{side}_{name}": value for side, language in (("source", "deu"), ("target", "eng"))
             for name, value in self._ms(language, number).items()}, "text": text(sentence)}
            for number, sentence in enumerate(self.sentences)
        ]  # fmt: skip
        table = pl.DataFrame(both).with_columns(pl.lit("deu-eng").alias("language_pair"))
        spoken = table.with_columns(source_text=pl.lit(""), target_text=pl.col("text")).drop("number", "text")
        written = table.select(
            "language_pair",
            *(pl.col(f"source_{name}").alias(name) for name in ("audiobook", "section", "start_ms", "end_ms")),
            "text",
            pl.lit("").alias("spoken"),
        )
        paths = folder / "text_truth.parquet", folder / "truth.parquet"
        written.write_parquet(paths[0])
        spoken.write_parquet(paths[1])
        return paths

    def _ms(self, language: str, number: int) -> dict[str, Any]:
        span = self.spans[language][number]
        ends = {f"{end}_ms": span[f"{end}_sample"] // 16 for end in ("start", "end")}
        return {"audiobook": span["audiobook"], "section": span["section"], **ends}
