"""The whole catalogue, fetched page by page from a server that speaks LibriVox's API.

What belongs here is paging and what may be wrong with a page. What a page's books mean is in `librivox`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlunsplit

import polars as pl

from speech_mining.errors import CatalogueError, DownloadError
from speech_mining.progress import Progress, silent
from speech_mining.records import TIMESTAMPS
from speech_mining.sources.addresses import split_url
from speech_mining.sources.client import PoliteClient, Reply
from speech_mining.sources.librivox import Parsed, Wanted, entries, parse_books, together
from speech_mining.sources.protocol import Catalogue

_LOG = logging.getLogger(__name__)

ENDPOINT = "/api/feed/audiobooks"
LARGEST_PAGE = 50
"""The API's own limit with `extended=1`."""


OVERLAP = timedelta(days=1)
"""How far a reading by `since` goes back before the one that it follows: LibriVox catalogues by date, not by second."""


@dataclass(frozen=True)
class LibriVoxApi:
    """A server that speaks LibriVox's API; a `protocol.Source`."""

    client: PoliteClient
    catalogue_url: str

    def read(
        self,
        *,
        languages: Collection[str] | None,
        since: datetime | None,
        now: datetime,
        progress: Progress = silent,
    ) -> Catalogue:
        """Read every page, or by `since` those of the projects that were catalogued after it, less a day.

        `since` tells new projects only: one that was mended, renamed or withdrawn comes with a whole reading, so read
        whole now and then.

        Raises:
            CatalogueError: a page is not what the API would answer.
            DownloadError: a page could not be had.
        """
        return fetch_catalogue(
            self.client, self.catalogue_url, languages=languages, since=since, now=now, progress=progress
        )


