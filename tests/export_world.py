"""A small lake with a corpus of each kind, made without mining: real recordings on disk, known spans."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import soundfile

from speech_mining.corpora.manifest import corpus_of
from speech_mining.corpora.splits import Shares, place
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, SPEECH_TO_TEXT, TEXT_TO_SPEECH, Kind
from speech_mining.records import RECORDINGS, segment_id

SHARES = Shares(dev=0.3, test=0.3)
HOSTILE = '<script>alert("1")</script>\t\u202egnp.exe\n# heading | cell `code` ```\\'
RATE_HZ = 16_000
SECONDS = 20


def reader(split: str, number: int) -> str:
    """A reader whose place is known."""
    names = (f"Reader {count}" for count in range(10_000))
    return [
        name
        for _, name in zip(range(number + 400), names, strict=False)
        if place(f"reader/{name.casefold()}", SHARES) == split
    ][number]


@dataclass(frozen=True)
class World:
    lake: Lake
    waveforms: dict[tuple[str, str], np.ndarray]
    """(language, audiobook) → int16 samples of its one recording."""


def build(folder: Path, *, title: str = "Tales", rows_a_pair: int = 3) -> World:
    """Six solo books a language; book n of German is told by book n of English. Two are for each split."""
    lake, waveforms = Lake(folder / "lake"), {}
    for language in ("deu", "eng"):
        for number in range(6):
            waveforms[language, f"{language}{number}"] = _book(lake, language, number, title)
    for kind in (SPEECH_TO_SPEECH, SPEECH_TO_TEXT, TEXT_TO_SPEECH):
        with lake.replace(kind.layer("corpus"), "deu-eng") as new:
            new.write_table("corpus.parquet", corpus(kind, title, rows_a_pair), corpus_of(kind))
            new.write_json("selection.json", {"threshold": 1.06, "selection": "greedy", "counts": {}})
    return World(lake, waveforms)


def samples_of(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.1, RATE_HZ * SECONDS)
    return np.asarray(noise * 32_767, dtype=np.int16)


def corpus(kind: Kind, title: str = "Tales", rows_a_pair: int = 3) -> pl.DataFrame:
    """Rows of known spans; what the schema has beyond them is filled."""
    rows = []
    for number in range(6):
        for count in range(rows_a_pair):
            row = {"score": 1.5 - 0.1 * number - 0.01 * count, "source_section": 1, "target_section": 1}
            for side, language in (("source", "deu"), ("target", "eng")):
                if side in kind.spoken:
                    row |= _spoken(side, language, number, count, title)
                else:
                    row |= {
                        f"{side}_text": f"Sentence {number}.{count} {title}",
                        f"{side}_sentence": 10 * number + count,
                    }
                    row |= {f"{side}_language": language, f"{side}_address": "/text/eng.txt", f"{side}_line": count}
            rows.append(row)
    schema = corpus_of(kind)
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=dict(schema))
    texts = [name for name, dtype in schema.items() if dtype == pl.String]
    return frame.with_columns(pl.col(texts).fill_null("told"), pl.exclude(texts).fill_null(0))


def split_of(number: int) -> str:
    return ("train", "dev", "test")[number % 3]


def _spoken(side: str, language: str, number: int, count: int, title: str) -> dict[str, object]:
    start, end = RATE_HZ * (1 + 5 * count) + 7, RATE_HZ * (4 + 5 * count) + 11 * number
    book = f"{language}{number}"
    told = {
        "audiobook": book, "start_sample": start, "end_sample": end, "start_ms": start // 16, "end_ms": end // 16,
        "segment": segment_id(book, 1, start, end), "language": language, "title": title, "section_title": title,
        "readers": reader(split_of(number), number // 3 + 2 * (language == "eng")), "licence": "Public Domain Mark 1.0",
        "url": f"https://archive.example/{book}.wav",
    }  # fmt: skip
    return {f"{side}_{name}": value for name, value in told.items()}


def _book(lake: Lake, language: str, number: int, title: str) -> np.ndarray:
    samples = samples_of(100 * number + (language == "eng"))
    packed = io.BytesIO()
    soundfile.write(packed, samples, RATE_HZ, format="WAV", subtype="PCM_16")
    content = packed.getvalue()
    sha256, told = hashlib.sha256(content).hexdigest(), _spoken("", language, number, 0, title)
    row = {name: told.get(f"_{name}") for name in RECORDINGS}
    row |= {"section": 1, "file": f"{sha256}.wav", "bytes": len(content), "sha256": sha256, "announced_s": SECONDS}
    with lake.replace("raw_audio", language, f"{language}{number}") as new:
        new.path(f"{sha256}.wav").write_bytes(content)
        new.write_table("recordings.parquet", pl.DataFrame([row], schema=dict(RECORDINGS)), RECORDINGS)
    return samples
