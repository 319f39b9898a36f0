"""Whether a recording's speech suits the language it is declared in, told from the embeddings alone.

Vectors of a shared space are made to hold what is said and not in which language, and still betray the language a
little. One segment tells next to nothing; the hundred segments of a recording tell much. A linear classifier learns the
declared languages from other audiobooks and hears each recording. A segment's nearest centroid does not tell.

Three limits. The vectors must come from one encoder: where each language has its own, what a classifier hears is the
encoder, which is the declared one even where the speech is not. The true language must be among those declared: it is
not a LID model. And a language of which too little is there is not judged, which is told, and is not the same as fine.

What belongs here is numbers. Where they are read and shown is in `s2s_assets.language_check`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import EmbeddingError
from speech_mining.knn.vectors import Stack
from speech_mining.records import Schema, by_audiobook

Floats: TypeAlias = npt.NDArray[np.float64]
Numbers: TypeAlias = npt.NDArray[np.int64]
Vectors: TypeAlias = npt.NDArray[Any] | Stack
Names: TypeAlias = Sequence[str] | pl.Series

VERSION = "1"
FOLDS = 10
LEAST_SEGMENTS = 10
"""Of a recording: with fewer, a share of segments says little."""
LEAST_RECORDINGS = 20
"""Of a language, each of `LEAST_SEGMENTS` or more."""
LEAST_LEARNED = 10
"""Recordings of a language that a classifier must have learned from, the judged audiobook's left out."""
SEGMENTS_LEARNED = 50
"""Of a recording, at most."""
RECORDINGS_LEARNED = 200
"""Of a language, at most: 10 000 vectors, ten for each dimension of SONAR's."""
RIDGE = 1e-2
"""Of the mean variance of a dimension. In the miniature library 25 of 28 recordings are heard right; 22 with a tenth of
it, 23 with ten times as much."""
LEAST_RIDGE = 1e-12
"""For vectors that are all the same."""
CHUNK_ROWS = 8_192
DECIMALS = 6
"""Scores are rounded, since their last bits depend on the order in which they are added."""

GREATEST_OWN_SHARE = 0.2
LEAST_HEARD_SHARE = 0.6
"""With the share above, alone: up to 352 false alarms in 1 256 recordings where the language is hard to hear."""
LEAST_TOLD = 0.9
"""Share of a language's recordings, those in question left out, that must be heard as it before any is judged."""
LEAST_DEVIATIONS = 3.5
"""How far below its language's recordings a suspicious one is, in deviations robust to it. Over 36 kinds of simulated
lakes 19 false alarms in 27 518 recordings, and 1 in 18 641 where segments are heard right nine times in ten."""

TOO_FEW_SEGMENTS = "too_few_segments"
TOO_FEW_RECORDINGS = "too_few_recordings"
TOO_FEW_AUDIOBOOKS = "too_few_audiobooks"
NO_OTHER_LANGUAGE = "no_other_language"
NOT_TOLD_APART = "not_told_apart"

JUDGEMENTS: Schema = {
    "language": pl.String(),  # as declared, ISO 639-3
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "segments": pl.Int64(),
    "heard": pl.String(),  # the language of the best mean score; may be the declared one
    "own_score": pl.Float64(),  # mean score of the declared one; all L sum to 0, a certain one has 1 - 1/L
    "heard_score": pl.Float64(),
    "own_share": pl.Float64(),  # share of segments that score best as the declared language
    "heard_share": pl.Float64(),
    "suspicious": pl.Boolean(),  # null: not judged
    "not_judged": pl.String(),  # why not; null: judged
}
_RECORDING = ["language", "audiobook", "section"]
_ELSEWHERE = (
    (pl.col("heard") != pl.col("language"))
    & (pl.col("own_share") < GREATEST_OWN_SHARE)
    & (pl.col("heard_share") > LEAST_HEARD_SHARE)
)
"""A recording that is heard as another language; suspicious only where its language is well told."""


@dataclass(frozen=True, eq=False)
class _Sample:
    """What is learned from."""

    vectors: npt.NDArray[Any]
    """(n, d)."""
    classes: Numbers
    """(n,), number of the language."""
    folds: Numbers
    """(n,), in which fold the row's audiobook is judged."""


@dataclass(frozen=True, eq=False)
class _Classifier:
    mean: Floats
    """(d,)."""
    weights: Floats
    """(d, languages)."""


