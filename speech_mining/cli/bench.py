"""`s2s bench`: the peers and us on the user's own machine and files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speech_mining.benchmark.contenders import LASER_FOLDER, STOPES_PYTHON, Places, chosen
from speech_mining.cli.mine import Engine, read_embeddings

if TYPE_CHECKING:
    from speech_mining.benchmark.embeddings import Sides
    from speech_mining.benchmark.report import Report


def bench(
    source: Annotated[
        Path | None, typer.Argument(metavar="SRC.npy", help="Source embeddings; synthetic without.")
    ] = None,
    target: Annotated[Path | None, typer.Argument(metavar="TGT.npy", help="Target embeddings.")] = None,
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=1, help="Synthetic rows a side, or first rows of each file.", show_default="10000"),
    ] = None,
    target_rows: Annotated[
        int | None, typer.Option("--target-rows", min=1, help="The same of the target.", show_default="--rows")
    ] = None,
    dimension: Annotated[
        int | None, typer.Option("--dimension", min=1, help="Values in a synthetic row.", show_default="1024")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours in each direction.")] = 16,
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            help="faiss, stopes, laser or sentence-transformers; may be given again.",
            show_default="all",
        ),
    ] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="Of ours.")] = Engine.auto,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Cores for each.", show_default="all usable")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds; the median counts.")] = 3,
    laser: Annotated[
        Path | None, typer.Option("--laser", envvar=LASER_FOLDER, help="A checkout of LASER.", show_default=False)
    ] = None,
    stopes_python: Annotated[
        Path | None,
        typer.Option(
            "--stopes-python",
            envvar=STOPES_PYTHON,
            help="A Python with stopes and sentence-transformers.",
            show_default="where benchmarks.peers.install puts it",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a report: FILE.json or FILE.md.", show_default=False)
    ] = None,
) -> None:
    """Compare exact mining with FAISS, stopes, LASER and sentence-transformers on this machine.

    Each searches both directions by its own exact path, in a process of its own, on the same float32 rows, with the
    same number of threads. Contenders take turns; loading is not timed. One raw matrix product of that size is the
    yardstick. The exit code is 1 if a contender failed; one that is not installed is named and does not count.

    [bold]Examples[/bold]

    s2s bench

    s2s bench deu.npy eng.npy --out report.md

    s2s bench --rows 20000 --target-rows 200000 --peer faiss --repeats 5

    s2s bench deu.npy eng.npy --rows 50000 --laser LASER --out report.json
    """
    from speech_mining.benchmark.embeddings import check_origin
    from speech_mining.benchmark.report import checked_out, write_report

    contenders = chosen(peers or [])
    check_origin(source, target, dimension)
    checked_out(out)
    places = Places(_absolute(stopes_python), _absolute(laser))

    def lay(folder: Path) -> Sides:
        return _lay(folder, source, target, (rows, target_rows, dimension))

    asked = {"k": k, "threads": threads, "engine": engine.value, "repeats": repeats, "places": places}
    report = _compare(contenders, lay, asked)
    show(report)
    if out is not None:
        write_report(report, out)
    if any(row["state"] == "failed" for row in report["contenders"]):
        raise typer.Exit(1)


def _absolute(path: Path | None) -> Path | None:
    """From the user's folder, since contenders run in another; links stay, a virtual environment's Python is one."""
    return None if path is None else path.absolute()


def _lay(
    folder: Path, source: Path | None, target: Path | None, sizes: tuple[int | None, int | None, int | None]
) -> Sides:
    from speech_mining.benchmark.embeddings import lay_files, lay_synthetic

    rows, target_rows, dimension = sizes
    if source is None or target is None:
        return lay_synthetic(folder, rows, target_rows, dimension)
    return lay_files(folder, source, target, rows, target_rows, read_embeddings)


def _compare(contenders: list[Any], lay: Callable[[Path], Sides], asked: dict[str, Any]) -> Report:
    from speech_mining.benchmark.machine import describe_machine, usable_cores
    from speech_mining.benchmark.report import make_report
    from speech_mining.benchmark.rounds import Request, run_rounds
    from speech_mining.mining.strategies import RATIO_THRESHOLD

    machine = describe_machine()  # before we keep it busy ourselves
    asked["threads"] = asked["threads"] or usable_cores()
    with tempfile.TemporaryDirectory(prefix="s2s-bench-") as folder, _bar() as told:
        scratch = Path(folder)
        request = Request(lay(scratch), threshold=RATIO_THRESHOLD, **asked)
        return make_report(run_rounds(contenders, request, scratch, told), request, machine, scratch)


@contextmanager
def _bar() -> Iterator[Callable[[int, int, str], None]]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("preparing rows", total=None)
        yield lambda done, total, name: bars.update(
            task, completed=done, total=total, description=name or "comparing what they found"
        )


def show(report: Report) -> None:
    """Print settings, figures and notes."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from speech_mining.benchmark.report import agreements, notes, times, title

    console = Console()
    console.print(title(report), markup=False, highlight=False, soft_wrap=True)
    for names, lines in (times(report), agreements(report)):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for place, name in enumerate(names):  # long headings take two lines, so that the widest name fits 80 columns
            heading = name.replace(" ", "\n", 1) if len(name) > 8 else name
            table.add_column(heading, justify="right" if place else "left", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        if lines:
            console.print(table)
    for told in notes(report):
        console.print(told, markup=False, highlight=False, soft_wrap=True)
