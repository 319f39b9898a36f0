"""SONAR behind our protocols: speech of 57 languages and text of 202 in one space, unit fp16 rows.

What belongs here is the way from our spans and sentences to SONAR's own pieces (its asset cards, fbank features,
tokenizer, collater and models) and back. How items share a batch is `speech_mining.encoders.batches`. Nothing here
downloads on its own account: fairseq2 does, for a card whose checkpoint has a web address, the first time it is used.

Duquenne, Schwenk, Sagot 2023, "SONAR: sentence-level multimodal and language-agnostic representations".
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.batches import Positions, length_batches
from speech_mining.encoders.cards import recorded_digests, refuse_changed, sha256_once
from speech_mining.encoders.feeding import Room, Vectors, feed
from speech_mining.encoders.placement import Precision, placement
from speech_mining.encoders.protocol import Embedded, Sentence, SpeechSpan
from speech_mining.encoders.work import Refusal, Work, as_float32, embed_tokens
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent
from speech_mining.records import SAMPLE_RATE_HZ

CODE_VERSION = "2"
"""Part of every version: raise it when the same weights would give other vectors."""
SPEECH_CARD = "sonar_speech_encoder_{language}"
TEXT_CARD = "text_sonar_basic_encoder"
MODEL_FAMILIES = ("sonar_speech", "transformer_encoder", "transformer_decoder", "lstm", "blaser", "mutox_classifier")
TOKENIZER_FAMILIES = ("nllb", "lstm")
"""The loaders that a card may name: sonar-space's own, which read tensors alone, or a sentencepiece model."""
SILENT_RANGE = 1 / 32_768
"""A span that moves less than one step of 16-bit audio is silence. SONAR itself gives NaN for digital silence."""

Waveform: TypeAlias = npt.NDArray[np.float32]
_Item = TypeVar("_Item")

# Kaldi's window and step, which fairseq2's filter bank uses: 25 ms and 10 ms.
_WINDOW = 400
_STEP = 160
# Names that the macrolanguage tables do not lead from: Mandarin stands as Chinese, Norwegian as Bokmål.
_OTHER_NAMES = (("cmn", "zho"), ("nor", "nob"))


@dataclass(frozen=True)
class Weights:
    """One file that a card names: where it comes from, and where it is on this machine."""

    card: str
    uri: str
    path: Path | None
    """None: not on this machine."""

    @property
    def file(self) -> str:
        """The file's own name."""
        return self.uri.rsplit("/", 1)[-1]


def default_model_dir() -> Path | None:
    """The directory of cards of one's own that `S2S_MODEL_DIR` names, if it does."""
    named = os.environ.get("S2S_MODEL_DIR", "")
    return Path(named) if named else None


def locate_weights(card: str, *, field: str = "checkpoint", model_dir: Path | None = None) -> Weights:
    """Say where the file of a card is, without downloading anything.

    Args:
        card: an asset card, such as `sonar_speech_encoder_deu`.
        field: `checkpoint`, or `tokenizer` for the sentencepiece model of a text encoder.
        model_dir: directory of cards of one's own; None reads `S2S_MODEL_DIR`.

    Raises:
        EncoderError: no such card, or the card names no such file.
    """
    return _AssetCards(model_dir).weights(card, field)


def speech_languages(model_dir: Path | None = None) -> dict[str, str]:
    """Every language that has a SONAR speech card, ISO 639-3 -> card: the 57 published ones and one's own."""
    prefix = SPEECH_CARD.format(language="")
    names = {name.split("@")[0] for name in _AssetCards(model_dir).store.asset_names}
    cards = sorted(name for name in names if name.startswith(prefix))
    return {card.removeprefix(prefix): card for card in cards if len(card) == len(prefix) + 3}


def text_languages(codes: Iterable[str]) -> dict[str, str]:
    """Map ISO 639-3 to a tokenizer's own codes: `deu` -> `deu_Latn`.

    Where a language is listed in two scripts its usual one is taken (`zho` -> `zho_Hans`). A macrolanguage also
    leads to its dominant member (`ara` -> `arb_Arab`, `fas` -> `pes_Arab`), and `cmn` to `zho_Hans`, `nor` to
    `nob_Latn`, as catalogues and speech encoders use either name.
    """
    import langcodes

    ordered = sorted(codes)
    by_language: dict[str, str] = {}
    for code in ordered:
        language, _, script = code.partition("_")
        if language not in by_language or script == langcodes.Language.get(language).maximize().script:
            by_language[language] = code
    broader = {_macrolanguage(language): code for language, code in reversed(by_language.items())}
    broader.pop(None, None)
    other_names = {name: by_language[known] for name, known in _OTHER_NAMES if known in by_language}
    return {**other_names, **{str(language): code for language, code in broader.items()}, **by_language}


