"""`s2s gc`: what nothing refers to, and, when it is asked for, its removal.

What belongs here is the command's arguments, what Dagster knows, and the telling; what may go is decided in
`speech_mining.upkeep.collection`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resources.settings import Settings, load_settings

if TYPE_CHECKING:
    import dagster as dg

    from speech_mining.upkeep.collection import Home, Kept, Leftover

SHOWN = 200
"""Rows of a table on a screen; `--json` has all."""
_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this, nothing is removed.")] = False,
    unused: Annotated[
        bool,
        typer.Option("--unused-partitions", help="Also what the settings in force do not ask for any more."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Folder of the lake and of s2s.toml.", file_okay=False, show_default="S2S_HOME"),
    ] = None,
) -> None:
    """List what nothing refers to, with its size and the reason; with --delete, remove it.

    Generations and staging of killed writers, downloads of books that are whole, states and blocks of searches that are
    over, copies of what an object store has no more, what the quarantine holds beyond its budget, logs of runs that
    Dagster has forgotten. What a process is at is left alone. With --unused-partitions also languages, audiobooks,
    pairs and students that the settings or the catalogue do not name any more: look at the list first.

    [bold]Examples[/]

      s2s gc

      s2s gc --delete

      s2s gc --unused-partitions --json
    """
    from resources.record import busy, instance_of
    from resources.storage import Storage
    from speech_mining.upkeep.collection import Wish, collect

    settings = load_settings(**({} if home is None else {"home": home}))
    with ExitStack() as opened:
        found = instance_of(settings)
        instance = None if found is None else opened.enter_context(found)
        storage = Storage.of(settings)
        at_work = frozenset(busy(instance)) if instance is not None else frozenset()
        wish = Wish(_kept(settings) if unused else None, at_work)
        leftovers = collect(storage.lake, _home(storage, settings), wish)
        leftovers += _logs(instance) if instance is not None else ()
        removed = [each for each in leftovers if each.remove()] if delete else []
    if as_json:
        typer.echo(json.dumps(_as_json(leftovers, removed), sort_keys=True))
    else:
        _tell(leftovers, removed, delete)


def _kept(settings: Settings) -> Kept:
    from speech_mining.mining.kinds import KINDS
    from speech_mining.upkeep.collection import Kept

    return Kept(
        frozenset(settings.languages),
        frozenset(settings.text_languages),
        {kind.name: frozenset(settings.pairs_of(kind.name)) for kind in KINDS},
        frozenset(settings.students),
    )


def _home(storage: Any, settings: Settings) -> Home:
    from speech_mining.upkeep.collection import Home

    return Home(
        downloads=Path(storage.scratch),
        scratch=storage.scratch_of(),
        training=storage.workshop,
        aside_bytes=settings.storage.quarantine_mb * 2**20,
    )


def _logs(instance: dg.DagsterInstance) -> Iterator[Leftover]:
    """What steps printed in runs that Dagster has forgotten; of an instance whose logs are files of this machine."""
    from speech_mining.upkeep.collection import Leftover, folder_bytes

    folder = Path(instance.storage_directory())
    for run in sorted(folder.glob("*")):
        if run.is_dir() and _RUN.fullmatch(run.name) and not instance.has_run(run.name):
            yield Leftover(
                "log",
                str(run),
                folder_bytes(run),
                "Dagster has forgotten the run",
                lambda run=run: _removed(run),  # type: ignore[misc]
            )


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _as_json(leftovers: Sequence[Leftover], removed: Sequence[Leftover]) -> dict[str, Any]:
    gone = {id(each) for each in removed}
    return {
        "leftovers": [{**each.as_dict(), "removed": id(each) in gone} for each in leftovers],
        "bytes": sum(each.bytes for each in leftovers),
        "bytes_removed": sum(each.bytes for each in removed),
    }


def _tell(leftovers: Sequence[Leftover], removed: Sequence[Leftover], delete: bool) -> None:
    console = Console()
    if leftovers:
        console.print(_table(leftovers[:SHOWN]))
    total = sum(each.bytes for each in leftovers)
    done = sum(each.bytes for each in removed)
    if delete:
        kept = len(leftovers) - len(removed)
        left = f"; {kept} are in use and stay" if kept else ""
        console.print(f"{len(removed)} removed, {done / 1e6:.1f} MB{left}.", highlight=False)
    else:
        hint = " `s2s gc --delete` removes it." if leftovers else ""
        console.print(f"{len(leftovers)} leftovers, {total / 1e6:.1f} MB.{hint}", highlight=False)


def _table(leftovers: Sequence[Leftover]) -> Table:
    table = Table()
    for heading in ("kind", "what", "MB", "why it may go"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "MB" else "left")
    for each in leftovers:
        table.add_row(each.kind, escape(each.what), f"{each.bytes / 1e6:.3f}", escape(each.reason))
    return table
