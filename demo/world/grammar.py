"""The sentences of the miniature world: one abstract sentence, told in eng, deu, fra or spa.

Agreement, case, word order, contractions and elisions belong here, and the `Story` that invents sentences. Word forms
are `demo.world.lexicon`'s; how a sentence sounds is `demo.world.narrators`'.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from demo.world.lexicon import (
    ADJECTIVES,
    ADVERBS,
    CONJUNCTIONS,
    DITRANSITIVE,
    INTRANSITIVE,
    NAMES,
    NOUNS,
    NUMBERS,
    PREPOSITIONS,
    TIMES,
    TRANSITIVE,
    Gender,
    Language,
    Verb,
    french_plural,
    german_adjective,
    spanish_plural,
)

Case: TypeAlias = Literal["nominative", "accusative", "dative"]
Determiner: TypeAlias = Literal["definite", "indefinite", "number", "name"]

# French h is mute in every word of this world that begins with it.
_FRENCH_VOWELS = tuple("aeiouyàâéèêëîïôûùœh")
_GERMAN_ARTICLES: dict[tuple[Determiner, Case], dict[Gender, str]] = {
    ("definite", "nominative"): {"m": "der", "f": "die", "n": "das"},
    ("definite", "accusative"): {"m": "den", "f": "die", "n": "das"},
    ("definite", "dative"): {"m": "dem", "f": "der", "n": "dem"},
    ("indefinite", "nominative"): {"m": "ein", "f": "eine", "n": "ein"},
    ("indefinite", "accusative"): {"m": "einen", "f": "eine", "n": "ein"},
    ("indefinite", "dative"): {"m": "einem", "f": "einer", "n": "einem"},
}
_GERMAN_ENDINGS: dict[tuple[Determiner, Case], dict[Gender, str]] = {
    ("definite", "nominative"): {"m": "e", "f": "e", "n": "e"},
    ("definite", "accusative"): {"m": "en", "f": "e", "n": "e"},
    ("definite", "dative"): {"m": "en", "f": "en", "n": "en"},
    ("indefinite", "nominative"): {"m": "er", "f": "e", "n": "es"},
    ("indefinite", "accusative"): {"m": "en", "f": "e", "n": "es"},
    ("indefinite", "dative"): {"m": "en", "f": "en", "n": "en"},
}
_SUBORDINATE = ("c:because", "c:while")
# What nothing is at once; a story never says so.
_OPPOSITES = [
    {"a:old", "a:young"},
    {"a:old", "a:new"},
    {"a:small", "a:big"},
    {"a:poor", "a:rich"},
    {"a:strong", "a:weak"},
    {"a:happy", "a:sad"},
    {"a:cold", "a:warm"},
    {"a:beautiful", "a:ugly"},
]


@dataclass(frozen=True)
class NounPhrase:
    """A noun with its determiner; `noun` is a name's concept where `determiner` is "name"."""

    determiner: Determiner
    noun: str
    adjective: str | None = None
    number: str | None = None

    @property
    def kind(self) -> str:
        """The noun's kind; a name is a person."""
        return "P" if self.determiner == "name" else NOUNS[self.noun].kind


@dataclass(frozen=True)
class PrepositionalPhrase:
    """A preposition and what it governs."""

    preposition: str
    phrase: NounPhrase


@dataclass(frozen=True)
class Clause:
    """Who did what to whom, where, when and how; a clause without verb says what its subject was (`adjectives`)."""

    subject: NounPhrase
    verb: str | None = None
    adjectives: tuple[str, ...] = ()
    object: NounPhrase | None = None
    second_object: NounPhrase | None = None
    recipient: NounPhrase | None = None
    subject_with: PrepositionalPhrase | None = None
    place: PrepositionalPhrase | None = None
    adverb: str | None = None
    time: str | None = None
    conjunction: str | None = None


@dataclass(frozen=True)
class Sentence:
    """One or two clauses; equal sentences, and only they, are translations of each other."""

    clauses: tuple[Clause, ...]


# Noun phrases


