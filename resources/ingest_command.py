"""`s2s ingest`: audiobooks from their source into the lake, outside Dagster.

What belongs here is the command's arguments, its bars and its table. Each step is the one that the assets take, in the
same lake: what is here already, the assets leave alone, and the other way round.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resources.librivox import LibriVox, wish_of
from resources.segmentation import segmentation_of
from resources.settings import Settings, load_settings
from resources.storage import Storage
from speech_mining.errors import SettingsError, SpeechMiningError

if TYPE_CHECKING:
    from rich.progress import Progress

    from resources.librivox import LibriVoxSession
    from speech_mining.sources.book import Book, Brought

BYTES_PER_S = 8000
"""What is expected before a server says more: LibriVox's recordings have 64 kbit/s."""


class _StoppedError(Exception):
    """The person at the terminal wants it to end."""


@dataclass
class _Tally:
    """What became of a language's audiobooks."""

    audiobooks: int = 0
    left_alone: int = 0
    failed: int = 0
    recordings: int = 0
    rejected: int = 0
    downloads: int = 0
    segments: int = 0


@dataclass
class _Work:
    """An ingestion under way."""

    storage: Storage
    settings: Settings
    session: LibriVoxSession
    bars: _Bars
    segment: bool
    stop: threading.Event = field(default_factory=threading.Event)


def ingest(
    language: Annotated[
        list[str] | None,
        typer.Option("--language", "-l", help="ISO 639-3, may be repeated.", show_default="those of the settings"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many audiobooks a language.", show_default="all")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Folder of the lake and of s2s.toml.", file_okay=False, show_default="S2S_HOME"),
    ] = None,
    catalogue: Annotated[
        str | None,
        typer.Option(
            "--catalogue",
            help="LibriVox's API or a mirror of it, a folder, a manifest, stopes' shards.",
            show_default="that of the settings",
        ),
    ] = None,
    segment: Annotated[
        bool, typer.Option("--segment", help="Cut each audiobook into segments once it is here.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")] = False,
) -> None:
    """Fetch audiobooks into the lake: catalogue, recordings, checksums, and with --segment their segments too.

    Ctrl-C ends it; the same command goes on where it stopped. What is here and whole is not asked for again. Dagster's
    assets find what this command brought, and need not fetch it.

    [bold]Examples[/]

      s2s ingest --language deu --limit 3

      s2s ingest -l deu -l fra --catalogue ~/recordings --segment
    """
    settings = _settings(language, home, catalogue)
    wanted = tuple(language or settings.languages)
    console = Console(stderr=True)
    tallies = {code: _Tally() for code in wanted}
    failures: list[str] = []
    try:
        with LibriVox.of(settings).session() as session, _bars(console) as bars:
            work = _Work(Storage.of(settings), settings, session, bars, segment)
            _ingest(work, _chosen(work, wanted, limit), tallies, failures)
    except KeyboardInterrupt:
        console.print("[yellow]Stopped.[/] What came is kept: the same command goes on from here.")
        raise typer.Exit(130) from None
    for told in failures:
        console.print(f"[red]failed:[/] {escape(told)}", highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps({code: asdict(tally) for code, tally in tallies.items()}, sort_keys=True))
    else:
        Console().print(_table(tallies))
    if failures:
        raise typer.Exit(1)


def _settings(languages: list[str] | None, home: Path | None, catalogue: str | None) -> Settings:
    """Those in force, with what the command line says; the catalogue keeps the languages that it has."""
    said: dict[str, Any] = {} if home is None else {"home": home}
    if catalogue is not None:
        said["catalogue_url"] = catalogue
    settings = load_settings(**said)
    added = tuple(code for code in languages or () if code not in settings.languages)
    return load_settings(**said, languages=(*settings.languages, *added)) if added else settings


def _chosen(work: _Work, languages: tuple[str, ...], limit: int | None) -> list[tuple[Book, int]]:
    """Read the catalogue; the books to fetch, and how many bytes each is expected to have."""
    from speech_mining.sources import renewal
    from speech_mining.sources.book import Book
    from speech_mining.sources.protocol import open_source

    session, lake = work.session, work.storage.lake
    wish = wish_of(work.settings, session.catalogue_url)
    source = open_source(session.catalogue_url, session.client)
    progress = work.bars.of_catalogue()
    found = renewal.read_again(lake, source, wish, now=datetime.now(timezone.utc), progress=progress)
    renewal.keep(lake, found, wish)
    seconds = found.catalogue.sections.group_by("language", "audiobook", maintain_order=True).agg(_duration())
    books = []
    for code in languages:
        own = seconds.filter(language=code)
        _require(own.height > 0, code, found.books["language"].unique().sort().to_list())
        books += [
            (Book(lake, code, audiobook), BYTES_PER_S * (known or 0))
            for _, audiobook, known in own.head(limit or own.height).iter_rows()
        ]
    return books


