"""The pairs of a pair of languages that can be heard: from the floor upward, no two overlapping, with their provenance.

Not the corpus alone: which threshold is right can only be heard on both sides of it. Selecting best first and then
cutting is the same as cutting first, so that at any threshold these are the pairs of the corpus cut there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.corpora.manifest import corpus_frame
from speech_mining.corpora.written import written
from speech_mining.errors import SettingsError
from speech_mining.filters.limits import FILTER_SCORES, FilterLimits, with_scores, within_limits
from speech_mining.filters.pair_scores import read_scores
from speech_mining.lake import Lake, Partition
from speech_mining.listening.sampling import Bands
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.mining.selection import select_non_overlapping
from speech_mining.records import RECORDINGS


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs to be heard."""

    kind: Kind
    language_pair: str
    frame: pl.DataFrame
    """`corpora.manifest.corpus_schema`, by decreasing score."""
    floor: float
    """The score from which pairs were kept when they were mined."""
    threshold: float | None
    """Of the corpus; None where there is none yet."""
    corpus: str
    """Data version of the corpus; empty where there is none yet."""
    pairs: str
    """Data version of the mined pairs."""

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target, ISO 639-3."""
        source, _, target = self.language_pair.partition("-")
        return source, target

    @cached_property
    def scores(self) -> npt.NDArray[np.float64]:
        """float64 (n,)."""
        return self.frame["score"].to_numpy()

    @cached_property
    def sources(self) -> list[str]:
        """Ids of the source sides, in decimal."""
        return list(map(str, self.frame[f"source_{self.kind.source_item}"].to_list()))

    @cached_property
    def targets(self) -> list[str]:
        """Ids of the target sides."""
        return list(map(str, self.frame[f"target_{self.kind.target_item}"].to_list()))

    @cached_property
    def pair_of(self) -> list[tuple[str, str]]:
        """Row → ids of both sides."""
        return list(zip(self.sources, self.targets, strict=True))

    @cached_property
    def row_of(self) -> dict[tuple[str, str], int]:
        """Ids of both sides → row."""
        return {pair: row for row, pair in enumerate(self.pair_of)}

    @property
    def bands(self) -> Bands:
        """Of the scores."""
        return Bands(self.floor)


def kind_named(name: str) -> Kind:
    """A kind by its name.

    Raises:
        SettingsError: there is none of that name.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise SettingsError(f"There is no kind {name!r}.", expected=f"one of {', '.join(kind.name for kind in KINDS)}")


def candidates(lake: Lake, kind: Kind, language_pair: str) -> Candidates:
    """Read the pairs of a pair of languages, as they could be heard.

    Pairs that the filters of the corpus refuse are not among them.

    Raises:
        LakeError: they were never mined, or a recording or a sentence of theirs is not listed any more.
    """
    mined = lake.partition(kind.layer("pairs"), language_pair)
    corpus = lake.find(kind.layer("corpus"), language_pair)
    table = _filtered(lake, kind, language_pair, mined.read_table("pairs.parquet", kind.pairs), corpus)
    selected = select_non_overlapping(table).frame
    sides = _side(lake, kind, language_pair, selected, "source"), _side(lake, kind, language_pair, selected, "target")
    scoring = mined.read_json("scoring.json")
    return Candidates(
        kind,
        language_pair,
        corpus_frame(selected, *sides, language_pair, made_from=scoring),
        floor=float(scoring["threshold"]),
        threshold=None if corpus is None else float(corpus.read_json("selection.json")["threshold"]),
        corpus="" if corpus is None else corpus.data_version,
        pairs=mined.data_version,
    )


def _filtered(lake: Lake, kind: Kind, pair: str, pairs: pl.DataFrame, corpus: Partition | None) -> pl.DataFrame:
    """Pairs within the limits that the corpus was made with."""
    limits = FilterLimits(**(corpus.read_json("selection.json").get("limits", {}) if corpus else {}))
    if limits == FilterLimits() or corpus is None:
        return pairs
    columns = [name for name in corpus.read_frame("corpus.parquet").columns if name in FILTER_SCORES]
    scored = with_scores(pairs, read_scores(lake, pair, columns, kind))
    return within_limits(scored, limits).kept.select(pairs.columns)


def _side(lake: Lake, kind: Kind, pair: str, selected: pl.DataFrame, side: str) -> pl.DataFrame:
    """What is told of a side: its recordings, or the sentences that were selected."""
    source, _, target = pair.partition("-")
    language = source if side == "source" else target
    if side in kind.spoken:
        return lake.read_tables("raw_audio", language, name="recordings.parquet", schema=RECORDINGS)
    return written(lake, language, selected.select(shard=f"{side}_shard", shard_row=f"{side}_shard_row"))
