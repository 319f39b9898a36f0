"""A small server on loopback that answers like LibriVox's API and archive.org, from files in a folder.

It lets the demo take the production path: the catalogue's addresses stay those of archive.org, and the client asks
this server in their place (`Mirror.mirrors`). It knows nothing of mining; what the files hold is the library's affair.
Its clock stands at the day the library was made, the newest `created` of its items, so that what is read from it is
the same on any day.

The folder holds `catalogue.json` (`{"books": [...]}`), `metadata/<identifier>.json` and
`download/<identifier>/<file>`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from speech_mining.errors import CatalogueError

ORIGINS = ("https://librivox.org", "https://archive.org", "https://www.archive.org")
LARGEST_PAGE = 50

_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]*")
_TYPES = {".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac", ".wav": "audio/x-wav"}
_PIECE_BYTES = 65_536


@dataclass(frozen=True)
class Mirror:
    """A library that is being served."""

    url: str
    """Of the server, without a last slash; also the address of its catalogue."""

    @property
    def mirrors(self) -> Mapping[str, str]:
        """The origins it stands for, as `ClientConfig.mirrors` wants them."""
        return dict.fromkeys(ORIGINS, self.url)


@contextmanager
def serve_library(root: Path, *, port: int = 0) -> Iterator[Mirror]:
    """Serve the library in `root` on 127.0.0.1 until the block ends.

    Args:
        root: the library's folder.
        port: where to listen; 0 for a free one.

    Raises:
        CatalogueError: `root` holds no readable `catalogue.json`.
        OSError: the port is taken.
    """
    server = _Server(("127.0.0.1", port), _Handler)
    try:
        server.root = root.resolve()
        server.books = _books(root / "catalogue.json")
        server.created = _created(root / "metadata")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield Mirror(f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()
    finally:
        server.server_close()


def _books(path: Path) -> list[Any]:
    try:
        books = json.loads(path.read_bytes())["books"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise CatalogueError(
            f"{path} holds no catalogue ({type(problem).__name__}).",
            expected='JSON like {"books": [...]}',
            cause="the miniature library was not made, or not whole",
            fix="point to a folder that holds catalogue.json, metadata/ and download/",
        ) from None
    return list(books)


def _created(folder: Path) -> Mapping[str, int]:
    """Identifier of an item -> when it was made, seconds since 1970; items that do not tell are left out."""
    told: dict[str, int] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            created = json.loads(path.read_bytes())["created"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(created, int):
            told[path.stem] = created
    return told


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    root: Path
    books: list[Any]
    created: Mapping[str, int]

    @property
    def made(self) -> int | None:
        """When the library was made, seconds since 1970."""
        return max(self.created.values(), default=None)

    def catalogued(self, book: Any) -> int | None:
        """When a book was catalogued: when its item was made, else the library."""
        address = str(book.get("url_iarchive") or "") if isinstance(book, dict) else ""
        return self.created.get(address.rstrip("/").rpartition("/")[2], self.made)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    def do_GET(self) -> None:
        """Answer a request."""
        parts = urlsplit(self.path)
        segments = [unquote(segment) for segment in parts.path.strip("/").split("/")]
        if segments == ["api", "feed", "audiobooks"]:
            self._page(parse_qs(parts.query))
        elif len(segments) == 2 and segments[0] == "metadata":
            self._metadata(segments[1])
        elif len(segments) == 3 and segments[0] == "download":
            self._file(segments[1], segments[2])
        else:
            self._json(404, {"error": "There is nothing here"})

    def do_HEAD(self) -> None:
        """Answer as to GET, without a body."""
        self.do_GET()

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The time of the `Date` header: the library's, where it is known."""
        return super().date_time_string(self.server.made if timestamp is None else timestamp)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the demo's own progress stands on the terminal."""

    def _page(self, query: Mapping[str, list[str]]) -> None:
        offset = _number(query, "offset", 0)
        limit = min(_number(query, "limit", LARGEST_PAGE) or LARGEST_PAGE, LARGEST_PAGE)
        since = _number(query, "since", 0)
        known = [book for book in self.server.books if (self.server.catalogued(book) or since) >= since]
        books = known[offset : offset + limit]
        if not books:
            self._json(404, {"error": "Audiobooks could not be found"})
            return
        extended = query.get("extended", ["0"])[0] not in ("", "0")
        self._json(200, {"books": books if extended else [_short(book) for book in books]})

    def _metadata(self, identifier: str) -> None:
        path = self._inside("metadata", f"{identifier}.json")
        # An item that archive.org does not have is an empty object, not a 404.
        self._send(200, "application/json", path.read_bytes() if path else b"{}")

    def _file(self, identifier: str, name: str) -> None:
        path = self._inside("download", identifier, name)
        if path is None:
            self._json(404, {"error": "There is no such file"})
            return
        size = path.stat().st_size
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{size:x}-{path.stat().st_mtime_ns:x}"'}
        content_type = _TYPES.get(path.suffix, "application/octet-stream")
        span = self._asked_span(size, headers["ETag"])
        if span is None:
            self._start(200, content_type, size, headers)
            self._pour(path, 0, size)
        elif not span:
            self._start(416, content_type, 0, {**headers, "Content-Range": f"bytes */{size}"})
        else:
            told = f"bytes {span.start}-{span.stop - 1}/{size}"
            self._start(206, content_type, len(span), {**headers, "Content-Range": told})
            self._pour(path, span.start, len(span))

    def _inside(self, *names: str) -> Path | None:
        """The file of the library that these names lead to; None for names that are not plain, or lead elsewhere."""
        if not all(_PLAIN_NAME.fullmatch(name) for name in names):
            return None
        path = self.server.root.joinpath(*names).resolve()
        return path if path.is_relative_to(self.server.root) and path.is_file() else None

    def _asked_span(self, size: int, etag: str) -> range | None:
        """The bytes of a Range request, empty where there are none such; None for the whole file."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or asked.groups() == ("", "") or self.headers.get("If-Range", etag) != etag:
            return None
        first, last = asked.groups()
        if not first:
            return range(max(0, size - int(last)), size)
        return range(int(first), min(int(last) + 1, size) if last else size)

    def _pour(self, path: Path, start: int, length: int) -> None:
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(start)
            while length > 0 and (piece := file.read(min(_PIECE_BYTES, length))):
                self.wfile.write(piece)
                length -= len(piece)

    def _json(self, status: int, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self._start(status, content_type, len(body), {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: int, content_type: str, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _number(query: Mapping[str, list[str]], name: str, default: int) -> int:
    written = query.get(name, [""])[0]
    return int(written) if written.isascii() and written.isdigit() and len(written) < 12 else default


def _short(book: Any) -> Any:
    """A book as the API tells it without `extended=1`: no sections, genres or translators."""
    extended = ("sections", "genres", "translators", "url_iarchive")
    return {name: value for name, value in book.items() if name not in extended} if isinstance(book, dict) else book
