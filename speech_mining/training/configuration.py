"""What decides how a neural student is trained: one frozen record, written into the student's file and its folder.

What belongs here is the choices and their limits. What they do is in the modules named for them: `schedule`,
`rebalancing`, `masking`, `losses`, `distillation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from speech_mining.errors import EncoderError
from speech_mining.limits import PHASES, are_phases, is_number, is_positive, is_whole, unknown_names

Architecture: TypeAlias = Literal["wav2vec2", "w2v-bert", "convolutions"]
Pooling: TypeAlias = Literal["bos", "mean", "max", "attention"]
Activation: TypeAlias = Literal["tanh", "none"]
Loss: TypeAlias = Literal["cosine", "l1", "l2", "contrastive"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "architecture": get_args(Architecture),
    "pooling": get_args(Pooling),
    "activation": get_args(Activation),
    "loss": get_args(Loss),
    "precision": get_args(Precision),
}
_AT_LEAST_ONE = ("updates", "accumulation", "validate_every", "checkpoint_every", "threads")
_MASK_LENGTHS = ("mask_time_length", "mask_feature_length")
_SHARES = ("mask_time_probability", "mask_feature_probability")
_POSITIVE = ("peak_rate", "temperature", "max_batch_seconds", "gradient_norm", "longest_s")


@dataclass(frozen=True)
class StudentConfig:
    """How a student is made and trained; the defaults are SAMU-XLSR's (Khurana et al. 2022, table II).

    Args:
        architecture: `wav2vec2` (XLS-R too) hears the waveform, `w2v-bert` Kaldi's filter bank, `convolutions` log-mel.
        start: folder of `transformers` weights in safetensors; empty starts at random.
        size: overrides of the architecture's configuration, only where it starts at random.
        pooling: of the body's states into one vector; `bos` is the state of a vector of ones put before the others.
        activation: after the projection.
        loss: between the student's vector and the teacher's.
        temperature: of the contrastive loss.
        seed: of the weights' start, dropout, masks and order.
        updates: steps of the optimiser.
        peak_rate: Adam's learning rate at its highest.
        phases: shares of the updates in which the rate rises, stays and falls; they sum to 1.
        projection_only_updates: updates at the start in which the body stands still; 0 for a random start.
        alpha: of the re-balancing of languages: 1 leaves them as they are, 0 makes them equal.
        max_batch_seconds: audio in a micro-batch, padding included.
        accumulation: micro-batches in an update, in each process.
        precision: `auto` is fp32 on the CPU, and on a GPU bf16 where it knows it, else fp16.
        mask_time_probability: share of the frames that spans of masks would cover if none overlapped.
        mask_time_length: frames of a span.
        mask_feature_probability: the same for the features of a frame, one choice a clip.
        mask_feature_length: features of a span.
        freeze_feature_extractor: whether wav2vec 2.0's convolutions stay as they started; the others have none.
        gradient_norm: longer gradients are cut to this length.
        validate_every: updates between two examinations on the dev clips.
        checkpoint_every: updates between two checkpoints.
        longest_s: longer clips are left out, and the trained student takes no longer span.
        shortest_s: the same for shorter ones.
        threads: torch's, on the CPU; the weights' last digits depend on it.
    """

    architecture: Architecture = "wav2vec2"
    start: str = ""
    size: Mapping[str, Any] = field(default_factory=dict)
    pooling: Pooling = "attention"
    activation: Activation = "tanh"
    loss: Loss = "cosine"
    temperature: float = 0.05
    seed: int = 0
    updates: int = 200_000
    peak_rate: float = 1e-4
    phases: tuple[float, float, float] = (0.1, 0.4, 0.5)
    projection_only_updates: int = 10_000
    alpha: float = 0.05
    max_batch_seconds: float = 240.0
    accumulation: int = 1
    precision: Precision = "auto"
    mask_time_probability: float = 0.05
    mask_time_length: int = 10
    mask_feature_probability: float = 0.05
    mask_feature_length: int = 10
    freeze_feature_extractor: bool = True
    gradient_norm: float = 5.0
    validate_every: int = 1_000
    checkpoint_every: int = 1_000
    longest_s: float = 20.0
    shortest_s: float = 0.3
    threads: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", MappingProxyType(dict(self.size)))
        object.__setattr__(self, "phases", tuple(self.phases))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(known)}")
        self._check_numbers()
        if self.start and self.size:
            raise EncoderError(
                f"A size {dict(self.size)} for weights that exist, {self.start}.",
                expected="one of the two",
                cause="weights have the size that their config.json says",
                fix="leave `size` out, or start at random",
            )

    def _check_numbers(self) -> None:
        for name in (*_AT_LEAST_ONE, *_MASK_LENGTHS):
            if not is_whole(getattr(self, name), 1):
                raise _wrong(name, getattr(self, name), "a whole number, at least 1")
        for name in ("seed", "projection_only_updates"):
            if not is_whole(getattr(self, name), 0):
                raise _wrong(name, getattr(self, name), "a whole number, at least 0")
        for name in _POSITIVE:
            if not is_positive(getattr(self, name)):
                raise _wrong(name, getattr(self, name), "a positive number")
        for name in (*_SHARES, "alpha"):
            if not is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                raise _wrong(name, getattr(self, name), "a number from 0 to 1")
        if not are_phases(self.phases):
            raise _wrong("phases", self.phases, PHASES)
        if not is_number(self.shortest_s) or not 0 <= self.shortest_s < self.longest_s:
            raise _wrong("shortest_s", self.shortest_s, f"a number from 0 to below longest_s, {self.longest_s}")

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds of it."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**told, "size": dict(self.size), "phases": list(self.phases)}

    @classmethod
    def of_dict(cls, told: Mapping[str, Any]) -> StudentConfig:
        """Read what JSON or TOML holds; what is not named has its default.

        Raises:
            EncoderError: a name that is not known, or a value out of its limits.
        """
        unknown, known = unknown_names(cls, told)
        if unknown:
            raise EncoderError(
                f"The training's configuration names {unknown}.",
                expected=f"names of {known}",
                cause="a misspelt name, or a configuration of another version",
            )
        if not isinstance(told.get("size", {}), Mapping):
            raise _wrong("size", told["size"], "a table of the architecture's own names")
        if not isinstance(told.get("phases", ()), (list, tuple)):
            raise _wrong("phases", told["phases"], PHASES)
        return cls(**told)


def _wrong(name: str, found: Any, expected: str) -> EncoderError:
    return EncoderError(f"The training's `{name}` is {found!r}.", expected=expected)
