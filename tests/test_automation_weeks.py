"""Six simulated weeks of a platform that nobody looks after: exactly what is asked for, when, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest

from partitions.audiobooks import add_audiobooks
from tests.simulated_weeks import MONDAY, Asked, Weeks, embedded_by, partitions_asked, told

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
S2S, S2T = ("deu-eng", "deu-fra", "eng-fra"), ("deu-eng", "eng-eng", "fra-eng")
MINED = ("neighbours", "pairs", "corpus", "history")


def at(month: int, day: int, hour: int) -> datetime:
    return datetime(2026, month, day, hour, 10, tzinfo=timezone.utc)


@pytest.fixture
def weeks(tmp_path: Path) -> Iterator[Weeks]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Weeks(tmp_path, instance)


@pytest.fixture
def mined(weeks: Weeks) -> Weeks:
    """A book a language and a shard of text, everything made of them by hand, and the first evaluation behind us."""
    weeks.promote("v1")
    weeks.on = set()
    for language in ("deu", "eng", "fra"):
        weeks.list_books(language, "1")
        add_audiobooks(weeks.instance, language, ["1"])
        for layer in ("raw_audio", "segments", "speech_embeddings"):
            weeks.make(f"{language}/{layer}", "1")
        weeks.make(f"{language}/speech_index", language)
    weeks.list_shards("eng", "a")
    for name, partition in (("sentences", "a"), ("duplicates", "eng"), ("embeddings", "a"), ("index", "eng")):
        weeks.make(f"eng/text_{name}", partition)
    for layer in MINED:
        for kind, pairs in (("s2s", S2S), ("s2t", S2T)):
            for pair in pairs:
                weeks.make(f"{kind}_{layer}", pair)
    weeks.make("quality_report", "")
    weeks.on = {"automation", "reembedding"}
    assert weeks.until(MONDAY + HOUR, every=HOUR) == []
    return weeks


def _books(language: str, *books: str) -> dict[str, list[str]]:
    return {f"{language}/{layer}": list(books) for layer in ("raw_audio", "segments", "speech_embeddings")}


def _of_pairs(kind: str, pairs: Sequence[str], layers: Sequence[str] = MINED) -> dict[str, list[str]]:
    return {f"{kind}_{layer}": list(pairs) for layer in layers} if pairs else {}


def _mined(s2s: Sequence[str], s2t: Sequence[str], layers: Sequence[str] = MINED) -> dict[str, list[str]]:
    return {**_of_pairs("s2s", s2s, layers), **_of_pairs("s2t", s2t, layers)}


def _without_reports(asked: Sequence[Asked]) -> dict[str, list[str]]:
    return partitions_asked(one for one in asked if one.asset != "quality_report")


def _reports(asked: Sequence[Asked]) -> int:
    return sum(one.asset == "quality_report" for one in asked)


@pytest.mark.slow
def test_six_weeks_ask_for_exactly_what_is_new(weeks: Weeks) -> None:
    # first week: all is new
    weeks.promote("v1")
    assert weeks.until(at(1, 5, 20)) == []
    weeks.list_books("deu", "1", "2", "3", "4")
    weeks.list_books("eng", "1", "2")
    weeks.list_books("fra", "1")
    weeks.list_shards("eng", "a")
    asked = weeks.until(at(1, 11, 20))
    text = {"eng/text_sentences": ["a"], "eng/text_duplicates": ["eng"], "eng/text_embeddings": ["a"]}
    first = {**_books("deu", "1", "2", "3", "4"), **_books("eng", "1", "2"), **_books("fra", "1"), **text}
    assert partitions_asked(asked) == first, told(asked)
    asked = weeks.until(at(1, 14, 12))
    indexes = {f"{language}/speech_index": [language] for language in ("deu", "eng", "fra")}
    expected = {**indexes, "eng/text_index": ["eng"], **_mined(S2S, S2T)}
    assert _without_reports(asked) == expected, told(asked)
    assert {one.at for one in asked if one.asset.endswith("index")} == {at(1, 12, 4)}

    # second week: a German book arrives; a French one that cannot be cut is tried again every day, and nothing else is
    weeks.list_books("deu", "5")
    weeks.failing = {("fra/segments", "2")}
    weeks.list_books("fra", "2")
    asked = weeks.until(at(1, 18, 20))
    again = {"fra/raw_audio": ["2"] * 5, "fra/segments": ["2"] * 5}
    assert partitions_asked(asked) == {**_books("deu", "5"), **again}, told(asked)
    asked = weeks.until(at(1, 21, 12))
    again = {"fra/raw_audio": ["2"] * 3, "fra/segments": ["2"] * 3}
    german = _mined(("deu-eng", "deu-fra"), ("deu-eng",))
    assert _without_reports(asked) == {"deu/speech_index": ["deu"], **german, **again}, told(asked)

    # third week: the French book recovers, an English one changes, and a threshold does: nothing is searched for it
    weeks.failing = set()
    weeks.list_books("eng", "1", version="b")
    asked = weeks.until(at(1, 22, 12))
    assert partitions_asked(asked) == {**_books("eng", "1"), **_books("fra", "2")}, told(asked)
    weeks.reload(mining={"threshold": 1.07})
    asked = weeks.until(at(1, 25, 20))
    assert _without_reports(asked) == _of_pairs("s2s", S2S, ("corpus", "history")), told(asked)
    assert _reports(asked) == 1, told(asked)
    asked = weeks.until(at(1, 27, 20))
    news = {"eng/speech_index": ["eng"], "fra/speech_index": ["fra"]}
    assert _without_reports(asked) == {**news, **_mined(S2S, ("eng-eng", "fra-eng"))}, told(asked)

    # fourth week: text arrives, and pairs are chosen otherwise: they are scored again and not searched
    weeks.list_shards("eng", "b")
    weeks.reload(mining={"threshold": 1.07, "strategy": "intersection"})
    asked = weeks.until(at(1, 31, 12))
    text = {"eng/text_sentences": ["b"], "eng/text_duplicates": ["eng"], "eng/text_embeddings": ["b"]}
    assert _without_reports(asked) == {**text, **_mined(S2S, S2T, MINED[1:])}, told(asked)
    # all is turned off over the weekly tick, and a French book comes meanwhile
    turned_on, weeks.on = weeks.on, set()
    weeks.list_books("fra", "3")
    assert weeks.until(at(2, 4, 12)) == []
    weeks.on = turned_on
    asked = weeks.until(at(2, 6, 20))
    made_up = {"eng/text_index": ["eng"], **_of_pairs("s2t", S2T), **_books("fra", "3")}
    assert _without_reports(asked) == made_up, told(asked)

    # fifth week: another version is promoted; of five German books two are embedded again a day, and one fails at first
    weeks.promote("v2")
    weeks.failing = {("deu/speech_embeddings", "2")}
    asked = weeks.until(at(2, 7, 20))
    assert partitions_asked(asked) == {"deu/speech_embeddings": ["1", "2"]}, told(asked)
    assert weeks.skipped[-1].startswith("1 of 5 audiobooks of deu are embedded by version v2, about 2 days left")
    weeks.failing = set()
    weeks.list_books("deu", "6")
    asked = weeks.until(at(2, 8, 20))
    expected = {**_books("deu", "6"), "deu/speech_embeddings": ["3", "4", "6"]}
    assert partitions_asked(asked) == expected, told(asked)
    by = {one.partition: one.by for one in asked if one.asset == "deu/speech_embeddings"}
    assert by == {"3": "reembedding", "4": "reembedding", "6": "automation"}
    # a third version while the second is under way, and the weekly tick: German waits, with all its pairs
    weeks.promote("v3")
    asked = weeks.until(at(2, 9, 20))
    expected = {"fra/speech_index": ["fra"], **_mined(("eng-fra",), ("fra-eng",))}
    assert _without_reports(asked) == {**expected, "deu/speech_embeddings": ["1", "2"]}, told(asked)
    assert set(embedded_by(weeks.lake, "deu").values()) == {"v1", "v2", "v3"}

    # sixth week: the rest is embedded; the index is made at the next weekly tick, and its pairs once
    asked = weeks.until(at(2, 15, 20))
    assert _without_reports(asked) == {"deu/speech_embeddings": ["3", "4", "5", "6"]}, told(asked)
    assert set(embedded_by(weeks.lake, "deu").values()) == {"v3"}
    asked = weeks.until(at(2, 18, 20))
    assert _without_reports(asked) == {"deu/speech_index": ["deu"], **german}, told(asked)
    assert {one.at for one in asked if one.asset.endswith("index")} == {at(2, 16, 4)}
    assert weeks.refused == []
    assert weeks.until(at(2, 23, 20)) == []


def test_an_index_that_comes_while_pairs_are_searched_is_not_forgotten(mined: Weeks) -> None:
    mined.make("deu/speech_index", "deu")
    asked = mined.until(mined.now + 2 * HOUR, every=HOUR)
    assert partitions_asked(asked)["s2s_neighbours"] == ["deu-eng", "deu-fra"], told(asked)
    mined.make("eng/speech_index", "eng")  # the search of deu-eng goes on for ten hours with the old one
    asked = mined.until(mined.now + 9 * HOUR, every=HOUR)
    assert partitions_asked(asked)["s2s_neighbours"] == ["eng-fra"], told(asked)
    asked = mined.until(mined.now + 4 * HOUR, every=HOUR)
    assert partitions_asked(asked)["s2s_neighbours"] == ["deu-eng"], told(asked)
    assert "s2s_neighbours" not in partitions_asked(mined.until(mined.now + 2 * DAY))


def test_a_threshold_that_changes_while_a_corpus_is_made_asks_for_it_again(mined: Weeks) -> None:
    mined.make("s2s_pairs", "deu-eng")
    mined.tick()
    assert partitions_asked(mined.ledger)["s2s_corpus"] == ["deu-eng"]
    mined.reload(mining={"threshold": 1.08})  # what is under way was begun with the other
    asked = mined.until(mined.now + 6 * HOUR, every=HOUR / 2)
    assert partitions_asked(asked)["s2s_corpus"] == ["deu-eng", "deu-fra", "eng-fra"], told(asked)
    assert "s2s_neighbours" not in partitions_asked(asked) and "s2s_pairs" not in partitions_asked(asked)


def test_another_encoder_another_cut_or_more_neighbours_ask_for_nothing(mined: Weeks) -> None:
    mined.reload(encoder="sonar:of_our_own", segmentation={"max_s": 15}, mining={"k": 8}, index_factory="Flat")
    assert mined.until(mined.now + 10 * DAY, every=DAY) == []


def test_the_report_does_not_wait_for_a_pair_that_was_never_mined(weeks: Weeks) -> None:
    weeks.tick()
    weeks.make("s2s_corpus", "deu-eng")
    asked = weeks.until(weeks.now + 3 * HOUR, every=HOUR)
    assert partitions_asked(asked) == {"s2s_history": ["deu-eng"], "quality_report": [""]}, told(asked)


def test_a_shard_of_text_that_cannot_be_cleaned_stops_no_other(weeks: Weeks) -> None:
    weeks.failing = {("eng/text_sentences", "bad")}
    weeks.tick()
    weeks.list_shards("eng", "bad", "good")
    asked = weeks.until(weeks.now + 4 * HOUR, every=HOUR)
    sentences = {"eng/text_sentences": ["bad", "good"]}
    assert partitions_asked(asked) == {**sentences, "eng/text_duplicates": ["eng"], "eng/text_embeddings": ["good"]}


def test_what_failed_is_asked_for_once_more_a_day(mined: Weeks) -> None:
    mined.failing = {("s2s_neighbours", "deu-eng")}
    mined.make("deu/speech_index", "deu")
    asked = mined.until(MONDAY + 3 * DAY)
    assert partitions_asked(asked)["s2s_neighbours"] == ["deu-eng", "deu-eng", "deu-eng", "deu-fra"], told(asked)
    mined.failing = set()  # the last of these runs ends well
    assert "s2s_neighbours" not in partitions_asked(mined.until(mined.now + 2 * DAY))


def test_what_a_person_made_while_all_was_off_is_not_asked_for(mined: Weeks) -> None:
    mined.make("deu/speech_embeddings", "1")
    mined.make("deu/speech_index", "deu")
    for layer in MINED:
        for pair in ("deu-eng", "deu-fra"):
            mined.make(f"s2s_{layer}", pair)
        mined.make(f"s2t_{layer}", "deu-eng")
    mined.make("quality_report", "")
    assert mined.until(mined.now + 8 * DAY, every=DAY) == []


def test_no_pair_is_searched_between_the_last_book_embedded_again_and_the_index(mined: Weeks) -> None:
    mined.promote("v2")
    asked = mined.until(mined.now + 2 * HOUR, every=HOUR)
    assert partitions_asked(asked) == {"deu/speech_embeddings": ["1"]}, told(asked)
    mined.make("eng/speech_index", "eng")
    asked = mined.until(MONDAY + 6 * DAY)
    assert _without_reports(asked) == _mined(("eng-fra",), ("eng-eng",)), told(asked)
    asked = mined.until(MONDAY + 9 * DAY)
    german = _mined(("deu-eng", "deu-fra"), ("deu-eng",))
    assert _without_reports(asked) == {"deu/speech_index": ["deu"], **german}, told(asked)
    assert mined.refused == []


def test_an_index_that_waits_for_a_run_to_end_is_not_made_of_two_versions(mined: Weeks) -> None:
    mined.make("deu/speech_embeddings", "1")
    mined.now = at(1, 11, 20)
    book = dg.AssetKey(["deu", "speech_embeddings"])
    mined.start((book,), ("1",), {}, DAY, {book: None})
    assert mined.until(at(1, 12, 4)) == []  # the weekly tick: due, and a run is at the book
    mined.failing = {("deu/speech_embeddings", "1")}
    mined.promote("v2")
    asked = mined.until(at(1, 13, 12))
    assert set(partitions_asked(asked)) == {"deu/speech_embeddings"}, told(asked)
