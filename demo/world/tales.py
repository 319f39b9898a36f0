"""Which sentences the miniature library tells, in which languages and in what order; pure and seeded.

The share that is translated, the near-duplicates and the role swaps are planned here. How a sentence is worded is
`demo.world.grammar`; recordings and files are `demo.make_library`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, pairwise
from typing import Literal, TypeAlias

from demo.world.grammar import Clause, NounPhrase, PrepositionalPhrase, Sentence, Story, concepts, realise
from demo.world.lexicon import ADJECTIVES, DITRANSITIVE, INTRANSITIVE, LANGUAGES, NOUNS, TRANSITIVE, Language, Verb

Kind: TypeAlias = Literal["story", "near_duplicate", "role_swap"]

CHAPTERS = 7
"""Chapters a language: three in each of its two books, and one in the book that all four share."""

_SEED = "miniature library"
# Characters: what each narrator says in 3.2 s at the fastest and in 9 s at the slowest (measured on 150 sentences).
_SHORTEST: Mapping[Language, int] = {"deu": 60, "eng": 60, "fra": 68, "spa": 55}
_LONGEST = 118
# How many sentences are told in exactly four, three, two languages and one, for each such set of languages: 76 a
# language, and 14 + 2 * 8 + 8 = 38 of them shared with each other language.
_TOLD_IN = {4: 14, 3: 8, 2: 8, 1: 14}
# Of the 14 that one language tells alone. An order-insensitive encoder cannot tell a role swap from its original, so
# there is one a language; a near-duplicate of a sentence this language does not tell has no right partner to lose to.
_NEAR_DUPLICATES, _ROLE_SWAPS = 4, 1
_FOREIGN_NEAR_DUPLICATES: Mapping[Language, int] = {"deu": 1, "eng": 0, "fra": 0, "spa": 1}
_MOVED_SHARE = 0.1
_JITTER = 4.0


@dataclass(frozen=True)
class Told:
    """An abstract sentence of the library: its key, why it is there, its place in the tale and who tells it."""

    key: str
    kind: Kind
    sentence: Sentence
    languages: tuple[Language, ...]
    order: float
    of: str = ""
    """The key of the sentence it nearly repeats, or whose roles it swaps."""


def library_sentences() -> set[str]:
    """The English wording of every sentence of the library, in whichever language it is told; train on none of them."""
    return {realise(told.sentence, "eng") for told in tales()}


@cache
def tales() -> tuple[Told, ...]:
    """Every abstract sentence of the library; two with different keys are never translations of each other."""
    chance = random.Random(f"{_SEED}: plan")
    fresh = _distinct(_story_sentences())
    swappable = (sentence for sentence in fresh if any(map(speakable, _role_swaps(sentence))))
    shared = [
        # what two languages share begins with a sentence whose roles a trap can swap: few allow it
        _story(swappable if size == 2 and number == 0 else fresh, languages, chance)
        for size in (4, 3, 2)
        for languages in combinations(LANGUAGES, size)
        for number in range(_TOLD_IN[size])
    ]
    traps = _traps(shared, chance)
    alone = [
        _story(fresh, (language,), chance)
        for language in LANGUAGES
        for _ in range(_TOLD_IN[1] - sum(trap.languages == (language,) for trap in traps))
    ]
    numbered = sorted([*shared, *alone, *traps], key=lambda told: told.order)
    return _keyed(numbered)


def chapters(language: Language) -> list[list[Told]]:
    """What a language tells, chapter by chapter, in the order it is spoken."""
    order = _orders()[language]
    bounds = [round(chapter * len(order) / CHAPTERS) for chapter in range(CHAPTERS + 1)]
    return [list(order[start:end]) for start, end in pairwise(bounds)]


# Inventing


def _story_sentences() -> Iterator[Sentence]:
    """Sentences of three tales in turn, each of a length that every narrator says in 3.2 to 9 s."""
    stories = [Story(f"{_SEED}: tale {number}") for number in range(3)]
    while True:
        for story in stories:
            sentence = story.sentence()
            if speakable(sentence):
                yield sentence


def speakable(sentence: Sentence) -> bool:
    """Whether every narrator says it in 3.2 to 9 s."""
    return all(_SHORTEST[language] <= len(realise(sentence, language)) <= _LONGEST for language in LANGUAGES)


def _distinct(sentences: Iterator[Sentence]) -> Iterator[Sentence]:
    """Drop what shares more than half of its concepts with a sentence before it: only planned traps may be close."""
    seen: list[set[str]] = []
    for sentence in sentences:
        named = set(concepts(sentence))
        if all(2 * len(named & other) <= min(len(named), len(other)) for other in seen):
            seen.append(named)
            yield sentence


def _story(fresh: Iterator[Sentence], languages: tuple[Language, ...], chance: random.Random) -> Told:
    sentence = next(fresh)
    return Told(realise(sentence, "eng"), "story", sentence, languages, chance.random())


def _keyed(numbered: Sequence[Told]) -> tuple[Told, ...]:
    """Replace the provisional keys (English wordings) by short ones in the order of the tale."""
    keys = {told.key: f"s{number:03d}" for number, told in enumerate(numbered, 1)}
    return tuple(replace(told, key=keys[told.key], of=keys.get(told.of, "")) for told in numbered)


# Traps


def _traps(shared: Sequence[Told], chance: random.Random) -> list[Told]:
    """Near-duplicates and role swaps, each told in one language; no sentence is the base of two."""
    free = [told for told in shared if len(told.languages) == 2]
    chance.shuffle(free)
    traps: list[Told] = []
    for language, kind, own in _planned_traps():
        candidates = [base for base in free if (language in base.languages) == own]
        trap = next(trap for trap in (_trap(base, kind, language, chance) for base in candidates) if trap)
        free = [base for base in free if base.key != trap.of]
        traps.append(trap)
    return traps


def _planned_traps() -> Iterator[tuple[Language, Kind, bool]]:
    """Who tells a trap, of which kind, and whether the same language tells its base; the pickiest kind first."""
    for language in LANGUAGES:
        for _ in range(_ROLE_SWAPS):
            yield language, "role_swap", True
    for language in LANGUAGES:
        for number in range(_NEAR_DUPLICATES + _FOREIGN_NEAR_DUPLICATES[language]):
            yield language, "near_duplicate", number < _NEAR_DUPLICATES


def _trap(base: Told, kind: Kind, language: Language, chance: random.Random) -> Told | None:
    variants = _role_swaps(base.sentence) if kind == "role_swap" else exchanges(base.sentence, chance)
    fitting = [variant for variant in variants if speakable(variant)]
    if not fitting:
        return None
    changed = chance.choice(fitting)
    return Told(realise(changed, "eng"), kind, changed, (language,), chance.random(), of=base.key)


def _role_swaps(sentence: Sentence) -> Iterator[Sentence]:
    """The sentence with subject and object exchanged, where the verb allows both: the same words, another story."""
    first, *others = sentence.clauses
    verb = TRANSITIVE.get(first.verb or "")
    if verb is None or first.object is None or first.object.number or first.subject_with:
        return
    if first.subject.kind in verb.objects and first.object.kind in verb.subjects:
        yield Sentence((replace(first, subject=first.object, object=first.subject), *others))


def exchanges(sentence: Sentence, chance: random.Random) -> Iterator[Sentence]:
    """The sentence with one noun, adjective or verb exchanged for another that fits its place."""
    used = frozenset(concepts(sentence))
    for index, clause in enumerate(sentence.clauses):
        for changed in _clause_exchanges(clause, used, chance):
            yield Sentence((*sentence.clauses[:index], changed, *sentence.clauses[index + 1 :]))


def _clause_exchanges(clause: Clause, used: frozenset[str], chance: random.Random) -> Iterator[Clause]:
    for subject in _phrase_exchanges(clause.subject, used, chance):
        yield replace(clause, subject=subject)
    if clause.object:
        for patient in _phrase_exchanges(clause.object, used, chance):
            yield replace(clause, object=patient)
    if clause.place:
        for place in _phrase_exchanges(clause.place.phrase, used, chance):
            yield replace(clause, place=PrepositionalPhrase(clause.place.preposition, place))
    verbs = [verb.concept for verb in _verbs_fitting(clause) if verb.concept not in used]
    if verbs:
        yield replace(clause, verb=chance.choice(verbs))


def _phrase_exchanges(phrase: NounPhrase, used: frozenset[str], chance: random.Random) -> Iterator[NounPhrase]:
    if phrase.determiner == "name":
        return
    nouns = [noun.concept for noun in NOUNS.values() if noun.kind == phrase.kind and noun.concept not in used]
    yield replace(phrase, noun=chance.choice(nouns))
    if phrase.adjective:
        fitting = (adjective for adjective in ADJECTIVES.values() if phrase.kind in adjective.kinds)
        yield replace(phrase, adjective=chance.choice([one.concept for one in fitting if one.concept not in used]))


def _verbs_fitting(clause: Clause) -> list[Verb]:
    """The verbs of the clause's own sort that take its subject and its object."""
    tables = [table for table in (TRANSITIVE, DITRANSITIVE, INTRANSITIVE) if clause.verb in table]
    return [
        verb
        for table in tables
        for verb in table.values()
        if clause.subject.kind in verb.subjects and (clause.object is None or clause.object.kind in verb.objects)
    ]


