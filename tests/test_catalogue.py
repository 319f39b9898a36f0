from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import CatalogueError, DownloadError
from speech_mining.records import CATALOGUE, REJECTIONS
from speech_mining.sources.addresses import AllowedHosts, archive_file
from speech_mining.sources.catalogue import LibriVoxApi, endpoint_of, fetch_catalogue, page_url
from speech_mining.sources.client import ClientConfig, PoliteClient
from speech_mining.sources.languages import MULTILINGUAL, iso_639_3
from speech_mining.sources.librivox import Parsed, Wanted, parse_books
from speech_mining.sources.protocol import Catalogue
from tests.faulty_server import Answer, FaultyServer, faulty_server

FOUR = frozenset({"deu", "eng", "fra", "spa"})
JSON_TYPE = {"Content-Type": "application/json"}


def section(number: Any = "1", **fields: Any) -> dict[str, Any]:
    return {
        "id": "121010",
        "section_number": number,
        "title": "Marseilles",
        "listen_url": f"https://www.archive.org/download/monte_cristo_librivox/part_{number}.mp3",
        "language": "English",
        "playtime": "1179",
        "file_name": None,
        "readers": [{"reader_id": "14", "display_name": "Kristin L"}],
        **fields,
    }


def book(audiobook: Any = "47", **fields: Any) -> dict[str, Any]:
    return {
        "id": audiobook,
        "title": "The Count",
        "language": "English",
        "url_librivox": "https://librivox.org/the-count/",
        "totaltime": "49:43:15",
        "totaltimesecs": 178995,
        "authors": [{"id": "431", "first_name": "Alexandre", "last_name": "Dumas"}],
        "sections": [section("1")],
        **fields,
    }


def parse(*books: Any, languages: frozenset[str] | None = FOUR) -> Parsed:
    return parse_books(books, Wanted(languages))


def reasons(parsed: Parsed | Catalogue) -> list[tuple[str | None, int | None, str]]:
    return parsed.rejections.select("audiobook", "section", "reason").rows()


def test_a_book_becomes_a_row_for_each_section_with_every_field_typed() -> None:
    parsed = parse(book())
    assert dict(parsed.sections.schema) == dict(CATALOGUE)
    assert parsed.sections.rows(named=True) == [
        {
            "audiobook": "47",
            "section": 1,
            "language": "eng",
            "title": "The Count",
            "authors": "Alexandre Dumas",
            "section_title": "Marseilles",
            "readers": "Kristin L",
            "reader_ids": "14",
            "duration_s": 1179,
            "listen_url": "https://www.archive.org/download/monte_cristo_librivox/part_1.mp3",
            "url_librivox": "https://librivox.org/the-count/",
            "licence": "Public Domain Mark 1.0",
            "first_seen": None,
            "last_changed": None,
            "file_version": None,
        }
    ]
    assert parsed.rejections.is_empty()


def test_no_book_gives_empty_tables_with_their_schemas() -> None:
    parsed = parse()
    assert parsed.sections.is_empty() and dict(parsed.sections.schema) == dict(CATALOGUE)
    assert parsed.rejections.is_empty() and dict(parsed.rejections.schema) == dict(REJECTIONS)


def test_unsorted_books_and_sections_come_out_by_language_number_and_section() -> None:
    late = book("100", sections=[section("10"), section("2"), section("1")])
    parsed = parse(late, book("9"), book("20", language="German"))
    assert parsed.sections.select("language", "audiobook", "section").rows() == [
        ("deu", "20", 1),
        ("eng", "9", 1),
        ("eng", "100", 1),
        ("eng", "100", 2),
        ("eng", "100", 10),
    ]


def test_a_german_book_is_german_where_its_sections_fall_back_to_english() -> None:
    assert parse(book(language="German")).sections["language"].to_list() == ["deu"]