def _english_phrase(phrase: NounPhrase) -> str:
    if phrase.determiner == "name":
        return NAMES[phrase.noun].forms["eng"]
    forms = NOUNS[phrase.noun].forms["eng"]
    adjective = ADJECTIVES[phrase.adjective].eng + " " if phrase.adjective else ""
    if phrase.number:
        return f"{NUMBERS[phrase.number].forms['eng']} {adjective}{forms.plural}"
    words = adjective + forms.singular
    if phrase.determiner == "definite":
        return "the " + words
    return ("an " if words[0] in "aeiou" else "a ") + words


def _german_phrase(phrase: NounPhrase, case: Case) -> str:
    if phrase.determiner == "name":
        return NAMES[phrase.noun].forms["deu"]
    forms = NOUNS[phrase.noun].forms["deu"]
    stem = ADJECTIVES[phrase.adjective].deu if phrase.adjective else None
    if phrase.number:
        words = [NUMBERS[phrase.number].forms["deu"], german_adjective(stem, "e") if stem else "", forms.plural]
    else:
        form = (phrase.determiner, case)
        adjective = german_adjective(stem, _GERMAN_ENDINGS[form][forms.gender]) if stem else ""
        noun = forms.singular if case == "nominative" else forms.oblique
        words = [_GERMAN_ARTICLES[form][forms.gender], adjective, noun]
    return _joined(words)


def _french_adjective(phrase: NounPhrase) -> str:
    """The adjective's form beside its noun: gender, number, and `vieil` for `vieux` before a vowel."""
    adjective, forms = ADJECTIVES[phrase.adjective or ""], NOUNS[phrase.noun].forms["fra"]
    singular = adjective.fra[forms.gender == "f"]
    if phrase.number:
        return french_plural(singular)
    if forms.gender == "m" and adjective.fra_before and forms.singular.startswith(_FRENCH_VOWELS):
        return adjective.fra_vowel
    return singular


def _french_phrase(phrase: NounPhrase) -> str:
    if phrase.determiner == "name":
        return NAMES[phrase.noun].forms["fra"]
    forms = NOUNS[phrase.noun].forms["fra"]
    words = [forms.plural if phrase.number else forms.singular]
    if phrase.adjective:
        words.insert(0 if ADJECTIVES[phrase.adjective].fra_before else 1, _french_adjective(phrase))
    told, masculine = " ".join(words), forms.gender == "m"
    if phrase.number:
        return f"{NUMBERS[phrase.number].forms['fra']} {told}"
    if phrase.determiner == "indefinite":
        return ("un " if masculine else "une ") + told
    return "l'" + told if told.startswith(_FRENCH_VOWELS) else ("le " if masculine else "la ") + told


def _spanish_phrase(phrase: NounPhrase) -> str:
    if phrase.determiner == "name":
        return NAMES[phrase.noun].forms["spa"]
    forms = NOUNS[phrase.noun].forms["spa"]
    adjective = ADJECTIVES[phrase.adjective].spa[forms.gender == "f"] if phrase.adjective else ""
    if phrase.number:
        plural = spanish_plural(adjective) if adjective else ""
        return _joined([NUMBERS[phrase.number].forms["spa"], forms.plural, plural])
    articles = ("el", "la") if phrase.determiner == "definite" else ("un", "una")
    return _joined([articles[forms.gender == "f"], forms.singular, adjective])


def _phrase(phrase: NounPhrase, language: Language, case: Case = "nominative") -> str:
    if language == "deu":
        return _german_phrase(phrase, case)
    tell: dict[Language, Callable[[NounPhrase], str]] = {
        "eng": _english_phrase,
        "fra": _french_phrase,
        "spa": _spanish_phrase,
    }
    return tell[language](phrase)


def _joined(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word)


# Prepositions and what they run together with


def _french_with(preposition: str, words: str) -> str:
    """Join a French preposition: `de le` is `du`, `à le` is `au`, `de un` is `d'un`."""
    first, _, rest = words.partition(" ")
    if first == "le" and preposition.endswith("de"):
        return f"{preposition[:-1]}u {rest}"
    if first == "le" and preposition == "à":
        return f"au {rest}"
    if preposition.endswith("de") and words.startswith(_FRENCH_VOWELS):
        return f"{preposition[:-1]}'{words}"
    return f"{preposition} {words}"


