"""How good a map between spoken and written words is: R@1, R@5 and R@10, against maps learned from a dictionary.

Chung et al. 2018, section 4: a spoken word is classified by the nearest written words of its own language, translated
by those of another. What belongs here is counting; maps are made by `alignment`.

The supervised bound stands twice. Learned from the very words that are asked it flatters itself: 300 words leave 50
dimensions room to learn them by heart (0.57 of words right where 0.11 of unseen words were). So the words are also
asked in folds, each by a map that learned from the other folds. Both bounds are the better of Procrustes as it is and
with re-weighted directions: of the miniature world's words the latter was 3 to 5 points better, of spaces whose
directions are nearly all signal the former.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.align.alignment import Pairing, Wish, align
from speech_mining.align.csls import Question, ranks
from speech_mining.align.procrustes import PLAIN, REWEIGHTED, Around
from speech_mining.align.refinement import Refinement
from speech_mining.align.spaces import SpaceMap
from speech_mining.align.tables import EVALUATION
from speech_mining.errors import EmbeddingError

DEPTHS = (1, 5, 10)
MEASURES = ("nn", "csls")
FOLDS = 5
BOUNDS = (PLAIN, REWEIGHTED)
"""What is done around a dictionary's map; the better counts."""
WITHIN = 0.05
"""Unsupervised is as good as supervised when R@1 is at most so far below."""
LEAST_RIGHT = 0.1
"""R@1 of a map that collapsed lies below, even where a supervised one is no better: of the demo's 1257 tokens neither
gets a single unseen word right, and that is no success. A random map of 300 words gets 0.003."""

Line = tuple[Any, ...]
"""A row of `EVALUATION`: map, measure, words, R@1, R@5 and R@10."""
UNSUPERVISED, UNSEEN, SEEN = "unsupervised", "supervised, unseen words", "supervised, the same words"


@dataclass(frozen=True)
class Spaces:
    """Two spaces and what is known of them."""

    source: npt.NDArray[Any]
    """(n, d), most frequent first."""
    target: npt.NDArray[Any]
    """(m, e), likewise."""
    answers: Mapping[int, Sequence[int]]
    """Source row → target rows that are right."""


def evaluated(spaces: Spaces, found: SpaceMap, *, seed: int = 0, folds: int = FOLDS) -> pl.DataFrame:
    """R@1, R@5 and R@10 of a map that was found without a dictionary, and of maps that were learned from it.

    Args:
        spaces: vectors and the dictionary.
        found: the map.
        seed: deals words to folds.
        folds: at least 2; so many maps are learned.

    Returns:
        Columns `EVALUATION`; two rows for each map.

    Raises:
        EmbeddingError: too few words in the dictionary, or rows that are not there.
    """
    asked = _checked(spaces, folds)
    lines = _seen(UNSUPERVISED, spaces, asked, found)
    lines += _better(_unseen(spaces, asked, around, seed, folds) for around in BOUNDS)
    lines += _better(_seen(SEEN, spaces, asked, _learned(spaces, asked, around)) for around in BOUNDS)
    return pl.DataFrame(lines, schema=dict(EVALUATION), orient="row")


