from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError
from speech_mining.evaluation.hard_negatives import hard_negatives
from speech_mining.evaluation.intervals import Bootstrap
from speech_mining.evaluation.trials import (
    AUDIO,
    TARGET_AUDIO,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    Column,
    Distractors,
    EvaluationConfig,
    Outcome,
    evaluate,
    split,
)
from speech_mining.evaluation.wording import normalised, word_errors

QUICK = EvaluationConfig(bootstrap=Bootstrap(resamples=50))
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()


# Wording


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"The King came."', "the king came."),
        ("„Der König kam.“", "der könig kam."),
        ("« Le roi vint. »", "le roi vint."),
        ("“‘Nested’”", "nested"),
        ('"A," he said, "B."', '"a," he said, "b."'),
        ('"Open', '"open'),
        ("”Wrong way“", "”wrong way“"),
        ("  two \t spaces\n", "two spaces"),
        ("Cafe\u0301", "café"),
        ('"', '"'),
        ('""', ""),
        ("", ""),
    ],
)
def test_texts_lose_their_capitals_and_the_quotes_around_them(text: str, expected: str) -> None:
    assert normalised(text) == expected
    assert normalised(expected) == expected


@pytest.mark.parametrize(
    ("reference", "retrieved", "errors", "words"),
    [
        ("the king saw a cat", "the king saw a cat", 0, 5),
        ("the king saw a cat", "the queen saw cat", 2, 5),  # one substituted, one deleted
        ("the king", "the old tall king", 2, 2),
        ("the king", "", 2, 2),
        ("", "the king", 2, 0),
        ("", "", 0, 0),
        ("国王来了", "国王走了", 1, 4),
        ("พระราชา", "พระราชา", 0, 7),
        ("왕이 왔다", "왕이 갔다", 1, 2),  # Korean has spaces
    ],
)
def test_word_errors_of_cases_worked_by_hand(reference: str, retrieved: str, errors: int, words: int) -> None:
    found, counted = word_errors(["same", reference], ["same", retrieved])
    assert (found.tolist(), counted.tolist()) == ([0, errors], [1, words])


@given(st.lists(st.tuples(*[st.lists(st.sampled_from("a b c d".split()), max_size=6).map(" ".join)] * 2), min_size=1))
@settings(max_examples=50, deadline=None)
def test_word_errors_are_the_edit_distance(pairs: list[tuple[str, str]]) -> None:
    def distance(one: list[str], other: list[str]) -> int:
        row = list(range(len(other) + 1))
        for i, left in enumerate(one, 1):
            before, row[0] = row[0], i
            for j, right in enumerate(other, 1):
                before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
        return row[-1]

    found, _ = word_errors([one for one, _ in pairs], [other for _, other in pairs])
    assert found.tolist() == [distance(one.split(), other.split()) for one, other in pairs]


def test_texts_of_unequal_number_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="1 texts were retrieved for 2"):
        word_errors(["a", "b"], ["a"])


# Hard negatives

TOLD = [
    "In 1850 the farmer met Anna in Paris.",
    "The miller had 3 sons.",
    "At noon Bernard sang.",
    "Там было ١٢ львов.",
]


def test_a_negative_differs_in_one_word_of_its_kind() -> None:
    for one in hard_negatives(TOLD, each=2):
        before, after = TOLD[one.row].split(), one.text.split()
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert len(changed) == 1
        old, new = changed[0][0].rstrip("."), changed[0][1].rstrip(".")
        if one.kind == "number":
            assert old.isdecimal() and len(old) == len(new) and int(old) != int(new)
            assert new.isascii() == old.isascii() and len(str(int(new))) == len(new)
        if one.kind == "name":
            assert old in {"Anna", "Paris", "Bernard"} and new in {"Anna", "Paris", "Bernard"}
            assert new not in TOLD[one.row]
        if one.kind == "word":
            assert old.isalpha() and new.isalpha() and new not in TOLD[one.row]


def test_each_kind_is_made_where_the_text_allows_it() -> None:
    kinds = {(one.row, one.kind) for one in hard_negatives(TOLD)}
    assert kinds >= {(0, "number"), (0, "name"), (0, "word"), (1, "number"), (1, "word"), (2, "name"), (3, "number")}
    assert not kinds & {(1, "name"), (2, "number")}
    assert len(hard_negatives(TOLD, each=3)) > len(hard_negatives(TOLD))
    assert hard_negatives([]) == [] and hard_negatives(["", "…"]) == []
    assert hard_negatives(["alone"]) == []  # there is no other text to take a word from