class SonarSpeech:
    """SONAR's speech encoders, one card a language; a model is loaded when its first span is embedded.

    A model stays loaded once used (wav2vec-BERT of 600 million parameters and a pooler). For lineage take one encoder a
    language: the version names every card of the mapping.

    Args:
        languages: one ISO 639-3 code, or a mapping from ISO 639-3 to the name of an asset card.
        device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1". Never more than one: for several GPUs
            give each its own process and its own partitions.
        dtype: "auto" is float16 on CUDA and float32 on the CPU, which knows no other.
        max_batch_seconds: audio in a batch, padding included; None is 240 on CUDA and 60 on the CPU, whose caches
            larger ones leave. A batch that does not fit in memory is halved.
        batch_share: of that, in (0, 1]: less where an attempt before died of memory.
        feature_threads: batches whose features are computed in advance, each in a thread; None is 4 on CUDA and 1 on
            the CPU, where the model uses every core. Vectors do not depend on it.
        model_dir: directory of asset cards of one's own; None reads `S2S_MODEL_DIR`.
    """

    name = "sonar-speech"

    def __init__(
        self,
        languages: str | Mapping[str, str],
        *,
        device: str = "auto",
        dtype: Precision = "auto",
        max_batch_seconds: float | None = None,
        batch_share: float = 1.0,
        feature_threads: int | None = None,
        model_dir: Path | None = None,
    ) -> None:
        if isinstance(languages, str):
            languages = {languages: SPEECH_CARD.format(language=languages)}
        self.cards: Mapping[str, str] = MappingProxyType(dict(languages))
        if not self.cards:
            raise EncoderError("A SONAR speech encoder of no language.", fix="name at least one ISO 639-3 code")
        self._max_batch_seconds, self._feature_threads = max_batch_seconds, feature_threads
        self._batch_share = batch_share
        self._device, self._dtype = device, dtype
        self._assets = _AssetCards(model_dir)
        self._models: dict[str, LoadedSpeech] = {}
        self._limits: dict[str, SpeechLimits] = {}

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-3 codes it was made for."""
        return frozenset(self.cards)

    @cached_property
    def dimension(self) -> int:
        """Length of a vector, read from the card: no weights are needed."""
        sizes = {self.limits(language).dimension for language in self.cards}
        if len(sizes) > 1:
            raise EncoderError(
                f"Speech cards of different dimensions, {sorted(sizes)}.",
                expected="one space",
                cause="cards of different teachers in one mapping",
                fix="use one encoder for each space",
            )
        return sizes.pop()

    @property
    def version(self) -> str:
        """Our code's version and, for each language, its card and its checkpoint: see `_AssetCards.identity`."""
        named = [f"{self.cards[lang]}:{self._assets.identity(self.cards[lang])}" for lang in sorted(self.cards)]
        return "+".join([f"sonar-speech-{CODE_VERSION}", *named])

    def limits(self, language: str) -> SpeechLimits:
        """The shortest and longest span a language's model takes, read from its card."""
        if language not in self._limits:
            self._limits[language] = SpeechLimits.of(self._assets.speech_config(self._card(language)))
        return self._limits[language]

    def embed(self, items: Sequence[SpeechSpan], *, progress: Progress = silent) -> Embedded:
        """Embed spans; silent, NaN, too long or too short ones are rejected with a reason.

        Raises:
            EncoderError: a span of a language that has no card here, or weights that are missing or damaged.
        """
        refusals = {item: reason for item, span in enumerate(items) if (reason := self._refusal(span))}
        work = Work(len(items), self.dimension, refusals, progress)
        for language, positions in work.by_language([span.language for span in items]).items():
            model = self.load(language)
            self._embed_batches(model, items, positions, work)
        return work.embedded()

    def _embed_batches(
        self, model: LoadedSpeech, items: Sequence[SpeechSpan], positions: Positions, work: Work
    ) -> None:
        """Embed the spans at `positions`, whose language is the model's."""
        lengths = np.array([span.end_sample - span.start_sample for span in items], dtype=np.int64)
        on_cuda = model.device.type == "cuda"
        seconds = self._batch_share * (self._max_batch_seconds or (240.0 if on_cuda else 60.0))
        threads = (4 if on_cuda else 1) if self._feature_threads is None else self._feature_threads
        room = Room(lambda part: int(lengths[part].max()) * part.size)

        def make(batch: Positions) -> Prepared:
            return model.prepare(batch, [items[item].samples for item in batch])

        def use(prepared: Prepared) -> None:
            work.put_parts(room.run(prepared.items, lambda part: model.run(prepared.part(part))))

        batches = [positions[batch] for batch in length_batches(lengths[positions], int(seconds * SAMPLE_RATE_HZ))]
        for _ in feed(batches, make, use, ahead=threads):
            pass

    def load(self, language: str) -> LoadedSpeech:
        """The model of a language on its device, loaded at the first call.

        Raises:
            EncoderError: the weights are missing, damaged or not of this architecture.
        """
        if language not in self._models:
            card = self._card(language)
            device, dtype = placement(self._device, self._dtype)
            model = self._assets.load_model(card, device, dtype)
            self._models[language] = LoadedSpeech(model, device, dtype)
        return self._models[language]

    def _card(self, language: str) -> str:
        try:
            return self.cards[language]
        except KeyError:
            raise EncoderError(
                f"The language {language!r} given to a SONAR speech encoder.",
                expected=f"one of {sorted(self.cards)}",
                fix="map the language to a card when the encoder is made",
            ) from None

    def _refusal(self, span: SpeechSpan) -> Refusal | None:
        limits, samples = self.limits(span.language), span.samples
        if samples.size < limits.shortest_samples:
            return "too_short", f"{samples.size} samples, the encoder needs {limits.shortest_samples}"
        if samples.size > limits.longest_samples:
            return "too_long", f"{samples.size / SAMPLE_RATE_HZ:.1f} s, the encoder takes {limits.longest_s:.1f} s"
        if not np.isfinite(samples).all():
            return "not_a_number", "the waveform holds NaN or infinity"
        if np.ptp(samples) < SILENT_RANGE:
            return "silent", "the waveform never moves by a step of 16-bit audio"
        return None


