"""Lists of segments as stopes' speech mining has them: `<language>/<shard>.tsv`, one segment a line.

Two grammars are met, and both may stand in a column of a tab-separated line, beside a score or a language:

    tales/01.mp3 100 29432 0          audio, start, end, batch number (may be left out): frames at 16 kHz
    tales/01.mp3|6|1840|16            audio, start, end, sampling factor (may be left out): milliseconds

as `stopes.modules.speech.utils.parse_audio` reads them: the separator tells the unit, and the factor, which is the
sampling rate in kHz that stopes computes in, changes no time. Older releases of stopes wrote frames with the bar too
(`extract_info`), which no line tells: say `?unit=frames` then. A batch number says nothing about the audio. Paths with
spaces need the bar. A first line may name the columns: `audio start end batch_no`; `start_ms` or `start_frame` there
tell the unit of the file.

What belongs here is what a line means. A book that comes with spans is not segmented.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

import polars as pl

from speech_mining.progress import Progress, silent
from speech_mining.records import REJECTIONS, SAMPLES_PER_MS, TIMESTAMPS
from speech_mining.sources.audiobook_names import audiobook_id, ids_apart
from speech_mining.sources.foreign_text import one_line, shown
from speech_mining.sources.lines import lines_of, read_text
from speech_mining.sources.listing import Listing, language_of
from speech_mining.sources.protocol import Catalogue
from speech_mining.sources.recording_file import recording_file
from speech_mining.sources.rejected import RejectedError

Unit: TypeAlias = Literal["ms", "frames"]
"""Of start and end: milliseconds, or samples at 16 kHz."""

_NUMBER = r"(-?[0-9]{1,15})"
_FRAMES = rf"(?:^|\t)([^ \t|]+) {_NUMBER} {_NUMBER}(?: -?[0-9]+)?(?:\t|$)"
_TABS = rf"^([^\t|]+)\t{_NUMBER}\t{_NUMBER}(?:\t-?[0-9]+)?$"
_BARS = rf"(?:^|\t)([^\t|]+)\|{_NUMBER}\|{_NUMBER}(?:\|[0-9]+)?(?:\t|$)"
_SHARD = re.compile(r"(?P<name>.+?)\.tsv(\.gz|\.zst)?", re.IGNORECASE)
_HEADER = re.compile(r"(audio|audio_file_name|path|file)[ \t|]start\w*[ \t|]end\w*([ \t|]\w+)*", re.IGNORECASE)
_UNITS: dict[str, Unit] = {"ms": "ms", "frame": "frames", "frames": "frames", "sample": "frames", "samples": "frames"}


@dataclass(frozen=True)
class StopesShards:
    """Shards of segments below `root`; a `protocol.Source`.

    A shard is a book of its name, and every audio file that it names is a section, numbered from 1 in the order of the
    first lines; a shard of the same name in two languages has the language in its id ("0.deu"). Paths are absolute or
    relative to the shard's folder. A line that cannot be used is a rejection with its number.
    """

    root: Path
    shards: tuple[Path, ...]
    unit: Unit | None
    """Of every file; None: as its header or its lines tell."""

    def read(
        self,
        *,
        languages: Collection[str] | None,
        since: datetime | None,
        now: datetime,
        progress: Progress = silent,
    ) -> Catalogue:
        """List everything: `since` leaves nothing out.

        Raises:
            CatalogueError: a shard cannot be read or unpacked.
        """
        listing = Listing()
        known = self._known(listing)
        ids = ids_apart((language, shard_name(path)) for path, language in known)  # no setting changes an id
        wanted = [(path, language) for path, language in known if languages is None or language in languages]
        for path, language in known:
            if (path, language) not in wanted:
                listing.reject("language_not_wanted", language, audiobook=ids[language, shard_name(path)])
        for done, (path, language) in enumerate(wanted, start=1):
            _list_shard(path, language, ids[language, shard_name(path)], self.unit, listing)
            progress(done, len(wanted))
        return listing.catalogue(len(known), now)

    def _known(self, listing: Listing) -> list[tuple[Path, str]]:
        known: dict[tuple[str, str], Path] = {}
        for path in self.shards:
            told = shown(str(path.relative_to(self.root)))
            try:
                language = language_of(path.parent.name)
            except RejectedError as rejected:
                listing.reject(rejected.reason, f"shard {told}: {rejected.detail}")
                continue
            first = known.setdefault((language, audiobook_id(shard_name(path))), path)
            if first != path:
                listing.reject("malformed", f"shard {told} has the name of {shown(str(first.relative_to(self.root)))}")
        return [(path, language) for (language, _), path in known.items()]


def is_shard_name(path: Path) -> bool:
    """Whether a path is called as a shard is."""
    return _SHARD.fullmatch(path.name) is not None and not path.is_dir()


def is_shard_line(line: str) -> bool:
    """Whether a line is a header or a segment of a shard."""
    return _HEADER.fullmatch(line) is not None or any(re.search(way, line) for way in (_BARS, _FRAMES, _TABS))


def shard_name(path: Path) -> str:
    """The name of a shard's book: its file without suffixes."""
    found = _SHARD.fullmatch(path.name)
    return found["name"] if found else path.name


