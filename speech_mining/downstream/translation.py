"""Speech in, text of another language out: what a corpus of speech and text is for. Imports torch.

The loss is the cross-entropy with label smoothing of fairseq's S2T (Szegedy et al. 2016, section 7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.models.speech_to_text.modeling_speech_to_text import shift_tokens_right

from speech_mining.downstream.configuration import LearningConfig
from speech_mining.downstream.inputs import Features, Sounds, masked, padded
from speech_mining.downstream.networks import mask_of, new_translator
from speech_mining.downstream.vocabulary import FILE, Vocabulary

_IGNORED = -100
_TRANSLATED_AT_ONCE = 4.0
"""Batches of translation may hold so many times what a batch of training holds: nothing is kept for gradients."""


@dataclass(frozen=True, eq=False)
class Heard:
    """A batch of speech and its text.

    Args:
        inputs: float32 (clips, longest, width).
        lengths: int64 (clips,).
        labels: int64 (clips, longest text), `_IGNORED` behind each.
    """

    inputs: Tensor
    lengths: Tensor
    labels: Tensor


class Translator:
    """A translator of speech on its way; a `downstream.loop.Learner`."""

    def __init__(self, train: pl.DataFrame, sounds: Sounds, config: LearningConfig, seed: int) -> None:
        self._train, self._sounds, self._config, self._seed = train, sounds, config, seed
        self.durations_s = train["source_duration_s"].to_numpy().astype(np.float64)
        texts = train["target_words"].to_list()
        self.vocabulary = _vocabulary(texts, config)
        self._labels = [self.vocabulary.numbers(text, config.longest_tokens) for text in texts]
        torch.manual_seed(seed)
        self.network: Any = new_translator(config, sounds.extractor.width, self.vocabulary)

    def prepare(self, rows: Sequence[int], number: int) -> Heard:
        """Hear the clips of a batch; `number` draws its masks."""
        inputs, lengths = padded(self._sounds.of_rows(self._train, rows, "source"))
        inputs = masked(inputs, lengths, self._config, self._seed, number)
        labels = [self._labels[row] for row in rows]
        table = np.full((len(rows), max(map(len, labels))), _IGNORED, np.int64)
        for place, one in enumerate(labels):
            table[place, : len(one)] = one
        return Heard(torch.from_numpy(inputs), torch.from_numpy(lengths), torch.from_numpy(table))

    def loss(self, prepared: Heard, device: torch.device) -> Tensor:
        """Mean cross-entropy of the pieces of words."""
        labels, form = prepared.labels.to(device), self.network.config
        heard = prepared.inputs.to(device)
        said = self.network(
            heard,
            attention_mask=mask_of(prepared.lengths.to(device), heard.shape[1]),
            decoder_input_ids=shift_tokens_right(labels, form.pad_token_id, form.decoder_start_token_id),
            use_cache=False,
        ).logits
        return cross_entropy(
            said.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=_IGNORED,
            label_smoothing=self._config.label_smoothing,
        )

    def translate(self, test: pl.DataFrame, device: str) -> list[str]:
        """What each clip says, in the target's language, row by row."""
        self.network.to(device).eval()
        said: list[str] = [""] * test.height
        for rows in _batches(test, self._config.batch_seconds * _TRANSLATED_AT_ONCE):
            for row, text in zip(rows, self._texts(self._sounds.of_rows(test, rows, "source"), device), strict=True):
                said[row] = text
        return said

    def _texts(self, features: Sequence[Features], device: str) -> list[str]:
        inputs, lengths = padded(features)
        heard = torch.from_numpy(inputs).to(device)
        with torch.inference_mode():
            found = self.network.generate(
                heard,
                attention_mask=mask_of(torch.from_numpy(lengths).to(device), heard.shape[1]),
                num_beams=self._config.beams,
                do_sample=False,
                max_new_tokens=self._config.longest_tokens,
            )
        return [self.vocabulary.text(row) for row in found.tolist()]

    def save(self, folder: Path) -> None:
        """Write the model and its vocabulary, so that another training can start from them."""
        self.network.save_pretrained(str(folder))
        self.vocabulary.save(folder / FILE)


def _vocabulary(texts: Sequence[str], config: LearningConfig) -> Vocabulary:
    given = Path(config.start) / FILE if config.start else None
    if given is not None and given.is_file():
        return Vocabulary.read(given)
    return Vocabulary.learned(texts, config.vocabulary)


def _batches(examples: pl.DataFrame, budget_s: float) -> Iterator[list[int]]:
    """Rows in batches of like length, the longest first, padded to at most the budget."""
    durations_s = examples["source_duration_s"].to_numpy()
    batch: list[int] = []
    for row in np.argsort(-durations_s, kind="stable").tolist():
        if batch and durations_s[batch[0]] * (len(batch) + 1) > budget_s:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
