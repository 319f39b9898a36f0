"""Make the miniature LibriVox that this project ships: `python -m demo.make_library` writes `demo/library/`.

Speaking, laying out, encoding and writing belong here. What is told is `demo.world.tales`; how it is catalogued is
`demo.world.books`. Needs the synthesiser (`pip install speech-mining[narration]`); the same versions of it, of PyAV and
of numpy write the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from demo.world.books import (
    BIT_RATE_BPS,
    BOOKS,
    FINISHED,
    SAMPLE_RATE_HZ,
    Book,
    ItemFile,
    Section,
    catalogue,
    closing,
    item_metadata,
    preamble,
)
from demo.world.grammar import realise
from demo.world.lexicon import LANGUAGES
from demo.world.narrators import NARRATORS, NATIVE_RATE_HZ, Samples, synthesise
from demo.world.tales import chapters
from speech_mining.atomic import replacing

LIBRARY = Path(__file__).parent / "library"

SENTENCES: Mapping[str, pl.DataType] = {
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "language": pl.String(),
    "start_ms": pl.Int64(),
    "end_ms": pl.Int64(),
    "text": pl.String(),
    "kind": pl.String(),
    "sentence": pl.String(),
    "of": pl.String(),
}
"""Every sentence spoken. `kind` is story, near_duplicate, role_swap, preamble or closing; `sentence` its key, empty
for what LibriVox has every reader say; `of` the key of the sentence that a trap was made from."""

_SIDE = ("audiobook", "section", "start_ms", "end_ms", "text")
TRUTH: Mapping[str, pl.DataType] = {
    "language_pair": pl.String(),
    **{f"{side}_{column}": SENTENCES[column] for side in ("source", "target") for column in _SIDE},
}
"""One row for each sentence and its translation, in each of the six language pairs."""

_PAUSE_S = (0.45, 1.0)
_LEAD_S = (0.5, 0.9)
_NOISE_DBFS = (-65.0, -60.0)
_DATE = "2026-01-01"


@dataclass(frozen=True)
class Line:
    """A sentence as it will be spoken: its text, its kind and its keys."""

    text: str
    kind: str
    key: str = ""
    of: str = ""


@dataclass(frozen=True)
class Recording:
    """A section as it was recorded: int16 samples at `SAMPLE_RATE_HZ`, and each line with its first and last sample."""

    samples: npt.NDArray[np.int16]
    lines: tuple[tuple[Line, int, int], ...]


@dataclass(frozen=True)
class Made:
    """A section that was written: its file and its rows of `SENTENCES`."""

    book: Book
    section: Section
    file: ItemFile
    rows: tuple[dict[str, Any], ...]


def make(library: Path, workers: int = 2) -> None:
    """Write the whole library, replacing what `library` holds of it."""
    for stale in ("download", "metadata"):
        shutil.rmtree(library / stale, ignore_errors=True)
    wanted = [(library, book, section) for book in FINISHED for section in book.sections]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        made = list(pool.map(make_section, *zip(*wanted, strict=True)))
    _write_catalogues(library, made)
    sentences = pl.DataFrame([row for one in made for row in one.rows], schema=dict(SENTENCES), orient="row")
    sentences = sentences.sort("audiobook", "section", "start_ms")
    _write_parquet(library / "sentences.parquet", sentences)
    _write_parquet(library / "truth.parquet", truth(sentences))
    _write_json(library / "made_with.json", made_with())


def make_section(library: Path, book: Book, section: Section) -> Made:
    """Record one section and write its MP3 below `library`."""
    recording = record(book, section)
    path = library / "download" / book.identifier / book.file_name(section)
    with replacing(path) as part:
        write_mp3(part, recording.samples, _tags(book, section))
    rows = tuple(_row(book, section, line, first, last) for line, first, last in recording.lines)
    return Made(book, section, _item_file(path, len(recording.samples) / SAMPLE_RATE_HZ), rows)


def made_with() -> dict[str, str]:
    """The versions that decide the bytes of the library."""
    return {package: version(package) for package in ("av", "espeakng-loader", "numpy")}


# Speaking


def lines(book: Book, section: Section) -> list[Line]:
    """What the reader of a section says, from the preamble to the closing words."""
    told = [
        Line(realise(one.sentence, section.language), one.kind, one.key, one.of)
        for one in chapters(section.language)[section.chapter]
    ]
    opening = [Line(text, "preamble") for text in preamble(book, section)]
    return [*opening, *told, Line(closing(section), "closing")]


def record(book: Book, section: Section) -> Recording:
    """Speak a section: pauses of 0.45 to 1 s between sentences, over the quiet noise of a room."""
    chance = random.Random(f"{book.identifier}: {section.number}")
    pieces: list[Samples] = [_silence(chance.uniform(*_LEAD_S))]
    spoken: list[tuple[Line, int, int]] = []
    length = len(pieces[0])
    for line in lines(book, section):
        samples, _ = synthesise(line.text, NARRATORS[section.language])
        pause = _silence(chance.uniform(*_PAUSE_S))
        spoken.append((line, length, length + len(samples)))
        pieces += [samples, pause]
        length += len(samples) + len(pause)
    level_dbfs = chance.uniform(*_NOISE_DBFS)
    noisy = np.concatenate(pieces) + _room(length, level_dbfs, chance.getrandbits(64))
    return Recording(np.round(np.clip(noisy, -1, 1) * 32767).astype(np.int16), tuple(spoken))


def _silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * NATIVE_RATE_HZ), dtype=np.float32)


def _room(length: int, level_dbfs: float, seed: int) -> Samples:
    """Noise of a level in dBFS (RMS), with the treble 9 dB below the bass: a two-tap average of white noise, twice."""
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(length + 2)
    soft = noise[:-2] + 1.4 * noise[1:-1] + 0.7 * noise[2:]
    noise_at_level: Samples = (soft * (10 ** (level_dbfs / 20) / soft.std())).astype(np.float32)
    return noise_at_level


# Writing


def write_mp3(path: Path, samples: npt.NDArray[np.int16], tags: Mapping[str, str]) -> None:
    """Encode mono samples at `SAMPLE_RATE_HZ` as MP3 of a constant bit rate.

    The encoder's delay is written into the file's first frame, and decoders that read it (FFmpeg does) give the
    samples back in their own time.
    """
    import av

    with av.open(str(path), "w", format="mp3") as container:
        container.metadata.update(tags)
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ)
        stream.bit_rate = BIT_RATE_BPS
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def _tags(book: Book, section: Section) -> dict[str, str]:
    return {
        "title": f"{section.number:02d} - {section.title}",
        "album": book.title,
        "artist": NARRATORS[section.language].name,
        "date": _DATE,
    }


def _item_file(path: Path, length_s: float) -> ItemFile:
    written = path.read_bytes()
    return ItemFile(
        name=path.name,
        size=len(written),
        md5=hashlib.md5(written, usedforsecurity=False).hexdigest(),
        sha1=hashlib.sha1(written, usedforsecurity=False).hexdigest(),
        length_s=length_s,
    )


def _row(book: Book, section: Section, line: Line, first: int, last: int) -> dict[str, Any]:
    return {
        "audiobook": book.project,
        "section": section.number,
        "language": section.language,
        "start_ms": round(first * 1000 / SAMPLE_RATE_HZ),
        "end_ms": round(last * 1000 / SAMPLE_RATE_HZ),
        "text": line.text,
        "kind": line.kind,
        "sentence": line.key,
        "of": line.of,
    }


def _write_catalogues(library: Path, made: Sequence[Made]) -> None:
    durations_s = {(one.book.project, one.section.number): round(one.file.length_s) for one in made}
    _write_json(library / "catalogue.json", catalogue(BOOKS, durations_s))
    for book in FINISHED:
        files = sorted((one.file for one in made if one.book == book), key=lambda file: file.name)
        _write_json(library / "metadata" / f"{book.identifier}.json", item_metadata(book, files))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with replacing(path) as part:
        frame.write_parquet(part)


# The truth


def truth(sentences: pl.DataFrame) -> pl.DataFrame:
    """Pair the sentences of `SENTENCES` that have the same key, for each two languages in alphabetical order.

    The boilerplate of LibriVox has no key: it is the same in every section, and no translation worth mining.
    """
    told = sentences.filter(pl.col("sentence") != "")
    pairs = [_pairs(told, source, target) for source, target in combinations(LANGUAGES, 2)]
    return pl.concat(pairs).select([pl.col(name).cast(dtype) for name, dtype in TRUTH.items()])


def _pairs(told: pl.DataFrame, source: str, target: str) -> pl.DataFrame:
    left, right = (
        told.filter(pl.col("language") == language).select("sentence", pl.col(_SIDE).name.prefix(prefix))
        for language, prefix in ((source, "source_"), (target, "target_"))
    )
    paired = left.join(right, on="sentence").with_columns(pl.lit(f"{source}-{target}").alias("language_pair"))
    return paired.sort("source_audiobook", "source_section", "source_start_ms")


def _figures(library: Path) -> Iterator[str]:
    """The made library in figures, a line each."""
    sentences = pl.read_parquet(library / "sentences.parquet")
    lengths = [
        float(file["length"])
        for path in sorted((library / "metadata").glob("*.json"))
        for file in json.loads(path.read_text(encoding="utf-8"))["files"]
    ]
    size = sum(path.stat().st_size for path in library.rglob("*") if path.is_file())
    yield f"{len(FINISHED)} audiobooks, {len(lengths)} sections, {sum(lengths) / 60:.1f} min, {size / 1e6:.2f} MB"
    counts = sentences.group_by("language", "kind").len().sort("language", "kind")
    yield from (f"{language} {kind}: {count}" for language, kind, count in counts.iter_rows())
    pairs = pl.read_parquet(library / "truth.parquet").group_by("language_pair").len().sort("language_pair")
    yield from (f"{pair} translations: {count}" for pair, count in pairs.iter_rows())


def main() -> None:
    """Make the library and print its figures."""
    parser = argparse.ArgumentParser(description="Make the miniature LibriVox again.")
    parser.add_argument("--to", type=Path, default=LIBRARY, help="where to write it (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that speak (default: %(default)s)")
    arguments = parser.parse_args()
    make(arguments.to, arguments.workers)
    print("\n".join(_figures(arguments.to)))


if __name__ == "__main__":
    main()
