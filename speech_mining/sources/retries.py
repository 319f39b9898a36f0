"""Which audiobooks are to be tried again: a mark in the lake for each that is incomplete for a reason that may pass.

Looking through the rejections of 14 500 books takes minutes on an object store; a list of marks is one request.
"""

from __future__ import annotations

import polars as pl

from speech_mining.lake import Lake
from speech_mining.records import REJECTIONS

LAYER = "incomplete"
PASSING = ("server_error", "connection", "checksum_mismatch", "not_audio", "empty_file")
"""A server recovers, an upload is mended; what is gone, forbidden or too large stays so until somebody acts."""


def mark(lake: Lake, language: str, audiobook: str, rejections: pl.DataFrame) -> None:
    """Remember that a book is to be tried again, or that it is not.

    Args:
        lake: the lake.
        language: ISO 639-3.
        audiobook: its id.
        rejections: `records.REJECTIONS` of what was just fetched.
    """
    passing = rejections.filter(pl.col("reason").is_in(PASSING))
    if passing.height:
        with lake.replace(LAYER, language, audiobook) as new:
            new.write_table("rejections.parquet", passing, REJECTIONS)
    elif lake.find(LAYER, language, audiobook) is not None:
        lake.remove(LAYER, language, audiobook)


def to_be_tried_again(lake: Lake, language: str) -> list[str]:
    """Ids of the books that are marked."""
    return lake.keys(LAYER, language)
