"""`s2s import-stopes`: a configuration of stopes' mining in our settings, and what in it has no counterpart.

What belongs here is the command, and holding what was found against the settings. What a key means is in
`speech_mining.stopes.counterparts`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from rich.console import Console
from rich.table import Table

from resources.settings import Settings
from speech_mining.atomic import replacing
from speech_mining.errors import SettingsError
from speech_mining.stopes.configs import read_config
from speech_mining.stopes.counterparts import Imported, Told, counterparts
from speech_mining.stopes.toml_text import toml_text


def import_stopes(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A configuration of global or speech mining.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As on the command line of stopes.")
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="NAME=CODE", help="ISO 639-3 of a name in the configuration; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="s2s.toml", help="Where the settings go; a file that is not there yet."),
    ] = None,
) -> None:
    """Turn a configuration of stopes' mining into settings, and tell what has no counterpart, and why.

    Prints the settings, the `s2s mine` that uses existing embeddings in place, and a table of every key. Nothing is
    written without --out, and nothing is filled in that the configuration does not say.

    [bold]Examples[/]

      s2s import-stopes config_logs/global_mining.yaml

      s2s import-stopes conf/global_mining.yaml src_lang=deu tgt_lang=eng data=mine --out s2s.toml

      s2s import-stopes conf/preset/demo_speechmine.yaml --language frA=fra src_lang=frA tgt_lang=fr
    """
    found = counterparts(read_config(config, overrides or ()), _codes(language or ()))
    _check(found)
    text = toml_text(found.settings)
    if out is not None:
        _write(text, out)
    typer.echo(text)
    if found.words:
        typer.echo(f"# pairs of the embeddings that are there:\n# {found.command}\n")
    console = Console(width=None if Console().is_terminal else 160)
    for title, rows, middle in (
        ("Carried over", [one for one in found.told if one.became], "is here"),
        ("Has no counterpart", found.left, ""),
    ):
        console.print(_table(title, rows, middle))


def _codes(words: tuple[str, ...] | list[str]) -> dict[str, str]:
    codes = dict(word.partition("=")[::2] for word in words)
    for name, code in codes.items():
        if not re.fullmatch("[a-z]{3}", code):
            raise SettingsError(f"--language {name}={code} gives no code.", expected="NAME=CODE, such as frA=fra")
    return codes


class _AsWritten(Settings):
    """Settings of which neither the environment nor a file of this machine is a part."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, and nothing else."""
        return (init_settings,)


def _check(found: Imported) -> None:
    """Hold the settings against their schema."""
    try:
        _AsWritten(**found.settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "the settings together"
        keys = [told.key for told in found.told if told.became == name]
        raise SettingsError(
            f"The configuration's {', '.join(keys) or 'values'} cannot be our setting {name}: {first['msg']}.",
            cause=f"found {first.get('input')!r}",
            fix="give another value for the key on the command line, KEY=VALUE",
        ) from None


def _write(text: str, out: Path) -> None:
    if out.exists():
        raise SettingsError(f"{out} is there already.", expected="the name of a new file", fix="move it away first")
    try:
        with replacing(out) as part:
            part.write_text(text, "utf-8")
    except OSError as error:
        raise SettingsError(f"{out} cannot be written ({error.strerror}).") from error


def _table(title: str, rows: list[Told], middle: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("key", "value", *([middle] if middle else []), "how" if middle else "because"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.key, row.written, *([row.became] if middle else []), row.why)
    return table
