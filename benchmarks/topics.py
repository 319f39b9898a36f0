"""Two sides of vectors that lie as embeddings do, for benchmarks of approximate search.

Independent Gaussian rows are the worst case of every inverted index, and unlike embeddings: nothing is near anything.
Here a row is a point of an inner space of `INNER` dimensions whose spread falls like the square root of their number,
gathered round one of `TOPICS` topics of very different sizes, mapped into the full dimension, with noise in all
directions and an offset that its side shares. With the figures below, at 50 000 x 50 000 x 1024: translations have a
cosine of 0.85, a row's next neighbours 0.51 to 0.76 (5th to 95th percentile), its 16th 0.42 to 0.69, two rows drawn at
random -0.17 to 0.35.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float16]

TOPICS = 4000
INNER = 96
WITHIN = 0.8
"""Spread inside a topic, of the spread of topics."""
NOISE = 0.55
"""Length of the noise of a row, of the length of what it means."""
TRANSLATION_NOISE = 0.5
COMMON, OWN = 0.5, 0.4
"""Lengths of the offset that both sides share, and of each side's own."""
MADE_AT_ONCE = 20_000


def sides_of_topics(rows: int, columns: int, dimension: int, seed: int = 0) -> tuple[Matrix, Matrix]:
    """Two sides; the first half of the smaller one's length of source rows has translations, scattered in the target.

    Returns:
        float16 (rows, dimension) and (columns, dimension), unit rows.
    """
    rng = np.random.default_rng(seed)
    spread = np.arange(1, INNER + 1, dtype=np.float32) ** -0.5
    basis = _directions(rng, INNER, dimension) / np.sqrt(np.sum(spread**2))
    topics = rng.standard_normal((TOPICS, INNER), np.float32) * spread
    sizes = np.arange(1, TOPICS + 1) ** -0.7
    common = COMMON * _directions(rng, 1, dimension)[0]
    offsets = [common + OWN * _directions(rng, 1, dimension)[0] for _ in range(2)]
    sides = []
    for count, offset in zip((rows, columns), offsets, strict=True):
        drawn = rng.choice(TOPICS, count, p=sizes / sizes.sum())
        inner = topics[drawn] + WITHIN * spread * rng.standard_normal((count, INNER), np.float32)
        sides.append(_noisy(inner, basis, NOISE, offset, rng))
    translated = min(rows, columns) // 2
    places = rng.permutation(columns)[:translated]
    moved = (offsets[1] - offsets[0]) / 2
    for first in range(0, translated, MADE_AT_ONCE):
        part = slice(first, min(first + MADE_AT_ONCE, translated))
        sides[1][places[part]] = _noisy(sides[0][part], None, TRANSLATION_NOISE, moved, rng)
    return sides[0], sides[1]


def _directions(rng: np.random.Generator, count: int, dimension: int) -> npt.NDArray[np.float32]:
    """Random vectors of a length near 1."""
    return rng.standard_normal((count, dimension), np.float32) / np.float32(np.sqrt(dimension))


def _noisy(
    rows: npt.NDArray[np.floating],
    basis: npt.NDArray[np.float32] | None,
    noise: float,
    offset: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> Matrix:
    """Unit rows: what is given, mapped by `basis` where there is one, with noise and an offset."""
    made = np.empty((len(rows), len(offset)), np.float16)
    for first in range(0, len(rows), MADE_AT_ONCE):
        part = rows[first : first + MADE_AT_ONCE].astype(np.float32)
        wide = part if basis is None else part @ basis.astype(np.float32)
        wide = wide + noise * _directions(rng, len(part), len(offset)) + offset
        made[first : first + len(part)] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return made