def recall(table: pl.DataFrame, name: str, measure: str = "csls", depth: int = 1) -> float:
    """One figure of the table."""
    found = table.filter(pl.col("map") == name, pl.col("measure") == measure)
    return float(found[f"r{depth}"].item())


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a map."""

    collapsed: bool
    within: bool
    """R@1 under CSLS at most 5 points below the map that learned from a dictionary, on words it had not seen; never
    true of a map that collapsed."""
    told: str


def verdict(table: pl.DataFrame, criterion: float, least_criterion: float) -> Verdict:
    """Whether a map collapsed, and whether it is as good as a supervised one.

    Args:
        table: as `evaluated` gives it; empty where nothing is known.
        criterion: mean cosine of matches, of the map.
        least_criterion: a lower one is taken for a collapse.
    """
    if table.is_empty():
        low = criterion < least_criterion
        return Verdict(low, False, f"criterion {criterion:.3f}; no dictionary, so nothing else is known")
    own, bound = recall(table, UNSUPERVISED), recall(table, UNSEEN)
    collapsed = criterion < least_criterion or own < max(LEAST_RIGHT, bound / 2)
    near = not collapsed and own >= bound - WITHIN
    return Verdict(
        collapsed, near, f"R@1 {own:.3f} without a dictionary, {bound:.3f} with one; criterion {criterion:.3f}"
    )


def _better(lines: Iterable[list[Line]]) -> list[Line]:
    """Of each measure the line of the higher R@1, of equals the first."""
    return [max(of_measure, key=lambda line: line[3]) for of_measure in zip(*lines, strict=True)]


def _seen(name: str, spaces: Spaces, asked: Sequence[int], whole: SpaceMap) -> list[Line]:
    """All words that are asked, by one map."""
    return [_line(name, measure, _ranks(spaces, whole, asked, measure)) for measure in MEASURES]


def _unseen(spaces: Spaces, asked: Sequence[int], around: Around, seed: int, folds: int) -> list[Line]:
    """All words that are asked, each by a map that did not learn from it."""
    dealt = np.random.default_rng(seed).permutation(len(asked)) % folds
    by_measure: dict[str, list[npt.NDArray[np.int64]]] = {measure: [] for measure in MEASURES}
    for fold in range(folds):
        held = [row for row, own in zip(asked, dealt, strict=True) if own == fold]
        other = [row for row, own in zip(asked, dealt, strict=True) if own != fold]
        learned = _learned(spaces, other, around)
        for measure in MEASURES:
            by_measure[measure].append(_ranks(spaces, learned, held, measure))
    return [_line(UNSEEN, measure, np.concatenate(by_measure[measure])) for measure in MEASURES]


def _learned(spaces: Spaces, rows: Sequence[int], around: Around) -> SpaceMap:
    """The map of a dictionary, without a round of refinement."""
    pairs = np.array([(row, right) for row in rows for right in spaces.answers[row]], np.int64)
    wish = Wish(method="supervised", refinement=Refinement(rounds=0, around=around))
    return align(spaces.source, spaces.target, wish, Pairing(pairs[:, 0], pairs[:, 1])).map


def _ranks(spaces: Spaces, found: SpaceMap, rows: Sequence[int], measure: str) -> npt.NDArray[np.int64]:
    answers = [np.array(spaces.answers[row], np.int64) for row in rows]
    source, target = found.source.apply(spaces.source), found.target.apply(spaces.target)
    return ranks(source, target, Question(np.array(rows, np.int64), answers), measure=measure, threads=1)


def _line(name: str, measure: str, found: npt.NDArray[np.int64]) -> Line:
    return (name, measure, len(found), *(float((found <= depth).mean()) for depth in DEPTHS))


def _checked(spaces: Spaces, folds: int) -> list[int]:
    asked = sorted(row for row, right in spaces.answers.items() if len(right))
    if folds < 2 or len(asked) < 4 * folds:
        raise EmbeddingError(
            f"A dictionary of {len(asked)} words is too small to learn and to ask in {folds} folds.",
            expected=f"at least {4 * max(folds, 2)} words of both spaces, and 2 folds",
            cause="few of its words are among the frequent ones that have a vector",
            fix="a larger dictionary, or more speech and text",
        )
    return asked


# Dictionaries


def answers_of(
    spoken: Sequence[str], written: Sequence[str], known: Mapping[str, Iterable[str]]
) -> dict[int, list[int]]:
    """Rows and the rows that are right.

    Args:
        spoken: what each source row says, "" where it is not known.
        written: the word of each target row.
        known: what each word is in the other language; without an entry nothing is right.
    """
    row = {word: number for number, word in enumerate(written)}
    right = {
        number: sorted(row[word] for word in known.get(said, ()) if word in row) for number, said in enumerate(spoken)
    }
    return {number: rows for number, rows in right.items() if rows}


__all__ = ["Spaces", "Verdict", "answers_of", "evaluated", "recall", "verdict"]
