"""A sentence as a person reads it: no entities, no mojibake, no invisible characters, composed letters. Pure.

What belongs here changes how a text is written, never what it says. Case and quotes stay: what an encoder wants of
them is `sentences.Wording`.
"""

from __future__ import annotations

import html
import re
import unicodedata
from html.entities import html5

_ENTITY = re.compile(r"&(?:#?\w{1,30});")
# Format characters that nobody sees: soft hyphen, zero-width spaces, byte order marks, directions, tags. Joiners stay
# where they shape letters or emoji (from Arabic on), and go elsewhere.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|(?<![\u0600-\U0010ffff])[\u200c\u200d]"
)
# How UTF-8 that was read as Latin-1 or Windows-1252 begins: 1 µs to look for, where ftfy takes 15 to be sure.
_MAYBE_MOJIBAKE = re.compile("[\x80-\x9f]|[Â-ÅÎ-ÑØÙàâãïð×][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def tidied(text: str, *, mend_encoding: bool = True) -> str:
    """The text cleaned; of a text that is clean, itself.

    Args:
        text: a sentence as read.
        mend_encoding: undo "Ã¤" for "ä", where ftfy is sure of it.
    """
    if text.isascii() and text.isprintable() and "&" not in text and "  " not in text:
        return text.strip(" ")
    if "&" in text:
        text = _ENTITY.sub(_character, text)
    if mend_encoding and _MAYBE_MOJIBAKE.search(text):
        text = _mended(text)
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        text = _CONTROL.sub(" ", _INVISIBLE.sub("", text))
    return " ".join(text.split())


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; `html.unescape` alone would make "¬hing;" of "&nothing;"."""
    name = entity.group()[1:]
    return html.unescape(entity.group()) if name[0] == "#" or name in html5 else entity.group()


def _mended(text: str) -> str:
    from ftfy import fix_encoding

    return fix_encoding(text)
