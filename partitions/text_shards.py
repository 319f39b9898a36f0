"""Shards of text: one dynamic set of partitions for each language, as audiobooks have."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg


def text_shards(language: str) -> dg.DynamicPartitionsDefinition:
    """The shards known in a language; a key is what `speech_mining.text.listing.shard_name` makes of an address."""
    return dg.DynamicPartitionsDefinition(name=_set_name(language))


def _set_name(language: str) -> str:
    return f"text_shards_{language}"


def set_text_shards(instance: dg.DagsterInstance, language: str, found: Iterable[str]) -> tuple[list[str], list[str]]:
    """Make partitions of the shards that are listed, and take away those that are no more.

    Returns:
        The new ones, in the order given, and those that are gone.
    """
    name, listed = _set_name(language), list(dict.fromkeys(found))
    known = list(instance.get_dynamic_partitions(name))
    new = [shard for shard in listed if shard not in set(known)]
    gone = [shard for shard in known if shard not in set(listed)]
    if new:
        instance.add_dynamic_partitions(name, new)
    for shard in gone:
        instance.delete_dynamic_partition(name, shard)
    return new, gone
