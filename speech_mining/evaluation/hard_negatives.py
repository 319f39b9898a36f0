"""Sentences made wrong in one place: what an encoder that hears only the topic takes for the right one.

After Chen, Heffernan, Schwenk et al. 2023, "xSIM++: an improved proxy to bitext mining performance for low-resource
languages", which alters numbers, names and causality (negations, antonyms). Only what needs no list of a language's
words is made here: numbers, capitalised words and rare words. A negation cannot be made without knowing the language's
words for "not", and is left out: the figures are in the style of xsim++, and lower than its own would be.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from speech_mining.evaluation.wording import normalised

Kind: TypeAlias = Literal["number", "name", "word"]
KINDS: tuple[Kind, ...] = ("number", "name", "word")

_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+")
_TRIES = 8


@dataclass(frozen=True)
class Negative:
    """A text that differs in one place from the text of `row`."""

    row: int
    kind: Kind
    text: str


def hard_negatives(texts: Sequence[str], each: int = 1, seed: int = 0) -> list[Negative]:
    """Alter each text, up to `each` times in each of three ways that it allows.

    - number: one digit of one number becomes another digit, of the same script.
    - name: a capitalised word that does not begin the text becomes such a word of another text. In German those are all
      nouns; scripts without capitals have none.
    - word: the word that fewest of the texts have (the longest of such) becomes the rarest word of another text. Words
      are runs of letters, so a script without spaces yields none where a text is one run.

    What a text becomes depends on the texts and the seed, not on their order. An alteration that is equal, normalised,
    to one of the texts or to an earlier alteration is not made.

    Args:
        texts: as written, capitals and all.
        each: most alterations of one kind of one text.
        seed: of every choice.
    """
    written = [unicodedata.normalize("NFC", text) for text in texts]
    ways = _ways(written)
    taken = {normalised(text) for text in written}
    altered: dict[str, list[tuple[Kind, str]]] = {}
    for text in sorted(set(written)):
        altered[text] = []
        for kind in KINDS:
            chance = random.Random(f"{seed}-{kind}-{text}")
            altered[text] += [(kind, new) for new in _alterations(ways[kind], text, each, chance, taken)]
    return [Negative(row, kind, new) for row, text in enumerate(written) for kind, new in altered.pop(text, ())]


def _alterations(
    way: Callable[[str, random.Random], str | None], text: str, each: int, chance: random.Random, taken: set[str]
) -> list[str]:
    made: list[str] = []
    for _ in range(_TRIES * each):
        new = way(text, chance) if len(made) < each else None
        if new is None:
            break
        if normalised(new) not in taken:
            taken.add(normalised(new))
            made.append(new)
    return made


def _ways(texts: Sequence[str]) -> dict[Kind, Callable[[str, random.Random], str | None]]:
    frequency = Counter(word for text in texts for word in {found.lower() for found in _WORD.findall(text)})
    names = sorted({text[a:b] for text in texts for a, b in _names(text)})
    rare = sorted({text[a:b] for text in texts for a, b in _rarest(text, frequency)})
    return {
        "number": _other_number,
        "name": lambda text, chance: _exchanged(text, _names(text), names, chance),
        "word": lambda text, chance: _exchanged(text, _rarest(text, frequency), rare, chance),
    }


def _names(text: str) -> list[tuple[int, int]]:
    """Where words with a capital first letter stand, the text's first word apart."""
    return [found.span() for found in list(_WORD.finditer(text))[1:] if found.group()[0].isupper()]


def _rarest(text: str, frequency: Counter[str]) -> list[tuple[int, int]]:
    words = list(_WORD.finditer(text))
    if not words:
        return []
    rarest = min(words, key=lambda found: (frequency[found.group().lower()], -len(found.group()), found.start()))
    return [rarest.span()]


def _exchanged(
    text: str, places: Sequence[tuple[int, int]], donors: Sequence[str], chance: random.Random
) -> str | None:
    """One of the places filled with a donor that is not in the text; None where there is no place or no donor."""
    if not places:
        return None
    present = {found.lower() for found in _WORD.findall(text)}
    start, end = chance.choice(places)
    for donor in chance.sample(donors, min(len(donors), _TRIES)):
        if donor.lower() not in present:
            return text[:start] + donor + text[end:]
    return None


def _other_number(text: str, chance: random.Random) -> str | None:
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    start, end = chance.choice(numbers).span()
    place = chance.randrange(start, end)
    old = unicodedata.decimal(text[place])
    least = 1 if place == start and end - start > 1 else 0  # 1850 does not become 0850
    new = chance.choice([digit for digit in range(least, 10) if digit != old])
    return text[:place] + chr(ord(text[place]) - old + new) + text[place + 1 :]
