"""`s2s export`: a corpus of the lake in the format that a trainer reads.

What belongs here is the command's arguments, its bar and its table. The formats are `speech_mining.corpora.formats`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from resources.settings import load_settings
from resources.storage import Storage
from speech_mining.errors import SettingsError
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.progress import Progress as Told

if TYPE_CHECKING:
    from speech_mining.corpora.card import Lineage


def export(
    pair: Annotated[str, typer.Argument(metavar="PAIR", help="Languages, source first: deu-eng.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format", "-f", help="hugging-face, lhotse-shar, web-dataset, fairseq, nemo or links (no audio)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder that is not there yet, or an earlier export.")],
    kind: Annotated[str, typer.Option("--kind", help="s2s, s2t, t2s or t2t: speech and text, source first.")] = "s2s",
    dev: Annotated[
        float | None, typer.Option("--dev", help="Share held out for dev.", show_default="that of the settings")
    ] = None,
    test: Annotated[
        float | None, typer.Option("--test", help="Share held out for test.", show_default="that of the settings")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Folder of the lake and of s2s.toml.", file_okay=False, show_default="S2S_HOME"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lineage as one line of JSON.")] = False,
) -> None:
    """Write a corpus with its audio, its splits and a card, for a trainer to read.

    Ctrl-C ends it, or a full disk does; the same command goes on where it stopped. The folder appears when it is whole.
    No audiobook and no reader is in two splits, here or in the export of another pair.

    [bold]Examples[/]

      s2s export deu-eng --format hugging-face --out exports/deu-eng

      s2s export deu-eng --kind s2t --format fairseq --out exports/st --dev 0.02 --test 0.02
    """
    from speech_mining.corpora.formats import export_to, exporter
    from speech_mining.corpora.material import plan
    from speech_mining.corpora.splits import Shares

    settings = load_settings(**({} if home is None else {"home": home}))
    exporter(format_)
    asked = settings.exports
    shares = Shares(asked.dev_share if dev is None else dev, asked.test_share if test is None else test)
    planned = plan(Storage.of(settings).lake, kind_named(kind), checked_pair(pair), shares)
    with bar("recordings") as told:
        anew = export_to(planned, format_, out, workers=settings.pools.cpu, progress=told)
    if as_json:
        typer.echo(json.dumps(planned.lineage.as_dict(), sort_keys=True))
        return
    console = Console()
    console.print(split_table(planned.lineage, f"{kind} {pair}"))
    console.print(f"{'Written to' if anew else 'Nothing has changed in'} {out}", markup=False, soft_wrap=True)


def kind_named(name: str) -> Kind:
    """The kind that a user names.

    Raises:
        SettingsError: there is none.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise SettingsError(f"There is no kind {name!r}.", expected=f"one of {', '.join(kind.name for kind in KINDS)}")


def checked_pair(pair: str) -> str:
    """A pair as the lake names it.

    Raises:
        SettingsError: it is not two codes.
    """
    source, _, target = pair.partition("-")
    if not (len(source) == len(target) == 3 and (source + target).isalpha() and (source + target).isascii()):
        raise SettingsError(f"{pair!r} is no language pair.", expected="two ISO 639-3 codes, as in deu-eng")
    return pair


def split_table(lineage: Lineage, title: str) -> Table:
    """Rows and hours of each split."""
    sides = sorted({side for hours in lineage.hours.values() for side in hours})
    table = Table(title=title)
    table.add_column("split")
    for name in ("pairs", *(f"{side} hours" for side in sides)):
        table.add_column(name, justify="right")
    for split, count in lineage.counts.items():
        hours = lineage.hours.get(split, {})
        table.add_row(split, f"{count:,}", *(f"{hours[side]:.4f}" if side in hours else "" for side in sides))
    return table


@contextmanager
def bar(name: str) -> Iterator[Told]:
    """A bar on stderr, where a person looks at it."""
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bars:
        task: Any = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