def test_a_number_becomes_another_of_as_many_digits() -> None:
    made = [
        one.text for seed in range(60) for one in hard_negatives(["in 10", "no"], seed=seed) if one.kind == "number"
    ]
    numbers = {text.split()[1] for text in made}
    assert len(made) == 60 and "10" not in numbers and numbers <= {str(number) for number in range(10, 100)}
    assert all(number[0] == "1" or number[1] == "0" for number in numbers)  # the other digit stays


def test_no_negative_says_what_a_text_says() -> None:
    texts = [f"there were {number} lions" for number in range(10)]  # every other digit is another text
    assert not [one for one in hard_negatives(texts, each=3) if one.kind == "number"]
    both = hard_negatives([*TOLD, *texts], each=3)
    told = [normalised(one.text) for one in both]
    assert len(set(told)) == len(told) and not set(told) & {normalised(text) for text in [*TOLD, *texts]}


@given(st.randoms())
@settings(max_examples=20, deadline=None)
def test_negatives_depend_on_the_texts_and_the_seed_not_on_their_order(chance: random.Random) -> None:
    order = chance.sample(range(len(TOLD)), len(TOLD))
    plain, moved = hard_negatives(TOLD, each=2), hard_negatives([TOLD[row] for row in order], each=2)
    assert sorted((one.row, one.text) for one in plain) == sorted((order[one.row], one.text) for one in moved)
    assert [one.text for one in hard_negatives(TOLD, each=2, seed=1)] != [one.text for one in plain]


# Trials


def column(vectors: np.ndarray, language: str, texts: list[str] | None = None, **more: object) -> Column:
    return Column(vectors, (language,) * len(vectors), tuple(texts) if texts else None, **more)  # type: ignore[arg-type]


def by_task(outcomes: list[Outcome]) -> dict[tuple[str, str, str], Outcome]:
    return {(one.task, one.source, one.target): one for one in outcomes}


def test_every_search_whose_columns_are_there_is_made() -> None:
    same = np.eye(10)
    columns = {
        AUDIO: column(same, "deu"),
        TRANSCRIPTIONS: column(same, "deu", WORDS),
        TRANSLATIONS: column(same[::-1], "eng", WORDS),
        TARGET_AUDIO: column(same, "eng"),
    }
    outcomes = by_task(evaluate(columns, config=QUICK))
    assert list(outcomes) == [
        ("audio against transcriptions", "deu", "deu"),
        ("audio against translations", "deu", "eng"),
        ("transcriptions against translations", "deu", "eng"),
        ("audio against translated audio", "deu", "eng"),
    ]
    right, wrong, topline, spoken = outcomes.values()
    assert right.error.value == 0 and right.word_error_rate is not None and right.word_error_rate.value == 0
    assert spoken.error.value == 0 and spoken.word_error_rate is None and spoken.hard_error is None
    for reversed_ in (wrong, topline):
        assert reversed_.error.value == 1 and reversed_.recall_1.value == 0
        assert reversed_.word_error_rate is not None and reversed_.word_error_rate.value == 1


def test_languages_are_searched_apart() -> None:
    vectors = np.vstack([np.eye(4), np.eye(4)])  # across languages every vector has a twin
    languages = ("deu", "fra") * 2 + ("deu",) * 4
    texts = tuple("abcdabcd")
    columns = {AUDIO: Column(vectors, languages), TRANSLATIONS: Column(vectors, ("eng",) * 4 + ("spa",) * 4, texts)}
    outcomes = by_task(evaluate(columns, config=QUICK))
    assert [key[1:] for key in outcomes] == [("deu", "eng"), ("deu", "spa"), ("fra", "eng")]
    assert [one.queries for one in outcomes.values()] == [2, 4, 2]
    assert all(one.error.value == 0 for one in outcomes.values())


def test_equal_texts_are_one_candidate() -> None:
    vectors = np.eye(3)[[0, 1, 0, 2]]
    texts = ["The king.", "A cat.", '"the KING."', "A dog."]
    columns = {AUDIO: column(vectors, "deu"), TRANSLATIONS: column(vectors, "eng", texts)}
    (outcome,) = evaluate(columns, config=QUICK)
    assert (outcome.queries, outcome.candidates, outcome.error.value) == (4, 3, 0)