def _spanish_with(preposition: str, words: str) -> str:
    """Join a Spanish preposition: `de el` is `del`, `a el` is `al`."""
    first, _, rest = words.partition(" ")
    if first == "el" and (preposition == "a" or preposition.endswith("de")):
        return f"{preposition}l {rest}"
    return f"{preposition} {words}"


def _prepositional(phrase: PrepositionalPhrase, language: Language) -> str:
    preposition = PREPOSITIONS[phrase.preposition].forms[language]
    words = _phrase(phrase.phrase, language, "dative")
    if language == "fra":
        return _french_with(preposition, words)
    if language == "spa":
        return _spanish_with(preposition, words)
    if language == "deu" and preposition == "in" and words.startswith("dem "):
        return "im " + words[4:]
    return f"{preposition} {words}"


def _and(language: Language, words: str) -> str:
    # Spanish `e` for `y` is not needed: nothing that can follow here begins with the sound i
    return f"{CONJUNCTIONS['c:and'].forms[language]} {words}"


# Clauses


def _subject(clause: Clause, language: Language) -> str:
    words = _phrase(clause.subject, language)
    return f"{words} {_prepositional(clause.subject_with, language)}" if clause.subject_with else words


def _agreeing(concept: str, subject: NounPhrase, language: Language) -> str:
    adjective = ADJECTIVES[concept]
    if language in ("eng", "deu"):
        return adjective.eng if language == "eng" else adjective.deu
    feminine = NOUNS[subject.noun].forms[language].gender == "f"
    return (adjective.fra if language == "fra" else adjective.spa)[feminine]


def _copula(clause: Clause, language: Language) -> tuple[str, str]:
    """The verb `was` and what its subject was; Spanish takes `estaba` as soon as one adjective names a state."""
    verbs: dict[Language, str] = {"deu": "war", "eng": "was", "fra": "était", "spa": "era"}
    verb = verbs[language]
    if language == "spa" and any(ADJECTIVES[concept].state for concept in clause.adjectives):
        verb = "estaba"
    first, *others = (_agreeing(concept, clause.subject, language) for concept in clause.adjectives)
    return verb, _joined([first, *(_and(language, other) for other in others)])


def _object(clause: Clause, language: Language) -> str:
    """The direct object; Spanish marks a person with `a`."""
    if clause.object is None:
        return ""
    words = _phrase(clause.object, language, "accusative")
    if language == "spa" and clause.object.kind == "P" and not clause.object.number:
        words = _spanish_with("a", words)
    if clause.second_object:
        words += " " + _and(language, _phrase(clause.second_object, language, "accusative"))
    return words


def _objects(clause: Clause, language: Language) -> list[str]:
    told = _object(clause, language)
    if clause.recipient is None:
        return [told]
    recipient = _phrase(clause.recipient, language, "dative")
    if language == "deu":
        return [recipient, told]
    if language == "eng":
        return [told, "to " + recipient]
    return [told, _french_with("à", recipient) if language == "fra" else _spanish_with("a", recipient)]


def _verb(concept: str) -> Verb:
    for verbs in (TRANSITIVE, DITRANSITIVE, INTRANSITIVE):
        if concept in verbs:
            return verbs[concept]
    raise KeyError(concept)


def _predicate(clause: Clause, language: Language) -> tuple[str, str]:
    """The finite verb, and everything that follows it in a main clause."""
    if clause.verb is None:
        return _copula(clause, language)
    verb = _verb(clause.verb).forms[language]
    adverb = ADVERBS[clause.adverb].forms[language] if clause.adverb else ""
    place = _prepositional(clause.place, language) if clause.place else ""
    if language == "eng" and clause.object:
        return _joined([adverb, verb]), _joined([*_objects(clause, language), place])
    return verb, _joined([adverb, *_objects(clause, language), place])


def _clause(clause: Clause, language: Language) -> str:
    """A clause in order: German puts the verb last after `weil` and `während`, and before the subject after a time."""
    subject, (verb, rest) = _subject(clause, language), _predicate(clause, language)
    if language == "deu" and clause.conjunction in _SUBORDINATE:
        return _joined([subject, rest, verb])
    if language == "deu" and clause.time:
        return _joined([verb, subject, rest])
    return _joined([subject, verb, rest])


