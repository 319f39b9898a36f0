"""Audiobooks: one dynamic set of partitions for each language.

One set for all languages (or language x audiobook) was measured and fails: a new German book is then requested in
every language.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

ADDED_AT_ONCE = 10_000
"""SQLite takes 32 766 values in a statement (Debian's 250 000), and a first reading of English may bring more books."""


def audiobooks(language: str) -> dg.DynamicPartitionsDefinition:
    """The audiobooks known in a language; a key is the catalogue's id of the project, digits only."""
    return dg.DynamicPartitionsDefinition(name=_set_name(language))


def _set_name(language: str) -> str:
    return f"audiobooks_{language}"


def add_audiobooks(instance: dg.DagsterInstance, language: str, found: Iterable[str]) -> list[str]:
    """Make partitions of the audiobooks that are not partitions yet; returns those, in the order they are given."""
    name = _set_name(language)
    known = set(instance.get_dynamic_partitions(name))
    new = [book for book in dict.fromkeys(found) if book not in known]
    for first in range(0, len(new), ADDED_AT_ONCE):
        instance.add_dynamic_partitions(name, new[first : first + ADDED_AT_ONCE])
    return new


def known_audiobooks(instance: dg.DagsterInstance, language: str) -> list[str]:
    """The partitions there are, in the order of their set."""
    return list(instance.get_dynamic_partitions(_set_name(language)))