# Ordering


@cache
def _orders() -> Mapping[Language, tuple[Told, ...]]:
    """Each language's order: the tale's own, shuffled locally, with a tenth of the sentences moved anywhere.

    No two sentences stand side by side in two languages: their concatenations would be translations of each other
    that the truth does not list.
    """
    orders: dict[Language, tuple[Told, ...]] = {}
    side_by_side: set[frozenset[str]] = set()
    for language in LANGUAGES:
        chance = random.Random(f"{_SEED}: order of {language}")
        own = [told for told in tales() if language in told.languages]
        shuffled = _separated(_shuffled(own, chance), side_by_side, chance)
        side_by_side |= {_side_by_side(shuffled, index) for index in range(len(shuffled) - 1)}
        orders[language] = tuple(shuffled)
    return orders


def _shuffled(tale: Sequence[Told], chance: random.Random) -> list[Told]:
    places = [
        chance.uniform(0, len(tale)) if chance.random() < _MOVED_SHARE else chance.gauss(place, _JITTER)
        for place in range(len(tale))
    ]
    return [tale[index] for index in sorted(range(len(tale)), key=places.__getitem__)]


def _separated(order: Sequence[Told], taken: set[frozenset[str]], chance: random.Random) -> list[Told]:
    """Swap sentences with others nearby until no neighbouring two are in `taken`."""
    separated = list(order)
    while met := [index for index in range(len(separated) - 1) if _side_by_side(separated, index) in taken]:
        here = met[0] + chance.randrange(2)
        there = min(max(here + chance.randint(-5, 5), 0), len(separated) - 1)
        separated[here], separated[there] = separated[there], separated[here]
    return separated


def _side_by_side(order: Sequence[Told], index: int) -> frozenset[str]:
    return frozenset((order[index].key, order[index + 1].key))
