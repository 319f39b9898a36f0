"""Tiny random-weight SONAR encoders, made by SONAR's own factories and loaded again through asset cards.

Their vectors mean nothing; what they prove is the whole real path: card, checkpoint, features, tokenizer, model.
"""

from __future__ import annotations

import copy
import struct
from pathlib import Path
from typing import Any

from speech_mining.encoders.sonar import speech_languages

DIMENSION = 32
TINY_SPEECH_CARD = """
name: {name}
model_family: sonar_speech
model_arch: english
model_config:
  model_dim: 32
  num_decoder_layers: 1
  num_decoder_attn_heads: 4
  ffn_inner_dim: 64
  w2v2_encoder_config:
    model_dim: 32
    num_encoder_layers: 2
    num_encoder_attn_heads: 4
    ffn_inner_dim: 64
checkpoint: {checkpoint}
"""  # plain nested keys: `_set_` fails when nested
TINY_TEXT_CARD = """
name: {name}
model_family: transformer_encoder
model_arch: basic
model_config:
  model_dim: 32
  max_seq_len: 64
  num_encoder_layers: 2
  num_decoder_layers: 2
  num_encoder_attn_heads: 4
  num_decoder_attn_heads: 4
  ffn_inner_dim: 64
  vocab_info: {{size: {v.size}, unk_idx: {v.unk_idx}, bos_idx: {v.bos_idx}, eos_idx: {v.eos_idx}, pad_idx: {v.pad_idx}}}
checkpoint: {name}.pt
tokenizer: tiny.model
tokenizer_family: nllb
tokenizer_config:
  default_lang: eng_Latn
  langs: [eng_Latn, deu_Latn, fra_Latn]
"""


def build_speech(directory: Path, name: str = "tiny_speech", *, seed: int = 0) -> str:
    """Write a tiny speech encoder's checkpoint and card into `directory`; returns the card's name."""
    speech_languages()  # sets fairseq2 up with its libraries in the right order
    from sonar.models.sonar_speech import get_sonar_speech_encoder_hub

    hub = get_sonar_speech_encoder_hub()
    config: Any = copy.deepcopy(hub.get_arch_config("english"))
    wave = config.w2v2_encoder_config
    wave.model_dim = config.model_dim = DIMENSION
    wave.num_encoder_layers, config.num_decoder_layers = 2, 1
    wave.num_encoder_attn_heads = config.num_decoder_attn_heads = 4
    wave.ffn_inner_dim = config.ffn_inner_dim = 64
    _save(hub, config, directory / f"{name}.pt", seed)
    (directory / f"{name}.yaml").write_text(TINY_SPEECH_CARD.format(name=name, checkpoint=f"{name}.pt"))
    return name


def build_text(directory: Path, name: str = "tiny_text", *, seed: int = 0) -> str:
    """Write a tiny text encoder with a small sentencepiece model and its card; returns the card's name."""
    speech_languages()
    from fairseq2.models.nllb import NllbTokenizerConfig, get_nllb_tokenizer_hub
    from sonar.models.sonar_text import get_sonar_text_encoder_hub

    _write_pieces(directory / "tiny.model")
    languages = NllbTokenizerConfig(langs=["eng_Latn", "deu_Latn", "fra_Latn"], default_lang="eng_Latn")
    tokenizer = get_nllb_tokenizer_hub().load_custom_tokenizer(directory / "tiny.model", languages)
    hub = get_sonar_text_encoder_hub()
    config: Any = copy.deepcopy(hub.get_arch_config("basic"))
    config.model_dim, config.max_seq_len, config.ffn_inner_dim = DIMENSION, 64, 64
    config.num_encoder_layers = config.num_decoder_layers = 2
    config.num_encoder_attn_heads = config.num_decoder_attn_heads = 4
    config.vocab_info = tokenizer.vocab_info
    _save(hub, config, directory / f"{name}.pt", seed)
    (directory / f"{name}.yaml").write_text(TINY_TEXT_CARD.format(name=name, v=tokenizer.vocab_info))
    return name


def _save(hub: Any, config: Any, path: Path, seed: int) -> None:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(hub.create_new_model(config, device=torch.device("cpu")).state_dict(), path)


def _write_pieces(path: Path) -> None:
    """Write a small unigram model as sentencepiece's `ModelProto`: no trainer is needed, and no package that has one.

    The message: field 1 repeats a piece (text 1, score 2, type 3: unknown 2, control 3); field 2 is the trainer's
    specification (model type 3, ids 40 to 43); field 3 the normaliser's (name 1).
    """
    words = ["hello", "world", "number", "der", "schnelle", "braune", "fuchs", "le", "petit", "chat"]
    special = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    known = [(f"\u2581{word}", -2.0 - rank / 10, 1) for rank, word in enumerate(words)]
    letters = [(letter, -6.0, 1) for letter in "\u2581abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces = [_bytes(1, _piece(*given)) for given in (*special, *known, *letters)]
    ids = _number(40, 0) + _number(41, 1) + _number(42, 2) + _number(43, -1)
    trainer = _bytes(2, _number(3, 1) + ids)
    path.write_bytes(b"".join([*pieces, trainer, _bytes(3, _bytes(1, b"identity"))]))


def _piece(text: str, score: float, kind: int) -> bytes:
    return _bytes(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score) + _number(3, kind)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value % (1 << 64))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
