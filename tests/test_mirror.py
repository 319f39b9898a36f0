from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from demo.mirror import Mirror, serve_library
from speech_mining.errors import CatalogueError, DownloadError
from speech_mining.sources.addresses import archive_file
from speech_mining.sources.catalogue import fetch_catalogue
from speech_mining.sources.client import ClientConfig, PoliteClient
from speech_mining.sources.downloads import archive_file_facts, download_recording

SOUND = b"ID3\x04" + bytes(range(256)) * 40


def a_book(number: int) -> dict[str, Any]:
    return {
        "id": str(number),
        "title": f"Book {number}",
        "language": "German",
        "url_librivox": f"https://librivox.org/book-{number}/",
        "sections": [
            {
                "section_number": "1",
                "title": "One",
                "language": "German",
                "playtime": "3",
                "listen_url": f"https://www.archive.org/download/book_{number}_librivox/one.mp3",
                "readers": [],
            }
        ],
    }


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    (root / "metadata").mkdir(parents=True)
    (root / "catalogue.json").write_text(json.dumps({"books": [a_book(number) for number in range(1, 101)]}))
    (root / "download" / "book_1_librivox").mkdir(parents=True)
    (root / "download" / "book_1_librivox" / "one.mp3").write_bytes(SOUND)
    facts = {"name": "one.mp3", "size": str(len(SOUND)), "md5": hashlib.md5(SOUND).hexdigest()}
    (root / "metadata" / "book_1_librivox.json").write_text(json.dumps({"files": [facts]}))
    (tmp_path / "secret.mp3").write_bytes(b"secret")
    (root / "download" / "book_1_librivox" / "link.mp3").symlink_to(tmp_path / "secret.mp3")
    return root


@pytest.fixture
def mirror(library: Path) -> Iterator[Mirror]:
    with serve_library(library) as serving:
        yield serving


def ask(mirror: Mirror, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False) as client:
        return client.request(method, mirror.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})


def raw(mirror: Mirror, target: str) -> tuple[int, bytes]:
    """Ask for a target as it is written: httpx would tidy the path up first."""
    connection = http.client.HTTPConnection(urlsplit(mirror.url).netloc, timeout=5)
    try:
        connection.putrequest("GET", target, skip_host=False)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_whole_ingest_path_runs_against_the_mirror_with_the_archives_own_addresses(
    mirror: Mirror, tmp_path: Path
) -> None:
    config = ClientConfig(metadata_interval_s=0, mirrors=mirror.mirrors)
    with PoliteClient(config) as client:
        catalogue = fetch_catalogue(client, "https://librivox.org", languages={"deu"})
        assert catalogue.books == 100 and catalogue.sections.height == 100  # a multiple of the page of 50
        named = archive_file(catalogue.sections["listen_url"][0])
        assert named is not None
        facts = archive_file_facts(client, named.identifier)[named.name]
        got = download_recording(client, catalogue.sections["listen_url"][0], tmp_path / "1.mp3", expected=facts)
    assert got.path.read_bytes() == SOUND


def test_the_mirrors_own_address_is_a_catalogue_address_too(mirror: Mirror) -> None:
    with PoliteClient(ClientConfig(metadata_interval_s=0).trusting(mirror.url)) as client:
        assert fetch_catalogue(client, mirror.url, languages={"deu"}).books == 100


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", list(range(1, 51))),
        ("?offset=98", [99, 100]),
        ("?offset=10&limit=3", [11, 12, 13]),
        ("?limit=500", list(range(1, 51))),
        ("?limit=0", list(range(1, 51))),
        ("?limit=x&offset=-4", list(range(1, 51))),
    ],
)
def test_pages_are_as_the_api_gives_them(mirror: Mirror, query: str, ids: list[int]) -> None:
    answer = ask(mirror, f"/api/feed/audiobooks/{query}")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert [int(book["id"]) for book in answer.json()["books"]] == ids


def test_sections_come_only_with_extended(mirror: Mirror) -> None:
    assert "sections" not in ask(mirror, "/api/feed/audiobooks?limit=1").json()["books"][0]
    assert "sections" in ask(mirror, "/api/feed/audiobooks/?limit=1&extended=1").json()["books"][0]


