from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speech_mining.text.splitting import sentence_spans
from tests.gold_sentences import f1, gold


def split(text: str, language: str) -> list[str]:
    return [text[first:last] for first, last in sentence_spans(text, language)]


@pytest.mark.parametrize(
    ("language", "least"),
    [
        *(("deu", 0.97), ("eng", 0.97), ("fra", 0.95), ("spa", 0.97)),
        *(("rus", 0.95), ("ara", 0.95), ("hin", 0.95), ("zho", 0.75), ("jpn", 0.85)),
    ],
)
def test_sentences_of_the_gold_paragraphs_are_found(language: str, least: float) -> None:
    paragraphs = gold()[language]
    assert len(paragraphs) >= (20 if language in ("deu", "eng", "fra", "spa") else 4)
    assert f1(split, language, paragraphs) >= least


def test_f1_of_gold_paragraphs_counts_what_is_missed_and_what_is_wrong() -> None:
    paragraphs = [["Ab cd.", "Ef."]]
    assert f1(lambda text, _: [text], "deu", paragraphs) == 0
    assert f1(lambda text, _: ["Ab cd.", "Ef."], "deu", paragraphs) == 1
    assert f1(lambda text, _: ["Ab", "cd.", "Ef."], "deu", paragraphs) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("language", "text", "sentences"),
    [
        ("hye", "Բարեւ ձեզ։ Ինչպես եք։", 2),
        ("amh", "ሰላም ነው። እንዴት ነህ።", 2),
        ("khm", "ខ្ញុំទៅផ្ទះ។ គាត់ទៅផ្សារ។", 2),
        ("bod", "བཀྲ་ཤིས། བདེ་ལེགས།", 2),
        ("mya", "ကျွန်တော် မြန်မာ ပါ။ ကောင်းပါတယ်။", 2),
        ("urd", "یہ کتاب ہے۔ وہ گھر ہے۔", 2),
        ("yue", "你好。再見。", 2),
        ("tlh", "First one. Second one.", 2),
        ("not a code", "First one. Second one.", 2),
    ],
)
def test_a_language_without_rules_is_split_by_a_relative_or_by_its_script(
    language: str, text: str, sentences: int
) -> None:
    assert len(split(text, language)) == sentences


def test_a_line_break_of_any_kind_ends_a_sentence() -> None:
    for ending in ("\n", "\r\n", "\u2028", "\x0b", "\x85"):
        assert split(f"ohne Punkt{ending}  noch eins ", "deu") == ["ohne Punkt", "noch eins"]


def test_what_begins_in_lower_case_goes_on_unless_all_is_lower_case() -> None:
    assert split("Er rief: Halt! und lief. Dann nicht.", "deu") == ["Er rief: Halt! und lief.", "Dann nicht."]
    assert split("i went home. then i slept.", "eng") == ["i went home.", "then i slept."]


@pytest.mark.parametrize(
    ("language", "text", "sentences"),
    [
        ("fra", "J.-J. Rousseau est né à Genève.", 1),
        ("fra", "M. Dupont est arrivé.", 1),
        ("deu", "Die Fa. Schulze liefert Schrauben.", 1),
        ("eng", "Are you serious?! I can't believe it.", 2),
        ("eng", "Are you serious?! he said.", 1),
        ("fra", "Il habite à St-Denis, c.-à-d. près d'ici.", 1),
    ],
)
def test_what_the_splitter_leaves_is_mended(language: str, text: str, sentences: int) -> None:
    assert len(split(text, language)) == sentences


def test_a_no_break_space_does_not_stop_the_german_rules() -> None:
    assert split("Das ist z.\u00a0B. gut. B.\u00a0Meier kam.\u00a0Er blieb.", "deu")[-1] == "Er blieb."


@given(st.text(max_size=60), st.sampled_from(["deu", "eng", "fra", "zho", "hin", "hye", "kat", "xxx"]))
@example("Z. B.\u00a0b", "deu")
@example("\ud800. A", "eng")
def test_spans_are_in_order_bare_of_spaces_and_leave_nothing_out(text: str, language: str) -> None:
    spans = sentence_spans(text, language)
    assert [place for span in spans for place in span] == sorted(place for span in spans for place in span)
    found = "".join(text[first:last] for first, last in spans)
    for first, last in spans:
        assert first < last and not text[first].isspace() and not text[last - 1].isspace()
    visible = [letter for letter in text if not letter.isspace() and letter.isprintable()]
    assert [letter for letter in found if not letter.isspace() and letter.isprintable()] == visible
