"""How well a student's vectors find their sentences: what decides which checkpoint is the best. Plain numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError

_ROWS_AT_ONCE = 1024


def recall_at_1(
    vectors: npt.NDArray[np.floating], targets: npt.NDArray[np.floating], languages: Sequence[str]
) -> float:
    """The share of clips whose own target is nearest by cosine, averaged over languages.

    A clip is searched among the targets of its language's clips, each distinct target once: two clips that say the same
    are both right. Another target as near as the right one counts as nearer.

    Args:
        vectors: float (n, d), the student's, not zero.
        targets: float (n, d), the teacher's, row by row.
        languages: of each clip; a language of one clip would always be right and has no say, unless all are.

    Raises:
        EmbeddingError: there is no clip, or a vector is zero or no number.
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not len(vectors) or not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise EmbeddingError(
            f"{len(vectors)} vectors to examine, {int(np.count_nonzero(~(lengths > 0)))} of them without a direction.",
            expected="at least one, none zero or NaN",
            cause="a student whose training failed: its rate is too high, or its precision too low",
        )
    named = np.array(languages)
    recalls = {str(one): _found(vectors[named == one], targets[named == one]) for one in np.unique(named)}
    spoken_often = [recall for one, recall in recalls.items() if np.count_nonzero(named == one) > 1]
    return float(np.mean(spoken_often or list(recalls.values())))


def _found(vectors: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> float:
    distinct, own = np.unique(targets, axis=0, return_inverse=True)
    candidates = _unit(distinct)
    found = 0
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        cosines = _unit(vectors[start : start + _ROWS_AT_ONCE]) @ candidates.T
        right = cosines[np.arange(len(cosines)), own[start : start + _ROWS_AT_ONCE].ravel()]
        found += int(np.count_nonzero((cosines >= right[:, None]).sum(axis=1) == 1))
    return found / len(vectors)


def _unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    wide = rows.astype(np.float64)
    unit: npt.NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
