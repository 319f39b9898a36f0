"""A library of two audiobooks that say the same, cut out of the miniature one: seconds to mine, kilobytes to keep.

`python -m tests.tiny_library FOLDER` writes it; `tests.fixtures.make_lake` keeps a lake that was mined from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import polars as pl

from resources.settings import LIBRARY, Settings, load_settings
from speech_mining.audio.decode import read_waveform

RATE_HZ = 16_000
BOOKS = {"deu": ("8001", "German", "ofen"), "fra": ("8002", "French", "neige")}
"""Language → id, LibriVox's name of the language, and the item on archive.org."""
SECTIONS = 2
SENTENCES = 2
"""In each section; the shortest that both languages tell."""
PAUSE_S = 0.7
BIT_RATE = 24_000
MADE = 1767225600
"""When the library was made, seconds since 1970."""


def make_library(folder: Path) -> None:
    """Write `catalogue.json`, `metadata/`, `download/` and `text/`, as `demo.mirror` serves them."""
    told = _sentences()
    books = []
    for language, (book, name, item) in BOOKS.items():
        sections, files = [], []
        for number in range(1, SECTIONS + 1):
            spoken = told.slice((number - 1) * SENTENCES, SENTENCES)
            file = f"{item}_{number:02}_64kb.mp3"
            path = folder / "download" / f"{item}_librivox" / file
            seconds = _record(path, spoken, language)
            files.append(_file(path, seconds))
            sections.append(_section(book, number, item, file, name, seconds))
        _write(folder / "metadata" / f"{item}_librivox.json", {"created": MADE, "files": files})
        books.append(_book(book, name, item, sections))
        _text(folder / "text" / language / "told.txt", told, language)
    _write(folder / "catalogue.json", {"books": books})


def settings_of(home: Path, library: Path, url: str) -> Settings:
    """Both books, mined for one pair of speech and one of speech and text.

    Args:
        home: of the lake.
        library: where it was written.
        url: where it is served.
    """
    return load_settings(home=home, **written_settings(library, url))


def written_settings(library: Path, url: str) -> dict[str, Any]:
    """The same, as `s2s.toml` holds them."""
    origins = ("https://librivox.org", "https://archive.org", "https://www.archive.org")
    return {
        "catalogue_url": url,
        "languages": list(BOOKS),
        "speech_text_pairs": ["deu-fra"],
        "encoder": "miniature",
        "text": {"shards": {"fra": [str(library / "text" / "fra")]}},
        "librivox": {
            "step_retries": 0,
            "attempts": 2,
            "first_wait_s": 0.0,
            "requests_per_second": 1000.0,
            "mirrors": dict.fromkeys(origins, url),
        },
    }


@cache
def _sentences() -> pl.DataFrame:
    """The shortest sentences that both languages tell, each with its place in both."""
    table = pl.read_parquet(LIBRARY / "sentences.parquet").filter(kind="story").unique(["language", "sentence"])
    german, french = (table.filter(language=language) for language in BOOKS)
    both = german.join(french, on="sentence", suffix="_fra")
    longest = pl.max_horizontal(pl.col("end_ms") - pl.col("start_ms"), pl.col("end_ms_fra") - pl.col("start_ms_fra"))
    whole = both.filter(longest > 3_200).sort(longest, "sentence")
    return whole.head(SECTIONS * SENTENCES)


def _record(path: Path, sentences: pl.DataFrame, language: str) -> float:
    """Write sentences with pauses between as one recording; returns its length in seconds."""
    pause = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
    parts = [pause]
    for row in sentences.iter_rows(named=True):
        parts += [_spoken(row, "" if language == "deu" else f"_{language}"), pause]
    waveform = np.concatenate(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    _encode(path, waveform)
    return len(waveform) / RATE_HZ


def _spoken(row: dict[str, Any], side: str) -> npt.NDArray[np.float32]:
    heard = _recording(row[f"audiobook{side}"], row[f"section{side}"])
    return heard[row[f"start_ms{side}"] * 16 : row[f"end_ms{side}"] * 16]


@cache
def _recording(audiobook: str, section: int) -> npt.NDArray[np.float32]:
    books = json.loads((LIBRARY / "catalogue.json").read_bytes())["books"]
    (book,) = (book for book in books if book["id"] == audiobook)
    (listed,) = (each for each in book["sections"] if each["section_number"] == str(section))
    return read_waveform(LIBRARY / "download" / "/".join(listed["listen_url"].rsplit("/", 2)[1:])).astype(np.float32)


def _encode(path: Path, waveform: npt.NDArray[np.float32]) -> None:
    with av.open(str(path), "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=RATE_HZ)
        stream.bit_rate, stream.layout, stream.format = BIT_RATE, "mono", "fltp"
        frame = av.AudioFrame.from_ndarray(waveform[None, :], format="fltp", layout="mono")
        frame.sample_rate = RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def _text(path: Path, told: pl.DataFrame, language: str) -> None:
    lines = told["text" if language == "deu" else f"text_{language}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    os.utime(path, (MADE, MADE))  # a shard's version is of its size and time


def _file(path: Path, seconds: float) -> dict[str, str]:
    body = path.read_bytes()
    hashes = {"md5": hashlib.md5(body).hexdigest(), "sha1": hashlib.sha1(body).hexdigest()}
    return {"name": path.name, "size": str(len(body)), "length": f"{seconds:.2f}", **hashes}


def _section(book: str, number: int, item: str, file: str, language: str, seconds: float) -> dict[str, Any]:
    return {
        "id": f"{book}{number:02}",
        "section_number": str(number),
        "title": f"Section {number}",
        "listen_url": f"https://www.archive.org/download/{item}_librivox/{file}",
        "language": language,
        "playtime": str(round(seconds)),
        "file_name": None,
        "readers": [{"reader_id": "1", "display_name": "A Reader"}],
        "genres": [],
    }


def _book(book: str, language: str, item: str, sections: list[dict[str, Any]]) -> dict[str, Any]:
    total = sum(int(section["playtime"]) for section in sections)
    return {
        "id": book,
        "title": item,
        "description": "",
        "language": language,
        "copyright_year": "0",
        "num_sections": str(len(sections)),
        "url_librivox": f"https://librivox.org/{item}/",
        "url_iarchive": f"https://www.archive.org/details/{item}_librivox",
        "totaltimesecs": total,
        "authors": [{"id": "1", "first_name": "An", "last_name": "Author", "dob": "", "dod": ""}],
        "sections": sections,
        "genres": [],
        "translators": [],
    }


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True), "utf-8")


if __name__ == "__main__":
    make_library(Path(sys.argv[1]))
