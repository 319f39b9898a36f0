"""BLASER 2.0-QE: how alike two embeddings are in meaning, as people would judge it.

Seamless Communication 2023, "SeamlessM4T", section 5; the model card facebook/blaser-2.0-qe. The published weights are
CC-BY-NC 4.0.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from speech_mining.errors import EmbeddingError, EncoderError
from speech_mining.filters.card_model import CardModel, Matrix, Scores, check_rows

BLASER_CARD = "blaser_2_0_qe"


class BlaserQe(CardModel):
    """Predicts the XSTS score of a translation from SONAR's vectors of both sides; needs no reference.

    5 means the same, 1 unrelated; the prediction is unbounded and may pass either end. The order of the sides counts.
    The model divides each vector by its length first (`norm_emb`), so that unit rows give what SONAR's own give: no
    score of 3000 moved by more than 2e-8. Keeping rows as fp16 moved scores by 0.0009 of their standard deviation at
    most (0.0003 root mean square; random weights of the published size).
    """

    name = "blaser-qe"
    family = "blaser"
    code_version = "1"

    def __init__(self, card: str = BLASER_CARD, *, device: str = "auto", model_dir: Path | None = None) -> None:
        super().__init__(card, device=device, model_dir=model_dir)

    @property
    def dimension(self) -> int:
        """Length of the vectors it reads, told by the card: no weights are needed."""
        return int(self._form.embedding_dim)

    def score(self, source: Matrix, target: Matrix) -> Scores:
        """Score pairs of embeddings.

        With s, t the rows at unit length: mlp([s, t, s * t, |t - s|]).

        Args:
            source: floating (n, dimension), SONAR's vectors of any positive length.
            target: the same for the other side, row by row.

        Returns:
            float32 (n,), about 1 to 5, higher is better.

        Raises:
            EmbeddingError: other shapes, or a row that is zero or not a number.
            EncoderError: no such card, a card of another kind, or weights that are missing or damaged.
        """
        for matrix, name in ((source, "the source"), (target, "the target")):
            check_rows(matrix, self.dimension, name)
        if len(source) != len(target):
            raise EmbeddingError(
                f"{len(source)} rows of source and {len(target)} of target.", expected="a row of each for each pair"
            )
        return self._scored((source, target))

    @cached_property
    def _form(self) -> Any:
        """The card's configuration, held against what can be scored here."""
        from sonar.models.blaser import get_blaser_model_hub

        form = self._config(get_blaser_model_hub)
        if form.input_form != "QE" or not form.norm_emb or form.output_dim != 1:
            raise EncoderError(
                f"The card {self.card} has input_form {form.input_form}, norm_emb {form.norm_emb} and output_dim "
                f"{form.output_dim}.",
                expected="QE, True and 1: mined pairs have no reference, and their vectors are kept at unit length",
                cause="the card of BLASER with references was named",
                fix=f"use the card {BLASER_CARD}",
            )
        return form
