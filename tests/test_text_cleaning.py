from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speech_mining.errors import SettingsError
from speech_mining.evaluation.wording import normalised
from speech_mining.text.cleaning import Cleaning, Dropped, Kept, clean
from speech_mining.text.passages import Passage
from speech_mining.text.rules import Rules
from speech_mining.text.scripts import script_of, scripts_of
from speech_mining.text.sentences import Wording, as_read, sentence_id, sentence_ids
from speech_mining.text.tidying import tidied
from tests.gold_sentences import gold

UNJUDGED = Cleaning(identify_language=False)
GOOD = "Der alte Mann ging langsam über die Brücke."


def cleaned(text: str, language: str = "deu", config: Cleaning | None = None) -> list[Kept | Dropped]:
    return list(clean([Passage(text, "d", 1)], language, config))


def reasons(text: str, language: str = "deu", config: Cleaning | None = None) -> list[str]:
    return [one.reason if isinstance(one, Dropped) else "kept" for one in cleaned(text, language, config)]


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        (GOOD, "kept"),
        ("»Nein!«, rief er, »nie!«", "kept"),
        ("Er bellt laut.", "kept"),
        ("Er kam.", "too_short"),
        ("Wort " * 30 + "und " + "Wort " * 80, "too_long"),
        ("ab " * 130, "many_words"),
        ("Donaudampfschiffahrt", "few_words"),
        ("Das f\ufffdr dich und mich.", "invalid_utf8"),
        ("Klick auf <a href=x>hier</a> und dort.", "markup"),
        ("function() { return falsch und richtig }", "markup"),
        ("Siehe http://www.beispiel.de/seite?id=17 dort.", "addresses"),
        ("Schreib an max.muster@beispiel.de bitte sofort.", "addresses"),
        ("Das ist ja soooooooooooo schön und gut.", "repeated_character"),
        ("Tel. 030 1234567 oder 030 7654321 rufen", "many_digits"),
        ("a = b + c > d | e + f = g", "many_symbols"),
        ('"-.,;:!?() ja, nein: "gut"; "so"...', "much_punctuation"),
        ("Это предложение написано по-русски.", "other_script"),
        ("This sentence is clearly written in English.", "other_language"),
    ],
)
def test_each_sentence_is_kept_or_dropped_for_its_reason(sentence: str, reason: str) -> None:
    assert reasons(sentence) == [reason]


@pytest.mark.parametrize(
    ("name", "value", "sentence", "reason"),
    [
        ("least_characters", 60, GOOD, "too_short"),
        ("most_characters", 30, GOOD, "too_long"),
        ("least_words", 9, GOOD, "few_words"),
        ("most_words", 5, GOOD, "many_words"),
        ("least_letter_share", 0.99, GOOD, "few_letters"),
        ("most_digit_share", 0.01, "Im Jahre 1918 war das Haus schon alt.", "many_digits"),
        ("most_punctuation_share", 0.01, GOOD, "much_punctuation"),
        ("most_symbol_share", 0.01, "Das macht 7 € mehr als im Jahre davor.", "many_symbols"),
        ("most_address_share", 0.0, "Auf der langen Seite beispiel.de steht es für alle zu lesen.", "addresses"),
        ("most_repeated", 1, "Der alte Mann rannte über die Brücke.", "repeated_character"),
        ("least_script_share", 1.0, "Der alte Mann sagte спасибо zu allen Leuten.", "other_script"),
    ],
)
def test_each_bound_is_a_setting(name: str, value: float, sentence: str, reason: str) -> None:
    assert reasons(sentence) == ["kept"]
    assert reasons(sentence, config=Cleaning(**{name: value})) == [reason]  # type: ignore[arg-type]


def test_how_sure_the_language_must_be_is_a_setting() -> None:
    assert reasons("Er kam nie.") == ["other_language"], "Afrikaans 0.163, German 0.154"
    assert reasons("Er kam nie.", config=Cleaning(least_language_share=0.1)) == ["kept"]