def test_a_multilingual_book_gives_each_section_to_its_own_language() -> None:
    mixed = [section("1", language="German"), section("2", language="Dutch"), section("3", language="Xyzzyan")]
    parsed = parse(book(language="Multilingual", sections=[*mixed, section("4", language="Multilingual")]))
    assert parsed.sections.select("section", "language").rows() == [(1, "deu")]
    assert reasons(parsed) == [
        ("47", 2, "language_not_wanted"),
        ("47", 3, "unknown_language"),
        ("47", 4, "unknown_language"),
    ]


def test_an_unfinished_project_is_skipped_and_counted() -> None:
    parsed = parse(book("1", url_librivox=""), book("2", url_librivox=None), book("3", sections=[]), book("4"))
    assert parsed.sections["audiobook"].to_list() == ["4"]
    assert reasons(parsed) == [("1", None, "unfinished"), ("2", None, "unfinished"), ("3", None, "unfinished")]


def test_a_section_without_a_recording_is_unfinished_and_the_rest_of_the_book_survives() -> None:
    listed = [section("1", listen_url=""), section("2"), section("3", listen_url=None)]
    parsed = parse(book(sections=listed))
    assert parsed.sections["section"].to_list() == [2]
    assert reasons(parsed) == [("47", 1, "unfinished"), ("47", 3, "unfinished")]


@pytest.mark.parametrize("name", ["Xyzzyan", "", None, "Other", "x" * 500, "Unknown language"])
def test_an_unknown_language_is_reported_with_its_name(name: str | None) -> None:
    parsed = parse(book(language=name), languages=None)
    assert parsed.sections.is_empty() and reasons(parsed) == [("47", None, "unknown_language")]
    assert not name or name[:100] in parsed.rejections["detail"][0]


def test_a_language_that_is_not_mined_is_counted_and_all_known_ones_are_kept_where_none_is_named() -> None:
    assert reasons(parse(book(language="Dutch"))) == [("47", None, "language_not_wanted")]
    assert parse(book(language="Dutch"), languages=None).sections["language"].to_list() == ["nld"]


@pytest.mark.parametrize(
    "audiobook", [None, "", "../47", "47/..", "4 7", "-1", -1, True, 4.7, [], {}, "４７", "1" * 40]
)
def test_an_id_that_is_not_digits_is_malformed_and_names_nothing(audiobook: Any) -> None:
    parsed = parse(book(audiobook), book("48"))
    assert reasons(parsed) == [(None, None, "malformed")]
    assert parsed.sections["audiobook"].to_list() == ["48"]


@pytest.mark.parametrize("number", [None, "", "one", "../1", -1, "-1", 1.5, True, [1], 10**30])
def test_a_section_number_that_is_no_number_is_malformed_for_that_section_alone(number: Any) -> None:
    parsed = parse(book(sections=[section(number, listen_url="https://archive.org/x.mp3"), section("2")]))
    assert parsed.sections["section"].to_list() == [2]
    assert reasons(parsed) == [("47", None, "malformed")]


def test_a_preface_is_numbered_nought_as_librivox_does_and_numbers_may_be_json_numbers() -> None:
    parsed = parse(book(47, sections=[section("0"), section(1, playtime=60), section(" 2 ")]))
    assert parsed.sections.select("audiobook", "section").rows() == [("47", 0), ("47", 1), ("47", 2)]


def test_a_section_listed_twice_is_kept_once_and_the_second_is_malformed() -> None:
    parsed = parse(book(sections=[section("1", title="first"), section("1", title="second")]), book("47"))
    assert parsed.sections["section_title"].to_list() == ["first"]
    assert reasons(parsed) == [("47", 1, "malformed"), ("47", 1, "malformed")]


@pytest.mark.parametrize("entry", [None, 3, "book", [], True])
def test_an_entry_that_is_no_book_is_malformed(entry: Any) -> None:
    assert reasons(parse(entry, book())) == [(None, None, "malformed")]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("language", 7, "malformed"),
        ("language", ["English"], "malformed"),
        ("sections", "none", "malformed"),
        ("sections", {"a": 1}, "malformed"),
        ("sections", 4, "malformed"),
        ("url_librivox", {"a": 1}, "unfinished"),
    ],
)
def test_a_field_of_the_wrong_type_rejects_that_book_alone(field: str, value: Any, reason: str) -> None:
    parsed = parse(book(**{field: value}), book("48"))
    assert reasons(parsed) == [("47", None, reason)] and parsed.sections["audiobook"].to_list() == ["48"]


