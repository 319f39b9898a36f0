"""A first pairing from how similar each row is to the others of its own side.

Artetxe, Labaka & Agirre, "A robust self-learning method for fully unsupervised cross-lingual mappings of word
embeddings", 2018, section 3.2: what means the same has the same distribution of similarities in both spaces, so the
sorted similarities of a row say which one it is.
"""

from __future__ import annotations

import numpy as np

from speech_mining.align.csls import K, match
from speech_mining.align.refinement import Pairing, Sides
from speech_mining.align.spaces import Form, Matrix

FREQUENT = 4000
"""Rows of each side that are looked at, as in the paper: time grows with its cube, memory with its square."""


def by_distribution(sides: Sides, *, frequent: int = FREQUENT, k: int = K) -> Pairing:
    """Pair rows whose sorted similarities are alike.

    Args:
        sides: the rows.
        frequent: rows of each side that are looked at.
        k: neighbours of CSLS.

    Returns:
        The nearest row of each row, in both directions.
    """
    count = min(*map(len, sides), frequent)
    matched = match(*(profile(side[:count]) for side in sides), k=k, threads=1)
    return Pairing.both_ways(matched.forward, matched.backward)


def profile(rows: Matrix) -> Matrix:
    """Square root of the similarity matrix, each row sorted, in the form spaces are compared in: float32 (n, n)."""
    left, spread, _ = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    similar = np.sort((left * spread @ left.T).astype(np.float32), axis=1)
    return Form.learned(similar, name="The table of similarities").apply(similar)
