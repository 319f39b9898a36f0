"""The networks that are trained: a translator of speech, and two encoders that meet. Imports torch.

Speech2Text of `transformers` is fairseq's S2T transformer (Wang et al. 2020, "fairseq S2T: fast speech-to-text modeling
with fairseq"): convolutions that halve the frames, a transformer encoder, and for text a transformer decoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration
from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextEncoder

from speech_mining.downstream.configuration import LearningConfig
from speech_mining.downstream.vocabulary import FILE, Vocabulary
from speech_mining.errors import EncoderError

MOST_INPUTS = 6000
"""Positions there are: 60 s of frames of 10 ms."""


def new_translator(config: LearningConfig, width: int, vocabulary: Vocabulary) -> Speech2TextForConditionalGeneration:
    """A translator as the configuration says: random, or begun from a folder's weights.

    Args:
        config: its size, or its start.
        width: numbers of an input.
        vocabulary: of the text.

    Raises:
        EncoderError: the start is not there, or its inputs have another width.
    """
    if not config.start:
        return Speech2TextForConditionalGeneration(_form(config, width, vocabulary))
    given = _translator_in(Path(config.start))
    _require_width(given.config.input_feat_per_channel * given.config.input_channels, width, config)
    if (Path(config.start) / FILE).is_file():
        return given
    form = Speech2TextConfig.from_dict({**given.config.to_dict(), **_tokens(vocabulary, config)})
    begun = Speech2TextForConditionalGeneration(form)
    begun.model.encoder.load_state_dict(given.model.encoder.state_dict())
    return begun


class TwoEncoders(nn.Module):
    """An encoder for each side, whose pooled states meet in one space."""

    def __init__(self, config: LearningConfig, width: int) -> None:
        super().__init__()
        form = _form(config, width, None)
        self.source, self.target = _PooledEncoder(form), _PooledEncoder(form)
        if config.start:
            begun = _translator_in(Path(config.start)).model.encoder
            _require_width(begun.config.input_feat_per_channel * begun.config.input_channels, width, config)
            self.source, self.target = _PooledEncoder(begun.config), _PooledEncoder(begun.config)
            for side in (self.source, self.target):
                side.encoder.load_state_dict(begun.state_dict())

    def forward(self, side: str, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Unit vectors of one side: (clips, width)."""
        vectors: Tensor = (self.source if side == "source" else self.target)(inputs, lengths)
        return vectors


class _PooledEncoder(nn.Module):
    def __init__(self, form: Speech2TextConfig) -> None:
        super().__init__()
        self.encoder = Speech2TextEncoder(form)
        self.project = nn.Linear(form.d_model, form.d_model)
        self._halvings = form.num_conv_layers

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        states = self.encoder(inputs, attention_mask=mask_of(lengths, inputs.shape[1])).last_hidden_state
        for _ in range(self._halvings):
            lengths = (lengths - 1) // 2 + 1
        there = mask_of(lengths, states.shape[1])[:, :, None].to(states.dtype)
        return nn.functional.normalize(self.project((states * there).sum(1) / there.sum(1)), dim=1)


def mask_of(lengths: Tensor, longest: int) -> Tensor:
    """int64 (clips, longest): 1 where there is something."""
    return (torch.arange(longest, device=lengths.device)[None] < lengths[:, None]).long()


def _form(config: LearningConfig, width: int, vocabulary: Vocabulary | None) -> Speech2TextConfig:
    tokens = _tokens(vocabulary, config) if vocabulary else {"vocab_size": 8}
    form: Any = Speech2TextConfig
    made: Speech2TextConfig = form(
        d_model=config.width,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        encoder_ffn_dim=4 * config.width,
        decoder_ffn_dim=4 * config.width,
        num_conv_layers=config.convolutions,
        conv_kernel_sizes=[5] * config.convolutions,
        conv_channels=config.width,
        input_feat_per_channel=width,
        dropout=config.dropout,
        attention_dropout=config.dropout,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        max_source_positions=MOST_INPUTS,
        **tokens,
    )
    return made


def _tokens(vocabulary: Vocabulary, config: LearningConfig) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad,
        "bos_token_id": vocabulary.begin,
        "eos_token_id": vocabulary.end,
        "decoder_start_token_id": vocabulary.end,  # as fairseq begins
        "forced_bos_token_id": None,
        "max_target_positions": config.longest_tokens + 8,
    }


def _translator_in(folder: Path) -> Speech2TextForConditionalGeneration:
    try:
        found: Speech2TextForConditionalGeneration = Speech2TextForConditionalGeneration.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"No model can be started from {folder}: {error}.",
            expected="a folder with config.json (model_type speech_to_text) and model.safetensors",
            fix="save one with save_pretrained, or leave `start` empty",
        ) from error
    return found


def _require_width(found: int, wanted: int, config: LearningConfig) -> None:
    if found != wanted:
        raise EncoderError(
            f"The model in {config.start} reads {found} numbers an input, and the features have {wanted}.",
            cause="the folder has no preprocessor_config.json, so that our log-mel features are taken",
            fix="put its preprocessor_config.json beside it, or choose stacked_frames so that 40 times it fits",
        )