def test_missing_fields_that_only_describe_are_left_empty() -> None:
    bare = {
        "id": "47",
        "language": "English",
        "url_librivox": "https://librivox.org/x/",
        "sections": [{"section_number": "1", "listen_url": "https://archive.org/download/a/b.mp3"}],
    }
    (row,) = parse(bare).sections.rows(named=True)
    assert [row[name] for name in ("title", "authors", "section_title", "readers", "reader_ids")] == [""] * 5
    assert row["duration_s"] is None


@pytest.mark.parametrize(
    ("playtime", "seconds"),
    [
        ("1179", 1179),
        (1179, 1179),
        ("0:19:39", 1179),
        ("0", None),
        (0, None),
        (None, None),
        ("long", None),
        (1e3, None),
    ],
)
def test_announced_seconds_are_read_where_they_can_be(playtime: Any, seconds: int | None) -> None:
    assert parse(book(sections=[section(playtime=playtime)])).sections["duration_s"].to_list() == [seconds]


def test_titles_are_one_line_of_valid_unicode() -> None:
    assert parse(book(title=" A\tb\n\x00c \ud800 é ")).sections["title"].to_list() == ["A b c ? é"]


def test_lists_that_php_wrote_as_objects_are_read() -> None:
    gaps = {"0": section("1"), "2": section("2", readers={"3": {"reader_id": "5", "display_name": "Ann"}})}
    assert parse(book(sections=gaps)).sections["readers"].to_list() == ["Kristin L", "Ann"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://archive.org/a.mp3",
        "//archive.org/a.mp3",
        "a.mp3",
        "javascript:alert(1)",
        "https://example.com/a.mp3",
        "https://archive.org.example.com/a.mp3",
        "https://notarchive.org/a.mp3",
        "https://user:word@archive.org/a.mp3",
        "https://archive.org@example.com/a.mp3",
        "https://archive.org:8443/a.mp3",
        "https://archive.org:0/a.mp3",
        "https://archive.org:99999/a.mp3",
        "http://127.0.0.1/a.mp3",
        "http://[::1]/a.mp3",
        "http://2130706433/a.mp3",
        "https://archive.org/download/../../etc/passwd",
        "https://archive.org/download/%2e%2e/%2E%2E/passwd",
        "https://archive.org/download/a/..%5c..%5cb.mp3",
        "https://archive.org\\@example.com/a.mp3",
        "https://archive.org/a\n.mp3",
        "https://аrchive.org/a.mp3",
        "https://[archive.org/a.mp3",
        "https://archive.org/" + "a" * 5000,
    ],
)
def test_a_recording_that_lies_elsewhere_is_forbidden_and_the_rest_of_the_book_survives(url: str) -> None:
    parsed = parse(book(sections=[section("1", listen_url=url), section("2")]))
    assert reasons(parsed) == [("47", 1, "forbidden_url")]
    assert parsed.sections["section"].to_list() == [2]


@pytest.mark.parametrize("host", ["archive.org", "www.archive.org", "ia800207.us.archive.org", "ARCHIVE.org:443"])
def test_the_archives_own_hosts_are_allowed(host: str) -> None:
    assert AllowedHosts().refusal(f"https://{host}/download/a/b%20c.mp3") is None


def test_a_configured_host_is_allowed_with_its_own_port_only() -> None:
    hosts = AllowedHosts(configured=frozenset({"127.0.0.1:8080", "mirror.lan"}))
    assert hosts.refusal("http://127.0.0.1:8080/a.mp3") is None
    assert hosts.refusal("https://mirror.lan/a.mp3") is None
    assert hosts.refusal("http://127.0.0.1:8081/a.mp3") is not None
    assert hosts.refusal("http://sub.mirror.lan/a.mp3") is not None


def test_an_archive_address_names_its_item_and_its_file() -> None:
    found = archive_file("https://www.archive.org/download/count_0711_librivox/part%201.mp3")
    assert found is not None and (found.identifier, found.name) == ("count_0711_librivox", "part 1.mp3")


