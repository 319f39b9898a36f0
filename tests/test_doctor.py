from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import typer
import yaml
from dagster._core.instance import InstanceRef
from dagster._daemon.types import DaemonHeartbeat
from typer.testing import CliRunner

from benchmarks.postgres import missing, temporary_postgres
from resources.settings import load_settings
from speech_mining.cli import doctor as module
from speech_mining.cli.doctor import CHECKS, AbsentError, Check, Finding, doctor, examine

app = typer.Typer(rich_markup_mode="rich")
app.command()(doctor)


def found(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    return examine()


def test_what_this_environment_has_is_found(findings: list[Finding]) -> None:
    here = ("Python", "Python packages", "FFmpeg in PyAV", "libsndfile", "Silero VAD model", "onnxruntime", "PyTorch")
    states = {finding.name: finding.state for finding in findings}
    assert {name: states[name] for name in (*here, "FAISS", "SONAR libraries")} == dict.fromkeys(
        (*here, "FAISS", "SONAR libraries"), "ok"
    )
    assert "mp3" in found(findings, "FFmpeg in PyAV").found
    assert "57 speech cards" in found(findings, "SONAR libraries").found


def test_whatever_does_not_work_has_a_fix_and_whatever_works_needs_none(findings: list[Finding]) -> None:
    for finding in findings:
        assert finding.needed_for and finding.found
        assert bool(finding.fix) == (finding.state != "ok")


def test_weights_are_named_for_the_four_languages_and_text(findings: list[Finding]) -> None:
    names = [finding.name for finding in findings if finding.name.startswith("SONAR ")]
    speech = [f"SONAR speech, {language}" for language in ("deu", "eng", "fra", "spa")]
    assert names == ["SONAR libraries", *speech, "SONAR text", "SONAR tokenizer"]


def test_weights_in_the_model_directory_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "spenc.pt").write_bytes(b"weights")
    named = {"deu": "spenc.pt", "fra": "x.pt"}
    cards = [f"name: sonar_speech_encoder_{given}@user\ncheckpoint: {file}\n" for given, file in named.items()]
    (tmp_path / "mine.yaml").write_text("---\n".join(cards))
    monkeypatch.setenv("S2S_MODEL_DIR", str(tmp_path))
    german = module._weights_finding("German", "sonar_speech_encoder_deu", "checkpoint")
    assert (german.state, german.found) == ("ok", str(tmp_path / "spenc.pt"))
    french = module._weights_finding("French", "sonar_speech_encoder_fra", "checkpoint")
    assert french.state == "optional"
    assert "x.pt is not on this machine" in french.found and "docs/encoders.md" in french.fix


def test_a_model_directory_that_does_not_exist_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S2S_MODEL_DIR", str(tmp_path / "nowhere"))
    row = module._weights_finding("German", "sonar_speech_encoder_deu", "checkpoint")
    assert row.state == "optional" and "nowhere does not exist" in row.found


def test_libraries_that_end_their_process_are_one_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "soundfile.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (row,) = module._sonar_findings()
    assert (row.name, row.state) == ("SONAR libraries", "optional")
    assert "ended with code -6" in row.found and row.fix


@pytest.mark.parametrize(
    ("package", "name"),
    [("av", "FFmpeg in PyAV"), ("faiss", "FAISS"), ("torch", "PyTorch"), ("soundfile", "libsndfile")],
)
def test_a_package_that_cannot_be_imported_is_a_row_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    finding = next(check for check in CHECKS if check.name == name).finding()
    assert finding.state == "missing"
    assert finding.found.startswith("ModuleNotFoundError") and package in finding.found
    assert finding.fix


def test_something_optional_that_breaks_is_not_called_missing() -> None:
    def breaks() -> str:
        raise RuntimeError("driver too old")

    assert Check("GPU", "speed", breaks, "a newer driver", needed=False).finding() == Finding(
        "GPU", "optional", "RuntimeError: driver too old", "speed", "a newer driver"
    )
    assert Check("GPU", "speed", breaks, "a newer driver").finding().state == "missing"


def test_too_little_room_is_told_with_both_figures() -> None:
    assert module._enough(8.04, 2.0, "free") == "8.0 GiB free"
    with pytest.raises(AbsentError, match=r"1\.5 GiB free, at least 2 GiB are needed"):
        module._enough(1.5, 2.0, "free")


