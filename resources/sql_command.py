"""`s2s sql`: any question to the whole lake.

What belongs here is the command's arguments and how answers are shown. The tables, and that nothing can be written, are
in `speech_mining.quality.catalogue`.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resources.run_history import runs_of_home
from resources.settings import Settings, load_settings
from resources.storage import Storage
from speech_mining.atomic import replacing
from speech_mining.errors import SettingsError
from speech_mining.quality.catalogue import TABLES, ask, question, questions, tables_of
from speech_mining.records import DESCRIPTIONS

if TYPE_CHECKING:
    import polars as pl

Format = Literal["table", "csv", "json", "parquet"]
SHOWN = 100
"""Rows of a table on a screen, where --limit says nothing; files hold all."""


def sql(
    query: Annotated[
        str | None, typer.Argument(help="SQL, a file that ends in .sql, or - for standard input.", show_default=False)
    ] = None,
    named: Annotated[
        str | None, typer.Option("--question", "-q", help="One of the ready questions instead.", show_default=False)
    ] = None,
    written: Annotated[
        Format | None, typer.Option("--format", "-f", help="Default: table, or the ending of --out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the answer here.", dir_okay=False, show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help="Most rows.", show_default="100 on a screen, else all")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Show every table and its columns.")] = False,
    listed: Annotated[bool, typer.Option("--questions", help="Show the ready questions.")] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Folder of the lake and of s2s.toml.", file_okay=False, show_default="S2S_HOME"),
    ] = None,
) -> None:
    """Ask the whole lake in SQL: segments, pairs, corpora, rejections, hours, runs.

    DuckDB answers, from the files of the lake as they are. Nothing is locked and nothing can be written, so it may run
    beside assets that are being made, as often as wanted.

    [bold]Examples[/]

      s2s sql "SELECT language, count(*) FROM segments GROUP BY language"

      s2s sql --question yield_by_audiobook --format csv --out yield.csv

      s2s sql --schema
    """
    if schema or listed:
        Console().print(_schema() if schema else _questions())
        return
    text = _query(query, named)
    settings = load_settings(**({} if home is None else {"home": home}))
    form = _format(written, out)
    most = SHOWN if limit is None and form == "table" and out is None else limit
    answer = ask(
        Storage.of(settings).lake, text, limit=None if most is None else most + 1, frames=_frames(text, settings)
    )
    shown = answer if most is None else answer.head(most)
    _write(shown, form, out)
    if most is not None and answer.height > most:
        Console(stderr=True).print(f"[yellow]There is more than these {most:,} rows.[/] --limit shows more.")


def _query(query: str | None, named: str | None) -> str:
    if (query is None) == (named is None):
        raise SettingsError(
            "A query and a ready question were given." if query else "Nothing was asked.",
            expected="SQL, a file that ends in .sql, - for standard input, or --question NAME",
            fix="`s2s sql --schema` shows the tables, `s2s sql --questions` what may be asked by name",
        )
    if named is not None:
        return question(named)
    if query == "-":
        return sys.stdin.read()
    return _from_file(Path(query)) if query and query.strip().endswith(".sql") else str(query)


def _from_file(path: Path) -> str:
    if not path.is_file():
        raise SettingsError(f"There is no file {path}.", expected="SQL, or a file that ends in .sql")
    return path.read_text("utf-8")


def _format(written: Format | None, out: Path | None) -> Format:
    by_ending: dict[str, Format] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
    form = written or (by_ending.get(out.suffix, "table") if out else "table")
    if form == "parquet" and out is None:
        raise SettingsError("Parquet is not for a screen.", fix="say where to write it with --out FILE")
    return form


def _frames(text: str, settings: Settings) -> dict[str, pl.DataFrame]:
    """What does not lie in the lake; Dagster's log is opened only where it is asked for."""
    return {"runs": runs_of_home(settings.home)} if "runs" in tables_of(text) else {}


def _write(answer: pl.DataFrame, form: Format, out: Path | None) -> None:
    if out is None and form == "table":
        Console().print(_table(answer))
    elif out is None:
        typer.echo(_text(answer, form), nl=False)
    else:
        with replacing(out.absolute()) as part:
            answer.write_parquet(part) if form == "parquet" else part.write_text(_text(answer, form), "utf-8")


def _text(answer: pl.DataFrame, form: Format) -> str:
    if form == "table":
        page = io.StringIO()
        Console(file=page, width=200).print(_table(answer))
        return page.getvalue()
    return _flat(answer).write_csv() if form == "csv" else answer.write_json() + "\n"


def _flat(answer: pl.DataFrame) -> pl.DataFrame:
    """Lists as text in brackets, since CSV has none."""
    import polars as pl

    nested = [name for name, dtype in answer.schema.items() if dtype.is_nested()]
    return answer.with_columns(
        pl.col(name).map_elements(lambda value: str(list(value)), return_dtype=pl.String()) for name in nested
    )


def _table(answer: pl.DataFrame) -> Table:
    table = Table(caption=f"{answer.height:,} rows")
    for name, dtype in answer.schema.items():
        table.add_column(escape(name), justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in answer.iter_rows():
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "[dim]null[/]"
    return escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def _schema() -> Table:
    table = Table(title="Tables of the lake")
    for heading in ("table", "column", "type", "what it is"):
        table.add_column(heading, overflow="fold")
    for name, described in TABLES.items():
        table.add_section()
        table.add_row(f"[bold]{name}[/]", "", "", f"[bold]{described.about}[/]")
        for column, dtype in described.columns.items():
            table.add_row("", column, str(dtype), DESCRIPTIONS.get(column, ""))
    return table


def _questions() -> Table:
    table = Table(title="Ready questions")
    table.add_column("name")
    table.add_column("what it answers", overflow="fold")
    for name, text in questions().items():
        table.add_row(name, text.splitlines()[0].removeprefix("-- "))
    return table
