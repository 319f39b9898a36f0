"""No secret where anybody can read it: a whole run with secrets in its environment, and then a search everywhere."""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from s3fs import S3FileSystem

from demo.home import prepare_home
from demo.pipeline import first_stages, further_stages, run_stage
from resources.secrets import holds_secret
from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.errors import SettingsError, SpeechMiningError
from tests.s3_server import new_bucket, s3_server

pytestmark = pytest.mark.timeout(1800)  # a whole mine, in the fixture

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAhushhushhush0001",
    "AWS_SECRET_ACCESS_KEY": "hush-secret-key-0002",
    "AWS_SESSION_TOKEN": "hush-session-token-0003",
    "DAGSTER_PG_PASSWORD": "hush-postgres-0004",
    "HF_TOKEN": "hf_hush0005",
    "OUR_WEBHOOK": "http://127.0.0.1:9/hush-webhook-0006",
}


SKIPPED = re.compile("text|report|truth")
"""Assets that only repeat, for the search for secrets, what others do."""


@dataclass(frozen=True)
class Mined:
    """A small mine that ran through, a run that failed, and where both left something."""

    home: Path
    settings: Settings
    output: str


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mined]:
    home = tmp_path_factory.mktemp("home")
    before = dict(os.environ)
    try:
        with s3_server() as server:
            os.environ.update(SECRETS)
            os.environ["S2S_HOME"] = str(home)
            os.environ["S2S_STORAGE_URL"] = new_bucket(server)
            os.environ["S2S_ALERTS__WEBHOOK"] = "OUR_WEBHOOK"
            os.environ["S2S_LANGUAGES"] = "deu,fra"
            os.environ["S2S_SPEECH_TEXT_PAIRS"] = ""
            os.environ["S2S_LIBRIVOX__LIMIT_BOOKS"] = "1"
            os.environ["S2S_LIBRIVOX__STEP_RETRIES"] = "0"
            os.environ["S2S_STORAGE__RESERVE_MB"] = "1"
            settings = prepare_home(home)
            output = _mine(settings)
            for command in (["settings", "--json"], ["settings"], ["doctor"], ["pools"]):
                told = _command(*command)
                output += told.stdout + told.stderr
            yield Mined(home, settings, output)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _mine(settings: Settings) -> str:
    lines: list[str] = []
    definitions = build(settings)
    with dg.DagsterInstance.get() as instance:
        for stage in first_stages(settings):
            run_stage(definitions, instance, stage, lines.append)
        for stage in further_stages(settings, instance):
            if not any(SKIPPED.search(key.to_user_string()) for key in stage.assets):
                run_stage(definitions, instance, stage, lines.append)
        os.environ["S2S_STORAGE_URL"] = "s3://no-such-bucket/lake"
        broken = load_settings()
        with pytest.raises(SpeechMiningError) as failed:
            run_stage(build(broken), instance, first_stages(broken)[0], lines.append)
        os.environ["S2S_STORAGE_URL"] = settings.storage_url
    return "\n".join([*lines, str(failed.value)])


def _command(*words: str) -> "subprocess.CompletedProcess[str]":
    code = "from speech_mining.cli.app import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


def found_in(text: str) -> list[str]:
    """Names of the secrets whose value stands in a text."""
    return [name for name, value in SECRETS.items() if value in text]


def texts_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Everything that is written below a folder, readable: tables as JSON, databases as SQL, the rest as it is."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield str(path), _text(path)


def _text(path: Path) -> str:
    if path.suffix == ".parquet":
        return pl.read_parquet(path).select(pl.struct(pl.all()).struct.json_encode()).to_series().str.join("\n").item()
    if path.read_bytes()[:6] == b"SQLite":
        with sqlite3.connect(path) as connection:
            return "\n".join(connection.iterdump())
    return path.read_bytes().decode("utf-8", errors="replace")


@pytest.mark.slow
def test_a_whole_run_leaves_no_secret_in_its_records_nor_in_the_home(mined: Mined) -> None:
    found = {name: secrets for name, text in texts_of(mined.home) if (secrets := found_in(text))}
    assert not found
    with dg.DagsterInstance.get() as instance:
        runs = instance.get_runs()
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
        for run in runs:
            told = [run.tags, run.run_config, *(entry.to_json() for entry in instance.all_logs(run.run_id))]
            assert len(told) > 5
            assert not found_in(json.dumps(told, default=str)), run.tags


