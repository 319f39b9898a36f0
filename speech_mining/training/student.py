"""Training a word detector, the network of a student, on speech whose words and times are known.

The network, its loss and its training loop belong here. Where the speech comes from does not (the demo's is made by
`demo.recipe`), nor does embedding with the result (`speech_mining.encoders.student`).

The network is one stack of convolutions a language, as SONAR has one speech encoder a language. It hears log-mel
frames and says, 25 times a second, which meaning is being spoken and how much of it goes by in this frame: summed over
a word, the frames of "king" say `king` once. That sum is the only thing that is learned, so a span's vector is a sum
over its frames, and a thousand overlapping spans of a recording cost one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.features import BANDS, HOP, log_mel
from speech_mining.encoders.student import DILATIONS, KERNEL, REACH, STEM_KERNELS, STRIDE, hidden_frames
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent

if TYPE_CHECKING:
    import torch

_IGNORED = -1


@dataclass(frozen=True)
class Heard:
    """A stretch of speech and what it means: the indices of its meanings, none for a word that carries none."""

    start_sample: int
    end_sample: int
    meanings: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TrainingRecording:
    """Speech at 16 kHz and what is heard in it, in order and without overlap; the rest is silence."""

    waveform: npt.NDArray[np.float32]
    heard: tuple[Heard, ...]


@dataclass(frozen=True)
class TrainingConfig:
    """How a word detector is trained.

    Args:
        seed: of the weights' start and of the order of the crops.
        width: channels of the network.
        epochs: passes over the speech.
        crops: crops in a batch.
        crop_frames: length of a crop in frames of 40 ms.
        peak_rate: AdamW's learning rate at its highest, after a tenth of the steps; it falls to 0 as a cosine.
        weight_decay: AdamW's.
        frame_share: weight of the loss over single frames, beside the loss over words.
        shift_db: each crop is made louder or softer by up to this much.
    """

    seed: int = 0
    width: int = 192
    epochs: int = 4
    crops: int = 16
    crop_frames: int = 200
    peak_rate: float = 4e-3
    weight_decay: float = 0.02
    frame_share: float = 0.3
    shift_db: float = 4.0


class Framed(NamedTuple):
    """All the recordings of a language, laid end to end at 100 frames a second, silence between them.

    Args:
        features: float16 (frames, 40).
        units: int64 (frames,), the stretch each frame belongs to; stretches of silence have their own.
        meanings: int64 (entries,), the meanings of all stretches.
        owner: int64 (entries,), the stretch each entry of `meanings` belongs to, rising.
        unit_count: how many stretches there are.
    """

    features: npt.NDArray[np.float16]
    units: npt.NDArray[np.int64]
    meanings: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]
    unit_count: int


def frame_recordings(recordings: Iterable[TrainingRecording]) -> Framed:
    """Compute features and say for each frame what is heard in it.

    Raises:
        EncoderError: there is no recording.
    """
    features: list[npt.NDArray[np.float16]] = []
    units: list[npt.NDArray[np.int64]] = []
    stretches: list[tuple[int, ...]] = []
    for recording in recordings:
        frames = len(recording.waveform) // HOP + 2 * REACH
        features.append(log_mel(recording.waveform, -REACH, frames).astype(np.float16))
        labels, told = _label(recording, frames)
        units.append(labels + len(stretches))
        stretches.extend(told)
    if not features:
        raise EncoderError("There is no speech to train on.", expected="at least one recording")
    owner = np.repeat(np.arange(len(stretches)), [len(told) for told in stretches])
    meanings = np.array([meaning for told in stretches for meaning in told], np.int64)
    return Framed(np.concatenate(features), np.concatenate(units), meanings, owner, len(stretches))


def _label(recording: TrainingRecording, frames: int) -> tuple[npt.NDArray[np.int64], list[tuple[int, ...]]]:
    """Number the stretches of a recording; even numbers are silences, odd ones are what was heard."""
    centres = (np.arange(frames) - REACH) * HOP
    edges = np.array([edge for heard in recording.heard for edge in (heard.start_sample, heard.end_sample)])
    labels = np.searchsorted(edges, centres, side="right").astype(np.int64)
    told: list[tuple[int, ...]] = [()]
    for heard in recording.heard:
        told += [heard.meanings, ()]
    return labels, told


class Batch(NamedTuple):
    """Crops and what is heard in them.

    Args:
        features: float32 (crops, 40, frames in).
        units: int64 (crops, frames out), numbered from 0 within the batch; -1 where a stretch is cut by the crop.
        targets: float32 (units, meanings), how often each meaning is heard in each stretch.
    """

    features: torch.Tensor
    units: torch.Tensor
    targets: torch.Tensor


def _batches(framed: Framed, meanings: int, config: TrainingConfig, steps: int) -> Iterator[Batch]:
    chance = np.random.Generator(np.random.PCG64(config.seed + 1))
    length = config.crop_frames * STRIDE
    places = max(1, len(framed.features) - length - 2 * REACH)
    for _ in range(steps):
        # One crop in each equal part of the speech: a batch sees all of it, and an epoch misses little.
        parts = (np.arange(config.crops) + chance.random(config.crops)) / config.crops
        starts = (parts * places).astype(np.int64)
        shifts = chance.uniform(-config.shift_db, config.shift_db, config.crops)
        yield _batch(framed, starts, shifts, meanings, config)


def _batch(
    framed: Framed,
    starts: npt.NDArray[np.int64],
    shifts_db: npt.NDArray[np.float64],
    meanings: int,
    config: TrainingConfig,
) -> Batch:
    import torch

    from speech_mining.encoders.features import louder

    length = config.crop_frames * STRIDE
    heard = np.stack([framed.features[start : start + length + 2 * REACH] for start in starts]).astype(np.float32)
    heard = louder(heard, shifts_db[:, None, None])
    inside = np.minimum(starts[:, None] + REACH + STRIDE * np.arange(config.crop_frames), len(framed.units) - 1)
    units = framed.units[inside]
    # The first and the last stretch of a crop are cut somewhere: they teach nothing.
    units = np.where((units == units[:, :1]) | (units == units[:, -1:]), _IGNORED, units)
    present, numbered = np.unique(units, return_inverse=True)
    cut = int(present[0] == _IGNORED)
    return Batch(
        torch.from_numpy(np.ascontiguousarray(heard.transpose(0, 2, 1))),
        torch.from_numpy(numbered.reshape(units.shape) - cut),
        torch.from_numpy(_counts(framed, present[cut:], meanings)),
    )


def _counts(framed: Framed, units: npt.NDArray[np.int64], meanings: int) -> npt.NDArray[np.float32]:
    counts = np.zeros((len(units), meanings), np.float32)
    first = np.searchsorted(framed.owner, units, side="left")
    last = np.searchsorted(framed.owner, units, side="right")
    for row, (start, end) in enumerate(zip(first, last, strict=True)):
        np.add.at(counts[row], framed.meanings[start:end], 1.0)
    return counts


def word_detector(width: int, meanings: int) -> torch.nn.Module:
    """A fresh network: log-mel (batch, 40, frames) to (batch, meanings + 1, frames / 4), no padding anywhere.

    Two convolutions of stride 2, then residual blocks of separable convolutions with batch norm, then a linear layer.
    The last output channel is the gate's logit, the others are the meanings'.
    """
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.across = nn.Conv1d(width, width, KERNEL, dilation=dilation, groups=width, bias=False)
            self.along = nn.Conv1d(width, width, 1, bias=False)
            self.norm = nn.BatchNorm1d(width)
            self.cut = (KERNEL - 1) * dilation // 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = x[:, :, self.cut : x.shape[2] - self.cut]
            return kept + torch.relu(self.norm(self.along(self.across(x))))

    stem: list[nn.Module] = []
    for channels, kernel in zip((BANDS, width), STEM_KERNELS, strict=True):
        stem += [nn.Conv1d(channels, width, kernel, stride=2, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    blocks = [Block(dilation) for dilation in DILATIONS]
    return nn.Sequential(*stem, *blocks, nn.Conv1d(width, meanings + 1, 1))


def detector_loss(outputs: torch.Tensor, batch: Batch, frame_share: float) -> torch.Tensor:
    """How far what the frames of each stretch say together is from what was heard in it.

    With p(t) the softmax over meanings and g(t) = softplus of the gate, a stretch says P = sum g(t) p(t). The loss is
    the cross-entropy of P / |P| with the stretch's meanings, plus (|P| - how many they are)^2, plus `frame_share` times
    the cross-entropy of each frame of a stretch that means one thing.

    Args:
        outputs: float32 (crops, meanings + 1, frames).
        batch: what was heard.
        frame_share: weight of the last term.

    Returns:
        A scalar, the mean over stretches that mean something plus the mean over all.
    """
    import torch
    from torch.nn import functional

    known = batch.units >= 0
    owner = batch.units[known]
    spoken = outputs.transpose(1, 2)[known]
    logs = functional.log_softmax(spoken[:, :-1], dim=1)
    amounts = functional.softplus(spoken[:, -1])
    said = torch.zeros_like(batch.targets).index_add_(0, owner, logs.exp() * amounts[:, None])
    total, wanted = said.sum(1), batch.targets.sum(1)
    meant = wanted > 0
    shares = said[meant] / (total[meant, None] + 1e-6)
    words = -(batch.targets[meant] * torch.log(shares + 1e-6)).sum(1) / wanted[meant]
    single = (wanted == 1)[owner]
    frames = functional.nll_loss(logs[single], batch.targets.argmax(1)[owner[single]])
    return words.mean() + ((total - wanted) ** 2).mean() + frame_share * frames


def _learning_rate(step: int, steps: int, peak: float) -> float:
    warm = max(1, steps // 10)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train_detector(
    framed: Framed, meanings: int, config: TrainingConfig, *, progress: Progress = silent
) -> tuple[dict[str, npt.NDArray[np.float32]], list[float]]:
    """Train one language's detector.

    The same speech, configuration and number of torch threads give the same weights on the same machine and torch
    release; elsewhere sums may round differently and the weights differ in their last digits, hence slightly.

    Returns:
        The network's arrays with batch norm folded in, by the names `speech_mining.encoders.student` reads; the loss
        at each step.
    """
    import torch

    torch.manual_seed(config.seed)
    network = word_detector(config.width, meanings)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.peak_rate, weight_decay=config.weight_decay)
    covered = config.crops * config.crop_frames * STRIDE
    steps = max(1, config.epochs * len(framed.features) // covered)
    losses = []
    for step, batch in enumerate(_batches(framed, meanings, config, steps)):
        optimiser.param_groups[0]["lr"] = _learning_rate(step, steps, config.peak_rate)
        loss = detector_loss(network(batch.features), batch, config.frame_share)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        progress(step + 1, steps)
    return fold(network.eval()), losses


def fold(network: torch.nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """The network's arrays with each batch norm folded into the convolution before it.

    With y = gamma (x - mean) / sqrt(var + eps) + beta, weights are scaled by gamma / sqrt(var + eps), and the bias is
    beta - mean times that scale.
    """
    state = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    stems, blocks = len(STEM_KERNELS), len(DILATIONS)
    folded: dict[str, npt.NDArray[np.float64]] = {}
    for stem in range(stems):
        scale, bias = _scale_and_bias(state, f"{3 * stem + 1}")
        folded[f"stem{stem}.weight"] = state[f"{3 * stem}.weight"] * scale[:, None, None]
        folded[f"stem{stem}.bias"] = bias
    for block in range(blocks):
        name = f"{3 * stems + block}"
        scale, bias = _scale_and_bias(state, f"{name}.norm")
        folded[f"block{block}.across"] = state[f"{name}.across.weight"]
        folded[f"block{block}.along"] = state[f"{name}.along.weight"] * scale[:, None, None]
        folded[f"block{block}.bias"] = bias
    last = f"{3 * stems + blocks}"
    folded["head.weight"], folded["head.bias"] = state[f"{last}.weight"], state[f"{last}.bias"]
    return {name: value.astype(np.float32) for name, value in folded.items()}


def _scale_and_bias(
    state: Mapping[str, npt.NDArray[np.float64]], norm: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
    return scale, state[f"{norm}.bias"] - scale * state[f"{norm}.running_mean"]


def unknown_room(
    network: Mapping[str, npt.NDArray[np.float32]], framed: Framed, unknown: int, room: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Where speech of no known meaning goes: what the network's last layer hears in it, centred and decorrelated.

    Without centring every strange sentence would point the same way. Components are scaled by the fourth root of their
    variance: whitened fully, coding noise weighs as much as words.

    Args:
        network: folded arrays.
        framed: the speech the network was trained on.
        unknown: the meaning that stands for "unknown word".
        room: dimensions to use, at most the network's width.

    Returns:
        `unknown.mean`, float32 (width,), and `unknown.projection`, float32 (width, room).
    """
    strange = np.zeros(framed.unit_count, bool)
    strange[framed.owner[framed.meanings == unknown]] = True
    hidden = hidden_frames(network, framed.features)
    heard = hidden[strange[framed.units[REACH : REACH + STRIDE * len(hidden) : STRIDE]]].astype(np.float64)
    mean = heard.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov(heard - mean, rowvar=False))
    largest = np.argsort(-spread, kind="stable")[:room]
    scale = np.maximum(spread[largest], spread.max() * 1e-6) ** -0.25
    projection = np.zeros((len(mean), room))
    projection[:, : len(largest)] = axes[:, largest] * scale
    return {"unknown.mean": mean.astype(np.float32), "unknown.projection": projection.astype(np.float32)}
