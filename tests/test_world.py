from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.world.grammar import (
    Clause,
    NounPhrase,
    PrepositionalPhrase,
    Sentence,
    Story,
    concepts,
    realise,
)
from demo.world.lexicon import (
    ADJECTIVES,
    LANGUAGES,
    NOUNS,
    french_plural,
    german_adjective,
    spanish_plural,
    surface_forms,
)
from demo.world.narrators import (
    AUDIBLE,
    NARRATORS,
    NATIVE_RATE_HZ,
    SPEAK_RATE_HZ,
    NarrationError,
    audible_span,
    pause_s,
    speak,
    synthesise,
)

ENGLISH = NARRATORS["eng"]
seeds = st.integers(0, 10_000).map(str)


def the(noun: str, adjective: str | None = None) -> NounPhrase:
    return NounPhrase("definite", f"n:{noun}", adjective and f"a:{adjective}")


def a(noun: str, adjective: str | None = None) -> NounPhrase:
    return NounPhrase("indefinite", f"n:{noun}", adjective and f"a:{adjective}")


def many(number: str, noun: str, adjective: str | None = None) -> NounPhrase:
    return NounPhrase("number", f"n:{noun}", adjective and f"a:{adjective}", f"#:{number}")


def at(preposition: str, phrase: NounPhrase) -> PrepositionalPhrase:
    return PrepositionalPhrase(f"p:{preposition}", phrase)


ANNA = NounPhrase("name", "N:Anna")

