"""A synthetic LibriVox of any size: catalogue, partitions and the event log that mining it would have left.

The metadata looks as LibriVox's does (ids, titles, sections, readers, addresses, lengths); recordings are not there and
vectors are tiny. What belongs here is what is seeded; what is measured on it is in `benchmarks.scale`.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import numpy as np
import polars as pl
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import select

from partitions.audiobooks import add_audiobooks
from partitions.languages import layer
from speech_mining.knn.roll import SPEECH
from speech_mining.lake import CURRENT, Lake
from speech_mining.records import CATALOGUE, REJECTIONS, SEGMENTS, TIMESTAMPS, conform
from speech_mining.sources import renewal
from speech_mining.sources.librivox import LICENCE
from speech_mining.sources.protocol import Catalogue
from speech_mining.sources.renewal import Wish

LANGUAGES = (
    *("eng", "deu", "spa", "fra", "nld", "ita", "por", "pol", "rus", "zho", "jpn", "fin", "dan", "swe", "lat"),
    *("heb", "ell", "hun", "ces", "kor", "ara", "ukr", "tgl", "ron", "bul", "cat", "est", "hrv", "slk", "slv"),
    *("tur", "vie", "ind", "hin", "ben", "tam", "urd", "fas", "gle", "epo"),
)
"""Forty, the largest first."""
LARGEST_SHARE = 0.85
"""Of the books that are in the first language: English has about so many of LibriVox's."""
BOOK_LAYERS = ("raw_audio", "segments", "speech_embeddings")
BOOKS_A_RUN = 25
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
WORDS = ("history", "island", "garden", "letters", "winter", "journey", "king", "stories", "sea", "house", "life")
NAMES = ("Adams", "Berg", "Costa", "Dubois", "Evans", "Fischer", "Garcia", "Hansen", "Ito", "Jansen", "Kowalski")
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How large the library is."""

    books: int
    languages: int
    pairs: int

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages, the largest first."""
        return LANGUAGES[: self.languages]

    @property
    def mined(self) -> tuple[str, ...]:
        """The pairs that are mined, each in alphabetical order; those of large languages first."""
        pairs = ["-".join(sorted((a, b))) for i, a in enumerate(self.codes) for b in self.codes[:i]]
        return tuple(sorted(pairs[: self.pairs]))

    def books_of(self) -> dict[str, list[str]]:
        """Language → ids of its books, digits as LibriVox gives them."""
        rest = [1 / rank for rank in range(1, self.languages)]
        shares = [LARGEST_SHARE, *((1 - LARGEST_SHARE) * part / sum(rest) for part in rest)] if rest else [1.0]
        sizes = [max(1, round(self.books * share)) for share in shares[1:]]
        numbers = count(1)
        return {
            language: [str(number) for number in islice(numbers, size)]
            for language, size in zip(self.codes, [self.books - sum(sizes), *sizes], strict=True)
        }


def sections(books: Mapping[str, Sequence[str]], seed: int = 0) -> pl.DataFrame:
    """`records.CATALOGUE` of the books: 4 to 60 sections each, 20 in the middle, of about a quarter of an hour."""
    chance = random.Random(seed)
    rows = [row for language, own in books.items() for book in own for row in _book(language, book, chance)]
    return pl.DataFrame(rows, schema=dict(CATALOGUE), orient="row")


def _book(language: str, book: str, chance: random.Random) -> list[tuple[Any, ...]]:
    author, words = chance.choice(NAMES), chance.sample(WORDS, 3)
    title = f"The {words[0].title()} of the {words[1].title()} and the {words[2].title()}, Volume {book}"
    slug = f"{'_'.join(words)}_{book}_{chance.randrange(100, 2612)}_librivox"
    page = f"https://librivox.org/{'-'.join(words)}-{book}-by-{author.lower()}/"
    number = min(60, max(4, round(chance.lognormvariate(3.0, 0.6))))
    return [
        (
            book,
            section,
            language,
            title,
            f"{author}, A. {chance.choice(NAMES)} (1800 - 1880)",
            f"{section:02d} - Chapter {section}: of the {chance.choice(WORDS)}",
            f"Reader {chance.randrange(9000)}",
            str(chance.randrange(9000)),
            round(chance.lognormvariate(6.8, 0.5)),
            f"https://www.archive.org/download/{slug}/{slug.removesuffix('_librivox')}_{section:02d}_64kb.mp3",
            page,
            LICENCE,
            None,
            None,
            None,
        )
        for section in range(1, number + 1)
    ]