def fetch_catalogue(
    client: PoliteClient,
    catalogue_url: str,
    *,
    languages: Collection[str] | None,
    since: datetime | None = None,
    now: datetime | None = None,
    page_size: int = LARGEST_PAGE,
    progress: Progress = silent,
) -> Catalogue:
    """Read every page and keep what is in `languages`.

    The API knows no language parameter, so all of it is read: 14 500 books are 290 requests.

    Args:
        client: asks; the catalogue's host must be one it allows (`ClientConfig.trusting`).
        catalogue_url: the server ("https://librivox.org") or the endpoint (".../api/feed/audiobooks"); a query of
            its own ("?since=1700000000") is passed on.
        languages: ISO 639-3 codes; None for all that are known.
        since: only projects catalogued from a day before this on.
        now: our clock, for a server that tells no time; None to look at it.
        page_size: books a page, 1 to 50.
        progress: told the books read; the total is a page more until the end is met.

    Raises:
        CatalogueError: a page is not what the API would answer.
        DownloadError: a page could not be had (reason `server_error`, `connection`, `forbidden_url`, `too_large`).
    """
    if not 1 <= page_size <= LARGEST_PAGE:
        raise CatalogueError(f"A page of {page_size} books was asked for.", expected=f"1 to {LARGEST_PAGE}")
    wanted = Wanted(None if languages is None else frozenset(languages), client.allowed)
    endpoint = endpoint_of(catalogue_url) if since is None else _since(endpoint_of(catalogue_url), since - OVERLAP)
    clock = _ServerClock()
    pages: list[Parsed] = []
    books = 0
    for page in _pages(client, endpoint, page_size, clock):
        pages.append(parse_books(page, wanted))  # a page at a time: the whole of LibriVox as JSON fills a gigabyte
        books += len(page)
        progress(books, books + page_size)
    progress(books, books)
    listed = together(pages)
    _LOG.info("%d books, %d sections kept, %d rejections", books, listed.sections.height, listed.rejections.height)
    read_at = clock.first or (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    no_spans = pl.DataFrame(schema=dict(TIMESTAMPS))
    whole = "since" not in dict(parse_qsl(split_url(endpoint)[0].query))
    return Catalogue(listed.sections, listed.rejections, no_spans, books, read_at, whole)


@dataclass
class _ServerClock:
    """The time that a server's first answer told: what is catalogued while the pages are read comes next time."""

    asked: bool = False
    first: datetime | None = None

    def look(self, reply: Reply) -> None:
        if not self.asked:
            self.asked, self.first = True, _date(reply.date)


def _date(written: str) -> datetime | None:
    """An HTTP `Date`, UTC; None where there is none that can be read."""
    try:
        return parsedate_to_datetime(written).astimezone(timezone.utc)
    except (ValueError, TypeError, OverflowError):
        return None


def _since(endpoint: str, since: datetime) -> str:
    """The endpoint, asked for what is new; the API takes seconds since 1970."""
    parts, _ = split_url(endpoint)
    seconds = max(0, int(since.timestamp()))
    query = urlencode({**dict(parse_qsl(parts.query)), "since": str(seconds)})
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def endpoint_of(catalogue_url: str) -> str:
    """The address of the audiobooks feed, for a server's address or the feed's own, with or without a last slash.

    Raises:
        CatalogueError: not an http(s) address.
    """
    try:
        parts, _ = split_url(catalogue_url.strip())
    except ValueError as problem:
        raise CatalogueError(
            f"{catalogue_url!r} is not the address of a catalogue: {problem}.",
            expected="something like https://librivox.org",
            fix="correct the catalogue address in the settings",
        ) from None
    path = parts.path.rstrip("/")
    path = path if path.endswith(ENDPOINT) else path + ENDPOINT
    return urlunsplit((parts.scheme, parts.netloc, path + "/", parts.query, ""))


def page_url(endpoint: str, offset: int, limit: int) -> str:
    """The address of one page."""
    parts, _ = split_url(endpoint)
    ours = {"offset": str(offset), "limit": str(limit), "format": "json", "extended": "1"}
    query = urlencode({**dict(parse_qsl(parts.query)), **ours})
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _pages(client: PoliteClient, endpoint: str, page_size: int, clock: _ServerClock) -> Iterator[list[Any]]:
    """Pages until the API says that there is nothing more, each without the books that the one before had.

    Books move to the next page while a month's new ones are entered before them, so what comes again unchanged is
    passed over. The offset goes on by the page's size and not by the books received: where the API loses some of a
    page (it writes them under keys that collide), counting would ask for others twice and stop early.
    """
    offset = 0
    before: list[Any] = []
    while True:
        url = page_url(endpoint, offset, page_size)
        reply = _read(client, url)
        clock.look(reply)
        page = _books(reply, url)
        if not page:
            return
        if page == before:
            raise _unlike_the_api(
                url,
                "the same books as the page before",
                "the server ignores `offset`: perhaps a page saved as a file",
            )
        yield [book for book in page if book not in before]
        before, offset = page, offset + page_size


def _read(client: PoliteClient, url: str) -> Reply:
    try:
        return client.read(url, also=frozenset({404}))
    except DownloadError as failure:
        if failure.reason != "not_found":
            raise
        raise _unlike_the_api(url, str(failure), "the address is not that of a catalogue") from failure


def _books(reply: Reply, url: str) -> list[Any]:
    """The books of a page; empty past the end, which the API tells by HTTP 404 and `{"error": …}`."""
    try:
        answer = reply.json(url)
    except DownloadError:
        met = f"HTTP {reply.status} and {reply.content[:60]!r}"
        raise _unlike_the_api(url, met, "a web page, an answer cut short, or not the API's address") from None
    if reply.status == 404:
        if isinstance(answer, dict) and "error" in answer:
            return []
        raise _unlike_the_api(url, "HTTP 404 without the API's error", "the address is not that of a catalogue")
    listed = answer.get("books") if isinstance(answer, dict) else None
    books = [] if isinstance(listed, list) and not listed else entries(listed)
    if books is None:
        met = f"fields {sorted(answer)[:8]}" if isinstance(answer, dict) else f"a JSON {type(answer).__name__}"
        raise _unlike_the_api(url, met, "another API, or another version of it")
    return books


def _unlike_the_api(url: str, met: str, cause: str) -> CatalogueError:
    return CatalogueError(
        f"{url} answered {met}.",
        expected='JSON like {"books": [{"id": "47", "language": "English", "sections": […]}]}',
        cause=cause,
        fix="set the catalogue's address to https://librivox.org or to a mirror that answers like it",
    )