BY_HAND = {
    "time, cases, im": (
        [Clause(the("king", "old"), "v:saw", object=a("wolf", "big"), place=at("in", the("forest")), time="t:one day")],
        "Eines Tages sah der alte König einen großen Wolf im Wald.",
        "One day, the old king saw a big wolf in the forest.",
        "Un jour, le vieux roi vit un grand loup dans la forêt.",
        "Un día, el rey viejo vio un lobo grande en el bosque.",
    ),
    "recipient, oblique noun, au, al": (
        [Clause(a("prince", "young"), "v:gave", object=the("apple", "red"), recipient=the("neighbour"))],
        "Ein junger Prinz gab dem Nachbarn den roten Apfel.",
        "A young prince gave the red apple to the neighbour.",
        "Un jeune prince donna la pomme rouge au voisin.",
        "Un príncipe joven dio la manzana roja al vecino.",
    ),
    "recipient after a vowel, personal a": (
        [Clause(ANNA, "v:sent", object=a("letter"), recipient=the("uncle", "rich"))],
        "Anna schickte dem reichen Onkel einen Brief.",
        "Anna sent a letter to the rich uncle.",
        "Anna envoya une lettre à l'oncle riche.",
        "Anna envió una carta al tío rico.",
    ),
    "du, del, weil, personal a": (
        [
            Clause(the("dog"), "v:waited", adverb="d:quietly", place=at("near", the("market"))),
            Clause(the("woman", "sad"), "v:forgot", object=the("baker"), conjunction="c:because"),
        ],
        "Der Hund wartete leise neben dem Markt, weil die traurige Frau den Bäcker vergaß.",
        "The dog waited quietly near the market, because the sad woman forgot the baker.",
        "Le chien attendit doucement près du marché, parce que la femme triste oublia le boulanger.",
        "El perro esperó silenciosamente cerca del mercado, porque la mujer triste olvidó al panadero.",
    ),
    "elisions": (
        [
            Clause(the("bird", "beautiful"), "v:sang", place=at("near", a("island"))),
            Clause(ANNA, "v:broke", object=the("clock", "old"), conjunction="c:while"),
        ],
        "Der schöne Vogel sang neben einer Insel, während Anna die alte Uhr zerbrach.",
        "The beautiful bird sang near an island, while Anna broke the old clock.",
        "Le bel oiseau chanta près d'une île, pendant qu'Anna brisa la vieille horloge.",
        "El pájaro hermoso cantó cerca de una isla, mientras Anna rompió el reloj viejo.",
    ),
    "numbers, plurals, two objects": (
        [Clause(the("knight"), "v:took", object=many("two", "coin", "golden"), second_object=the("ring", "expensive"))],
        "Der Ritter nahm zwei goldene Münzen und den teuren Ring.",
        "The knight took two golden coins and the expensive ring.",
        "Le chevalier prit deux pièces dorées et l'anneau cher.",
        "El caballero tomó dos monedas doradas y el anillo caro.",
    ),
    "plurals before and after the noun": (
        [Clause(the("queen"), "v:painted", object=many("a hundred", "lion", "young"))],
        "Die Königin malte hundert junge Löwen.",
        "The queen painted a hundred young lions.",
        "La reine peignit cent jeunes lions.",
        "La reina pintó cien leones jóvenes.",
    ),
    "traits with ser": (
        [Clause(the("witch"), adjectives=("a:old", "a:ugly"))],
        "Die Hexe war alt und hässlich.",
        "The witch was old and ugly.",
        "La sorcière était vieille et laide.",
        "La bruja era vieja y fea.",
    ),
    "states with estar, inversion": (
        [Clause(the("sheep"), adjectives=("a:tired", "a:hungry"), time="t:in winter")],
        "Im Winter war das Schaf müde und hungrig.",
        "In winter, the sheep was tired and hungry.",
        "En hiver, le mouton était fatigué et affamé.",
        "En invierno, la oveja estaba cansada y hambrienta.",
    ),
    "a subject with a thing": (
        [
            Clause(
                a("giant", "wicked"),
                "v:stole",
                object=many("five", "horse", "beautiful"),
                subject_with=at("with", a("hat", "dark")),
                adverb="d:secretly",
            )
        ],
        "Ein böser Riese mit einem dunklen Hut stahl heimlich fünf schöne Pferde.",
        "A wicked giant with a dark hat secretly stole five beautiful horses.",
        "Un géant méchant avec un chapeau sombre vola secrètement cinq beaux chevaux.",
        "Un gigante malvado con un sombrero oscuro robó secretamente cinco caballos hermosos.",
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_sentences_worked_by_hand(case: str) -> None:
    clauses, deu, eng, fra, spa = BY_HAND[case]
    told = {language: realise(Sentence(tuple(clauses)), language) for language in LANGUAGES}
    assert told == {"deu": deu, "eng": eng, "fra": fra, "spa": spa}


def test_concepts_worked_by_hand() -> None:
    knight = the("knight")
    sentence = Sentence(
        (
            Clause(knight, "v:took", object=many("two", "coin", "golden"), second_object=the("ring"), time="t:then"),
            Clause(ANNA, "v:wept", place=at("in", the("hut")), adverb="d:often", conjunction="c:but"),
        )
    )
    expected = "t:then n:knight v:took #:two a:golden n:coin c:and n:ring c:but N:Anna d:often v:wept p:in n:hut"
    assert concepts(sentence) == tuple(expected.split())


def test_adjective_forms_worked_by_hand() -> None:
    assert [german_adjective(stem, "en") for stem in ("dunkel", "teuer", "müde", "alt")] == [
        "dunklen", "teuren", "müden", "alten",
    ]  # fmt: skip
    assert [french_plural(form) for form in ("vieux", "beau", "gris", "bleu")] == ["vieux", "beaux", "gris", "bleus"]
    assert [spanish_plural(form) for form in ("feliz", "azul", "joven", "rojo")] == [
        "felices", "azules", "jóvenes", "rojos",
    ]  # fmt: skip


def test_no_form_names_two_concepts() -> None:
    for language in LANGUAGES:
        owners: dict[str, str] = {}
        for concept, forms in surface_forms(language).items():
            for form in forms:
                assert owners.setdefault(form.lower(), concept) == concept, (language, form)


def test_the_world_has_some_three_hundred_concepts_in_every_language() -> None:
    counts = {language: len(surface_forms(language)) for language in LANGUAGES}
    assert set(counts.values()) == {len(surface_forms("eng"))}
    assert counts["eng"] > 300
    assert all(noun.forms[language].singular for noun in NOUNS.values() for language in LANGUAGES)
    assert all(kind in "PAFTL" for adjective in ADJECTIVES.values() for kind in adjective.kinds)


@given(seeds)
def test_a_story_repeats_itself_for_the_same_seed_only(seed: str) -> None:
    def opening(name: str) -> list[Sentence]:
        story = Story(name)
        return [story.sentence() for _ in range(5)]

    assert opening(seed) == opening(seed)
    assert opening(seed) != opening(seed + "x")


@given(seeds)
def test_no_sentence_breaks_a_contraction_or_an_elision(seed: str) -> None:
    wrong = {
        "deu": (" in dem ",),
        "eng": (" a a", " a e", " a i", " a o", " a u", "  "),
        "fra": (" de le ", " à le ", " de un", " que un", " que Anna", " le é", " la é", " le o", " le a", " beau o"),
        "spa": (" de el ", " a el ", "zes "),
    }
    story = Story(seed)
    for sentence in (story.sentence() for _ in range(5)):
        for language in LANGUAGES:
            told = f" {realise(sentence, language).lower()} "
            assert not [form for form in wrong[language] if form.lower() in told], told
            assert realise(sentence, language)[0].isupper()
            assert realise(sentence, language).endswith(".")


@given(seeds)
def test_every_concept_of_a_sentence_is_worded_in_every_language(seed: str) -> None:
    sentence = Story(seed).sentence()
    for language in LANGUAGES:
        told, forms = realise(sentence, language).lower(), surface_forms(language)
        missing = [one for one in concepts(sentence) if not any(form.lower() in told for form in forms[one])]
        assert not missing, (told, missing)


def test_one_narrator_a_language_each_a_different_reader() -> None:
    assert set(NARRATORS) == set(LANGUAGES)
    assert all(narrator.language == language for language, narrator in NARRATORS.items())
    for attribute in ("name", "reader_id", "voice", "pitch"):
        assert len({getattr(narrator, attribute) for narrator in NARRATORS.values()}) == 4


def test_without_the_synthesiser_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(NarrationError, match=r"pip install speech-mining\[narration\]"):
        speak("Hello.", ENGLISH)


def test_the_audible_span_leaves_silence_and_quiet_noise_out() -> None:
    samples = np.array([0, AUDIBLE / 2, 0.5, 0, -0.1, AUDIBLE / 2, 0], dtype=np.float32)
    assert audible_span(samples) == (2, 5)
    assert audible_span(np.zeros(4, dtype=np.float32)) == (0, 0)
    assert audible_span(np.zeros(0, dtype=np.float32)) == (0, 0)


def digests(text: str) -> str:
    """What the four narrators make of a text, in bytes and word events."""
    told = [speak(text, NARRATORS[language]) for language in LANGUAGES]
    return hashlib.sha256(b"".join(samples.tobytes() + repr(words).encode() for samples, words in told)).hexdigest()


def test_the_same_text_sounds_the_same_after_other_texts_and_in_another_process() -> None:
    pytest.importorskip("espeakng_loader", reason="the synthesiser is only needed to make the library again")
    text = "Anna sang, Peter sang."
    first = digests(text)
    assert digests("Maria, Oscar.") != first
    assert digests(text) == first
    script = f"from tests.test_world import digests; print(digests({text!r}))"
    elsewhere = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert elsewhere.stdout.strip() == first


def test_speech_is_trimmed_and_its_words_are_in_order() -> None:
    pytest.importorskip("espeakng_loader")
    text = "The old king slept, but the dog ran."
    samples, words = speak(text, ENGLISH)
    assert samples.dtype == np.float32
    assert 1.5 < len(samples) / SPEAK_RATE_HZ < 3.5
    assert [text[first : first + length] for first, length, _ in words] == "The old king slept but the dog ran".split()
    times = [at for _, _, at in words]
    assert times == sorted(times)
    assert times[0] < 0.05
    assert times[-1] < len(samples) / SPEAK_RATE_HZ
    native, _ = synthesise(text, ENGLISH)
    assert audible_span(native) == (0, len(native))


def test_a_narrator_pauses_at_a_comma() -> None:
    pytest.importorskip("espeakng_loader")
    text = "Anna, Anna."
    samples, _ = synthesise(text, ENGLISH)
    loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
    assert 0.14 <= pause_s(text, 1) <= 0.30
    assert np.diff(loud).max() / NATIVE_RATE_HZ == pytest.approx(pause_s(text, 1), abs=0.01)


def test_pauses_differ_from_text_to_text_but_not_from_time_to_time() -> None:
    drawn = [pause_s(str(number), 1) for number in range(200)]
    assert drawn == [pause_s(str(number), 1) for number in range(200)]
    assert min(drawn) < 0.15
    assert max(drawn) > 0.29


def test_an_unknown_voice_and_an_empty_text_are_refused() -> None:
    pytest.importorskip("espeakng_loader")
    with pytest.raises(NarrationError, match="knows no voice 'xx-none'"):
        speak("Hello.", replace(ENGLISH, voice="xx-none"))
    with pytest.raises(NarrationError, match="Nothing was said"):
        speak("", ENGLISH)
    assert len(speak("Hello.", ENGLISH)[0]) > 0  # the synthesiser is usable after an error
