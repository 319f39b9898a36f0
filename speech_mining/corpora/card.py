"""Where a corpus came from, and the card that tells it: hours, thresholds, readers, licences, method.

What belongs here is the lineage as data and as a page for people. Names and titles come from outside: in the page they
are text and never markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl

from speech_mining import __version__
from speech_mining.corpora import splits
from speech_mining.corpora.splits import SPLITS, Shares
from speech_mining.lake import Lake, Partition
from speech_mining.mining.kinds import Kind
from speech_mining.quality.hours import hours_of, samples_of

_LONGEST = 200
"""Characters of a name that are shown; a title of 10 kB is not a title."""
_NAMES = 50
# direction marks would turn the rest of a line around
_INVISIBLE = re.compile("[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True)
class Lineage:
    """What an export holds and what it was made of."""

    kind: str
    pair: str
    corpus_version: str
    """Data version of the corpus: the hash of its content."""
    pairs_version: str | None
    selection: Mapping[str, Any]
    """As the corpus says it was made: threshold, selection, counts."""
    scoring: Mapping[str, Any]
    """As the pairs say: margin, strategy, k, encoders."""
    shares: Mapping[str, float]
    splits_version: str
    counts: Mapping[str, int]
    """Rows of each split, and those between."""
    hours: Mapping[str, Mapping[str, float]]
    """Split → side → hours of speech."""
    readers: Mapping[str, Sequence[str]]
    """Side → names."""
    audiobooks: Mapping[str, int]
    licences: Sequence[str]
    version: str = __version__

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def lineage_of(lake: Lake, corpus: Partition, kind: Kind, pair: str, rows: pl.DataFrame, shares: Shares) -> Lineage:
    """Gather what a corpus tells of itself, over rows that know their split."""
    pairs = lake.find(kind.layer("pairs"), pair)
    made = lineage_of_rows(
        kind, pair, rows, shares, corpus_version=corpus.data_version, selection=corpus.read_json("selection.json")
    )
    if pairs is None:
        return made
    return replace(made, pairs_version=pairs.data_version, scoring=pairs.read_json("scoring.json"))


def lineage_of_rows(
    kind: Kind, pair: str, rows: pl.DataFrame, shares: Shares, *, corpus_version: str, selection: Mapping[str, Any]
) -> Lineage:
    """What rows tell by themselves: splits, hours, readers, licences."""
    spoken = kind.spoken
    return Lineage(
        kind=kind.name,
        pair=pair,
        corpus_version=corpus_version,
        pairs_version=None,
        selection=selection,
        scoring={},
        shares={"dev": shares.dev, "test": shares.test},
        splits_version=splits.VERSION,
        counts=splits.counted(rows),
        hours={split: _hours(rows.filter(pl.col("split") == split), spoken) for split in SPLITS},
        readers={side: rows[f"{side}_readers"].unique().sort().to_list() for side in spoken},
        audiobooks={side: rows[f"{side}_audiobook"].n_unique() for side in spoken},
        licences=sorted({name for side in spoken for name in rows[f"{side}_licence"].unique()}),
    )


def plain(text: str) -> str:
    """A name from outside as text of a page: no markup, one line, no marks that turn a line around, not too long."""
    line = _INVISIBLE.sub(" ", text)
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return re.sub(
        r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    )


def card(lineage: Lineage, *, header: str = "", reading: str = "") -> str:
    """The page, in Markdown.

    Args:
        lineage: of the corpus.
        header: what stands before the page, such as Hugging Face's YAML.
        reading: how the format is read, as Markdown.
    """
    parts = [
        f"# {_title(lineage)}",
        f"Pairs of segments that say the same, mined out of audiobooks by the nearness of their embeddings. "
        f"{_made(lineage)}",
        "## What is in it",
        _split_table(lineage),
        _between(lineage),
        reading,
        "## How it was made",
        _method(lineage),
        "## Readers and licences",
        _people(lineage),
        "## Limits",
        "Pairs were found by machine and never checked by a person: some are wrong, most often near the threshold. "
        "Scores order them. Segments are cut at silences and may hold half a sentence. Readers are volunteers; names "
        "stand here to thank them.",
    ]
    return header + "\n\n".join(part for part in parts if part) + "\n"


def _title(lineage: Lineage) -> str:
    names = {"s2s": "Speech-to-speech", "s2t": "Speech-to-text", "t2s": "Text-to-speech", "t2t": "Text-to-text"}
    return f"{names[lineage.kind]} translations, {lineage.pair}"


def _made(lineage: Lineage) -> str:
    threshold = lineage.selection.get("threshold")
    score = "" if threshold is None else f"Score at least {threshold}; "
    return f"{score}version `{lineage.corpus_version}`."


def _split_table(lineage: Lineage) -> str:
    sides = list(next(iter(lineage.hours.values()), {}))
    head = ["split", "pairs", *(f"{side} hours" for side in sides)]
    rows = [
        [split, f"{lineage.counts[split]:,}", *(f"{lineage.hours[split][side]:.4f}" for side in sides)]
        for split in SPLITS
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def _between(lineage: Lineage) -> str:
    left = lineage.counts[splits.BETWEEN]
    rule = "No audiobook and no reader is in two splits, here or in the export of another pair of languages."
    return f"{rule} {left:,} pairs that would tie two splits together are left out." if left else rule


def _method(lineage: Lineage) -> str:
    told = {"selection": lineage.selection, "scoring": lineage.scoring}
    packed = json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False).replace("```", "'''")
    return (
        "Recordings are cut at silences into overlapping candidates; candidates are embedded into one space for all "
        "languages; pairs are scored by their margin (Artetxe & Schwenk 2019; Duquenne, Gong & Schwenk 2021); of "
        f"overlapping pairs the best is kept.\n\n```json\n{packed}\n```"
    )


def _people(lineage: Lineage) -> str:
    lines = [f"- licences: {_listed(lineage.licences)}"]
    for side, names in lineage.readers.items():
        lines.append(f"- {side}: {lineage.audiobooks[side]:,} audiobooks, read by {_listed(names)}")
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(plain(name) or "unnamed" for name in names[:_NAMES])
    return f"{shown} and {len(names) - _NAMES:,} more" if len(names) > _NAMES else shown


def _hours(rows: pl.DataFrame, spoken: Sequence[str]) -> dict[str, float]:
    return {side: round(hours_of(samples_of(rows, side)), 4) for side in spoken}
