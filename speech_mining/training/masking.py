"""SpecAugment's masks over a network's features: drawn by number, never over padding. Plain numpy.

Park et al. 2019, "SpecAugment"; as wav2vec 2.0 and SAMU-XLSR use it, on the features and not on the spectrogram.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


def chance_of(*numbers: int) -> np.random.Generator:
    """The source of everything that is drawn at one place: the same numbers, the same draws, whatever ran before."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(numbers))))


def span_mask(lengths: Sequence[int], width: int, probability: float, span: int, seed: Sequence[int]) -> Bools:
    """Spans of each row that are masked.

    A row of length L has floor(probability L / span + u) spans, u drawn from [0, 1), each of `span` places (fewer where
    the row is shorter), which may overlap: at most about that share of the row. Row i draws from (seed, i) alone.

    Args:
        lengths: of each row, up to `width`.
        width: columns of the mask.
        probability: share of the places that spans would cover if none overlapped, in [0, 1].
        span: places of a span, at least 1.
        seed: numbers that say which batch this is.

    Returns:
        bool (rows, width), True where masked; never at or beyond a row's length, and never a whole row.
    """
    masked = np.zeros((len(lengths), width), np.bool_)
    for row, length in enumerate(lengths):
        long = min(span, length - 1)
        chance = chance_of(*seed, row)
        count = int(probability * length / span + chance.random())
        if probability <= 0 or long < 1:
            continue
        starts = chance.integers(0, length - long + 1, size=count)
        masked[row, (starts[:, None] + np.arange(long)).ravel()] = True
        if masked[row, :length].all():
            masked[row, starts[0]] = False
    return masked
