"""The truths that the settings name: what mined pairs may be compared with."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from resources.settings import Settings
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, SPEECH_TO_TEXT
from speech_mining.quality.summary import Mined

COMPARED = (SPEECH_TO_SPEECH, SPEECH_TO_TEXT)
"""The kinds of pairs of which it may be known what is right."""


def known_truths(settings: Settings) -> list[Mined]:
    """The kinds whose truth is known, with their pairs."""
    paths = dict(zip(COMPARED, (settings.truth_path, settings.text_truth_path), strict=True))
    return [Mined(kind, settings.pairs_of(kind.name), _read(path)) for kind, path in paths.items()]


def _read(path: Path | None) -> pl.DataFrame | None:
    return None if path is None else pl.read_parquet(str(path))
