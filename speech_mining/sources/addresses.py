"""Which addresses may be asked, and what an archive.org address names.

Pure string work: nothing here resolves a name or opens a socket (see `client`). A URL comes from a catalogue that
others write, so it is read strictly: what two parsers could read in two ways is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, unquote_to_bytes, urlsplit

PUBLIC_HOSTS = ("librivox.org", "archive.org")
ARCHIVE = "https://archive.org"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ARCHIVE_HOSTS = frozenset({"archive.org", "www.archive.org"})
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_LONGEST_URL = 4096


@dataclass(frozen=True)
class AllowedHosts:
    """The hosts that may be asked.

    `public` hosts count with their subdomains, on the ports of http and https only, and must not lead to a private
    address. `configured` ones are those an operator named for a reason ("mirror.lan", "127.0.0.1:8080"): they count
    exactly as written, with their port, and may be private or loopback. `local_files` lets `file:///…` name a
    recording: for a catalogue that lies on this machine, never for one that others write.
    """

    public: frozenset[str] = frozenset(PUBLIC_HOSTS)
    configured: frozenset[str] = frozenset()
    local_files: bool = False

    def refusal(self, url: str) -> str | None:
        """Why `url` must not be asked, in words; None when it may be."""
        try:
            if self.local_files and is_file_url(url):
                local_file(url)
                return None
            parts, port = split_url(url)
        except ValueError as problem:
            return str(problem)
        if self.is_configured(parts, port):
            return None
        if port != _DEFAULT_PORTS[parts.scheme]:
            return f"port {port} of {parts.hostname} is not configured"
        host = parts.hostname or ""
        if any(host == allowed or host.endswith(f".{allowed}") for allowed in self.public):
            return None
        return f"{host} is not on the list of allowed hosts"

    def is_configured(self, parts: SplitResult, port: int) -> bool:
        """Whether the host was named by the operator, and so may be private."""
        return host_and_port(parts.scheme, parts.hostname or "", port) in self.configured


def host_and_port(scheme: str, host: str, port: int | None) -> str:
    """How a host is written in a list: "mirror.lan", or with its port where that is not the scheme's own."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None or port == _DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


def hosts_of(urls: Iterable[str]) -> frozenset[str]:
    """The hosts of addresses an operator configured, as `AllowedHosts.configured` wants them.

    Raises:
        ValueError: one is not a plain http(s) address.
    """
    split = [split_url(url) for url in urls]
    return frozenset(host_and_port(parts.scheme, parts.hostname or "", port) for parts, port in split)


def is_local(address: str) -> bool:
    """Whether a catalogue's address is a path of this machine, or a `file:///…` address, and not a server."""
    return is_file_url(address) or "://" not in address


def is_file_url(url: str) -> bool:
    """Whether an address is of the scheme `file`, whatever follows."""
    return url[:5].lower() == "file:"


def local_file(url: str) -> Path:
    """The path that `file:///path` names.

    Raises:
        ValueError: it is not an absolute path of this machine, or has parts that two parsers could read in two ways.
    """
    if len(url) > _LONGEST_URL or not url.isprintable():
        raise ValueError("the address is too long or holds control characters")
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise ValueError("the address is not a file of this machine (file:///path)")
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if parts.query or parts.fragment or "\0" in path or not path.startswith("/"):
        raise ValueError("the path is not absolute, or its ? and # are not written as %3F and %23")
    if any(segment in (".", "..") for segment in path.split("/")):
        raise ValueError("the path tries to leave its place")
    return Path(path)


def split_url(url: str) -> tuple[SplitResult, int]:
    """Read a URL strictly: its parts and its effective port.

    Raises:
        ValueError: it is not a plain http(s) address; the message says why.
    """
    if len(url) > _LONGEST_URL or not url.isprintable() or "\\" in url:
        raise ValueError("the address is too long or holds control characters or backslashes")
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{parts.scheme or 'no scheme'} is not http or https")
    if "@" in parts.netloc:
        raise ValueError("the address carries credentials")
    host = parts.hostname or ""
    if not _HOST.fullmatch(f"[{host}]" if ":" in host else host):
        raise ValueError(f"{host[:60]!r} is not a host name")
    if any(segment in (".", "..") for segment in re.split(r"[/\\]", unquote(parts.path))):
        raise ValueError("the path tries to leave its place")
    if parts.port == 0:
        raise ValueError("port 0 is no port")
    return parts, parts.port or _DEFAULT_PORTS[parts.scheme]


@dataclass(frozen=True)
class ArchiveFile:
    """A file of an archive.org item."""

    identifier: str
    name: str


def archive_file(url: str) -> ArchiveFile | None:
    """The item and the file that `https://www.archive.org/download/<identifier>/<file>` names.

    Returns:
        None for any other address, also for one whose parts hold slashes, dots alone or control characters once
        percent-decoded: an identifier or a name is used in another address or compared, never trusted as a path.
    """
    try:
        parts, _ = split_url(url)
    except ValueError:
        return None
    segments = parts.path.split("/")
    if parts.hostname not in _ARCHIVE_HOSTS or len(segments) != 4 or segments[:2] != ["", "download"]:
        return None
    identifier, name = unquote(segments[2]), unquote(segments[3])
    if not is_archive_identifier(identifier) or not name or not name.isprintable() or "/" in name or "\\" in name:
        return None
    return ArchiveFile(identifier, name)


def is_archive_identifier(identifier: str) -> bool:
    """Whether a string can be the identifier of an archive.org item: letters, digits, `.`, `_`, `-`."""
    return _IDENTIFIER.fullmatch(identifier) is not None
