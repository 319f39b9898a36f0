"""`catalogue`: what a source offers in our languages, one row a section; new audiobooks become partitions.

What belongs here is the layer, and the books that it lists as Dagster sees them: each is an external partition with a
version of its own, so that a book that changed makes its own recordings stale and nothing else. How a source is read
is in `speech_mining.sources`.
"""

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import polars as pl

from partitions.audiobooks import add_audiobooks, audiobooks
from partitions.languages import layer
from resources.compute import DOWNLOAD, OWNERS, network_retries, step_tags
from resources.external import report_listed
from resources.librivox import LibriVox, wish_of
from resources.metadata import column_schema, listed, rejected, rows
from resources.settings import Settings
from resources.storage import Storage, published
from speech_mining.records import CATALOGUE
from speech_mining.sources import renewal
from speech_mining.sources.protocol import open_source
from speech_mining.sources.renewal import RenewedCatalogue


def catalogue(settings: Settings) -> dg.AssetsDefinition:
    """The asset, for the languages in force."""

    @dg.asset(
        key="catalogue",
        group_name="librivox",
        kinds={"api", "parquet"},
        owners=OWNERS,
        op_tags=step_tags(DOWNLOAD, "catalogue", settings),
        pool=DOWNLOAD,
        retry_policy=network_retries(settings.librivox.step_retries),
        code_version="2",
        metadata={"dagster/column_schema": column_schema(CATALOGUE)},
    )
    def _catalogue(
        context: dg.AssetExecutionContext, librivox: LibriVox, storage: Storage
    ) -> dg.MaterializeResult[None]:
        """Every finished audiobook in our languages: title, sections, readers, addresses, first seen, last changed.

        Audiobooks that were not known become partitions of their language.
        """
        now = datetime.now(timezone.utc)
        with librivox.session() as session:
            wish = wish_of(settings, session.catalogue_url)
            source = open_source(session.catalogue_url, session.client)
            found = renewal.read_again(storage.lake, source, wish, now=now)
        observe(context.instance, found)
        renewal.keep(storage.lake, found, wish)
        added = {
            language: add_audiobooks(context.instance, language, _books(found.books, language))
            for language in settings.languages
        }
        for language, books in added.items():
            context.log.info(f"{language}: {len(books)} new audiobooks")
        return published(storage.lake, _figures(found, added), "catalogue")

    return _catalogue


def listings(settings: Settings) -> list[dg.AssetSpec]:
    """The audiobooks as the catalogue lists them: what the recordings of each depend on."""
    return [
        dg.AssetSpec(
            layer(language, "listing"),
            deps=["catalogue"],
            partitions_def=audiobooks(language),
            group_name=language,
            kinds={"parquet"},
            owners=OWNERS,
            tags={"language": language},
            code_version="1",
            description="An audiobook as the catalogue lists it: observed when it is new and whenever it changed.",
        )
        for language in settings.languages
    ]


def observe(instance: dg.DagsterInstance, found: RenewedCatalogue) -> None:
    """Tell Dagster of every book that is new or changed.

    Before the catalogue is kept: a run that is killed in between tells again.
    """
    details = found.catalogue.sections.group_by("language", "audiobook").agg(
        pl.col("title", "authors", "licence", "url_librivox", "first_seen").first(),
        pl.col("readers").unique().sort().str.join(", "),
        pl.len().alias("sections"),
        (pl.col("duration_s").sum() / 3600).round(3).alias("announced_hours"),
    )
    told = found.changed.join(details, on=["language", "audiobook"], how="left", maintain_order="left")
    for book in told.iter_rows(named=True):
        report_listed(instance, layer(book["language"], "listing"), book["audiobook"], book["version"], _details(book))


def _details(book: dict[str, Any]) -> dict[str, Any]:
    page = book["url_librivox"]
    return {
        **{name: book[name] for name in ("title", "authors", "readers", "licence", "sections", "announced_hours")},
        **({"page": dg.MetadataValue.url(page)} if page else {}),
        **{name: dg.MetadataValue.timestamp(book[name]) for name in ("first_seen", "last_changed")},
    }


def _books(books: pl.DataFrame, language: str) -> Iterable[str]:
    return books.filter(language=language)["audiobook"].to_list()


def _figures(found: RenewedCatalogue, added: dict[str, list[str]]) -> dict[str, Any]:
    sections = found.catalogue.sections
    by_language = (
        sections.group_by("language")
        .agg(
            pl.col("audiobook").n_unique().alias("audiobooks"),
            pl.len().alias("sections"),
            (pl.col("duration_s").sum() / 3600).round(3).alias("announced_hours"),
            pl.col("readers").n_unique().alias("readers"),
        )
        .sort("language")
    )
    return {
        "dagster/row_count": sections.height,
        "books_read": found.catalogue.books,
        "read": "whole" if found.catalogue.whole else "what is new",
        "changed_audiobooks": found.changed.height,
        "by_language": rows(by_language),
        "new_audiobooks": listed([f"{language}: {', '.join(books)}" for language, books in added.items() if books]),
        "sample": rows(sections, limit=10),
        **rejected(found.catalogue.rejections),
    }
