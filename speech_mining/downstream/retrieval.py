"""Two encoders that learn from pairs of speech to meet: a proxy for speech-to-speech translation. Imports torch.

What belongs here needs no speech recogniser, no vocoder and no units: after training, held-out speech is searched among
the held-out speech of the other language. It tells whether pairs say the same; it does not tell how well speech would
be generated from them. The loss is the symmetric contrastive one over a batch (Radford et al. 2021, "CLIP", figure 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from speech_mining.downstream.configuration import LearningConfig
from speech_mining.downstream.examples import Side
from speech_mining.downstream.inputs import Sounds, masked, padded
from speech_mining.downstream.networks import TwoEncoders

_EMBEDDED_AT_ONCE = 64
_SIDES: tuple[Side, Side] = ("source", "target")


@dataclass(frozen=True, eq=False)
class BothHeard:
    """A batch of pairs: inputs float32 (pairs, longest, width) and lengths int64 (pairs,) of either side."""

    sides: tuple[tuple[Tensor, Tensor], ...]


class Retriever:
    """Two encoders on their way; a `downstream.loop.Learner`."""

    def __init__(self, train: pl.DataFrame, sounds: Sounds, config: LearningConfig, seed: int) -> None:
        self._train, self._sounds, self._config, self._seed = train, sounds, config, seed
        self.durations_s = train["source_duration_s"].to_numpy().astype(np.float64)
        torch.manual_seed(seed)
        self.network = TwoEncoders(config, sounds.extractor.width)

    def prepare(self, rows: Sequence[int], number: int) -> BothHeard:
        """Hear both sides of a batch; `number` draws its masks."""
        heard = []
        for place, side in enumerate(_SIDES):
            inputs, lengths = padded(self._sounds.of_rows(self._train, rows, side))
            inputs = masked(inputs, lengths, self._config, self._seed, 2 * number + place)
            heard.append((torch.from_numpy(inputs), torch.from_numpy(lengths)))
        return BothHeard(tuple(heard))

    def loss(self, prepared: BothHeard, device: torch.device) -> Tensor:
        """Mean of both directions: each clip must find its own among the batch's."""
        source, target = (
            self.network(side, inputs.to(device), lengths.to(device)).float()
            for side, (inputs, lengths) in zip(_SIDES, prepared.sides, strict=True)
        )
        alike = source @ target.T / self._config.temperature
        own = torch.arange(len(alike), device=device)
        return (cross_entropy(alike, own) + cross_entropy(alike.T, own)) / 2

    def vectors(self, test: pl.DataFrame, side: Side, device: str) -> npt.NDArray[np.float32]:
        """Unit vectors of a side: float32 (clips, width)."""
        self.network.to(device).eval()
        parts = []
        with torch.inference_mode():
            for first in range(0, test.height, _EMBEDDED_AT_ONCE):
                rows = range(first, min(first + _EMBEDDED_AT_ONCE, test.height))
                inputs, lengths = padded(self._sounds.of_rows(test, rows, side))
                given = torch.from_numpy(inputs).to(device), torch.from_numpy(lengths).to(device)
                parts.append(self.network(side, *given).float().cpu().numpy())
        return np.concatenate(parts)
