"""The texts of the miniature library: what is written, how it is packed, and what of it is true."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from demo.make_library import LIBRARY
from demo.make_texts import SHARDS, TEXT, TRUTH, made_with, make, truth
from demo.world.concepts import FUNCTION_CONCEPTS, ConceptTeacher, concepts
from demo.world.grammar import realise
from demo.world.lexicon import LANGUAGES, Language
from demo.world.tales import tales
from demo.world.texts import Written, translated, written
from speech_mining.encoders.protocol import Sentence
from speech_mining.errors import EncoderError
from speech_mining.evaluation.text_truth import TEXT_TRUTH
from speech_mining.text.cleaning import Dropped, Kept, clean
from speech_mining.text.readers import Passage, Unread, open_shard
from speech_mining.text.sentence_keys import normalised_key
from speech_mining.text.streams import unpacked

DIRECTIONS = sorted(f"{speech}-{text}" for speech in LANGUAGES for text in LANGUAGES)
FORMATS = {"sentences.txt.gz": "lines", "pages.jsonl.zst": "json_lines", "tales.txt": "paragraphs"}
FORMATS["crawl.warc.wet.gz"] = "wet"
BY_KEY = {told.key: told for told in tales()}


@cache
def shipped(name: str) -> pl.DataFrame:
    return pl.read_parquet(LIBRARY / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts, made once more."""
    folder = tmp_path_factory.mktemp("library")
    make(folder, shipped("sentences.parquet"))
    return folder


def shard(language: Language, name: str, library: Path = LIBRARY) -> Path:
    return library / TEXT / language / name


@cache
def passages(language: Language, name: str) -> tuple[tuple[Passage, ...], tuple[Unread, ...]]:
    unread: list[Unread] = []
    read = tuple(open_shard(str(shard(language, name)), format=FORMATS[name], tell=unread.append))
    return read, tuple(unread)


@cache
def cleaned(language: Language) -> tuple[tuple[Kept, ...], tuple[Dropped, ...]]:
    """What is left of a language's shards, and what is not."""
    found = [one for name in SHARDS for one in clean(passages(language, name)[0], language)]
    return tuple(one for one in found if isinstance(one, Kept)), tuple(one for one in found if isinstance(one, Dropped))


def kind(language: Language, *kinds: str) -> list[Written]:
    return [one for one in written(language) if one.kind in kinds]


def meant(text: str, language: Language) -> Counter[str]:
    """The concepts of a text without articles and the copula."""
    return Counter(one for one in concepts(text, language) if one not in FUNCTION_CONCEPTS)


def narrated_text(key: str, language: Language) -> str:
    return realise(BY_KEY[key].sentence, language)


# Made again


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_shards_hold_what_is_shipped_when_made_again(language: Language, made: Path) -> None:
    for name in SHARDS:
        contents = []
        for library in (LIBRARY, made):
            with unpacked(str(shard(language, name, library)), lambda _: None) as stream:
                contents.append(stream.read())
        assert contents[0] == contents[1], name
    assert shipped(TRUTH).equals(pl.read_parquet(made / TRUTH))


