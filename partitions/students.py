"""Students: encoders trained here, each a partition of what is made on the way to it. Names only."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg


def student_partitions(names: Iterable[str]) -> dg.StaticPartitionsDefinition:
    """The partition set of everything made for a student."""
    return dg.StaticPartitionsDefinition(sorted(names))


def of_student(name: str) -> dg.PartitionMapping:
    """Built-in mapping from one student to every audiobook it embeds."""
    return dg.SpecificPartitionsPartitionMapping([name])
