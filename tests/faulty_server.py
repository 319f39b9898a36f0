"""A real HTTP server on loopback that misbehaves as it is told, for tests of what must survive it."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_RANGE = re.compile(r"bytes=([0-9]+)-")


@dataclass(frozen=True)
class Answer:
    """What one request meets."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True
    """Whether `Range: bytes=n-` is honoured."""
    cut_after: int | None = None
    """Close the connection after so many bytes of what is sent."""
    stall_after: int | None = None
    """Send so many bytes, then nothing more, with the connection open."""
    drip: tuple[int, float] | None = None
    """Send so many bytes at a time, and wait so many seconds between."""
    announce: int | None = None
    """A Content-Length that is not the body's."""


@dataclass
class Request:
    """What was asked, and how many bytes of a body were sent."""

    path: str
    headers: Mapping[str, str]
    sent: int = 0


class FaultyServer:
    """Answers each path with its own list of answers, in order; the last one is repeated."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[Request] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.faulty = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def at(self, path: str, *answers: Answer) -> str:
        """Answer `path` so; returns its address."""
        self.answers[path] = list(answers)
        return self.url + path

    def take(self, path: str) -> Answer:
        """The next answer of a path; 404 where none is planned."""
        with self._lock:
            planned = self.answers.get(path) or self.answers.get(path.partition("?")[0]) or [Answer(status=404)]
            return planned.pop(0) if len(planned) > 1 else planned[0]

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End, and let every stalled answer go."""
        self.ended.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    """Serve until the block ends."""
    server = FaultyServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    faulty: FaultyServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the client hangs up on purpose in many tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_GET(self) -> None:
        request = Request(self.path, dict(self.headers))
        self.server.faulty.requests.append(request)
        answer = self.server.faulty.take(self.path)
        start = self._start_of(answer)
        body = answer.body[start:] if start is not None else answer.body
        self._head(answer, start, body)
        if start is None or start < len(answer.body):
            self._send(request, answer, body)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _start_of(self, answer: Answer) -> int | None:
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        return int(asked[1]) if asked and answer.ranges and answer.status == 200 else None

    def _head(self, answer: Answer, start: int | None, body: bytes) -> None:
        whole = len(answer.body)
        headers = {"Content-Type": "audio/mpeg", "Content-Length": str(len(body))}
        status = answer.status
        if start is not None and start >= whole:
            status, headers["Content-Range"] = 416, f"bytes */{whole}"
        elif start is not None:
            status, headers["Content-Range"] = 206, f"bytes {start}-{whole - 1}/{whole}"
        if answer.announce is not None:
            headers["Content-Length"] = str(answer.announce)
        self.send_response(status)
        for name, value in {**headers, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, request: Request, answer: Answer, body: bytes) -> None:
        stop = min(len(body), *(limit for limit in (answer.cut_after, answer.stall_after) if limit is not None), 2**40)
        step, wait_s = answer.drip or (65_536, 0.0)
        for at in range(0, stop, step):
            piece = body[at : min(at + step, stop)]
            self.wfile.write(piece)
            request.sent += len(piece)
            if wait_s and self.server.faulty.ended.wait(wait_s):
                break
        self.wfile.flush()
        if answer.stall_after is not None:
            self.server.faulty.ended.wait(20)
        wrong_length = answer.announce not in (None, len(body))
        if answer.cut_after is not None or answer.stall_after is not None or wrong_length:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    """A port of loopback on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    return port
