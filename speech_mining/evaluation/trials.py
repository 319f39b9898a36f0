"""An encoder's examination as a pure function: embeddings and texts aligned row by row in, error rates out.

What is searched among what, by language, and which figures are taken of it belong here; how one search works is
`search`, where rows come from is `test_set`. The searches are those of Duquenne, Gong & Schwenk 2021, tables 2 and 3;
R@1, R@5 and the word error rate of what is retrieved among distractors those of Khurana, Laurent & Glass 2022
(SAMU-XLSR), tables III to VII, whose topline is the search of transcriptions among translations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.evaluation.intervals import Bootstrap, Estimate, estimate
from speech_mining.evaluation.search import NEIGHBOURHOOD, Found, similarity_search
from speech_mining.evaluation.wording import normalised, word_errors

Vectors: TypeAlias = npt.NDArray[np.floating[Any]]
Rows: TypeAlias = npt.NDArray[np.int64]

AUDIO, TRANSCRIPTIONS, TRANSLATIONS, TARGET_AUDIO = "audio", "transcriptions", "translations", "translated audio"
SEARCHES = (
    (AUDIO, TRANSCRIPTIONS),
    (AUDIO, TRANSLATIONS),
    (TRANSCRIPTIONS, TRANSLATIONS),
    (AUDIO, TARGET_AUDIO),
)
"""Queries, candidates; those are made whose two columns are there."""


@dataclass(frozen=True, eq=False)
class Column:
    """One side of a test set: row i says the same as row i of every other column.

    Raises:
        EmbeddingError: vectors, languages and texts differ in number.
    """

    vectors: Vectors
    """float (n, d); rows need not be of unit length."""
    languages: tuple[str, ...]
    """n ISO 639-3 codes."""
    texts: tuple[str, ...] | None = None
    """n texts as written; None: speech."""
    negatives: Vectors | None = None
    """float (h, d): hard negatives of the texts."""
    negative_rows: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 (h,): the row of which each is an alteration."""

    def __post_init__(self) -> None:
        counts = {len(self.vectors), len(self.languages), len(self.vectors if self.texts is None else self.texts)}
        if len(counts) > 1 or len(self.negative_rows) != (0 if self.negatives is None else len(self.negatives)):
            raise EmbeddingError(
                f"A column has {len(self.vectors)} vectors, {len(self.languages)} languages, "
                f"{'no' if self.texts is None else len(self.texts)} texts, {len(self.negative_rows)} negative rows.",
                expected="one of each for every row, and a row for every negative",
            )


@dataclass(frozen=True, eq=False)
class Distractors:
    """Texts of one language that are no query's answer, to make retrieval harder."""

    vectors: Vectors
    """float (m, d)."""
    texts: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationConfig:
    """How the figures are taken.

    Args:
        margin: of the error rates: "ratio", "distance" or "cosine". Retrieval takes the cosine, as SAMU-XLSR does.
        k: neighbours that a margin averages over.
        bootstrap: of the intervals.
    """

    margin: str = "ratio"
    k: int = NEIGHBOURHOOD
    bootstrap: Bootstrap = field(default_factory=Bootstrap)


@dataclass(frozen=True, eq=False)
class Trial:
    """The queries of one language, searched among the candidates of one language."""

    task: str
    source: str
    target: str
    queries: Vectors
    """float (n, d)."""
    candidates: Vectors
    """float (m, d), m <= n: texts that are alike, normalised, are one candidate."""
    answers: Rows
    """int64 (n,): the right candidate of each query."""
    texts: tuple[str, ...] | None
    """m normalised texts; None: speech."""
    negatives: Vectors | None
    """float (h, d), or None where there are none."""
    distractors: Distractors | None


@dataclass(frozen=True)
class Outcome:
    """The figures of one trial; rates are shares from 0, each with its interval."""

    task: str
    source: str
    target: str
    queries: int
    candidates: int
    distractors: int
    hard_negatives: int
    error: Estimate
    """Queries whose own candidate does not score highest by the margin, among the candidates: xsim."""
    hard_error: Estimate | None
    """The same with the hard negatives among the candidates; None: there are none."""
    recall_1: Estimate
    """Queries whose own candidate is nearest by cosine, among candidates and distractors."""
    recall_5: Estimate
    """Queries whose own candidate is among the five nearest."""
    word_error_rate: Estimate | None
    """Of the nearest text against the right one; None: what is searched is speech."""


