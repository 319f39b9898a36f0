"""The listening room's door: HTTP on this machine alone, for whoever has the address with its token.

What belongs here is requests and answers, and who is let in. What is shown is in `room`.

Any page in the same browser can send requests to 127.0.0.1, and a name of its own can be made to lead there. So every
request must name this address as its host, come from no other site, and carry the token: first in the address, then in
a cookie that no script reads and no other site's request carries.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from speech_mining.errors import SettingsError, SpeechMiningError
from speech_mining.listening.clips import peaks_of
from speech_mining.listening.judgements import JudgementError
from speech_mining.listening.pages import room_page
from speech_mining.listening.room import Room, Wish

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
MOST_BODY_BYTES = 4096
STATIC = {"figures.css": "text/css", "room.css": "text/css", "room.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_OWN = frozenset({"same-origin", "none"})  # "none": typed, or opened from a terminal


@dataclass(frozen=True)
class Door:
    """Where the room is, and what opens it."""

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def address(self) -> str:
        """What a browser is given."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    @property
    def origins(self) -> frozenset[str]:
        """What the pages of this server call themselves."""
        return frozenset(f"http://{host}:{self.port}" for host in (HOST, "localhost"))

    @property
    def cookie(self) -> str:
        """Its name; cookies know no ports, so that two rooms need two names."""
        return f"s2s_listen_{self.port}"

    def refusal(self, headers: Headers, query: bytes) -> tuple[int, str] | None:
        """Why a request is not let in; None where it is."""
        if f"http://{headers.get('host', '')}" not in self.origins:
            return 421, "This server answers under its own address only."
        origin = headers.get("origin")
        if (origin is not None and origin not in self.origins) or headers.get("sec-fetch-site", "none") not in _OWN:
            return 403, "Requests of other sites are refused."
        if not self.knows(self._cookie_of(headers)) and not self.knows(_first(query, "token")):
            return 401, "The address lacks its token: open the one that `s2s listen` printed."
        return None

    def knows(self, token: str) -> bool:
        """Whether it is the token; takes as long whichever letter is wrong."""
        return secrets.compare_digest(token.encode(), self.token.encode())

    def _cookie_of(self, headers: Headers) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return morsel.value if morsel else ""


class Guard:
    """Lets in what the door lets in, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._door.refusal(Headers(scope=scope), scope.get("query_string", b""))
        app = self._app if refusal is None else _refused(*refusal)
        await app(scope, receive, _with_headers(send))


def room_app(room: Room, door: Door) -> Starlette:
    """The listening room as an ASGI application."""
    served = _Served(room, door)
    routes = [
        Route("/", served.page),
        Route("/static/{name}", served.static),
        Route("/api/room", served.state),
        Route("/api/pairs/{position:int}", served.pair),
        Route("/api/judgements", served.judge, methods=["POST"]),
        Route("/api/threshold", served.adopt, methods=["POST"]),
        Route("/audio/{segment}.wav", served.audio),
        Route("/peaks/{segment}", served.peaks),
    ]
    handlers: dict[Any, Any] = {SpeechMiningError: _told, HTTPException: _plain}
    return Starlette(routes=routes, middleware=[Middleware(Guard, door=door)], exception_handlers=handlers)


def bind(port: int = 0) -> socket.socket:
    """A socket on this machine's loopback; 0 takes a free port.

    Raises:
        SettingsError: the port is taken, or may not be bound.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen()  # so that whoever is told the address finds somebody there, if only after a moment
    except (OSError, OverflowError) as problem:
        bound.close()
        raise SettingsError(
            f"Port {port} cannot be had: {problem}.",
            cause="another program listens there",
            fix="leave --port out, and a free one is found",
        ) from problem
    return bound


def serve(room: Room, door: Door, bound: socket.socket) -> None:
    """Serve until the process is interrupted."""
    import uvicorn

    config = uvicorn.Config(
        room_app(room, door), log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[bound])


def byte_range(header: str | None, size: int) -> slice | None:
    """The bytes that a Range header asks of so many; None: all of them.

    One range is understood; several, or another unit, are answered with the whole, as RFC 9110 section 14.2 allows.

    Raises:
        HTTPException: 416, the range lies outside.
    """
    asked = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if asked is None or asked.groups() == ("", ""):
        return None
    first, last = asked.groups()
    if len(first) > 18 or len(last) > 18:
        raise HTTPException(416, headers={"Content-Range": f"bytes */{size}"})
    begin = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if begin >= end:
        raise HTTPException(416, headers={"Content-Range": f"bytes */{size}"})
    return slice(begin, end)


