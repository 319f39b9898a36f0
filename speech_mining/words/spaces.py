"""A space of words: names, how often each was met, and a vector each, most frequent first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import EmbeddingError
from speech_mining.records import Schema

WORDS: Schema = {
    "word": pl.String(),  # as it is written; of speech the number of the type, as t0017
    "count": pl.Int64(),  # tokens
}


@dataclass(frozen=True, eq=False)
class WordSpace:
    """Words of one language in one modality."""

    words: Sequence[str]
    counts: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    """float32 (n, d)."""

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if not len(self.words) == len(self.counts) == len(self.vectors):
            raise EmbeddingError(
                f"{len(self.words)} words, {len(self.counts)} counts and {len(self.vectors)} vectors.",
                expected="one of each for every word",
            )

    def table(self) -> pl.DataFrame:
        """Columns `WORDS`."""
        return pl.DataFrame({"word": list(self.words), "count": self.counts}, schema=dict(WORDS))
