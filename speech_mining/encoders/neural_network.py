"""The networks of neural students: a body that hears frames, a pooling into one vector, a projection.

What belongs here is the networks and how they start; it imports torch, so import it inside functions. What they are
given is `speech_mining.encoders.neural_inputs`, how they are trained `speech_mining.training`.

A body promises that a clip's states do not depend on the padding beside it: its frames are counted by
`frame_counts`, and what lies beyond is zero wherever a convolution could hear it and masked wherever attention could.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from speech_mining.encoders.features import BANDS
from speech_mining.encoders.student import DILATIONS, KERNEL, STEM_KERNELS
from speech_mining.errors import EncoderError

CONVOLUTIONS: Mapping[str, Any] = {"width": 192, "layers": 0, "heads": 4, "dropout": 0.1}
"""Sizes of the `convolutions` body: its channels, and layers of a transformer above them."""

_MODEL_TYPES = {"wav2vec2": "wav2vec2", "w2v-bert": "wav2vec2-bert"}
# Whole layers dropped at random, and masks of the library's own drawing, would not be the same after a kill.
_OURS = {"layerdrop": 0.0, "apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}


@dataclass(frozen=True)
class NetworkShape:
    """What must be known to build a network before its weights are loaded; it goes into the student's file.

    Args:
        architecture: as in `speech_mining.training.configuration.StudentConfig`.
        body: the configuration of the body: `transformers`' own, or sizes as in `CONVOLUTIONS`.
        pooling: `bos`, `mean`, `max` or `attention`.
        activation: `tanh` or `none`.
        dimension: length of a vector.
    """

    architecture: str
    body: Mapping[str, Any]
    pooling: str
    activation: str
    dimension: int


@dataclass(frozen=True, eq=False)
class Masks:
    """What is hidden from the context network: bool (n, frames) in time, bool (n, width) of every frame's features."""

    time: Tensor
    features: Tensor