def evaluate(
    columns: Mapping[str, Column],
    distractors: Mapping[str, Distractors] | None = None,
    config: EvaluationConfig | None = None,
) -> list[Outcome]:
    """Make every search whose two columns are there, in each direction between languages.

    Args:
        columns: by the names in `SEARCHES`, aligned row by row.
        distractors: by language.
        config: None takes the defaults.

    Raises:
        EmbeddingError: columns differ in number of rows, none can be searched, a row is zero or NaN.
    """
    asked = config or EvaluationConfig()
    trials = list(split(columns, distractors or {}))
    if not trials:
        raise EmbeddingError(
            f"Nothing can be searched in the columns {', '.join(columns) or 'none'}.",
            expected=" or ".join(f"{one} and {other}" for one, other in SEARCHES),
            cause="no row has a vector in every column" if columns else "",
        )
    return [run(trial, asked) for trial in trials]


def split(columns: Mapping[str, Column], distractors: Mapping[str, Distractors]) -> Iterator[Trial]:
    """Cut aligned columns into trials: searches in the order of `SEARCHES`, languages in that of the alphabet."""
    counts = {name: len(column.languages) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise EmbeddingError(f"Columns differ in rows: {counts}.", expected="row i of each says the same")
    for asked, answered in SEARCHES:
        if asked in columns and answered in columns:
            source, target = columns[asked], columns[answered]
            directions = sorted(set(zip(source.languages, target.languages, strict=True)))
            for direction in directions:
                yield _trial(f"{asked} against {answered}", source, target, direction, distractors)


def run(trial: Trial, config: EvaluationConfig) -> Outcome:
    """Take the figures of one trial."""
    found = similarity_search(trial.queries, trial.candidates, trial.answers, margin=config.margin, k=config.k)
    harder = _with_more(trial.candidates, trial.negatives)
    wider = _with_more(trial.candidates, None if trial.distractors is None else trial.distractors.vectors)
    near = similarity_search(trial.queries, wider, trial.answers, margin="cosine")
    hard_error = None
    if trial.negatives is not None:
        hard = similarity_search(trial.queries, harder, trial.answers, margin=config.margin, k=config.k)
        hard_error = estimate(~hard.at(1), bootstrap=config.bootstrap)
    return Outcome(
        task=trial.task,
        source=trial.source,
        target=trial.target,
        queries=len(trial.queries),
        candidates=len(trial.candidates),
        distractors=len(wider) - len(trial.candidates),
        hard_negatives=len(harder) - len(trial.candidates),
        error=estimate(~found.at(1), bootstrap=config.bootstrap),
        hard_error=hard_error,
        recall_1=estimate(near.at(1), bootstrap=config.bootstrap),
        recall_5=estimate(near.at(5), bootstrap=config.bootstrap),
        word_error_rate=_word_error_rate(trial, near, config.bootstrap),
    )


def _trial(
    task: str, source: Column, target: Column, direction: tuple[str, str], distractors: Mapping[str, Distractors]
) -> Trial:
    pairs = zip(source.languages, target.languages, strict=True)
    rows = np.array([row for row, pair in enumerate(pairs) if pair == direction], np.int64)
    texts = None if target.texts is None else [normalised(target.texts[row]) for row in rows]
    first, answers = _candidates(texts, len(rows))
    inside = np.flatnonzero(np.isin(target.negative_rows, rows))
    unique = None if texts is None else tuple(texts[place] for place in first)
    return Trial(
        task,
        *direction,
        queries=source.vectors[rows],
        candidates=target.vectors[rows[first]],
        answers=answers,
        texts=unique,
        negatives=None if target.negatives is None or not len(inside) else target.negatives[inside],
        distractors=None if unique is None else _others(distractors.get(direction[1]), unique),
    )


def _candidates(texts: Sequence[str] | None, count: int) -> tuple[Rows, Rows]:
    """Where each candidate first stands, and the candidate of each row: equal texts are one."""
    if texts is None:
        return np.arange(count), np.arange(count)
    numbers: dict[str, int] = {}
    answers = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
    _, first = np.unique(answers, return_index=True)
    return first.astype(np.int64), answers


def _others(distractors: Distractors | None, texts: Sequence[str]) -> Distractors | None:
    """The distractors that are no candidate, each text once; None where none is left."""
    if distractors is None:
        return None
    rows: dict[str, int] = {}
    for row, text in enumerate(map(normalised, distractors.texts)):
        rows.setdefault(text, row)
    for text in texts:
        rows.pop(text, None)
    return Distractors(distractors.vectors[list(rows.values())], tuple(rows)) if rows else None


def _with_more(candidates: Vectors, more: Vectors | None) -> Vectors:
    return candidates if more is None else np.concatenate([candidates, more])


def _word_error_rate(trial: Trial, near: Found, bootstrap: Bootstrap) -> Estimate | None:
    if trial.texts is None:
        return None
    texts = [*trial.texts, *(trial.distractors.texts if trial.distractors else ())]
    right, retrieved = ([texts[row] for row in rows] for rows in (trial.answers, near.best))
    errors, words = word_errors(right, retrieved)
    return estimate(errors, words, bootstrap)