@dataclass(frozen=True)
class SpeechLimits:
    """What a speech model accepts and gives, known from its card."""

    dimension: int
    shortest_samples: int
    longest_samples: int

    @property
    def longest_s(self) -> float:
        """The longest span, in seconds."""
        return self.longest_samples / SAMPLE_RATE_HZ

    @classmethod
    def of(cls, config: Any) -> SpeechLimits:
        """Derive them from SONAR's configuration: `fbank_stride` frames of 10 ms make one position of the encoder.

        Measured on sonar-space 0.5.0: 559 samples raise, 560 pass; 1 311 119 (81.94 s) pass, one more raises. The
        collater pads to an even number of frames, so that an odd frame past the last position is one too many.
        """
        frames = config.w2v2_encoder_config
        return cls(
            dimension=config.model_dim,
            shortest_samples=_WINDOW + _STEP * (frames.fbank_stride - 1),
            longest_samples=_WINDOW + _STEP * frames.fbank_stride * frames.max_seq_len - 1,
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch whose features are computed, on the CPU."""

    items: Positions
    features: Mapping[int, Any]
    """Item -> float32 tensor (frames, 80)."""
    collated: Any
    """All of them as SONAR's collater pads them, pinned where the model is on CUDA; None: not done yet."""

    def part(self, items: Positions) -> Prepared:
        """Some of its items, whose padding is yet to be done."""
        if items.size == self.items.size:
            return self
        return Prepared(items, {int(item): self.features[int(item)] for item in items}, None)


class LoadedSpeech:
    """One speech model on its device, with SONAR's own features and collater; its attention made quick on the CPU."""

    def __init__(self, model: Any, device: Any, dtype: Any) -> None:
        from fairseq2.data.data_pipeline import Collater
        from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline

        from speech_mining.encoders.relative_attention import quicken

        if device.type == "cpu":
            quicken(model)
        self.pipeline: Any = SpeechToEmbeddingModelPipeline(model, device=device, fbank_dtype=dtype)
        self.device, self.dtype = device, dtype
        self._convert = _feature_converter()
        self._collate = Collater(pad_value=0, pad_to_multiple=2)

    def vectors(self, waveforms: Sequence[Waveform]) -> Vectors:
        """Embed waveforms as one batch, as `SpeechToEmbeddingModelPipeline.predict` would: float32 (n, d), any length.

        Args:
            waveforms: float32 (samples,) each, 16 kHz, within the model's limits.
        """
        return self.run(self.prepare(np.arange(len(waveforms)), waveforms))

    def prepare(self, items: Positions, waveforms: Sequence[Waveform]) -> Prepared:
        """Compute the features of a batch, in any thread: they never touch the GPU."""
        import torch

        with torch.inference_mode():
            features = [self._features(torch.tensor(waveform)) for waveform in waveforms]
            collated = self._collate(features)
            if self.device.type == "cuda":
                collated = {**collated, "seqs": collated["seqs"].pin_memory()}
        return Prepared(items, dict(zip(items.tolist(), features, strict=True)), collated)

    def run(self, prepared: Prepared) -> Vectors:
        """Embed a batch: float32 (n, d), any length, in the order of its items.

        Raises:
            RuntimeError: among others, when memory does not suffice; see `feeding.is_out_of_memory`.
        """
        import torch
        from fairseq2.nn import BatchLayout

        with torch.inference_mode():
            collated = prepared.collated or self._collate([prepared.features[int(item)] for item in prepared.items])
            frames = collated["seqs"].to(self.device, self.dtype, non_blocking=self.device.type == "cuda")
            layout = BatchLayout.of(frames, collated["seq_lens"])
            return as_float32(self.pipeline.model(frames, layout).sentence_embeddings)

    def _features(self, waveform: Any) -> Any:
        return self._convert({"waveform": waveform[:, None], "sample_rate": float(SAMPLE_RATE_HZ)})["fbank"]


class SonarText:
    """SONAR's text encoder, every language of its tokenizer; loaded when the first sentence is embedded.

    Args:
        card: the asset card of the encoder, which names its tokenizer too.
        device: as for `SonarSpeech`.
        dtype: as for `SonarSpeech`.
        max_batch_tokens: tokens in a batch, padding included.
        batch_share: as for `SonarSpeech`.
        model_dir: as for `SonarSpeech`.
    """

    name = "sonar-text"

    def __init__(
        self,
        card: str = TEXT_CARD,
        *,
        device: str = "auto",
        dtype: Precision = "auto",
        max_batch_tokens: int = 8_192,
        batch_share: float = 1.0,
        model_dir: Path | None = None,
    ) -> None:
        self.card = card
        self._max_batch_tokens = max(1, int(max_batch_tokens * batch_share))
        self._device, self._dtype = device, dtype
        self._assets = _AssetCards(model_dir)

    @cached_property
    def codes(self) -> Mapping[str, str]:
        """ISO 639-3 -> the tokenizer's code, read from its card: no weights are needed."""
        return MappingProxyType(text_languages(self._assets.tokenizer_languages(self.card)))

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-3 codes it knows."""
        return frozenset(self.codes)

    @cached_property
    def dimension(self) -> int:
        """Length of a vector, read from the card: no weights are needed."""
        return int(self._assets.text_config(self.card).model_dim)

    @property
    def version(self) -> str:
        """Our code's version, the card, its checkpoint and its tokenizer."""
        identities = [self._assets.identity(self.card, field) for field in ("checkpoint", "tokenizer")]
        return f"sonar-text-{CODE_VERSION}+{self.card}:" + ":".join(identities)

    def embed(self, items: Sequence[Sentence], *, progress: Progress = silent) -> Embedded:
        """Embed sentences; those that are empty, of unknown pieces only, or too long are rejected with a reason.

        SONAR's own pipeline cuts a text at its longest length and warns; a cut sentence is no translation of a whole
        one, so it is rejected here.

        Raises:
            EncoderError: a sentence of a language the tokenizer does not know, or weights that are missing.
        """
        for language in {sentence.language for sentence in items}:
            self._code(language)
        if not items:
            return Work(0, self.dimension, {}, progress).embedded()
        model = self.load()
        tokens = [model.tokens(sentence.text, self._code(sentence.language)) for sentence in items]
        refusals = {item: reason for item, given in enumerate(tokens) if (reason := model.refusal(given))}
        work = Work(len(items), self.dimension, refusals, progress)
        return embed_tokens(work, tokens, model.vectors, self._max_batch_tokens)

    def load(self) -> LoadedText:
        """The model on its device, loaded at the first call.

        Raises:
            EncoderError: the weights or the tokenizer are missing, damaged or not of this architecture.
        """
        return self._loaded

    @cached_property
    def _loaded(self) -> LoadedText:
        device, dtype = placement(self._device, self._dtype)
        tokenizer = self._assets.load_tokenizer(self.card)
        return LoadedText(self._assets.load_model(self.card, device, dtype), tokenizer, device)

    def _code(self, language: str) -> str:
        try:
            return self.codes[language]
        except KeyError:
            raise EncoderError(
                f"The language {language!r} given to the text encoder {self.card}.",
                expected=f"one of its {len(self.codes)} ISO 639-3 codes",
                fix="give the ISO 639-3 code of the sentence, such as 'deu', or leave the language out",
            ) from None


class LoadedText:
    """The text model on its device with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, device: Any) -> None:
        from fairseq2.data.data_pipeline import Collater
        from sonar.inference_pipelines.text import TextToEmbeddingModelPipeline

        self.pipeline: Any = TextToEmbeddingModelPipeline(model, tokenizer, device=device)
        self._vocabulary = tokenizer.vocab_info
        self._collate = Collater(pad_value=self._vocabulary.pad_idx)
        self._device = device
        self._encode: dict[str, Callable[[str], Any]] = {}
        self._decode: Callable[[Any], str] = tokenizer.create_decoder()

    @cached_property
    def longest_tokens(self) -> int:
        """The longest sentence, in tokens, its language mark and end included."""
        return int(self.pipeline.model.encoder_frontend.pos_encoder.max_seq_len)

    def tokens(self, text: str, code: str) -> Any:
        """Tokenize as SONAR does: a language mark, the pieces, an end; an int64 tensor (tokens,)."""
        if code not in self._encode:
            self._encode[code] = self.pipeline.tokenizer.create_encoder(lang=code)
        return self._encode[code](text)

    def refusal(self, tokens: Any) -> Refusal | None:
        """Why these tokens cannot be embedded, if they cannot."""
        pieces = tokens[1:-1]
        known = pieces[pieces != self._vocabulary.unk_idx]
        if not len(known) or not self._decode(known).strip():  # the space before a word is a known piece too
            return "no_content", f"{len(pieces)} pieces, of which the tokenizer knows no letter"
        if len(tokens) > self.longest_tokens:
            return "too_long", f"{len(tokens)} tokens, the encoder takes {self.longest_tokens}"
        return None

    def vectors(self, tokens: Sequence[Any]) -> Vectors:
        """Embed tokenized sentences as one batch, as `TextToEmbeddingModelPipeline.predict` would: float32 (n, d)."""
        import torch
        from sonar.inference_pipelines.utils import extract_sequence_batch

        with torch.inference_mode():
            batch = extract_sequence_batch(self._collate(list(tokens)), self._device)
            return as_float32(self.pipeline.model(*batch).sentence_embeddings)


class _AssetCards:
    """fairseq2's asset store, with a directory of one's own on top: cards, files and the models they describe."""

    def __init__(self, model_dir: Path | None) -> None:
        self._model_dir = model_dir or default_model_dir()

    @cached_property
    def store(self) -> Any:
        """Published cards, those of `FAIRSEQ2_USER_ASSET_DIR`, and those of the model directory."""
        resolver = _fairseq2()
        from fairseq2.assets import AssetMetadataError, FileAssetMetadataLoader, StandardAssetStore

        providers = list(_published_cards())
        try:
            if self._model_dir and f"path:{self._model_dir.resolve()}" not in {given.source for given in providers}:
                providers.append(resolver.resolve(FileAssetMetadataLoader).load(self._existing(self._model_dir)))
            return StandardAssetStore(providers)
        except AssetMetadataError as error:
            raise EncoderError(
                f"The cards in {self._model_dir} cannot be used: {error}",
                fix="give each card one name; one that replaces a published card is called `<card>@user`",
            ) from error

    @staticmethod
    def _existing(directory: Path) -> Path:
        if not directory.is_dir():
            raise EncoderError(
                f"The model directory {directory} does not exist.", fix="create it, or correct S2S_MODEL_DIR"
            )
        return directory.resolve()

    def card(self, name: str) -> Any:
        from_store = self.store.maybe_retrieve_card(name)
        if from_store is None:
            raise EncoderError(
                f"There is no asset card called {name}.",
                expected="a card of sonar-space, or one of your own",
                cause="SONAR publishes no encoder for this language, or the model directory was not given",
                fix=f"put a .yaml file with `name: {name}` into the model directory and name it in S2S_MODEL_DIR",
            )
        restrict = from_store.maybe_get_field("restrict")
        if restrict is not None and restrict.value is not True:
            raise EncoderError(
                f"The card {name} asks for its checkpoint to be unpickled without restriction.",
                expected="tensors only, as `torch.load(weights_only=True)` reads them",
                cause="`restrict: false` in the card",
                fix="save the state dict of the model alone, and remove the line",
            )
        return from_store

    def weights(self, name: str, field: str = "checkpoint") -> Weights:
        card = self.card(name)
        named = card.maybe_get_field(field)
        if named is None:
            raise EncoderError(f"The card {name} names no {field}.", fix=f"add `{field}: <file>` to the card")
        uri = named.as_uri()
        return Weights(name, str(uri), self._on_this_machine(uri))

    @staticmethod
    def _on_this_machine(uri: Any) -> Path | None:
        from fairseq2.assets import AssetDownloadError, AssetDownloadManager

        try:
            path: Path = _fairseq2().resolve(AssetDownloadManager).download_model(uri, local_only=True)
        except AssetDownloadError:
            return None
        return path if path.exists() else None

    def identity(self, name: str, field: str = "checkpoint") -> str:
        """What tells one checkpoint from another: a published one's address, the SHA-256 of a local one.

        A published address always holds the same file (SONAR's carry their version), and needs no weights here.
        """
        weights = self.weights(name, field)
        if not weights.uri.startswith("file:"):
            return weights.uri
        if weights.path is None:
            raise self._missing(weights, field, "the file that the card names does not exist")
        return "sha256-" + sha256_once(weights.path)

    def speech_config(self, name: str) -> Any:
        _fairseq2()
        from sonar.models.sonar_speech import get_sonar_speech_encoder_hub

        return self._read(name, lambda card: get_sonar_speech_encoder_hub().get_model_config(card))

    def text_config(self, name: str) -> Any:
        _fairseq2()
        from sonar.models.sonar_text import get_sonar_text_encoder_hub

        return self._read(name, lambda card: get_sonar_text_encoder_hub().get_model_config(card))

    def tokenizer_languages(self, name: str) -> list[str]:
        _fairseq2()
        from fairseq2.models.nllb import get_nllb_tokenizer_hub

        return self._read(name, lambda card: list(get_nllb_tokenizer_hub().get_tokenizer_config(card).langs))

    def load_model(self, name: str, device: Any, dtype: Any) -> Any:
        _fairseq2()
        from fairseq2.models import load_model

        self._refuse_family(name, "model_family", MODEL_FAMILIES)
        return self._load(name, "checkpoint", lambda card: load_model(card, device=device, dtype=dtype))

    def load_tokenizer(self, name: str) -> Any:
        _fairseq2()
        from fairseq2.data.tokenizers import load_tokenizer

        self._refuse_family(name, "tokenizer_family", TOKENIZER_FAMILIES)
        return self._load(name, "tokenizer", load_tokenizer)

    def _read(self, name: str, read: Callable[[Any], _Item]) -> _Item:
        from fairseq2.assets import AssetCardError

        card = self.card(name)
        try:
            return read(card)
        except AssetCardError as error:
            raise EncoderError(f"The card {name} cannot be used: {error}", fix="correct the card") from error

    def _load(self, name: str, field: str, load: Callable[[Any], _Item]) -> _Item:
        from fairseq2.assets import AssetCardError, AssetDownloadError

        card, weights = self.card(name), self.weights(name, field)
        if weights.path is None and weights.uri.startswith("file:"):
            raise self._missing(weights, field, "the file that the card names does not exist")
        self._refuse_changed(card, weights)
        try:
            return load(card)
        except AssetDownloadError as error:
            raise self._missing(weights, field, f"no network ({error.__cause__ or error})") from error
        except (AssetCardError, ValueError, OSError) as error:
            raise EncoderError(
                f"The {field} of the card {name}, {weights.path or weights.uri}, cannot be loaded: {error}",
                expected="tensors of the architecture that the card names, and nothing else",
                cause="a download that was cut short, a checkpoint of another architecture, or a pickle of more than "
                "tensors, which is refused",
                fix="fetch the file again, or save the state dict of the model alone",
            ) from error

    def _refuse_family(self, name: str, field: str, families: Sequence[str]) -> None:
        """Only SONAR's own loaders: fairseq2's for Hugging Face models would run code that a card trusts."""
        given = self.card(name).maybe_get_field(field)
        if given is None or given.value not in families:
            raise EncoderError(
                f"The card {name} states {field}: {given.value if given else 'nothing'}.",
                expected=f"one of {', '.join(families)}",
                cause="a card of another kind of model",
                fix="take another card; a sentence-transformers model is named hf:<name or folder>",
            )

    def _refuse_changed(self, card: Any, weights: Weights) -> None:
        """Hold a file of this machine against the digest that its card recorded, if it did."""
        stated, folder = card.maybe_get_field("sha256"), card.metadata.get("__base_path__")
        if stated is None or weights.path is None or folder is None:
            return
        here = weights.path.resolve()
        for file, expected in recorded_digests(weights.card, stated.value, str(folder)).items():
            if (folder / file).resolve() == here:
                refuse_changed(weights.card, weights.path, expected)

    def _missing(self, weights: Weights, field: str, cause: str) -> EncoderError:
        """The one error of a file that is not here: its card, its name, and both ways to get it."""
        address = weights.uri if "://" in weights.uri and not weights.uri.startswith("file:") else ""
        address = address or self._published_address(weights.card, field)
        file = address.rsplit("/", 1)[-1] or weights.file
        one = (
            "either download it: on a connected machine the first use does, into fairseq2's cache (FAIRSEQ2_CACHE_DIR, "
            f"by default ~/.cache/fairseq2/assets), which may be copied here; or fetch it with `curl -fLO {address}`"
            if address
            else f"either put it back at {weights.uri.removeprefix('file://')}; or take it from where it was made"
        )
        return EncoderError(
            f"The {field} of the card {weights.card} is not on this machine: {weights.file} ({weights.uri}).",
            cause=cause,
            fix=f"{one}, bring it here and run `s2s models add {file} --card {weights.card}` (it takes a folder too) "
            "with S2S_MODEL_DIR set to a directory of your own",
        )

    @staticmethod
    def _published_address(card: str, field: str) -> str:
        """Where the published card of this name has its file; empty: there is none of this name."""
        published = _AssetCards._of_publishers().maybe_retrieve_card(f"{card}@")
        named = published.maybe_get_field(field) if published else None
        return str(named.as_uri()) if named else ""

    @staticmethod
    def _of_publishers() -> Any:
        from fairseq2.assets import StandardAssetStore

        return StandardAssetStore(list(_published_cards()))


def _fairseq2() -> Any:
    """fairseq2's resolver. soundfile goes first: the libsndfile in its wheel satisfies fairseq2's loader."""
    with warnings.catch_warnings():
        # fairseq2 0.8.1 warns about its own composition/models.py the first time it is set up.
        warnings.filterwarnings("ignore", message="`hg_exporter` is deprecated", category=DeprecationWarning)
        try:
            import soundfile  # noqa: F401
            from fairseq2.runtime.dependency import get_dependency_resolver

            return get_dependency_resolver()
        except (ImportError, OSError) as error:
            raise EncoderError(
                f"SONAR's libraries cannot be loaded: {error}",
                cause="sonar-space or fairseq2 is not installed, or was built for another PyTorch",
                fix="install the versions this project pins, and run `s2s doctor`",
            ) from error


@lru_cache(maxsize=1)
def _published_cards() -> tuple[Any, ...]:
    """The cards that fairseq2 itself finds, read once in a process, as fairseq2 does: parsing their YAML took 0.5 s."""
    from fairseq2.assets import AssetMetadataSource

    sources = _fairseq2().collection.resolve(AssetMetadataSource)
    return tuple(provider for source in sources for provider in source.load())


def _feature_converter() -> Any:
    """The filter bank that SONAR's pipelines use, in float32 on the CPU: threads may share it."""
    import torch
    from fairseq2.data.audio import WaveformToFbankConverter

    return WaveformToFbankConverter(
        num_mel_bins=80,
        waveform_scale=2**15,
        channel_last=True,
        standardize=True,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def _macrolanguage(language: str) -> str | None:
    """The macrolanguage whose dominant member this is, ISO 639-3, if it is one."""
    import langcodes

    try:
        broader = langcodes.Language.get(language).prefer_macrolanguage().to_alpha3()
    except LookupError:
        return None
    return broader if broader != language else None
