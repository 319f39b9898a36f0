"""`s2s settings`: what is in force, and where each value came from."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from resources.settings import Settings, home, load_settings, origins


def settings(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Show every setting in force and where its value came from.

    Settings live in s2s.toml in the home; environment variables that start with S2S_ override them.

    Examples:
      s2s settings

      S2S_MINING__THRESHOLD=1.07 s2s settings --json
    """
    told = origins(load_settings())
    if as_json:
        typer.echo(json.dumps({name: {"value": value, "from": origin} for name, (value, origin) in told.items()}))
        return
    table = Table(title=f"Settings in force (home: {home()})")
    for column in ("setting", "value", "from", "what it is"):
        table.add_column(column, overflow="fold")
    for name, (value, origin) in told.items():
        field = Settings.model_fields.get(name)
        table.add_row(name, value, origin, (field.description or "") if field else "")
    Console().print(table)
