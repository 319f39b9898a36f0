"""What is said in recordings, where it is known: the embedded library brings its own words."""

from __future__ import annotations

import polars as pl

from resources.settings import LIBRARY, MINIATURE, Settings


def known_transcripts(settings: Settings) -> pl.DataFrame | None:
    """Columns `speech_mining.report.samples.TRANSCRIPTS`; None where no words are known."""
    if settings.catalogue_url != MINIATURE:
        return None
    sentences = pl.read_parquet(str(LIBRARY / "sentences.parquet"))
    return sentences.select("audiobook", "section", "start_ms", "end_ms", "text")