def test_distractors_and_hard_negatives_take_the_place_of_what_they_are_nearer_than() -> None:
    queries = np.eye(4)
    weak = queries + 0.4 * np.roll(queries, 1, axis=1)
    columns = {
        AUDIO: column(queries, "deu"),
        TRANSLATIONS: column(
            weak, "eng", ["a b", "c d", "e f", "g h"], negatives=queries[[1]], negative_rows=np.array([1])
        ),
    }
    others = Distractors(queries[[0, 0, 3]], ("x d", "X D", "g h"))  # one twice, one that is a candidate
    plain, wide = (
        evaluate(columns, more, EvaluationConfig("cosine", bootstrap=Bootstrap(resamples=50)))[0]
        for more in ({}, {"eng": others, "fra": others})
    )
    assert plain.error.value == wide.error.value == 0 and plain.recall_1.value == 1
    assert plain.hard_error is not None and plain.hard_error.value == 0.25
    assert (wide.distractors, wide.hard_negatives) == (1, 1)
    assert wide.recall_1.value == 0.75 and wide.recall_5.value == 1
    assert wide.word_error_rate is not None and wide.word_error_rate.value == 2 / 8  # "x d" for "a b"


def test_hard_negatives_stay_with_their_language() -> None:
    texts = Column(np.eye(4), ("eng", "eng", "spa", "spa"), tuple("abcd"), np.eye(4)[[2, 3, 0]], np.array([2, 3, 0]))
    trials = list(split({AUDIO: column(np.eye(4), "deu"), TRANSLATIONS: texts}, {}))
    assert [0 if one.negatives is None else len(one.negatives) for one in trials] == [1, 2]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_permuting_the_rows_of_a_test_set_changes_no_figure(seed: int) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((24, 5)) + 0.8
    texts = [" ".join(chance.choice(WORDS, 4)) + f" {row}" for row in range(24)]
    heard = vectors + chance.standard_normal(vectors.shape)
    languages = tuple(chance.choice(["deu", "fra"], 24).tolist())
    negative_rows = np.arange(0, 24, 3)
    order = chance.permutation(24)
    place = np.argsort(order)
    altered = vectors[negative_rows] + 0.3

    def figures(rows: np.ndarray, negative: np.ndarray) -> list[Outcome]:
        told = Column(vectors[rows], ("eng",) * 24, tuple(texts[row] for row in rows), altered, negative)
        return evaluate(
            {AUDIO: Column(heard[rows], tuple(languages[row] for row in rows)), TRANSLATIONS: told}, config=QUICK
        )

    assert figures(np.arange(24), negative_rows) == figures(order, place[negative_rows])


@given(seed=st.integers(0, 2**32 - 1), more=st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_distractors_never_raise_recall_nor_hard_negatives_lower_the_error(seed: int, more: int) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((15, 5))
    extra, texts = chance.standard_normal((more, 5)), [str(row) for row in range(15)]
    columns = {
        AUDIO: column(vectors + chance.standard_normal(vectors.shape), "deu"),
        TRANSLATIONS: column(vectors, "eng", texts, negatives=extra, negative_rows=np.zeros(more, np.int64)),
    }
    config = EvaluationConfig("distance", bootstrap=QUICK.bootstrap)
    (plain,) = evaluate(columns, config=config)
    (wide,) = evaluate(columns, {"eng": Distractors(extra, tuple(f"d{row}" for row in range(more)))}, config)
    assert wide.recall_1.value <= plain.recall_1.value and wide.recall_5.value <= plain.recall_5.value
    assert plain.hard_error is not None and plain.hard_error.value >= plain.error.value
    assert plain.recall_5.value >= plain.recall_1.value


def test_malformed_columns_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="3 vectors, 2 languages"):
        Column(np.eye(3), ("deu", "deu"))
    with pytest.raises(EmbeddingError, match="1 negative rows"):
        Column(np.eye(1), ("deu",), negative_rows=np.array([0]))
    with pytest.raises(EmbeddingError, match="differ in rows"):
        evaluate({AUDIO: column(np.eye(3), "deu"), TRANSLATIONS: column(np.eye(2), "eng", ["a", "b"])})
    with pytest.raises(EmbeddingError, match="Nothing can be searched in the columns audio"):
        evaluate({AUDIO: column(np.eye(3), "deu")})
