"""The miniature world's texts as a crawl brings them: lines, paragraphs and pages, with repeats and rubbish; seeded.

How sentences are dealt to shards and laid out belongs here. Which sentences there are is `demo.world.texts`, what
stands between them `demo.world.crawl`, and files are `demo.make_texts`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from demo.world.crawl import ABBREVIATED, BROKEN, CLEANED, FOREIGN, MENUS, REPEATED, RUBBISH, SPOILT, quoted
from demo.world.lexicon import LANGUAGES, Language
from demo.world.texts import Written, written

Place: TypeAlias = Literal["lines", "pages", "tales", "crawl"]

_SEED = "miniature pages"
_SHARES: Mapping[Place, float] = {"lines": 0.46, "pages": 0.3, "tales": 0.09, "crawl": 0.15}
_DAMAGED_SHARE = 0.12
"""Of sentences that stand in a shape that cleaning must undo, and in no other."""
_SPOILT_STORIES, _SPOILT_TRANSLATIONS = 10, 6
_EXACT_REPEATS, _NEAR_REPEATS = 60, 40
_ASTRAY = 8
"""Sentences of another language of the world that stand in each shard."""
_OVERLONG_WORDS = 700


@dataclass(frozen=True)
class Page:
    """A document of a crawl: its address, the language it is in and its lines, from the menu to the footer."""

    url: str
    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Everything that is written in a language, shard by shard."""

    lines: tuple[bytes, ...]
    """A sentence a line, as UTF-8; some lines are not."""
    pages: tuple[Page, ...]
    tales: tuple[str, ...]
    """A paragraph a line."""
    crawl: tuple[Page, ...]


def layout(language: Language) -> Layout:
    """All of a language's texts."""
    dealt = _dealt(language)
    chance = random.Random(f"{_SEED}: layout of {language}")
    return Layout(
        lines=tuple(_lines(dealt["lines"], language, chance)),
        pages=tuple(_pages(dealt["pages"], language, "pages", chance)),
        tales=tuple(_tales(dealt["tales"], language, chance)),
        crawl=tuple(_pages(dealt["crawl"], language, "crawl", chance)),
    )


def _dealt(language: Language) -> dict[Place, list[str]]:
    """Each sentence in one shard, the repeats and the sentences gone astray in any, all in the order of chance."""
    chance = random.Random(f"{_SEED}: {language}")
    sentences = written(language)
    spoilt = set(chance.sample([one.text for one in sentences if one.kind == "story"], _SPOILT_STORIES))
    dealt: dict[Place, list[str]] = {place: [] for place in _SHARES}
    for one in sentences:
        dealt[_place(chance)].append(_shaped(one, spoilt, chance))
    for repeat in _repeats(sentences, language, chance):
        dealt[_place(chance)].append(repeat)
    for place in dealt:
        dealt[place] += _astray(language, chance)
        chance.shuffle(dealt[place])
    return dealt


def _place(chance: random.Random) -> Place:
    return chance.choices(list(_SHARES), list(_SHARES.values()))[0]


def _shaped(one: Written, spoilt: set[str], chance: random.Random) -> str:
    if one.text in spoilt:
        return chance.choice(SPOILT)(one.text, chance)
    if chance.random() < _DAMAGED_SHARE:
        return chance.choice(CLEANED)(one.text, chance)
    return one.text


def _repeats(sentences: Sequence[Written], language: Language, chance: random.Random) -> Iterator[str]:
    """The same sentences again: letter for letter, nearly, in quotes, and some translations spoilt."""
    yield from (one.text for one in chance.sample(sentences, _EXACT_REPEATS))
    for one in chance.sample(sentences, _NEAR_REPEATS):
        change = chance.choice((*REPEATED, None))
        yield change(one.text, chance) if change else quoted(one.text, language)
    translations = [one.text for one in sentences if one.kind == "translation"]
    yield from (chance.choice(SPOILT)(text, chance) for text in chance.sample(translations, _SPOILT_TRANSLATIONS))


def _astray(language: Language, chance: random.Random) -> Iterator[str]:
    """Sentences of the other three languages, half of them translations of what is narrated: there, not here."""
    others = [one for other in LANGUAGES if other != language for one in written(other)]
    for kind in ("translation", "story"):
        yield from (one.text for one in chance.sample([one for one in others if one.kind == kind], _ASTRAY // 2))


def _foreign(chance: random.Random, count: int) -> list[str]:
    return chance.sample([sentence for tale in FOREIGN.values() for sentence in tale], count)


def _menu(language: Language, chance: random.Random, count: int) -> list[str]:
    told = chance.sample(MENUS[language], count)
    return [line.format(number=chance.randint(1, 40), pages=40) for line in told]


# Lines


def _lines(sentences: Sequence[str], language: Language, chance: random.Random) -> Iterator[bytes]:
    """Sentences, then menus, foreign lines and rubbish put between them; some bytes are no UTF-8."""
    told = [*sentences, *_foreign(chance, 12), *RUBBISH, *_menu(language, chance, 12), "", "   "]
    told += [_overlong(sentences, chance), "x" * 3000]
    told += [str(number) for number in range(1, 8)]
    chance.shuffle(told)
    encoded = [line.encode() for line in told]
    for line in BROKEN[language]:
        encoded.insert(chance.randrange(len(encoded)), line)
    yield from encoded


def _overlong(sentences: Sequence[str], chance: random.Random) -> str:
    """Words of many sentences without a full stop, as a page without markup has them."""
    words = [word.strip(".,").lower() for sentence in sentences for word in sentence.split()]
    return " ".join(chance.choices(words, k=_OVERLONG_WORDS))


# Paragraphs


def _paragraphs(sentences: Sequence[str], least: int, most: int, chance: random.Random) -> Iterator[str]:
    left = list(sentences)
    while left:
        count = chance.randint(least, most)
        yield " ".join(left[:count])
        left = left[count:]


def _tales(sentences: Sequence[str], language: Language, chance: random.Random) -> Iterator[str]:
    """Paragraphs of four to seven sentences, some with abbreviations, parted by page numbers and empty lines."""
    told = list(sentences)
    for sentence in ABBREVIATED[language]:
        told.insert(chance.randrange(len(told)), sentence)
    for number, paragraph in enumerate(_paragraphs(told, 4, 7, chance), 1):
        yield paragraph
        yield "" if number % 3 else f"– {number // 3} –"


# Pages


def _pages(sentences: Sequence[str], language: Language, place: str, chance: random.Random) -> Iterator[Page]:
    """Pages of 10 to 16 sentences with a menu and a footer; one is all menu, one is in a foreign language."""
    left, number = list(sentences), 0
    while left:
        count = chance.randint(10, 16)
        body = _paragraphs(left[:count], 1, 4, chance)
        lines = (*_menu(language, chance, 2), *body, *_menu(language, chance, 1), chance.choice(RUBBISH))
        number += 1
        yield Page(_url(language, place, number), language, lines)
        left = left[count:]
    yield Page(_url(language, place, number + 1), language, tuple(_menu(language, chance, 12)))
    stranger = chance.choice(sorted(FOREIGN))
    yield Page(_url(language, place, number + 2), stranger, (*_menu(language, chance, 1), *FOREIGN[stranger]))


def _url(language: Language, place: str, number: int) -> str:
    return f"https://{language}.tales.example/{place}/{number:03d}.html"
