"""`catalogue`: what LibriVox offers in our languages, one row a section; new audiobooks become partitions.

What belongs here is the layer; the API's shape and quirks are in `speech_mining.sources`.
"""

from typing import Any

import dagster as dg
import polars as pl

from partitions.audiobooks import add_audiobooks
from resources.compute import DOWNLOAD, OWNERS, network_retries
from resources.librivox import LibriVox
from resources.metadata import column_schema, listed, rejected, rows
from resources.settings import Settings
from resources.storage import Storage, published
from speech_mining.records import CATALOGUE, REJECTIONS
from speech_mining.sources.catalogue import Catalogue, fetch_catalogue


def catalogue(settings: Settings) -> dg.AssetsDefinition:
    """The asset, for the languages in force."""

    @dg.asset(
        key="catalogue",
        group_name="librivox",
        kinds={"api", "parquet"},
        owners=OWNERS,
        pool=DOWNLOAD,
        retry_policy=network_retries(settings.librivox.step_retries),
        code_version="1",
        metadata={"dagster/column_schema": column_schema(CATALOGUE)},
    )
    def _catalogue(
        context: dg.AssetExecutionContext, librivox: LibriVox, storage: Storage
    ) -> dg.MaterializeResult[None]:
        """Every finished audiobook in our languages: title, sections, readers, addresses.

        Audiobooks that were not known become partitions of their language.
        """
        with librivox.session() as session:
            found = fetch_catalogue(session.client, session.catalogue_url, languages=settings.languages)
        sections = _first_books(found.sections, settings.librivox.limit_books)
        with storage.lake.replace("catalogue") as new:
            new.write_table("catalogue.parquet", sections, CATALOGUE)
            new.write_table("rejections.parquet", found.rejections, REJECTIONS)
        added = {
            language: add_audiobooks(context.instance, language, _books(sections, language))
            for language in settings.languages
        }
        for language, books in added.items():
            context.log.info(f"{language}: {len(books)} new audiobooks")
        return published(storage.lake, _figures(found, sections, added), "catalogue")

    return _catalogue


def _books(sections: pl.DataFrame, language: str) -> list[str]:
    return sections.filter(pl.col("language") == language)["audiobook"].unique(maintain_order=True).to_list()


def _first_books(sections: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    if limit is None:
        return sections
    rank = pl.col("audiobook").rle_id().over("language")
    return sections.filter(rank < limit)


def _figures(found: Catalogue, sections: pl.DataFrame, added: dict[str, list[str]]) -> dict[str, Any]:
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
        "books_read": found.books,
        "by_language": rows(by_language),
        "new_audiobooks": listed([f"{language}: {', '.join(books)}" for language, books in added.items() if books]),
        "sample": rows(sections, limit=10),
        **rejected(found.rejections),
    }
