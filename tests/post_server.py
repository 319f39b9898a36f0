"""A real HTTP server on loopback that receives JSON, and fails as it is told."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class PostServer:
    """Takes every POST, after the faults that are planned: a status, 'slow', or 'hang up'."""

    def __init__(self) -> None:
        self.faults: list[int | str] = []
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        """Of requests that were answered with 200."""
        self._ended = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> PostServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append(self.path)
                fault = server.faults.pop(0) if server.faults else 200
                if fault == "slow":
                    server._ended.wait(2)
                    return
                if fault == "hang up":
                    return
                if fault == 200:
                    server.bodies.append(json.loads(body))
                self.send_response(int(fault))
                if fault == 429:
                    self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
