"""`s2s train`: train a student encoder by a recipe, and print what it can do.

What belongs here is the command's arguments, its bars and its table; recipes come from
`speech_mining.training.recipes`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from speech_mining.progress import Progress
    from speech_mining.training.recipes import Figure, Stages


def train(
    recipe: Annotated[str, typer.Option("--recipe", help="What to train on; `demo` is the miniature world.")] = "demo",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the weights here; without it, over the shipped ones.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of every random choice.")] = 0,
    sentences: Annotated[
        int | None,
        typer.Option(
            "--sentences",
            help="Training sentences a language; with --evaluate-only, sentences of the examination.",
            min=1,
            show_default="the recipe's own",
        ),
    ] = None,
    evaluate_only: Annotated[
        bool, typer.Option("--evaluate-only", help="Train nothing: examine the weights in --out, or the shipped ones.")
    ] = False,
) -> None:
    """Train a student encoder and examine it on sentences it has never heard.

    The same seed gives the same weights, byte for byte, on the same kind of processor with the same versions of torch,
    numpy and the synthesiser; elsewhere the last digits differ, and the figures by about a thousandth.

    [bold]Examples[/]

      s2s train --recipe demo --out miniature.safetensors

      s2s train --recipe demo --out quick.safetensors --sentences 400

      s2s train --recipe demo --evaluate-only
    """
    from speech_mining.encoders.student import SHIPPED
    from speech_mining.training.recipes import find_recipe

    chosen = find_recipe(recipe)
    started = time.monotonic()
    with _bars() as stages:
        if not evaluate_only:
            chosen.train(out or SHIPPED, seed=seed, sentences=sentences, stages=stages)
        figures = chosen.examine(out, sentences=sentences if evaluate_only else None, stages=stages)
    _show(figures, time.monotonic() - started)


@contextmanager
def _bars() -> Iterator[Stages]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:

        def stage(name: str) -> Progress:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield stage


def _show(figures: list[Figure], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "", "", show_header=False)
    for figure in figures:
        table.add_row(figure.what, figure.which, f"{figure.value:.4f}")
    console = Console()
    console.print(table)
    console.print(f"{seconds / 60:.1f} minutes")
