"""Which items share a batch: arithmetic on lengths, so that little of a batch is padding.

What belongs here is pure and knows no model: lengths are integers in whatever unit an encoder pads in (samples,
frames, tokens). Running the batches belongs to the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError

Positions = npt.NDArray[np.int64]


def length_batches(lengths: npt.ArrayLike, budget: int) -> list[Positions]:
    """Group items of like length so that each group, padded to its longest item, stays under a budget.

    Longest first: what does not fit in memory fails at once and not after an hour. An item longer than the budget has
    a batch of its own. `out[batch] = vectors` for every batch puts the rows back in the order given.

    Args:
        lengths: int (n,), positive, in samples, frames or tokens.
        budget: the largest padded size (longest length x count) of a batch, in the same unit, positive.

    Returns:
        Batches as int64 positions into `lengths`; together every position once, equal lengths in the order given.

    Raises:
        EmbeddingError: a length or the budget is not a positive integer.
    """
    sizes = _positive_lengths(lengths)
    if budget < 1:
        raise EmbeddingError(f"A batch budget of {budget}.", expected="at least 1", fix="raise the batch budget")
    longest_first = np.argsort(-sizes, kind="stable").astype(np.int64)
    batches: list[Positions] = []
    start = 0
    while start < longest_first.size:
        count = max(1, int(budget // sizes[longest_first[start]]))
        batches.append(longest_first[start : start + count])
        start += count
    return batches


def padding_waste(lengths: npt.ArrayLike, batches: Sequence[Positions]) -> float:
    """Share of all computed positions that is padding, 0 to below 1; 0 where there is nothing to compute."""
    sizes = _positive_lengths(lengths)
    padded = sum(int(sizes[batch].max()) * batch.size for batch in batches)
    useful = sum(int(sizes[batch].sum()) for batch in batches)
    return 1 - useful / padded if padded else 0.0


def _positive_lengths(lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    sizes = np.asarray(lengths)
    if sizes.size == 0:
        return np.empty(0, dtype=np.int64)
    if sizes.ndim != 1 or not np.issubdtype(sizes.dtype, np.integer) or sizes.min() < 1:
        raise EmbeddingError(
            f"Lengths of shape {sizes.shape} and type {sizes.dtype}, the smallest {sizes.min()}.",
            expected="one positive integer an item",
            cause="seconds were given where samples, frames or tokens are counted, or an empty item was not rejected",
        )
    return sizes.astype(np.int64)
