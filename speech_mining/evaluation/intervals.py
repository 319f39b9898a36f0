"""How sure a figure is: bootstrap confidence intervals of shares and of ratios of sums.

Numbers only. Queries are drawn again with replacement, so a figure measured on one test set says how far it would move
on another one of the same size and kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError, SettingsError

_DRAWS_AT_ONCE = 1 << 22  # 32 MiB of row numbers


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that holds it, `low <= high`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """How the interval is drawn.

    Args:
        seed: of the draws.
        resamples: how many test sets are drawn.
        level: share of them inside the interval, in (0, 1).
    """

    seed: int = 0
    resamples: int = 1000
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 1:
            raise SettingsError(
                f"{self.resamples} resamples at a level of {self.level}.",
                expected="at least one resample, a level between 0 and 1",
            )


def estimate(
    parts: npt.NDArray[Any], wholes: npt.NDArray[Any] | None = None, bootstrap: Bootstrap | None = None
) -> Estimate:
    """Compute sum(parts) / sum(wholes) with a percentile bootstrap interval (Efron 1979) over the rows.

    Rows are sorted before they are drawn from: their order changes nothing. Where every row is alike (no error at all)
    the interval is a point; then 3 / n is a usual upper bound on the share.

    Args:
        parts: (n,), finite and not negative: errors of each query.
        wholes: (n,), the same: words of each query; None counts 1 for each.
        bootstrap: None takes the defaults.

    Returns:
        unitless; NaN three times where the wholes add up to 0. Resamples whose wholes do are left out.

    Raises:
        EmbeddingError: no row, or the two differ in length.
    """
    drawn = bootstrap or Bootstrap()
    pairs = _sorted_pairs(parts, wholes)
    if pairs[:, 1].sum() == 0:
        return Estimate(np.nan, np.nan, np.nan)
    value = float(pairs[:, 0].sum() / pairs[:, 1].sum())
    figures = _resampled(pairs, drawn)
    edge = (1 - drawn.level) / 2
    low, high = np.quantile(figures, [edge, 1 - edge])
    return Estimate(value, float(low), float(high))


def _sorted_pairs(parts: npt.NDArray[Any], wholes: npt.NDArray[Any] | None) -> npt.NDArray[np.float64]:
    above = np.asarray(parts, np.float64)
    below = np.ones(len(above)) if wholes is None else np.asarray(wholes, np.float64)
    if not len(above) or above.shape != below.shape or above.ndim != 1:
        raise EmbeddingError(
            f"Parts have shape {above.shape}, wholes {below.shape}.", expected="twice (n,) with n at least 1"
        )
    return np.stack([above, below], axis=1)[np.lexsort((below, above))]


def _resampled(pairs: npt.NDArray[np.float64], drawn: Bootstrap) -> npt.NDArray[np.float64]:
    """float64 (resamples,): the figure on each test set drawn again."""
    chance = np.random.Generator(np.random.PCG64(drawn.seed))
    at_once = max(1, _DRAWS_AT_ONCE // len(pairs))
    sums = []
    for start in range(0, drawn.resamples, at_once):
        rows = chance.integers(0, len(pairs), (min(at_once, drawn.resamples - start), len(pairs)))
        sums.append(np.stack([pairs[:, side][rows].sum(axis=1) for side in (0, 1)]))
    above, below = np.concatenate(sums, axis=1)
    figures: npt.NDArray[np.float64] = above[below > 0] / below[below > 0]
    return figures
