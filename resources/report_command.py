"""`s2s report`: the lake in one HTML file, made now from what is there.

What belongs here is the command's arguments; the page is `speech_mining.report`.
"""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resources.judgements import known_judgements
from resources.settings import Settings, load_settings
from speech_mining.atomic import replacing
from speech_mining.errors import SettingsError

if TYPE_CHECKING:
    from speech_mining.report import ReportPlan


def report(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file.", dir_okay=False, show_default="report.html in the home"),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Pairs to hear, a pair of languages.")] = 8,
    audio_mb: Annotated[float, typer.Option("--audio-mb", min=0, help="Most sound in the file, MB.")] = 8.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another one draws other samples.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Tell of every corpus in one HTML file: hours by threshold, and pairs to listen to. It needs no network.

    [bold]Examples[/]

      s2s report --open

      s2s report -o report.html --samples 20 --audio-mb 30
    """
    from speech_mining.report import ReportPlan

    settings = load_settings()
    path = (output or settings.home / "report.html").absolute()
    page = lake_report(settings, ReportPlan(samples, seed, round(audio_mb * 1e6)))
    try:
        with replacing(path) as part:
            part.write_text(page, "utf-8")
    except OSError as problem:
        raise SettingsError(
            f"The report was not written: {problem.strerror}.", expected=f"to write {len(page)} bytes to {path}"
        ) from problem
    typer.echo(str(path))
    if open_browser:
        webbrowser.open(path.as_uri())


def lake_report(settings: Settings, plan: ReportPlan | None = None) -> str:
    """The report of the lake that the settings name."""
    from resources.storage import Storage
    from resources.transcripts import known_transcripts
    from resources.truth import known_truths
    from speech_mining.mining.kinds import KINDS
    from speech_mining.quality.summary import Mined, summarise
    from speech_mining.report import report_html

    lake = Storage.of(settings).lake
    known = {one.kind: one for one in known_truths(settings)}
    mined = [known.get(kind) or Mined(kind, settings.pairs_of(kind.name)) for kind in KINDS]
    summary = summarise(lake, settings.languages, mined)
    transcripts, judged = known_transcripts(settings), known_judgements(settings)
    return report_html(lake, summary, plan, transcripts=transcripts, judged=judged)
