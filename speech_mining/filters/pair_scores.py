"""Scores of the mined pairs of two languages, brought up to date: what was scored before is not scored again.

What belongs here is the way from the lake's pairs and vectors to a table of scores. The models are in `filters.blaser`
and `filters.mutox`; limits are in `filters.limits`, and none is applied here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import EmbeddingError, LakeError
from speech_mining.filters.blaser import BlaserQe
from speech_mining.filters.card_model import CardModel
from speech_mining.filters.limits import BLASER_SCORES, FILTER_SCORES, TOXICITY_SCORES, pair_key
from speech_mining.filters.mutox import Mutox
from speech_mining.knn.roll import Layout, Roll, read_roll
from speech_mining.lake import Lake, Partition
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, Kind
from speech_mining.progress import Progress, silent
from speech_mining.records import Schema, item_column

LAYER = "pair_quality"
"""Of each kind: `s2s_pair_quality`, `s2t_pair_quality` …"""
SCORES, MADE_BY = "scores.parquet", "made_by.json"
LENGTHS = "lengths.npy"
"""float32 (rows,), beside the vectors of an audiobook or a shard: how long each was before it was a unit vector."""
SONAR = ("sonar-speech", "sonar-text")
"""Encoders whose vectors the models were trained on."""
CHUNK_ROWS = 8192
"""Pairs whose vectors are in memory at once: 100 MB at 1024 dimensions. A multiple of a batch's rows."""
SIDES = ("source", "target")

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PairModels:
    """The models that score, those that are on."""

    blaser: BlaserQe | None = None
    mutox: Mutox | None = None
    vector_length: float | None = None
    """Of SONAR's own vectors, where the lake does not tell it: see `Mutox`."""

    def schema(self, kind: Kind) -> Schema:
        """Columns of the scores of a kind's pairs."""
        on = {**(BLASER_SCORES if self.blaser else {}), **(TOXICITY_SCORES if self.mutox else {})}
        return {**{name: kind.pairs[name] for name in pair_key(list(kind.pairs))}, **on}

    @property
    def versions(self) -> dict[str, str]:
        """Column → what its scores depend on, beside the embeddings."""
        toxic = f"{self.mutox.version}/length {self.vector_length}" if self.mutox else ""
        by_column = dict.fromkeys(BLASER_SCORES, self.blaser.version if self.blaser else "")
        return {name: told for name, told in {**by_column, **dict.fromkeys(TOXICITY_SCORES, toxic)}.items() if told}


@dataclass(frozen=True, eq=False)
class PairScores:
    """A score of every pair."""

    frame: pl.DataFrame
    """`PairModels.schema` of the kind, in the order of the pairs."""
    made_by: Mapping[str, Any]
    """Versions of the models, and data versions of the embeddings: what decides whether a score can be taken over."""
    scored: Mapping[str, int]
    """Column → scores computed now."""
    taken_over: Mapping[str, int]


def score_pairs(
    lake: Lake,
    pair: tuple[str, str],
    models: PairModels,
    kind: Kind = SPEECH_TO_SPEECH,
    *,
    progress: Progress = silent,
) -> PairScores:
    """Score every pair that was mined, those of before with what they had.

    Speech and text share SONAR's space, in which both models were trained: any kind of pair can be scored. Scores are
    taken over where the model, and the embeddings of both audiobooks or shards, are what they were; a kept score is
    what would be computed now, to the last bit, so that the result does not depend on what was there.

    Args:
        lake: with the pairs and both indexes.
        pair: the languages.
        models: what scores.
        kind: the modalities of the two.
        progress: told the number of scores done.

    Raises:
        LakeError: pairs or an index are missing, or older than the embeddings.
        EmbeddingError: the embeddings are not SONAR's, or of another dimension; no lengths are known for MuTox.
        EncoderError: a model cannot be loaded.
    """
    mined = lake.partition(kind.layer("pairs"), "-".join(pair))
    pairs = mined.read_table("pairs.parquet", kind.pairs)
    sides = {
        name: _Side.read(lake, kind, language, layout)
        for name, language, layout in zip(SIDES, pair, kind.layouts, strict=True)
    }
    for model in (models.blaser, models.mutox):
        for side in sides.values():
            _refuse_another_space(model, side)
    made_by = {
        "pairs": mined.data_version,
        "versions": models.versions,
        **{name: side.versions_of(pairs, name) for name, side in sides.items()},
    }
    earlier = _Earlier.read(lake.find(kind.layer(LAYER), "-".join(pair)), kind, made_by)
    work = _Work(pairs, earlier, progress)
    if models.blaser:
        work.add_alikeness(models.blaser, sides)
    if models.mutox:
        for name, side in sides.items():
            work.add_toxicity(models.mutox, models.vector_length, name, side)
    frame = pairs.select(pair_key(pairs.columns)).with_columns(work.columns[name] for name in models.versions)
    return PairScores(frame, made_by, work.scored, work.taken_over)


