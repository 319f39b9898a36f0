"""Values that others wrote, made fit for tables and messages: pure, any value may come.

What they mean is the business of the source that reads them.
"""

from __future__ import annotations

from typing import Any


def one_line(value: Any) -> str:
    """A value as one line of valid Unicode: titles end in tab-separated manifests. Not text, not a number: empty."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else ""
    if value.isprintable():
        return " ".join(value.split())
    whole = value.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is valid JSON and no text
    return " ".join("".join(letter if letter.isprintable() else " " for letter in whole).split())


def shown(value: Any) -> str:
    """A foreign value, short enough and safe to be shown; what is nested is named, not shown."""
    if isinstance(value, (list, dict)):
        return f"a {'list' if isinstance(value, list) else 'object'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a very large number"
    return ascii(value)[:120]
