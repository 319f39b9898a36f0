"""The whole lake in one table of figures: how much went in, how much came out, and how right it is.

What belongs here is counting over partitions; hours and comparisons are made in `hours` and
`speech_mining.evaluation.truth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from speech_mining.corpora.manifest import CORPUS
from speech_mining.evaluation.truth import Comparison, compare_with_truth
from speech_mining.lake import Lake
from speech_mining.quality.hours import HOURS, hours_of, samples_of
from speech_mining.records import SEGMENTS
from speech_mining.segmentation.audiobook import SECTIONS


@dataclass(frozen=True, eq=False)
class PairSummary:
    """A corpus in figures."""

    pair: str
    pairs: int
    threshold: float
    source_hours: float
    target_hours: float
    hours: pl.DataFrame
    """`hours.HOURS`: what any other threshold would give."""
    comparison: Comparison | None = None
    """With the known truth, where there is one."""


@dataclass(frozen=True, eq=False)
class Summary:
    """The lake in figures."""

    audiobooks: int
    recordings: int
    audio_hours: float
    segments: int
    language_pairs: list[PairSummary] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        """Pairs in all corpora."""
        return sum(pair.pairs for pair in self.language_pairs)

    @property
    def precision(self) -> float | None:
        """Right pairs of all mined pairs, over every compared corpus; None where nothing was compared."""
        compared = [pair.comparison for pair in self.language_pairs if pair.comparison]
        mined = sum(comparison.mined for comparison in compared)
        return sum(comparison.true_positives for comparison in compared) / mined if mined else None

    @property
    def recall(self) -> float | None:
        """Truths found of all truths, over every compared corpus; None where nothing was compared."""
        compared = [pair.comparison for pair in self.language_pairs if pair.comparison]
        truths = sum(comparison.truths for comparison in compared)
        return sum(comparison.found for comparison in compared) / truths if truths else None

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
        }


def summarise(lake: Lake, languages: Sequence[str], pairs: Sequence[str], truth: pl.DataFrame | None = None) -> Summary:
    """Count what the lake holds.

    Args:
        lake: to read.
        languages: whose layers are counted.
        pairs: whose corpora are counted; those not made yet are left out.
        truth: known translations with a column `language_pair`, to compare every corpus with.
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
        language_pairs=[_pair(lake, pair, truth) for pair in pairs if lake.find("s2s_corpus", pair)],
    )


def _pair(lake: Lake, pair: str, truth: pl.DataFrame | None) -> PairSummary:
    partition = lake.partition("s2s_corpus", pair)
    corpus = partition.read_table("corpus.parquet", CORPUS)
    known = None if truth is None else truth.filter(pl.col("language_pair") == pair)
    return PairSummary(
        pair=pair,
        pairs=corpus.height,
        threshold=partition.read_json("selection.json")["threshold"],
        source_hours=hours_of(samples_of(corpus, "source")),
        target_hours=hours_of(samples_of(corpus, "target")),
        hours=partition.read_table("hours.parquet", HOURS),
        comparison=None if known is None or known.is_empty() else compare_with_truth(corpus, known),
    )


def _as_dict(pair: PairSummary) -> dict[str, Any]:
    told: dict[str, Any] = {
        "pairs": pair.pairs,
        "threshold": pair.threshold,
        "source_hours": round(pair.source_hours, 4),
        "target_hours": round(pair.target_hours, 4),
        "hours": {f"{row['threshold']:.2f}": _three_ways(row) for row in pair.hours.to_dicts()},
    }
    if pair.comparison:
        told |= {
            "precision": pair.comparison.precision,
            "recall": pair.comparison.recall,
            "true_positives": pair.comparison.true_positives,
            "truths": pair.comparison.truths,
        }
    return told


def _three_ways(row: Mapping[str, Any]) -> dict[str, Any]:
    """Hours at one threshold: sum, union and post-processed, each for both sides."""
    ways = {"sum": "sum", "union": "union", "post_processed": "postprocessed"}
    hours = {way: {side: row[f"{side}_{name}_h"] for side in ("source", "target")} for way, name in ways.items()}
    return {"pairs": row["pairs"], **hours}
