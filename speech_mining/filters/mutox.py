"""MuTox: how likely speech or text is toxic, from its embedding.

Costa-jussà et al. 2023, "MuTox: Universal MUltilingual Audio-based TOXicity Dataset and Zero-shot Detector". The
classifier of sonar-space is called directly: its `MutoxSpeechClassifierPipeline` fails in 0.5.0.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.filters.card_model import CardModel, Matrix, Scores, check_rows
from speech_mining.knn.vectors import UNIT_TOLERANCE

MUTOX_CARD = "sonar_mutox"


class Mutox(CardModel):
    """Tells the probability that a vector of SONAR's stands for something toxic.

    Unlike BLASER it does not normalise: it was trained on vectors as SONAR makes them, whose length is about 0.2 (the
    values that the card of SONAR's text encoder prints have a root mean square of 0.0056; there are 1024). A unit row
    is five times too long and gives another answer, so that unit rows need their `lengths` back.
    """

    name = "mutox"
    family = "mutox_classifier"
    code_version = "1"

    def __init__(self, card: str = MUTOX_CARD, *, device: str = "auto", model_dir: Path | None = None) -> None:
        super().__init__(card, device=device, model_dir=model_dir)

    @property
    def dimension(self) -> int:
        """Length of the vectors it reads, told by the card: no weights are needed."""
        return int(self._form.input_size)

    def score(self, vectors: Matrix, lengths: npt.NDArray[np.float32] | float | None = None) -> Scores:
        """Score embeddings.

        The classifier gives a logit (it was trained by binary cross-entropy with logits: toxic above 0); returned is
        its sigmoid.

        Args:
            vectors: floating (n, dimension): as SONAR makes them; or unit rows, with `lengths`.
            lengths: what rows are multiplied by first, float32 (n,) or one number for all; None: as they are.

        Returns:
            float32 (n,), probability in [0, 1]; 0.5 is where the classifier is undecided.

        Raises:
            EmbeddingError: another shape, a row that is zero or not a number, unit rows without lengths.
            EncoderError: no such card, a card of another kind, or weights that are missing or damaged.
        """
        check_rows(vectors, self.dimension, "the vectors")
        if lengths is None:
            _refuse_unit_rows(vectors)
            return _sigmoid(self._scored((vectors,)))
        lengths = _checked(np.asarray(lengths, np.float32), len(vectors))
        return _sigmoid(self._scored((vectors.astype(np.float32) * lengths,)))

    @cached_property
    def _form(self) -> Any:
        from sonar.models.mutox import get_mutox_model_hub

        return self._config(get_mutox_model_hub)


def _sigmoid(logits: Scores) -> Scores:
    """1 / (1 + exp(-x)), without overflow at either end: real logits reach -48."""
    wide = logits.astype(np.float64)
    small = np.exp(-np.abs(wide))
    likely: Scores = (np.where(wide >= 0, 1.0, small) / (1 + small)).astype(np.float32)
    return likely


def _refuse_unit_rows(vectors: Matrix) -> None:
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    if len(vectors) and np.all(np.abs(lengths - 1) <= UNIT_TOLERANCE):
        raise EmbeddingError(
            f"All {len(vectors)} vectors given to MuTox have length 1.",
            expected="vectors as SONAR makes them, of length about 0.2",
            cause="they were normalised, as those of the lake are",
            fix="give `lengths` too: of each row as it was, or one that is typical of the encoder",
        )


def _checked(lengths: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
    """Lengths as a column, or one number; refused where they are not positive numbers."""
    if lengths.shape not in {(), (rows,)} or not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise EmbeddingError(
            f"Lengths of shape {lengths.shape} for {rows} vectors, not all of them positive numbers.",
            expected=f"one positive number, or ({rows},) of them",
        )
    return lengths[:, None] if lengths.ndim else lengths
