from __future__ import annotations

import os
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote, urlsplit

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.errors import CatalogueError, SettingsError
from speech_mining.records import AUDIOBOOK_ID, CATALOGUE, REJECTIONS, TIMESTAMPS, audiobook_order, by_audiobook
from speech_mining.sources.audiobook_names import audiobook_id, ids_apart
from speech_mining.sources.catalogue import LibriVoxApi
from speech_mining.sources.client import PoliteClient
from speech_mining.sources.protocol import Catalogue, Source, open_source
from speech_mining.sources.recordings_folder import RecordingsFolder, section_numbers

NOW = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)


def lay(root: Path, *names: str) -> Path:
    """Files that look like recordings to one who reads names and sizes only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound of " + name.encode("utf-8", "surrogateescape"))
    return root


def opened(address: str | Path) -> Source:
    with PoliteClient() as client:
        return open_source(str(address), client)


def read(address: str | Path, languages: Collection[str] | None = None) -> Catalogue:
    return opened(address).read(languages=languages, since=None, now=NOW)


def rejected(catalogue: Catalogue) -> list[tuple[str | None, int | None, str]]:
    return catalogue.rejections.select("audiobook", "section", "reason").rows()


def listed(catalogue: Catalogue) -> list[tuple[str, str, int]]:
    return catalogue.sections.select("language", "audiobook", "section").rows()


def test_a_folder_of_recordings_is_listed_by_language_book_and_section(tmp_path: Path) -> None:
    lay(tmp_path, "deu/Emma/01 Anfang.mp3", "deu/Emma/02.OPUS", "eng/47/1.flac", "eng/9/1.wav")
    found = read(tmp_path)
    assert listed(found) == [("deu", "Emma", 1), ("deu", "Emma", 2), ("eng", "9", 1), ("eng", "47", 1)]
    assert dict(found.sections.schema) == dict(CATALOGUE) and dict(found.rejections.schema) == dict(REJECTIONS)
    assert found.timestamps.is_empty() and dict(found.timestamps.schema) == dict(TIMESTAMPS)
    assert (found.books, found.read_at, found.whole) == (3, NOW, True) and found.rejections.is_empty()
    first = found.sections.row(0, named=True)
    assert (first["title"], first["section_title"], first["readers"]) == ("Emma", "01 Anfang", "")
    assert first["duration_s"] is None and first["first_seen"] is None and first["licence"] == ""


@pytest.mark.parametrize("name", ["a b#c?d%e.mp3", "ä日 'x'.mp3", "caf\udce9.mp3", "..mp3.mp3"])
def test_an_address_leads_back_to_the_file_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    lay(tmp_path, "deu/b/x.mp3")
    path = tmp_path / "deu" / "b" / name
    path.write_bytes(b"sound")
    if name.startswith("."):
        assert rejected(read(tmp_path)) == [("b", None, "not_audio")]
        return
    urls = read(tmp_path).sections["listen_url"].to_list()
    assert all(url.startswith("file:///") and url.isascii() for url in urls)
    assert path in [Path(unquote(urlsplit(url).path, errors="surrogateescape")) for url in urls]


def test_another_content_has_another_file_version_and_the_same_has_the_same(tmp_path: Path) -> None:
    lay(tmp_path, "deu/b/1.mp3", "deu/b/2.mp3")
    before = read(tmp_path).sections["file_version"].to_list()
    assert before == read(tmp_path).sections["file_version"].to_list()
    os.utime(tmp_path / "deu/b/2.mp3", ns=(1, 1))
    after = read(tmp_path).sections["file_version"].to_list()
    assert after[0] == before[0] and after[1] != before[1]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["1.mp3", "10.mp3", "2.mp3"], [1, 10, 2]),
        (["00 preface.mp3", "07.mp3"], [0, 7]),
        (["a10.mp3", "a9.mp3"], [2, 1]),
        (["1 a.mp3", "1 b.mp3"], [1, 2]),
        (["1.mp3", "x.mp3"], [1, 2]),
        (["20260101.mp3", "20270102.mp3"], [1, 2]),
        ([], []),
    ],
)
def test_a_section_has_the_number_that_leads_its_name_or_its_place_in_natural_order(
    names: list[str], numbers: list[int]
) -> None:
    assert section_numbers(names) == dict(zip(names, numbers, strict=True))


@pytest.mark.parametrize("name", ["deu", "de", "German", "german", "Deutsch", "DEU", "DE", "ger"])
def test_a_language_folder_may_be_a_code_or_a_name(tmp_path: Path, name: str) -> None:
    assert listed(read(lay(tmp_path, f"{name}/b/1.mp3"), {"deu"})) == [("deu", "b", 1)]


@pytest.mark.parametrize("code", ["cmn", "arb", "swh", "pes", "nob"])
def test_a_three_letter_code_stays_the_language_it_is(tmp_path: Path, code: str) -> None:
    assert listed(read(lay(tmp_path, f"{code}/b/1.mp3"), {code})) == [(code, "b", 1)]


def test_languages_that_are_unknown_or_not_wanted_are_told_by_name(tmp_path: Path) -> None:
    found = read(lay(tmp_path, "deu/a/1.mp3", "eng/b/1.mp3", "xyzzyan/c/1.mp3", "Multilingual/d/1.mp3"), {"deu"})
    assert listed(found) == [("deu", "a", 1)]
    told = dict(zip(found.rejections["reason"], found.rejections["detail"], strict=True))
    assert set(told) == {"unknown_language", "language_not_wanted"}
    assert any("xyzzyan" in detail for detail in found.rejections["detail"]) and "eng" in told["language_not_wanted"]
    assert found.rejections.height == 3


def test_whatever_is_no_usable_recording_is_named_and_the_rest_of_the_book_survives(tmp_path: Path) -> None:
    root = lay(tmp_path / "in", "deu/b/01.mp3", "deu/b/02.mp3", "deu/b/03.mp3", "deu/b/04.mp3", "deu/b/cover.jpg")
    lay(root, "deu/b/.DS_Store", "deu/loose.mp3", "readme.txt", "deu/b/disc/1.mp3", ".git/x", "deu/empty/notes.txt")
    (root / "deu/b/02.mp3").write_bytes(b"")
    (lay(tmp_path, "secret.mp3") / "secret.mp3").touch()
    (root / "deu/b/03.mp3").unlink()
    (root / "deu/b/03.mp3").symlink_to(tmp_path / "secret.mp3")
    (root / "deu/b/05.mp3").symlink_to(root / "nowhere.mp3")
    (root / "deu/b/06.mp3").mkdir()
    (root / "deu/out").symlink_to(tmp_path)
    (root / "deu/round").symlink_to(root / "deu/round")
    found = read(root)
    assert listed(found) == [("deu", "b", 1), ("deu", "b", 4)]
    assert sorted(rejected(found), key=str) == sorted(
        [
            ("b", 2, "empty_file"),
            ("b", 3, "forbidden_url"),
            ("b", 5, "not_found"),
            ("b", 6, "not_audio"),
            ("b", None, "not_audio"),  # cover.jpg
            ("b", None, "not_audio"),  # .DS_Store
            ("b", None, "not_audio"),  # disc
            ("empty", None, "not_audio"),  # notes.txt
            ("empty", None, "unfinished"),
            (None, None, "not_audio"),  # loose.mp3
            (None, None, "not_audio"),  # readme.txt
            (None, None, "not_audio"),  # .git
            (None, None, "forbidden_url"),  # out
            (None, None, "forbidden_url"),  # round
        ],
        key=str,
    )
    assert not any("secret" in url for url in found.sections["listen_url"])


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    lay(tmp_path, "deu/b/1.mp3")
    (tmp_path / "deu/b/2.mp3").symlink_to(tmp_path / "deu/b/1.mp3")
    (tmp_path / "eng").symlink_to(tmp_path / "deu")
    assert listed(read(tmp_path)) == [("deu", "b", 1), ("deu", "b", 2), ("eng", "b", 1), ("eng", "b", 2)]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_not_found(tmp_path: Path) -> None:
    lay(tmp_path, "deu/b/1.mp3", "deu/b/2.mp3")
    (tmp_path / "deu/b/2.mp3").chmod(0)
    assert rejected(read(tmp_path)) == [("b", 2, "not_found")]


def test_two_folders_of_one_language_are_one_language_and_a_book_in_both_is_told(tmp_path: Path) -> None:
    found = read(lay(tmp_path, "deu/a/1.mp3", "German/a/1.mp3", "German/b/1.mp3"))
    assert [audiobook for _, audiobook, _ in listed(found)] == ["a", "b"]
    assert rejected(found) == [("a", None, "malformed")]


@pytest.mark.parametrize(
    ("name", "title", "readers"),
    [
        ("Emma (read by Ann Lee)", "Emma", "Ann Lee"),
        ("Emma - Read by Ann", "Emma", "Ann"),
        ("Emma, read by Ann [2]", "Emma", "Ann [2"),
        ("Well read by night", "Well read by night", ""),
        ("Emma", "Emma", ""),
    ],
)
def test_readers_are_taken_from_the_name_of_the_folder(tmp_path: Path, name: str, title: str, readers: str) -> None:
    found = read(lay(tmp_path, f"eng/{name}/1.mp3"))
    assert found.sections.select("title", "readers").row(0) == (title, readers)


@pytest.mark.parametrize("name", ["Emma", "47", "a.b_c-d", "9" * 100])
def test_a_name_that_fits_is_the_id(name: str) -> None:
    assert audiobook_id(name) == name


def test_a_name_that_does_not_fit_becomes_a_slug_and_a_hash_that_never_change() -> None:
    assert audiobook_id("Die Räuber") == "Die-Rauber-0010058a"
    assert audiobook_id("Die Räuber") == audiobook_id("Die Ra\u0308uber")
    assert audiobook_id("戦争と平和").startswith("book-")


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_name_gives_an_id_that_may_name_a_folder_and_two_names_give_two(one: str, other: str) -> None:
    import unicodedata

    assert AUDIOBOOK_ID.fullmatch(audiobook_id(one))
    if unicodedata.normalize("NFC", one) != unicodedata.normalize("NFC", other):
        assert audiobook_id(one) != audiobook_id(other)


def test_books_with_spans_are_told_apart_between_languages() -> None:
    books = [("deu", "tales"), ("eng", "tales"), ("eng", "more")]
    assert ids_apart(books) == {
        ("deu", "tales"): "tales.deu",
        ("eng", "tales"): "tales.eng",
        ("eng", "more"): "more",
    }
    taken = ids_apart([*books, ("deu", "tales.deu")])
    assert len(set(taken.values())) == 4 and taken["eng", "tales"] == "tales.eng"


def test_audiobooks_are_ordered_by_number_then_naturally_and_polars_orders_them_the_same() -> None:
    ordered = ["0", "7", "007", "9", "20", "100", "10a", "book", "Tale 9", "tale 9", "tale 10"]
    assert sorted(reversed(ordered), key=audiobook_order)[:6] == ["0", "007", "7", "9", "20", "100"]
    assert sorted(ordered, key=audiobook_order)[6:] == ordered[6:]
    frame = pl.DataFrame({"audiobook": sorted(ordered)}).sort(by_audiobook())
    assert frame["audiobook"].to_list() == sorted(ordered, key=audiobook_order)


@given(st.lists(st.integers(0, 10**13).map(str), unique=True))
def test_ids_of_digits_keep_their_order_by_number(ids: list[str]) -> None:
    assert sorted(ids, key=audiobook_order) == sorted(ids, key=int)


def test_an_address_of_the_network_is_librivox() -> None:
    assert isinstance(opened("https://librivox.org"), LibriVoxApi)


def test_a_folder_may_be_given_as_a_file_address(tmp_path: Path) -> None:
    root = lay(tmp_path / "a b", "deu/x/1.mp3")
    assert opened(root.as_uri()) == RecordingsFolder(root)


@pytest.mark.parametrize("address", ["", "s3://bucket/x", "ftp://host/x", "/no/such/place"])
def test_an_address_that_names_nothing_is_a_clear_error(address: str) -> None:
    with pytest.raises(CatalogueError) as raised:
        opened(address)
    assert raised.value.expected and raised.value.fix


def test_a_folder_that_holds_neither_or_both_is_a_clear_error_that_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    with pytest.raises(CatalogueError, match=r"neither.*papers"):
        opened(tmp_path)
    lay(tmp_path, "deu/book/1.mp3", "eng/0.tsv")
    with pytest.raises(CatalogueError, match=r"both recordings.*book.* and shards.*0\.tsv"):
        opened(tmp_path)


def test_a_unit_is_refused_where_nothing_has_one(tmp_path: Path) -> None:
    lay(tmp_path, "deu/book/1.mp3")
    with pytest.raises(SettingsError, match="no shards"):
        opened(f"{tmp_path}?unit=ms")
    with pytest.raises(SettingsError, match=r"\?unit=ms or"):
        opened(f"{tmp_path}?unit=hours")
