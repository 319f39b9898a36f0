"""Encoders as a Dagster resource: which one speaks for which language, loaded once and only where it is used.

What belongs here is choice. How an encoder works is in `speech_mining.encoders`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import dagster as dg
from pydantic import Field

from speech_mining.encoders.protocol import SpeechEncoder
from speech_mining.errors import EncoderError

MINIATURE, SONAR = "miniature", "sonar"


class Encoders(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Loads the speech encoder of a language."""

    default: str = Field(default=MINIATURE, description="'miniature', 'sonar', or a path to a student's weights.")
    by_language: dict[str, str] = Field(default_factory=dict, description="Language → encoder, where it differs.")
    model_dir: str = Field(default="", description="Folder of SONAR cards and checkpoints; empty: fairseq2's own.")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1'.")

    def speech(self, language: str) -> SpeechEncoder:
        """The encoder that embeds speech of a language.

        Raises:
            EncoderError: the weights are missing, or the encoder was not trained for the language.
        """
        chosen = self.by_language.get(language, self.default)
        encoder = _sonar(language, self.model_dir, self.device) if chosen == SONAR else _student(chosen)
        if language not in encoder.languages:
            raise EncoderError(
                f"The encoder {encoder.name} does not know the language {language}.",
                expected=f"one of {', '.join(sorted(encoder.languages))}",
                cause="no encoder was chosen for this language",
                fix=f'set S2S_ENCODERS=\'{{"{language}": "sonar"}}\' or train a student for it',
            )
        return encoder


@lru_cache(maxsize=8)
def _sonar(language: str, model_dir: str, device: str) -> SpeechEncoder:
    from speech_mining.encoders.sonar import SonarSpeech

    return SonarSpeech(language, device=device, model_dir=Path(model_dir) if model_dir else None)


@lru_cache(maxsize=8)
def _student(chosen: str) -> SpeechEncoder:
    from speech_mining.encoders.student import Student

    return Student.load(None if chosen == MINIATURE else Path(chosen))
