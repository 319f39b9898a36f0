"""Discovery: the sensor that has new and changed audiobooks fetched and segmented, and tries again what failed.

What belongs here is which audiobooks are asked for, and how many at once. Runs that lie in a queue for weeks help
nobody: 14 500 new audiobooks are asked for a few runs at a time, as fast as those end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import islice, zip_longest

import dagster as dg
import polars as pl

from partitions.audiobooks import add_audiobooks, known_audiobooks
from partitions.batches import Batch, batches, runs_under_way
from partitions.languages import layer
from resources.settings import Settings
from resources.storage import Lake, Storage
from speech_mining.records import audiobook_order
from speech_mining.sources.renewal import listed_books
from speech_mining.sources.retries import to_be_tried_again

TAGS = {"s2s/asked_by": "audiobooks"}
"""On every run that is asked for here."""
LAYERS = ("raw_audio", "segments")
"""What a run makes. Embeddings follow by their own condition, on a GPU."""
MOST_AGAIN = 1000
"""Audiobooks of a language that are remembered to be tried again; the rest wait for the next round."""


@dataclass(frozen=True)
class Wanted:
    """A run that may be asked for."""

    language: str
    batch: Batch
    marks: tuple[str, ...]
    """When each of its books had changed, or when a round of trying again began: what tells the request from others."""
    seen: tuple[str, str] | None = None
    """When the last of its books had changed, and which it is; None for books that are tried again."""
    left: Sequence[str] = ()
    """Books of the round that are still to be tried again after it."""

    def request(self) -> dg.RunRequest:
        """To Dagster; the same batch for the same reason is one run, however often it is asked for."""
        return self.batch.request(
            [self.language, *self.batch.books, *self.marks],
            [layer(self.language, name) for name in LAYERS],
            {**TAGS, "s2s/language": self.language},
        )


@dataclass(frozen=True)
class Position:
    """What was asked for so far: the sensor's cursor."""

    seen: Mapping[str, tuple[str, str]]
    """Language → when the book asked for last had changed, and which it was; all before it were asked for."""
    again: Mapping[str, Sequence[str]]
    """Language → books still to be tried again in this round."""
    round_began: str | None
    """When the last round of trying again began."""

    @classmethod
    def read(cls, cursor: str | None) -> Position:
        """From the cursor; none is the beginning."""
        told = json.loads(cursor) if cursor else {"seen": {}, "again": {}, "round_began": None}
        seen = {language: (at, book) for language, (at, book) in told["seen"].items()}
        return cls(seen, told["again"], told["round_began"])

    def written(self) -> str:
        """As a cursor."""
        return json.dumps({"seen": self.seen, "again": self.again, "round_began": self.round_began}, sort_keys=True)

    def after(self, asked: Wanted) -> Position:
        """Once a run is asked for."""
        if asked.seen is not None:
            return replace(self, seen={**self.seen, asked.language: asked.seen})
        return replace(self, again={**self.again, asked.language: asked.left})

    def is_new(self, language: str, book: str, changed_at: str) -> bool:
        """Whether a book was not asked for since it changed."""
        at, last = self.seen.get(language, ("", ""))
        return changed_at > at or (changed_at == at and audiobook_order(book) > audiobook_order(last))


