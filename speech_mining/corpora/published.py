"""Manifests that others have published: LibriVox S2S, SpeechMatrix. Read as they are, and held against ours.

What belongs here is reading them and comparing hours and overlap. What is documented of them, and no more, is believed:

- LibriVox S2S (github.com/facebookresearch/LASER, tasks/librivox-s2s): "sorted by decreasing mining scores (first
  column)". Nothing is said of the other columns.
- SpeechMatrix (fairseq, examples/speech_matrix): a header `score, <language>_audio, <language>_audio`; audio is
  `<language>_aud.zip:offset:length`, in bytes of a stored zip.

So the first column is the score. A header names the others; without one they are `column_2` and so on, as text. What
a path says of recording and span is not guessed: a user who knows gives a pattern (`Places`). Durations are taken from
spans, or measured of the audio where it lies on the disk.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import polars as pl

from speech_mining.audio.decode import Held, measure_s
from speech_mining.errors import AudioError, LakeError, SettingsError
from speech_mining.records import SAMPLE_RATE_HZ

_RANGE = re.compile(r"(?P<file>.+):(?P<offset>[0-9]{1,15}):(?P<length>[0-9]{1,15})")
_GROUPS = ("recording", "start", "end")
_UNITS_HZ = {"samples": SAMPLE_RATE_HZ, "milliseconds": 1000, "seconds": 1}
SIDES = ("source", "target")


@dataclass(frozen=True)
class Published:
    """A manifest of others."""

    frame: pl.DataFrame
    """`score` (float), and every other column as text, as named or numbered by the file."""
    has_header: bool


@dataclass(frozen=True)
class Places:
    """How a user reads recording and span out of a manifest's cells."""

    source: str
    """Column of the source side."""
    target: str
    pattern: str
    """Regular expression with the groups recording, start and end, of the whole cell."""
    unit: str = "samples"
    """Of start and end: samples (at 16 kHz), milliseconds or seconds."""


@dataclass(frozen=True)
class Compared:
    """A published manifest beside our corpus."""

    rows: int
    our_rows: int
    hours: dict[str, float]
    """Side → theirs, added up."""
    our_hours: dict[str, float]
    shared_hours: dict[str, float]
    """Side → speech that is in both, each stretch once."""
    shared_rows: int
    """Of ours: rows of which both sides overlap a row of theirs by more than half of the union."""
    strangers: int
    """Rows of theirs of which no recording is in our corpus."""


def read_published(path: Path) -> Published:
    """Read a manifest, plain or gzipped, with tabs between its columns.

    Raises:
        LakeError: it cannot be read, its first column is no score, or scores rise.
    """
    try:
        content = path.read_bytes()
        text = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        first = text.partition(b"\n")[0].decode().rstrip("\r").split("\t")
        has_header = first[0] == "score"
        names = first if has_header else ["score", *(f"column_{number}" for number in range(2, len(first) + 1))]
        frame = pl.read_csv(
            io.BytesIO(text),
            separator="\t",
            quote_char=None,
            has_header=has_header,
            schema=dict.fromkeys(names, pl.String),
        ).with_columns(pl.col("score").cast(pl.Float64))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pl.exceptions.PolarsError) as problem:
        raise _no_manifest(path, str(problem)) from problem
    if frame.is_empty() or frame["score"].null_count():
        raise _no_manifest(path, "no rows, or rows without a score")
    if not frame["score"].is_sorted(descending=True):
        raise _no_manifest(path, "scores that rise")
    return Published(frame, has_header)


def spans_of(published: Published, places: Places) -> pl.DataFrame:
    """What a user's pattern reads out of the cells.

    Returns:
        `score`, and of each side `…_recording`, `…_start_sample`, `…_end_sample`, in the file's order.

    Raises:
        SettingsError: a column is not there, the pattern lacks a group, or a cell does not match.
    """
    pattern = _pattern(places.pattern)
    columns = dict(zip(SIDES, (places.source, places.target), strict=True))
    found: dict[str, list[object]] = {}
    for side, column in columns.items():
        if column not in published.frame.columns:
            raise SettingsError(f"The manifest has no column {column!r}.", expected=f"one of {published.frame.columns}")
        for cell in published.frame[column]:
            recording, start, end = _place(cell, pattern, places.unit)
            for name, value in (("recording", recording), ("start_sample", start), ("end_sample", end)):
                found.setdefault(f"{side}_{name}", []).append(value)
    return published.frame.select("score").with_columns(pl.Series(name, values) for name, values in found.items())


def measured_hours(published: Published, column: str, root: Path) -> float:
    """Hours of a column's audio, measured: files below `root`, or `archive.zip:offset:length`.

    Raises:
        AudioError: something is not there or no audio.
    """
    return sum(measure_s(_audio(root, cell)) for cell in published.frame[column]) / 3600


