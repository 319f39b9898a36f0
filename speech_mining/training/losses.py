"""How far a student's vectors are from the teacher's: one number a clip, for each loss. Imports torch.

Only formulas belong here. z is the student's vector as the network gives it, t the teacher's unit vector.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from speech_mining.errors import EncoderError


def distances(vectors: Tensor, targets: Tensor, loss: str, temperature: float) -> Tensor:
    """The loss of each clip of a batch.

    - `cosine`: 1 - cos(z, t), in [0, 2]: SAMU-XLSR's choice.
    - `l1`: sum_j |z_j - t_j|; `l2`: sum_j (z_j - t_j)^2. z is not scaled to unit length first: with it, l2 would be
      twice the cosine loss.
    - `contrastive`: -log of the softmax over the batch's targets of cos(z, t) / temperature. A target that another
      clip of the batch has too (the same sentence, said twice or in two languages) is no negative.

    Args:
        vectors: (n, d).
        targets: (n, d), unit rows.
        loss: one of the four.
        temperature: of the contrastive loss, positive.

    Returns:
        float32 (n,).

    Raises:
        EncoderError: no such loss.
    """
    vectors, targets = vectors.float(), targets.float()
    if loss == "l1":
        return (vectors - targets).abs().sum(1)
    if loss == "l2":
        return (vectors - targets).square().sum(1)
    if loss == "cosine":
        return 1 - functional.cosine_similarity(vectors, targets, dim=1)
    if loss == "contrastive":
        return _contrastive(functional.normalize(vectors, dim=1), functional.normalize(targets, dim=1), temperature)
    raise EncoderError(f"There is no loss {loss!r}.", expected="cosine, l1, l2 or contrastive")


def _contrastive(vectors: Tensor, targets: Tensor, temperature: float) -> Tensor:
    same = (targets[:, None] == targets[None]).all(dim=2)
    same.fill_diagonal_(False)
    logits = (vectors @ targets.T / temperature).masked_fill(same, float("-inf"))
    return functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device), reduction="none")
