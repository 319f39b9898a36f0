"""Cross-domain similarity local scaling: cosines with the hubs taken down, found by the exact search of `knn`.

CSLS(x, y) = 2 cos(x, y) - r(x) - r(y), where r is the mean cosine with the k nearest rows of the other side: Conneau,
Lample, Ranzato, Denoyer & Jégou, "Word translation without parallel data", 2018, eq. 3.

It is not a cosine, but it is the inner product of [√2 x, -r(x), 1] and [√2 y, 1, -r(y)]. One more value on each side
brings all of these to one length, and then the search for the greatest cosine is the search for the greatest CSLS, in
both directions by one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.align.spaces import Matrix
from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn.exact import both_directions
from speech_mining.knn.neighbours import Neighbours

K = 10
"""Neighbours that make a row's neighbourhood: the paper's 10."""
MEASURES = ("nn", "csls")
"""`nn` ranks by the cosine."""
RANKED_TOGETHER = 1 << 22
"""Products held at a time while ranks are counted: 17 MB."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matched:
    """Nearest rows under CSLS."""

    neighbours: Neighbours
    """Lists by decreasing CSLS, in both directions."""
    scale: float
    """CSLS of a neighbour is its cosine there times this."""

    @property
    def forward(self) -> Rows:
        """int64 (n,): the target row nearest to each source row."""
        return self.neighbours.forward_rows[:, 0]

    @property
    def backward(self) -> Rows:
        """int64 (m,): the source row nearest to each target row."""
        return self.neighbours.backward_rows[:, 0]

    def mutual(self) -> tuple[Rows, Rows]:
        """Rows that are each other's nearest: places in the source, ascending, and in the target."""
        own = np.arange(len(self.forward))
        both = self.backward[self.forward] == own
        return own[both], self.forward[both]


def match(source: Matrix, target: Matrix, *, k: int = K, wanted: int = 1, threads: int | None = None) -> Matched:
    """Find the rows of the other side that are nearest under CSLS.

    Args:
        source: float32 (n, d), unit rows.
        target: float32 (m, d), unit rows.
        k: neighbours that make a neighbourhood.
        wanted: how many nearest rows are wanted; never more than there are.
        threads: cores to use; None takes all this process may use.
    """
    own, other = neighbourhoods(source, target, k=k, threads=threads)
    length = float(3 + max((own**2).max(initial=0), (other**2).max(initial=0)))
    left = _lengthened(source, (-own, np.ones_like(own)), length, 0)
    right = _lengthened(target, (np.ones_like(other), -other), length, 1)
    most = min(wanted, len(source), len(target))
    return Matched(both_directions(left, right, most, threads=threads), length)


def neighbourhoods(
    source: Matrix, target: Matrix, *, k: int = K, threads: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean cosine of each source row with its k nearest target rows, and of each target row with source rows."""
    most = min(k, len(source), len(target))
    found = both_directions(source, target, most, threads=threads)
    return found.forward_cosines.mean(1, dtype=np.float64), found.backward_cosines.mean(1, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Question:
    """Source rows whose partners are known, for `ranks`."""

    rows: Rows
    """int64 (q,): places in the source."""
    answers: Sequence[Rows]
    """For each, the target rows that are right, at least one."""


def ranks(
    source: Matrix, target: Matrix, asked: Question, *, measure: str = "csls", k: int = K, threads: int | None = None
) -> Rows:
    """Rank of the best right answer among all target rows, from 1; R@n is the share of ranks up to n.

    Wrong rows that score as high as the answer count before it, so that a map that makes all rows alike is not
    flattered; other right rows never do. What CSLS takes off for the source row is the same for all its candidates.

    Args:
        source: float32 (n, d), unit rows of the common space; all of them make the targets' neighbourhoods.
        target: float32 (m, d), likewise.
        asked: which source rows, and what is right.
        measure: one of `MEASURES`.
        k: neighbours that make a neighbourhood.
        threads: cores of the search for neighbourhoods.

    Returns:
        int64 (q,).

    Raises:
        SettingsError: another measure.
        EmbeddingError: rows that are not there, or a question without an answer.
    """
    if measure not in MEASURES:
        raise SettingsError(f"There is no measure {measure!r}.", expected=f"one of {', '.join(MEASURES)}")
    _check_question(asked, len(source), len(target))
    hub = neighbourhoods(source, target, k=k, threads=threads)[1] if measure == "csls" else np.zeros(len(target))
    found = np.empty(len(asked.rows), np.int64)
    step = max(1, RANKED_TOGETHER // len(target))
    for first in range(0, len(found), step):
        scores = 2 * (source[asked.rows[first : first + step]] @ target.T) - hub.astype(np.float32)
        for place, row in enumerate(scores, first):
            found[place] = _rank(row, asked.answers[place])
    return found


def _rank(scores: Matrix, right: Rows) -> int:
    distinct = np.unique(right)
    best = scores[distinct].max()
    return 1 + int((scores >= best).sum()) - int((scores[distinct] >= best).sum())


def _check_question(asked: Question, sources: int, targets: int) -> None:
    if len(asked.rows) != len(asked.answers) or any(len(right) == 0 for right in asked.answers):
        raise EmbeddingError(
            f"{len(asked.rows)} rows are asked for with {len(asked.answers)} answers.",
            expected="at least one right row for each",
        )
    told = np.concatenate([np.empty(0, np.int64), *asked.answers])
    if _outside(asked.rows, sources) or _outside(told, targets):
        raise EmbeddingError(
            "A question names rows that are not there.",
            expected=f"source rows below {sources} and target rows below {targets}",
        )


def _outside(rows: Rows, count: int) -> bool:
    return bool(len(rows)) and not 0 <= int(rows.min()) <= int(rows.max()) < count


def _lengthened(
    rows: Matrix, more: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], length: float, place: int
) -> Matrix:
    """Rows (n, d + 4) of length 1, whose inner product with those of the other side is CSLS / length.

    What is missing to `length` stands in the last value but one on the first side (place 0), in the last on the other.
    """
    filled = 2 * (rows.astype(np.float64) ** 2).sum(1) + more[0] ** 2 + more[1] ** 2
    missing = np.zeros((len(rows), 2))
    missing[:, place] = np.sqrt(np.maximum(length - filled, 0))
    made = np.hstack([np.sqrt(2) * rows, np.column_stack(more), missing])
    of_one_length: Matrix = (made / np.sqrt(length)).astype(np.float32)
    return of_one_length
