"""What an earlier materialization of a book holds, and what of it still stands.

What belongs here is the comparison of a published partition with what the catalogue lists now. What is missing is
fetched by `audiobook`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from speech_mining.lake import Partition
from speech_mining.records import RECORDINGS, REJECTIONS, Schema, conform

LISTING: Schema = {
    "section": pl.Int32(),
    "url": pl.String(),
    "file_version": pl.String(),  # of the content that was fetched; null where the catalogue tells none
}
"""What the catalogue listed when a book was fetched, one row a section, rejected ones included."""

RECORDINGS_FILE, REJECTIONS_FILE, LISTING_FILE = "recordings.parquet", "rejections.parquet", "listing.parquet"

_FINAL = frozenset({"gone"})
"""Rejections that no later run heals. All others may pass: a server recovers, a cap is raised, a host allowed."""

_OF_THE_CATALOGUE = {
    "audiobook": "audiobook",
    "section": "section",
    "language": "language",
    "announced_s": "duration_s",
    "url": "listen_url",
    "title": "title",
    "section_title": "section_title",
    "readers": "readers",
    "licence": "licence",
}
"""Column of `records.RECORDINGS` -> column of `records.CATALOGUE` that it repeats."""


@dataclass(frozen=True)
class Held:
    """A recording that the lake holds."""

    partition: Partition
    file: str
    bytes: int
    sha256: str
    file_version: str | None


@dataclass(frozen=True)
class Earlier:
    """A published partition of a book's recordings."""

    partition: Partition

    def stands(self, sections: pl.DataFrame) -> bool:
        """Whether materializing again would change nothing: the same listing, whole files, nothing to try again.

        Args:
            sections: `records.CATALOGUE` of the book, as it is listed now.
        """
        return (
            LISTING_FILE in self.partition.files
            and self._lists(sections)
            and set(self.rejections["reason"]) <= _FINAL
            and self._describes(sections)
            and not self._damaged
        )

    @cached_property
    def recordings(self) -> pl.DataFrame:
        """`records.RECORDINGS`."""
        return self.partition.read_table(RECORDINGS_FILE, RECORDINGS)

    @cached_property
    def rejections(self) -> pl.DataFrame:
        """`records.REJECTIONS`."""
        return self.partition.read_table(REJECTIONS_FILE, REJECTIONS)

    @cached_property
    def held(self) -> Mapping[str, Held]:
        """Address → the undamaged recording that was fetched from there."""
        columns = self.recordings.select("url", "file", "bytes", "sha256").iter_rows()
        return {
            url: Held(self.partition, file, size, sha256, self._versions.get(url))
            for url, file, size, sha256 in columns
            if file not in self._damaged
        }

    @cached_property
    def _damaged(self) -> set[str]:
        return self.partition.damaged()

    @cached_property
    def _listing(self) -> pl.DataFrame:
        if LISTING_FILE not in self.partition.files:
            return pl.DataFrame(schema=dict(LISTING))
        return self.partition.read_table(LISTING_FILE, LISTING)

    @property
    def _versions(self) -> dict[str, str | None]:
        return dict(self._listing.select("url", "file_version").iter_rows())

    def _lists(self, sections: pl.DataFrame) -> bool:
        now = listing(sections)
        known = now["file_version"].is_not_null()
        before = self._listing.sort("section", "url")
        return (
            now.select("section", "url").equals(before.select("section", "url"))
            and now.filter(known)["file_version"].equals(before.filter(known)["file_version"])
        )  # fmt: skip

    def _describes(self, sections: pl.DataFrame) -> bool:
        """Whether every listed section is a recording with the words of the catalogue, or a rejection."""
        rejected = sections["section"].is_in(self.rejections["section"].implode())
        now = described(sections.filter(~rejected)).sort("section")
        return now.equals(self.recordings.select(now.columns).sort("section"))


def listing(sections: pl.DataFrame) -> pl.DataFrame:
    """`LISTING` of what the catalogue tells of a book."""
    renamed = sections.select("section", pl.col("listen_url").alias("url"), "file_version")
    return conform(renamed, LISTING, "listing").sort("section", "url")


def described(sections: pl.DataFrame) -> pl.DataFrame:
    """The columns of `records.RECORDINGS` that repeat the catalogue's."""
    return sections.select(
        pl.col(theirs).cast(RECORDINGS[ours]).alias(ours) for ours, theirs in _OF_THE_CATALOGUE.items()
    )


def description(section: Mapping[str, Any]) -> dict[str, Any]:
    """As `described`, of one row."""
    return {ours: section[theirs] for ours, theirs in _OF_THE_CATALOGUE.items()}
