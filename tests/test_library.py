from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from demo.make_library import (
    LIBRARY,
    SENTENCES,
    TRUTH,
    lines,
    made_with,
    make_section,
    truth,
    write_mp3,
)
from demo.world.books import BOOKS, FINISHED, SAMPLE_RATE_HZ, catalogue, preamble
from demo.world.grammar import concepts, realise
from demo.world.lexicon import LANGUAGES
from demo.world.tales import CHAPTERS, Told, chapters, library_sentences, tales
from speech_mining.audio.decode import read_waveform
from speech_mining.records import SAMPLES_PER_MS
from speech_mining.sources.librivox import Wanted, parse_books

PAIRS = [f"{source}-{target}" for source, target in combinations(LANGUAGES, 2)]
BY_KEY = {told.key: told for told in tales()}


@cache
def shipped(name: str) -> pl.DataFrame:
    return pl.read_parquet(LIBRARY / name)


def spoken(language: str) -> pl.DataFrame:
    """The story sentences of a language in the order of its chapters."""
    told = shipped("sentences.parquet").filter((pl.col("language") == language) & (pl.col("sentence") != ""))
    return told.sort(pl.col("audiobook").cast(pl.Int64), "section", "start_ms")


def books() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((LIBRARY / "catalogue.json").read_text(encoding="utf-8"))["books"]
    return listed


def items() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((LIBRARY / "metadata").glob("*.json")):
        yield path, json.loads(path.read_text(encoding="utf-8"))


def recordings() -> Iterator[tuple[str, int, Path]]:
    for book in FINISHED:
        for section in book.sections:
            yield book.project, section.number, LIBRARY / "download" / book.identifier / book.file_name(section)


@cache
def heard(path: Path) -> npt.NDArray[np.float32]:
    return read_waveform(path)


def level_dbfs(samples: npt.NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.mean(samples**2)))


# The catalogue


def test_the_catalogue_is_read_by_the_code_that_reads_librivox() -> None:
    parsed = parse_books(books(), Wanted(languages=None))
    assert parsed.rejections.select("audiobook", "reason").rows() == [("91010", "unfinished")]
    counts = dict(parsed.sections.group_by("language").len().iter_rows())
    assert counts == dict.fromkeys(LANGUAGES, CHAPTERS)
    assert parsed.sections.select("readers", "language").unique().height == 4
    urls = set(parsed.sections["listen_url"])
    assert urls == {book.listen_url(section) for book in FINISHED for section in book.sections}


def test_every_number_is_a_string_save_one() -> None:
    numbers: set[str] = set()

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(key, inner)
        elif isinstance(value, list):
            for inner in value:
                walk(name, inner)
        elif not isinstance(value, str):
            numbers.add(f"{name}: {type(value).__name__}")

    walk("", books())
    assert numbers == {"totaltimesecs: int", "file_name: NoneType"}


def test_the_catalogue_has_the_awkward_cases_of_the_real_one() -> None:
    orders = [[int(section["section_number"]) for section in book["sections"]] for book in books()]
    assert any(order != sorted(order) for order in orders)
    assert [book["id"] for book in books() if not book["url_librivox"]] == ["91010"]
    assert all(not section["listen_url"] for section in books()[-1]["sections"])
    multilingual = [book for book in books() if book["language"] == "Multilingual"]
    assert len(multilingual) == 1
    assert len({section["language"] for section in multilingual[0]["sections"]}) == 4
    assert max(Counter(book["title"] for book in books()).values()) == 2


def test_announced_durations_add_up() -> None:
    for book in books():
        total_s = sum(int(section["playtime"]) for section in book["sections"])
        hours, minutes, seconds = (int(part) for part in book["totaltime"].split(":"))
        assert book["totaltimesecs"] == total_s == 3600 * hours + 60 * minutes + seconds


def test_the_shipped_catalogue_is_the_one_the_books_make() -> None:
    durations_s = {
        (book["id"], int(section["section_number"])): int(section["playtime"])
        for book in books()
        for section in book["sections"]
    }
    assert catalogue(BOOKS, durations_s) == {"books": books()}


# The files


def test_checksums_and_sizes_match_the_files_and_no_file_is_left_over() -> None:
    described = set()
    for path, item in items():
        assert item["metadata"]["identifier"] == path.stem
        for file in item["files"]:
            mp3 = LIBRARY / "download" / path.stem / file["name"]
            content = mp3.read_bytes()
            assert file["size"] == str(len(content))
            assert file["md5"] == hashlib.md5(content, usedforsecurity=False).hexdigest()
            assert file["sha1"] == hashlib.sha1(content, usedforsecurity=False).hexdigest()
            described.add(mp3)
    assert described == set((LIBRARY / "download").rglob("*.mp3")) == {path for _, _, path in recordings()}


