"""LibriVox as a Dagster resource: the API itself, a mirror of it, or the embedded miniature library.

What belongs here is which server is asked and how politely. How it is asked is in `speech_mining.sources`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.settings import LIBRARY, MINIATURE, Settings
from speech_mining.sources.addresses import is_local
from speech_mining.sources.client import ClientConfig, PoliteClient
from speech_mining.sources.renewal import Wish

PUBLIC_API = "https://librivox.org"


@dataclass(frozen=True)
class LibriVoxSession:
    """A client, and the address of the catalogue it may ask."""

    client: PoliteClient
    catalogue_url: str


class LibriVox(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the catalogue and the recordings come from."""

    catalogue_url: str = Field(description="LibriVox's API, a mirror of it, or 'miniature' for the embedded library.")
    contact: str = Field(default="", description="Who runs this: stands in the User-Agent.")
    requests_per_second: float = Field(default=1.0, description="Of metadata and catalogue pages.")
    concurrent_downloads: int = Field(default=2, description="Recordings fetched at once.")
    attempts: int = Field(default=6, description="Requests in a row that may fail.")
    first_wait_s: float = Field(default=1.0, description="Wait before the second attempt; it doubles.")
    allowed_hosts: list[str] = Field(default_factory=list, description="Hosts beyond librivox.org and archive.org.")
    mirrors: dict[str, list[str]] = Field(
        default_factory=dict, description="URL prefix → the prefixes to ask instead, in order."
    )
    max_recording_mb: int = Field(default=2048, description="A larger recording is refused.")
    pace_file: str = Field(default="", description="By which runs on this machine keep the pace together.")

    @classmethod
    def of(cls, settings: Settings) -> LibriVox:
        """The one that the settings ask for."""
        source = settings.librivox
        return cls(
            catalogue_url=settings.catalogue_url,
            contact=source.user_agent_contact,
            requests_per_second=source.requests_per_second,
            attempts=source.attempts,
            first_wait_s=source.first_wait_s,
            concurrent_downloads=settings.pools.download,
            allowed_hosts=list(source.allowed_hosts),
            mirrors=source.mirrors,
            max_recording_mb=source.max_recording_mb,
            pace_file=str(settings.home.absolute() / "downloads" / ".pace"),
        )

    @contextmanager
    def session(self) -> Iterator[LibriVoxSession]:
        """A client for the catalogue in force; the embedded library is served on loopback as long as it lasts."""
        with ExitStack() as stack:
            if self.catalogue_url == MINIATURE:
                config, url = self._miniature(stack)
            elif is_local(self.catalogue_url):
                config, url = replace(self._config(), local_files=True), self.catalogue_url
            else:
                config, url = self._config().trusting(self.catalogue_url), self.catalogue_url
            yield LibriVoxSession(stack.enter_context(PoliteClient(config)), url)

    def _config(self, *, mirrors: Mapping[str, str] | None = None, interval_s: float | None = None) -> ClientConfig:
        return ClientConfig(
            contact=self.contact or ClientConfig.contact,
            attempts=self.attempts,
            first_wait_s=self.first_wait_s,
            configured_hosts=tuple(self.allowed_hosts),
            mirrors={**self.mirrors, **(mirrors or {})},
            pace_file=Path(self.pace_file) if self.pace_file else None,
            metadata_interval_s=1 / self.requests_per_second if interval_s is None else interval_s,
            concurrent_downloads=self.concurrent_downloads,
            most_recording_bytes=self.max_recording_mb * 2**20,
        )

    def _miniature(self, stack: ExitStack) -> tuple[ClientConfig, str]:
        from demo.mirror import serve_library

        mirror = stack.enter_context(serve_library(LIBRARY))
        return self._config(mirrors=mirror.mirrors, interval_s=0.0), PUBLIC_API


def wish_of(settings: Settings, address: str) -> Wish:
    """Which catalogue the settings ask for, read at `address`."""
    librivox = settings.librivox
    return Wish(address, settings.languages, librivox.limit_books, librivox.whole_every_days)