def test_past_the_end_is_404_with_the_apis_words(mirror: Mirror) -> None:
    answer = ask(mirror, "/api/feed/audiobooks/?offset=100&limit=50")
    assert answer.status_code == 404 and answer.json() == {"error": "Audiobooks could not be found"}


def test_an_item_that_is_not_there_is_an_empty_object_as_on_archive_org(mirror: Mirror) -> None:
    assert ask(mirror, "/metadata/none").json() == {}
    with PoliteClient(ClientConfig(metadata_interval_s=0, mirrors=mirror.mirrors)) as client:
        with pytest.raises(DownloadError) as raised:
            archive_file_facts(client, "none")
    assert raised.value.reason == "gone"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-", 0, None),
        ("bytes=100-", 100, None),
        ("bytes=100-199", 100, 200),
        ("bytes=10000-99999", 10000, None),
        ("bytes=-10", len(SOUND) - 10, None),
    ],
)
def test_a_range_is_answered_with_206(mirror: Mirror, asked: str, start: int, stop: int | None) -> None:
    answer = ask(mirror, "/download/book_1_librivox/one.mp3", Range=asked)
    assert answer.status_code == 206 and answer.content == SOUND[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{(stop or len(SOUND)) - 1}/{len(SOUND)}"


@pytest.mark.parametrize("asked", [f"bytes={len(SOUND)}-", "bytes=99999999-", "bytes=-0", "bytes=9-3"])
def test_a_range_past_the_end_is_answered_with_416(mirror: Mirror, asked: str) -> None:
    answer = ask(mirror, "/download/book_1_librivox/one.mp3", Range=asked)
    assert answer.status_code == 416 and answer.headers["content-range"] == f"bytes */{len(SOUND)}"


@pytest.mark.parametrize("asked", ["bytes=a-", "bytes=-", "lines=1-2", "bytes=0-1,5-6"])
def test_an_unreadable_range_is_answered_with_the_whole_file(mirror: Mirror, asked: str) -> None:
    answer = ask(mirror, "/download/book_1_librivox/one.mp3", Range=asked)
    assert answer.status_code == 200 and answer.content == SOUND and answer.headers["content-type"] == "audio/mpeg"


def test_if_range_gives_a_part_only_of_the_same_file(mirror: Mirror) -> None:
    path = "/download/book_1_librivox/one.mp3"
    etag = ask(mirror, path, "HEAD").headers["etag"]
    assert ask(mirror, path, Range="bytes=5-", If_Range=etag).status_code == 206
    assert ask(mirror, path, Range="bytes=5-", If_Range='"another"').status_code == 200


def test_head_tells_the_length_and_sends_nothing(mirror: Mirror) -> None:
    answer = ask(mirror, "/download/book_1_librivox/one.mp3", "HEAD")
    assert answer.status_code == 200 and answer.headers["content-length"] == str(len(SOUND)) and not answer.content


@pytest.mark.parametrize(
    "target",
    [
        "/download/../../secret.mp3",
        "/download/book_1_librivox/..%2F..%2F..%2Fsecret.mp3",
        "/download/%2e%2e/secret.mp3",
        "/download/book_1_librivox/link.mp3",
        "/download/book_1_librivox/",
        "/download/book_1_librivox",
        "/metadata/..%2Fcatalogue",
        "/catalogue.json",
        "//etc/passwd",
        "/download/book_1_librivox/one.mp3%00",
        "/",
        "*",
    ],
)
def test_no_path_leads_out_of_the_library(mirror: Mirror, target: str) -> None:
    status, body = raw(mirror, target)
    assert b"secret" not in body and b"books" not in body
    assert status == 404 or body == b"{}"


def test_a_folder_without_a_catalogue_is_a_clear_error(tmp_path: Path) -> None:
    for text in (None, "not json", "[]", '{"tracks": []}'):
        if text is not None:
            (tmp_path / "catalogue.json").write_text(text)
        with pytest.raises(CatalogueError, match="holds no catalogue"), serve_library(tmp_path):
            pass


def test_the_port_is_free_again_when_the_block_ends(library: Path) -> None:
    with serve_library(library) as first:
        port = urlsplit(first.url).port or 0
    with pytest.raises(httpx.ConnectError):
        ask(first, "/")
    with serve_library(library, port=port) as second:
        assert second.url == first.url