@dataclass(frozen=True)
class Listing:
    """A source that lists these books, whole."""

    found: pl.DataFrame
    books: int
    read_at: datetime = BEGIN

    def read(self, **_: Any) -> Catalogue:
        """As `Source.read`."""
        nothing = pl.DataFrame(schema=dict(REJECTIONS)), pl.DataFrame(schema=dict(TIMESTAMPS))
        return Catalogue(self.found, *nothing, self.books, self.read_at, whole=True)


def list_books(lake: Lake, size: Size, books: Mapping[str, Sequence[str]], at: datetime = BEGIN) -> int:
    """Read a catalogue of these books into the lake, through the code that the asset runs; returns its sections."""
    listing = Listing(sections(books), sum(map(len, books.values())), at)
    wish = Wish("https://librivox.org", size.codes)
    renewal.keep(lake, renewal.read_again(lake, listing, wish, now=at), wish)
    return listing.found.height


# Partitions and their past


def seed_instance(instance: dg.DagsterInstance, size: Size, books: Mapping[str, Sequence[str]]) -> int:
    """Every book listed, fetched, segmented and embedded, every index built, every pair mined; returns the events."""
    for language, own in books.items():
        add_audiobooks(instance, language, own)
    written = store(instance, (event for language in books for event in listed(language, books[language])))
    for language, own in books.items():
        written += make_layers(instance, language, own, BOOK_LAYERS)
    whole = [(layer(language, "speech_index"), [language]) for language in size.codes]
    of_pairs = [(dg.AssetKey(f"s2s_{name}"), list(size.mined)) for name in ("neighbours", "pairs", "corpus")]
    for key, partitions in [*whole, *of_pairs]:
        written += store(instance, _run_events(_run(instance), [key], partitions))
    return written


def make_layers(instance: dg.DagsterInstance, language: str, books: Sequence[str], layers: Sequence[str]) -> int:
    """Record books as made, a run for each 25 of them; returns the events."""
    keys = [layer(language, name) for name in layers]
    runs = (_run_events(_run(instance), keys, batch) for batch in _batches(books, BOOKS_A_RUN))
    return store(instance, chain.from_iterable(runs))


def listed(language: str, books: Iterable[str]) -> Iterator[EventLogEntry]:
    """The two events by which the catalogue tells of a book, as `resources.external.report_listed` has them."""
    for book in books:
        told = {"title": f"Volume {book}", "authors": "A. Berg", "sections": 20, "announced_hours": 5.2}
        facts: Any = {"partition": book, "metadata": told, "tags": {DATA_VERSION_TAG: f"listed{book}"}}
        seen = dg.AssetObservation(layer(language, "listing"), **facts)
        made = dg.AssetMaterialization(layer(language, "listing"), **facts)
        yield _entry(DagsterEventType.ASSET_OBSERVATION, AssetObservationData(seen), RUNLESS_RUN_ID)
        yield _entry(DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made), RUNLESS_RUN_ID)


def _run(instance: dg.DagsterInstance) -> str:
    run = DagsterRun("__ASSET_JOB", run_id=str(uuid.uuid4()), status=DagsterRunStatus.SUCCESS)
    instance.run_storage.add_run(run)
    return run.run_id


def _run_events(run_id: str, keys: Sequence[dg.AssetKey], partitions: Sequence[str]) -> Iterator[EventLogEntry]:
    """What a run leaves in the index of assets: what it planned, then what it made."""
    for key in keys:
        for partition in partitions:
            planned = AssetMaterializationPlannedData(key, partition)
            yield _entry(DagsterEventType.ASSET_MATERIALIZATION_PLANNED, planned, run_id)
    yield from made_events(run_id, keys, partitions)