def judge_recordings(
    vectors: Vectors, language: Names, audiobook: Names, section: Sequence[int] | pl.Series, *, folds: int, seed: int
) -> pl.DataFrame:
    """Hear every recording by classifiers that have learned from other audiobooks.

    Ridge regression on the declared language, 1 of L, closed form; languages weigh the same. Of each language at most
    `RECORDINGS_LEARNED` recordings and of each at most `SEGMENTS_LEARNED` segments are learned from, drawn by hashes of
    the seed, the recording and the vector, so that the order of rows does not matter. All segments are judged, a chunk
    at a time.

    Args:
        vectors: float (n, d), a row a segment, all from one encoder; may be memory maps, which are never copied whole.
        language: (n,), ISO 639-3, as declared.
        audiobook: (n,).
        section: (n,).
        folds: how many classifiers are learned, each from the audiobooks outside its fold; where there are fewer
            audiobooks, one is left out at a time.
        seed: of the draw.

    Returns:
        `JUDGEMENTS`, a row a recording, by language, audiobook and section.

    Raises:
        EmbeddingError: columns differ in length, or a vector holds what is no number.
    """
    _require_one_length(vectors, language, audiobook, section)
    recordings, numbers = _recordings(language, audiobook, section)
    recordings = _with_folds(_with_reasons(recordings), folds)
    drawn = _drawn(recordings, seed)
    recordings = _with_learnable(recordings, drawn)
    languages = recordings.filter(pl.col("not_judged").is_null())["language"].unique().sort().to_list()
    if not languages:
        return _conformed(recordings)
    sample = _sample(vectors, numbers, drawn, languages, seed)
    classifiers = [_learn(sample, fold, len(languages)) for fold in range(recordings["fold"].n_unique())]
    heard = _hear(vectors, numbers, recordings["fold"].to_numpy(), classifiers)
    return _conformed(_with_verdicts(_with_scores(recordings, languages, *heard)))


def _require_one_length(vectors: Vectors, *columns: Sequence[Any] | pl.Series) -> None:
    lengths = [len(vectors), *(len(column) for column in columns)]
    if len(set(lengths)) > 1:
        raise EmbeddingError(
            f"There are {lengths[0]} vectors, and {lengths[1:]} languages, audiobooks and sections.",
            expected="one of each a segment",
            cause="files of the lake were edited by hand",
            fix="materialize speech_embeddings again",
        )


def _recordings(language: Names, audiobook: Names, section: Sequence[int] | pl.Series) -> tuple[pl.DataFrame, Numbers]:
    """Every recording in order, and the number of each row's, int64 (n,)."""
    schema = {name: JUDGEMENTS[name] for name in _RECORDING}
    rows = pl.DataFrame({"language": language, "audiobook": audiobook, "section": section}, schema_overrides=schema)
    recordings = rows.group_by(_RECORDING).len("segments").sort("language", by_audiobook(), "section")
    recordings = recordings.with_row_index("number")
    numbers = rows.join(recordings, on=_RECORDING, how="left", maintain_order="left")["number"]
    return recordings, numbers.cast(pl.Int64).to_numpy()


def _with_reasons(recordings: pl.DataFrame) -> pl.DataFrame:
    """Add why a recording is not judged, from counts alone."""
    long_enough = pl.col("segments") >= LEAST_SEGMENTS
    return recordings.with_columns(
        not_judged=pl.when(~long_enough)
        .then(pl.lit(TOO_FEW_SEGMENTS))
        .when(long_enough.sum().over("language") < LEAST_RECORDINGS)
        .then(pl.lit(TOO_FEW_RECORDINGS))
    )


def _with_folds(recordings: pl.DataFrame, folds: int) -> pl.DataFrame:
    """Deal audiobooks out to folds in turn, language by language; one of several languages is in one fold for all."""
    books = recordings.group_by("audiobook").agg(pl.col("language").min()).sort("language", by_audiobook())
    count = max(1, min(folds, books.height))
    books = books.select("audiobook", fold=pl.int_range(pl.len(), dtype=pl.Int64) % count)
    return recordings.join(books, on="audiobook", how="left", maintain_order="left")


