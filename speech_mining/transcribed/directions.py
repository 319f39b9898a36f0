"""Directions of translation that a set names, as "fr_en" or "en-de": their languages, and the one that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from speech_mining.sources.foreign_text import shown
from speech_mining.transcribed.languages import Wanted, language_code
from speech_mining.transcribed.listing import TranscribedSpeechError


class Direction(Protocol):
    """From a language that is spoken to one that is written, ISO 639-3; empty where nothing is translated."""

    @property
    def name(self) -> str:
        """As the set names it."""

    @property
    def language(self) -> str:
        """Of the speech."""

    @property
    def translation_language(self) -> str:
        """Of the translations."""


DirectionT = TypeVar("DirectionT", bound=Direction)


def named_language(path: Path, name: str, *, example: str) -> str:
    """ISO 639-3 of a language that a file or a folder is named after.

    Raises:
        TranscribedSpeechError: we do not know it.
    """
    code = language_code(name)
    if code is None:
        raise TranscribedSpeechError(
            f"{path} names the language {shown(name)}, which we do not know.", expected=f"names such as {example}"
        )
    return code


def the_one_wanted(folder: Path, directions: Sequence[DirectionT], wanted: Wanted, *, nothing: str) -> DirectionT:
    """The only direction in the languages wanted.

    Args:
        folder: for the error.
        directions: all that the folder holds.
        wanted: a language that is empty is any.
        nothing: what the folder holds where it holds none.

    Raises:
        TranscribedSpeechError: none, or several, fit.
    """
    fitting = [
        direction
        for direction in directions
        if wanted.language in ("", direction.language)
        and wanted.translation_language in ("", direction.translation_language)
    ]
    if len(fitting) == 1:
        return fitting[0]
    held = ", ".join(direction.name for direction in fitting or directions) or nothing
    raise TranscribedSpeechError(
        f"{folder} holds {held}.",
        expected="one direction in the languages wanted",
        fix="say language and translation_language" if fitting else "look at the languages you say",
    )
