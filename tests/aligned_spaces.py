"""Two spaces of which one is the other, turned, with noise and in another order: what alignment has to find.

Rows lie in clusters of unequal size and their spread falls from direction to direction, as embeddings' does: turned
isotropic noise has no shape by which it could be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.align.refinement import Pairing, Rows
from speech_mining.align.spaces import Form, Matrix

CLUSTERS = 40
DECAY = 0.7


@dataclass(frozen=True, eq=False)
class Spaces:
    """Both sides and what is right."""

    source: Matrix
    target: Matrix
    answers: Rows
    """The target row of each source row."""

    @property
    def dictionary(self) -> Pairing:
        """All pairs."""
        return Pairing(np.arange(len(self.answers)), self.answers)

    @cached_property
    def prepared(self) -> tuple[Matrix, Matrix]:
        """Both sides, made alike."""
        source, target = (Form.learned(rows).apply(rows) for rows in (self.source, self.target))
        return source, target


@cache
def spaces(count: int, dimension: int, noise: float, seed: int = 0) -> Spaces:
    """Make two spaces.

    Args:
        count: rows of each.
        dimension: values a row.
        noise: length of what is added to each target row of length 1, which falls from direction to direction alike.
        seed: of all that is drawn.
    """
    random = np.random.default_rng(seed)
    spread = np.arange(1, dimension + 1) ** -DECAY
    cluster = random.choice(CLUSTERS, count, p=random.dirichlet(np.full(CLUSTERS, 0.7)))
    width = random.gamma(4, 1 / 4, CLUSTERS)[cluster, None]
    rows = (
        random.standard_normal((CLUSTERS, dimension))[cluster] + width * random.standard_normal((count, dimension))
    ) * spread
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    added = random.standard_normal((count, dimension)) * spread / np.linalg.norm(spread)
    order = random.permutation(count)
    target = ((rows + noise * added) @ rotation(dimension, seed + 1))[order]
    return Spaces(rows.astype(np.float32), target.astype(np.float32), np.argsort(order))


def rotation(dimension: int, seed: int) -> npt.NDArray[Any]:
    """An orthogonal matrix (d, d)."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, dimension)))[0]
