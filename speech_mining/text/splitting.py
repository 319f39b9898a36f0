"""Sentences of a paragraph, as spans of its characters. Pure.

The splitter is sentencex (of Wikimedia; a language without rules has those of a relative), chosen by `benchmarks.text`
on `tests/gold_sentences.txt`: the best F1 of five, at 15 MB/s where blingfire is at 7 and the others below 0.5. Here it
is given what it needs (plain spaces: its German rules panic of a no-break space), and what it leaves is mended.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

Span = tuple[int, int]
"""First character, and the one after the last."""

_SPACES = {
    code: "\n" if chr(code) in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029" else " "
    for code in range(0x3001)
    if chr(code).isspace() or unicodedata.category(chr(code)) == "Cc"
} | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
# Stops of scripts whose rules sentencex lacks: Armenian, Ethiopic, Khmer, Tibetan, Mongolian, Ol Chiki, Vai, Meetei.
_STOPS = re.compile('[։።៕។༎།᠃᠉᱾᱿꘎꯫]+[»”’")\\]]*')
# Two marks together end a sentence, where something follows that can begin one.
_MARKS = re.compile(r"[!?？！]{2,}[»”’\")\]]*\s+")
_INITIALS = re.compile(r"[^\w?!。？！…]*(?:\w\.[-–]?\s*)+")
_OPENING = "\"'“”„«»‹›‘’‚([{—–-¿¡ "
_NEVER_LAST = {
    "deu": ("Fa.", "Frl.", "Hl.", "bzw.", "Jhd."),
    "fra": ("M.", "MM.", "Mgr.", "c."),
    "spa": ("aprox.", "p. m.", "a. m."),
    "hin": ("डॉ.", "श्री."),
    "eng": ("vol.", "no.", "fig."),
}


def sentence_spans(text: str, language: str) -> list[Span]:
    """Where the sentences of a text lie, in order, without the spaces around; a line break always ends one.

    Args:
        text: a paragraph, or lines of them.
        language: ISO 639-3; one that has no rules is split by those of a relative, or by the stops of its script.
            Thai and Lao write none: there a line is a sentence.
    """
    plain = text if text.isprintable() else text.translate(_SPACES)
    return [
        span for first, last in _lines(plain) for span in _trimmed(plain, first, _ends(plain[first:last], language))
    ]


def _lines(plain: str) -> Iterator[Span]:
    first = 0
    while first <= len(plain):
        last = plain.find("\n", first)
        last = len(plain) if last < 0 else last
        if last > first:
            yield first, last
        first = last + 1


def _ends(line: str, language: str) -> list[int]:
    """Where sentences of a line end: what the splitter says, and the marks of `_STOPS` and `_MARKS`, less bad ones."""
    found = {*_splitter_ends(line, _rules(language)), *(match.end() for match in _STOPS.finditer(line))}
    found |= {match.end() for match in _MARKS.finditer(line) if line[match.end() : match.end() + 1].isupper()}
    kept = [0]
    for end in sorted(found - {0, len(line)}):
        if not _goes_on(line[kept[-1] : end].strip(), line[end:], language):
            kept.append(end)
    return [*kept[1:], len(line)]


def _goes_on(before: str, after: str, language: str) -> bool:
    """Whether a sentence does not end here: nothing but an initial stands before, or what follows begins none."""
    if not before or _INITIALS.fullmatch(before):
        return True
    if after[:1] in "-–," or f" {before}".endswith(tuple(f" {word}" for word in _NEVER_LAST.get(language, ()))):
        return True
    follows = after[:12].lstrip(_OPENING)[:1]
    return follows.islower() and any(map(str.isupper, before))


def _splitter_ends(line: str, rules: str) -> list[int]:
    import sentencex

    try:
        return [found["end_index"] for found in sentencex.get_sentence_boundaries(rules, line)]
    except BaseException as problem:
        if type(problem).__name__ != "PanicException":  # of Rust; it is no Exception
            raise
        return [match.end() for match in re.finditer(r"[.!?。！？।؟]+\s*", line)]


def _trimmed(plain: str, first: int, ends: list[int]) -> Iterator[Span]:
    begin = first
    for end in ends:
        piece = plain[begin : first + end]
        bare = piece.strip(" ")
        if bare:
            start = begin + len(piece) - len(piece.lstrip(" "))
            yield start, start + len(bare)
        begin = first + end


@lru_cache(maxsize=256)
def _rules(language: str) -> str:
    """The name that sentencex has for a language: the shortest tag, "de" of "deu"."""
    import langcodes

    try:
        return langcodes.get(language).to_tag()
    except ValueError:
        return "en"
