"""Which tokens are the same word, where nobody says so: tokens that sound alike.

Tokens -> many small clusters (k-means) -> fewer, by average linkage of their centres. k-means alone splits frequent
words and joins rare ones: of the miniature world's 63 500 tokens in 600 clusters 50 % lay in their word's largest
cluster, with linkage 86 %, of which 94 % are that word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.words.tokens import Rows

Vectors = npt.NDArray[np.float32]
SMALL = 4
"""Small clusters for each type that is wanted."""
LEAST_TOKENS = 8
"""Tokens for each type, on average: of fewer tokens there are fewer types."""


@dataclass(frozen=True)
class TypeConfig:
    """How tokens are grouped."""

    types: int = 600
    """As many, or fewer where there are few tokens."""
    directions: int = 64
    """Principal directions of the vectors that are looked at."""
    rounds: int = 8
    seed: int = 0


def alike(vectors: Vectors, config: TypeConfig) -> Rows:
    """Group tokens by what they sound like.

    Args:
        vectors: float32 (n, d), a token each.
        config: how many types, and the seed.

    Returns:
        int64 (n,): the type of each token, the most frequent type is 0; ties by first token.

    Raises:
        EmbeddingError: vectors that are not finite.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if not np.isfinite(vectors).all():
        raise EmbeddingError("Some tokens have no finite vector.", cause="silence or damaged audio was embedded")
    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    compact = _principal(vectors, config.directions)
    types = min(config.types, max(2, len(vectors) // LEAST_TOKENS))
    small = min(SMALL * types, len(vectors))
    centres, own = _k_means(compact, small, config)
    tree = linkage(centres.astype(np.float64), "average")
    joined = fcluster(tree, types, "maxclust")
    return by_frequency(joined[own])


def by_frequency(labels: npt.NDArray[np.integer]) -> Rows:
    """Labels numbered anew: the most frequent is 0, and of equals the one that comes first."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort([first, -counts])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    numbered: Rows = rank[inverse]
    return numbered


def _principal(vectors: Vectors, most: int) -> Vectors:
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, directions = np.linalg.eigh(np.cov(centred.T, dtype=np.float64))
    return np.ascontiguousarray((centred @ directions[:, -most:]).astype(np.float32))


def _k_means(rows: Vectors, count: int, config: TypeConfig) -> tuple[Vectors, Rows]:
    """Lloyd's rounds from random tokens: centres float32 (count, d), and the centre of each row.

    A centre that no row is nearest to stays where it is.
    """
    random = np.random.default_rng(config.seed)
    centres = rows[np.sort(random.choice(len(rows), count, replace=False))].copy()
    for _ in range(config.rounds):
        own = _nearest(rows, centres)
        sums = np.zeros(centres.shape, np.float64)
        np.add.at(sums, own, rows)
        counts = np.bincount(own, minlength=count)[:, None]
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres).astype(np.float32)
    return centres, _nearest(rows, centres)


def _nearest(rows: Vectors, centres: Vectors, block: int = 8192) -> Rows:
    lengths = (centres**2).sum(axis=1)
    parts = [(lengths - 2 * rows[at : at + block] @ centres.T).argmin(axis=1) for at in range(0, len(rows), block)]
    return np.concatenate(parts).astype(np.int64)
