"""Clips on their way to the network: read, checked, turned into features, padded. Imports torch.

What belongs here runs in threads beside the network and never touches it; which clips make a batch is `passes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speech_mining.encoders.neural_inputs import INPUTS, Floats, pad
from speech_mining.encoders.neural_student import refuse
from speech_mining.errors import SpeechMiningError
from speech_mining.records import SAMPLE_RATE_HZ
from speech_mining.training.configuration import StudentConfig
from speech_mining.training.examples import Examples
from speech_mining.training.rebalancing import Draw

_LONGER = 2.0
"""A clip may be longer than was announced; beyond this much of the longest, it is another clip."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A micro-batch, ready for the network."""

    number: int
    """Of the micro-batch, over the whole training."""
    inputs: Tensor
    lengths: Tensor
    targets: Tensor
    weights: Tensor
    """float32 (n,): 1, or 0 where the only clip is silence that stands in for clips that could not be read."""
    seconds: float
    left_out: Mapping[str, str]


class Listened(NamedTuple):
    """Clips of an examination: the rows that can be heard, their inputs, and why the others cannot, by clip."""

    rows: list[int]
    inputs: list[Floats]
    left_out: Mapping[str, str]


class Ears:
    """Reads clips and turns them into what the network is given; used from several threads."""

    def __init__(self, examples: Examples, config: StudentConfig) -> None:
        self._examples, self._config = examples, config
        self._hear = INPUTS[config.architecture]
        self._clips = examples.clips["clip"].to_list()
        self._seconds = examples.clips["duration_s"].to_list()

    def prepare(self, draws: Sequence[Draw], number: int) -> Prepared:
        """A micro-batch without the clips that cannot be heard; where none can, one of silence that weighs nothing."""
        left_out: dict[str, str] = {}
        inputs, rows, targets = [], [], []
        for draw in draws:
            heard = self._read(draw.row, left_out)
            if heard is None:
                continue
            among = self._examples.target_rows[draw.row]
            inputs.append(heard)
            rows.append(draw.row)
            targets.append(self._examples.targets[among[(draw.turn + draw.row) % len(among)]])
        weights = np.ones(len(inputs), np.float32)
        if not inputs:
            inputs, targets = [self._hear(np.zeros(SAMPLE_RATE_HZ, np.float32))], [self._examples.targets[0]]
            weights = np.zeros(1, np.float32)
        padded, lengths = pad(inputs)
        return Prepared(
            number=number,
            inputs=torch.from_numpy(padded),
            lengths=torch.from_numpy(lengths),
            targets=torch.from_numpy(np.stack(targets).astype(np.float32)),
            weights=torch.from_numpy(weights),
            seconds=float(sum(self._seconds[row] for row in rows)),
            left_out=left_out,
        )

    def hear(self, rows: npt.NDArray[np.int64]) -> Listened:
        """Those of some clips that can be heard."""
        left_out: dict[str, str] = {}
        heard = [(int(row), self._read(int(row), left_out)) for row in rows]
        kept = [(row, inputs) for row, inputs in heard if inputs is not None]
        return Listened([row for row, _ in kept], [inputs for _, inputs in kept], left_out)

    def _read(self, row: int, left_out: dict[str, str]) -> Floats | None:
        clip = self._clips[row]
        try:
            waveform = self._examples.read(clip)
        except (SpeechMiningError, OSError) as error:
            left_out[clip] = str(getattr(error, "reason", "unreadable"))
            return None
        refusal = refuse(waveform, self._config.shortest_s, _LONGER * self._config.longest_s)
        if refusal is not None:
            left_out[clip] = refusal[0]
            return None
        return self._hear(waveform)
