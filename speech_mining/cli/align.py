"""`s2s align`: from two matrices of embeddings that share no pairs to a map between their spaces.

What belongs here is the command's arguments, its bar and its table. The work is `speech_mining.align`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech_mining.errors import SettingsError

if TYPE_CHECKING:
    from speech_mining.align.alignment import Alignment
    from speech_mining.align.refinement import Pairing
    from speech_mining.progress import Progress


class Method(str, Enum):
    """Names as in `speech_mining.align.alignment.METHODS`."""

    auto = "auto"
    distribution = "distribution"
    gw = "gw"
    adversarial = "adversarial"
    supervised = "supervised"


def align(
    source: Annotated[
        Path, typer.Argument(metavar="SRC.npy|DIR", help="Source embeddings: a file, a folder or a quoted pattern.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TGT.npy|DIR", help="Target embeddings, likewise.")],
    out: Annotated[Path, typer.Option("--out", help="Where the map goes, FILE.npz; for `s2s mine --map`.")],
    method: Annotated[
        Method, typer.Option("--method", help="How to begin; auto tries all that need no dictionary.")
    ] = Method.auto,
    dictionary: Annotated[
        Path | None,
        typer.Option("--dictionary", help="Of supervised: lines of source row, tab, target row; or of words."),
    ] = None,
    source_words: Annotated[
        Path | None, typer.Option("--source-words", help="Of a dictionary of words: the word of each source row.")
    ] = None,
    target_words: Annotated[Path | None, typer.Option("--target-words", help="And of each target row.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn.")] = 0,
    restarts: Annotated[int, typer.Option("--restarts", min=1, help="Attempts of each method.")] = 3,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Seconds; the best map so far is kept.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Attempts at once, one core each.")] = 1,
    device: Annotated[
        str, typer.Option("--device", envvar="S2S_DEVICE", help="Of the adversarial game: 'cpu', 'cuda', 'cuda:1'.")
    ] = "cpu",
    normalise: Annotated[
        str, typer.Option("--normalise", help="What is done to rows first: 'unit', 'centre' in order, or 'none'.")
    ] = "unit,centre,unit",
    whiten: Annotated[bool, typer.Option("--whiten", help="Whiten around the last map, and colour again.")] = False,
    reweight: Annotated[
        float, typer.Option("--reweight", min=0, help="Power of correlations that weigh directions; vecmap: 0.5.")
    ] = 0.0,
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="Of refinement, at most.")] = 30,
    csls_k: Annotated[int, typer.Option("--csls-k", min=1, help="Neighbours that make a neighbourhood.")] = 10,
    frequent: Annotated[
        int, typer.Option("--frequent", min=20, help="Rows of each side that are matched, the first ones.")
    ] = 20_000,
) -> None:
    """Learn a map between two spaces that share no pairs, or few.

    Rows stand in order of frequency where they have one. Each attempt begins with a guess, which is refined and judged
    by the mean cosine of rows with their nearest under CSLS; the best is kept. A dictionary has a line for each pair,
    rows counted from 0, or words when --source-words and --target-words name the rows, one word a line.

    [bold]Examples[/bold]

    s2s align speech.npy text.npy --out map.npz --workers 4

    s2s align speech.npy text.npy --out map.npz --method supervised --dictionary pairs.tsv

    s2s mine speech.npy text.npy --map map.npz --out pairs.tsv
    """
    from speech_mining.align import alignment
    from speech_mining.align.procrustes import Around
    from speech_mining.align.refinement import Refinement
    from speech_mining.align.spaces import read_steps
    from speech_mining.cli.matrices import Embeddings
    from speech_mining.cli.mine import check_writable

    if out.suffix != ".npz":
        raise SettingsError(f"The map would go to {out}.", expected="a name that ends in .npz")
    refinement = Refinement(rounds=rounds, frequent=frequent, k=csls_k, around=Around(whiten, reweight))
    wish = alignment.Wish(method.value, seed, restarts, time_limit, workers, device, read_steps(normalise), refinement)
    pairs = _pairs(dictionary, (source_words, target_words))
    sides = Embeddings(source), Embeddings(target)
    check_writable(out)
    with _bar() as progress:
        found = alignment.align(sides[0].matrix, sides[1].matrix, wish, pairs, progress)
    found.map.save(out)
    _tell(found, out)


def _pairs(dictionary: Path | None, words: tuple[Path | None, Path | None]) -> Pairing | None:
    from speech_mining.align.dictionary import read_dictionary

    source, target = words
    if (source is None) != (target is None) or (source is not None and dictionary is None):
        raise SettingsError(
            "Words are named without all that they are for.",
            expected="--dictionary, --source-words and --target-words together",
        )
    if dictionary is None:
        return None
    read = read_dictionary(dictionary, None if source is None or target is None else (source, target))
    if read.skipped:
        typer.echo(f"{read.skipped} lines of {dictionary} name a word without a row, and are left out.", err=True)
    return read.pairs


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("Attempts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def show(done: int, total: int, /) -> None:
            bars.update(task, completed=done, total=total)

        yield show


def _tell(found: Alignment, out: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "seed", "criterion", "seconds", ""):
        table.add_column(name, justify="left" if name in ("method", "") else "right")
    for attempt in found.attempts:
        told = "kept" if attempt is found.best else ""
        reason = " ".join(word for word in (told, attempt.told and f"({attempt.told})") if word)
        table.add_row(attempt.method, str(attempt.seed), f"{attempt.criterion:.4f}", f"{attempt.seconds:.1f}", reason)
    Console().print(table)
    typer.echo(f"The map is in {out}.")
