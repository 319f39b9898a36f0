"""A small network over embeddings that an asset card names: found, loaded and run, some rows at a time.

What belongs here is what BLASER and MuTox share: the card, the weights, the batches. What they score is in the modules
named for them. Cards, model directories and missing weights are as for `speech_mining.encoders.sonar`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.placement import placement
from speech_mining.encoders.sonar import _AssetCards, _fairseq2
from speech_mining.errors import EmbeddingError, EncoderError
from speech_mining.knn.vectors import NAMED_ROWS

BATCH_ROWS = 512
"""Rows of every batch, the last one filled up: matrices of one shape are multiplied in one order, so that a row has the
same score to the last bit whichever rows are beside it. In batches of 1 or 7 rows a score moved in its last bits."""

Matrix: TypeAlias = npt.NDArray[Any]
Scores: TypeAlias = npt.NDArray[np.float32]


class CardModel:
    """A model that reads embeddings; its weights are loaded when the first row is scored, in float32.

    Args:
        card: an asset card, published or of one's own.
        device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1".
        model_dir: directory of asset cards of one's own; None reads `S2S_MODEL_DIR`.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    """`model_family` that the card must have."""
    code_version: ClassVar[str]
    """Part of every version: raise it when the same weights would give other scores."""

    def __init__(self, card: str, *, device: str = "auto", model_dir: Path | None = None) -> None:
        self.card = card
        self._device = device
        self._assets = _AssetCards(model_dir)

    @property
    def version(self) -> str:
        """Our code's version, the card and its checkpoint: a published one's address, the SHA-256 of a local one."""
        return f"{self.name}-{self.code_version}+{self.card}:{self._assets.identity(self.card)}"

    @property
    def dimension(self) -> int:
        """Length of the vectors it reads, told by the card: no weights are needed."""
        raise NotImplementedError

    def load(self) -> Any:
        """The model on its device, ready to score, loaded at the first call.

        Raises:
            EncoderError: the weights are missing, damaged or not of this architecture.
        """
        return self._loaded[0]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The model and its device."""
        self._refuse_other_family()
        device, dtype = placement(self._device, "float32")
        # eval: both have dropout, which fairseq2 leaves on
        return self._assets.load_model(self.card, device, dtype).eval(), device

    def _config(self, hub: Callable[[], Any]) -> Any:
        """The model's configuration, read from the card."""
        self._refuse_other_family()
        return self._assets._read(self.card, lambda card: hub().get_model_config(card))

    def _refuse_other_family(self) -> None:
        _fairseq2()
        stated = self._assets.card(self.card).maybe_get_field("model_family")
        family = stated.value if stated else "none"
        if family != self.family:
            raise EncoderError(
                f"The card {self.card} is of the family {family}.",
                expected=f"the family {self.family}",
                cause=f"another model was named where {self.name} is wanted",
                fix="see the cards with `s2s models list`",
            )

    def _scored(self, matrices: Sequence[Matrix]) -> Scores:
        """Run matrices with as many rows each through the model: float32 (n,); no rows need no weights."""
        count = len(matrices[0])
        scores = np.empty(count, np.float32)
        for first in range(0, count, BATCH_ROWS):
            batch = [_filled(matrix[first : first + BATCH_ROWS]) for matrix in matrices]
            scores[first : first + BATCH_ROWS] = self._batch(batch)[: count - first]
        wrong = np.flatnonzero(~np.isfinite(scores))
        if len(wrong):
            raise EncoderError(
                f"The card {self.card} gives {len(wrong)} of {count} rows a score that is not a number.",
                cause="its checkpoint holds NaN or infinity",
                fix="fetch the checkpoint again",
            )
        return scores

    def _batch(self, batch: Sequence[npt.NDArray[np.float32]]) -> Scores:
        import torch

        model, device = self._loaded
        with torch.inference_mode():
            given = [torch.from_numpy(matrix).to(device) for matrix in batch]
            told: Scores = model(*given).reshape(-1).cpu().numpy()
        return told


def check_rows(matrix: Matrix, dimension: int, name: str) -> None:
    """Refuse what is no matrix of embeddings of a model's own dimension.

    Args:
        matrix: floating (n, dimension), n may be 0.
        dimension: the model's.
        name: what the matrix is called in errors.

    Raises:
        EmbeddingError: another shape, or rows that are zero or hold NaN or infinity; they are named.
    """
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating) or matrix.shape[1] != dimension:
        raise EmbeddingError(
            f"{name} is {matrix.dtype} {matrix.shape}.",
            expected=f"floating point (n, {dimension})",
            cause="the vectors are of another encoder than the card was trained on",
        )
    largest = np.abs(matrix).max(axis=1, initial=0)  # NaN where a row holds one
    for wrong, what in ((~np.isfinite(largest), "hold NaN or infinity"), (largest == 0, "are zero")):
        rows = np.flatnonzero(wrong)
        if len(rows):
            named = ", ".join(map(str, rows[:NAMED_ROWS])) + (", …" if len(rows) > NAMED_ROWS else "")
            raise EmbeddingError(
                f"{len(rows)} of {len(matrix)} rows of {name} {what}: {named}.",
                expected="finite rows with a direction",
                cause="silence was embedded, or the file is damaged",
                fix="embed these segments again, or leave them out",
            )


def _filled(rows: Matrix) -> npt.NDArray[np.float32]:
    """A float32 copy, with rows of zeros below up to a whole batch."""
    batch = np.zeros((BATCH_ROWS, rows.shape[1]), np.float32)
    batch[: len(rows)] = rows
    return batch
