"""An HTTP client that is a good guest: it says who it is, asks seldom, waits when told to, and goes nowhere else.

What belongs here is how one asks: pace, patience, redirects, addresses, size caps. What is asked for is in
`catalogue` and `downloads`.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import logging
import random
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from speech_mining import __version__
from speech_mining.errors import DownloadError, SettingsError
from speech_mining.sources.addresses import PUBLIC_HOSTS, AllowedHosts, hosts_of, split_url
from speech_mining.sources.mirrors import Mirrors
from speech_mining.sources.pace import Pace

if TYPE_CHECKING:
    import httpx
    import tenacity

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_ABSENT_STATUSES = frozenset({401, 403, 404, 410, 451})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

PASSING = frozenset({"server_error", "connection"})
"""Reasons of a server that is down or overloaded: trying again later may help."""


@dataclass(frozen=True)
class ClientConfig:
    """How the client behaves; the defaults are what LibriVox and archive.org may expect of a guest."""

    contact: str = "contact not configured"
    """Who runs this, an address or a page: stands in the User-Agent, so that an operator can write to you."""
    hosts: tuple[str, ...] = PUBLIC_HOSTS
    """Hosts that may be asked, with their subdomains, where they are public."""
    configured_hosts: tuple[str, ...] = ()
    """Hosts ("mirror.lan", "127.0.0.1:8080") that may be asked even where they are private or loopback."""
    mirrors: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """Origin prefix -> bases that are asked in its place, in order; a base's host counts as configured.

    The origin is asked only where it stands in the list: {"https://archive.org": ["http://mirror.lan",
    "https://archive.org"]}.
    """
    local_files: bool = False
    """Whether a catalogue may name recordings as `file:///…`: only for one that lies on this machine itself."""
    metadata_interval_s: float = 1.0
    """Least time between two metadata requests, retries included."""
    pace_file: Path | None = None
    """By which processes of this machine keep that pace together."""
    concurrent_downloads: int = 2
    attempts: int = 6
    """Requests in a row that may fail without `renewing_bytes` of new bytes."""
    renewing_bytes: int = 65_536
    """What a cut answer must have brought for patience to start anew."""
    first_wait_s: float = 1.0
    """Wait before the second attempt; it doubles, with jitter, up to `longest_wait_s`."""
    longest_wait_s: float = 120.0
    """Also the cap on Retry-After."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    """Longest silence in the middle of an answer."""
    slowest_bytes_per_s: int = 512
    """An answer slower than this, measured from `read_timeout_s` on, counts as cut."""
    most_metadata_bytes: int = 64 * 2**20
    most_recording_bytes: int = 2 * 2**30
    """A 64 kbit/s recording of this size lasts 74 hours."""
    most_redirects: int = 5
    seed: int = 0
    """Of the jitter."""

    def trusting(self, url: str) -> ClientConfig:
        """The same, with the host of `url` among the configured ones: for a catalogue address an operator gives.

        Raises:
            SettingsError: `url` is not a plain http(s) address.
        """
        return replace(self, configured_hosts=(*self.configured_hosts, *sorted(_hosts_of([url]))))

    @property
    def allowed(self) -> AllowedHosts:
        """The addresses that may be asked."""
        mirrors = _hosts_of(base for base in Mirrors.of(self.mirrors).others())
        configured = frozenset(host.lower() for host in self.configured_hosts) | mirrors
        return AllowedHosts(frozenset(host.lower() for host in self.hosts), configured, self.local_files)


def _hosts_of(urls: Iterable[str]) -> frozenset[str]:
    try:
        return hosts_of(urls)
    except ValueError as problem:
        raise SettingsError(
            f"An address in the settings cannot be used: {problem}.",
            expected="http://host[:port][/path] or https://…",
            fix="correct the catalogue address or the mirror",
        ) from None


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    content_type: str
    content: bytes
    date: str = ""
    """The server's clock, as its Date header has it."""

    def json(self, address: str) -> Any:
        """The body as JSON.

        Raises:
            DownloadError: it is not (reason `malformed`).
        """
        try:
            return json.loads(self.content, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise DownloadError(
                f"{address} answered {self.content_type or 'without a content type'}: {self.content[:60]!r}.",
                reason="malformed",
                expected="JSON",
                cause="an error page in place of the answer, or an answer cut short",
                fix="open the address in a browser and see what is there",
            ) from None


class TransientError(Exception):
    """A request that failed in a way that may pass; `reason` is what it is called when patience ends."""

    def __init__(
        self, told: str, reason: Literal["server_error", "connection"], *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(told)
        self.reason, self.retry_after_s = reason, retry_after_s


class PoliteClient:
    """Asks for metadata and recordings; safe to share between threads. Close it, or use it as a context manager.

    Args:
        config: how it behaves.
        sleep: waits so many seconds; a test gives one that only writes them down.
        clock: seconds that never go back, for the pace.
        now: seconds since 1970, for a Retry-After that names a date.

    Raises:
        SettingsError: a mirror's base is not an http(s) address.
    """

    def __init__(
        self,
        config: ClientConfig | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.config = config or ClientConfig()
        self.allowed = self.config.allowed
        self._servers = replace(self.allowed, local_files=False)
        self._mirrors = Mirrors.of(self.config.mirrors)
        self._failing: set[str] = set()
        self._sleep, self._clock, self._now = sleep, clock, now
        self._jitter = random.Random(self.config.seed)
        self._pace = Pace(
            self.config.metadata_interval_s, clock=clock, now=now, sleep=sleep, shared=self.config.pace_file
        )
        self._downloads = threading.BoundedSemaphore(self.config.concurrent_downloads)
        import httpx  # here: loading the code location needs none

        self._http = httpx.Client(
            verify=_tls(),
            headers={"User-Agent": f"speech-mining/{__version__} ({self.config.contact})"},
            timeout=httpx.Timeout(self.config.read_timeout_s, connect=self.config.connect_timeout_s),
            # What an operator configured is near: a proxy of the environment does not stand between.
            mounts={f"all://{host}": httpx.HTTPTransport(verify=_tls()) for host in self.allowed.configured},
        )

    def __enter__(self) -> PoliteClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read(self, url: str, *, also: frozenset[int] = frozenset()) -> Reply:
        """Ask for a small answer (metadata), at the metadata pace, as often as patience allows.

        Args:
            url: what to ask.
            also: statuses that are an answer too, besides 200.

        Raises:
            DownloadError: reason `not_found`, `server_error`, `connection`, `forbidden_url` or `too_large`.
        """
        return self.from_any(url, lambda address: self.read_at(address, also=also))

    def read_at(self, address: str, *, also: frozenset[int] = frozenset()) -> Reply:
        """As `read`, of one address that `from_any` gave."""

        def once() -> Reply:
            self._pace.wait()
            with self.ask(address, also=also) as response:
                chunks = self.chunks(response, self.config.most_metadata_bytes, response.iter_bytes())
                content = b"".join(chunks)
                told = response.headers
                return Reply(response.status_code, told.get("content-type", ""), content, told.get("date", ""))

        return self.persist(address, once)

    def from_any(self, url: str, ask: Callable[[str], _T]) -> _T:
        """Call `ask` with each address that stands for `url`, until one has it.

        A base whose patience ended is asked last from then on, until it answers: else every recording of a book would
        wait for it anew, 31 s each by default.

        Args:
            url: what is wanted, at its origin.
            ask: has it from one address, or raises `DownloadError`.

        Raises:
            DownloadError: no address has it; of several failures one that may pass, else the last.
        """
        self._require_allowed(url)
        failures: list[DownloadError] = []
        for address in sorted(self._mirrors.addresses(url), key=lambda address: _netloc(address) in self._failing):
            try:
                had = ask(address)
            except DownloadError as failure:
                failures.append(failure)
                if failure.reason in PASSING:
                    self._failing.add(_netloc(address))
                _LOG.info("%s; %d of the mirrors of %s asked", failure.found, len(failures), url)
            else:
                self._failing.discard(_netloc(address))
                return had
        raise next((failure for failure in failures if failure.reason in PASSING), failures[-1])

    def persist(self, url: str, attempt: Callable[[], _T], *, gained: Callable[[], int] = lambda: 0) -> _T:
        """Call `attempt` until it succeeds, waiting between failures as the server asks or ever longer.

        Args:
            url: what is asked, for the log and the error.
            attempt: one request; it raises `TransientError` for what may pass.
            gained: how much has been received so far; an attempt that gained
                `renewing_bytes` renews patience.

        Raises:
            DownloadError: patience ended, or `attempt` met what does not pass.
        """
        patience = _Patience(self.config, self._jitter, gained)
        import tenacity  # here, and httpx below: loading the code location needs neither

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            after=patience.count,
            stop=patience.ended,
            wait=patience.wait_s,
            sleep=self._sleep,
            before_sleep=lambda state: _LOG.info(
                "%s; asking %s again (attempt %d)", _told(state), url, patience.failed
            ),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except TransientError as failure:
            raise DownloadError(
                f"{url} could not be had: {failure}, {patience.failed} times in a row.",
                reason=failure.reason,
                expected="an answer",
                cause="the server or the way to it is down or overloaded",
                fix="run the same again later: what was received is kept and resumed",
            ) from failure

    @contextmanager
    def downloading(self) -> Iterator[None]:
        """Hold one of the places of `concurrent_downloads`."""
        with self._downloads:
            yield

    @contextmanager
    def ask(
        self, url: str, *, headers: Mapping[str, str] | None = None, also: frozenset[int] = frozenset()
    ) -> Iterator[httpx.Response]:
        """Ask once, following redirects that lead to allowed hosts; yields an answer whose body is not read yet.

        Raises:
            TransientError: something that may pass.
            DownloadError: something that does not.
        """
        address = url
        for _ in range(self.config.most_redirects + 1):
            address = self._permitted(address)
            with self._one(address, headers or {}) as response:
                if response.status_code not in _REDIRECTS:
                    self._require_success(response, url, also)
                    yield response
                    return
                address = _redirected(response, url)
        raise DownloadError(
            f"{url} redirects more than {self.config.most_redirects} times.",
            reason="server_error",
            expected="a file",
            cause="the redirects go in circles",
            fix="report it to the server's operators",
        )

    def chunks(self, response: httpx.Response, most_bytes: int, body: Iterator[bytes]) -> Iterator[bytes]:
        """The body, chunk by chunk, as long as it is neither too large nor too slow.

        Raises:
            DownloadError: more than `most_bytes` are announced (nothing is read then) or sent: reason `too_large`.
            TransientError: the answer is slower than `slowest_bytes_per_s`.
        """
        self._require_size(response, announced_bytes(response) or 0, most_bytes)
        started, received = self._clock(), 0
        for chunk in body:
            received += len(chunk)
            self._require_size(response, received, most_bytes)
            elapsed_s = self._clock() - started
            if elapsed_s > self.config.read_timeout_s and received < elapsed_s * self.config.slowest_bytes_per_s:
                raise TransientError(f"only {received} bytes came in {elapsed_s:.0f} s", "connection")
            yield chunk

    @contextmanager
    def _one(self, address: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        import httpx

        try:
            request = self._http.build_request("GET", address, headers=dict(headers))
            response = self._http.send(request, stream=True, follow_redirects=False)
            try:
                self._require_public_peer(response, address)
                yield response
            finally:
                response.close()
        except httpx.InvalidURL as problem:
            raise _forbidden(address, str(problem)) from None
        except httpx.RequestError as problem:
            raise TransientError(f"{type(problem).__name__} ({problem})", "connection") from problem

    def _permitted(self, url: str) -> str:
        """The address to ask for `url`, after its host was checked, by name and by where the name leads.

        A redirect to a mirrored origin stays there where the origin is in its own list, else goes to its first mirror.
        """
        self._require_allowed(url)
        address = self._mirrors.redirected(url)
        self._require_allowed(address)
        parts, port = split_url(address)
        if not self.allowed.is_configured(parts, port) and not _behind_proxy(parts.scheme, parts.hostname or ""):
            for ip in _resolved(parts.hostname or "", port):
                _require_public(ip, address)
        return address

    def _require_allowed(self, url: str) -> None:
        refusal = self._servers.refusal(url)
        if refusal is not None:
            raise _forbidden(url, refusal)

    def _require_public_peer(self, response: httpx.Response, address: str) -> None:
        """Check whom we are connected to: the name may have led elsewhere the second time it was resolved."""
        parts, port = split_url(address)
        if self.allowed.is_configured(parts, port) or _behind_proxy(parts.scheme, parts.hostname or ""):
            return
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        if peer:
            _require_public(str(peer[0]), address)

    def _require_success(self, response: httpx.Response, url: str, also: frozenset[int]) -> None:
        status = response.status_code
        if status == 200 or status in also:
            return
        if status in _TRANSIENT_STATUSES:
            raise TransientError(f"HTTP {status}", "server_error", retry_after_s=self._retry_after_s(response))
        absent = status in _ABSENT_STATUSES
        raise DownloadError(
            f"{url} answered HTTP {status}.",
            reason="not_found" if absent else "server_error",
            expected="HTTP 200",
            cause="it was moved, withdrawn or never there" if absent else "the server does not take the request",
            fix="look for the address in a browser; if it is gone there too, leave it out",
        )

    def _retry_after_s(self, response: httpx.Response) -> float | None:
        written = response.headers.get("retry-after", "").strip()
        if written.isascii() and written.isdigit():
            return float(written[:9])
        try:
            return max(0.0, email.utils.parsedate_to_datetime(written).timestamp() - self._now())
        except (ValueError, TypeError, OverflowError):
            return None

    def _require_size(self, response: httpx.Response, size: int, most_bytes: int) -> None:
        if size > most_bytes:
            raise DownloadError(
                f"{response.url} is {size} bytes or more.",
                reason="too_large",
                expected=f"at most {most_bytes} bytes",
                cause="the address names something else than what it should",
                fix="look at what is there; raise the cap if it is right",
            )


class _Patience:
    """How long one thing is asked for: counts failures in a row that gained nothing."""

    def __init__(self, config: ClientConfig, jitter: random.Random, gained: Callable[[], int]) -> None:
        self._config, self._jitter, self._gained = config, jitter, gained
        self._before = gained()
        self.failed = 0

    def count(self, _: tenacity.RetryCallState) -> None:
        gained = self._gained()
        renewed = gained - self._before >= self._config.renewing_bytes
        self.failed = 1 if renewed else self.failed + 1
        self._before = gained

    def ended(self, _: tenacity.RetryCallState) -> bool:
        return self.failed >= self._config.attempts

    def wait_s(self, state: tenacity.RetryCallState) -> float:
        wait_s = self._config.first_wait_s * 2.0 ** max(0, self.failed - 1) * self._jitter.uniform(0.5, 1.0)
        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, TransientError) and failure.retry_after_s is not None:
            wait_s = max(wait_s, failure.retry_after_s)
        return min(wait_s, self._config.longest_wait_s)


@cache
def _tls() -> ssl.SSLContext:
    """One context for all: to read the certificates takes 20 to 50 ms."""
    import httpx

    return httpx.create_ssl_context()


def announced_bytes(response: httpx.Response) -> int | None:
    """The Content-Length, where there is a readable one."""
    written = response.headers.get("content-length", "")
    return int(written[:18]) if written.isascii() and written.isdigit() else None


def _no_number(written: str) -> Any:
    raise ValueError(f"{written} is not JSON")


def _told(state: tenacity.RetryCallState) -> str:
    return str(state.outcome.exception()) if state.outcome else ""


def _netloc(address: str) -> str:
    return urlsplit(address).netloc.lower()


def _redirected(response: httpx.Response, url: str) -> str:
    import httpx

    location = response.headers.get("location", "")
    try:
        return str(response.url.join(location)) if location else _nowhere(url)
    except httpx.InvalidURL as problem:
        raise _forbidden(location, str(problem)) from None


def _nowhere(url: str) -> str:
    raise DownloadError(
        f"{url} redirects, but does not say where.",
        reason="server_error",
        expected="a Location header",
        cause="a fault of the server",
        fix="report it to the server's operators",
    )


def _forbidden(address: str, refusal: str) -> DownloadError:
    return DownloadError(
        f"{ascii(address)[:200]} must not be asked: {refusal}.",
        reason="forbidden_url",
        expected="http(s) on an allowed host, at a public address",
        cause="a catalogue entry or a redirect that leads elsewhere",
        fix="if you trust it, add the host to the configured ones",
    )


def _behind_proxy(scheme: str, host: str) -> bool:
    """Whether the environment puts a proxy in between, which then resolves the name, not we."""
    proxies = urllib.request.getproxies()
    return (scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(host)


def _resolved(host: str, port: int) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as problem:
        raise TransientError(f"{host} cannot be resolved ({problem})", "connection") from problem


def _require_public(ip: str, address: str) -> None:
    if not ipaddress.ip_address(ip.partition("%")[0]).is_global:
        raise _forbidden(address, f"it leads to {ip}, which is not a public address")