def test_markup_mending_and_the_languages_of_documents_may_be_left_alone() -> None:
    marked = "Klick auf <b>hier und dort mit der Maus, und warte."
    assert reasons(marked) == ["markup"] and reasons(marked, config=Cleaning(drop_markup=False)) == ["kept"]
    (mended,), (left,) = (
        cleaned("FÃ¼r dich und mich."),
        cleaned("FÃ¼r dich und mich.", config=Cleaning(mend_encoding=False)),
    )
    assert mended.text == "Für dich und mich." and left.text == "FÃ¼r dich und mich."
    other = Passage(GOOD, "d", 1, "eng")
    assert [one.reason for one in clean([other], "deu") if isinstance(one, Dropped)] == ["document_language"]
    assert isinstance(next(clean([other], "deu", Cleaning(trust_document_language=False))), Kept)
    assert isinstance(next(clean([Passage(GOOD, "d", 1, "deu")], "deu")), Kept)


def test_a_language_that_no_model_knows_is_kept_unjudged_or_dropped_as_unknown() -> None:
    text = "Heghlu'meH QaQ jajvam jay'. tlhIngan maH, nuqneH je."
    assert set(reasons(text, "tlh")) == {"kept"}
    assert set(reasons(text, "tlh", Cleaning(keep_unknown_language=False))) == {"language_unknown"}


def test_settings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(SettingsError, match="least <= most"):
        Cleaning(least_characters=10, most_characters=9)
    with pytest.raises(SettingsError, match="most_digit_share is 20"):
        Cleaning(most_digit_share=20)


def test_a_document_of_little_but_menus_is_boilerplate_and_a_short_one_is_not_judged() -> None:
    menu = "\n".join(["Start", "Über uns", "Kontakt | 030 1234567 | 030 7654321 | 030 7654321 | 030 7654321"] * 6)
    counts = Counter(reasons(f"{menu}\n{GOOD}"))
    assert counts["boilerplate"] == 1 and counts["kept"] == 0
    assert Counter(reasons(f"{menu}\n" + f"{GOOD}\n" * 3))["kept"] == 3
    numbers = "030 1234567 030 7654321 030 7654321 030 7654321 030 7654321 030 7654321 030 7654321 030 7654321"
    assert Counter(reasons(f"{numbers}\n{numbers}\n{numbers}\n{GOOD}"))["kept"] == 1
    assert Counter(reasons(f"{numbers}\n{numbers}\n{numbers}\n{numbers}\n{GOOD}"))["boilerplate"] == 1
    assert Counter(reasons(f"{menu}\n{GOOD}", config=Cleaning(most_boilerplate_share=1.0)))["kept"] == 1


def test_gold_sentences_of_nine_languages_are_nearly_all_kept() -> None:
    for language, paragraphs in gold().items():
        text = "\n".join(" ".join(paragraph) for paragraph in paragraphs)
        found = Counter(reasons(text, language, Cleaning(least_characters=5)))
        assert found["kept"] >= 0.75 * sum(found.values()), (language, found)


def test_a_sentence_a_line_is_not_split() -> None:
    passage = Passage("  Erstens so. Zweitens anders. ", "d", 1, None, True)
    assert list(clean([passage], "deu")) == [Kept("Erstens so. Zweitens anders.", "d", 1, 2, 28)]


