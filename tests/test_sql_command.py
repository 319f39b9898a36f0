"""`s2s sql`, the real command, on a small lake and on the log of a real instance."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from resources.run_history import runs_of, runs_of_home
from speech_mining.cli.app import _bind
from speech_mining.errors import SettingsError
from speech_mining.lake import Lake
from speech_mining.quality.catalogue import RUNS, QueryError, ask, question, questions
from tests.quality_lake import small_lake


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    small_lake(folder)
    return folder


def _sql(home: Path, *words: str, typed: str = "") -> Result:
    from resources.sql_command import sql

    app = _bind()
    app.command("sql")(sql)  # the same as the entry point, which an older installation does not have yet
    return CliRunner().invoke(app, ["sql", "--home", str(home), *words], input=typed, env={"COLUMNS": "200"})


def test_csv_and_json_hold_the_answer(home: Path) -> None:
    query = "SELECT language, count(*) AS n FROM segments GROUP BY language ORDER BY language"
    rows = list(csv.DictReader(io.StringIO(_sql(home, query, "--format", "csv").stdout)))
    assert rows == [{"language": "deu", "n": "4"}, {"language": "eng", "n": "3"}]
    assert json.loads(_sql(home, query, "-f", "json").stdout) == [
        {"language": "deu", "n": 4},
        {"language": "eng", "n": 3},
    ]


def test_a_table_shows_names_and_rows(home: Path) -> None:
    shown = _sql(home, "SELECT score, 'a [bold] title' AS title FROM pairs ORDER BY score DESC").stdout
    assert "score" in shown and "1.2" in shown and "a [bold] title" in shown and "3 rows" in shown


def test_a_limit_cuts_and_says_so(home: Path) -> None:
    result = _sql(home, "FROM pairs", "--limit", "2", "--format", "csv")
    assert len(result.stdout.splitlines()) == 3
    assert "more than these 2 rows" in result.stderr
    assert "more than" not in _sql(home, "FROM pairs", "--limit", "3", "--format", "csv").stderr


def test_a_query_comes_from_a_file_or_from_standard_input(home: Path, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("SELECT count(*) AS n FROM pairs;\n", "utf-8")
    assert _sql(home, str(tmp_path / "q.sql"), "-f", "csv").stdout == "n\n3\n"
    assert _sql(home, "-", "-f", "csv", typed="SELECT count(*) AS n\nFROM pairs").stdout == "n\n3\n"


def test_an_answer_is_written_where_the_ending_says_how(home: Path, tmp_path: Path) -> None:
    for name in ("a.parquet", "a.csv", "a.json", "a.txt"):
        assert _sql(home, "--question", "hubs", "--out", str(tmp_path / name)).exit_code == 0
    assert pl.read_parquet(tmp_path / "a.parquet")["times"].to_list() == [2, 2]
    assert pl.read_csv(tmp_path / "a.csv")["times"].to_list() == [2, 2]
    assert [row["times"] for row in json.loads((tmp_path / "a.json").read_text("utf-8"))] == [2, 2]
    assert "2 rows" in (tmp_path / "a.txt").read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "a.parquet", "a.txt"]


def test_the_same_answer_is_the_same_bytes(home: Path, tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        _sql(home, "-q", "lineage", "--out", str(tmp_path / name))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_lists_are_written_to_csv(home: Path) -> None:
    answer = _sql(home, "SELECT neighbours FROM neighbours LIMIT 1", "-f", "csv").stdout
    assert list(csv.reader(io.StringIO(answer)))[1] == ["[7, -1]"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Nothing was asked"),
        (["SELECT 1", "--question", "hubs"], "A query and a ready question"),
        (["nowhere.sql"], "There is no file nowhere.sql"),
        (["--question", "nothing"], "no question 'nothing'"),
        (["SELECT 1", "--format", "parquet"], "Parquet is not for a screen"),
    ],
)
def test_what_cannot_be_asked_is_told(home: Path, words: list[str], told: str) -> None:
    result = _sql(home, *words)
    assert isinstance(result.exception, SettingsError)
    assert told in str(result.exception)


def test_a_wrong_query_writes_nothing(home: Path, tmp_path: Path) -> None:
    result = _sql(home, "SELECT wrong FROM pairs", "--out", str(tmp_path / "a.csv"))
    assert isinstance(result.exception, QueryError)
    assert list(tmp_path.iterdir()) == []


def test_the_schema_and_the_questions_are_shown(home: Path) -> None:
    shown = _sql(home, "--schema").stdout
    assert all(word in shown for word in ("segments", "level_dbfs", "language_pair", "rejections", "reason"))
    listed = _sql(home, "--questions").stdout
    assert all(name in listed for name in questions())


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def measured(context):  # type: ignore[no-untyped-def]
    metadata: dict[str, Any] = {"pairs": 3, "share": 0.5, "title": "Tale", "table": dg.MetadataValue.md("x" * 300)}
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(f"of {context.partition_key}"))


def test_runs_tell_every_materialization_of_a_real_log(tmp_path: Path) -> None:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        for key in ("a", "b", "a"):
            assert dg.materialize([measured], partition_key=key, instance=instance).success
        runs = runs_of(instance)
    assert runs.schema == pl.Schema(dict(RUNS))
    assert runs.select("asset", "partition", "data_version").rows() == [
        ("measured", key, f"of {key}") for key in ("a", "b", "a")
    ]
    assert json.loads(runs["figures"][0]) == {"pairs": 3, "share": 0.5, "title": "Tale"}
    assert runs["recorded_at"].is_sorted() and runs["run_id"].n_unique() == 3
    answer = ask(Lake(tmp_path / "lake"), question("latest_runs"), frames={"runs": runs}).row(0, named=True)
    assert (answer["partitions"], answer["materializations"], answer["by_run"]) == (2, 3, runs["run_id"][2])


def test_a_home_without_an_instance_has_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert runs_of_home(tmp_path).schema == pl.Schema(dict(RUNS))
    assert list(tmp_path.iterdir()) == []


def test_the_log_of_the_home_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", "utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with dg.DagsterInstance.get() as instance:
        dg.materialize([measured], partition_key="a", instance=instance)
    monkeypatch.delenv("DAGSTER_HOME")
    assert _sql(tmp_path, "SELECT partition FROM runs", "-f", "csv").stdout == "partition\na\n"