@pytest.mark.parametrize(
    "url",
    [
        "https://librivox.org/download/a/b.mp3",
        "https://archive.org/details/a/b.mp3",
        "https://archive.org/download/a/b/c.mp3",
        "https://archive.org/download/a%2Fb/c.mp3",
        "https://archive.org/download/a/b%2Fc.mp3",
        "https://archive.org/download/a/b%00.mp3",
        "https://archive.org/download/a/",
        "https://archive.org/download/.hidden/b.mp3",
        "https://archive.org/download/%2e%2e/b.mp3",
        "file:///download/a/b.mp3",
    ],
)
def test_an_address_with_tricks_names_no_archive_file(url: str) -> None:
    assert archive_file(url) is None


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("English", "eng"),
        ("German", "deu"),
        ("french", "fra"),
        (" Spanish ", "spa"),
        ("Chinese", "zho"),
        ("Ancient Greek", "grc"),
        ("Bisaya/Cebuano", "ceb"),
        ("Xyzzyan/Latin", "lat"),
        ("Classical Chinese", "lzh"),
        ("Deutsch", "deu"),
        ("日本語", "jpn"),
        ("de", "deu"),
        ("deu", "deu"),
        ("ger", "deu"),
        ("Multilingual", MULTILINGUAL),
        ("Xyzzy", None),
        ("zzz", None),
        ("und", None),
        ("qaa", None),
        ("", None),
        ("a\x00b", None),
    ],
)
def test_language_names_and_codes_become_iso_639_3(name: str, code: str | None) -> None:
    assert iso_639_3(name) == code


def test_importing_the_sources_loads_no_language_table() -> None:
    modules = "speech_mining.sources.catalogue, speech_mining.sources.downloads"
    told = f"import sys, {modules}; print('langcodes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["German", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
BOOK_FIELDS = [*book(), "surprise"]
SECTION_FIELDS = [*section(), "surprise"]


@st.composite
def disturbed_books(draw: st.DrawFn) -> list[Any]:
    books: list[Any] = []
    for number in range(draw(st.integers(0, 3))):
        entry = copy.deepcopy(book(str(number + 1), sections=[section("1"), section("2")]))
        entry.update(draw(st.dictionaries(st.sampled_from(BOOK_FIELDS), ANY_JSON, max_size=2)))
        if isinstance(entry["sections"], list):
            for listed in entry["sections"]:
                if isinstance(listed, dict):
                    listed.update(draw(st.dictionaries(st.sampled_from(SECTION_FIELDS), ANY_JSON, max_size=2)))
        books.append(draw(st.just(entry) | ANY_JSON))
    return books


@settings(max_examples=150, deadline=None)
@given(disturbed_books())
def test_any_json_in_any_field_is_a_row_or_a_rejection_for_each_book_and_section(books: list[Any]) -> None:
    for entry in books:
        parsed = parse(entry, languages=None)
        sections = entry.get("sections") if isinstance(entry, dict) else None
        listed = len(sections) if isinstance(sections, (list, dict)) else 0
        as_a_whole = parsed.rejections.height == 1 and parsed.rejections["section"][0] is None
        assert (
            as_a_whole and parsed.sections.is_empty()
        ) or parsed.sections.height + parsed.rejections.height == listed
    together = parse(*books, languages=None)
    assert together.sections.height + together.rejections.height == sum(
        parse(entry, languages=None).sections.height + parse(entry, languages=None).rejections.height for entry in books
    )
    assert set(together.sections["language"].to_list()).isdisjoint({None, MULTILINGUAL, ""})


def client_of(server: FaultyServer, **fields: Any) -> PoliteClient:
    config = ClientConfig(metadata_interval_s=0, attempts=3, first_wait_s=0, read_timeout_s=2, **fields)
    return PoliteClient(config.trusting(server.url), sleep=lambda _: None)


