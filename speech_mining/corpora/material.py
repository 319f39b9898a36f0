"""What every exporter is given: the rows of a corpus, each with its split, its id and the clips of its spoken sides.

What belongs here is the way from a corpus of the lake to rows with clips. How they are written down is one module a
format: `hugging_face`, `web_dataset`, `fairseq`, `nemo`, `lhotse_shar`, `links`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from speech_mining.corpora import cutting, splits
from speech_mining.corpora.card import Lineage, lineage_of
from speech_mining.corpora.cutting import Clip, Clips, Recording, Span
from speech_mining.corpora.manifest import read_corpus
from speech_mining.corpora.splits import BETWEEN, SPLITS, Shares, with_splits
from speech_mining.errors import LakeError
from speech_mining.lake import Lake, Partition
from speech_mining.mining.kinds import Kind
from speech_mining.progress import Progress, silent
from speech_mining.records import RECORDINGS, item_column

_Held: TypeAlias = tuple[dict[str, Any], Partition]
"""A row of `records.RECORDINGS`, and the partition that holds its file."""
SHORT = {"source": "src", "target": "tgt"}
"""What formats of the field call the two sides."""


@dataclass(frozen=True)
class Row:
    """A row of a corpus on its way out."""

    id: str
    split: str
    told: Mapping[str, Any] = field(repr=False)
    """The corpus' own columns."""
    clips: Mapping[str, Clip] = field(repr=False)
    """Side → its clip; a side of text has none."""

    def text(self, side: str) -> str:
        """The sentence of a side of text, "" of one that is speech."""
        return str(self.told.get(f"{side}_text", ""))

    def span(self, side: str) -> Span:
        """Of a spoken side, samples at 16 kHz."""
        return self.told[f"{side}_start_sample"], self.told[f"{side}_end_sample"]


@dataclass(frozen=True)
class Material:
    """A corpus on its way out."""

    kind: Kind
    pair: str
    frame: pl.DataFrame
    """Columns `manifest.corpus_schema`, and `id` and `split`; by decreasing score. No row is `between`."""
    clips: Clips
    hashes: Mapping[tuple[str, str, int], str]
    """(side, audiobook, section) → the recording's hash."""
    lineage: Lineage

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target, ISO 639-3."""
        source, _, target = self.pair.partition("-")
        return source, target

    @cached_property
    def splits(self) -> list[str]:
        """Those that have a row."""
        there = set(self.frame["split"])
        return [split for split in SPLITS if split in there]

    @cached_property
    def columns(self) -> list[str]:
        """The corpus' own columns."""
        return [name for name in self.frame.columns if name not in {"id", "split"}]

    def rows(self, split: str | None = None) -> Iterator[Row]:
        """Rows of a split, or of all, by decreasing score; one at a time, since a million of them are 3 GB."""
        frame = self.frame if split is None else self.frame.filter(pl.col("split") == split)
        for told in frame.iter_rows(named=True):
            clips = {side: self._clip(side, told) for side in self.kind.spoken} if self.clips.of_recording else {}
            yield Row(told.pop("id"), told.pop("split"), told, clips)

    def hash_of(self, side: str, told: Mapping[str, Any]) -> str:
        """The hash of the recording that a row's side lies in."""
        return self.hashes[side, told[f"{side}_audiobook"], told[f"{side}_section"]]

    def _clip(self, side: str, told: Mapping[str, Any]) -> Clip:
        return self.clips.of(self.hash_of(side, told), told[f"{side}_start_sample"], told[f"{side}_end_sample"])


@dataclass(frozen=True)
class Planned:
    """A corpus whose clips are not cut yet."""

    kind: Kind
    pair: str
    frame: pl.DataFrame
    recordings: tuple[Recording, ...]
    hashes: Mapping[tuple[str, str, int], str]
    lineage: Lineage

    def unheard(self) -> Planned:
        """The same without clips, for a format that holds none."""
        return replace(self, recordings=())

    def cut(self, store: Path, *, workers: int = 2, progress: Progress = silent) -> Material:
        """Cut what is not in the store yet; see `cutting.cut`."""
        clips = cutting.cut(self.recordings, store, workers=workers, progress=progress)
        return Material(self.kind, self.pair, self.frame, clips, self.hashes, self.lineage)


