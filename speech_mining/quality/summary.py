"""The whole lake in one table of figures: how much went in, how much came out, and how right it is.

What belongs here is counting over partitions; hours and comparisons are made in `hours` and
`speech_mining.evaluation.truth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from speech_mining.corpora.manifest import read_corpus
from speech_mining.evaluation.text_truth import compare_with_texts
from speech_mining.evaluation.truth import Comparison, compare_with_truth
from speech_mining.knn.roll import TEXT
from speech_mining.lake import Lake
from speech_mining.mining.kinds import KINDS, SPEECH_TO_SPEECH, Kind
from speech_mining.quality.hours import HOURS, hours_of, samples_of
from speech_mining.records import SEGMENTS
from speech_mining.segmentation.audiobook import SECTIONS


@dataclass(frozen=True, eq=False)
class PairSummary:
    """A corpus in figures."""

    pair: str
    pairs: int
    threshold: float
    source_hours: float | None
    """None where the side is text."""
    target_hours: float | None
    hours: pl.DataFrame
    """`hours.HOURS`: what any other threshold would give."""
    comparison: Comparison | None = None
    """With the known truth, where there is one."""
    kind: Kind = SPEECH_TO_SPEECH


@dataclass(frozen=True, eq=False)
class Summary:
    """The lake in figures."""

    audiobooks: int
    recordings: int
    audio_hours: float
    segments: int
    language_pairs: list[PairSummary] = field(default_factory=list)
    """Speech with speech."""
    with_text: list[PairSummary] = field(default_factory=list)
    """Speech with text, text with speech, text with text."""
    sentences: int = 0
    """Different sentences of text, in all languages."""

    @property
    def pairs(self) -> int:
        """Pairs of speech with speech, in all corpora."""
        return sum(pair.pairs for pair in self.language_pairs)

    @property
    def precision(self) -> float | None:
        """Right pairs of all mined pairs, over every compared corpus; None where nothing was compared."""
        return precision_of(self.language_pairs)

    @property
    def recall(self) -> float | None:
        """Truths found of all truths, over every compared corpus; None where nothing was compared."""
        return recall_of(self.language_pairs)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: `hours` of a pair is keyed by threshold ("1.06")."""
        return {
            "audiobooks": self.audiobooks,
            "recordings": self.recordings,
            "audio_hours": round(self.audio_hours, 4),
            "segments": self.segments,
            "pairs": self.pairs,
            "precision": self.precision,
            "recall": self.recall,
            "language_pairs": {pair.pair: _as_dict(pair) for pair in self.language_pairs},
            **({"text": self._text_as_dict()} if self.with_text else {}),
        }

    def _text_as_dict(self) -> dict[str, Any]:
        return {
            "sentences": self.sentences,
            **{
                kind.group: {
                    "pairs": sum(pair.pairs for pair in of_kind),
                    "precision": precision_of(of_kind),
                    "recall": recall_of(of_kind),
                    "language_pairs": {pair.pair: _as_dict(pair) for pair in of_kind},
                }
                for kind in KINDS
                if (of_kind := [pair for pair in self.with_text if pair.kind == kind])
            },
        }


def precision_of(pairs: Sequence[PairSummary]) -> float | None:
    """Right pairs of all mined pairs, over the corpora that were compared; None where none was."""
    compared = [pair.comparison for pair in pairs if pair.comparison]
    mined = sum(comparison.mined for comparison in compared)
    return sum(comparison.true_positives for comparison in compared) / mined if mined else None


def recall_of(pairs: Sequence[PairSummary]) -> float | None:
    """Truths found of all truths, over the corpora that were compared; None where none was."""
    compared = [pair.comparison for pair in pairs if pair.comparison]
    truths = sum(comparison.truths for comparison in compared)
    return sum(comparison.found for comparison in compared) / truths if truths else None


