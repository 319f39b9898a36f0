"""SQL over the lake: right answers, nothing locked, nothing written, and partitions that are replaced on the way."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from speech_mining.errors import LakeError, SettingsError
from speech_mining.lake import Lake
from speech_mining.quality import catalogue
from speech_mining.quality.catalogue import TABLES, QueryError, ask, lake_catalogue, question, questions, tables_of
from tests.quality_lake import PAIRS_OF_DEMO, S, pair, publish_book, publish_corpus, small_lake
from tests.s3_server import new_bucket, s3_server

DOCS = Path(__file__).parent.parent / "docs" / "sql.md"

# What each ready question answers of the small lake: rows, and the first row's telling columns.
ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "hours_together": (
        21,
        {"threshold": 1.0, "pairs": 3, "source_sum_h": 14 / 3600, "target_postprocessed_h": 16 / 3600},
    ),
    "margins": (3, {"language_pair": "deu-eng", "from_score": 1.06, "pairs": 1}),
    "durations": (2, {"side": "source", "spans": 3, "shortest_s": 4.0, "median_s": 5.0, "longest_s": 5.0}),
    "yield_by_audiobook": (2, {"audiobook": "e1", "aligned_h": 16 / 3600, "aligned_share": 16 / 60, "pairs": 3}),
    "yield_by_reader": (2, {"readers": "reader of eng", "recordings": 1, "aligned_h": 16 / 3600}),
    "yield_by_language": (
        2,
        {"language": "deu", "audio_h": 60 / 3600, "speech_h": 40 / 3600, "aligned_share": 14 / 60},
    ),
    "length_ratios": (0, {}),
    "duplicates": (0, {}),
    "preambles": (2, {"language": "deu", "segments": 4, "recurring": 1, "recurring_share": 0.25}),
    "quiet": (6, {"level_dbfs": -20.0, "usual_dbfs": -20.0, "beside_usual_db": 0.0}),
    "refused": (2, {"layer": "raw_audio", "language": "deu", "reason": "not_found", "refused": 1}),
    "hubs": (2, {"neighbour": 7, "times": 2}),
    "lineage": (3, {"score": 1.2, "source_sha256": "of d1", "target_sha256": "of e1", "target_end_ms": 16_000}),
    "changes": (0, {}),
    "latest_runs": (0, {}),
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return small_lake(tmp_path_factory.mktemp("sql"))


def _files(lake: Lake) -> dict[str, bytes]:
    assert lake.folder
    return {str(path): path.read_bytes() for path in sorted(lake.folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_ready_question_is_answered(lake: Lake, name: str) -> None:
    rows, first = ANSWERS[name]
    answer = ask(lake, question(name))
    assert answer.height == rows
    found = answer.row(0, named=True) if rows else {}
    assert {column: found[column] for column in first} == pytest.approx(first)


def test_every_ready_question_is_tested_and_documented() -> None:
    documented = re.findall(r"```sql\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert set(questions()) == set(ANSWERS)
    assert len(questions()) >= 12
    assert [name for name, sql in questions().items() if sql.strip() not in {text.strip() for text in documented}] == []


def test_every_table_is_there_with_its_columns_in_a_lake_without_a_row(tmp_path: Path) -> None:
    empty = Lake(tmp_path / "lake")
    for name, described in TABLES.items():
        answer = ask(empty, f"FROM {name}")
        assert (answer.height, answer.columns) == (0, list(described.columns)), name


def test_every_table_and_column_is_documented() -> None:
    text = DOCS.read_text("utf-8")
    assert [name for name in TABLES if f"| `{name}` |" not in text] == []
    rows = {name: text[text.index(f"| `{name}` |") :].splitlines()[0] for name in TABLES}
    missing = [(name, column) for name in TABLES for column in TABLES[name].columns if f"`{column}`" not in rows[name]]
    assert missing == []


def test_columns_of_the_partition_are_added(lake: Lake) -> None:
    answer = ask(lake, "SELECT DISTINCT language, audiobook FROM segments ORDER BY ALL")
    assert answer.rows() == [("deu", "d1"), ("eng", "e1")]
    assert ask(lake, "SELECT DISTINCT kind, language_pair FROM pairs").rows() == [("s2s", "deu-eng")]


def test_partitions_tell_the_data_version_of_what_was_read(lake: Lake) -> None:
    answer = ask(lake, "SELECT data_version FROM partitions WHERE layer = 's2s_corpus' AND partition = 'deu-eng'")
    assert answer.item() == lake.partition("s2s_corpus", "deu-eng").data_version


def test_only_the_wanted_partitions_are_opened(lake: Lake) -> None:
    assert ask(lake, "SELECT DISTINCT language FROM segments", only={"language": ["eng"]}).rows() == [("eng",)]
    assert ask(lake, "FROM recordings", only={"language": ["eng"]}).height == 1
    assert ask(lake, "FROM pairs", only={"kind": ["s2t"]}).height == 0
    assert ask(lake, "FROM pairs", only={"language_pair": ["deu-fra"]}).height == 0


def test_the_order_of_a_query_is_kept_and_a_limit_cuts_it(lake: Lake) -> None:
    query = "SELECT score FROM pairs ORDER BY score  -- the lowest first"
    assert ask(lake, query)["score"].to_list() == [1.06, 1.1, 1.2]
    assert ask(lake, query + "\n;", limit=1)["score"].to_list() == [1.06]


def test_sums_of_integers_are_integers(lake: Lake) -> None:
    answer = ask(lake, "SELECT sum(source_end_sample - source_start_sample) AS samples FROM pairs")
    assert (answer.schema["samples"], answer.item()) == (pl.Int64(), 14 * S)


@pytest.mark.parametrize(
    "query",
    [
        "COPY pairs TO '{file}'",
        "WITH x AS (COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)) SELECT 1",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)",
        "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{file}'' (USE_TMP_FILE false)) SELECT 1')",
        "SELECT 1) x; COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false); SELECT * FROM (SELECT 1",
        "SELECT 1; SELECT 2",
        "",
        "ATTACH '{file}.db'",
        "SET enable_external_access = true",
        "CREATE TABLE t AS SELECT 1",
        "WITH x AS (INSERT INTO _pairs SELECT * FROM _pairs RETURNING *) SELECT * FROM x",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '/etc/hostname'",
        "INSTALL httpfs",
    ],
)
def test_nothing_can_be_written_or_read_beside_the_lake(lake: Lake, query: str) -> None:
    before = _files(lake)
    file = lake.partition("s2s_pairs", "deu-eng").local_path("pairs.parquet")
    # pairs is named, so that its file is one which the connection may open
    with pytest.raises((QueryError, LakeError)):
        ask(lake, query.format(file=file) + ("" if ";" in query or not query else "  -- of pairs"))
    assert _files(lake) == before


def test_a_connection_may_open_no_other_file_and_stays_so(lake: Lake) -> None:
    import duckdb

    with lake_catalogue(lake, ["pairs"]) as connection:
        other = lake.partition("s2s_corpus", "deu-eng").local_path("corpus.parquet")
        with pytest.raises(duckdb.PermissionException):
            connection.execute(f"SELECT * FROM read_parquet('{other}')")
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            connection.execute("SET enable_external_access = true")
        assert connection.execute("SELECT count(*) FROM pairs").fetchall() == [(3,)]


def test_variables_of_the_program_are_no_tables(lake: Lake) -> None:
    import duckdb

    secret = pl.DataFrame({"a": [1]}).to_arrow()
    with lake_catalogue(lake, ["pairs"]) as connection, pytest.raises(duckdb.CatalogException, match="secret"):
        connection.execute("FROM secret")
    assert secret.num_rows == 1


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT * FORM pairs", r"syntax error.*at line 1: SELECT \* FORM pairs \(column 15\)\."),
        ("SELECT\n  score,\n  wrong\nFROM pairs", r'"wrong" not found.*at line 3: wrong \(column 3\)\.'),
        ("SELECT count(score, 1, 2) FROM pairs", r"count.*at line 1: .*\(column 8\)\."),
        ("FROM nowhere", r"nowhere does not exist.*at line 1: FROM nowhere \(column 6\)\."),
    ],
)
def test_a_wrong_query_is_told_in_one_paragraph_with_the_place(lake: Lake, query: str, told: str) -> None:
    with pytest.raises(QueryError, match=told) as error:
        ask(lake, query)
    assert "\n" not in str(error.value)


def test_an_error_while_it_runs_is_told(lake: Lake) -> None:
    with pytest.raises(QueryError, match="Could not convert string"):
        ask(lake, "SELECT source_audiobook::INTEGER FROM pairs")


def test_a_table_or_question_that_is_not_there_is_told(lake: Lake) -> None:
    with pytest.raises(SettingsError, match="no table nothing"):
        lake_catalogue(lake, ["nothing"])
    with pytest.raises(SettingsError, match="no question 'nothing'"):
        question("nothing")


def test_tables_are_found_where_a_query_names_them() -> None:
    assert tables_of("WITH runs AS (FROM corpora) SELECT * FROM runs JOIN Pairs ON true") == ["pairs", "corpora"]
    assert tables_of("SHOW TABLES") == list(TABLES)


@pytest.mark.parametrize(
    "query", ["SHOW TABLES", "DESCRIBE pairs", "SUMMARIZE pairs", "PIVOT pairs ON kind IN (s2s) USING count(*)"]
)
def test_what_looks_around_is_a_question_too(lake: Lake, query: str) -> None:
    assert ask(lake, query).height > 0


def test_a_replaced_partition_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = small_lake(tmp_path)
    opened: list[int] = []
    original = catalogue._open

    def replaced_meanwhile(*arguments: Any) -> Any:
        connection = original(*arguments)
        if not opened:  # after the views were made, before they are read
            publish_corpus(lake, PAIRS_OF_DEMO[:2])
        opened.append(1)
        return connection

    monkeypatch.setattr(catalogue, "_open", replaced_meanwhile)
    assert ask(lake, "SELECT count(*) FROM pairs").item() == 2
    assert len(opened) == 2


def test_a_partition_that_vanishes_again_and_again_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = small_lake(tmp_path)
    original = catalogue._open

    def always_replaced(*arguments: Any) -> Any:
        connection = original(*arguments)
        number = lake.partition("s2s_pairs", "deu-eng").read_frame("pairs.parquet").height
        publish_corpus(lake, [pair(1.1, (5 * n, 5 * n + 4), (5 * n, 5 * n + 4)) for n in range(number + 1)])
        return connection

    monkeypatch.setattr(catalogue, "_open", always_replaced)
    with pytest.raises(LakeError, match=r"changed under the query.*pairs.parquet is gone.*run it again"):
        ask(lake, "FROM pairs")


def test_a_damaged_file_is_told_with_its_table(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    lake.partition("s2s_pairs", "deu-eng").local_path("pairs.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(LakeError, match=r"The table pairs cannot be read: .*materialize the partition again"):
        ask(lake, "FROM pairs")
    assert ask(lake, "FROM corpora").height == 3


def test_a_file_or_manifest_that_was_removed_or_changed_by_hand_is_told(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    lake.partition("s2s_pairs", "deu-eng").local_path("pairs.parquet").unlink()
    with pytest.raises(LakeError, match=r"pairs\.parquet of s2s_pairs deu-eng is gone.*materialize the partition"):
        ask(lake, "FROM pairs")
    (lake.partition("s2s_corpus", "deu-eng").local_path("corpus.parquet").parent / "partition.json").write_text("{")
    with pytest.raises(LakeError, match="s2s_corpus of deu-eng has a manifest that cannot be read"):
        ask(lake, "FROM corpora")


def test_readers_beside_a_writer_see_whole_partitions_and_are_never_locked_out(tmp_path: Path) -> None:
    """One writer replaces the corpus six times; every reader finds two or three pairs, never a mixture or a lock."""
    lake = small_lake(tmp_path)
    done, found = threading.Event(), set()

    def read() -> None:
        while not done.is_set():
            try:
                found.add(ask(Lake(tmp_path / "lake"), "SELECT count(*), min(score) FROM corpora").row(0))
            except LakeError as error:
                found.add(str(error)) if "changed under the query" not in str(error) else None

    readers = [threading.Thread(target=read) for _ in range(1)]
    for reader in readers:
        reader.start()
    for turn in range(6):
        publish_corpus(lake, PAIRS_OF_DEMO[: 2 + turn % 2])
    done.set()
    for reader in readers:
        reader.join()
    assert found <= {(2, 1.1), (3, 1.06)}
    assert found


def test_two_languages_of_one_book_are_apart(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    publish_book(lake, "deu", [(0, 5)])
    counted = ask(lake, "SELECT language, count(*) AS n FROM segments GROUP BY ALL ORDER BY ALL").rows()
    assert counted == [("deu", 1), ("eng", 3)]


def test_hours_that_some_pair_does_not_know_are_not_summed(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    hours = lake.partition("s2s_corpus", "deu-eng").read_frame("hours.parquet")
    with lake.replace("s2s_corpus", "deu-fra") as new:  # kept from 1.10 only
        new.write_frame("hours.parquet", hours.filter(pl.col("threshold") >= 1.1))
    answer = ask(lake, question("hours_together"))
    assert answer["threshold"].min() == 1.1
    assert answer["pairs"].to_list()[0] == 4


def test_speech_that_several_pairs_share_is_aligned_once(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    publish_corpus(lake, [pair(1.2, (0, 6), (0, 6)), pair(1.1, (2, 4), (10, 12)), pair(1.1, (5, 8), (11, 15))])
    answer = ask(lake, "SELECT audiobook, pairs, aligned_s FROM aligned ORDER BY ALL").rows()
    assert answer == [("d1", 3, 8.0), ("e1", 3, 11.0)]


def test_odd_lengths_and_duplicates_are_found(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    publish_corpus(lake, [*PAIRS_OF_DEMO, pair(1.3, (40, 45), (40, 59))])
    odd = ask(lake, question("length_ratios"))
    assert odd.select("source_s", "target_s", "ratio").rows() == [(5.0, 19.0, 3.8)]
    with lake.replace("raw_audio", "eng", "e2") as new:
        same = lake.partition("raw_audio", "eng", "e1").read_frame("recordings.parquet")
        new.write_frame("recordings.parquet", same.with_columns(audiobook=pl.lit("e2")))
    assert ask(lake, question("duplicates")).select("copies", "places").rows() == [(2, ["eng/e1/1", "eng/e2/1"])]


def test_an_object_store_is_asked_through_copies_of_what_is_named(tmp_path: Path) -> None:
    with s3_server() as url:
        lake = Lake(new_bucket(url), scratch=tmp_path / "scratch")
        publish_corpus(lake, PAIRS_OF_DEMO)
        shutil.rmtree(tmp_path / "scratch" / "copies", ignore_errors=True)
        assert ask(lake, "SELECT count(*) FROM corpora").item() == 3
        copied = [path.name for path in (tmp_path / "scratch" / "copies").rglob("*.parquet")]
        publish_corpus(lake, PAIRS_OF_DEMO[:2])
        assert ask(lake, "SELECT count(*) FROM corpora").item() == 2
    assert len(copied) == 1