def _drawn(recordings: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The recordings that are learned from, in an order that only their names and the seed decide."""
    told = recordings.filter(pl.col("not_judged").is_null())
    draws = [_draw(f"{seed}/{language}/{book}/{part}".encode()) for language, book, part in told[_RECORDING].rows()]
    ordered = told.with_columns(pl.Series("draw", draws, pl.Int64)).sort("draw", *_RECORDING)
    return ordered.group_by("language", maintain_order=True).head(RECORDINGS_LEARNED).sort("draw", *_RECORDING)


def _with_learnable(recordings: pl.DataFrame, drawn: pl.DataFrame) -> pl.DataFrame:
    """Add why not: a language whose recordings lie in too few audiobooks, or one that has no other beside it."""
    in_fold = (
        drawn.group_by("language", "fold").len().group_by("language").agg(pl.col("len").sum() - pl.col("len").max())
    )
    learnable = in_fold.filter(pl.col("len") >= LEAST_LEARNED)["language"]
    alone = pl.lit(NO_OTHER_LANGUAGE if learnable.len() < 2 else None, pl.String())
    too_few = ~pl.col("language").is_in(learnable.implode())
    reason = pl.when(too_few).then(pl.lit(TOO_FEW_AUDIOBOOKS)).otherwise(alone)
    return recordings.with_columns(pl.col("not_judged").fill_null(reason))


def _sample(vectors: Vectors, numbers: Numbers, drawn: pl.DataFrame, languages: list[str], seed: int) -> _Sample:
    """Read the vectors of the drawn recordings, at most `SEGMENTS_LEARNED` of each."""
    drawn = drawn.filter(pl.col("language").is_in(languages))
    rows_of = _rows_of(numbers, drawn["number"].to_numpy().astype(np.int64))
    parts = [_drawn_rows(_take(vectors, rows), seed) for rows in rows_of]
    counts = [len(part) for part in parts]
    class_of = {language: number for number, language in enumerate(languages)}
    classes = np.array([class_of[language] for language in drawn["language"]], np.int64)
    return _Sample(np.concatenate(parts), np.repeat(classes, counts), np.repeat(drawn["fold"].to_numpy(), counts))


def _rows_of(numbers: Numbers, wanted: Numbers) -> list[Numbers]:
    """Rows of each wanted recording, ascending."""
    order = np.argsort(numbers, kind="stable").astype(np.int64)
    ordered = numbers[order]
    first, stop = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
    return [order[start:end] for start, end in zip(first, stop, strict=True)]


def _take(vectors: Vectors, rows: Numbers) -> npt.NDArray[Any]:
    return vectors.take(rows) if isinstance(vectors, Stack) else vectors[rows]


def _drawn_rows(vectors: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """At most `SEGMENTS_LEARNED` rows, in the order of a hash of their content: any order of rows draws the same."""
    draws = [_draw(str(seed).encode() + row.tobytes()) for row in vectors]
    return vectors[np.argsort(draws, kind="stable")[:SEGMENTS_LEARNED]]


def _draw(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def _learn(sample: _Sample, fold: int, languages: int) -> _Classifier:
    """Ridge regression of 1-of-L targets on the rows outside `fold`: W = (A'DA + λI)⁻¹ A'D(Y - Ȳ), D class weights."""
    rows = np.flatnonzero(sample.folds != fold)
    classes = sample.classes[rows]
    weights = 1.0 / (np.bincount(classes, minlength=languages)[classes] * languages)
    dimension = sample.vectors.shape[1]
    mean = sum((weight @ part for part, weight, _ in _parts(sample, rows, weights)), np.zeros(dimension))
    gram, targets = np.zeros((dimension, dimension)), np.zeros((dimension, languages))
    for part, weight, own in _parts(sample, rows, weights):
        weighted = (part - mean) * weight[:, None]
        gram += weighted.T @ (part - mean)
        targets += weighted.T @ (np.eye(languages)[own] - 1 / languages)
    gram[np.diag_indices(dimension)] += max(RIDGE * np.trace(gram) / dimension, LEAST_RIDGE)
    return _Classifier(mean, np.linalg.solve(gram, targets).astype(np.float64))


def _parts(sample: _Sample, rows: Numbers, weights: Floats) -> Iterator[tuple[Floats, Floats, Numbers]]:
    for start in range(0, len(rows), CHUNK_ROWS):
        here = rows[start : start + CHUNK_ROWS]
        yield _numbers_of(sample.vectors[here]), weights[start : start + CHUNK_ROWS], sample.classes[here]


def _hear(
    vectors: Vectors, numbers: Numbers, folds: Numbers, classifiers: Sequence[_Classifier]
) -> tuple[Floats, Floats]:
    """Mean score, and share of the segments that score best, of every recording and language: two (recordings, L)."""
    stacked = np.stack([classifier.weights for classifier in classifiers])
    offsets = np.stack([classifier.mean @ classifier.weights for classifier in classifiers])
    scores, votes = np.zeros((len(folds), stacked.shape[2])), np.zeros((len(folds), stacked.shape[2]))
    for start in range(0, len(numbers), CHUNK_ROWS):
        number = numbers[start : start + CHUNK_ROWS]
        chunk = _numbers_of(vectors[start : start + CHUNK_ROWS])
        found = np.empty((len(number), stacked.shape[2]))
        for fold in np.unique(folds[number]):
            here = folds[number] == fold
            found[here] = chunk[here] @ stacked[fold] - offsets[fold]
        np.add.at(scores, number, found)
        np.add.at(votes, (number, found.argmax(axis=1)), 1)
    segments = votes.sum(axis=1, keepdims=True)
    return (scores / segments).round(DECIMALS), votes / segments


def _numbers_of(vectors: npt.NDArray[Any]) -> Floats:
    numbers = vectors.astype(np.float64)
    wrong = int((~np.isfinite(numbers)).any(axis=1).sum())
    if wrong:
        raise EmbeddingError(
            f"{wrong} vectors hold what is no number.",
            expected="finite vectors of unit length",
            cause="an encoder that overflowed; the check vectors_are_unit shows the rows",
            fix="materialize their speech_embeddings again",
        )
    return numbers


def _with_scores(recordings: pl.DataFrame, languages: list[str], scores: Floats, shares: Floats) -> pl.DataFrame:
    every = np.arange(len(scores))
    class_of = {name: number for number, name in enumerate(languages)}
    own = np.array([class_of.get(name, 0) for name in recordings["language"]], np.int64)
    heard = scores.argmax(axis=1)
    others = scores.copy()
    others[every, own] = -np.inf
    return recordings.with_columns(
        pl.Series("heard", [languages[number] for number in heard]),
        pl.Series("own_score", scores[every, own]),
        pl.Series("heard_score", scores[every, heard]),
        pl.Series("own_share", shares[every, own]),
        pl.Series("heard_share", shares[every, heard]),
        pl.Series("lead", scores[every, own] - others.max(axis=1)),
    )


def _with_verdicts(recordings: pl.DataFrame) -> pl.DataFrame:
    """Add what is suspicious: most of it heard as one other language, and far from the recordings of its own."""
    judged = pl.col("not_judged").is_null()
    lead = pl.col("lead").filter(judged)
    middle = lead.median().over("language")
    deviation = 1.4826 * (pl.col("lead") - middle).abs().filter(judged).median().over("language")
    return recordings.with_columns(
        not_judged=pl.col("not_judged").fill_null(
            pl.when(_told(judged) < LEAST_TOLD).then(pl.lit(NOT_TOLD_APART)),
        ),
        suspicious=_ELSEWHERE & (pl.col("lead") < middle - LEAST_DEVIATIONS * deviation),
    )


def _told(judged: pl.Expr) -> pl.Expr:
    """Share of a language's recordings that are heard as it; those that may be wrong do not speak against it."""
    right = (pl.col("heard") == pl.col("language")).filter(judged & ~_ELSEWHERE)
    return right.mean().fill_null(0.0).over("language")


def _conformed(recordings: pl.DataFrame) -> pl.DataFrame:
    """`JUDGEMENTS`; what is not judged is never fine, and has figures only where it could be heard."""
    absent = {name: pl.lit(None, dtype) for name, dtype in JUDGEMENTS.items() if name not in recordings.columns}
    whole = recordings.with_columns(**absent)
    judged = pl.col("not_judged").is_null()
    heard = judged | (pl.col("not_judged") == NOT_TOLD_APART)
    figures = ("heard", "own_score", "heard_score", "own_share", "heard_share")
    whole = whole.with_columns(pl.when(heard).then(pl.col(*figures)), pl.when(judged).then(pl.col("suspicious")))
    return whole.select(pl.col(name).cast(dtype) for name, dtype in JUDGEMENTS.items())