def made_events(run_id: str, keys: Sequence[dg.AssetKey], partitions: Sequence[str]) -> Iterator[EventLogEntry]:
    """A materialization of each partition of each asset."""
    for key in keys:
        for partition in partitions:
            version = uuid.uuid5(uuid.NAMESPACE_URL, f"{key.to_user_string()}/{partition}").hex
            tags = {DATA_VERSION_TAG: version, "dagster/code_version": "1"}
            metadata = {"dagster/row_count": 6000, "megabytes": 140.2, "title": f"Volume {partition}"}
            made = dg.AssetMaterialization(key, partition=partition, tags=tags, metadata=metadata)
            yield _entry(DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made), run_id)


def _entry(kind: DagsterEventType, data: Any, run_id: str) -> EventLogEntry:
    step = None if kind is DagsterEventType.ASSET_MATERIALIZATION_PLANNED else "made"
    event = DagsterEvent(kind.value, RUNLESS_JOB_NAME, event_specific_data=data, step_key=step)
    return EventLogEntry(
        error_info=None,
        level="debug",
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        step_key=step,
        job_name=RUNLESS_JOB_NAME,
        dagster_event=event,
    )


def store(instance: dg.DagsterInstance, events: Iterable[EventLogEntry]) -> int:
    """Write events to the index of assets as the storage itself does, thousands in a transaction; returns their number.

    One at a time they take 5 to 20 ms each. The files that SQLite keeps of single runs are left out: the pages of
    assets do not read them.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"{type(storage).__name__} keeps its events in no table")
    return sum(_store_batch(storage, batch) for batch in _batches(events, 5000))


def _store_batch(storage: SqlEventLogStorage, events: Sequence[EventLogEntry]) -> int:
    table = SqlEventLogStorageTable
    latest = {event.get_dagster_event().asset_key: place for place, event in enumerate(events)}
    with storage.index_connection() as connection:
        before = connection.execute(select(table.c.id).order_by(table.c.id.desc()).limit(1)).scalar() or 0
        connection.execute(table.insert(), [storage._event_to_row(event) for event in events])
        found = connection.execute(select(table.c.id).where(table.c.id > before).order_by(table.c.id))
        ids = [row[0] for row in found]
        storage._store_asset_event_tags(connection, events, ids)
    for place in latest.values():
        storage.store_asset_event(events[place], ids[place])
    return len(events)


def _batches(items: Iterable[T], most: int) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, most)):
        yield batch


# Folders and vectors


def lay_out(lake: Lake, layers: Sequence[str], books: Mapping[str, Sequence[str]]) -> None:
    """Folders that the lake takes for published partitions, with nothing in them but their name: what is listed."""
    for name in layers:
        for language, own in books.items():
            for book in own:
                folder = Path(str(lake.root)) / name / language / book
                folder.mkdir(parents=True, exist_ok=True)
                (folder / CURRENT).write_text("0" * 32)


def embed(lake: Lake, language: str, books: Iterable[str], rows: int, dimension: int, seed: int = 0) -> None:
    """Publish embeddings of books, `rows` random unit vectors each, as the asset does."""
    for book in books:
        chance = np.random.default_rng([seed, int(book), *language.encode()])
        vectors = chance.standard_normal((rows, dimension), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        with lake.replace(SPEECH.embeddings, language, book) as new:
            new.write_table(SPEECH.table, _segments(book, rows), SEGMENTS)
            new.write_array("vectors.npy", vectors.astype(np.float16))
            new.write_json("encoder.json", {"name": "synthetic", "version": "1", "dimension": dimension})


def _segments(book: str, rows: int) -> pl.DataFrame:
    numbers = np.arange(rows, dtype=np.int64)
    columns = {
        "segment_id": int(book) * 1_000_000 + numbers,
        "audiobook": [book] * rows,
        "section": numbers // 50 + 1,
        "start_sample": numbers * 80_000,
        "end_sample": numbers * 80_000 + 64_000,
        "start_ms": numbers * 5000,
        "end_ms": numbers * 5000 + 4000,
        "first_run": numbers % 50,
        "last_run": numbers % 50,
        "level_dbfs": np.full(rows, -20.0),
        "coverage": np.full(rows, 0.9),
    }
    frame = pl.DataFrame(columns).with_columns(
        pl.col(name).cast(dtype) for name, dtype in SEGMENTS.items() if name in columns
    )
    return conform(frame.select(list(SEGMENTS)), SEGMENTS, "synthetic segments")
