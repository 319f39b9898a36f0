"""Encoders by name: one spelling for the settings, the Dagster resource and the command.

What belongs here is which class a name means. How an encoder works is in its own module, loaded only when it is chosen;
each is made once in a process, and loads its weights before the first item.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from speech_mining.encoders.protocol import SpeechEncoder, TextEncoder
from speech_mining.errors import EncoderError

MINIATURE, SONAR, LASER, HUGGING_FACE = "miniature", "sonar", "laser", "hf"
SPEECH_CHOICES = "'miniature', 'sonar', 'sonar:<card>', a path to a student's weights, or 'module:Class'"
TEXT_CHOICES = "'miniature', 'sonar', 'sonar:<card>', 'laser', 'laser:<card>', 'hf:<name or folder>', or 'module:Class'"
_TEACHER_OF_THE_MINIATURE = "demo.world.concepts:ConceptTeacher"


def speech_encoder(
    chosen: str, language: str, *, model_dir: Path | None = None, device: str = "auto", batch_share: float = 1.0
) -> SpeechEncoder:
    """The encoder of speech that a name means, for one language; a student knows the languages it was trained for.

    Args:
        chosen: one of `SPEECH_CHOICES`.
        language: ISO 639-3.
        model_dir: directory of cards and models of one's own; None reads `S2S_MODEL_DIR`.
        device: "auto", "cpu", "cuda", "cuda:1"; the demo's student runs on the CPU.
        batch_share: of the encoder's batch, in (0, 1]; what is made without arguments keeps its own.

    Raises:
        EncoderError: an encoder of text, or a student whose weights cannot be read.
    """
    kind, _, named = chosen.partition(":")
    if kind == SONAR:
        return _sonar_speech(language, named, model_dir, device, batch_share)
    if kind in (LASER, HUGGING_FACE) and (named or kind == LASER):
        raise EncoderError(
            f"{chosen!r} chosen as an encoder of speech.", expected=SPEECH_CHOICES, cause="it reads text"
        )
    if _is_object(chosen):
        made: SpeechEncoder = _object(chosen)
        return made
    return _student(chosen, device, batch_share)


def text_encoder(
    chosen: str, *, model_dir: Path | None = None, device: str = "auto", batch_share: float = 1.0
) -> TextEncoder:
    """The encoder of text that a name means, for all its languages.

    Args:
        chosen: one of `TEXT_CHOICES`.
        model_dir: as for `speech_encoder`.
        device: as for `speech_encoder`.
        batch_share: as for `speech_encoder`.

    Raises:
        EncoderError: no such encoder.
    """
    kind, _, named = chosen.partition(":")
    if kind == SONAR:
        return _sonar_text(named, model_dir, device, batch_share)
    if kind == LASER:
        return _laser(named, model_dir, device, batch_share)
    if kind == HUGGING_FACE and named:
        return _hugging_face(named, model_dir, device, batch_share)
    if chosen == MINIATURE or _is_object(chosen):
        made: TextEncoder = _object(_TEACHER_OF_THE_MINIATURE if chosen == MINIATURE else chosen)
        return made
    raise EncoderError(
        f"There is no text encoder {chosen!r}.",
        expected=TEXT_CHOICES,
        cause="the name is mistyped, or it is an encoder of speech",
        fix="correct the name of the text encoder; 'miniature' is the miniature library's own",
    )


def reads_any_language(chosen: str, encoder: TextEncoder) -> bool:
    """Whether the one who chose it vouches for the language: a model of the hub whose README lists none."""
    return not encoder.languages and chosen.startswith(f"{HUGGING_FACE}:")


def forget() -> None:
    """Let go of every encoder that was made in this process, and of the memory of those that nobody uses."""
    for made in (_sonar_speech, _student, _sonar_text, _laser, _hugging_face, _object):
        made.cache_clear()


@lru_cache(maxsize=8)
def _sonar_speech(language: str, card: str, model_dir: Path | None, device: str, batch_share: float) -> SpeechEncoder:
    from speech_mining.encoders.sonar import SonarSpeech

    cards = {language: card} if card else language
    return SonarSpeech(cards, device=device, model_dir=model_dir, batch_share=batch_share)


@lru_cache(maxsize=8)
def _student(chosen: str, device: str, batch_share: float) -> SpeechEncoder:
    from speech_mining.encoders.student import Student

    if chosen == MINIATURE:
        return Student.load(None)
    from speech_mining.encoders.neural_student import NeuralStudent, is_neural_student

    path = Path(chosen)
    if is_neural_student(path):
        return NeuralStudent.load(path, device=device, batch_share=batch_share)
    return Student.load(path)


@lru_cache(maxsize=2)
def _sonar_text(card: str, model_dir: Path | None, device: str, batch_share: float) -> TextEncoder:
    from speech_mining.encoders.sonar import TEXT_CARD, SonarText

    return SonarText(card or TEXT_CARD, device=device, model_dir=model_dir, batch_share=batch_share)


@lru_cache(maxsize=2)
def _laser(card: str, model_dir: Path | None, device: str, batch_share: float) -> TextEncoder:
    from speech_mining.encoders.laser import LASER2_CARD, Laser

    return Laser(card or LASER2_CARD, device=device, model_dir=model_dir, batch_share=batch_share)


@lru_cache(maxsize=2)
def _hugging_face(named: str, model_dir: Path | None, device: str, batch_share: float) -> TextEncoder:
    from speech_mining.encoders.huggingface import HuggingFaceText

    return HuggingFaceText(named, device=device, model_dir=model_dir, batch_share=batch_share)


def _is_object(name: str) -> bool:
    module, colon, of_module = name.partition(":")
    return bool(colon) and of_module.isidentifier() and all(part.isidentifier() for part in module.split("."))


@lru_cache(maxsize=4)
def _object(name: str) -> Any:
    module, _, of_module = name.partition(":")
    try:
        return getattr(import_module(module), of_module)()
    except (ImportError, AttributeError) as error:
        raise EncoderError(
            f"The encoder {name} cannot be loaded: {error}.",
            expected="module:Class, a class that is made without arguments",
            cause="its package is not installed, or the name is misspelt",
        ) from error