class _Served:
    """The answers of a room."""

    def __init__(self, room: Room, door: Door) -> None:
        self._room = room
        self._door = door

    async def page(self, request: Request) -> Response:
        """The page; the token leaves the address as soon as it is in the cookie."""
        if "token" not in request.query_params:
            return HTMLResponse(room_page(self._room))
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._door.cookie, self._door.token, httponly=True, samesite="strict", path="/")
        return answer

    async def static(self, request: Request) -> Response:
        """A style sheet or the script."""
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        content = resources.files("speech_mining.listening").joinpath(f"static/{name}").read_bytes()
        return Response(content, media_type=STATIC[name])

    async def state(self, request: Request) -> Response:
        """Progress and accuracy."""
        return JSONResponse(await run_in_threadpool(self._room.state, _wish(request)))

    async def pair(self, request: Request) -> Response:
        """A pair, by its place in the order."""
        return JSONResponse(await run_in_threadpool(self._room.pair_at, request.path_params["position"]))

    async def judge(self, request: Request) -> Response:
        """Keep a judgement."""
        told = await _body(request, {"source": str, "target": str, "verdict": str})
        return JSONResponse(await run_in_threadpool(self._room.say, **told), 201)

    async def adopt(self, request: Request) -> Response:
        """Put a threshold into force."""
        told = await _body(request, {"threshold": float})
        if self._room.adopt is None:
            raise HTTPException(404)
        return JSONResponse({"told": await run_in_threadpool(self._room.adopt, told["threshold"])})

    async def audio(self, request: Request) -> Response:
        """A segment, or a range of its bytes."""
        content = await self._wav(request)
        wanted = byte_range(request.headers.get("range"), len(content))
        headers = {"Accept-Ranges": "bytes"}
        if wanted is None:
            return Response(content, media_type="audio/wav", headers=headers)
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(content)}"
        return Response(content[wanted], 206, media_type="audio/wav", headers=headers)

    async def peaks(self, request: Request) -> Response:
        """The outline of a segment's waveform."""
        return JSONResponse(peaks_of(await self._wav(request)))

    async def _wav(self, request: Request) -> bytes:
        segment = request.path_params["segment"]
        if segment not in self._room.clips.spans:
            raise HTTPException(404)
        return await run_in_threadpool(self._room.clips.wav, segment)


def _wish(request: Request) -> Wish:
    asked = request.query_params
    try:
        precision = float(asked.get("precision", "0.9"))
    except ValueError:
        precision = -1.0
    if not 0.5 <= precision <= 0.999:
        raise HTTPException(400, "precision is a number from 0.5 to 0.999")
    return Wish(precision, asked.get("partly") == "right")


async def _body(request: Request, wanted: dict[str, type]) -> dict[str, Any]:
    """The values of a JSON body; its type also keeps forms of other sites out."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "The body must be application/json.")
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MOST_BODY_BYTES:
            raise HTTPException(413)
    try:
        told = json.loads(content)
        found = {name: kind(told[name]) if kind is float else told[name] for name, kind in wanted.items()}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HTTPException(400, f"The body must tell {', '.join(wanted)}.") from None
    if not all(isinstance(found[name], kind) for name, kind in wanted.items()):
        raise HTTPException(400, f"The body must tell {', '.join(wanted)}.")
    return found


async def _told(_: Request, problem: Exception) -> Response:
    """An error of ours: a wrong judgement is the asker's, a full disk or missing audio is not."""
    asked_wrongly = isinstance(problem, JudgementError | SettingsError) and problem.__cause__ is None
    return JSONResponse({"error": str(problem)}, 409 if asked_wrongly else 500)


async def _plain(_: Request, problem: Exception) -> Response:
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    detail = problem.detail if isinstance(problem, HTTPException) else ""
    headers = problem.headers if isinstance(problem, HTTPException) else None
    return JSONResponse({"error": detail}, status, headers=headers)


def _refused(status: int, why: str) -> ASGIApp:
    return JSONResponse({"error": why}, status)


def _with_headers(send: Send) -> Callable[[Any], Awaitable[None]]:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            told = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *told]}
        await send(message)

    return sending


def _first(query: bytes, name: str) -> str:
    values = parse_qs(query.decode("latin-1")).get(name, [""])
    return values[0]
