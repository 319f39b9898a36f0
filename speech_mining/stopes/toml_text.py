"""Settings as the text of s2s.toml: strings, numbers, lists and tables of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def toml_text(settings: Mapping[str, Any]) -> str:
    """The settings in TOML, tables last and in the order given; ends in a line feed where there is any."""
    return "".join(_table(settings, ()))


def _table(settings: Mapping[str, Any], place: tuple[str, ...]) -> list[str]:
    plain = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    lines = [f"\n[{'.'.join(map(_name, place))}]\n"] if place and plain else []
    lines += [f"{_name(name)} = {_value(value)}\n" for name, value in plain.items()]
    for name, value in settings.items():
        if isinstance(value, Mapping):
            lines += _table(value, (*place, name))
    return lines


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    """JSON writes them as TOML does, but for the one control character that TOML wants escaped and JSON does not."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
