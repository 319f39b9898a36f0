"""Languages of a set: what the user says, what the set says, and which of the two holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from speech_mining.errors import SettingsError
from speech_mining.sources.foreign_text import shown
from speech_mining.sources.languages import MULTILINGUAL, iso_639_3
from speech_mining.transcribed.listing import TranscribedSpeechError, UnusableClipError

# Common Voice and FLEURS add a region or a script: sv-SE, zh-CN, nan-tw, fr_fr, eng_Latn.
_REGIONAL = re.compile(r"([A-Za-z]{2,3})[-_][A-Za-z0-9]{2,8}([-_][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Wanted:
    """What the user says of a set's languages: ISO 639-3, empty where he says nothing."""

    language: str = ""
    translation_language: str = ""

    @classmethod
    def told(cls, language: str, translation_language: str) -> Wanted:
        """Languages by name or code.

        Raises:
            SettingsError: one is unknown, or both are the same.
        """
        codes = [_setting(language, "language"), _setting(translation_language, "translation_language")]
        if codes[0] and codes[0] == codes[1]:
            raise SettingsError(
                f"Speech and translation are both in {codes[0]}.",
                expected="two languages",
                fix="leave translation_language empty for transcribed speech without translation",
            )
        return cls(*codes)


def language_code(name: str) -> str | None:
    """ISO 639-3 of a language by name or code, with a region or without; None where it is not known."""
    plain = name.strip()
    regional = _REGIONAL.fullmatch(plain)
    code = regional[1] if regional else plain
    found = iso_639_3(code.lower() if len(code) <= 3 else code)
    return None if found == MULTILINGUAL else found


def settled(wanted: str, told: str, *, overrides: bool = False) -> str:
    """The language of a clip.

    Args:
        wanted: what the user says, ISO 639-3 or empty.
        told: what the set says of the clip, a name or code, or empty.
        overrides: whether the user's word holds where the two differ; else such a clip is not wanted.

    Raises:
        UnusableClipError: `unknown_language`, `language_not_wanted`.
    """
    if wanted and (overrides or not told):
        return wanted
    code = language_code(told)
    if code is None:
        raise UnusableClipError("unknown_language", f"{shown(told)} is not a language we know by that name or code")
    if wanted and code != wanted:
        raise UnusableClipError("language_not_wanted", f"{shown(told)} is {code}, wanted is {wanted}")
    return code


def require_language(where: str, columns: str, *, setting: str = "language") -> TranscribedSpeechError:
    """The error of a set that does not say its language."""
    return TranscribedSpeechError(
        f"{where} does not say which language {'its translations are in' if 'trans' in setting else 'is spoken'}.",
        expected=f"a column {columns}",
        fix=f'say it: {setting}="deu"',
    )


def _setting(name: str, setting: str) -> str:
    code = language_code(name) if name else ""
    if code is None:
        raise SettingsError(
            f"{setting} is {shown(name)}.", expected="a language by ISO 639 code or English name", fix='such as "deu"'
        )
    return code
