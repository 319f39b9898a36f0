"""What a number must be where people write it: in TOML, in JSON, in a call.

What belongs here is questions. Which error follows, and what it says, is said where the number is read. A bool is no
number here, though Python counts it among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeGuard

PHASES = "three shares that sum to 1, such as 0.1, 0.4 and 0.5"


def is_whole(value: object, least: int) -> TypeGuard[int]:
    """Whether it is a whole number, `least` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number, neither infinite nor NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: object) -> bool:
    """Whether it is a number above 0."""
    return is_number(value) and value > 0


def are_phases(shares: Sequence[object]) -> bool:
    """Whether they are `PHASES`: of the updates in which a rate rises, stays and falls."""
    numbers = [share for share in shares if is_number(share) and share >= 0]
    return len(shares) == len(numbers) == 3 and abs(sum(numbers) - 1) <= 1e-9


def unknown_names(kind: type[Any], told: Mapping[str, Any]) -> tuple[str, str]:
    """Names in `told` that no field of a dataclass has, and its fields' names: both sorted, as an error lists them."""
    known = sorted(field.name for field in fields(kind))
    return ", ".join(map(repr, sorted(set(told).difference(known)))), ", ".join(known)
