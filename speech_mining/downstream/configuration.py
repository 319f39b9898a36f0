"""How a downstream model is made and trained: one frozen record, part of every run's identity.

What belongs here is the choices and their limits; what they do is in the modules of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from speech_mining.errors import SettingsError
from speech_mining.limits import PHASES, are_phases, is_number, is_positive, is_whole, unknown_names

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]

_WHOLE = (
    "width",
    "encoder_layers",
    "decoder_layers",
    "heads",
    "convolutions",
    "stacked_frames",
    "vocabulary",
    "updates",
    "checkpoint_every",
    "mask_time_length",
    "mask_feature_length",
    "beams",
    "longest_tokens",
    "threads",
)
_POSITIVE = ("peak_rate", "batch_seconds", "gradient_norm", "longest_s", "temperature")
_SHARES = ("dropout", "label_smoothing", "mask_time_probability", "mask_feature_probability")


@dataclass(frozen=True)
class LearningConfig:
    """How a model learns; the defaults are for a processor and a few thousand short sentences.

    fairseq's `s2t_transformer_s` is width 256, 12 and 6 layers, 4 heads, 2 convolutions, 1 frame, a vocabulary of 8000
    (Wang et al. 2020, "fairseq S2T").

    Args:
        start: folder of a `transformers` Speech2Text model: its encoder is taken, and its decoder and vocabulary where
            it has a `tokenizer.json`; empty starts at random.
        frames: a student's weights, or `miniature` for those that ship: what its network hears in each 40 ms takes the
            place of log-mel, and stays as it is; empty: log-mel.
        width: of the model.
        encoder_layers: transformer layers over the speech.
        decoder_layers: of the text.
        heads: of attention; they divide the width.
        convolutions: before the encoder, each halves the frames.
        stacked_frames: frames (of log-mel 10 ms each) that are one input.
        vocabulary: most pieces of words, learned from the run's own training text.
        dropout: of states and attention.
        label_smoothing: share of the target spread over the vocabulary.
        updates: steps of the optimiser: the same for every run.
        peak_rate: Adam's highest rate.
        phases: shares of the updates in which the rate rises, stays and falls.
        batch_seconds: source audio in an update, padding included.
        gradient_norm: longer gradients are cut to this length.
        mask_time_probability: SpecAugment: share of the inputs that masks would cover if none overlapped.
        mask_time_length: inputs of a mask.
        mask_feature_probability: the same of the features.
        mask_feature_length: features of a mask.
        beams: of the search for a translation; 1 is greedy.
        longest_tokens: of a translation.
        longest_s: longer examples are left out of training.
        temperature: of the contrastive loss (retrieval).
        checkpoint_every: updates between two checkpoints.
        precision: `auto` is bf16 on a GPU that knows it, else fp32.
        threads: torch's on the CPU; the last digits depend on it.
    """

    start: str = ""
    frames: str = ""
    width: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
    convolutions: int = 1
    stacked_frames: int = 4
    vocabulary: int = 600
    dropout: float = 0.1
    label_smoothing: float = 0.1
    updates: int = 800
    peak_rate: float = 2e-3
    phases: tuple[float, float, float] = (0.1, 0.4, 0.5)
    batch_seconds: float = 80.0
    gradient_norm: float = 5.0
    mask_time_probability: float = 0.0
    mask_time_length: int = 5
    mask_feature_probability: float = 0.0
    mask_feature_length: int = 10
    beams: int = 1
    longest_tokens: int = 100
    longest_s: float = 20.0
    temperature: float = 0.07
    checkpoint_every: int = 200
    precision: Precision = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        for name in _WHOLE:
            if not is_whole(getattr(self, name), 1):
                raise _wrong(name, getattr(self, name), "a whole number, at least 1")
        for name in _POSITIVE:
            if not is_positive(getattr(self, name)):
                raise _wrong(name, getattr(self, name), "a positive number")
        for name in _SHARES:
            if not is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise _wrong(name, getattr(self, name), "a number from 0 to below 1")
        if not are_phases(self.phases):
            raise _wrong("phases", self.phases, PHASES)
        if self.width % self.heads:
            raise _wrong("heads", self.heads, f"a divisor of the width, {self.width}")
        if self.precision not in get_args(Precision):
            raise _wrong("precision", self.precision, f"one of {', '.join(get_args(Precision))}")

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return {**asdict(self), "phases": list(self.phases)}

    @classmethod
    def of_dict(cls, told: Mapping[str, Any]) -> LearningConfig:
        """Read what JSON or TOML holds; what is not named has its default.

        Raises:
            SettingsError: a name that is not known, or a value out of its limits.
        """
        unknown, known = unknown_names(cls, told)
        if unknown:
            raise SettingsError(
                f"The downstream training names {unknown}.",
                expected=f"names of {known}",
                cause="a misspelt name, or settings of another version",
            )
        if not isinstance(told.get("phases", ()), (list, tuple)):
            raise _wrong("phases", told["phases"], PHASES)
        return cls(**told)


def _wrong(name: str, found: Any, expected: str) -> SettingsError:
    return SettingsError(f"The downstream training's `{name}` is {found!r}.", expected=expected)
