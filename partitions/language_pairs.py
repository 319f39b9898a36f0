"""Pairs of languages: `deu-eng`, in alphabetical order within a modality, else the source's language first."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import dagster as dg


def speech_pairs(languages: Iterable[str]) -> list[str]:
    """Every pair of two different languages, each in alphabetical order."""
    return [f"{source}-{target}" for source, target in itertools.combinations(sorted(set(languages)), 2)]


def split(pair: str) -> tuple[str, str]:
    """The two languages of a pair."""
    source, _, target = pair.partition("-")
    return source, target


def pairs_of(language: str, pairs: Sequence[str]) -> list[str]:
    """Those of `pairs` that the language takes part in."""
    return [pair for pair in pairs if language in split(pair)]


def pair_partitions(pairs: Sequence[str]) -> dg.StaticPartitionsDefinition:
    """The partition set of everything made for a pair."""
    return dg.StaticPartitionsDefinition(list(pairs))


def from_language(language: str, pairs: Sequence[str]) -> dg.PartitionMapping:
    """Built-in mapping from a language's one partition to its pairs."""
    return dg.StaticPartitionMapping({language: pairs_of(language, pairs)})
