"""The orthogonal map that brings rows nearest to their partners, and what may be done around it.

Schönemann, "A generalized solution of the orthogonal Procrustes problem", 1966. Whitening, re-weighting and
de-whitening around it: Artetxe, Labaka & Agirre, "Generalizing and improving bilingual word embedding mappings with a
multi-step framework of linear transformations", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.align.spaces import Matrix

LEAST_SPREAD = 1e-6
"""Singular values below this share of the largest are noise, and are not whitened up."""

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Around:
    """What is done before and after the orthogonal map."""

    whitened: bool = False
    """Bring the directions of each side to one spread before they are matched, and back after."""
    reweighted: float = 0.0
    """Directions count by their singular value to this power, which is their correlation where they are whitened; 0
    leaves them as they are, vecmap takes 0.5."""


PLAIN = Around()
REWEIGHTED = Around(reweighted=0.5)
"""vecmap's power, but of directions that are not whitened: maps between words that were found without a dictionary had
an R@1 of 0.785 so, 0.772 whitened too, 0.753 plain (benchmarks.words, seeds 2, 8 and 14, English and French)."""


def orthogonal(source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> Matrix:
    """The W (d, e) with orthonormal columns or rows that minimises |source W - target|, row i being row i's partner."""
    left, _, right = np.linalg.svd(source.astype(np.float64).T @ target.astype(np.float64), full_matrices=False)
    nearest: Matrix = (left @ right).astype(np.float32)
    return nearest


def both_sides(source: Matrix, target: Matrix, around: Around = PLAIN) -> tuple[Matrix, Matrix]:
    """Maps of both sides into a common space, from rows and their partners.

    Without anything around it, each map has orthonormal columns, and source W V^T is what `orthogonal` gives.

    Args:
        source: (p, d) rows.
        target: (p, e) their partners.
        around: what is done before and after.

    Returns:
        (d, c) and (e, c), c the smaller of d and e.
    """
    before, after = (_whitening(side) if around.whitened else _plain(side.shape[1]) for side in (source, target))
    left, strength, right = np.linalg.svd(
        (source.astype(np.float64) @ before[0]).T @ (target.astype(np.float64) @ after[0]), full_matrices=False
    )
    weight = (strength / max(strength[0], np.finfo(float).tiny)) ** around.reweighted
    mine, other = before[0] @ left * weight, after[0] @ right.T * weight
    if around.whitened:  # in the common space a whitened side gets its own spread there again
        mine, other = mine @ (left.T @ before[1] @ left), other @ (right @ after[1] @ right.T)
    return mine.astype(np.float32), other.astype(np.float32)


def _plain(dimension: int) -> tuple[Wide, Wide]:
    return np.eye(dimension), np.eye(dimension)


def _whitening(rows: Matrix) -> tuple[Wide, Wide]:
    """The symmetric matrix that gives rows the same spread in every direction, and the one that takes it back."""
    spread, directions = np.linalg.eigh(rows.astype(np.float64).T @ rows.astype(np.float64) / len(rows))
    spread = np.sqrt(np.maximum(spread, 0))
    spread = np.maximum(spread, max(LEAST_SPREAD * spread[-1], np.finfo(float).tiny))
    return directions / spread @ directions.T, directions * spread @ directions.T