def serve_pages(server: FaultyServer, books: list[Any], page_size: int) -> str:
    endpoint = endpoint_of(server.url)
    for offset in range(0, len(books) + page_size, page_size):
        page = books[offset : offset + page_size]
        answer = (
            Answer(json.dumps({"books": page}).encode(), headers=JSON_TYPE)
            if page
            else Answer(b'{"error":"Audiobooks could not be found"}', status=404, headers=JSON_TYPE)
        )
        server.at(page_url(endpoint, offset, page_size).removeprefix(server.url), answer)
    return server.url


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10])
def test_paging_reads_every_book_also_where_the_total_is_a_multiple_of_the_page(count: int) -> None:
    told: list[tuple[int, int]] = []
    with faulty_server() as server, client_of(server) as client:
        url = serve_pages(server, [book(str(number + 1)) for number in range(count)], 5)
        catalogue = fetch_catalogue(
            client, url, languages=FOUR, page_size=5, progress=lambda done, total: told.append((done, total))
        )
    assert catalogue.books == count and catalogue.sections.height == count and catalogue.rejections.is_empty()
    assert len(server.requests) == -(-count // 5) + 1
    assert told[-1] == (count, count)


NOW = datetime(2026, 11, 21, 12, 30, tzinfo=timezone.utc)
END = Answer(b'{"error":"Audiobooks could not be found"}', status=404, headers=JSON_TYPE)


def asked_of(server: FaultyServer) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(server.requests[0].path).query))


def test_a_reading_by_since_asks_for_a_day_more_and_is_not_whole() -> None:
    with faulty_server() as server, client_of(server) as client:
        server.at("/api/feed/audiobooks/", Answer(json.dumps({"books": [book()]}).encode()), END)
        found = LibriVoxApi(client, server.url).read(languages=FOUR, since=NOW, now=NOW)
    assert asked_of(server)["since"] == str(int((NOW - timedelta(days=1)).timestamp()))
    assert not found.whole and found.books == 1 and found.timestamps.is_empty()


def test_nothing_new_since_is_an_empty_answer() -> None:
    with faulty_server() as server, client_of(server) as client:
        server.at("/api/feed/audiobooks/", END)
        found = fetch_catalogue(client, server.url, languages=FOUR, since=NOW, now=NOW)
    assert found.books == 0 and found.sections.is_empty() and not found.whole


@pytest.mark.parametrize(("query", "whole"), [("", True), ("?author=Goethe", True), ("?since=17", False)])
def test_an_address_that_asks_by_since_itself_is_not_whole(query: str, whole: bool) -> None:
    with faulty_server() as server, client_of(server) as client:
        server.at("/api/feed/audiobooks/", END)
        found = LibriVoxApi(client, server.url + query).read(languages=FOUR, since=None, now=NOW)
    assert found.whole is whole and asked_of(server).get("since") == (None if whole else "17")


def test_one_title_read_by_different_readers_is_as_many_books() -> None:
    others = [{"reader_id": "15", "display_name": "Ann"}]
    parsed = parse(book("47"), book("48", sections=[section("1", readers=others)]))
    assert parsed.sections.select("audiobook", "title", "readers").rows() == [
        ("47", "The Count", "Kristin L"),
        ("48", "The Count", "Ann"),
    ]


def test_a_catalogue_of_the_network_names_no_local_file_whatever_the_client_may_read() -> None:
    class Everything(AllowedHosts):
        def refusal(self, url: str) -> str | None:
            return None

    for url in ("file:///etc/passwd", "FILE:///a.mp3", " file:///a.mp3"):
        parsed = parse_books([book(sections=[section("1", listen_url=url)])], Wanted(FOUR, Everything()))
        assert reasons(parsed) == [("47", 1, "forbidden_url")]


def test_books_pushed_to_the_next_page_while_it_was_asked_are_passed_over() -> None:
    books = [book(str(number)) for number in (1, 2, 3, 4, 4, 5)]
    with faulty_server() as server, client_of(server) as client:
        catalogue = fetch_catalogue(client, serve_pages(server, books, 4), languages=FOUR, page_size=4)
    assert catalogue.sections["audiobook"].to_list() == ["1", "2", "3", "4", "5"]
    assert catalogue.books == 5 and catalogue.rejections.is_empty()