def discovery(
    settings: Settings, *, clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
) -> dg.SensorDefinition:
    """The sensor, for the languages in force."""
    ingest = settings.ingest

    @dg.sensor(
        name="audiobooks",
        asset_selection=dg.AssetSelection.assets(
            *(layer(language, name) for language in settings.languages for name in LAYERS)
        ),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Audiobooks that the catalogue lists anew or changed are fetched and segmented, at most "
        f"{ingest.books_a_run} a run and {ingest.most_runs} runs at once; what is missing or incomplete is tried again "
        f"every {ingest.retry_hours:g} hours.",
    )
    def _audiobooks(context: dg.SensorEvaluationContext, storage: Storage) -> dg.SensorResult | dg.SkipReason:
        listed = listed_books(storage.lake)
        if listed is None:
            return dg.SkipReason("The catalogue was not read yet: materialize it, or turn on read_catalogue.")
        books = {language: _by_change(listed, language) for language in settings.languages}
        known = {language: _with_partitions(context.instance, language, changed) for language, changed in books.items()}
        room = ingest.most_runs - runs_under_way(context.instance, TAGS)
        if room <= 0:
            return dg.SkipReason(f"{ingest.most_runs} runs are queued or under way.")
        position = Position.read(context.cursor)
        position = _with_round(position, storage.lake, books, clock(), timedelta(hours=ingest.retry_hours))
        wanted = list(islice(_in_turn(position, books, known, ingest.books_a_run), room))
        for each in wanted:
            position = position.after(each)
        if not wanted:
            return dg.SensorResult(cursor=position.written(), skip_reason="Nothing new, and nothing to try again.")
        return dg.SensorResult(run_requests=[each.request() for each in wanted], cursor=position.written())

    return _audiobooks


def _by_change(listed: pl.DataFrame, language: str) -> dict[str, str]:
    """Book → when it changed last, those that changed first first."""
    own = listed.filter(language=language).select("audiobook", pl.col("last_changed").dt.to_string("iso:strict"))
    return dict(sorted(own.iter_rows(), key=lambda book: (book[1], audiobook_order(book[0]))))


def _with_partitions(instance: dg.DagsterInstance, language: str, listed: Iterable[str]) -> list[str]:
    """The partitions of a language, in their order, once every listed book is one."""
    known = known_audiobooks(instance, language)
    if set(listed) <= set(known):
        return known
    add_audiobooks(instance, language, listed)
    return known_audiobooks(instance, language)


def _with_round(
    position: Position, lake: Lake, books: Mapping[str, Mapping[str, str]], now: datetime, every: timedelta
) -> Position:
    """Begin a round of trying again, if the last one is over and long enough ago."""
    if position.round_began is None:
        return replace(position, round_began=now.isoformat())  # what is new is not to be tried again
    if any(position.again.values()) or now - datetime.fromisoformat(position.round_began) < every:
        return position
    again = {language: _incomplete(lake, language, books[language], position) for language in books}
    return replace(position, again=again, round_began=now.isoformat())


def _incomplete(lake: Lake, language: str, books: Mapping[str, str], position: Position) -> list[str]:
    """Books that were asked for and of which something is missing that may be had."""
    whole = set(lake.keys("raw_audio", language)) & set(lake.keys("segments", language))
    marked = set(to_be_tried_again(lake, language))
    due = [book for book, at in books.items() if not position.is_new(language, book, at)]
    return sorted((book for book in due if book in marked or book not in whole), key=audiobook_order)[:MOST_AGAIN]


def _in_turn(
    position: Position, books: Mapping[str, Mapping[str, str]], known: Mapping[str, Sequence[str]], most: int
) -> Iterator[Wanted]:
    """Runs in the order they shall be asked for: each language has its turn, new books before those tried again."""
    queues = [_of_language(position, language, books[language], known[language], most) for language in books]
    for turn in zip_longest(*queues):
        yield from (each for each in turn if each is not None)


def _of_language(
    position: Position, language: str, books: Mapping[str, str], known: Sequence[str], most: int
) -> Iterator[Wanted]:
    new = [book for book, at in books.items() if position.is_new(language, book, at)]
    for batch in batches(known, new, most):
        marks = tuple(books[book] for book in batch.books)
        yield Wanted(language, batch, marks, seen=(books[batch.last], batch.last))
    fresh = set(new)
    left = [book for book in position.again.get(language, ()) if book in books and book not in fresh]
    for batch in batches(known, left, most):
        left = left[len(batch.books) :]
        yield Wanted(language, batch, (str(position.round_began),), left=left)