def _introduced(clause: Clause, language: Language) -> str:
    words = _clause(clause, language)
    if clause.conjunction:
        conjunction = CONJUNCTIONS[clause.conjunction].forms[language]
        if language == "fra" and conjunction.endswith("que") and words.lower().startswith(_FRENCH_VOWELS):
            return f"{conjunction[:-1]}'{words}"
        return f"{conjunction} {words}"
    if clause.time:
        return TIMES[clause.time].forms[language] + (" " if language == "deu" else ", ") + words
    return words


def realise(sentence: Sentence, language: Language) -> str:
    """Tell an abstract sentence in a language, with a capital and a full stop."""
    words = ", ".join(_introduced(clause, language) for clause in sentence.clauses)
    return words[0].upper() + words[1:] + "."


# Concepts


def _phrase_concepts(phrase: NounPhrase | None) -> Iterator[str | None]:
    if phrase:
        yield from (phrase.number, phrase.adjective, phrase.noun)


def _prepositional_concepts(phrase: PrepositionalPhrase | None) -> Iterator[str | None]:
    if phrase:
        yield phrase.preposition
        yield from _phrase_concepts(phrase.phrase)


def _clause_concepts(clause: Clause) -> Iterator[str | None]:
    yield from (clause.conjunction, clause.time)
    yield from _phrase_concepts(clause.subject)
    yield from _prepositional_concepts(clause.subject_with)
    for place, adjective in enumerate(clause.adjectives):
        yield from ("c:and" if place else None, adjective)
    yield from (clause.adverb, clause.verb)
    yield from _phrase_concepts(clause.object)
    if clause.second_object:
        yield "c:and"
        yield from _phrase_concepts(clause.second_object)
    yield from _phrase_concepts(clause.recipient)
    yield from _prepositional_concepts(clause.place)


def concepts(sentence: Sentence) -> tuple[str, ...]:
    """The concepts of a sentence with repeats, in the order English tells them; the same for every language.

    Articles, the copula, English `to` and Spanish personal `a` are no concepts.
    """
    return tuple(concept for clause in sentence.clauses for concept in _clause_concepts(clause) if concept)


# Stories


def _of_kind(kind: str) -> list[str]:
    return [noun.concept for noun in NOUNS.values() if noun.kind == kind]


