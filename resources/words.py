"""What is known of spoken words: timings, and dictionaries between languages. The embedded library brings its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from resources.settings import LIBRARY, MINIATURE, Settings

_WORDS = LIBRARY / "words"


def timings_of(settings: Settings, language: str) -> pl.DataFrame | None:
    """Columns `speech_mining.words.audiobooks.TIMINGS`; None where no words of a language are known."""
    from speech_mining.words.audiobooks import read_timings

    path = settings.words.timings.get(language) or _own(settings, f"{language}.parquet")
    return None if path is None else read_timings(path)


def dictionary_of(settings: Settings, pair: str, said: Iterable[str | None]) -> Mapping[str, Iterable[str]]:
    """Word → what is right for it in the other language of a pair; a word is its own in one language.

    Args:
        settings: which names files.
        pair: speech first.
        said: the spoken words there are.
    """
    from speech_mining.align.dictionary import read_translations

    path = settings.words.dictionaries.get(pair) or _own(settings, f"{pair}.tsv")
    if path is not None:
        return read_translations(path)
    source, _, target = pair.partition("-")
    return {word: [word] for word in said if word} if source == target else {}


def _own(settings: Settings, name: str) -> Path | None:
    path = _WORDS / name
    return path if settings.catalogue_url == MINIATURE and path.exists() else None
