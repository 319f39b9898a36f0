"""`s2s reconstruct`: a corpus again out of a table of links, fetched from where the recordings lie.

What belongs here is the command; the work is `speech_mining.corpora.reconstruct` and the exporters.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from resources.export_command import bar, split_table
from resources.librivox import LibriVox
from resources.settings import load_settings


def reconstruct(
    links: Annotated[Path, typer.Argument(metavar="links.tsv.gz", help="As written by s2s export --format links.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder that is not there yet, or an earlier export.")],
    format_: Annotated[
        str, typer.Option("--format", "-f", help="hugging-face, lhotse-shar, web-dataset, fairseq or nemo.")
    ] = "web-dataset",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the recordings beside the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came and what did not as JSON.")] = False,
) -> None:
    """Fetch the recordings that a table of links names, check them, and cut the pairs out of them again.

    Recordings arrive in `.<folder>.recordings`; the same command goes on where it stopped. What is gone, or is another
    recording today, is named with its reason, and its pairs are left out: then the exit code is 1.

    [bold]Examples[/]

      s2s reconstruct links.tsv.gz --out deu-eng --format hugging-face
    """
    from speech_mining.corpora.formats import export_to, exporter
    from speech_mining.corpora.reconstruct import fetch, plan_again, read_links
    from speech_mining.sources.disk import told_when_full

    settings = load_settings()
    exporter(format_)
    table = read_links(links)
    recordings = out.absolute().with_name(f".{out.absolute().name}.recordings")
    with LibriVox.of(settings).session() as session, bar("fetched") as told, told_when_full("A recording"):
        fetched = fetch(session.client, table, recordings, progress=told)
    planned = plan_again(table, fetched)
    with bar("cut") as told:
        export_to(planned, format_, out, workers=settings.pools.cpu, progress=told)
    rejected = fetched.rejections.to_dicts()
    if not keep and not rejected:
        shutil.rmtree(recordings, ignore_errors=True)
    if as_json:
        typer.echo(json.dumps({"lineage": planned.lineage.as_dict(), "rejections": rejected}, sort_keys=True))
    else:
        Console().print(split_table(planned.lineage, f"{table.kind.name} {table.pair}"))
        Console(stderr=True).print(_rejections(rejected)) if rejected else None
    if rejected:
        raise typer.Exit(1)


def _rejections(rejected: list[dict[str, str]]) -> Table:
    table = Table("recording", "reason", "detail", title="Recordings that could not be had")
    for row in rejected:
        table.add_row(row["url"], row["reason"], row["detail"])
    return table