def plan(lake: Lake, kind: Kind, pair: str, shares: Shares) -> Planned:
    """Everything of an export but the clips: rows, splits, the recordings to cut, and where it all came from.

    Raises:
        LakeError: the corpus is not there, is empty, has no row in any split, or its audio is not there any more.
    """
    partition = lake.partition(kind.layer("corpus"), pair)
    corpus = read_corpus(partition)
    _require_rows(corpus, kind, pair)
    languages = dict(zip(("source", "target"), pair.split("-"), strict=True))
    known = {side: _recordings(lake, languages[side], corpus, side) for side in kind.spoken}
    frame = with_ids(with_splits(corpus, _readers(known), shares), pair)
    lineage = lineage_of(lake, partition, kind, pair, frame, shares)
    kept = frame.filter(pl.col("split") != BETWEEN)
    _require_kept(kept, frame, pair)
    recordings, hashes = _wanted(kept, known, languages)
    return Planned(kind, pair, kept, recordings, hashes, lineage)


def with_ids(rows: pl.DataFrame, pair: str) -> pl.DataFrame:
    """Name rows for ever: by the pair and both sides' items. No name has a dot: WebDataset would cut there."""
    names = [pl.col(item_column(rows.columns, side)) for side in ("source", "target")]
    hexed = [name.map_elements(lambda item: f"{item:016x}", return_dtype=pl.String) for name in names]
    return rows.with_columns(pl.concat_str(pl.lit(pair), *hexed, separator="-").alias("id"))


def _recordings(lake: Lake, language: str, corpus: pl.DataFrame, side: str) -> list[_Held]:
    """The recordings of the audiobooks that a side speaks of, each with the partition that holds its file."""
    found: list[_Held] = []
    for audiobook in corpus[f"{side}_audiobook"].unique().sort():
        partition = lake.find("raw_audio", language, audiobook)
        if partition is None:
            raise _vanished(f"raw_audio of {language}/{audiobook} is not in the lake")
        for row in partition.read_table("recordings.parquet", RECORDINGS).iter_rows(named=True):
            found.append((row, partition))
    return found


def _readers(known: Mapping[str, Sequence[_Held]]) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = {}
    for row, _ in (each for side in known.values() for each in side):
        readers.setdefault(row["audiobook"], []).append(row["readers"])
    return readers


def _wanted(
    rows: pl.DataFrame, known: Mapping[str, Sequence[_Held]], languages: Mapping[str, str]
) -> tuple[tuple[Recording, ...], dict[tuple[str, str, int], str]]:
    """The recordings to cut, each once with the spans of both sides, by hash; and which recording a row means."""
    spans: dict[str, set[Span]] = {}
    places: dict[str, tuple[str, Path]] = {}
    hashes: dict[tuple[str, str, int], str] = {}
    for side, recordings in known.items():
        by_place = {(row["audiobook"], row["section"]): (row, partition) for row, partition in recordings}
        ends = [f"{side}_start_sample", f"{side}_end_sample"]
        for place, group in rows.group_by(f"{side}_audiobook", f"{side}_section"):
            audiobook, section = str(place[0]), int(str(place[1]))
            if (audiobook, section) not in by_place:
                raise _vanished(f"section {section} of {languages[side]}/{audiobook} is not in raw_audio")
            row, partition = by_place[audiobook, section]
            hashes[side, audiobook, section] = row["sha256"]
            places[row["sha256"]] = (
                f"{languages[side]}/{audiobook}, section {section}",
                partition.local_path(row["file"]),
            )
            spans.setdefault(row["sha256"], set()).update(group.select(ends).iter_rows())
    wanted = sorted(spans)
    return tuple(Recording(*places[sha], sha, tuple(sorted(spans[sha]))) for sha in wanted), hashes


def _vanished(what: str) -> LakeError:
    return LakeError(
        f"The audio of the corpus is not there any more: {what}.",
        expected="the recordings that the corpus was mined from",
        cause="raw_audio was removed or fetched anew since the corpus was made",
        fix="materialize raw_audio of the audiobook again, or the corpus",
    )


def _require_rows(corpus: pl.DataFrame, kind: Kind, pair: str) -> None:
    if corpus.is_empty():
        raise LakeError(
            f"{kind.layer('corpus')} of {pair} has no rows.",
            expected="at least one pair",
            cause="no pair reaches the threshold",
            fix="lower the threshold, or bring more audiobooks",
        )


def _require_kept(kept: pl.DataFrame, frame: pl.DataFrame, pair: str) -> None:
    if kept.is_empty():
        raise LakeError(
            f"All {frame.height} rows of {pair} are between splits.",
            expected="at least one row whose audiobooks and readers are all in one split",
            cause="the corpus has few audiobooks or readers, and some of them are held out",
            fix="export with --dev 0 --test 0, or with other shares",
        )


__all__ = ["SHORT", "Lineage", "Material", "Planned", "Row", "plan", "splits", "with_ids"]