def read_scores(lake: Lake, pair: str, columns: Sequence[str], kind: Kind = SPEECH_TO_SPEECH) -> pl.DataFrame:
    """The scores of the pairs that are there now: `pair_key` and `columns`, in the order of the pairs.

    Raises:
        LakeError: there are none, they are of other pairs, or a column is missing.
    """
    kept = lake.partition(kind.layer(LAYER), pair)
    scores, current = kept.read_frame(SCORES), lake.partition(kind.layer("pairs"), pair).data_version
    missing = [name for name in columns if name not in scores.columns]
    if missing or kept.read_json(MADE_BY)["pairs"] != current:
        raise LakeError(
            f"The scores of {pair} are {'without ' + ', '.join(missing) if missing else 'of other pairs'}.",
            expected="a score of every pair by every model that is on",
            cause="a filter was turned on, or the pairs were mined again, since they were scored",
            fix=f"materialize {kind.layer(LAYER)} of the pair",
        )
    return scores.select(*pair_key(scores.columns), *columns)


@dataclass(frozen=True, eq=False)
class _Side:
    """The vectors of a language, and which row is which segment."""

    lake: Lake
    kind: Kind
    language: str
    roll: Roll

    @classmethod
    def read(cls, lake: Lake, kind: Kind, language: str, layout: Layout) -> _Side:
        return cls(lake, kind, language, read_roll(lake, language, layout)[0])

    @property
    def layout(self) -> Layout:
        """How the side lies in the lake."""
        return self.roll.layout

    def versions_of(self, pairs: pl.DataFrame, side: str) -> dict[str, str]:
        """Audiobook or shard → version of its rows in the roll, of those in the pairs."""
        every = dict(self.roll.blocks.select(self.layout.block, "data_version").iter_rows())
        return {block: every.get(block, "") for block in sorted(pairs[f"{side}_{self.layout.block}"].unique())}

    def rows(self, items: Ids) -> Ids:
        """Row of each segment or sentence."""
        order, ids = self._order
        place = np.minimum(np.searchsorted(ids, items), max(len(ids) - 1, 0))
        unknown = ids[place] != items if len(ids) else np.ones(len(items), np.bool_)
        if unknown.any():
            raise LakeError(
                f"{int(unknown.sum())} of {len(items)} {self.layout.id.removesuffix('_id')}s in the pairs are not in "
                f"the index of {self.language}.",
                expected="pairs mined from the index that is there",
                cause="the language was indexed again since",
                fix=f"materialize {self.kind.layer('neighbours')} and {self.kind.layer('pairs')} of the pair",
            )
        return order[place]

    @cached_property
    def _order(self) -> tuple[Ids, Ids]:
        """Rows by id, and the ids."""
        order = np.argsort(self.roll.ids, kind="stable").astype(np.int64)
        return order, self.roll.ids[order]

    def lengths(self, rows: Ids, stated: float | None) -> npt.NDArray[np.float32]:
        """Length of each row before it was a unit vector: as kept beside the vectors, else as stated."""
        found = np.empty(len(rows), np.float32)
        blocks = self.roll.blocks
        number = np.searchsorted(blocks["first_row"].to_numpy(), rows, "right") - 1
        for block in np.unique(number):
            here = np.flatnonzero(number == block)
            name, first, count = blocks.select(self.layout.block, "first_row", "rows").row(int(block))
            own = self.roll.items[self.layout.id][first : first + count]
            found[here] = self._lengths_of(name, own, stated)[rows[here] - first]
        return found

    def _lengths_of(self, block: str, own: pl.Series, stated: float | None) -> npt.NDArray[np.float32]:
        """Of the rows of a block that are in the roll: sentences that repeat another shard's are not."""
        partition = self.lake.partition(self.layout.embeddings, self.language, block)
        if LENGTHS in partition.files:
            every: npt.NDArray[np.float32] = partition.read_array(LENGTHS)
            if len(every) == len(own):
                return every
            embedded = partition.read_table(self.layout.table, self.layout.items)[self.layout.id]
            in_roll: npt.NDArray[np.float32] = every[embedded.is_in(own.to_list()).to_numpy()]
            return in_roll
        if stated is None:
            raise EmbeddingError(
                f"How long SONAR's vectors of {self.layout.block} {block} ({self.language}) were is not known.",
                expected=f"{LENGTHS} beside its vectors, which are kept at unit length",
                cause="MuTox reads vectors as SONAR makes them, about 0.2 long, and this lake keeps directions alone",
                fix="set filters.vector_length to a length that is typical of your SONAR encoder",
            )
        return np.full(len(own), stated, np.float32)


