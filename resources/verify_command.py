"""`s2s verify`: is the lake what was written, is it made of what is there, does Dagster remember it so.

What belongs here is the command's arguments and the telling; what is looked at is `speech_mining.upkeep`, what Dagster
remembers `resources.record`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from resources.settings import Settings, load_settings
from speech_mining.errors import SettingsError

if TYPE_CHECKING:
    import dagster as dg

    from speech_mining.lake import Lake
    from speech_mining.upkeep.findings import Finding
    from speech_mining.upkeep.verification import Verified, Wish

SHOWN = 200
"""Findings of a table on a screen; `--json` has all."""


@dataclass(frozen=True)
class _Mended:
    """A finding, and what was done about it; nothing: it is left."""

    finding: Finding
    done: str = ""


def verify(
    layers: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="Only this layer; may be given again.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without a person.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Names and sizes only; no file is read.")] = False,
    allowed: Annotated[
        list[str] | None, typer.Option("--allow", help="A kind of finding that does not count, such as behind.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="That read; 0: twice the cores, at most 8.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Folder of the lake and of s2s.toml.", file_okay=False, show_default="S2S_HOME"),
    ] = None,
) -> None:
    """Walk the whole lake and tell what is wrong with it, and what mends it.

    Every file is held against the hash it was written with, every table against its columns, every partition against
    what it was made of, and Dagster's record against the files. Assets may run meanwhile. With --repair, what killed
    runs left is removed, a lost CURRENT is written again, and what is damaged is moved to the quarantine, so that it
    is missing and can be made again; nothing that was written is deleted. Exit code 0: nothing is left to mend; 1: it
    is.

    [bold]Examples[/]

      s2s verify --quick

      s2s verify --repair --allow behind

      s2s verify --layer raw_audio --json
    """
    from resources.storage import Storage

    settings = load_settings(**({} if home is None else {"home": home}))
    allow = frozenset(allowed or ())
    _refuse_unknown(allow)
    began = time.perf_counter()
    with ExitStack() as opened:
        instance = _instance(settings, opened)
        lake, wish = Storage.of(settings).lake, _wish(layers, quick, threads)
        verified, findings = _look(lake, wish, instance)
        mended = [_mend(lake, instance, finding) if repair else _Mended(finding) for finding in findings]
        if any(each.done for each in mended):  # what was moved away leaves what it was made into without a source
            findings = _look(lake, wish, instance, again=True)[1]
            mended = [each for each in mended if each.done] + [_Mended(finding) for finding in findings]
    seconds = time.perf_counter() - began
    left = [each for each in mended if not each.done and each.finding.kind not in allow]
    told = _as_json(verified, mended, seconds, left)
    typer.echo(json.dumps(told, sort_keys=True)) if as_json else _tell(told, mended, compared=instance is not None)
    raise typer.Exit(1 if left else 0)


def _refuse_unknown(kinds: frozenset[str]) -> None:
    from speech_mining.upkeep.findings import KINDS

    unknown = sorted(kinds - set(KINDS))
    if unknown:
        raise SettingsError(f"There is no kind of finding {unknown[0]!r}.", expected=f"one of {', '.join(KINDS)}")


def _instance(settings: Settings, opened: ExitStack) -> dg.DagsterInstance | None:
    from resources.record import instance_of

    instance = instance_of(settings)
    return None if instance is None else opened.enter_context(instance)


def _wish(layers: Sequence[str] | None, quick: bool, threads: int) -> Wish:
    from speech_mining.upkeep.verification import Wish

    chosen = {"layers": frozenset(layers or ()), "quick": quick}
    return Wish(**chosen, threads=threads) if threads else Wish(**chosen)  # type: ignore[arg-type]


def _look(
    lake: Lake, wish: Wish, instance: dg.DagsterInstance | None, *, again: bool = False
) -> tuple[Verified, list[Finding]]:
    """Everything that is wrong; the second look after repairs reads no byte again."""
    from dataclasses import replace

    from resources.record import disagreements
    from speech_mining.upkeep.places import look
    from speech_mining.upkeep.verification import verify as verified

    with _Bar(again or wish.quick) as tell:
        found = verified(lake, replace(wish, quick=True) if again else wish, tell)
    findings = list(found.findings)
    if instance is not None:
        seen = [(place.layer, place.key) for place in look(lake).places if place.has_current]
        findings += disagreements(instance, lake, seen, wish.layers)
    return found, findings


class _Bar:
    """A bar that shows bytes and bytes a second on stderr, for as long as bytes are read."""

    def __init__(self, hidden: bool) -> None:
        columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._shown = Progress(*columns, console=Console(stderr=True), disable=hidden)

    def __enter__(self) -> Callable[[int, int], None]:
        self._shown.start()
        task = self._shown.add_task("", total=None)
        return lambda done, total: self._shown.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._shown.stop()


def _mend(lake: Lake, instance: dg.DagsterInstance | None, finding: Finding) -> _Mended:
    from resources.record import record
    from speech_mining.upkeep.verification import repair

    if finding.act == "record":
        return _Mended(finding, record(instance, lake, finding) if instance is not None else "")
    return _Mended(finding, repair(lake, finding))


def _as_json(verified: Verified, mended: Sequence[_Mended], seconds: float, left: Sequence[_Mended]) -> dict[str, Any]:
    return {
        "partitions": verified.partitions,
        "bytes": verified.bytes_listed,
        "bytes_read": verified.bytes_read,
        "gb_per_s": round(verified.bytes_read / 1e9 / max(verified.read_s, 1e-9), 3),
        "seconds": round(seconds, 3),
        "findings": [{**each.finding.as_dict(), "done": each.done} for each in mended],
        "left": len(left),
    }


def _tell(told: dict[str, Any], mended: Sequence[_Mended], *, compared: bool) -> None:
    console = Console()
    if mended:
        console.print(_table(mended[:SHOWN]))
    gigabytes = told["bytes_read"] / 1e9
    read = f"{gigabytes:.3f} GB read at {told['gb_per_s']:.2f} GB/s" if gigabytes else "no file was read"
    record = "held against Dagster's record" if compared else "no Dagster instance to compare with"
    console.print(
        f"{told['partitions']} partitions, {told['bytes'] / 1e9:.3f} GB, {read}, {record}, {told['seconds']:.1f} s.",
        highlight=False,
    )
    console.print(_verdict(mended), highlight=False)


def _verdict(mended: Sequence[_Mended]) -> str:
    by_kind = Counter(each.finding.kind for each in mended if not each.done)
    done = sum(1 for each in mended if each.done)
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(by_kind.items()))
    mendable = any(each.finding.act for each in mended if not each.done)
    hint = " --repair mends some of it." if mendable else ""
    left = f"[yellow]Left: {kinds}.[/]{hint}" if by_kind else "[green]Nothing is wrong.[/]"
    return f"{done} mended. {left}" if done else left


def _table(mended: Sequence[_Mended]) -> Table:
    table = Table()
    for heading in ("what", "where", "found", "consequence", "remedy"):
        table.add_column(heading, overflow="fold")
    for each in mended:
        finding = each.finding
        remedy = f"[green]done:[/] {escape(each.done)}" if each.done else escape(finding.remedy)
        table.add_row(finding.kind, escape(finding.place), escape(finding.found), escape(finding.consequence), remedy)
    return table