def _duration() -> Any:
    import polars as pl

    return pl.col("duration_s").sum()


def _require(there: bool, language: str, known: list[str]) -> None:
    if not there:
        raise SettingsError(
            f"The catalogue lists no audiobook in {language}.",
            expected=f"one of {', '.join(known) or 'none: it is empty'}",
            cause="the language has another ISO 639-3 code, or the source has none of it",
            fix="look at the rejections of the catalogue, or at the source",
        )


def _ingest(work: _Work, books: list[tuple[Book, int]], tallies: dict[str, _Tally], failures: list[str]) -> None:
    """Two audiobooks at once, as many as downloads may run."""
    work.bars.expect(books)
    with ThreadPoolExecutor(work.settings.pools.download) as pool:
        under_way = {pool.submit(_one, work, book): book for book, _ in books}
        try:
            while under_way:
                ended, _ = wait(under_way, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in ended:
                    _count(future, under_way.pop(future), tallies, failures)
                    work.bars.one_more()
        except KeyboardInterrupt:
            work.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _one(work: _Work, book: Book) -> tuple[Brought, int]:
    from speech_mining.sources.book import bring_audiobook

    if work.stop.is_set():
        raise _StoppedError
    with work.storage.arriving(book.language, book.audiobook) as place:
        told = _until(work.stop, work.bars.of_bytes(book))
        brought = bring_audiobook(work.session.client, book, place, progress=_until(work.stop), bytes_progress=told)
    return brought, _segment(work, book) if work.segment else 0


def _until(stop: threading.Event, tell: Callable[[int, int], None] | None = None) -> Callable[[int, int], None]:
    """Progress that ends the work where a person wants it to."""

    def told(done: int, total: int) -> None:
        if stop.is_set():
            raise _StoppedError
        if tell is not None:
            tell(done, total)

    return told


def _count(future: Future[tuple[Brought, int]], book: Book, tallies: dict[str, _Tally], failures: list[str]) -> None:
    tally = tallies[book.language]
    tally.audiobooks += 1
    try:
        brought, segments = future.result()
    except (SpeechMiningError, OSError) as error:
        tally.failed += 1
        failures.append(f"{book.language} {book.audiobook}: {error}")
        return
    tally.left_alone += brought.left_alone
    tally.recordings += brought.fetched.recordings.height
    tally.rejected += brought.fetched.rejections.height
    tally.downloads += brought.fetched.requests
    tally.segments += segments


def _table(tallies: dict[str, _Tally]) -> Table:
    table = Table(title="Audiobooks in the lake")
    table.add_column("language")
    for name in asdict(_Tally()):
        table.add_column(name.replace("_", " "), justify="right")
    for code, tally in tallies.items():
        table.add_row(code, *(f"{value:,}" for value in asdict(tally).values()))
    return table


class _Bars:
    """One bar for the catalogue, one for audiobooks, one for bytes with rate and expected end."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._lock = threading.Lock()
        self._bytes: dict[tuple[str, str], tuple[int, int]] = {}
        self._books = self._traffic = bars.add_task("", visible=False)

    def of_catalogue(self) -> Callable[[int, int], None]:
        task = self._bars.add_task("catalogue", total=None, what="books")
        return lambda done, total: self._bars.update(task, completed=done, total=total, what=f"{done:,} books")

    def expect(self, books: list[tuple[Book, int]]) -> None:
        self._bytes = {(book.language, book.audiobook): (0, size) for book, size in books}
        self._books = self._bars.add_task("audiobooks", total=len(books), what=f"0 of {len(books):,}")
        self._traffic = self._bars.add_task("recordings", total=None, what="")

    def of_bytes(self, book: Book) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            with self._lock:
                self._bytes[book.language, book.audiobook] = (done, total)
                done, total = (sum(each) for each in zip(*self._bytes.values(), strict=True))
                what = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
                self._bars.update(self._traffic, completed=done, total=total, what=what)

        return tell

    def one_more(self) -> None:
        task = next(each for each in self._bars.tasks if each.id == self._books)
        done = int(task.completed) + 1
        self._bars.update(self._books, completed=done, what=f"{done:,} of {int(task.total or 0):,}")


@contextmanager
def _bars(console: Console) -> Iterator[_Bars]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    class Rate(TransferSpeedColumn):
        """Bytes a second, and nothing for what is not counted in bytes."""

        def render(self, task: Any) -> Any:
            return super().render(task) if task.description == "recordings" else ""

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[what]}"), Rate())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:
        yield _Bars(bars)


def _segment(work: _Work, book: Book) -> int:
    from speech_mining.segmentation.book import bring_segments

    config = segmentation_of(work.settings.segmentation)
    quarantine, progress = work.storage.quarantine, _until(work.stop)
    made = bring_segments(book.lake, book.language, book.audiobook, config, quarantine=quarantine, progress=progress)
    return made.found.segments.height