class Body(Protocol):
    """What hears frames; also an `nn.Module`."""

    width: int
    mask_vector: nn.Parameter

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """int64 (n,): frames of inputs of these lengths."""

    def frames(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(n, length, channels) -> (n, frames, width): what each frame sounds like, by itself."""

    def context(self, frames: Tensor, here: Tensor) -> Tensor:
        """(n, frames, width) -> the same shape; `here`, bool (n, frames), says which frames are no padding."""


class StudentNetwork(nn.Module):
    """Body, pooling, projection.

    Args:
        body: what hears frames.
        shape: the rest.
    """

    def __init__(self, body: Body, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.body = cast(Any, body)
        self.attention = nn.Linear(body.width, 1, bias=False) if shape.pooling == "attention" else None
        self.projection = nn.Linear(body.width, shape.dimension)

    def forward(self, inputs: Tensor, lengths: Tensor, masks: Masks | None = None, fixed: bool = False) -> Tensor:
        """One vector a clip, of any length.

        Args:
            inputs: (n, length, channels), as `neural_inputs.pad` gives them.
            lengths: int64 (n,).
            masks: what is hidden, in training.
            fixed: the body stands still: no gradient goes into it.

        Returns:
            (n, dimension), float32 outside of mixed precision.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not fixed):
            states, here = self.states(inputs, lengths, masks)
        weights = self.attention(states)[..., 0] if self.attention is not None else None
        projected: Tensor = self.projection(pool(states, here, self.shape.pooling, weights))
        return torch.tanh(projected) if self.shape.activation == "tanh" else projected

    def states(self, inputs: Tensor, lengths: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        """The body's states (n, frames, width) and which of them are no padding; the state of BOS first, if there."""
        frames, counts = self.body.frames(inputs, lengths), self.body.frame_counts(lengths)
        if masks is not None:
            frames = torch.where(masks.time[..., None], self.body.mask_vector.to(frames.dtype), frames)
            frames = frames.masked_fill(masks.features[:, None, :], 0.0)
        if self.shape.pooling == "bos":
            frames, counts = torch.cat([torch.ones_like(frames[:, :1]), frames], dim=1), counts + 1
        here = torch.arange(frames.shape[1], device=counts.device)[None] < counts[:, None]
        return self.body.context(frames, here), here

    def freeze_feature_extractor(self) -> None:
        """Let wav2vec 2.0's convolutions stay as they started; the other bodies have none."""
        extractor = getattr(getattr(self.body, "model", None), "feature_extractor", None)
        if extractor is not None:
            extractor._freeze_parameters()


def pool(states: Tensor, here: Tensor, pooling: str, weights: Tensor | None = None) -> Tensor:
    """One vector a clip from its states.

    Args:
        states: (n, frames, width).
        here: bool (n, frames), no row of False only.
        pooling: `bos` takes the first state (Duquenne et al. 2021), `mean` and `max` go over frames, `attention` is
            sum_t softmax(C w)_t c_t (SAMU-XLSR, eq. 2).
        weights: (n, frames), C w, for `attention`.

    Returns:
        (n, width).
    """
    if pooling == "bos":
        return states[:, 0]
    if pooling == "max":
        return states.masked_fill(~here[..., None], float("-inf")).amax(dim=1)
    if pooling == "mean":
        shares = here.to(states.dtype) / here.sum(1, keepdim=True)
    elif weights is not None:
        shares = torch.softmax(weights.float().masked_fill(~here, float("-inf")), dim=1).to(states.dtype)
    else:
        raise EncoderError("Attention pooling without weights.", expected="(n, frames)")
    return (shares[..., None] * states).sum(dim=1)


# Bodies


class Convolutions(nn.Module):
    """The demo's small student as a body: separable convolutions over log-mel, 25 frames a second, then a transformer.

    As `speech_mining.training.student.word_detector`, with a layer norm where that has a batch norm, whose statistics
    padding would spoil. With `layers` a transformer without positions hears the frames: what the teacher's vector says
    of a clip's order, the convolutions must hear.
    """

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.width, layers, heads, dropout = (sizes[name] for name in CONVOLUTIONS)
        stems = list(zip((BANDS, self.width), STEM_KERNELS, strict=True))
        self.stem = nn.ModuleList(_Stem(channels, self.width, kernel) for channels, kernel in stems)
        self.blocks = nn.ModuleList(_Separable(self.width, dilation) for dilation in DILATIONS)
        self.layers = nn.ModuleList(_transformer_layer(self.width, heads, dropout) for _ in range(layers))
        self.mask_vector = nn.Parameter(torch.empty(self.width).uniform_())

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Two strides of 2, a frame begun is a frame."""
        for _ in self.stem:
            lengths = (lengths + 1) // 2
        return lengths

    def frames(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Convolutions; before each one what is padding is made zero, as if the clip ended there."""
        frames = inputs
        for stem in self.stem:
            frames = stem(frames * _inside(frames, lengths))
            lengths = (lengths + 1) // 2
        inside = _inside(frames, lengths)
        for block in self.blocks:
            frames = block(frames * inside)
        return frames

    def context(self, frames: Tensor, here: Tensor) -> Tensor:
        """The transformer, if there is one."""
        for layer in self.layers:
            frames = layer(frames, src_key_padding_mask=~here)
        return frames


class _Stem(nn.Module):
    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(channels, width, kernel, stride=2, padding=kernel // 2, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> Tensor:
        return functional.relu(self.norm(self.along(frames.transpose(1, 2)).transpose(1, 2)))


class _Separable(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        reach = (KERNEL - 1) * dilation // 2
        self.across = nn.Conv1d(width, width, KERNEL, dilation=dilation, groups=width, padding=reach, bias=False)
        self.along = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> Tensor:
        heard = self.across(frames.transpose(1, 2)).transpose(1, 2)
        return frames + functional.relu(self.norm(self.along(heard)))


def _transformer_layer(width: int, heads: int, dropout: float) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
    )


def _inside(frames: Tensor, lengths: Tensor) -> Tensor:
    return (torch.arange(frames.shape[1], device=lengths.device)[None] < lengths[:, None]).to(frames.dtype)[..., None]


class Transformers(nn.Module):
    """wav2vec 2.0, XLS-R or w2v-BERT of `transformers`, asked frame by frame so that masks and BOS are ours."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.width = int(model.config.hidden_size)
        mask = getattr(model, "masked_spec_embed", None)
        start = torch.empty(self.width).uniform_() if mask is None else mask.detach().clone()
        self.mask_vector = nn.Parameter(start)
        if mask is not None:
            del model.masked_spec_embed

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Of wav2vec 2.0: frames whose whole field of hearing lies in the clip; w2v-BERT has one an input."""
        if not hasattr(self.model, "feature_extractor"):
            return lengths
        counts: Tensor = self.model._get_feat_extract_output_lengths(lengths)
        return counts

    def frames(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """The convolutions' features (wav2vec 2.0) or the filter bank's, projected to the transformer's width."""
        heard = self._convolved(inputs[..., 0], lengths) if hasattr(self.model, "feature_extractor") else inputs
        projected: Tensor = self.model.feature_projection(heard)[0]
        return projected

    def _convolved(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        extract = self.model.feature_extractor
        if self.model.config.feat_extract_norm != "group":
            heard: Tensor = extract(waveforms).transpose(1, 2)
            return heard
        # wav2vec2-base normalises over the whole clip, padding too: each is heard alone, at its own length.
        alone = [extract(one[None, :length])[0].T for one, length in zip(waveforms, lengths.tolist(), strict=True)]
        return nn.utils.rnn.pad_sequence(alone, batch_first=True)

    def context(self, frames: Tensor, here: Tensor) -> Tensor:
        """The transformer, or conformer; it makes what is padding zero before its own convolutions."""
        states: Tensor = self.model.encoder(frames, attention_mask=here).last_hidden_state
        return states


# How a network starts


def build_network(shape: NetworkShape) -> StudentNetwork:
    """A network of random weights.

    Raises:
        EncoderError: a size that the architecture does not know, or that contradicts itself.
    """
    if shape.architecture == "convolutions":
        sizes = _convolution_sizes(shape)
        return StudentNetwork(Convolutions(sizes), NetworkShape(**{**vars(shape), "body": sizes}))
    config = _transformers_config(shape.architecture, shape.body)
    try:
        model = _model_class(shape.architecture)(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise EncoderError(
            f"The size {dict(shape.body)} makes no {shape.architecture} network: {error}.", fix="correct `size`"
        ) from error
    return StudentNetwork(Transformers(model), NetworkShape(**{**vars(shape), "body": _stored(config)}))


def start_network(shape: NetworkShape, folder: Path) -> StudentNetwork:
    """A network whose body starts from a folder of `transformers` weights; pooling and projection are random.

    Raises:
        EncoderError: the folder has no safetensors, or they are of another architecture.
    """
    from speech_mining.encoders.huggingface import _load_transformer

    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        raise EncoderError(
            f"The folder {folder} holds no safetensors" + (f", only {', '.join(pickles)}." if pickles else "."),
            expected="config.json and model.safetensors, as `save_pretrained` writes them",
            cause="an old checkpoint is a pickle, which can run code and is refused" if pickles else "a wrong path",
            fix="load it with transformers on a machine you trust and save it with `model.save_pretrained(FOLDER)`",
        )
    model = _load_transformer(folder)
    wanted = _MODEL_TYPES.get(shape.architecture)
    if model.config.model_type != wanted:
        raise EncoderError(
            f"The weights in {folder} are of a {model.config.model_type}.",
            expected=f"{wanted} for the architecture {shape.architecture}",
            fix="name the other architecture, or other weights",
        )
    for name, value in _OURS.items():
        setattr(model.config, name, value)
    return StudentNetwork(Transformers(model), NetworkShape(**{**vars(shape), "body": _stored(model.config)}))


def _convolution_sizes(shape: NetworkShape) -> dict[str, Any]:
    if unknown := sorted(set(shape.body) - set(CONVOLUTIONS)):
        raise _unknown_sizes(shape.architecture, unknown, sorted(CONVOLUTIONS))
    sizes = {**CONVOLUTIONS, **shape.body}
    if sizes["width"] < 1 or sizes["layers"] < 0 or sizes["heads"] < 1 or sizes["width"] % sizes["heads"]:
        raise EncoderError(f"The size {sizes} makes no network.", expected="a width that the heads divide")
    if shape.pooling == "bos" and not sizes["layers"]:
        raise EncoderError(
            "Pooling `bos` over convolutions alone.",
            expected="attention between frames, which the BOS state gathers them by",
            fix="set size.layers to 1 or more, or pool by attention",
        )
    return sizes


def _transformers_config(architecture: str, sizes: Mapping[str, Any]) -> Any:
    import transformers

    kinds: Any = {"wav2vec2": transformers.Wav2Vec2Config, "w2v-bert": transformers.Wav2Vec2BertConfig}
    known = kinds[architecture]()
    if unknown := sorted(name for name in sizes if not hasattr(known, name)):
        raise _unknown_sizes(architecture, unknown, [])
    return kinds[architecture](**{**sizes, **_OURS})


def _model_class(architecture: str) -> Any:
    import transformers

    return {"wav2vec2": transformers.Wav2Vec2Model, "w2v-bert": transformers.Wav2Vec2BertModel}[architecture]


def _stored(config: Any) -> dict[str, Any]:
    """What of a configuration differs from the library's own, without what names versions and places."""
    told = config.to_diff_dict()
    return {name: told[name] for name in sorted(told) if name not in _PASSING}


_PASSING = ("_name_or_path", "architectures", "dtype", "model_type", "torch_dtype", "transformers_version")


def _unknown_sizes(architecture: str, unknown: list[str], known: list[str]) -> EncoderError:
    return EncoderError(
        f"The `size` of a {architecture} network names {', '.join(unknown)}.",
        expected=f"names of {', '.join(known)}" if known else "names of transformers' own configuration",
        cause="a misspelt name",
    )
