"""The benchmark of orchestration, at a size that a test can afford: its library is true, its questions are answered."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from benchmarks.drawn_pages import absent, drawn
from benchmarks.refreshes import Growth, refreshes
from benchmarks.scale import Asked, Row, _memory_rows, facts, measure, questions, seeded, told
from benchmarks.served import Home, Webserver, query, webserver
from benchmarks.synthetic_library import Size, list_books, listed, made_events, sections, store
from partitions.audiobooks import add_audiobooks, known_audiobooks
from speech_mining.lake import Lake
from speech_mining.records import CATALOGUE, conform
from speech_mining.sources.renewal import listed_books

SMALL = Size(books=60, languages=3, pairs=2)
ASKED = Asked(SMALL, repeats=2, ticks=1, storage="sqlite", refresh_books=16, write_seconds=1.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("library"), SMALL)
    made.prepare()
    seeded(made)
    return made


@pytest.fixture(scope="module")
def served(home: Home) -> Iterator[Webserver]:
    with webserver(home) as running:
        yield running


@pytest.mark.parametrize("size", [SMALL, Size(14_500, 4, 6), Size(50_000, 40, 700), Size(5, 1, 0)])
def test_a_library_has_the_books_and_pairs_it_was_asked_for(size: Size) -> None:
    books = size.books_of()
    assert sum(map(len, books.values())) == size.books
    assert len({book for own in books.values() for book in own}) == size.books
    assert len(books) == size.languages
    assert len(set(size.mined)) == size.pairs
    assert all(pair.split("-") == sorted(set(pair.split("-"))) for pair in size.mined)


def test_a_catalogue_is_the_same_each_time_and_has_the_columns_of_a_real_one() -> None:
    made = sections(SMALL.books_of())
    assert made.equals(sections(SMALL.books_of()))
    assert conform(made, CATALOGUE, "catalogue")["audiobook"].n_unique() == SMALL.books
    assert made["listen_url"].n_unique() == made.height


def test_the_catalogue_that_is_kept_lists_every_book(tmp_path: Path) -> None:
    lake, books = Lake(tmp_path), SMALL.books_of()
    list_books(lake, SMALL, books)
    kept = listed_books(lake)
    assert kept is not None
    assert {language: kept.filter(language=language)["audiobook"].to_list() for language in books} == books


def test_events_stored_in_bulk_are_those_that_are_stored_one_by_one() -> None:
    key, listing = dg.AssetKey(["eng", "segments"]), dg.AssetKey(["eng", "listing"])
    events = [*listed("eng", ["1", "2"]), *made_events("a-run", [key], ["1", "2", "3"])]
    answers = []
    for bulk in (True, False):
        with dg.instance_for_test() as instance:
            if bulk:
                assert store(instance, events) == len(events)
            else:
                for event in events:
                    instance.store_event(event)
            latest = instance.get_latest_data_version_record(key, partition_key="2")
            assert latest is not None
            answers.append(
                {
                    "made": instance.get_materialized_partitions(key),
                    "keys": set(instance.all_asset_keys()),
                    "tags": sorted(map(str, instance.get_event_tags_for_asset(listing))),
                    "latest": latest.event_log_entry,
                    "ids": [record.storage_id for record in instance.fetch_materializations(key, limit=9).records],
                    "observed": len(instance.fetch_observations(listing, limit=9).records),
                }
            )
    assert answers[0] == answers[1]
    assert answers[0]["made"] == {"1", "2", "3"}


@pytest.mark.slow
def test_more_audiobooks_become_partitions_than_a_statement_takes() -> None:
    books = [str(number) for number in range(260_000)]
    with dg.instance_for_test() as instance:
        assert add_audiobooks(instance, "eng", books) == books
        assert known_audiobooks(instance, "eng") == books


def test_the_sensor_asks_for_every_book_once_and_then_for_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    rows = {row.what: row for row in measure(ASKED, tmp_path, ["sensor"], lines.append)}
    assert rows["sensor audiobooks, from cold"].note == "60 books, 3 runs"
    assert len(rows["sensor audiobooks, nothing changed"].values) == ASKED.repeats
    assert json.loads(lines[0])["books"] == 60


def test_the_partitions_page_sees_every_book_made(served: Webserver, home: Home) -> None:
    language = SMALL.codes[0]
    _, answer = served.ask(query("partitions"), {"asset": {"path": [language, "segments"]}})
    node = answer["assetNodeOrError"]
    books = SMALL.books_of()[language]
    assert node["partitionKeysByDimension"][0]["partitionKeys"] == books
    assert sorted(node["assetPartitionStatuses"]["materializedPartitions"]) == sorted(books)
    assert node["assetPartitionStatuses"]["failedPartitions"] == []


def test_the_lineage_page_knows_the_state_of_every_layer(served: Webserver, home: Home) -> None:
    asked = dict(questions(home))
    _, answer = served.ask(query("lineage_live"), asked["lineage_live"])
    made = {"/".join(node["assetKey"]["path"]): node["partitionStats"] for node in answer["assetNodes"]}
    books = len(SMALL.books_of()["eng"])
    assert made["eng/raw_audio"] == {
        "numMaterialized": books,
        "numMaterializing": 0,
        "numPartitions": books,
        "numFailed": 0,
    }
    _, answer = served.ask(query("lineage_structure"), asked["lineage_structure"])
    nodes = answer["workspaceLocationEntryOrError"]["locationOrLoadError"]["repositories"][0]["assetNodes"]
    assert {"s2s_neighbours", "catalogue"} <= {node["assetKey"]["path"][-1] for node in nodes}


def test_every_question_of_the_benchmark_is_answered(served: Webserver, home: Home) -> None:
    for name, variables in questions(home):
        seconds, answer = served.ask(query(name), variables)
        assert seconds > 0
        assert answer


def test_an_error_for_an_answer_is_no_answer(served: Webserver) -> None:
    with pytest.raises(RuntimeError, match="AssetNotFoundError"):
        served.ask(query("partitions"), {"asset": {"path": ["no", "such"]}})
    with pytest.raises(RuntimeError, match="GraphQL: Cannot query field"):
        served.ask("query Wrong { nonsense }", {})


def test_the_memory_of_both_servers_is_seen(served: Webserver) -> None:
    held = served.memory_mb()
    assert set(held) == {"webserver", "code server"}
    assert all(megabytes > 20 for megabytes in held.values())


@pytest.mark.slow
@pytest.mark.skipif(bool(absent()), reason=absent() or "-")
def test_both_pages_are_drawn_in_a_real_browser(served: Webserver, tmp_path: Path) -> None:
    pages = drawn(served, SMALL.codes[0], tmp_path)
    assert [name for name, _, _ in pages] == ["lineage", "partitions"]
    assert all(seconds > 0 and not note.startswith("0 ") for _, seconds, note in pages)
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name, _, _ in pages)


@pytest.mark.slow
def test_a_real_daemon_asks_for_new_books_and_for_no_others(tmp_path: Path) -> None:
    rows = {row.what: row for row in measure(ASKED, tmp_path, ["automation"], print)}
    assert rows["automation, 100 new audiobooks"].note == "100 audiobooks, 100 partitions asked for"


def test_the_products_of_a_pair_grow_with_what_is_new_and_nothing_new_costs_none(tmp_path: Path) -> None:
    index, pair = refreshes(tmp_path, books=16, repeats=1)
    assert list(index.new) == list(pair.new) == [0, 1, 2, 4, 8]
    assert pair.products[0] == 0
    assert pair.products_exponent == pytest.approx(1, abs=0.01)


def test_exponents_are_those_of_the_cost_beyond_nothing_new() -> None:
    assert Growth("line", [0, 1, 2, 4], [3.0, 5.0, 7.0, 11.0]).exponent == pytest.approx(1, abs=0.01)
    assert Growth("square", [0, 1, 2, 4], [3.0, 5.0, 11.0, 35.0]).exponent == pytest.approx(2, abs=0.01)
    assert Growth("line", [0, 1, 2, 4], [3.0, 5.0, 7.0, 11.0]).slope_s == pytest.approx(2)


def test_memory_that_grows_is_told_from_memory_that_does_not() -> None:
    flat = _memory_rows("daemon", [{"daemon": 100.0 + noise} for noise in (0, 40, 41, 42, 41, 42)], "rounds")
    leaks = _memory_rows("daemon", [{"daemon": 100.0 + 20 * step} for step in range(6)], "rounds")
    assert [row.verdict for row in flat] == ["", "holds"]
    assert [row.verdict for row in leaks] == ["", "MISSES"]


def test_a_row_is_judged_by_its_median() -> None:
    row = Row("answer", [1.0, 1.5, 30.0], at_most=2)
    assert (row.median, row.verdict) == (1.5, "holds")
    assert dataclasses.replace(row, at_most=1).verdict == "MISSES"
    assert "at most 2 s: holds" in told(row)


def test_figures_tell_the_machine_and_the_software() -> None:
    assert {"processor", "usable_cores", "memory_gib", "python", "dagster", "date", "load", "storage"} <= set(
        facts(ASKED)
    )


def test_a_home_of_another_size_is_not_measured_by_mistake(home: Home) -> None:
    with pytest.raises(ValueError, match="holds a library of"):
        seeded(dataclasses.replace(home, size=Size(61, 3, 2)))


def test_a_measure_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no measure speed"):
        measure(ASKED, tmp_path, ["speed"], print)