@pytest.mark.slow
def test_a_whole_run_leaves_no_secret_in_the_lake(mined: Mined, tmp_path: Path) -> None:
    bucket = mined.settings.storage_url.removeprefix("s3://")
    S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"]).get(bucket, str(tmp_path / "lake"), recursive=True)
    files = list(texts_of(tmp_path))
    assert any(name.endswith("corpus.parquet") for name, _ in files)
    assert not {name: secrets for name, text in files if (secrets := found_in(text))}


@pytest.mark.slow
def test_no_command_prints_a_secret(mined: Mined) -> None:
    assert "bucket does not exist" in mined.output, "the run that failed told why"
    assert "OUR_WEBHOOK" in mined.output, "settings name the variable"
    assert not found_in(mined.output)


def test_a_secret_that_is_anywhere_is_found(tmp_path: Path) -> None:
    pl.DataFrame({"a": ["x", SECRETS["HF_TOKEN"]]}).write_parquet(tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "log").write_bytes(b"\xff\x00" + SECRETS["AWS_SECRET_ACCESS_KEY"].encode())
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("CREATE TABLE t (body TEXT)")
        connection.execute("INSERT INTO t VALUES (?)", [SECRETS["DAGSTER_PG_PASSWORD"]])
    connection.close()
    assert [found_in(text) for _, text in texts_of(tmp_path)] == [
        ["HF_TOKEN"],
        ["AWS_SECRET_ACCESS_KEY"],
        ["DAGSTER_PG_PASSWORD"],
    ]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("storage_url", {"storage_url": "s3://AKIA:hush@bucket/lake"}),
        ("catalogue_url", {"catalogue_url": "https://me:hush@mirror.example.org"}),
        ("librivox.mirrors", {"librivox": {"mirrors": {"https://archive.org": ["https://hush@mirror.example.org"]}}}),
        ("text.shards.deu", {"text": {"shards": {"deu": ["https://x.example.org/a.gz?X-Amz-Signature=hush"]}}}),
        ("model_dir", {"model_dir": "s3://AKIA:hush@bucket/models"}),
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated(name: str, setting: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(**setting)
    assert name in str(refused.value)
    assert "environment" in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("setting", [{"storage_ur": "s3://A:hush@b/c"}, {"device": {"a": "https://hush@x"}}])
def test_a_setting_that_is_wrong_for_another_reason_repeats_no_secret_either(setting: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(**setting)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("s3://bucket/lake", False),
        ("s3://bucket/a@b/c", False),
        ("/data/me@home/lake", False),
        ("https://librivox.org/api?since=1&key_word=x", False),
        ("someone@example.org", False),
        ("simplecache::s3://key:word@bucket/lake", True),
        ("https://token@host/x", True),
        ("https://host/x?a=1&sig=abc", True),
        ("https://host/x?access_token=abc", True),
        ("postgresql+psycopg2://dagster:word@host/db", True),
    ],
)
def test_what_a_secret_looks_like(address: str, secret: bool) -> None:
    assert holds_secret(address) is secret


def test_the_ui_cannot_be_made_public_by_an_option(tmp_path: Path) -> None:
    asked = [sys.executable, "-m", "demo.serve", "--home", str(tmp_path), "--host", "0.0.0.0"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "unrecognized arguments: --host" in told.stderr


@pytest.mark.slow
def test_the_ui_listens_on_loopback_and_nowhere_else(tmp_path: Path) -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    asked = [sys.executable, "-m", "demo.serve", "--home", str(tmp_path), "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    served = subprocess.Popen(asked, env={**os.environ, "DAGSTER_WEBSERVER_HOST": "0.0.0.0"}, **quiet)  # type: ignore[call-overload]
    try:
        assert listening(served, port) == {"127.0.0.1"}
    finally:
        os.killpg(served.pid, 15)
        served.wait()


def listening(served: "subprocess.Popen[bytes]", port: int) -> set[str]:
    """Addresses at which somebody listens on a port, as soon as there is one."""
    import time

    while served.poll() is None:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
        open_ones = [words[1] for words in lines if words[3] == "0A" and int(words[1].split(":")[1], 16) == port]
        if open_ones:
            return {socket.inet_ntoa(bytes.fromhex(words.split(":")[0])[::-1]) for words in open_ones}
        time.sleep(0.2)
    raise AssertionError("the UI ended")