class Story:
    """An endless tale: a cast, props and places drawn once, then sentences about them and about the rest of the world.

    Args:
        seed: the story's name; equal seeds tell the same sentences on any machine.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        drawn = {"P": 4, "A": 3, "F": 3, "T": 7, "L": 5}
        self._all = {kind: _of_kind(kind) for kind in drawn}
        self._own = {kind: self._random.sample(self._all[kind], count) for kind, count in drawn.items()}
        self._names = self._random.sample(list(NAMES), 2)

    def sentence(self) -> Sentence:
        """The story's next sentence: one clause in three fifths, else two."""
        used: set[str] = set()
        first = self._clause(used)
        if self._random.random() < 0.45:
            first = replace(first, time=self._random.choice(list(TIMES)))
        if self._random.random() >= 0.40:
            return Sentence((first,))
        second = self._clause(
            used,
            sort=self._random.choice(["intransitive", "intransitive", "transitive", "copula"]),
            with_place=self._random.random() < 0.4,
        )
        return Sentence((first, replace(second, conjunction=self._random.choice(list(CONJUNCTIONS)))))

    def _noun(self, kinds: str) -> tuple[Determiner | None, str]:
        kind = self._random.choice(kinds)
        if kind == "P" and self._random.random() < 0.12:
            return "name", self._random.choice(self._names)
        # 45 % from the whole lexicon, so that every concept is heard
        pool = self._own if self._random.random() < 0.55 else self._all
        return None, self._random.choice(pool[kind])

    def _unused_noun(self, kinds: str, used: set[str]) -> tuple[Determiner | None, str]:
        while True:
            determiner, noun = self._noun(kinds)
            if noun not in used:
                used.add(noun)
                return determiner, noun

    def _phrase(
        self, kinds: str, used: set[str], *, adjective: float = 0.45, number: float = 0.0, indefinite: float = 0.35
    ) -> NounPhrase:
        determiner, noun = self._unused_noun(kinds, used)
        if determiner == "name":
            return NounPhrase("name", noun)
        kind, told = NOUNS[noun].kind, None
        if self._random.random() < adjective:
            told = self._random.choice(_adjectives_of(kind))
        chosen: Determiner = "indefinite" if self._random.random() < indefinite else "definite"
        if kind != "L" and self._random.random() < number:
            return NounPhrase("number", noun, told, self._random.choice(list(NUMBERS)))
        return NounPhrase(chosen, noun, told)

    def _place(self, used: set[str]) -> PrepositionalPhrase:
        if self._random.random() < 0.75:
            phrase = self._phrase("L", used, adjective=0.3, indefinite=0.15)
            preposition = "p:in" if self._random.random() < 0.5 else self._random.choice(_prepositions_before("L"))
        else:
            phrase = self._phrase("T", used, adjective=0.3, indefinite=0.3)
            preposition = self._random.choice(_prepositions_before("T"))
        return PrepositionalPhrase(preposition, phrase)

    def _clause(self, used: set[str], sort: str | None = None, with_place: bool = True) -> Clause:
        sorts = ["transitive", "intransitive", "ditransitive", "copula"]
        sort = sort or self._random.choices(sorts, [0.55, 0.20, 0.12, 0.13])[0]
        if sort == "copula":
            return self._copula(used)
        tell = {"transitive": self._transitive, "intransitive": self._intransitive, "ditransitive": self._ditransitive}
        clause = tell[sort](used)
        if with_place and self._random.random() < (0.8 if sort == "intransitive" else 0.35):
            clause = replace(clause, place=self._place(used))
        if sort != "ditransitive" and clause.subject.determiner != "name" and self._random.random() < 0.12:
            thing = self._phrase("T", used, adjective=0.4, indefinite=0.5)
            clause = replace(clause, subject_with=PrepositionalPhrase("p:with", thing))
        return clause

    def _copula(self, used: set[str]) -> Clause:
        subject = NounPhrase("name", "")
        while subject.determiner == "name":  # a name has no grammatical gender to agree with
            subject = self._phrase("PATL", used, adjective=0.0, indefinite=0.1)
        first = self._random.choice(_adjectives_of(subject.kind))
        alike = [
            concept
            for concept in _adjectives_of(subject.kind)
            if concept != first
            and ADJECTIVES[concept].state == ADJECTIVES[first].state
            and {concept, first} not in _OPPOSITES
        ]
        others = [self._random.choice(alike)] if alike and self._random.random() < 0.5 else []
        return Clause(subject, adjectives=(first, *others))

    def _transitive(self, used: set[str]) -> Clause:
        verb = self._random.choice(list(TRANSITIVE.values()))
        subject = self._phrase(verb.subjects, used)
        patient = self._phrase(verb.objects, used, number=0.15)
        second = None
        if patient.kind in "FT" and self._random.random() < 0.2:
            second = self._phrase("FT", used, adjective=0.2, number=0.15)
        return Clause(subject, verb.concept, object=patient, second_object=second)

    def _intransitive(self, used: set[str]) -> Clause:
        verb = self._random.choice(list(INTRANSITIVE.values()))
        subject = self._phrase(verb.subjects, used)
        adverb = self._random.choice(list(ADVERBS)) if self._random.random() < 0.35 else None
        return Clause(subject, verb.concept, adverb=adverb)

    def _ditransitive(self, used: set[str]) -> Clause:
        verb = self._random.choice(list(DITRANSITIVE))
        subject = self._phrase("P", used)
        thing = self._phrase("FT", used, number=0.15)
        return Clause(subject, verb, object=thing, recipient=self._phrase("P", used, adjective=0.3))


def _adjectives_of(kind: str) -> list[str]:
    return [adjective.concept for adjective in ADJECTIVES.values() if kind in adjective.kinds]


def _prepositions_before(kind: str) -> list[str]:
    return [preposition.concept for preposition in PREPOSITIONS.values() if kind in preposition.follows]
