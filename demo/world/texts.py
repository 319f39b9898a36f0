"""What is written in the miniature world: the sentences of its texts, language by language; pure and seeded.

Which of the narrated sentences have a text, and what stands beside them that nobody narrates, is planned here. How
sentences become lines and pages, with all that a crawl brings along, is `demo.world.pages`; files are
`demo.make_texts`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeAlias

from demo.world.grammar import Clause, Sentence, Story, concepts, realise
from demo.world.lexicon import ADJECTIVES, ADVERBS, INTRANSITIVE, TIMES, Language
from demo.world.tales import Told, exchanges, speakable, tales

WrittenKind: TypeAlias = Literal["translation", "near_miss", "longer", "half", "orphan", "story"]

_SEED = "miniature texts"
_TRANSLATED = 132
"""Of the 150 narrated sentences, how many a language has in writing: an eighth of what is said has no text."""
_OTHERS: Mapping[WrittenKind, int] = {
    "near_miss": 48,  # one noun, adjective or verb exchanged; the right text stands there too and must win
    "longer": 16,  # a time, an adverb or an adjective more; the right text stands there too
    "half": 12,  # one clause of two; the whole stands there too
    # A near miss of a sentence that has no text here. No threshold tells it from a translation: one concept of about
    # eight is another, at margins of 1.08 to 1.19, and those of right pairs are 1.10 to 1.26. The eight of all
    # languages are mined 17 times in the 16 directions.
    "orphan": 2,
    "story": 520,  # about nothing that is narrated
}


@dataclass(frozen=True)
class Written:
    """A sentence of a language's texts.

    `key` names the narrated sentence that it translates (`translation`) or was made from, and is empty for a story.
    """

    text: str
    kind: WrittenKind
    key: str = ""


@cache
def translated(language: Language) -> tuple[Told, ...]:
    """The narrated sentences that are written in a language, whoever narrates them, in the order of the tale.

    What a trap of the audio was made from and the trap itself are both written in every language: a trap is to be
    told from its original, not to take its place.
    """
    chance = random.Random(f"{_SEED}: translated into {language}")
    traps = {told.key for told in tales() if told.of} | {told.of for told in tales() if told.of}
    others = [told.key for told in tales() if told.key not in traps]
    chosen = traps | set(chance.sample(others, _TRANSLATED - len(traps)))
    return tuple(told for told in tales() if told.key in chosen)


@cache
def written(language: Language) -> tuple[Written, ...]:
    """All sentences of a language's texts, no two alike; only those of kind `translation` mean what is narrated."""
    translations = [Written(realise(told.sentence, language), "translation", told.key) for told in translated(language)]
    chance = random.Random(f"{_SEED}: {language}")
    seen = {one.text for one in translations}
    distinct = [*translations]
    for kind, count in _OTHERS.items():
        fresh = (one for one in _others(kind, language, chance) if one.text not in seen)
        for _ in range(count):
            one = next(fresh)
            seen.add(one.text)
            distinct.append(one)
    return tuple(distinct)


@cache
def narrated_meanings() -> frozenset[tuple[str, ...]]:
    """The concepts of each narrated sentence, sorted: what is nobody's translation has others."""
    return frozenset(_meaning(told.sentence) for told in tales())


def _meaning(sentence: Sentence) -> tuple[str, ...]:
    return tuple(sorted(concepts(sentence)))


def _others(kind: WrittenKind, language: Language, chance: random.Random) -> Iterator[Written]:
    """Endless sentences of a kind, or as many as there are."""
    if kind == "story":
        yield from (Written(realise(sentence, language), kind) for sentence in _stories(language))
        return
    known = {told.key for told in translated(language)}
    bases = [told for told in tales() if not told.of and (told.key in known) == (kind != "orphan")]
    for told in chance.sample(bases, len(bases)):
        made = _MAKERS[kind](told.sentence, chance)
        fresh = [sentence for sentence in made if _meaning(sentence) not in narrated_meanings()]
        if fresh:
            yield Written(realise(chance.choice(fresh), language), kind, told.key)


def _stories(language: Language) -> Iterator[Sentence]:
    """Sentences of six tales in turn that no narrator tells; every other language's texts tell others.

    Four of the six tell only what is as long as the narrated ones are: short ones are told from them too easily.
    """
    stories = [Story(f"{_SEED}: tale {number} of {language}") for number in range(6)]
    while True:
        for number, story in enumerate(stories):
            sentence = story.sentence()
            while number < 4 and not speakable(sentence):
                sentence = story.sentence()
            if _meaning(sentence) not in narrated_meanings():
                yield sentence


def _lengthened(sentence: Sentence, chance: random.Random) -> Iterator[Sentence]:
    """The sentence with one word or phrase more, in each clause where one fits."""
    for index, clause in enumerate(sentence.clauses):
        for longer in _longer_clauses(clause, chance):
            yield Sentence((*sentence.clauses[:index], longer, *sentence.clauses[index + 1 :]))


def _longer_clauses(clause: Clause, chance: random.Random) -> Iterator[Clause]:
    if clause.time is None and clause.conjunction is None:
        yield replace(clause, time=chance.choice(list(TIMES)))
    if clause.adverb is None and clause.verb in INTRANSITIVE:
        yield replace(clause, adverb=chance.choice(list(ADVERBS)))
    subject = clause.subject
    if clause.verb and subject.adjective is None and subject.determiner != "name":
        fitting = [adjective.concept for adjective in ADJECTIVES.values() if subject.kind in adjective.kinds]
        yield replace(clause, subject=replace(subject, adjective=chance.choice(fitting)))


def _halves(sentence: Sentence, chance: random.Random) -> Iterator[Sentence]:
    """Each clause of two, as a sentence of its own."""
    if len(sentence.clauses) > 1:
        yield from (Sentence((replace(clause, conjunction=None),)) for clause in sentence.clauses)


_MAKERS: Mapping[WrittenKind, Callable[[Sentence, random.Random], Iterator[Sentence]]] = {
    "near_miss": exchanges,
    "longer": _lengthened,
    "half": _halves,
    "orphan": exchanges,
}


def counts(sentences: Sequence[Written]) -> dict[str, int]:
    """How many there are of each kind."""
    return dict(Counter(one.kind for one in sentences))
