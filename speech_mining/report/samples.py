"""A few pairs of each corpus, over all scores, with all that is known of them: sound, words, neighbours, provenance.

What belongs here is gathering. Markup is in `page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from speech_mining.errors import AudioError, LakeError
from speech_mining.lake import Lake
from speech_mining.listening.candidates import Candidates
from speech_mining.listening.clips import Span, as_mp3, cut, spans_of
from speech_mining.listening.sampling import listening_order, spread_sample
from speech_mining.mining.tables import NEIGHBOURS
from speech_mining.records import SAMPLES_PER_MS, SEGMENTS, Schema

TRANSCRIPTS: Schema = {
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "start_ms": pl.Int64(),
    "end_ms": pl.Int64(),
    "text": pl.String(),
}
"""What is said where, for those who know it."""
NEIGHBOURS_SHOWN = 5


@dataclass(frozen=True)
class ReportPlan:
    """What a report may hold."""

    samples: int = 8
    """Pairs to listen to, of each pair of languages."""
    seed: int = 0
    audio_bytes: int = 8_000_000
    """For all sound together, before it becomes text (4 bytes for 3): each pair of languages gets its part."""


@dataclass(frozen=True)
class Side:
    """One half of a sample."""

    language: str
    text: str | None
    """What is said or written; None where it is not known."""
    written: bool
    facts: tuple[tuple[str, str], ...]
    """What it is and where it comes from, by name."""
    url: str | None
    sound: bytes | None
    """MP3."""
    silence: str
    """Why there is no sound; empty where there is, or where the side is text."""


@dataclass(frozen=True)
class Neighbour:
    """What else lay near a source."""

    cosine: float
    told: str
    mined: bool
    """Whether it is the target of the pair."""


@dataclass(frozen=True)
class Sample:
    """A pair to look at and listen to."""

    score: float
    cosine: float
    in_corpus: bool
    source: Side
    target: Side
    neighbours: tuple[Neighbour, ...] = ()


@dataclass
class Gathering:
    """What samples are gathered from; tables that many pairs need are read once."""

    lake: Lake
    plan: ReportPlan
    transcripts: pl.DataFrame | None = None
    """`TRANSCRIPTS`."""
    _segments: dict[str, pl.DataFrame] = field(default_factory=dict, repr=False)

    def samples(self, found: Candidates, audio_bytes: int) -> list[Sample]:
        """A few pairs of a pair of languages, by falling score.

        Args:
            found: the pairs.
            audio_bytes: what their sound may take, before it becomes text.
        """
        order = listening_order(found.scores, found.sources, found.targets, found.bands, self.plan.seed)
        rows = spread_sample(found.scores, order, found.bands, self.plan.samples)
        chosen = found.frame[rows]
        sounds = _sounds(self.lake, found, chosen, audio_bytes)
        neighbours = self._neighbours(found, chosen)
        return [self._sample(found, told, sounds, neighbours) for told in chosen.iter_rows(named=True)]

    def _sample(
        self,
        found: Candidates,
        told: Mapping[str, Any],
        sounds: Mapping[str, bytes | str],
        neighbours: Mapping[int, tuple[tuple[int, float], ...]],
    ) -> Sample:
        near = neighbours.get(told[f"source_{found.kind.source_item}"], ())
        target = told[f"target_{found.kind.target_item}"]
        return Sample(
            score=told["score"],
            cosine=float(told["cosine"]),
            in_corpus=found.threshold is not None and told["score"] >= found.threshold,
            source=self._side(told, "source", sounds),
            target=self._side(told, "target", sounds),
            neighbours=tuple(Neighbour(cosine, self._place(found, item), item == target) for item, cosine in near),
        )

    def _side(self, told: Mapping[str, Any], side: str, sounds: Mapping[str, bytes | str]) -> Side:
        own = {name.removeprefix(f"{side}_"): value for name, value in told.items() if name.startswith(f"{side}_")}
        if "text" in own:
            written = (("document", own["document"]), ("line", str(own["line"])), ("file", own["address"]))
            return Side(own["language"], own["text"], True, written, _link(own["document"]), None, "")
        sound = sounds[str(own["segment"])]
        facts = (
            ("audiobook", f"{own['title']} ({own['audiobook']})"),
            ("section", f"{own['section']}: {own['section_title']}"),
            ("read by", own["readers"]),
            ("licence", own["licence"]),
            ("from", f"{clock(own['start_ms'])} to {clock(own['end_ms'])}"),
            ("segment", str(own["segment"])),
        )
        heard = sound if isinstance(sound, bytes) else None
        why = sound if isinstance(sound, str) else ""
        return Side(own["language"], self._spoken(own), False, facts, _link(own["url"]), heard, why)

    def _spoken(self, own: Mapping[str, Any]) -> str | None:
        """The sentences of which more than half lies in a span; None where nothing is known of it."""
        if self.transcripts is None:
            return None
        here = self.transcripts.filter(
            pl.col("audiobook") == own["audiobook"], pl.col("section") == own["section"]
        ).sort("start_ms")
        if here.is_empty():
            return None
        shared = pl.min_horizontal("end_ms", own["end_ms"]) - pl.max_horizontal("start_ms", own["start_ms"])
        return " ".join(here.filter(2 * shared > pl.col("end_ms") - pl.col("start_ms"))["text"].to_list()) or None

    def _neighbours(self, found: Candidates, chosen: pl.DataFrame) -> dict[int, tuple[tuple[int, float], ...]]:
        """Source item → its nearest targets and their cosines."""
        partition = self.lake.find(found.kind.layer("neighbours"), found.language_pair)
        if partition is None:
            return {}
        wanted = chosen[f"source_{found.kind.source_item}"].implode()
        table = partition.read_table("forward.parquet", NEIGHBOURS).filter(pl.col("segment").is_in(wanted))
        return {
            segment: tuple(zip(items[:NEIGHBOURS_SHOWN], cosines[:NEIGHBOURS_SHOWN], strict=True))
            for segment, items, cosines in table.iter_rows()
        }

    def _place(self, found: Candidates, item: int) -> str:
        """Where a neighbour lies, or what it says."""
        if "target" not in found.kind.spoken:
            known = found.frame.filter(pl.col("target_sentence") == item)
            return str(known["target_text"][0]) if known.height else f"sentence {item}"
        places = self._segments_of(found.languages[1]).filter(pl.col("segment_id") == item)
        if places.is_empty():
            return f"segment {item}"
        book, section, start, end = places.row(0)[1:]
        return f"{book}, section {section}, {clock(start // SAMPLES_PER_MS)} to {clock(end // SAMPLES_PER_MS)}"

    def _segments_of(self, language: str) -> pl.DataFrame:
        if language not in self._segments:
            table = self.lake.read_tables("segments", language, name="segments.parquet", schema=SEGMENTS)
            self._segments[language] = table.select("segment_id", "audiobook", "section", "start_sample", "end_sample")
        return self._segments[language]


def clock(ms: int) -> str:
    """Milliseconds as minutes and seconds."""
    return f"{ms // 60000}:{ms % 60000 / 1000:05.2f}"


def _sounds(lake: Lake, found: Candidates, chosen: pl.DataFrame, audio_bytes: int) -> dict[str, bytes | str]:
    """Segment → its sound, or why there is none."""
    spans: dict[str, Span] = {}
    for side in found.kind.spoken:
        spans |= spans_of(chosen, side)
    waveforms = cut(lake, spans.values())
    sounds: dict[str, bytes | str] = {}
    left = audio_bytes
    for told in chosen.iter_rows(named=True):
        segments = [str(told[f"{side}_segment"]) for side in found.kind.spoken]
        for segment in segments:
            waveform = waveforms[spans[segment]]
            sounds[segment] = str(waveform) if isinstance(waveform, LakeError | AudioError) else as_mp3(waveform)
        taken = sum(len(sounds[segment]) for segment in segments if isinstance(sounds[segment], bytes))
        if taken > left:
            sounds |= dict.fromkeys(segments, "Left out: the report would grow beyond its size.")
            continue
        left -= taken
    return sounds


def _link(address: str) -> str | None:
    """An address that may become a link: never a script's."""
    return address if address.startswith(("https://", "http://")) else None
