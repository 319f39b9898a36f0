"""Secrets: what one looks like inside an address, so that no setting holds one and no message repeats it.

A setting is shown by `s2s settings`, in the UI and in the record of every run. So what is secret is in the environment,
under the name that its own library reads (AWS_SECRET_ACCESS_KEY, HF_TOKEN), or under a name that a setting tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_WITH_USER = re.compile(r"[a-z][a-z0-9+.-]+:/{1,2}[^/?#\s@'\"]+@", re.IGNORECASE)
_SIGNED = re.compile(
    r"[?&](x-amz-(signature|credential|security-token)|x-goog-signature|sig|signature|(access_)?token|api_?key|secret"
    r"|password)=[^&#\s]",
    re.IGNORECASE,
)


def holds_secret(text: str) -> bool:
    """Whether an address in the text names a user or a key, or carries a signature."""
    return bool(_WITH_USER.search(text) or _SIGNED.search(text))


def secrets_in(tree: object, name: str = "") -> Iterator[str]:
    """Names of the settings that hold a secret, those nested joined by a dot; never the secret itself."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if holds_secret(str(key)):
                yield name
            else:
                yield from secrets_in(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from secrets_in(value, name)
    elif isinstance(tree, str) and holds_secret(tree):
        yield name
