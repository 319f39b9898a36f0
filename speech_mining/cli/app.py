"""The `s2s` command: binds one module per subcommand, and turns every error of ours into one clear paragraph.

Commands that need the orchestrator are not here: packages that have them offer them through the entry point group
`speech_mining.commands` (see pyproject.toml).
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console
from rich.markup import escape

from speech_mining import __version__
from speech_mining.cli.align import align
from speech_mining.cli.bench import bench
from speech_mining.cli.doctor import doctor
from speech_mining.cli.evaluate import evaluate
from speech_mining.cli.mine import mine
from speech_mining.cli.models import models
from speech_mining.cli.segment import segment
from speech_mining.cli.train import train
from speech_mining.errors import SpeechMiningError

app = typer.Typer(
    name="s2s",
    help="Mine speech-to-speech translation pairs from audiobooks.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"s2s {__version__}")
        raise typer.Exit


@app.callback()
def _s2s(
    debug: bool = typer.Option(False, "--debug", help="Show the full traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Mine speech-to-speech translation pairs from audiobooks."""


def _bind() -> typer.Typer:
    for command in (mine, align, bench, segment, train, evaluate, doctor):
        app.command()(command)
    app.add_typer(models, name="models")
    for offered in sorted(entry_points(group="speech_mining.commands"), key=lambda point: point.name):
        app.command(name=offered.name)(offered.load())
    return app


def main() -> None:
    """Run the command; an error of ours is one paragraph on stderr and exit code 2, unless `--debug` is given."""
    debug = "--debug" in sys.argv
    sys.argv[1:] = [word for word in sys.argv[1:] if word != "--debug"]  # accepted anywhere in the line
    try:
        _bind()()
    except SpeechMiningError as error:
        if debug:
            raise
        Console(stderr=True).print(f"[bold red]s2s:[/] {escape(str(error))}", highlight=False)
        raise SystemExit(2) from None