@pytest.mark.parametrize(
    ("raw", "tidy"),
    [
        ("Tee &amp; Kaffee&nbsp;am&#32;Morgen &notanentity; &", "Tee & Kaffee am Morgen &notanentity; &"),
        ("Silben\u00adtren\u200bnung\ufeff \u202eum\u202c", "Silbentrennung um"),
        ("a\u0308hnlich  wie\tdas\x00da", "ähnlich wie das da"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("nicht\u200chier", "nichthier"),
        ("👩\u200d👧 und Kind", "👩\u200d👧 und Kind"),
        ("â€žZeitâ€œ fÃ¼r alle", "„Zeit“ für alle"),
        ("Â\u00a0schon à la carte", "schon à la carte"),
        ("«À\u00a0bientôt\u00a0»", "«À bientôt »"),
        ("schon sauber", "schon sauber"),
    ],
)
def test_texts_are_tidied_and_never_reworded(raw: str, tidy: str) -> None:
    assert tidied(raw) == tidy


@given(st.text(max_size=80))
@example("&amp;amp;")
@example("&#173;")
@example("&#x85; &#8203;a\u0308")
def test_a_tidied_text_has_no_control_characters_and_is_composed(text: str) -> None:
    tidy = tidied(text, mend_encoding=False)
    assert tidy == " ".join(tidy.split())
    assert not any(unicodedata.category(letter) == "Cc" for letter in tidy)
    assert unicodedata.is_normalized("NFC", tidy)


PIECES = (
    GOOD,
    "Er kam am 3. Oktober.",
    "&quot;Gut&quot;, sagte sie.",
    "Silben\u00adtrennung ist  hier.",
    "FÃ¼r dich, ja.",
)
MORE = ("a\u0308hnlich sieht es hier aus.", "Start", "\n", "\u00a0", " ", "\x85", "😀😀", "Это по-русски написано.")
RAW = st.lists(st.sampled_from([*PIECES, *MORE]), max_size=12)


@given(st.lists(RAW.map("".join), max_size=4))
def test_every_character_of_a_passage_is_found_again_by_line_offset_and_length(texts: list[str]) -> None:
    passages = [Passage(text, f"d{number}", number) for number, text in enumerate(texts, 1)]
    end: dict[int, int] = {}
    for one in clean(passages, "deu", UNJUDGED):
        source = passages[one.line - 1]
        stands = source.text[one.offset : one.offset + one.length]
        assert one.document == source.document
        assert tidied(stands) == one.text if isinstance(one, Kept) else stands == one.text
        assert source.text[end.get(one.line, 0) : one.offset].strip() == "" and one.offset >= end.get(one.line, 0)
        end[one.line] = one.offset + one.length


@given(st.lists(RAW.map("".join), max_size=4))
def test_how_passages_are_batched_changes_nothing(texts: list[str]) -> None:
    passages = [Passage(text, "d", number) for number, text in enumerate(texts, 1)]
    apart = [one for passage in passages for one in clean([passage], "deu")]
    assert list(clean(passages, "deu")) == apart


def test_marks_of_scripts_count_as_letters_and_wide_characters_twice() -> None:
    assert Rules("hin", Cleaning()).reason("हिन्दी में लिखा हुआ वाक्य।") is None
    assert Rules("hin", Cleaning(least_letter_share=0.9)).reason("हिन्दी में लिखा हुआ वाक्य।") is None
    assert Rules("zho", Cleaning()).reason("我今天去北京。") is None
    assert Rules("zho", Cleaning()).reason("我去。") == "too_short"
    assert Rules("tha", Cleaning()).reason("สวัสดีครับผมชื่อสมชาย") is None


def test_scripts_of_letters_and_languages() -> None:
    assert [script_of(letter) for letter in "aжλअ中かカ한ªא"] == (
        ["Latn", "Cyrl", "Grek", "Deva", "Hani", "Hira", "Kana", "Hang", "Latn", "Hebr"]
    )
    assert scripts_of("jpn") == {"Hani", "Hira", "Kana"} and scripts_of("srp") == {"Cyrl", "Latn"}
    assert scripts_of("deu") == {"Latn"} and scripts_of("hin") == {"Deva"} and scripts_of("not a code") == frozenset()


@given(st.text(max_size=40))
@example('"""Ja"""')
@example("„Ja“ und „nein“")
@example("„«Ja»“")
def test_the_wording_of_laser_is_that_of_the_evaluation(text: str) -> None:
    assert as_read(text, Wording(lower_case=True, strip_quotes=True)) == normalised(text)


def test_an_encoders_wording_is_a_choice_of_two() -> None:
    assert as_read("„Ja, Anna.“", Wording()) == "„Ja, Anna.“"
    assert as_read("„Ja, Anna.“", Wording(strip_quotes=True)) == "Ja, Anna."
    assert as_read("„Ja, Anna.“", Wording(lower_case=True)) == "„ja, anna.“"


def test_ids_are_of_text_and_language_and_never_change() -> None:
    assert sentence_id("Guten Tag.", "deu") == 4623585106214929217
    assert sentence_ids(["a", "b", "a"], "deu").to_list() == [sentence_id(text, "deu") for text in "aba"]
    assert sentence_id("a", "deu") != sentence_id("a", "eng")
    assert 0 <= sentence_id("a", "deu") < 2**63
