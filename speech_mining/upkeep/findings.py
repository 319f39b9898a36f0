"""What is wrong with a lake, one thing at a time: what was found, what comes of it, what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from speech_mining.upkeep.places import Key

FindingKind: TypeAlias = Literal[
    # a partition that cannot be read as it was written
    "no_current",
    "broken_current",
    "damaged",
    "newer_format",
    "other_columns",
    # what is there and belongs to nothing
    "orphan",
    "staging",
    "foreign",
    "stray",
    # a partition that is whole, and not made of what is there now
    "behind",
    "unlisted",
    # Dagster's record and the files
    "unrecorded",
    "lost",
]
KINDS: dict[FindingKind, str] = {
    "no_current": "a partition without CURRENT",
    "broken_current": "CURRENT names what is not there",
    "damaged": "files are not what was written",
    "newer_format": "written by a newer version",
    "other_columns": "a table has other columns",
    "orphan": "a generation that is not current",
    "staging": "left by a killed writer",
    "foreign": "a file that no manifest names",
    "stray": "a file outside every partition",
    "behind": "made of something else than what is there now",
    "unlisted": "its source is not listed any more",
    "unrecorded": "the files are newer than Dagster's record",
    "lost": "Dagster remembers what is not there",
}
Act: TypeAlias = Literal["", "tidy", "sweep", "restore", "set_aside", "record"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        kind: of `KINDS`.
        layer: of the lake; empty where it is of none.
        key: of the partition.
        found: what was met, with the figure or the name.
        consequence: what comes of it.
        remedy: what `--repair` does, or what to do.
        act: what `--repair` does, by name; empty where a person must.
        target: what the act is done to: a generation, a path, a data version.
    """

    kind: FindingKind
    layer: str
    key: Key
    found: str
    consequence: str
    remedy: str
    act: Act = ""
    target: str = ""

    @property
    def place(self) -> str:
        """Layer and key, as in `segments/deu/47`."""
        return "/".join((self.layer, *self.key)) or "the lake"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {"kind": self.kind, "place": self.place, "found": self.found, "consequence": self.consequence}
        return {**told, "remedy": self.remedy, "repairable": bool(self.act)}
