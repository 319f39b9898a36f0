from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.mirror import serve_library
from resources.settings import LIBRARY
from speech_mining.sources.catalogue import LibriVoxApi
from speech_mining.sources.client import ClientConfig, PoliteClient, Reply
from speech_mining.sources.history import brought_up_to_date
from speech_mining.sources.protocol import Catalogue

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=timezone.utc)
MADE = datetime(2026, 1, 1, tzinfo=timezone.utc)
TELLS_THE_TIME = pytest.mark.skipif("date" not in Reply.__dataclass_fields__, reason="the client drops the Date")


@contextmanager
def api_at(dates: Sequence[str | None]) -> Iterator[str]:
    """A server with one book on a page and none after, whose answers tell these dates; None for no Date at all."""
    left = list(dates)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = "offset=0" in self.path
            body = {"books": [{"id": "1"}]} if page else {"error": "Audiobooks could not be found"}
            self.send_response_only(200 if page else 404)
            date = left.pop(0) if len(left) > 1 else left[0]
            if date is not None:
                self.send_header("Date", date)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def read(url: str, now: datetime = NOW, since: datetime | None = None, **config: Any) -> Catalogue:
    with PoliteClient(ClientConfig(metadata_interval_s=0, **config).trusting(url)) as client:
        return LibriVoxApi(client, url).read(languages=None, since=since, now=now)


@TELLS_THE_TIME
def test_a_catalogue_was_read_when_the_servers_first_answer_says() -> None:
    with api_at(["Thu, 01 Jan 2026 00:00:01 GMT", "Thu, 01 Jan 2026 00:00:09 GMT"]) as url:
        assert read(url).read_at == datetime(2026, 1, 1, 0, 0, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Fri, 99 Feb 2026 00:00:00 GMT"])
def test_a_server_that_tells_no_readable_time_was_read_by_our_clock(date: str | None) -> None:
    with api_at([date, "Thu, 01 Jan 2026 00:00:09 GMT"]) as url:
        found = read(url, now=NOW.astimezone(timezone(timedelta(hours=2))))
    assert found.read_at == NOW and found.read_at.utcoffset() == timedelta(0)


def miniature(path: str) -> httpx.Response:
    with serve_library(LIBRARY) as mirror, httpx.Client(trust_env=False) as client:
        return client.get(mirror.url + path)


def test_the_miniature_librarys_clock_stands_at_the_day_it_was_made() -> None:
    assert miniature("/api/feed/audiobooks/?limit=1").headers["date"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    assert miniature("/nowhere").headers["date"] == "Thu, 01 Jan 2026 00:00:00 GMT"


@pytest.mark.parametrize(("since", "status"), [("0", 200), (str(int(MADE.timestamp())), 200), ("1767225601", 404)])
def test_the_miniature_library_honours_since(since: str, status: int) -> None:
    answer = miniature(f"/api/feed/audiobooks/?since={since}")
    assert answer.status_code == status
    if status == 200:
        assert len(answer.json()["books"]) == len(json.loads((LIBRARY / "catalogue.json").read_bytes())["books"])


def test_since_leaves_out_what_was_catalogued_before_and_pages_what_is_left(tmp_path: Path) -> None:
    books = [{"id": str(n), "url_iarchive": f"https://archive.org/details/item{n}"} for n in range(4)]
    (tmp_path / "catalogue.json").write_text(json.dumps({"books": [*books, {"id": "4"}]}))
    (tmp_path / "metadata").mkdir()
    for n, created in enumerate([1000, 2000, 3000]):
        (tmp_path / "metadata" / f"item{n}.json").write_text(json.dumps({"created": created}))
    (tmp_path / "metadata" / "broken.json").write_text("{")
    with serve_library(tmp_path) as mirror, httpx.Client(trust_env=False) as client:
        pages = [client.get(f"{mirror.url}/api/feed/audiobooks/?since=2000&limit=2&offset={at}") for at in (0, 2, 4)]
    assert [page.status_code for page in pages] == [200, 200, 404]
    assert [book["id"] for page in pages[:2] for book in page.json()["books"]] == ["1", "2", "3", "4"]
    assert pages[0].headers["date"] == "Thu, 01 Jan 1970 00:50:00 GMT"


@TELLS_THE_TIME
def test_a_reading_by_since_of_the_miniature_library_brings_the_last_day_again_and_changes_nothing() -> None:
    with serve_library(LIBRARY) as mirror:
        first = brought_up_to_date(None, read(mirror.url, mirrors=mirror.mirrors))
        again = brought_up_to_date(first.sections, read(mirror.url, since=first.read_at, mirrors=mirror.mirrors))
    assert first.read_at == MADE and not again.whole and again.books == first.books
    assert again.sections.equals(first.sections)
