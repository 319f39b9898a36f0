from __future__ import annotations

import hashlib
import io
import random
from datetime import datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import CatalogueError, LakeError
from speech_mining.records import CATALOGUE, REJECTIONS, TIMESTAMPS
from speech_mining.sources.history import VERSIONS, book_versions, brought_up_to_date
from speech_mining.sources.protocol import Catalogue

DAY = timedelta(days=1)
FIRST = datetime(2026, 1, 1, tzinfo=timezone.utc)


def row(audiobook: str, section: int = 1, language: str = "deu", **fields: Any) -> dict[str, Any]:
    told = {"title": "T", "listen_url": f"https://archive.org/download/{audiobook}/{section}.mp3", "duration_s": 60}
    return {
        **dict.fromkeys(CATALOGUE),
        **told,
        **fields,
        "audiobook": audiobook,
        "section": section,
        "language": language,
    }


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(CATALOGUE), orient="row")


def spans(*rows: tuple[str, int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(TIMESTAMPS), orient="row")


def reading(
    *rows: dict[str, Any],
    on: datetime = FIRST,
    whole: bool = True,
    rejected: tuple[str, ...] = (),
    timestamps: pl.DataFrame | None = None,
) -> Catalogue:
    told = [{**dict.fromkeys(REJECTIONS), "audiobook": audiobook, "reason": "unfinished"} for audiobook in rejected]
    return Catalogue(
        table(*rows),
        pl.DataFrame(told, schema=dict(REJECTIONS), orient="row"),
        spans() if timestamps is None else timestamps,
        len({told["audiobook"] for told in rows}) + len(rejected),
        on,
        whole,
    )


def times(catalogue: Catalogue) -> dict[tuple[str, str], tuple[int, int]]:
    """Book -> the days on which it was first seen and last changed, counted from 0."""
    told = catalogue.sections.select("language", "audiobook", "first_seen", "last_changed").unique()
    assert told.height == told.select("language", "audiobook").n_unique()
    return {
        (language, book): ((seen - FIRST).days, (changed - FIRST).days) for language, book, seen, changed in told.rows()
    }


def gone(catalogue: Catalogue) -> list[tuple[str, str]]:
    left = catalogue.rejections.filter(pl.col("reason") == "gone")
    return [(audiobook, detail.rpartition(" ")[2]) for audiobook, detail in left.select("audiobook", "detail").rows()]


def parquet(frame: pl.DataFrame) -> bytes:
    written = io.BytesIO()
    frame.write_parquet(written, compression="zstd", statistics=True)
    return written.getvalue()


def test_the_first_reading_marks_every_book_with_its_time() -> None:
    found = brought_up_to_date(None, reading(row("2"), row("1", 2), row("1", 1)))
    assert found.sections.select("audiobook", "section").rows() == [("1", 1), ("1", 2), ("2", 1)]
    assert times(found) == {("deu", "1"): (0, 0), ("deu", "2"): (0, 0)}
    assert dict(found.sections.schema) == dict(CATALOGUE) and found.rejections.is_empty()


def test_a_reading_that_says_the_same_leaves_the_same_bytes_whatever_its_order() -> None:
    rows = [row("1", 1), row("1", 2), row("20"), row("9", language="eng"), row("1", 3, "eng")]
    brought = spans(("1", 1, 0, 9), ("1", 1, 5, 9), ("1", 3, 2, 4))
    before = brought_up_to_date(None, reading(*rows, timestamps=brought))
    shuffled = reading(*rows[::-1], on=FIRST + DAY, timestamps=brought.reverse())
    after = brought_up_to_date(before.sections, shuffled, timestamps=before.timestamps)
    assert parquet(after.sections) == parquet(before.sections)
    assert parquet(after.timestamps) == parquet(before.timestamps)
    assert after.read_at == FIRST + DAY


@pytest.mark.parametrize(
    "changed",
    [
        {"title": "New"},
        {"duration_s": 61},
        {"duration_s": None},
        {"listen_url": "https://archive.org/download/1/b.mp3"},
        {"file_version": "9-9"},
        {"licence": ""},
    ],
)
def test_a_book_of_which_one_row_changed_has_another_version_and_its_neighbour_has_not(changed: dict[str, Any]) -> None:
    before = brought_up_to_date(None, reading(row("1", 1), row("1", 2), row("2")))
    after = brought_up_to_date(before.sections, reading(row("1", 1), row("1", 2, **changed), row("2"), on=FIRST + DAY))
    assert times(after) == {("deu", "1"): (0, 1), ("deu", "2"): (0, 0)}
    then, now = (book_versions(each.sections, each.timestamps) for each in (before, after))
    assert (then["version"] == now["version"]).to_list() == [False, True]


def test_a_section_more_or_less_changes_the_book() -> None:
    before = brought_up_to_date(None, reading(row("1", 1), row("2", 1), row("2", 2)))
    after = brought_up_to_date(before.sections, reading(row("1", 1), row("1", 2), row("2", 1), on=FIRST + DAY))
    assert times(after) == {("deu", "1"): (0, 1), ("deu", "2"): (0, 1)}


def test_a_book_changes_in_one_language_and_not_in_the_other() -> None:
    before = brought_up_to_date(None, reading(row("1", 1, "deu"), row("1", 2, "eng")))
    after = brought_up_to_date(
        before.sections, reading(row("1", 1, "deu", title="X"), row("1", 2, "eng"), on=FIRST + DAY)
    )
    assert times(after) == {("deu", "1"): (0, 1), ("eng", "1"): (0, 0)}


@pytest.mark.parametrize(
    "now", [(), (("1", 1, 0, 9),), (("1", 1, 0, 9), ("1", 1, 5, 10)), (("1", 1, 0, 9), ("1", 1, 5, 9), ("1", 1, 6, 9))]
)
def test_a_span_that_comes_goes_or_moves_changes_its_book(now: tuple[tuple[str, int, int, int], ...]) -> None:
    then = spans(("1", 1, 0, 9), ("1", 1, 5, 9), ("2", 1, 0, 1))
    before = brought_up_to_date(None, reading(row("1"), row("2"), timestamps=then))
    found = reading(row("1"), row("2"), on=FIRST + DAY, timestamps=spans(*now, ("2", 1, 0, 1)))
    after = brought_up_to_date(before.sections, found, timestamps=before.timestamps)
    assert times(after) == {("deu", "1"): (0, 1), ("deu", "2"): (0, 0)}
    assert after.timestamps.height == len(now) + 1


def test_a_whole_reading_takes_away_what_is_not_listed_any_more_and_tells() -> None:
    rows = [row("1"), row("2"), row("3", 1, "deu"), row("3", 2, "eng")]
    before = brought_up_to_date(None, reading(*rows, timestamps=spans(("2", 1, 0, 9))))
    found = reading(row("1"), row("3", 1, "deu"), on=FIRST + DAY, rejected=("2",))
    after = brought_up_to_date(before.sections, found, timestamps=before.timestamps)
    assert times(after) == {("deu", "1"): (0, 0), ("deu", "3"): (0, 0)}
    assert gone(after) == [("2", "deu"), ("3", "eng")] and after.timestamps.is_empty()
    assert after.rejections["reason"].to_list() == ["unfinished", "gone", "gone"]


def test_a_book_that_comes_back_is_new() -> None:
    before = brought_up_to_date(None, reading(row("1"), row("2")))
    without = brought_up_to_date(before.sections, reading(row("1"), on=FIRST + DAY))
    again = brought_up_to_date(without.sections, reading(row("1"), row("2"), on=FIRST + 2 * DAY))
    assert times(again) == {("deu", "1"): (0, 0), ("deu", "2"): (2, 2)}


def test_a_change_that_a_clock_set_back_dates_early_comes_after_those_that_are_known() -> None:
    first = brought_up_to_date(None, reading(row("1"), row("2"), row("1", language="eng")))
    later = brought_up_to_date(
        first.sections, reading(row("1"), row("2", title="New"), row("1", language="eng"), on=FIRST + DAY)
    )
    back = reading(row("1", title="Newer"), row("2", title="New"), row("1", language="eng"), on=FIRST - DAY)
    found = brought_up_to_date(later.sections, back).sections
    changed = {(told["language"], told["audiobook"]): told["last_changed"] for told in found.to_dicts()}
    assert changed["deu", "1"] > changed["deu", "2"] == FIRST + DAY
    assert changed["eng", "1"] == FIRST


def test_a_reading_by_since_replaces_the_books_it_names_and_leaves_the_others() -> None:
    rows = [row("1"), row("2", 1), row("2", 2), row("3"), row("4", 1, "eng"), row("5")]
    then = spans(("1", 1, 0, 9), ("2", 1, 0, 9), ("5", 1, 0, 9))
    before = brought_up_to_date(None, reading(*rows, timestamps=then))
    found = reading(row("2", 1), row("4", 1, "deu"), row("6"), on=FIRST + DAY, whole=False, rejected=("5",))
    after = brought_up_to_date(before.sections, found, timestamps=before.timestamps)
    assert times(after) == {
        ("deu", "1"): (0, 0),
        ("deu", "2"): (0, 1),
        ("deu", "3"): (0, 0),
        ("deu", "4"): (1, 1),
        ("deu", "6"): (1, 1),
    }
    assert gone(after) == [("5", "deu"), ("4", "eng")] or gone(after) == [("4", "eng"), ("5", "deu")]
    assert after.timestamps.rows() == [("1", 1, 0, 9)] and not after.whole


def test_an_empty_reading_by_since_changes_nothing_and_an_empty_whole_one_is_refused() -> None:
    before = brought_up_to_date(None, reading(row("1")))
    after = brought_up_to_date(before.sections, reading(on=FIRST + DAY, whole=False))
    assert parquet(after.sections) == parquet(before.sections)
    with pytest.raises(CatalogueError, match="has no book, and had 1"):
        brought_up_to_date(before.sections, reading(on=FIRST + DAY))
    assert brought_up_to_date(None, reading()).sections.is_empty()


def test_a_table_of_another_version_is_refused() -> None:
    with pytest.raises(LakeError, match="the catalogue before"):
        brought_up_to_date(table(row("1")).drop("first_seen"), reading(row("1")))


def test_a_version_is_the_hash_of_the_written_values_on_any_machine() -> None:
    one = table(row("1", title="Ä", duration_s=None, last_changed=FIRST))
    url = "https://archive.org/download/1/1.mp3"
    parts = ["1:1", "1:1", "3:deu", "2:Ä", "-", "-", "-", "-", "-", f"{len(url)}:{url}", "-", "-", "-"]
    written = ",".join(parts) + "\n" + "1:1,1:0,1:9"
    version = hashlib.blake2b(written.encode(), digest_size=16).hexdigest()
    found = book_versions(one, spans(("1", 1, 0, 9), ("1", 7, 0, 9), ("8", 1, 0, 9)))
    assert found.rows() == [("deu", "1", version, FIRST)] and dict(found.schema) == dict(VERSIONS)


def test_values_do_not_run_into_each_other() -> None:
    variants = [("a", "b"), ("a,1:b", ""), ("", "ab"), ("ab", ""), ("-", None), (None, "-"), (None, None), ("", "")]
    versions = {
        book_versions(table(row("1", title=title, authors=authors)), spans())["version"][0]
        for title, authors in variants
    }
    assert len(versions) == len(variants)


ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["1", "2", "10", "b"]), st.integers(1, 2)),
    st.tuples(st.sampled_from(["deu", "eng"]), st.sampled_from(["x", "y"])),
    min_size=1,
)


def rows_of(told: dict[tuple[str, int], tuple[str, str]]) -> list[dict[str, Any]]:
    return [row(book, section, language, title=title) for (book, section), (language, title) in told.items()]


@settings(max_examples=80, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(0, 99))
def test_any_history_of_readings_keeps_what_a_plain_account_of_it_keeps(
    days: list[dict[tuple[str, int], tuple[str, str]]], seed: int
) -> None:
    known: pl.DataFrame | None = None
    account: dict[tuple[str, str], tuple[frozenset[Any], int, int]] = {}
    for day, told in enumerate(days):
        books: dict[tuple[str, str], set[Any]] = {}
        for (book, section), (language, title) in told.items():
            books.setdefault((language, book), set()).add((section, title))
        held = {key: frozenset(content) for key, content in books.items()}
        account = {
            key: account[key]
            if key in account and account[key][0] == content
            else (content, account[key][1] if key in account else day, day)
            for key, content in held.items()
        }
        rows = rows_of(told)
        random.Random(seed).shuffle(rows)
        after = brought_up_to_date(known, reading(*rows, on=FIRST + day * DAY))
        assert times(after) == {key: (seen, changed) for key, (_, seen, changed) in account.items()}
        known = after.sections