def compare(theirs: pl.DataFrame, corpus: pl.DataFrame) -> Compared:
    """Hold spans of others against a corpus of speech with speech.

    A recording of theirs is one of ours when it is called like the file at our address, without ending.

    Args:
        theirs: as `spans_of` gives them.
        corpus: columns of a speech-to-speech corpus.
    """
    ours = corpus.select(
        *(_stem(f"{side}_url").alias(f"{side}_recording") for side in SIDES),
        *(f"{side}_{end}_sample" for side in SIDES for end in ("start", "end")),
    )
    known = {name for side in SIDES for name in ours[f"{side}_recording"]}
    strange = ~pl.any_horizontal(pl.col(f"{side}_recording").is_in(list(known)) for side in SIDES)
    return Compared(
        rows=theirs.height,
        our_rows=ours.height,
        hours={side: _hours(theirs, side) for side in SIDES},
        our_hours={side: _hours(ours, side) for side in SIDES},
        shared_hours={side: _shared(theirs, ours, side) / (SAMPLE_RATE_HZ * 3600) for side in SIDES},
        shared_rows=_shared_rows(theirs, ours),
        strangers=theirs.filter(strange).height,
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as problem:
        raise SettingsError(f"{text!r} is no pattern: {problem}.", expected="a regular expression") from None
    if missing := [name for name in _GROUPS if name not in pattern.groupindex]:
        raise SettingsError(f"The pattern {text!r} has no group {missing[0]!r}.", expected="(?P<recording>…) and so on")
    return pattern


def _place(cell: str, pattern: re.Pattern[str], unit: str) -> tuple[str, int, int]:
    if unit not in _UNITS_HZ:
        raise SettingsError(f"There is no unit {unit!r}.", expected=f"one of {', '.join(_UNITS_HZ)}")
    match = pattern.fullmatch(cell)
    if match is None:
        raise SettingsError(
            f"The pattern does not match {cell[:200]!r}.",
            expected=f"every cell to match {pattern.pattern!r}",
            fix="look at the manifest's first rows, and say what they mean",
        )
    start, end = (round(float(match[name]) * SAMPLE_RATE_HZ / _UNITS_HZ[unit]) for name in ("start", "end"))
    return match["recording"], start, end


def _audio(root: Path, cell: str) -> Path | Held:
    match = _RANGE.fullmatch(cell)
    path = root / (match["file"] if match else cell)
    if not path.resolve().is_relative_to(root.resolve()) or not path.is_file():
        raise AudioError(f"There is no file {cell[:200]!r} below {root}.", reason="not_found", fix="download the audio")
    if match is None:
        return path
    with path.open("rb") as file:
        file.seek(int(match["offset"]))
        return Held(cell, file.read(int(match["length"])))


def _stem(column: str) -> pl.Expr:
    return pl.col(column).map_elements(lambda url: PurePosixPath(urlsplit(url).path).stem, return_dtype=pl.String)


def _hours(spans: pl.DataFrame, side: str) -> float:
    return float((spans[f"{side}_end_sample"] - spans[f"{side}_start_sample"]).sum()) / (SAMPLE_RATE_HZ * 3600)


def _shared(theirs: pl.DataFrame, ours: pl.DataFrame, side: str) -> int:
    """Samples that are in both, each once: |A ∩ B| of the unions of spans, by recording."""
    names = [f"{side}_recording", f"{side}_start_sample", f"{side}_end_sample"]
    both = {
        str(recording): [group.select(names[1:]).rows()]
        for (recording,), group in theirs.select(names).group_by(names[:1])
    }
    total = 0
    for (recording,), group in ours.select(names).group_by(names[:1]):
        for spans in both.get(str(recording), []):
            own, other = list(_union(group.select(names[1:]).rows())), list(_union(spans))
            total += sum(map(_length, own)) + sum(map(_length, other)) - sum(map(_length, _union([*own, *other])))
    return total


def _union(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    start, end = 0, 0
    for first, last in sorted(spans):
        if first > end:
            yield start, end
            start, end = first, last
        end = max(end, last)
    yield start, end


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _shared_rows(theirs: pl.DataFrame, ours: pl.DataFrame) -> int:
    """Rows of ours whose both sides overlap those of one row of theirs by more than half of the union."""
    keys = [f"{side}_recording" for side in SIDES]
    joined = ours.with_row_index("row").join(theirs.drop("score"), on=keys, suffix="_theirs")
    overlaps = [
        pl.min_horizontal(f"{side}_end_sample", f"{side}_end_sample_theirs")
        - pl.max_horizontal(f"{side}_start_sample", f"{side}_start_sample_theirs")
        for side in SIDES
    ]
    unions = [
        pl.max_horizontal(f"{side}_end_sample", f"{side}_end_sample_theirs")
        - pl.min_horizontal(f"{side}_start_sample", f"{side}_start_sample_theirs")
        for side in SIDES
    ]
    alike = pl.all_horizontal(2 * overlap > union for overlap, union in zip(overlaps, unions, strict=True))
    return int(joined.filter(alike)["row"].n_unique())


def _no_manifest(path: Path, why: str) -> LakeError:
    return LakeError(
        f"{path} cannot be read as a published manifest: {why}.",
        expected="a table with tabs between its columns, its first the score, best first",
        cause="it is another file, or was cut short",
        fix="download it again",
    )
