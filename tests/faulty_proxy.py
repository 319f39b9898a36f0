"""A proxy on loopback before a real server, that fails as it is told: what an object store does on a bad day."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Fault = Literal["500", "503", "reset", "cut", "slow"]
_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class FaultyProxy:
    """Passes requests on, but for those that `faults` names: the next ones, in order.

    Args:
        upstream: address of the server.
        method: only requests of this method meet a fault; empty: any.
        faults: what the next requests meet.
        always: what every request meets when `faults` is empty.
    """

    upstream: str
    method: str = ""
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    met: list[str] = field(default_factory=list)
    """Method and fault of every request that met one."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_of(self, method: str) -> Fault | None:
        """What a request meets."""
        with self._lock:
            if self.method not in ("", method):
                return None
            fault = self.faults.pop(0) if self.faults else self.always
            if fault is not None:
                self.met.append(f"{method} {fault}")
            return fault


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[tuple[str, FaultyProxy]]:
    """Serve until the block ends; yields the address and what it is told."""
    told = FaultyProxy(upstream)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.told = told
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    told: FaultyProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections are cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fault = self.server.told.fault_of(self.command)
        if fault in ("500", "503"):
            self._answer(int(fault), b"", [])
        elif fault == "reset":
            self._hang_up()
        else:
            self._upstream(body, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _upstream(self, body: bytes, fault: Fault | None) -> None:
        there = urlsplit(self.server.told.upstream)
        connection = HTTPConnection(str(there.hostname), there.port)
        try:
            # the host is signed: it must stay the one that was asked
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            self._answer(answer.status, content, headers, fault)
        finally:
            connection.close()

    def _answer(self, status: int, content: bytes, headers: list[tuple[str, str]], fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in headers or [("Content-Length", "0")]:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self._hang_up()
            return
        if fault == "slow":
            for at in range(0, len(content), max(1, len(content) // 5)):
                time.sleep(0.05)
                self.wfile.write(content[at : at + max(1, len(content) // 5)])
            return
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
