"""Scripts: of characters, and of languages, by ISO 15924 ("Latn"). Pure.

Python knows no script property; the first words of a character's Unicode name say the same for every letter that is
named here, and others are of no known script.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

NO_SCRIPT = "Zyyy"
# First word of a letter's name → script. Han, kana and Hangul stand under what East Asian languages write together.
_NAMES = {
    "LATIN": "Latn",
    "FEMININE": "Latn",
    "MASCULINE": "Latn",
    "FULLWIDTH": "Latn",
    "CYRILLIC": "Cyrl",
    "GREEK": "Grek",
    "ARMENIAN": "Armn",
    "GEORGIAN": "Geor",
    "HEBREW": "Hebr",
    "ARABIC": "Arab",
    "SYRIAC": "Syrc",
    "THAANA": "Thaa",
    "NKO": "Nkoo",
    "DEVANAGARI": "Deva",
    "BENGALI": "Beng",
    "GURMUKHI": "Guru",
    "GUJARATI": "Gujr",
    "ORIYA": "Orya",
    "TAMIL": "Taml",
    "TELUGU": "Telu",
    "KANNADA": "Knda",
    "MALAYALAM": "Mlym",
    "SINHALA": "Sinh",
    "THAI": "Thai",
    "LAO": "Laoo",
    "TIBETAN": "Tibt",
    "MYANMAR": "Mymr",
    "ETHIOPIC": "Ethi",
    "CHEROKEE": "Cher",
    "CANADIAN": "Cans",
    "KHMER": "Khmr",
    "MONGOLIAN": "Mong",
    "HANGUL": "Hang",
    "HALFWIDTH": "Kana",
    "HIRAGANA": "Hira",
    "KATAKANA": "Kana",
    "KATAKANA-HIRAGANA": "Kana",
    "BOPOMOFO": "Bopo",
    "CJK": "Hani",
    "IDEOGRAPHIC": "Hani",
    "OL": "Olck",
    "TIFINAGH": "Tfng",
    "VAI": "Vaii",
    "YI": "Yiii",
    "MEETEI": "Mtei",
    "BALINESE": "Bali",
    "JAVANESE": "Java",
    "SUNDANESE": "Sund",
}
UNSPACED = frozenset({"Hani", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"})
"""Written without spaces between words: their words cannot be counted."""
WIDE = frozenset({"Hani", "Hira", "Kana", "Hang"})
"""A character says about as much as two of an alphabet."""
_TOGETHER = {
    "Jpan": ("Hani", "Hira", "Kana"),
    "Hrkt": ("Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani",),
    "Hant": ("Hani",),
}
# Written in more scripts than CLDR's likely one, on the web and in books alike.
_MORE = {
    "srp": ("Cyrl", "Latn"),
    "bos": ("Latn", "Cyrl"),
    "aze": ("Latn", "Cyrl", "Arab"),
    "kaz": ("Cyrl", "Latn", "Arab"),
    "uzb": ("Latn", "Cyrl"),
    "kur": ("Latn", "Arab"),
    "mon": ("Cyrl", "Mong"),
    "pan": ("Guru", "Arab"),
    "tat": ("Cyrl", "Latn"),
    "tuk": ("Latn", "Cyrl"),
    "uig": ("Arab", "Cyrl", "Latn"),
    "kas": ("Arab", "Deva"),
    "snd": ("Arab", "Deva"),
    "hau": ("Latn", "Arab"),
    "msa": ("Latn", "Arab"),
    "ber": ("Tfng", "Latn"),
    "kab": ("Latn", "Tfng"),
}


def script_of(letter: str) -> str:
    """The script of one letter; `NO_SCRIPT` for one that is not known here."""
    return _NAMES.get(unicodedata.name(letter, "").split(" ", 1)[0], NO_SCRIPT)


@lru_cache(maxsize=256)
def scripts_of(language: str) -> frozenset[str]:
    """The scripts a language (ISO 639-3) is written in; empty where that is not known, or only by its name."""
    if language in _MORE:
        return frozenset(_MORE[language])
    import langcodes

    try:
        likely = langcodes.get(language).maximize().script or ""
    except ValueError:
        return frozenset()
    scripts = _TOGETHER.get(likely, (likely,))
    return frozenset(one for one in scripts if one in _NAMES.values())
