"""`s2s listen`: the listening room of a pair of languages, on this machine.

What belongs here is the command's arguments, and putting a threshold into `s2s.toml`; the room is
`speech_mining.listening`.
"""

from __future__ import annotations

import getpass
import os
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from resources.judgements import judgements_path
from resources.settings import FILE, Settings, home, load_settings
from speech_mining.atomic import replacing
from speech_mining.errors import SettingsError

if TYPE_CHECKING:
    from speech_mining.listening.room import Room

THRESHOLDS = {"s2s": ("mining", "threshold"), "t2t": ("text", "text_threshold")}
"""Kind → table and name of its threshold in s2s.toml; of the others it is `OTHER_THRESHOLD`."""
OTHER_THRESHOLD = ("text", "threshold")


def listen(
    pair: Annotated[str, typer.Argument(help="Languages, as in deu-eng.")],
    kind: Annotated[str, typer.Option("--kind", help="s2s, s2t, t2s or t2t.")] = "s2s",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1; 0: a free one.")] = 0,
    judge: Annotated[str, typer.Option("--judge", help="Your name, as it is kept with judgements.")] = "",
    goal: Annotated[int, typer.Option("--goal", min=1, help="How many pairs you mean to judge.")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another one draws other pairs.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
) -> None:
    """Listen to mined pairs in the browser and judge them: right, partly, wrong.

    The room is served on 127.0.0.1 alone, to whoever has the address that is printed. Each judgement is kept in
    judgements/ in the home before the next pair comes; Ctrl-C ends it, and the same command goes on.

    [bold]Examples[/]

      s2s listen deu-eng --judge ada --open

      s2s listen deu-fra --kind s2t --goal 50
    """
    from speech_mining.listening.server import Door, bind, serve

    settings = load_settings()
    room = listening_room(settings, pair, kind, judge or getpass.getuser(), goal=goal, seed=seed)
    bound = bind(port)
    door = Door(bound.getsockname()[1])
    console = Console()
    console.print(f"{len(room.order)} pairs of {pair}, judged by {room.judge}. Open", highlight=False, markup=False)
    typer.echo(door.address)
    console.print(f"Judgements are kept in {room.journal.path}. Ctrl-C ends it.", highlight=False, markup=False)
    if open_browser:
        webbrowser.open(door.address)
    serve(room, door, bound)


def listening_room(settings: Settings, pair: str, kind: str, judge: str, *, goal: int = 100, seed: int = 0) -> Room:
    """The room of a pair of languages.

    Raises:
        SettingsError: an unknown kind, a pair that is not mined, or a judge without a name.
        LakeError: the pair is not mined yet.
    """
    from resources.storage import Storage
    from speech_mining.listening.candidates import candidates, kind_named
    from speech_mining.listening.judgements import MOST_JUDGE_LETTERS, Journal
    from speech_mining.listening.room import Room

    found = kind_named(kind)
    known = settings.pairs_of(kind)
    if pair not in known:
        raise SettingsError(f"{pair!r} is not mined as {kind}.", expected=f"one of {', '.join(known) or 'none'}")
    if not 0 < len(judge) <= MOST_JUDGE_LETTERS:
        raise SettingsError(f"The judge's name has {len(judge)} letters.", expected=f"1 to {MOST_JUDGE_LETTERS}")
    lake = Storage.of(settings).lake
    journal = Journal(judgements_path(settings, kind, pair))
    return Room(candidates(lake, found, pair), journal, judge, lake, seed, goal, adopter(kind))


def adopter(kind: str) -> Callable[[float], str]:
    """What puts a threshold of a kind into the home's s2s.toml."""
    table, name = THRESHOLDS.get(kind, OTHER_THRESHOLD)

    def adopt(threshold: float) -> str:
        told = f"{table}.{name} = {threshold:g}"
        _refuse_overridden(table, name)
        overrides: dict[str, Any] = {table: {name: threshold}}
        load_settings(**overrides)  # refuses what could not be loaded again
        _write_setting(home() / FILE, table, name, threshold)
        return (
            f"{told} is in {home() / FILE}. It holds for every pair of {kind}: materialize {kind}_corpus to cut the "
            "corpora there; a running Dagster takes it after its code location is loaded again."
        )

    return adopt


def _refuse_overridden(table: str, name: str) -> None:
    variable = f"S2S_{table}__{name}".upper()
    if variable in {key.upper() for key in os.environ}:
        raise SettingsError(
            f"{variable} is set, and wins over {FILE}.",
            fix=f"unset it, or set it to the threshold; nothing was written to {FILE}",
        )


def _write_setting(path: Path, table: str, name: str, value: float) -> None:
    """Set a number in a TOML file; all else in it stays as it is written, comments too."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(path.read_text("utf-8") if path.exists() else "")
        document.setdefault(table, tomlkit.table())[name] = value
    except (TOMLKitError, TypeError) as problem:
        raise SettingsError(
            f"{path} cannot be changed: {problem}.", fix=f"write {table}.{name} = {value} there"
        ) from None
    try:
        with replacing(path) as part:
            part.write_text(tomlkit.dumps(document), "utf-8")
    except OSError as problem:
        raise SettingsError(
            f"{path} cannot be written: {problem}.", fix=f"write {table}.{name} = {value} there"
        ) from None
