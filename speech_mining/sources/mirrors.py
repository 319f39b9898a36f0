"""Which addresses stand for an address: the mirrors of its origin, in the order they are asked.

What belongs here is text only. Who is asked next, and when, is `client`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mirrors:
    """Origin prefix ("https://archive.org") -> the bases that are asked in its place, first to last.

    The origin itself is asked only where it stands in its own list: behind a firewall nothing may lead out.
    """

    bases: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, configured: Mapping[str, str | Sequence[str]]) -> Mirrors:
        """Read the setting: one base may stand without its list; an empty list is no mirror."""
        listed = {origin: (told,) if isinstance(told, str) else tuple(told) for origin, told in configured.items()}
        return cls({origin: told for origin, told in listed.items() if told})

    def addresses(self, url: str) -> tuple[str, ...]:
        """The addresses to ask for `url`, by its longest origin; itself where no origin is mirrored."""
        for origin in sorted(self.bases, key=len, reverse=True):
            rest = _after(url, origin.rstrip("/"))
            if rest is not None:
                return tuple(dict.fromkeys(base.rstrip("/") + rest for base in self.bases[origin]))
        return (url,)

    def redirected(self, url: str) -> str:
        """The address to ask where a server sends us to `url`: itself where its origin is in its own list."""
        standing = self.addresses(url)
        same = (address for address in standing if _without_scheme(address) == _without_scheme(url))
        return next(same, standing[0])

    def others(self) -> Iterator[str]:
        """The bases that an operator added; an origin in its own list gains no trust by it."""
        for origin, bases in self.bases.items():
            yield from (base for base in bases if _after(base, origin.rstrip("/")) is None)


def _after(url: str, origin: str) -> str | None:
    """What follows `origin` in `url`, http and https being one origin; None when it lies elsewhere."""
    address, start = _without_scheme(url), _without_scheme(origin)
    if not start or not address.lower().startswith(start.lower()):
        return None
    rest = address[len(start) :]
    return rest if rest[:1] in ("", "/", "?") else None


def _without_scheme(url: str) -> str:
    return url.partition("://")[2]
