"""What a catalogue says now, held against what it said before: new books, changed books, books that are gone.

Pure. Reading a source is the source's business, keeping the tables the caller's.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

import polars as pl

from speech_mining.errors import CatalogueError
from speech_mining.records import CATALOGUE, REJECTIONS, TIMESTAMPS, Schema, by_audiobook, conform
from speech_mining.sources.protocol import Catalogue

_BOOK = ["language", "audiobook"]
_MARKS = ["first_seen", "last_changed"]
_TOLD = [name for name in CATALOGUE if name not in _MARKS]
_LATER = timedelta(microseconds=1)
"""Whoever follows changes by their time goes on after the last he saw: a clock that went back must not hide one."""
VERSIONS: Schema = {
    "language": pl.String(),
    "audiobook": pl.String(),
    "version": pl.String(),  # hash of what is listed of the book, its spans included
    "last_changed": CATALOGUE["last_changed"],
}


def brought_up_to_date(
    before: pl.DataFrame | None, found: Catalogue, *, timestamps: pl.DataFrame | None = None
) -> Catalogue:
    """The catalogue after a reading: what was known and what was found, with `first_seen` and `last_changed`.

    A book is looked at in each language by itself. One that is listed as before keeps both times; one that changed, in
    any column or span, has `last_changed = found.read_at`; a new one has both. No change is dated before one of the
    same language that is known, whatever the clock says. A whole reading takes away books that are not listed any
    more; in a reading by `since`, the books of the answer replace themselves and the others stay. Every book that
    leaves is a rejection (`gone`). Where nothing changed the tables are equal to the last byte.

    Args:
        before: `records.CATALOGUE` as this function gave it last; None the first time.
        found: a reading.
        timestamps: `records.TIMESTAMPS` that belong to `before`; None where it had none.

    Returns:
        `found`, its tables brought up to date; `books`, `read_at` and `whole` are those of the reading.

    Raises:
        LakeError: `before` has other columns than this version's.
        CatalogueError: a whole reading met no book at all where there were some.
    """
    if found.whole and found.books == 0 and before is not None and before.height:
        raise CatalogueError(
            f"The catalogue has no book, and had {before['audiobook'].n_unique()} the last time.",
            expected="some of them at least",
            cause="a server or a mirror that lost its data, or a disk that is not mounted",
            fix="look at the source; to begin anew, remove the catalogue from the lake",
        )
    known = conform(_empty(CATALOGUE) if before is None else before, CATALOGUE, "the catalogue before")
    known_spans = conform(_empty(TIMESTAMPS) if timestamps is None else timestamps, TIMESTAMPS, "timestamps before")
    stays, spans_stay = (_unanswered(table, found) for table in (known, known_spans))
    listed = pl.concat([stays, conform(found.sections, CATALOGUE, "the catalogue")])
    spans = pl.concat([spans_stay, conform(found.timestamps, TIMESTAMPS, "timestamps")])
    marks = _marks(known, known_spans, listed, spans, found)
    sections = listed.drop(_MARKS).join(marks, on=_BOOK, how="left").select(list(CATALOGUE))
    gone = known.select(_BOOK).unique(maintain_order=True).join(listed, on=_BOOK, how="anti")
    return replace(
        found,
        sections=sections.sort("language", by_audiobook(), "section").rechunk(),
        rejections=pl.concat([conform(found.rejections, REJECTIONS, "rejections"), _gone(gone)]).rechunk(),
        timestamps=spans.sort(by_audiobook(), "section", "start_sample", "end_sample").rechunk(),
    )


def book_versions(sections: pl.DataFrame, timestamps: pl.DataFrame) -> pl.DataFrame:
    """A hash of what is listed of each book in a language: rows without their times, and spans.

    Args:
        sections: columns `records.CATALOGUE`, in any order of rows.
        timestamps: columns `records.TIMESTAMPS`; those of sections that are not listed count for nothing.

    Returns:
        Columns `VERSIONS`, by language and audiobook. A version is 32 hex digits of BLAKE2b over the values written
        out, each with its length before it: the same on any machine and with any version of polars.
    """
    rows = sections.sort("language", by_audiobook(), "section").select(*_BOOK, "last_changed", _written(_TOLD))
    spans = (
        timestamps.join(sections.select(*_BOOK, "section"), on=["audiobook", "section"], how="inner")
        .sort("section", "start_sample", "end_sample")
        .select(*_BOOK, _written(["section", "start_sample", "end_sample"]).alias("spans"))
        .group_by(_BOOK)
        .agg(pl.col("spans").str.join(""))
    )
    books = rows.group_by(_BOOK, maintain_order=True).agg(pl.col("written").str.join(""), pl.col("last_changed").max())
    content = books.join(spans, on=_BOOK, how="left", maintain_order="left").select(
        *_BOOK,
        "last_changed",
        (pl.col("written") + pl.lit("\n") + pl.col("spans").fill_null("")).alias("content"),
    )
    versions = pl.Series("version", [_digest(text) for text in content["content"]], dtype=pl.String())
    return conform(content.drop("content").with_columns(versions), VERSIONS, "versions of books")


def _unanswered(table: pl.DataFrame, found: Catalogue) -> pl.DataFrame:
    """Rows of before that a reading says nothing about: of a whole one none."""
    if found.whole:
        return table.clear()
    told = [found.sections["audiobook"], found.rejections["audiobook"].drop_nulls()]
    answered = pl.concat(told).unique()
    return table.filter(~pl.col("audiobook").is_in(answered.implode()))


def _marks(
    known: pl.DataFrame, known_spans: pl.DataFrame, listed: pl.DataFrame, spans: pl.DataFrame, found: Catalogue
) -> pl.DataFrame:
    """First seen and last changed of every book that is listed."""
    now = book_versions(listed, spans).select(*_BOOK, "version")
    first_seen = known.group_by(_BOOK).agg(pl.col("first_seen").min())
    then = book_versions(known, known_spans).join(first_seen, on=_BOOK, how="left")
    read_at = pl.lit(found.read_at).cast(CATALOGUE["first_seen"])
    seen = now.join(then.select(*_BOOK, "first_seen"), on=_BOOK, how="left")
    same = seen.join(then.select(*_BOOK, "version", "last_changed"), on=[*_BOOK, "version"], how="left")
    latest = then.group_by("language").agg((pl.col("last_changed").max() + _LATER).alias("later"))
    dated = same.join(latest, on="language", how="left", maintain_order="left")
    changed_at = pl.max_horizontal(read_at, "later")
    return dated.select(*_BOOK, pl.col("first_seen").fill_null(read_at), pl.col("last_changed").fill_null(changed_at))


def _written(columns: list[str]) -> pl.Expr:
    """Values of a row as one string that no other row has: each with its bytes' number before it, a null as "-"."""
    texts = [pl.col(name).cast(pl.String) for name in columns]
    parts = [
        pl.when(text.is_null()).then(pl.lit("-")).otherwise(pl.format("{}:{}", text.str.len_bytes(), text))
        for text in texts
    ]
    return pl.concat_str(parts, separator=",").alias("written")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _gone(books: pl.DataFrame) -> pl.DataFrame:
    rows = [
        {
            **dict.fromkeys(REJECTIONS),
            "audiobook": audiobook,
            "reason": "gone",
            "detail": f"no longer listed in {language}",
        }
        for language, audiobook in books.iter_rows()
    ]
    return pl.DataFrame(rows, schema=dict(REJECTIONS), orient="row")


def _empty(schema: Schema) -> pl.DataFrame:
    return pl.DataFrame(schema=dict(schema))
