"""Training recipes: what a student is trained on, offered by packages through the entry point group below.

The library knows how to train; a recipe brings speech and texts. Only the contract and the search for recipes belong
here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent

GROUP = "speech_mining.recipes"


class Figure(NamedTuple):
    """One measured figure of an examination."""

    what: str
    which: str
    value: float


Stages: TypeAlias = Callable[[str], Progress]
"""Called with the name of a stage of the work, it returns what is told how far the stage is."""


def quietly(stage: str) -> Progress:
    """Stages that tell nobody."""
    return silent


class Recipe(Protocol):
    """What `s2s train --recipe NAME` runs."""

    def train(self, out: Path, *, seed: int, sentences: int | None, stages: Stages = quietly) -> None:
        """Train a student and write its file; `sentences` is how many a language, None for the recipe's own number."""

    def examine(self, weights: Path | None, *, sentences: int | None, stages: Stages = quietly) -> list[Figure]:
        """Measure a student's file, None for the shipped one, on sentences that no recipe ever trains on."""


def find_recipe(name: str) -> Recipe:
    """Load a recipe by its name.

    Raises:
        EncoderError: no installed package offers it.
    """
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        raise EncoderError(
            f"There is no training recipe {name!r}.",
            expected=f"one of {', '.join(sorted(offered)) or 'none installed'}",
            cause="its name is misspelt, or the package that offers it is not installed",
            fix="s2s train --recipe demo",
        )
    recipe: Recipe = offered[name].load()()
    return recipe
