"""The rows of one call of an encoder: filled batch by batch, handed back without what was rejected.

What belongs here is the same for all encoders that run a network in batches. Which items share a batch is `batches`,
what happens to one that does not fit is `feeding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.batches import Positions, length_batches
from speech_mining.encoders.feeding import Room, Vectors
from speech_mining.encoders.protocol import Embedded, Rejected
from speech_mining.progress import Progress
from speech_mining.records import RejectionReason

Refusal: TypeAlias = tuple[RejectionReason, str]


class Work:
    """The rows of one call: filled batch by batch, handed back without what was rejected."""

    def __init__(self, count: int, dimension: int, refusals: Mapping[int, Refusal], progress: Progress) -> None:
        self._rows = np.zeros((count, dimension), dtype=np.float16)
        self._lengths = np.zeros(count, dtype=np.float32)
        self._refusals = dict(refusals)
        self._progress, self._done = progress, len(refusals)
        if count:
            progress(self._done, count)

    @property
    def kept(self) -> npt.NDArray[np.int64]:
        """Positions not rejected so far, increasing."""
        return np.array([item for item in range(len(self._rows)) if item not in self._refusals], dtype=np.int64)

    def by_language(self, languages: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
        """Positions not rejected so far, apart by language."""
        kept = self.kept
        named = np.array([languages[item] for item in kept], dtype=object)
        return {language: kept[named == language] for language in dict.fromkeys(named)}

    def put(self, items: npt.NDArray[np.int64], vectors: Vectors) -> None:
        """Store the unit rows of a batch; a row that is not a number, or zero, becomes a rejection."""
        norms = np.linalg.norm(vectors, axis=1)
        usable = np.isfinite(norms) & (norms > 0)
        self._rows[items[usable]] = vectors[usable] / norms[usable, None]
        self._lengths[items[usable]] = norms[usable]
        for item in items[~usable]:
            self._refusals[int(item)] = ("not_a_number", "the encoder's own output is not a direction")
        self._count(len(items))

    def put_parts(self, parts: Iterable[tuple[Positions, Vectors | None]]) -> None:
        """Store parts of a batch as `feeding.Room.run` gives them; an item that no memory holds is a rejection."""
        for items, vectors in parts:
            if vectors is not None:
                self.put(items, vectors)
                continue
            for item in items:
                self._refusals[int(item)] = ("out_of_memory", "it does not fit in memory, even alone")
            self._count(len(items))

    def _count(self, items: int) -> None:
        self._done += items
        self._progress(self._done, len(self._rows))

    def embedded(self) -> Embedded:
        """What was stored, without what was rejected."""
        kept = self.kept
        rejected = tuple(Rejected(item, *self._refusals[item]) for item in sorted(self._refusals))
        return Embedded(self._rows[kept], kept, rejected, self._lengths[kept])


def embed_tokens(
    work: Work, tokens: Sequence[Any], vectors: Callable[[list[Any]], Vectors], max_batch_tokens: int
) -> Embedded:
    """Embed what is not rejected yet, sentences of like length together; a batch that does not fit is halved.

    Args:
        work: of these sentences.
        tokens: of each sentence, of any type that has a length.
        vectors: embeds a batch: float32 (batch, dimension).
        max_batch_tokens: tokens in a batch, padding included.
    """
    kept = work.kept
    room = Room(lambda part: max(len(tokens[item]) for item in part) * part.size)
    for batch in length_batches([len(tokens[item]) for item in kept], max_batch_tokens):
        work.put_parts(room.run(kept[batch], lambda part: vectors([tokens[item] for item in part])))
    return work.embedded()


def as_float32(vectors: Any) -> Vectors:
    """A tensor's values on the CPU."""
    rows: Vectors = vectors.float().cpu().numpy()
    return rows
