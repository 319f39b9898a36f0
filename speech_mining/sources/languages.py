"""Language names, as catalogues write them, to ISO 639-3 codes.

The table is the one of the `langcodes` library (CLDR's names in every language), not ours. What a catalogue says
about its books is in `librivox`.
"""

from __future__ import annotations

from functools import lru_cache

MULTILINGUAL = "mul"
"""ISO 639-3 for "several languages": the book's sections say which."""

# Codes that name no language: undetermined, not applicable, uncoded.
_NO_LANGUAGE = frozenset({"und", "zxx", "mis"})
# Names that LibriVox uses and the library does not know.
_LIBRIVOX_NAMES = {"classical chinese": "lzh", "classical greek": "grc", "provencal": "prv"}
_LONGEST_NAME = 80


@lru_cache(maxsize=4096)
def iso_639_3(name: str) -> str | None:
    """The ISO 639-3 code of a language given by name ("Ancient Greek", "Bisaya/Cebuano", "Deutsch") or code ("de").

    Names are read before codes, save for two or three lower-case letters, which are a code. Where a name has a slash
    and is not known whole, the first part that is known decides. The first calls load the table (measured: 0.2 s, and
    1.8 s for forty rare names).

    Returns:
        Three lower-case letters, `MULTILINGUAL` for several languages, None for what the table does not know.
    """
    plain = " ".join(name.split())
    if not plain or len(plain) > _LONGEST_NAME or not plain.isprintable():
        return None
    for written in (plain, *plain.split("/")[:8]):
        code = _from_code(written) if _is_code(written) else _from_name(written)
        if code is not None:
            return code
    return None


def _is_code(written: str) -> bool:
    return len(written) in (2, 3) and written.isascii() and written.isalpha() and written.islower()


def _from_code(code: str) -> str | None:
    import langcodes

    try:
        language = langcodes.get(code)
        return _spoken(language.to_alpha3()) if language.is_valid() else None
    except (LookupError, ValueError):
        return None


def _from_name(name: str) -> str | None:
    import langcodes

    known = _LIBRIVOX_NAMES.get(name.strip().lower())
    if known is not None:
        return known
    try:
        return _spoken(langcodes.find(name).to_alpha3())
    except (LookupError, ValueError):  # ValueError: the library's trie refuses some byte sequences
        return None


def _spoken(code: str) -> str | None:
    private_use = "qaa" <= code <= "qtz"
    return None if code in _NO_LANGUAGE or private_use else code