class _Earlier:
    """Scores of before that still hold."""

    def __init__(self, scores: pl.DataFrame, unchanged: Mapping[str, list[str]], kind: Kind) -> None:
        self._scores, self._unchanged = scores, unchanged
        self._blocks = {side: layout.block for side, layout in zip(SIDES, kind.layouts, strict=True)}

    @classmethod
    def read(cls, kept: Partition | None, kind: Kind, made_by: Mapping[str, Any]) -> _Earlier:
        """What is kept of columns whose model is the same, and of audiobooks and shards whose embeddings are."""
        if kept is None:
            return cls(pl.DataFrame(), {}, kind)
        before = kept.read_json(MADE_BY)
        same = {name for name, told in made_by["versions"].items() if before["versions"].get(name) == told}
        unchanged = {
            side: [block for block, version in made_by[side].items() if before[side].get(block) == version]
            for side in SIDES
        }
        scores = kept.read_frame(SCORES)
        columns = (*pair_key(scores.columns), *(name for name in FILTER_SCORES if name in same))
        return cls(scores.select(columns), unchanged, kind)

    def column(self, pairs: pl.DataFrame, name: str, sides: tuple[str, ...]) -> pl.Series:
        """A score of each pair, null where it must be computed; it depends on `sides` alone."""
        if name not in self._scores.columns:
            return pl.Series(name, [None] * pairs.height, FILTER_SCORES[name])
        keys = [item_column(pairs.columns, side) for side in sides]
        known = self._scores.select(*keys, name).unique(keys, keep="first", maintain_order=True)
        holds = [pl.col(f"{side}_{self._blocks[side]}").is_in(self._unchanged[side]) for side in sides]
        joined = pairs.join(known, on=keys, how="left", maintain_order="left")
        return joined.select(pl.when(pl.all_horizontal(holds)).then(pl.col(name)).alias(name)).to_series()


class _Work:
    """The columns of one call, filled model by model."""

    def __init__(self, pairs: pl.DataFrame, earlier: _Earlier, progress: Progress) -> None:
        self._pairs, self._earlier, self._progress = pairs, earlier, progress
        self.columns: dict[str, pl.Series] = {}
        self.scored: dict[str, int] = {}
        self.taken_over: dict[str, int] = {}

    def add_alikeness(self, blaser: BlaserQe, sides: Mapping[str, _Side]) -> None:
        """BLASER's score of each pair."""
        known = self._earlier.column(self._pairs, "blaser_qe", SIDES)
        wanted = np.flatnonzero(known.is_null().to_numpy())
        rows = {name: side.rows(self._ids(name)[wanted]) for name, side in sides.items()}
        found = np.empty(len(wanted), np.float32)
        for part in self._parts(len(wanted)):
            found[part] = blaser.score(*(side.roll.stack.take(rows[name][part]) for name, side in sides.items()))
        self._put(known, wanted, found)

    def add_toxicity(self, mutox: Mutox, vector_length: float | None, name: str, side: _Side) -> None:
        """MuTox's score of each segment or sentence of a side, computed once however many pairs it is in."""
        known = self._earlier.column(self._pairs, f"{name}_toxicity", (name,))
        wanted = np.flatnonzero(known.is_null().to_numpy())
        items, which = np.unique(self._ids(name)[wanted], return_inverse=True)
        rows = side.rows(items)
        lengths = side.lengths(rows, vector_length)
        found = np.empty(len(items), np.float32)
        for part in self._parts(len(items)):
            found[part] = mutox.score(side.roll.stack.take(rows[part]), lengths[part])
        self._put(known, wanted, found[which])

    def _ids(self, side: str) -> Ids:
        ids: Ids = self._pairs[item_column(self._pairs.columns, side)].to_numpy()
        return ids

    def _parts(self, count: int) -> Iterator[slice]:
        for first in range(0, count, CHUNK_ROWS):
            yield slice(first, first + CHUNK_ROWS)
            self._progress(min(first + CHUNK_ROWS, count), count)

    def _put(self, known: pl.Series, wanted: npt.NDArray[np.intp], found: npt.NDArray[np.float32]) -> None:
        values = known.fill_null(0).to_numpy().copy()
        values[wanted] = found
        self.columns[known.name] = pl.Series(known.name, values, FILTER_SCORES[known.name])
        self.scored[known.name] = len(wanted)
        self.taken_over[known.name] = len(known) - len(wanted)


def _refuse_another_space(model: CardModel | None, side: _Side) -> None:
    """BLASER and MuTox read SONAR's vectors; those of another encoder mean nothing to them."""
    if model is None or not len(side.roll.stack):
        return
    encoder, dimension = side.roll.encoder, side.roll.stack.shape[1]
    if encoder.split(" ")[0] not in SONAR:
        setting = "encoder" if side.layout.modality == "speech" else "text encoder"
        raise EmbeddingError(
            f"{model.name} was asked to score {side.language} embedded by {encoder}.",
            expected=f"embeddings of {' or '.join(SONAR)}, in whose space it was trained",
            cause=f"a filter is on, and the language's {side.layout.modality} is embedded by another encoder",
            fix=f"set the {setting} of {side.language} to sonar and embed it again, or take the card out of filters",
        )
    if dimension != model.dimension:
        raise EmbeddingError(
            f"The card {model.card} reads vectors of {model.dimension} dimensions; {side.language} has {dimension}, "
            f"embedded by {encoder}.",
            expected="one dimension",
            cause="the card was trained on another encoder of SONAR's",
            fix=f"name a card of {dimension} dimensions in filters, or embed {side.language} with the card's encoder",
        )