def test_decoded_lengths_match_what_is_announced() -> None:
    announced_s = {file["name"]: float(file["length"]) for _, item in items() for file in item["files"]}
    playtimes_s = {
        section["listen_url"].rpartition("/")[2]: int(section["playtime"])
        for book in books()
        for section in book["sections"]
        if section["listen_url"]
    }
    for _, _, path in recordings():
        seconds = len(heard(path)) / SAMPLES_PER_MS / 1000
        assert seconds == pytest.approx(announced_s[path.name], abs=0.02)
        assert seconds == pytest.approx(playtimes_s[path.name], abs=0.52)


def test_the_library_is_as_long_and_as_small_as_promised() -> None:
    minutes = sum(float(file["length"]) for _, item in items() for file in item["files"]) / 60
    size = sum(path.stat().st_size for path in LIBRARY.rglob("*") if path.is_file())
    assert len(FINISHED) >= 8
    assert 28 <= minutes <= 36
    assert size <= 11_500_000


# The truth


def test_spans_are_audible_and_the_pauses_between_them_are_not() -> None:
    for audiobook, section, path in recordings():
        samples = heard(path)
        own = shipped("sentences.parquet").filter((pl.col("audiobook") == audiobook) & (pl.col("section") == section))
        spans = list(own.select("start_ms", "end_ms").iter_rows())
        for start_ms, end_ms in spans:
            assert level_dbfs(samples[start_ms * SAMPLES_PER_MS : end_ms * SAMPLES_PER_MS]) > -30
        edges_ms = [0, *(edge for span in spans for edge in span), len(samples) // SAMPLES_PER_MS]
        for quiet_ms, loud_ms in zip(edges_ms[::2], edges_ms[1::2], strict=True):
            assert 445 <= loud_ms - quiet_ms <= 1005
            # 25 ms either side belong to the smearing of MP3
            pause = samples[(quiet_ms + 25) * SAMPLES_PER_MS : (loud_ms - 25) * SAMPLES_PER_MS]
            assert level_dbfs(pause) < -55


def test_a_span_begins_and_ends_where_its_sound_does() -> None:
    """Outside nothing rises out of the room's noise, inside something does at once.

    MP3 spreads a sound over its granule of 26 ms, mostly behind it: 15 ms are allowed before a span, 30 behind it.
    """
    for audiobook, section, path in recordings():
        samples = np.abs(heard(path))
        own = shipped("sentences.parquet").filter((pl.col("audiobook") == audiobook) & (pl.col("section") == section))
        for start_ms, end_ms in own.select("start_ms", "end_ms").iter_rows():
            start, end = start_ms * SAMPLES_PER_MS, end_ms * SAMPLES_PER_MS
            inside = 80 * SAMPLES_PER_MS
            assert samples[start - 3200 : start - 15 * SAMPLES_PER_MS].max() < 0.01
            assert samples[start : start + inside].max() > 0.01
            assert samples[end + 30 * SAMPLES_PER_MS : end + 3200].max() < 0.01
            assert samples[end - inside : end].max() > 0.006


def test_sentences_are_long_enough_to_be_segments_and_short_enough_to_be_one() -> None:
    told = shipped("sentences.parquet").filter(pl.col("sentence") != "")
    durations_ms = told["end_ms"] - told["start_ms"]
    assert durations_ms.min() >= 3200
    assert durations_ms.max() <= 9000


def test_about_half_of_each_language_is_translated_in_each_pair() -> None:
    counts = dict(shipped("truth.parquet").group_by("language_pair").len().iter_rows())
    assert sorted(counts) == PAIRS
    for pair, count in counts.items():
        for language in pair.split("-"):
            assert 0.4 <= count / spoken(language).height <= 0.6


def test_the_truth_is_complete_and_nothing_else_translates() -> None:
    """Judged by the sentences themselves, not by their keys: equal abstract sentences are equal English wordings."""
    english = {told.key: realise(told.sentence, "eng") for told in tales()}
    listed = set(shipped("truth.parquet").select("language_pair", "source_text", "target_text").iter_rows())
    expected = {
        (f"{source}-{target}", left["text"], right["text"])
        for source, target in combinations(LANGUAGES, 2)
        for left in spoken(source).iter_rows(named=True)
        for right in spoken(target).iter_rows(named=True)
        if english[left["sentence"]] == english[right["sentence"]]
    }
    assert listed == expected
    assert shipped("truth.parquet").height == len(expected)


def test_no_sentence_is_told_twice_in_a_language() -> None:
    for language in LANGUAGES:
        assert spoken(language)["sentence"].is_unique().all()
        assert spoken(language)["text"].is_unique().all()


def test_the_truth_points_at_sentences_that_are_spoken_there() -> None:
    assert truth(shipped("sentences.parquet")).equals(shipped("truth.parquet"))
    assert dict(shipped("truth.parquet").schema) == dict(TRUTH)
    assert dict(shipped("sentences.parquet").schema) == dict(SENTENCES)
    places = set(shipped("sentences.parquet").select("audiobook", "section", "start_ms", "end_ms", "text").iter_rows())
    for side in ("source", "target"):
        columns = [f"{side}_{column}" for column in ("audiobook", "section", "start_ms", "end_ms", "text")]
        assert set(shipped("truth.parquet").select(columns).iter_rows()) <= places


def test_the_order_of_translations_is_not_monotone_and_some_move_to_another_section() -> None:
    for pair in PAIRS:
        source, target = (spoken(language)["sentence"].to_list() for language in pair.split("-"))
        places = [target.index(key) for key in source if key in target]
        assert any(after < before for before, after in pairwise(places))
        own = shipped("truth.parquet").filter(pl.col("language_pair") == pair)
        assert own.filter(pl.col("source_section") != pl.col("target_section")).height >= 2


def test_no_two_sentences_are_neighbours_in_two_languages() -> None:
    neighbours = [
        {frozenset((one.key, next_one.key)) for chapter in chapters(language) for one, next_one in pairwise(chapter)}
        for language in LANGUAGES
    ]
    assert all(not left & right for left, right in combinations(neighbours, 2))


def test_every_section_opens_with_its_preamble_and_closes() -> None:
    for book in FINISHED:
        for section in book.sections:
            said = lines(book, section)
            assert [line.text for line in said[:3]] == preamble(book, section)
            assert [line.kind for line in said[:3]] == ["preamble"] * 3
            assert said[-1].kind == "closing"
            own = shipped("sentences.parquet").filter(
                (pl.col("audiobook") == book.project) & (pl.col("section") == section.number)
            )
            assert own["text"].to_list() == [line.text for line in said]


# The traps


def traps(kind: str) -> list[Told]:
    return [told for told in tales() if told.kind == kind]


def test_a_near_duplicate_exchanges_one_concept_and_is_itself_not_translated() -> None:
    assert len(traps("near_duplicate")) >= 16
    foreign = 0
    for trap in traps("near_duplicate"):
        base = BY_KEY[trap.of]
        gone, come = Counter(concepts(base.sentence)), Counter(concepts(trap.sentence))
        assert sum((gone - come).values()) == sum((come - gone).values()) == 1
        assert len(trap.languages) == 1
        assert len(base.languages) == 2
        foreign += trap.languages[0] not in base.languages
    assert foreign == 2


def test_a_role_swap_has_the_same_words_and_another_meaning() -> None:
    assert Counter(trap.languages for trap in traps("role_swap")) == {(language,): 1 for language in LANGUAGES}
    for trap in traps("role_swap"):
        base = BY_KEY[trap.of]
        assert sorted(concepts(trap.sentence)) == sorted(concepts(base.sentence))
        assert trap.sentence != base.sentence


def test_no_other_two_sentences_are_close() -> None:
    planned = {frozenset((told.key, told.of)) for told in tales() if told.of}
    for left, right in combinations([told for told in tales() if told.kind == "story"], 2):
        assert frozenset((left.key, right.key)) not in planned
        ours, theirs = set(concepts(left.sentence)), set(concepts(right.sentence))
        assert 2 * len(ours & theirs) <= min(len(ours), len(theirs)), (left, right)


def test_the_sentences_to_keep_from_training_are_all_of_them() -> None:
    assert len(library_sentences()) == len(tales()) == 150
    assert set(spoken("eng")["text"]) <= library_sentences()


# Making it again


def test_making_a_section_again_gives_the_shipped_bytes_and_the_shipped_times(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the synthesiser is only needed to make the library again")
    used = json.loads((LIBRARY / "made_with.json").read_text(encoding="utf-8"))
    if used != made_with():
        pytest.skip(f"the library was made with {used}, here is {made_with()}")
    book = FINISHED[0]
    section = book.sections[0]
    made = make_section(tmp_path, book, section)
    name = Path("download") / book.identifier / book.file_name(section)
    assert (tmp_path / name).read_bytes() == (LIBRARY / name).read_bytes()
    own = shipped("sentences.parquet").filter(
        (pl.col("audiobook") == book.project) & (pl.col("section") == section.number)
    )
    assert list(made.rows) == own.to_dicts()
    described = next(item for path, item in items() if path.stem == book.identifier)["files"]
    assert {"md5": made.file.md5, "sha1": made.file.sha1}.items() <= next(
        file for file in described if file["name"] == made.file.name
    ).items()
    assert asdict(made.file)["size"] == len((tmp_path / name).read_bytes())


def test_mp3_gives_a_click_back_in_its_own_time(tmp_path: Path) -> None:
    samples = np.zeros(3 * SAMPLE_RATE_HZ, dtype=np.int16)
    samples[SAMPLE_RATE_HZ : SAMPLE_RATE_HZ + 40] = 20_000
    write_mp3(tmp_path / "click.mp3", samples, {"title": "a click"})
    decoded = read_waveform(tmp_path / "click.mp3")
    assert int(np.abs(decoded).argmax()) / 16_000 == pytest.approx(1.0, abs=0.005)
    assert len(decoded) / 16_000 == pytest.approx(3.0, abs=0.001)
