"""`s2s demo`: the main job on the embedded miniature library, told in the terminal.

What belongs here is the telling. The order of work is in `demo.pipeline`; nothing heavy is imported before the
command runs, since `s2s --help` loads this module.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from resources.settings import Settings
    from speech_mining.lake import Lake
    from speech_mining.quality.summary import Mined, PairSummary, Summary


def demo(
    home: Annotated[
        Path, typer.Option("--home", envvar="S2S_HOME", help="Folder for everything that is made.", file_okay=False)
    ] = Path("s2s_home"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all figures as the last line.")
    ] = False,
) -> None:
    """Mine the embedded miniature library, end to end, and compare what was found with the truth.

    Audiobooks in four languages are read from a LibriVox mirror on loopback, segmented, embedded, indexed, mined for
    translations among each other and in texts, filtered into corpora, checked and reported: the same Dagster assets
    that `make dev` shows. Running it again materializes everything again.

    Examples:
      s2s demo

      s2s demo --home /data/try --json | tail -1 | python -m json.tool
    """
    began = time.perf_counter()
    summary, settings = _materialise(home)
    console = Console(stderr=as_json)
    for table in _tables(summary):
        console.print(table)
    console.print(_totals(summary, settings, time.perf_counter() - began), highlight=False)
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), sort_keys=True))


def _materialise(home: Path) -> tuple[Summary, Settings]:
    """Run every stage in the home's own Dagster instance."""
    from demo.home import prepare_home

    settings = prepare_home(home)
    import dagster as dg

    from demo.home import set_pools
    from demo.pipeline import first_stages, further_stages, release_killed_runs, run_stage
    from s2s_assets.definitions import build

    definitions = build(_impatient(settings))
    with dg.DagsterInstance.get() as instance, _progress() as bar:
        set_pools(instance, settings)
        release_killed_runs(instance)
        task = bar.add_task("catalogue", total=None, now="")

        def tell(line: str) -> None:
            if line:
                bar.update(task, now=line)

        _tell_of_retries(tell)
        known = first_stages(settings)
        for stage in known:
            bar.update(task, description=stage.title)
            run_stage(definitions, instance, stage, tell)
        stages = further_stages(settings, instance)
        bar.update(task, total=len(stages) + len(known), completed=len(known))
        for stage in stages:
            bar.update(task, description=stage.title)
            run_stage(definitions, instance, stage, tell)
            bar.advance(task)
        bar.update(task, description="done", now="")
    return _summary(settings), settings


def _impatient(settings: Settings) -> Settings:
    """The same, but for a person who waits: nothing is tried again for minutes, and Ctrl-C ends a step for good.

    Dagster takes an interrupt of a step that has a retry policy for one more reason to try it again.
    """
    never = {"librivox": {"step_retries": 0}, "memory": {"retries": 0}}
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=changes) for name, changes in never.items()}
    )


def _tell_of_retries(tell: Callable[[str], None]) -> None:
    """Show what the client reports while it waits for a server."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    reports = logging.getLogger("speech_mining.sources")
    reports.setLevel(logging.INFO)
    reports.addHandler(Shown())


def _progress() -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}", justify="left"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[now]}"),
        console=Console(stderr=True),
    )


def _summary(settings: Settings) -> Summary:
    from resources.truth import known_truths
    from speech_mining.lake import Lake
    from speech_mining.quality.summary import summarise

    lake = Lake(settings.lake_url)
    mined = [_with_truth(settings, lake, one) for one in known_truths(settings)]
    return summarise(lake, settings.languages, mined)


def _with_truth(settings: Settings, lake: Lake, mined: Mined) -> Mined:
    """The truth that the settings name, or the miniature library's where its audiobooks were mined.

    The library may be mined from a mirror of the user's own, so its books decide and not its address.
    """
    import polars as pl

    from resources.settings import LIBRARY
    from speech_mining.mining.kinds import SPEECH_TO_SPEECH

    if mined.truth is not None or mined.kind != SPEECH_TO_SPEECH:
        return mined
    truth = pl.read_parquet(LIBRARY / "truth.parquet")
    known = set(truth["source_audiobook"]) | set(truth["target_audiobook"])
    there = {book for language in settings.languages for book in lake.keys("raw_audio", language)}
    return replace(mined, truth=truth) if known & there else mined


def _tables(summary: Summary) -> list[Table]:
    tables = [_table("Speech-to-speech corpora", summary.language_pairs)]
    return tables + ([_table("Speech-to-text corpora", summary.with_text)] if summary.with_text else [])


def _table(title: str, pairs: Sequence[PairSummary]) -> Table:
    table = Table(title=title)
    for column in ("pair", "threshold", "pairs", "source min", "target min", "precision", "recall"):
        table.add_column(column, justify="left" if column == "pair" else "right")
    for pair in pairs:
        compared = pair.comparison
        table.add_row(
            pair.pair,
            f"{pair.threshold:.2f}",
            str(pair.pairs),
            *("text" if hours is None else f"{hours * 60:.1f}" for hours in (pair.source_hours, pair.target_hours)),
            f"{compared.precision:.3f}" if compared else "",
            f"{compared.recall:.3f}" if compared else "",
        )
    return table


def _totals(summary: Summary, settings: Settings, seconds: float) -> str:
    from speech_mining.quality.summary import precision_of, recall_of

    lines = [
        f"{summary.audiobooks} audiobooks, {summary.recordings} recordings, {summary.audio_hours * 60:.1f} minutes of "
        f"audio, {summary.segments} candidate segments, {summary.pairs} pairs in {seconds:.0f} s."
    ]
    if summary.precision is not None and summary.recall is not None:
        lines.append(f"Against the known truth: precision {summary.precision:.3f}, recall {summary.recall:.3f}.")
    precision, recall = precision_of(summary.with_text), recall_of(summary.with_text)
    if precision is not None and recall is not None:
        mined = sum(pair.pairs for pair in summary.with_text)
        told = f"Speech with {summary.sentences} sentences of text: {mined} pairs"
        lines.append(f"{told}, precision {precision:.3f}, recall {recall:.3f}.")
    lines.append(f"Everything is in {settings.home}; `make dev` opens it in the Dagster UI.")
    return "\n".join(lines)