def test_a_package_of_the_wrong_version_is_told() -> None:
    from packaging.requirements import Requirement

    assert module._unmet(Requirement("numpy>=1")) == ""
    assert module._unmet(Requirement("numpy<1")).endswith("(required: <1)")
    assert module._unmet(Requirement("no-such-package>=3")) == "no-such-package is not installed (required: >=3)"


def test_the_json_is_a_list_of_rows_alone_and_the_exit_code_follows_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, findings: list[Finding]
) -> None:
    monkeypatch.setattr(module, "examine", lambda: findings)
    ran = CliRunner().invoke(app, ["--json"])
    rows = json.loads(ran.stdout)
    assert {"name", "state", "found", "needed_for", "fix"} == set(rows[0])
    assert {row["state"] for row in rows} <= {"ok", "missing", "optional"}
    assert ran.exit_code == int(any(row["state"] == "missing" for row in rows))


@pytest.mark.parametrize(("state", "code", "verdict"), [("ok", 0, "needs is here"), ("missing", 1, "Missing: Disk")])
def test_the_table_ends_in_a_verdict(
    monkeypatch: pytest.MonkeyPatch, state: module.State, code: int, verdict: str
) -> None:
    rows = [Finding("Disk", state, "[1.0] GiB", "data"), Finding("GPU", "optional", "none", "speed", "buy one")]
    monkeypatch.setattr(module, "examine", lambda: rows)
    ran = CliRunner().invoke(app, [], env={"COLUMNS": "160"})
    assert ran.exit_code == code
    assert verdict in ran.stdout and "[1.0] GiB" in ran.stdout and "buy one" in ran.stdout


# What other packages offer


class Offer:
    """An entry point of the group `speech_mining.checks`."""

    name = "offered"

    def __init__(self, look: Callable[[], list[Finding]]) -> None:
        self.load = lambda: look


def test_checks_that_other_packages_offer_are_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Finding("Clock", "ok", "five to twelve", "schedules")
    monkeypatch.setattr(module, "_offers", lambda: [Offer(lambda: [clock])])
    monkeypatch.setattr(module, "CHECKS", ())
    monkeypatch.setattr(module, "_sonar_findings", list)
    assert examine() == [clock]


def test_an_offer_that_breaks_is_one_row_and_no_crash() -> None:
    def breaks() -> list[Finding]:
        raise ImportError("no module named dagster")

    (row,) = module._offered(Offer(breaks))  # type: ignore[arg-type]
    assert (row.name, row.state) == ("Checks of offered", "optional")
    assert "no module named dagster" in row.found and row.fix


# What is looked at in a home and its instance


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an instance, as `make dev` makes it, whose daemon never ran."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(
        "concurrency: {pools: {granularity: op}}\nrun_monitoring: {enabled: true}\ntelemetry: {enabled: false}\n"
        "run_retries: {enabled: true, max_retries: 3, retry_on_asset_or_op_failure: false}\n"
    )
    return tmp_path


def of_home() -> dict[str, Finding]:
    from resources.instance_checks import findings

    return {finding.name: finding for finding in findings()}


@contextmanager
def opened(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home / "dagster"))) as instance:
        yield instance


def test_the_pools_of_an_instance_are_held_against_the_settings(home: Path) -> None:
    from resources.pools import set_pools

    before = of_home()["Pools"]
    assert (before.state, before.fix) == ("optional", "s2s pools --apply")
    assert "gpu: no limit, 0 wait, the settings say 1" in before.found
    with opened(home) as instance:
        set_pools(instance, load_settings())
        instance.event_log_storage.claim_concurrency_slot("cpu", "0123456789ab", "step")
    found = of_home()
    assert found["Pools"].state == "ok"
    assert "cpu: 1 of 2 taken by runs 01234567, 0 wait" in found["Pools"].found
    assert (found["Stale slots"].state, found["Stale slots"].found) == ("optional", "step of run 01234567 (gone)")


def test_what_looks_after_runs_is_told_and_a_daemon_that_never_ran_is_noticed(home: Path) -> None:
    found = of_home()
    assert found["Dagster instance"].found.startswith("SQLite storage, 0 runs")
    assert found["Run retries"].found == "on, 3 times, not where a step failed by itself"
    assert found["Run monitoring"].state == "ok" and "the code server notices" in found["Run monitoring"].found
    assert found["Daemons"].state == "optional" and "monitoring never" in found["Daemons"].found
    with opened(home) as instance:
        for name in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), name, None, None))
    assert of_home()["Daemons"].state == "ok"