def test_the_same_versions_write_the_same_bytes(tmp_path: Path, made: Path) -> None:
    make(tmp_path, shipped("sentences.parquet"))
    libraries = [made]
    if json.loads((LIBRARY / TEXT / "made_with.json").read_text()) == made_with():
        libraries.append(LIBRARY)
    names = [TRUTH, *(f"{TEXT}/{language}/{name}" for language in LANGUAGES for name in SHARDS)]
    for library in libraries:
        assert [name for name in names if (library / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_the_texts_are_small() -> None:
    files = [path for path in (LIBRARY / TEXT).rglob("*") if path.is_file()]
    assert len(files) == len(LANGUAGES) * len(SHARDS) + 1
    assert sum(path.stat().st_size for path in files) < 200_000
    assert all(path.stat().st_size < 40_000 for path in [*files, LIBRARY / TRUTH])


@pytest.mark.parametrize("name", SHARDS)
def test_a_reader_finds_the_format_by_itself(name: str) -> None:
    told = FORMATS[name] if FORMATS[name] != "lines" else "paragraphs"
    by_itself = list(open_shard(str(shard("deu", name))))
    assert by_itself == list(open_shard(str(shard("deu", name)), format=told))
    assert len(by_itself) > 5


# What is true


def test_a_truth_is_every_narrated_sentence_that_has_a_text_and_no_other() -> None:
    told = shipped("sentences.parquet").filter(pl.col("kind").is_in(["story", "near_duplicate", "role_swap"]))
    place = ("audiobook", "section", "start_ms", "end_ms")
    expected = {
        (f"{row['language']}-{language}", *(row[name] for name in place), narrated_text(row["sentence"], language))
        for row in told.iter_rows(named=True)
        for language in LANGUAGES
        if row["sentence"] in {one.key for one in translated(language)}
    }
    rows = shipped(TRUTH).drop("spoken").rows()
    assert len(rows) == len(set(rows)) == 1055
    assert set(rows) == expected
    assert shipped(TRUTH).schema == pl.Schema(TEXT_TRUTH)
    said = {(row["audiobook"], row["section"], row["start_ms"]): row["text"] for row in told.iter_rows(named=True)}
    for row in shipped(TRUTH).iter_rows(named=True):
        assert row["spoken"] == said[row["audiobook"], row["section"], row["start_ms"]]


def test_each_direction_has_a_truth_and_some_that_is_said_has_no_text() -> None:
    counts = dict(shipped(TRUTH).group_by("language_pair").len().iter_rows())
    assert sorted(counts) == DIRECTIONS
    assert all(60 <= count <= 70 for count in counts.values())  # of 76


def test_a_transcript_is_what_is_said() -> None:
    same = shipped(TRUTH).filter(pl.col("language_pair").str.head(3) == pl.col("language_pair").str.tail(3))
    assert same.height > 250
    assert same["text"].to_list() == same["spoken"].to_list()


def test_one_to_one_selection_can_find_every_truth() -> None:
    for columns in (["audiobook", "section", "start_ms"], ["text"]):
        assert not shipped(TRUTH).select("language_pair", *columns).is_duplicated().any()


def test_truth_needs_only_what_is_narrated() -> None:
    first = shipped("sentences.parquet").filter(pl.col("audiobook") == "91001")
    assert truth(first).equals(shipped(TRUTH).filter(pl.col("audiobook") == "91001"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_true_text_is_left_by_cleaning_in_its_own_language_and_in_no_other(language: Language) -> None:
    left = {one.text for one in cleaned(language)[0]}
    missing = {one.text for one in kind(language, "translation")} - left
    assert missing == set()
    for other in LANGUAGES:
        if other != language:
            assert {one.text for one in kind(other, "translation")} & left == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_wrong_translations_stand_among_the_texts_of_a_language(language: Language) -> None:
    read = " ".join(one.text for name in SHARDS for one in passages(language, name)[0])
    astray = [one.text for other in LANGUAGES if other != language for one in kind(other, "translation")]
    assert sum(text in read for text in astray) >= 12


# What is not


@pytest.mark.parametrize("language", LANGUAGES)
def test_most_texts_translate_nothing_and_no_two_are_alike(language: Language) -> None:
    keys = [normalised_key(one.text) for one in written(language)]
    assert len(keys) == len(set(keys)) == 730
    assert len(kind(language, "translation")) * 5 < len(keys)
    narrated = {frozenset(meant(narrated_text(told.key, language), language).items()) for told in tales()}
    others = [one for one in written(language) if one.kind != "translation"]
    assert [one for one in others if frozenset(meant(one.text, language).items()) in narrated] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_near_misses_differ_from_what_is_narrated_by_as_much_as_they_say(language: Language) -> None:
    known = {told.key for told in translated(language)}
    for one in kind(language, "near_miss", "orphan", "longer", "half"):
        base, own = meant(narrated_text(one.key, language), language), meant(one.text, language)
        added, lost = (own - base).total(), (base - own).total()
        if one.kind in ("near_miss", "orphan"):
            assert (added, lost) == (1, 1), one
        elif one.kind == "longer":
            assert (added, lost) == (1, 0), one
        else:
            assert added == 0 < lost, one
        assert (one.key in known) == (one.kind != "orphan"), one


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_trap_of_the_audio_and_its_original_are_both_written(language: Language) -> None:
    known = {told.key for told in translated(language)}
    assert {key for told in tales() if told.of for key in (told.key, told.of)} <= known


@pytest.mark.parametrize("language", LANGUAGES)
def test_three_stories_in_four_are_as_long_as_what_is_narrated(language: Language) -> None:
    shortest = min(len(narrated_text(told.key, language)) for told in tales())
    long_enough = [len(one.text) >= shortest for one in kind(language, "story")]
    assert len(long_enough) == 520
    assert np.mean(long_enough) > 0.77


# Noise


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_shard_brings_what_must_be_cleaned_and_dropped(language: Language) -> None:
    raw = {name: " ".join(one.text for one in passages(language, name)[0]) for name in SHARDS}
    everything = " ".join(raw.values())
    for damage in (
        "\u00ad",
        "\u200b",
        "\x1b",
        "&nbsp;",
        "\u00a0",
        "\t",
        "\ufffd",
        "https://",
        "Ã" if language != "eng" else "&",
    ):
        assert damage in everything, repr(damage)
    reasons = Counter(one.reason for one in cleaned(language)[1])
    wanted = {"other_language", "other_script", "document_language", "invalid_utf8", "addresses", "many_digits"}
    assert wanted | {"too_short", "few_words", "too_long"} <= set(reasons)


@pytest.mark.parametrize("language", LANGUAGES)
def test_many_sentences_are_left_twice_and_some_of_them_only_nearly_alike(language: Language) -> None:
    texts = [one.text for one in cleaned(language)[0]]
    keys = {normalised_key(text) for text in texts}
    assert 650 < len(keys) < len(set(texts)) < len(texts)
    assert len(texts) - len(set(texts)) > 60
    assert len(set(texts)) - len(keys) > 20


# The teacher


def test_the_teacher_takes_foreign_lines_and_rejects_lines_without_a_word() -> None:
    lines = [
        "Старый плотник закрыл мастерскую.",
        "年老いた大工",
        "12 13 14",
        "xyzzy " * 800,
        "The king slept. \ufffd\x00",
    ]
    empty = ["", "   ", "…", "* * * *", ">>", "\u200b", "🙂"]
    embedded = ConceptTeacher().embed([Sentence(text, "eng") for text in [*lines, *empty]])
    assert embedded.kept.tolist() == list(range(len(lines)))
    assert [one.item for one in embedded.rejected] == list(range(len(lines), len(lines) + len(empty)))
    assert {one.reason for one in embedded.rejected} == {"no_content"}
    assert np.allclose(np.linalg.norm(embedded.vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    with pytest.raises(EncoderError, match="no language 'rus'"):
        ConceptTeacher().embed([Sentence(lines[0], "rus")])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_teacher_embeds_everything_that_cleaning_leaves(language: Language) -> None:
    texts = sorted({one.text for one in cleaned(language)[0]})
    embedded = ConceptTeacher().embed([Sentence(text, language) for text in texts])
    assert len(embedded.kept) == len(texts)
    assert np.isfinite(embedded.vectors.astype(np.float32)).all()
