"""Rows of a listing while it is read, for the sources that lie on this machine: sections, spans and rejections.

What a file says is the business of `recordings_folder`, `manifest` and `stopes_shards`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import polars as pl

from speech_mining.records import CATALOGUE, REJECTIONS, TIMESTAMPS, RejectionReason, by_audiobook, conform
from speech_mining.sources.foreign_text import shown
from speech_mining.sources.languages import MULTILINGUAL, iso_639_3
from speech_mining.sources.protocol import Catalogue
from speech_mining.sources.rejected import RejectedError


def language_of(name: str) -> str:
    """The ISO 639-3 code of a language given by code or name.

    Raises:
        RejectedError: `unknown_language`.
    """
    code = iso_639_3(name) or iso_639_3(name.lower())
    if code is None or code == MULTILINGUAL:
        raise RejectedError("unknown_language", f"{shown(name)} is not a language we know by that name or code")
    return code


def require_wanted(language: str, wanted: Collection[str] | None) -> None:
    """Refuse a language that is not mined.

    Raises:
        RejectedError: `language_not_wanted`.
    """
    if wanted is not None and language not in wanted:
        raise RejectedError("language_not_wanted", language)


@dataclass
class Listing:
    """Collects rows; `catalogue` puts them in order."""

    _sections: list[dict[str, Any]] = field(default_factory=list)
    _rejections: list[dict[str, Any]] = field(default_factory=list)
    _spans: list[pl.DataFrame] = field(default_factory=list)

    def add(self, audiobook: str, section: int, language: str, *, listen_url: str, **told: Any) -> None:
        """A section; `told` are other columns of `records.CATALOGUE`, a text that is not told is empty."""
        texts = ("title", "authors", "section_title", "readers", "reader_ids", "url_librivox", "licence")
        row = {**dict.fromkeys(CATALOGUE), **dict.fromkeys(texts, ""), **told}
        row.update(audiobook=audiobook, section=section, language=language, listen_url=listen_url)
        self._sections.append(row)

    def add_spans(self, spans: pl.DataFrame) -> None:
        """Rows of `records.TIMESTAMPS`."""
        self._spans.append(conform(spans, TIMESTAMPS, "timestamps"))

    def reject(
        self,
        reason: RejectionReason,
        detail: str,
        *,
        audiobook: str | None = None,
        section: int | None = None,
        start_sample: int | None = None,
        end_sample: int | None = None,
    ) -> None:
        """Something that cannot be used; without an audiobook, something that names none."""
        row = {"audiobook": audiobook, "section": section, "start_sample": start_sample, "end_sample": end_sample}
        self._rejections.append({**row, "reason": reason, "detail": detail})

    def reject_all(self, rejections: pl.DataFrame) -> None:
        """Rows of `records.REJECTIONS`."""
        self._rejections += conform(rejections, REJECTIONS, "rejections").to_dicts()

    def catalogue(self, books: int, now: datetime) -> Catalogue:
        """What was collected, whole."""
        spans = pl.concat([pl.DataFrame(schema=dict(TIMESTAMPS)), *self._spans])
        return Catalogue(
            _frame(self._sections, CATALOGUE).sort("language", by_audiobook(), "section"),
            _frame(self._rejections, REJECTIONS),
            spans.sort(by_audiobook(), "section", "start_sample", "end_sample"),
            books,
            now.astimezone(timezone.utc),
            whole=True,
        )


def _frame(rows: Sequence[dict[str, Any]], schema: Any) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(schema), orient="row")