def test_an_instance_without_retries_and_monitoring_is_told_how_to_get_them(home: Path) -> None:
    (home / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    found = of_home()
    for name in ("Run retries", "Run monitoring"):
        assert found[name].state == "optional" and "dagster.yaml" in found[name].fix


def test_without_an_instance_one_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    found = of_home()
    assert "Pools" not in found
    assert found["Dagster instance"].found == f"There is no Dagster instance in {tmp_path / 'dagster'}."


def test_an_instance_whose_storage_does_not_answer_is_a_row(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "dagster" / "dagster.yaml").write_text(
        "storage: {postgres: {postgres_url: 'postgresql+psycopg2://nobody:secret@127.0.0.1:9/none'}}\n"
    )
    monkeypatch.setattr("dagster_postgres.utils.time.sleep", lambda _: None)
    row = of_home()["Dagster instance"]
    assert row.state == "optional" and "127.0.0.1" in row.found
    assert "secret" not in row.found


@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_an_instance_on_postgres_answers_and_takes_the_pools(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resources.pools import set_pools

    told = yaml.safe_load((Path(__file__).parent.parent / "deploy" / "dagster.yaml").read_text("utf-8"))
    with temporary_postgres() as cluster:
        (home / "dagster" / "dagster.yaml").write_text(yaml.safe_dump({**told, "storage": cluster.storage}))
        before = of_home()
        assert before["Dagster instance"].found.startswith("Postgres storage, 0 runs")
        assert before["Pools"].state == "optional" and "gpu: 0 of 1 taken" in before["Pools"].found
        with opened(home) as instance:
            assert set_pools(instance, load_settings()) == {"gpu": (None, 1), "cpu": (None, 2), "download": (None, 2)}
        assert of_home()["Pools"].state == "ok"
    assert cluster.password not in str(before)


def test_settings_that_cannot_be_read_are_the_only_row(home: Path) -> None:
    (home / "s2s.toml").write_text("languages = 3\n")
    found = of_home()
    assert list(found) == ["Settings"] and found["Settings"].state == "missing"
    assert "languages" in found["Settings"].found


def test_a_lake_that_cannot_be_written_or_has_no_room_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_home()["Lake"].found.startswith(f"{home / 'lake'}, writable")
    monkeypatch.setenv("S2S_STORAGE__RESERVE_MB", str(10**12))
    assert of_home()["Lake"].state == "missing"
    monkeypatch.setenv("S2S_STORAGE_URL", "/proc/lake")
    monkeypatch.setattr("resources.instance_checks.os.access", lambda *_: False)  # root may write anywhere
    assert "cannot be written" in of_home()["Lake"].found


def test_the_budget_in_force_says_where_it_comes_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_MEMORY__LIMIT_GB", "64")
    monkeypatch.setenv("S2S_POOLS__GPU", "4")
    assert "a search 8.0 GB (memory.limit_gb, 64.0 GB; memory.gpu_share among 4" in of_home()["Memory budgets"].found


def test_devices_and_their_holders_are_told_and_a_pool_that_is_too_large_is_noticed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resources.devices import Device, Holder, hold_one, lock_folder

    devices = [Device(place, f"GPU-{place}", "H200") for place in range(2)]
    monkeypatch.setattr("resources.devices.visible_devices", lambda: tuple(devices))
    holder = Holder(4711, "here", "a run", "deu__speech_index", 0.0)
    with hold_one(devices[1:], lock_folder(load_settings()), holder, wait_s=0):
        told = of_home()["Devices"].found
    assert told == ("H200 (GPU-0): free; H200 (GPU-1): process 4711 on here, run a run, step deu__speech_index")
    monkeypatch.setenv("S2S_POOLS__GPU", "3")
    assert of_home()["Devices"].found == "pools.gpu is 3, and 2 devices are visible"


def test_the_help_shows_examples() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout
    assert "s2s doctor --json" in shown and "S2S_MODEL_DIR=models" in shown


def test_importing_the_command_loads_no_heavy_library() -> None:
    imported = (
        "import sys, speech_mining.cli.doctor; print(sorted({'torch', 'fairseq2', 'av', 'faiss'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
