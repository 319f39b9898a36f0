"""LASER2 behind our text protocol: one LSTM for 93 languages, through sonar-space's own family `lstm`.

What belongs here is the way from a sentence to that model's ids and back to unit rows. Cards and files are
`speech_mining.encoders.sonar`'s. LASER2's space is its own: vectors of SONAR cannot be searched with it.

Heffernan, Çelebi, Schwenk 2022, "Bitext Mining Using Distilled Sentence Representations for Low-Resource Languages".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.feeding import Vectors
from speech_mining.encoders.placement import Precision, placement
from speech_mining.encoders.protocol import Embedded, Sentence
from speech_mining.encoders.sonar import _AssetCards
from speech_mining.encoders.work import Refusal, Work, as_float32, embed_tokens
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent

CODE_VERSION = "1"
"""Part of every version: raise it when the same weights would give other vectors."""
LASER2_CARD = "laser2_text_encoder"

# The languages LASER2 was trained on, as its README lists them (github.com/facebookresearch/LASER). `ber` stands for
# the Berber languages, which have no single ISO 639-3 code.
LANGUAGES = frozenset(
    "afr amh ara aym aze bel ben ber bos bre bul cat cbk ces cor dan deu div dtp ell eng epo est eus fin fra gle glg"
    " hau heb hin hrv hun hye ido ile ina ind isl ita jpn kab kat kaz khm kor kur kzj lat lav lfn lit mal mar mhr mkd"
    " mlg msa mya nds nld nob oci fas pol por ron rus sin slk slv snd som spa sqi srp swa swe tam tat tel tgk tgl tha"
    " tur uig ukr urd uzb vie wuu yue zho".split()
)
# What `normalize-punctuation.perl` of Moses makes of quotes and dashes, by which LASER's training text went.
_PUNCTUATION = str.maketrans({**dict.fromkeys("„“”", '"'), **dict.fromkeys("´‘‚’", "'"), "–": "-", "…": "..."})
# `Laser2Encoder` of sonar-space adds 4 to every id from 3 upward, leaves 0 (unknown) to 2, and ends with `</s>`.
_FIRST_PIECE, _MOVED = 3, 4


class Laser:
    """LASER2's text encoder, loaded when the first sentence is embedded; no language mark is needed.

    Args:
        card: an asset card of the family `lstm`, which names its tokenizer too.
        device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto" is float16 on CUDA and float32 on the CPU, which knows no other.
        lower_case: LASER2 was trained on lower-cased text; sonar-space's tokenizer leaves that to its caller.
        max_batch_tokens: tokens in a batch, padding included; a sentence of more tokens is rejected.
        batch_share: of a batch, in (0, 1]: less where an attempt before died of memory; the same is rejected.
        model_dir: directory of asset cards of one's own; None reads `S2S_MODEL_DIR`.
    """

    name = "laser2-text"
    languages = LANGUAGES

    def __init__(
        self,
        card: str = LASER2_CARD,
        *,
        device: str = "auto",
        dtype: Precision = "auto",
        lower_case: bool = True,
        max_batch_tokens: int = 8_192,
        batch_share: float = 1.0,
        model_dir: Path | None = None,
    ) -> None:
        self.card = card
        self._device, self._dtype, self._lower_case = device, dtype, lower_case
        self._max_batch_tokens, self._batch_share = max_batch_tokens, batch_share
        self._assets = _AssetCards(model_dir)

    @cached_property
    def config(self) -> Any:
        """The model's configuration, read from its card: no weights are needed."""
        self._assets.card(self.card)  # sets fairseq2 up, and is the error of a card that does not exist
        from sonar.models.laser2_text import get_laser2_model_hub

        return self._assets._read(self.card, lambda card: get_laser2_model_hub().get_model_config(card))

    @property
    def dimension(self) -> int:
        """Length of a vector: 1024 for LASER2."""
        return int(self.config.hidden_size) * (2 if self.config.bidirectional else 1)

    @property
    def version(self) -> str:
        """Our code's version, the card, its checkpoint and its tokenizer."""
        identities = [self._assets.identity(self.card, field) for field in ("checkpoint", "tokenizer")]
        cased = "" if self._lower_case else "-cased"
        return f"laser2-text-{CODE_VERSION}{cased}+{self.card}:" + ":".join(identities)

    def embed(self, items: Sequence[Sentence], *, progress: Progress = silent) -> Embedded:
        """Embed sentences; those that are empty, of unknown pieces only, or too long are rejected with a reason.

        Raises:
            EncoderError: a sentence of a language LASER2 does not know, or weights that are missing.
        """
        self._refuse_unknown({sentence.language for sentence in items})
        if not items:
            return Work(0, self.dimension, {}, progress).embedded()
        tokens = [self.load().tokens(self._normalised(sentence.text)) for sentence in items]
        refusals = {item: reason for item, given in enumerate(tokens) if (reason := self._refusal(given))}
        work = Work(len(items), self.dimension, refusals, progress)
        return embed_tokens(work, tokens, self.load().vectors, max(1, int(self._max_batch_tokens * self._batch_share)))

    def load(self) -> LoadedLaser:
        """The model on its device, loaded at the first call.

        Raises:
            EncoderError: the weights or the tokenizer are missing, damaged or not of this architecture.
        """
        return self._loaded

    @cached_property
    def _loaded(self) -> LoadedLaser:
        device, dtype = placement(self._device, self._dtype)
        tokenizer = self._assets.load_tokenizer(self.card)
        model = self._assets.load_model(self.card, device, dtype)
        return LoadedLaser(model, tokenizer, device, int(self.config.pad_idx))

    def _normalised(self, text: str) -> str:
        plain = text.translate(_PUNCTUATION)
        return plain.lower() if self._lower_case else plain

    def _refusal(self, tokens: npt.NDArray[np.int64]) -> Refusal | None:
        pieces = tokens[:-1]
        if not self.load().has_content(pieces):
            return "no_content", f"{len(pieces)} pieces, of which the tokenizer knows no letter"
        if len(tokens) > self._max_batch_tokens:
            return "too_long", f"{len(tokens)} tokens, a batch takes {self._max_batch_tokens}"
        return None

    @staticmethod
    def _refuse_unknown(languages: set[str]) -> None:
        if unknown := sorted(languages - LANGUAGES):
            raise EncoderError(
                f"The language {unknown[0]!r} given to LASER2.",
                expected=f"one of its {len(LANGUAGES)} ISO 639-3 codes",
                cause="LASER2 was not trained on this language: its vectors would mean nothing",
                fix="take SONAR's text encoder, which knows 202",
            )


