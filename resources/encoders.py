"""Encoders as a Dagster resource: which one speaks for which language, loaded once and only where it is used.

What belongs here is choice. How an encoder works is in `speech_mining.encoders`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import dagster as dg
from pydantic import Field

from speech_mining.encoders.protocol import SpeechEncoder, TextEncoder
from speech_mining.errors import EncoderError

MINIATURE, SONAR, LASER, HUGGING_FACE = "miniature", "sonar", "laser", "hf"
SPEECH_CHOICES = "'miniature', 'sonar', 'sonar:<card>', or a path to a student's weights"
TEXT_CHOICES = "'sonar', 'sonar:<card>', 'laser', 'laser:<card>', or 'hf:<name or folder>'"


class Encoders(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Makes the speech and the text encoder of a language; weights are loaded when the first item is embedded."""

    default: str = Field(default=MINIATURE, description=f"Of speech: {SPEECH_CHOICES}.")
    by_language: dict[str, str] = Field(default_factory=dict, description="Language → speech encoder, if it differs.")
    text_default: str = Field(default=SONAR, description=f"Of text: {TEXT_CHOICES}.")
    text_by_language: dict[str, str] = Field(
        default_factory=dict, description="Language → text encoder, if it differs."
    )
    model_dir: str = Field(default="", description="Folder of cards and models of one's own; empty: S2S_MODEL_DIR.")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1'.")

    def speech(self, language: str) -> SpeechEncoder:
        """The encoder that embeds speech of a language.

        Raises:
            EncoderError: the weights are missing, or the encoder was not trained for the language.
        """
        chosen = self.by_language.get(language, self.default)
        encoder = _speech(chosen, language, self.model_dir, self.device)
        if language not in encoder.languages:
            raise EncoderError(
                f"The encoder {encoder.name} does not know the language {language}.",
                expected=f"one of {', '.join(sorted(encoder.languages))}",
                cause="no encoder was chosen for this language",
                fix=f'set S2S_ENCODERS=\'{{"{language}": "sonar"}}\' or train a student for it',
            )
        return encoder

    def text(self, language: str) -> TextEncoder:
        """The encoder that embeds sentences of a language.

        A model of the Hugging Face hub whose README lists no languages is taken for whichever it is chosen for.

        Raises:
            EncoderError: no such encoder, or it was not trained for the language.
        """
        chosen = self.text_by_language.get(language, self.text_default)
        encoder = _text(chosen, self.model_dir, self.device)
        vouched = not encoder.languages and chosen.startswith(f"{HUGGING_FACE}:")
        if not vouched and language not in encoder.languages:
            raise EncoderError(
                f"The text encoder {encoder.name} does not know the language {language}.",
                expected=f"one of {', '.join(sorted(encoder.languages))}",
                cause="no text encoder was chosen for this language",
                fix=f"choose {TEXT_CHOICES} for {language} in the resource's text_by_language",
            )
        return encoder


def _speech(chosen: str, language: str, model_dir: str, device: str) -> SpeechEncoder:
    kind, _, named = chosen.partition(":")
    if kind == SONAR:
        return _sonar(language, named, model_dir, device)
    if kind in (LASER, HUGGING_FACE) and (named or kind == LASER):
        raise EncoderError(
            f"{chosen!r} chosen as an encoder of speech.", expected=SPEECH_CHOICES, cause="it reads text"
        )
    return _student(chosen)


@lru_cache(maxsize=8)
def _sonar(language: str, card: str, model_dir: str, device: str) -> SpeechEncoder:
    from speech_mining.encoders.sonar import SonarSpeech

    return SonarSpeech({language: card} if card else language, device=device, model_dir=_folder(model_dir))


@lru_cache(maxsize=8)
def _student(chosen: str) -> SpeechEncoder:
    from speech_mining.encoders.student import Student

    return Student.load(None if chosen == MINIATURE else Path(chosen))


@lru_cache(maxsize=4)
def _text(chosen: str, model_dir: str, device: str) -> TextEncoder:
    """One encoder for all its languages: its weights are loaded once in a process."""
    kind, _, named = chosen.partition(":")
    if kind == SONAR:
        from speech_mining.encoders.sonar import TEXT_CARD, SonarText

        return SonarText(named or TEXT_CARD, device=device, model_dir=_folder(model_dir))
    if kind == LASER:
        from speech_mining.encoders.laser import LASER2_CARD, Laser

        return Laser(named or LASER2_CARD, device=device, model_dir=_folder(model_dir))
    if kind == HUGGING_FACE and named:
        from speech_mining.encoders.huggingface import HuggingFaceText

        return HuggingFaceText(named, device=device, model_dir=_folder(model_dir))
    raise EncoderError(
        f"There is no text encoder {chosen!r}.",
        expected=TEXT_CHOICES,
        cause="the name is mistyped, or it is an encoder of speech",
        fix="correct the resource's text_default or text_by_language",
    )


def _folder(model_dir: str) -> Path | None:
    return Path(model_dir) if model_dir else None
