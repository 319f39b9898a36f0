"""What it costs to bring an index and a pair up to date, by how many audiobooks are new.

Every refresh is the asset itself, run in this process on a copy of the same lake; audiobooks are real partitions with
tiny vectors.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import numpy.typing as npt

from benchmarks.synthetic_library import embed
from resources.settings import Settings, load_settings
from resources.storage import Storage
from s2s_assets.mined_pairs import neighbours
from s2s_assets.speech_index import speech_index
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH

Metadata = dict[str, dg.MetadataValue]
SOURCE, TARGET = "deu", "eng"
ROWS, DIMENSION = 60, 32
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
SHARES = (0, 16, 8, 4, 2)
"""New audiobooks: none, then a sixteenth, an eighth … of those that are there."""


@dataclass(frozen=True)
class Growth:
    """Cost by what is new."""

    what: str
    new: Sequence[int]
    """Audiobooks; the first is 0."""
    seconds: Sequence[float]
    """Processor seconds of a refresh; the least of the repeats."""
    products: Sequence[int] = ()

    @property
    def slope_s(self) -> float:
        """Seconds that one more audiobook costs, by least squares."""
        return float(np.polyfit(self.new, self.seconds, 1)[0])

    @property
    def exponent(self) -> float:
        """Of what is new, in the seconds."""
        return _exponent(self.new, self.seconds)

    @property
    def products_exponent(self) -> float:
        """Of what is new, in the products that were computed."""
        return _exponent(self.new, self.products)


def _exponent(new: Sequence[int], cost: Sequence[float]) -> float:
    """The power p of the curve a + b · new^p nearest to the costs, from 0.30 to 2.50.

    A line through logarithms would follow the smallest costs, which are those that noise moves most.
    """
    return min(np.arange(0.3, 2.505, 0.01), key=lambda power: _distance(np.array(new, float) ** power, cost))


def _distance(grown: npt.NDArray[np.float64], cost: Sequence[float]) -> float:
    columns = np.stack([np.ones_like(grown), grown], axis=1)
    nearest, *_ = np.linalg.lstsq(columns, np.array(cost, float), rcond=None)
    return float(((columns @ nearest - cost) ** 2).sum())


def refreshes(folder: Path, books: int, repeats: int = 2) -> list[Growth]:
    """Index and neighbours of a pair whose source gets new audiobooks.

    Args:
        folder: an empty folder on this machine.
        books: audiobooks a language that are there before.
        repeats: of each refresh; the least counts.
    """
    settings = load_settings(home=folder / "home", languages=(SOURCE, TARGET), catalogue_url="https://librivox.org")
    before = folder / "before"
    for language in (SOURCE, TARGET):
        embed(Lake(before), language, [str(number) for number in range(1, books + 1)], ROWS, DIMENSION)
        _make(settings, before, speech_index(language, settings), language)
    _make(settings, before, neighbours(SPEECH_TO_SPEECH, settings), f"{SOURCE}-{TARGET}")
    new = [books // share if share else 0 for share in SHARES]
    seconds: dict[int, tuple[list[float], list[float]]] = {number: ([], []) for number in new}
    products: dict[int, int] = {}
    for _ in range(repeats):
        for number in new:
            lake = _grown(before, folder / "grown", books, number)
            index_s, _ = _make(settings, lake, speech_index(SOURCE, settings), SOURCE)
            pair_s, made = _make(settings, lake, neighbours(SPEECH_TO_SPEECH, settings), f"{SOURCE}-{TARGET}")
            seconds[number][0].append(index_s)
            seconds[number][1].append(pair_s)
            products[number] = int(str(made["products_computed"].value))
    return [
        Growth("index refresh", new, [min(seconds[number][0]) for number in new]),
        Growth("pair refresh", new, [min(seconds[number][1]) for number in new], [products[number] for number in new]),
    ]


def _grown(before: Path, place: Path, books: int, new: int) -> Path:
    """The same lake with new audiobooks in it; what is published is never written again, so a link is a copy."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(before, place, copy_function=os.link)
    embed(Lake(place), SOURCE, [str(number) for number in range(books + 1, books + new + 1)], ROWS, DIMENSION)
    return place


def _make(settings: Settings, lake: Path, asset: dg.AssetsDefinition, partition: str) -> tuple[float, Metadata]:
    """Materialize one partition; returns its processor seconds and its metadata."""
    storage = Storage(url=str(lake), scratch=str(settings.home / "downloads"))
    with dg.DagsterInstance.ephemeral() as instance:
        began = time.process_time()
        result = dg.materialize(
            [asset], partition_key=partition, resources={"storage": storage}, instance=instance, run_config=QUIET
        )
        seconds = time.process_time() - began
    return seconds, dict(result.asset_materializations_for_node(asset.node_def.name)[0].metadata)
