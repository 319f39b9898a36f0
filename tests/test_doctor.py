from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

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


def test_the_help_shows_examples() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout
    assert "s2s doctor --json" in shown and "S2S_MODEL_DIR=models" in shown


def test_importing_the_command_loads_no_heavy_library() -> None:
    imported = (
        "import sys, speech_mining.cli.doctor; print(sorted({'torch', 'fairseq2', 'av', 'faiss'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