def read_segments(lines: list[str], unit: Unit | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the lines of a shard say.

    Args:
        lines: of the file, a header perhaps among them at the first place.
        unit: of the numbers; None: as the header or the separator tells.

    Returns:
        Columns line, audio, start_sample, end_sample of the lines that are segments; and line, audio, start_sample,
        end_sample, detail of those that are not (nulls where nothing can be read). Blank lines are in neither.
    """
    header = bool(lines) and _HEADER.fullmatch(lines[0]) is not None
    unit = unit or (_unit_of(lines[0]) if header else None)
    numbered = pl.DataFrame(
        {"line": range(1, len(lines) + 1), "text": lines}, schema={"line": pl.Int64, "text": pl.String}
    )
    numbered = numbered[1:] if header else numbered
    parsed = numbered.filter(pl.col("text").str.strip_chars() != "").with_columns(
        pl.col("text").str.extract_groups(way).struct.rename_fields(["audio", "start", "end"]).alias(name)
        for name, way in (("bars", _BARS), ("spaces", _FRAMES), ("tabs", _TABS))
    )
    barred = pl.col("bars").struct.field("audio").is_not_null()
    fields = {name: [pl.col(way).struct.field(name) for way in ("bars", "spaces", "tabs")] for name in _FIELDS}
    factor = _factor(unit) if unit else pl.when(barred).then(SAMPLES_PER_MS).otherwise(1)
    read = parsed.select(
        "line",
        "text",
        pl.coalesce(fields["audio"]).alias("audio"),
        *((pl.coalesce(fields[name]).cast(pl.Int64) * factor).alias(f"{name}_sample") for name in ("start", "end")),
    )
    told = read.with_columns(_detail().alias("detail"))
    return told.filter(pl.col("detail").is_null()).drop("text", "detail"), told.filter(pl.col("detail").is_not_null())


_FIELDS = ("audio", "start", "end")


def _detail() -> pl.Expr:
    """What is wrong with a line; null where nothing is."""
    start, end = pl.col("start_sample"), pl.col("end_sample")
    return (
        pl.when(pl.col("audio").is_null())
        .then(pl.lit("neither `audio start end` nor `audio|start|end`"))
        .when((start < 0) | (end < 0))
        .then(pl.lit("a negative time"))
        .when(end <= start)
        .then(pl.lit("an empty or reversed span"))
        .when(~pl.struct("audio", "start_sample", "end_sample").is_first_distinct())
        .then(pl.lit("the same segment as a line before"))
    )


def _factor(unit: Unit) -> int:
    return SAMPLES_PER_MS if unit == "ms" else 1


def _unit_of(header: str) -> Unit | None:
    """The unit that the names of the columns tell ("start_ms"); None for "start" alone."""
    start = re.split(r"[ \t|]", header.lower())[1]
    return _UNITS.get(start.removeprefix("start").strip("_"))


def _list_shard(path: Path, language: str, audiobook: str, unit: Unit | None, listing: Listing) -> None:
    segments, refused = read_segments(_lines(path), unit)
    listing.reject_all(_rejections(refused, audiobook))
    title = one_line(shard_name(path))
    usable: list[tuple[str, int]] = []
    for section, audio in enumerate(segments["audio"].unique(maintain_order=True), start=1):
        try:
            file = recording_file(path.absolute().parent / audio)
        except RejectedError as rejected:
            spans = segments.filter(pl.col("audio") == audio)
            detail = f"{rejected.detail}; {spans.height} lines from line {spans['line'][0]}"
            listing.reject(rejected.reason, detail, audiobook=audiobook, section=section)
            continue
        usable.append((audio, section))
        told = {"title": title, "section_title": one_line(Path(audio).stem), "file_version": file.version}
        listing.add(audiobook, section, language, listen_url=file.url, **told)
    sections = pl.DataFrame(usable, schema={"audio": pl.String(), "section": TIMESTAMPS["section"]}, orient="row")
    spans = segments.join(sections, on="audio").with_columns(pl.lit(audiobook).alias("audiobook"))
    listing.add_spans(spans.select(list(TIMESTAMPS)))


def _lines(path: Path) -> list[str]:
    """Lines of a shard; bytes that are no UTF-8 become question marks, and name no file."""
    return [line if line.isprintable() else _printable(line) for line in lines_of(read_text(path))]


def _printable(line: str) -> str:
    return line.encode("utf-8", "replace").decode("utf-8")


def _rejections(refused: pl.DataFrame, audiobook: str) -> pl.DataFrame:
    columns = {
        "audiobook": pl.lit(audiobook),
        "section": pl.lit(None),
        "reason": pl.lit("malformed"),
        "detail": pl.format("line {}: {}: {}", "line", "detail", pl.col("text").str.slice(0, 100)),
    }
    return refused.with_columns(**columns).select(pl.col(name).cast(dtype) for name, dtype in REJECTIONS.items())
