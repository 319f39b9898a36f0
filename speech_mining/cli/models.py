"""`s2s models`: which encoders' weights are here, how to bring others to a machine without a network, and a check."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech_mining.errors import EncoderError

if TYPE_CHECKING:
    from rich.table import Table

    from speech_mining.encoders.models import ModelFile

models = typer.Typer(
    help="List the encoders' weights, add a checkpoint to the model directory, verify what is there.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

ModelDir = Annotated[
    Path | None,
    typer.Option("--model-dir", envvar="S2S_MODEL_DIR", show_envvar=True, help="Directory of cards of one's own."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a list as JSON on standard output instead of a table.")]
_STYLES = {"here": "green", "ok": "green", "missing": "yellow", "damaged": "bold red", "refused": "bold red"}


@models.command("list")
def list_(model_dir: ModelDir = None, as_json: AsJson = False) -> None:
    """List every card, published and own: its languages, its files, and where they are or that they are missing.

    Nothing is downloaded.

    [bold]Examples[/]

      s2s models list

      s2s models list --json | jq -r '.[] | select(.state == "here") | .path'
    """
    from speech_mining.encoders.models import list_models

    rows = list_models(model_dir)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    _show(_table(("card", "languages", "state", "origin", "file"), [_told(row) for row in rows]))
    here = sum(row.state == "here" for row in rows)
    typer.echo(f"{here} of {len(rows)} files are on this machine; docs/encoders.md tells how to get the others.")


@models.command()
def add(
    source: Annotated[Path, typer.Argument(metavar="FOLDER|FILE", help="A checkpoint, or the folder of a model.")],
    card: Annotated[str, typer.Option("--card", help="A published card, which this one replaces, or a new name.")],
    base: Annotated[str, typer.Option("--base", help="For a new name: the card whose architecture it has.")] = "",
    link: Annotated[bool, typer.Option("--link", help="Link to the files in place of copying them.")] = False,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Unpickle a checkpoint of more than tensors, which may run code, and store its tensors alone.",
        ),
    ] = False,
    model_dir: ModelDir = None,
) -> None:
    """Bring a checkpoint into the model directory, with a card that holds its SHA-256.

    A pickle that torch.load(weights_only=True) refuses is refused.

    [bold]Examples[/]

      s2s models add spenc.v3ap.deu.pt --card sonar_speech_encoder_deu

      s2s models add laser2/ --card laser2_text_encoder     [dim]# laser2.pt and laser2.spm[/]

      s2s models add LaBSE/ --card LaBSE     [dim]# then S2S_MODEL_DIR and the encoder hf:LaBSE[/]
    """
    from speech_mining.encoders.models import add_model

    added = add_model(source, card, _needed(model_dir), base=base, link=link, trust_pickle=trust_pickle)
    for file, digest in added.sha256.items():
        typer.echo(f"{digest}  {file}")
    for name in added.left_out:
        typer.echo(f"left out of the pickle: {name}")
    typer.echo(f"The card {added.card} is in {added.card_file}.")


@models.command()
def verify(model_dir: ModelDir = None, as_json: AsJson = False) -> None:
    """Compute the SHA-256 of every file of one's own cards again; exit code 1 if one is damaged or missing.

    [bold]Example[/]

      S2S_MODEL_DIR=/data/models s2s models verify
    """
    from speech_mining.encoders.models import verify_models

    rows = verify_models(_needed(model_dir))
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _show(_table(("card", "file", "state"), [(row.card, row.file, row.state) for row in rows]))
    bad = sum(row.state in ("damaged", "missing") for row in rows)
    if not as_json:
        unrecorded = sum(row.state == "unrecorded" for row in rows)
        typer.echo(f"{len(rows)} files, {bad} damaged or missing, {unrecorded} without a recorded digest.")
    if bad:
        raise typer.Exit(1)


def _needed(model_dir: Path | None) -> Path:
    if model_dir is None:
        raise EncoderError("No model directory is named.", fix="set S2S_MODEL_DIR, or give --model-dir")
    return model_dir


def _told(row: ModelFile) -> tuple[str, ...]:
    few = len(row.languages) <= 3
    languages = ", ".join(row.languages) if few else f"{len(row.languages)} languages"
    return row.card, languages or "–", row.state, row.origin, row.path or row.file


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "state")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


def _show(table: Table) -> None:
    from rich.console import Console

    Console().print(table)