@dataclass(frozen=True)
class Mined:
    """What is counted of a kind: its pairs, and where it is known what is right."""

    kind: Kind
    pairs: tuple[str, ...]
    truth: pl.DataFrame | None = None


def summarise(lake: Lake, languages: Sequence[str], mined: Sequence[Mined]) -> Summary:
    """Count what the lake holds.

    Args:
        lake: to read.
        languages: whose layers are counted.
        mined: whose corpora are counted; pairs not made yet are left out.
    """
    books = {book for language in languages for book in lake.keys("segments", language)}
    tables = [
        lake.read_tables("segments", language, name="sections.parquet", schema=SECTIONS) for language in languages
    ]
    recordings = pl.concat([pl.DataFrame(schema=dict(SECTIONS)), *tables])
    segments = sum(
        lake.read_tables("segments", language, name="segments.parquet", schema=SEGMENTS).height
        for language in languages
    )
    return Summary(
        audiobooks=len(books),
        recordings=recordings.height,
        audio_hours=float(recordings["duration_s"].sum()) / 3600,
        segments=segments,
        language_pairs=[found for one in mined if one.kind == SPEECH_TO_SPEECH for found in _pairs(lake, one)],
        with_text=[found for one in mined if one.kind != SPEECH_TO_SPEECH for found in _pairs(lake, one)],
        sentences=_sentences(lake),
    )


def _sentences(lake: Lake) -> int:
    indexes = [lake.partition(TEXT.index, language) for language in lake.keys(TEXT.index)]
    return sum(int(index.read_table("roll.parquet", TEXT.roll)["rows"].sum()) for index in indexes)


def _pairs(lake: Lake, mined: Mined) -> list[PairSummary]:
    return [_pair(lake, mined, pair) for pair in mined.pairs if lake.find(mined.kind.layer("corpus"), pair)]


def _pair(lake: Lake, mined: Mined, pair: str) -> PairSummary:
    kind, partition = mined.kind, lake.partition(mined.kind.layer("corpus"), pair)
    corpus = read_corpus(partition)
    known = None if mined.truth is None else mined.truth.filter(pl.col("language_pair") == pair)
    hours = {side: hours_of(samples_of(corpus, side)) for side in kind.spoken}
    return PairSummary(
        pair=pair,
        pairs=corpus.height,
        threshold=partition.read_json("selection.json")["threshold"],
        source_hours=hours.get("source"),
        target_hours=hours.get("target"),
        hours=partition.read_table("hours.parquet", HOURS),
        comparison=None if known is None or known.is_empty() else _compared(kind, corpus, known),
        kind=kind,
    )


def _compared(kind: Kind, corpus: pl.DataFrame, truth: pl.DataFrame) -> Comparison:
    if kind == SPEECH_TO_SPEECH:
        return compare_with_truth(corpus, truth)
    return compare_with_texts(corpus.rename({"target_text": "text"}), truth)


def _as_dict(pair: PairSummary) -> dict[str, Any]:
    told: dict[str, Any] = {
        "pairs": pair.pairs,
        "threshold": pair.threshold,
        **{
            f"{side}_hours": round(hours, 4)
            for side, hours in (("source", pair.source_hours), ("target", pair.target_hours))
            if hours is not None
        },
        "hours": {f"{row['threshold']:.2f}": _three_ways(row, pair.kind) for row in pair.hours.to_dicts()},
    }
    if pair.comparison:
        told |= {
            "precision": pair.comparison.precision,
            "recall": pair.comparison.recall,
            "true_positives": pair.comparison.true_positives,
            "truths": pair.comparison.truths,
        }
    return told


def _three_ways(row: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Hours at one threshold: sum, union and post-processed, each for the sides of speech."""
    ways = {"sum": "sum", "union": "union", "post_processed": "postprocessed"}
    hours = {way: {side: row[f"{side}_{name}_h"] for side in kind.spoken} for way, name in ways.items()}
    return {"pairs": row["pairs"], **hours}
