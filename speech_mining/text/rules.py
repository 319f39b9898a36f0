"""Which sentences are fit to be mined: every bound, and the reason of each drop. Pure, a sentence at a time.

What needs more than one sentence (language identification in batches, boilerplate of a document) is in `cleaning`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, TypeAlias

from speech_mining.errors import SettingsError
from speech_mining.text.scripts import UNSPACED, WIDE, script_of, scripts_of
from speech_mining.text.streams import UnreadReason

DropReason: TypeAlias = (
    UnreadReason
    | Literal[
        "document_language",  # the shard says that the whole document is in another language
        "invalid_utf8",  # bytes that are no UTF-8, here or where the shard was made
        "too_short",
        "too_long",
        "few_words",
        "many_words",
        "markup",  # HTML tags, braces of program text
        "addresses",  # URLs, e-mail addresses, hashtags
        "repeated_character",
        "few_letters",
        "many_digits",
        "much_punctuation",
        "many_symbols",
        "other_script",
        "other_language",
        "language_unknown",  # no model knows the language, and such are not kept
        "boilerplate",  # good in itself, in a document of little else than what was dropped
    ]
)

FORM_REASONS = frozenset(
    {"too_short", "few_words", "markup", "addresses", "repeated_character", "few_letters", "many_digits"}
    | {"much_punctuation", "many_symbols"}
)
"""Drops that tell of menus, lists and code: a document of mostly these is boilerplate."""


@dataclass(frozen=True)
class Cleaning:
    """Bounds of what is kept. Those of stopes' text pipeline where it has them, save punctuation: dialogue has more.

    Characters of scripts without an alphabet (Han, kana, Hangul) count twice; words are not counted where a script puts
    no spaces between them. Shares of punctuation, digits, symbols and addresses are of all characters.
    """

    least_characters: int = 10
    most_characters: int = 500
    least_words: int = 2
    most_words: int = 100
    least_letter_share: float = 0.5  # of what is not space
    most_digit_share: float = 0.2
    most_punctuation_share: float = 0.4
    most_symbol_share: float = 0.1
    most_address_share: float = 0.2
    most_repeated: int = 10  # the same character in a row
    least_script_share: float = 0.5  # of letters: in a script of the language
    drop_markup: bool = True
    mend_encoding: bool = True
    trust_document_language: bool = True  # drop documents that the shard says are in another language
    identify_language: bool = True
    least_language_share: float = 0.2  # how sure language identification must be, where another is likelier
    keep_unknown_language: bool = True  # sentences of a language that it does not know
    most_boilerplate_share: float = 0.8  # of a document's characters, dropped for their form
    least_boilerplate_sentences: int = 5  # of a document that is judged at all

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_share") and not 0 <= value <= 1:
                raise SettingsError(f"cleaning: {name} is {value}.", expected="a share, 0 to 1")
        for what in ("characters", "words"):
            least, most = getattr(self, f"least_{what}"), getattr(self, f"most_{what}")
            if not 0 <= least <= most:
                raise SettingsError(f"cleaning: {least} to {most} {what}.", expected="0 <= least <= most")


_SPACE, _MARK, _DIGIT, _PUNCTUATION, _SYMBOL, _OTHER = " mdpso"
_FIRST_SCRIPT = 0xE000
_HOSTS = r"\.(?:com|org|net|info|html?|php|de|fr|es|ru|cn|uk|io)\b"
_MAYBE_ADDRESS = re.compile(rf"://|www\.|@|#\w|{_HOSTS}")
"""2 µs where the whole pattern takes 18: most sentences hold no address."""
_ADDRESS = re.compile(rf"(?:https?://|www\.)\S+|\S+@\S+\.\w+|#\w+|\b[\w-]+{_HOSTS}/?\S*")
_MARKUP = re.compile(r"</?[a-zA-Z!][^<>]*>|[{}]|\\[a-z]+\[|=>|/\*|\*/")


class _Classes(dict[int, str]):
    """Code point → its class; a letter's is a character that stands for its script. Filled as characters are met."""

    def __init__(self) -> None:
        self.scripts: dict[str, str] = {}

    def __missing__(self, code: int) -> str:
        found = self[code] = self._class_of(chr(code))
        return found

    def letter_of(self, script: str) -> str:
        """The character that stands for letters of a script."""
        return self.scripts.setdefault(script, chr(_FIRST_SCRIPT + len(self.scripts)))

    def _class_of(self, character: str) -> str:
        category = unicodedata.category(character)
        if category[0] == "L":
            return self.letter_of(script_of(character))
        if category == "Co" or character == "\ufffd":
            return _SYMBOL
        return {"Z": _SPACE, "M": _MARK, "N": _DIGIT, "P": _PUNCTUATION, "S": _SYMBOL}.get(category[0], _OTHER)


_CLASSES = _Classes()


class Rules:
    """The bounds of a config for sentences of a language."""

    def __init__(self, language: str, config: Cleaning) -> None:
        self.config = config
        scripts = scripts_of(language)
        self._own = tuple(_CLASSES.letter_of(script) for script in sorted(scripts))
        self._wide = tuple(_CLASSES.letter_of(script) for script in sorted(WIDE))
        self._counts_words = not scripts & UNSPACED
        self._repeated = re.compile(rf"(\S)\1{{{config.most_repeated},}}")

    def reason(self, text: str) -> DropReason | None:
        """Why a tidied sentence is not kept, by the first bound that it breaks; None: it is."""
        if "\ufffd" in text:
            return "invalid_utf8"
        classes = text.translate(_CLASSES)
        return self._of_length(text, classes) or self._of_text(text) or self._of_characters(classes)

    def _of_length(self, text: str, classes: str) -> DropReason | None:
        config = self.config
        characters = len(text) + (0 if text.isascii() else sum(map(classes.count, self._wide)))
        if characters < config.least_characters:
            return "too_short"
        if characters > config.most_characters:
            return "too_long"
        words = text.count(" ") + 1
        if self._counts_words and words < config.least_words:
            return "few_words"
        return "many_words" if self._counts_words and words > config.most_words else None

    def _of_text(self, text: str) -> DropReason | None:
        config = self.config
        if config.drop_markup and _MARKUP.search(text):
            return "markup"
        if _MAYBE_ADDRESS.search(text):
            of_addresses = sum(len(found) for found in _ADDRESS.findall(text))
            if of_addresses > config.most_address_share * len(text):
                return "addresses"
        return "repeated_character" if self._repeated.search(text) else None

    def _of_characters(self, classes: str) -> DropReason | None:
        config, length = self.config, len(classes)
        spaces, marks, digits, punctuation = map(classes.count, (_SPACE, _MARK, _DIGIT, _PUNCTUATION))
        symbols = classes.count(_SYMBOL) + classes.count(_OTHER)
        if digits > config.most_digit_share * length:
            return "many_digits"
        if symbols > config.most_symbol_share * length:
            return "many_symbols"
        if punctuation > config.most_punctuation_share * length:
            return "much_punctuation"
        letters = length - spaces - marks - digits - punctuation - symbols
        if letters + marks < config.least_letter_share * (length - spaces):
            return "few_letters"
        own = sum(map(classes.count, self._own))
        return "other_script" if self._own and own < config.least_script_share * letters else None