@pytest.mark.parametrize("suffix", ["", "/", "/api/feed/audiobooks", "/api/feed/audiobooks/", "?since=17"])
def test_the_catalogues_address_may_be_the_server_or_the_endpoint(suffix: str) -> None:
    page = Answer(json.dumps({"books": [book()]}).encode())
    end = Answer(b'{"error":"Audiobooks could not be found"}', status=404)
    with faulty_server() as server, client_of(server) as client:
        server.at("/api/feed/audiobooks/", page, end)
        assert fetch_catalogue(client, server.url + suffix, languages=FOUR).books == 1
    asked = server.requests[0].path
    assert asked.endswith("offset=0&limit=50&format=json&extended=1") and ("since=17" in asked) == ("since" in suffix)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(b"<html>welcome</html>", headers={"Content-Type": "text/html"}), "HTTP 200"),
        (Answer(b'{"books": [{"id": "1"'), "cut short"),
        (Answer(b"[1, 2]"), "a JSON list"),
        (Answer(b'{"tracks": []}'), r"fields \['tracks'\]"),
        (Answer(b'{"books": 7}'), "fields"),
        (Answer(b'{"books": [NaN]}'), "HTTP 200"),
        (Answer(b"\xff\xfe"), "HTTP 200"),
        (Answer(b"[" * 100_000), "HTTP 200"),
        (Answer(b"<html>no such page</html>", status=404), "HTTP 404"),
        (Answer(b"{}", status=404), "without the API's error"),
        (Answer(b"gone", status=410), "410"),
    ],
)
def test_an_answer_that_is_not_the_apis_is_a_clear_error(answer: Answer, told: str) -> None:
    with faulty_server() as server, client_of(server) as client:
        server.at("/api/feed/audiobooks/", answer)
        with pytest.raises(CatalogueError, match=told) as raised:
            fetch_catalogue(client, server.url, languages=FOUR)
    assert raised.value.expected and raised.value.cause and raised.value.fix


def test_a_server_that_ignores_the_offset_is_found_out_and_not_asked_for_ever() -> None:
    with faulty_server() as server, client_of(server) as client:
        server.at("/api/feed/audiobooks/", Answer(json.dumps({"books": [book()]}).encode()))
        with pytest.raises(CatalogueError, match="ignores `offset`"):
            fetch_catalogue(client, server.url, languages=FOUR)
    assert len(server.requests) == 2


def test_a_page_that_fails_thrice_in_the_middle_is_asked_again_and_nothing_is_lost() -> None:
    page = json.dumps({"books": [book()]}).encode()
    end = Answer(b'{"error":"Audiobooks could not be found"}', status=404)
    with faulty_server() as server, client_of(server) as client:
        server.at("/api/feed/audiobooks/", Answer(status=500), Answer(page, cut_after=20), Answer(page), end)
        assert fetch_catalogue(client, server.url, languages=FOUR).books == 1


def test_a_catalogue_larger_than_the_cap_is_refused() -> None:
    with faulty_server() as server, client_of(server, most_metadata_bytes=1000) as client:
        server.at("/api/feed/audiobooks/", Answer(b" " * 1001))
        with pytest.raises(DownloadError, match="at most 1000 bytes"):
            fetch_catalogue(client, server.url, languages=FOUR)


@pytest.mark.parametrize("url", ["librivox.org", "file:///catalogue.json", "https://a:b@librivox.org", ""])
def test_a_catalogue_address_that_is_none_is_a_clear_error(url: str) -> None:
    with PoliteClient() as client, pytest.raises(CatalogueError, match="not the address of a catalogue"):
        fetch_catalogue(client, url, languages=FOUR)


@pytest.mark.parametrize("page_size", [0, 51])
def test_a_page_larger_than_the_api_gives_is_refused(page_size: int) -> None:
    with PoliteClient() as client, pytest.raises(CatalogueError, match="1 to 50"):
        fetch_catalogue(client, "https://librivox.org", languages=FOUR, page_size=page_size)
