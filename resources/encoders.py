"""Encoders as a Dagster resource: which one speaks for which language, loaded once and only where it is used.

What belongs here is choice. Which class a name means is in `speech_mining.encoders.choice`, how an encoder works in its
own module.
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.gpu_steps import Means
from resources.settings import STUDENT, Settings
from speech_mining.encoders.choice import (
    SPEECH_CHOICES,
    TEXT_CHOICES,
    reads_any_language,
    speech_encoder,
    text_encoder,
)
from speech_mining.encoders.promoted import promoted_weights
from speech_mining.encoders.protocol import SpeechEncoder, TextEncoder
from speech_mining.errors import EncoderError
from speech_mining.lake import Lake


class Encoders(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Makes the speech and the text encoder of a language; weights are loaded when the first item is embedded."""

    default: str = Field(default="miniature", description=f"Of speech: {SPEECH_CHOICES}, or 'student:<name>'.")
    by_language: dict[str, str] = Field(default_factory=dict, description="Language → speech encoder, if it differs.")
    text_default: str = Field(default="sonar", description=f"Of text: {TEXT_CHOICES}.")
    text_by_language: dict[str, str] = Field(
        default_factory=dict, description="Language → text encoder, if it differs."
    )
    model_dir: str = Field(default="", description="Folder of cards and models of one's own; empty: S2S_MODEL_DIR.")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1'.")
    batch_share: float = Field(default=1.0, description="Of an encoder's batch; less after a death by memory.")

    @classmethod
    def of(cls, settings: Settings) -> Encoders:
        """The one that the settings ask for."""
        return cls(
            default=settings.encoder,
            by_language=settings.encoders,
            text_default=settings.text_encoder_of(""),
            text_by_language=settings.text_encoders,
            model_dir=str(settings.model_dir or ""),
            device=settings.device,
        )

    def given(self, means: Means) -> Encoders:
        """The same, on the device and with the share of a batch that a step was given."""
        named = {"device": means.device or self.device, "batch_share": means.batch_share}
        return Encoders(**{**{name: getattr(self, name) for name in type(self).model_fields}, **named})

    def speech(self, language: str, lake: Lake | None = None) -> SpeechEncoder:
        """The encoder that embeds speech of a language.

        Args:
            language: ISO 639-3.
            lake: where students are kept that were trained and promoted here; None where none is asked for.

        Raises:
            EncoderError: the weights are missing, the encoder was not trained for the language, or no version of the
                student was promoted yet.
        """
        chosen = self.by_language.get(language, self.default)
        encoder = self.named(chosen, language, lake)
        if language not in encoder.languages:
            raise EncoderError(
                f"The encoder {encoder.name} does not know the language {language}.",
                expected=f"one of {', '.join(sorted(encoder.languages))}",
                cause="no encoder was chosen for this language",
                fix=f'set S2S_ENCODERS=\'{{"{language}": "sonar"}}\' or train a student for it',
            )
        return encoder

    def named(self, chosen: str, language: str, lake: Lake | None = None) -> SpeechEncoder:
        """The encoder of speech that a name means; `student:<name>` is what was promoted of that student."""
        if lake is not None and chosen.startswith(STUDENT):
            chosen = str(promoted_weights(lake, chosen.removeprefix(STUDENT)))
        return speech_encoder(
            chosen, language, model_dir=self._folder, device=self.device, batch_share=self.batch_share
        )

    def text(self, language: str) -> TextEncoder:
        """The encoder that embeds sentences of a language.

        A model of the Hugging Face hub whose README lists no languages is taken for whichever it is chosen for.

        Raises:
            EncoderError: no such encoder, or it was not trained for the language.
        """
        chosen = self.text_by_language.get(language, self.text_default)
        encoder = self.text_named(chosen)
        if language not in encoder.languages and not reads_any_language(chosen, encoder):
            raise EncoderError(
                f"The text encoder {encoder.name} does not know the language {language}.",
                expected=f"one of {', '.join(sorted(encoder.languages))}",
                cause="no text encoder was chosen for this language",
                fix=f"choose {TEXT_CHOICES} for {language} in text_encoders",
            )
        return encoder

    def text_named(self, chosen: str) -> TextEncoder:
        """The encoder of text that a name means."""
        return text_encoder(chosen, model_dir=self._folder, device=self.device, batch_share=self.batch_share)

    @property
    def _folder(self) -> Path | None:
        return Path(self.model_dir) if self.model_dir else None