class LoadedLaser:
    """The model on its device with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, device: Any, pad: int) -> None:
        self.model = model.eval()
        self._encode: Callable[[str], Any] = tokenizer.create_encoder()
        self._decode: Callable[[Any], str] = tokenizer.create_decoder()
        self._unknown = int(tokenizer.vocab_info.unk_idx)
        self._device, self._pad = device, pad

    def tokens(self, text: str) -> npt.NDArray[np.int64]:
        """The ids that sonar-space's tokenizer gives: the pieces and an end, int64 (tokens,)."""
        ids: npt.NDArray[np.int64] = self._encode(text).numpy()
        return ids

    def has_content(self, pieces: npt.NDArray[np.int64]) -> bool:
        """Whether a piece is known and more than the space before a word.

        The decoder wants the pieces' own ids, from before sonar-space moved them.
        """
        import torch

        raw = np.where(pieces >= _FIRST_PIECE + _MOVED, pieces - _MOVED, pieces)
        known = raw[raw != self._unknown]
        return bool(len(known)) and bool(self._decode(torch.from_numpy(known)).strip())

    def vectors(self, tokens: Sequence[npt.NDArray[np.int64]]) -> Vectors:
        """Embed tokenized sentences as one batch: float32 (n, d), not normalised.

        The lengths stay on the CPU, where `pack_padded_sequence` wants them.
        """
        import torch

        lengths = np.array([len(given) for given in tokens], dtype=np.int64)
        padded = np.full((len(tokens), int(lengths.max())), self._pad, dtype=np.int64)
        for row, given in zip(padded, tokens, strict=True):
            row[: len(given)] = given
        with torch.inference_mode():
            return as_float32(self.model(torch.from_numpy(padded).to(self._device), torch.from_numpy(lengths)))
