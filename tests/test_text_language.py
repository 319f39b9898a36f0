from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from speech_mining.errors import SettingsError
from speech_mining.sources.languages import iso_639_3
from speech_mining.text.language_id import identify, in_language, is_known, known_languages, language_shares
from tests.gold_sentences import gold

LIBRARY = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@given(st.lists(st.text(max_size=80), max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_kernel_answers_as_the_library_does(texts: list[str]) -> None:
    languages, shares = identify(texts)
    for text, language, share in zip(texts, languages, shares.tolist(), strict=True):
        ranked = LIBRARY.rank(text)
        assert share == pytest.approx(ranked[0][1], abs=1e-4)
        nearly_best = {label for label, other in ranked if other > ranked[0][1] - 1e-4}
        assert language in {(iso_639_3(label) or label) for label in nearly_best} | {"fil", "bik", "grn", "kik"}


def test_sentences_of_nine_languages_are_told_apart() -> None:
    texts = [(language, " ".join(one)) for language, paragraphs in gold().items() for one in paragraphs]
    found, _ = identify([text for _, text in texts])
    right = np.mean([language == other for (language, _), other in zip(texts, found, strict=True)])
    assert right >= 0.97


def test_shares_of_a_text_do_not_hang_on_its_company() -> None:
    texts = ["Das ist ein Satz.", "", "This is a sentence.", "12345", "ÄÖÜ GROSS GESCHRIEBEN"]
    together = language_shares(texts, "deu")
    assert together.shape == (5,) and together.dtype == np.float32
    alone = np.concatenate([language_shares([text], "deu") for text in texts])
    np.testing.assert_array_equal(together, alone)
    assert together[0] > 0.9 > 0.1 > together[2] and together[1] < 0.05
    assert language_shares([], "deu").shape == (0,)


def test_languages_are_named_by_iso_639_3_and_known_by_their_macrolanguage() -> None:
    assert {"deu", "eng", "fra", "spa", "nor", "zho", "ara", "fas", "zxx"} <= known_languages()
    assert all(len(code) == 3 for code in known_languages())
    assert is_known("cmn") and is_known("arb") and not is_known("tlh")
    with pytest.raises(SettingsError, match="does not know tlh"):
        language_shares(["nuqneH"], "tlh")
    np.testing.assert_array_equal(language_shares(["你好世界"], "cmn"), language_shares(["你好世界"], "zho"))


def test_a_text_is_in_a_language_that_is_likeliest_or_likely_enough() -> None:
    texts = ["Er kam nie.", "Ein Wort: hallo.", "This is an English sentence.", ""]
    shares = language_shares(texts, "deu")
    assert identify(texts)[0][:3] == ["afr", "deu", "eng"] and 0.1 < shares[0] < 0.2 and shares[1] < 0.2
    assert in_language(texts, "deu", 0.2).tolist()[:3] == [False, True, False]
    assert in_language(texts, "deu", 0.1).tolist()[:3] == [True, True, False]
    assert in_language([], "deu", 0.2).tolist() == []
