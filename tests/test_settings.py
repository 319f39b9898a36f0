"""Settings: defaults, the file, the environment, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from resources.settings import FILE, MiningSettings, load_settings, origins
from speech_mining.errors import SettingsError
from speech_mining.mining.selection import SELECTIONS


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))


def _write(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, "utf-8")


def test_the_defaults_are_the_papers(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.mining.k, settings.mining.margin, settings.mining.threshold) == (16, "ratio", 1.06)
    assert settings.mining.selection == "greedy"
    assert (settings.segmentation.min_s, settings.segmentation.max_s) == (3.0, 20.0)
    assert settings.mined_pairs == ("deu-eng", "deu-fra", "deu-spa", "eng-fra", "eng-spa", "fra-spa")
    assert settings.lake_url == str(tmp_path / "lake")


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, 'languages = ["deu", "eng"]\n[mining]\nthreshold = 1.07\nk = 8\n')
    monkeypatch.setenv("S2S_MINING__THRESHOLD", "1.09")
    settings = load_settings()
    assert settings.languages == ("deu", "eng")
    assert (settings.mining.threshold, settings.mining.k) == (1.09, 8)
    told = origins(settings)
    assert told["mining.threshold"] == ("1.09", "S2S_MINING__THRESHOLD")
    assert told["mining.k"] == ("8", str(tmp_path / FILE))
    assert told["mining.margin"] == ("ratio", "default")


def test_the_selection_is_chosen_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_MINING__SELECTION", "optimal")
    assert load_settings().mining.selection == "optimal"


def test_every_selection_of_the_library_can_be_set_and_no_other() -> None:
    assert get_args(MiningSettings.model_fields["selection"].annotation) == SELECTIONS


def test_a_list_in_the_environment_is_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_LANGUAGES", "spa, deu")
    monkeypatch.setenv("S2S_SPEECH_PAIRS", "deu-spa")
    assert load_settings().mined_pairs == ("deu-spa",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treshold = 1.0", "treshold"),
        ("[mining]\nmargin = 'ration'", "mining.margin"),
        ("[mining]\nselection = 'best'", "mining.selection"),
        ("[mining]\nfloor = 1.2", "floor"),
        ("[segmentation]\nmin_s = 30", "min_s"),
        ("languages = ['German']", "languages"),
        ("speech_pairs = ['eng-deu']", "alphabetical"),
        ("[encoders]\nita = 'sonar'", "ita"),
        ("truth = 'nowhere.parquet'", "no file nowhere.parquet"),
        ("languages = [", "s2s.toml"),
    ],
)
def test_what_is_wrong_is_named_with_the_place_to_correct_it(tmp_path: Path, text: str, message: str) -> None:
    _write(tmp_path, text)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_only_the_embedded_library_brings_a_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = load_settings().truth_path
    assert truth is not None
    assert truth.name == "truth.parquet"
    monkeypatch.setenv("S2S_CATALOGUE_URL", "https://librivox.org")
    assert load_settings().truth_path is None


def test_a_command_that_finds_no_server_says_so_in_one_paragraph(tmp_path: Path) -> None:
    environment = {**os.environ, "S2S_CATALOGUE_URL": "http://127.0.0.1:9/", "S2S_LIBRIVOX__FIRST_WAIT_S": "0"}
    command = [sys.executable, "-c", "from speech_mining.cli.app import main; main()", "demo", "--home", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert told.returncode == 2
    words = " ".join(told.stderr.split())
    assert "could not be had: ConnectError" in words
    assert words.count("Fix:") == 1
    assert "Traceback" not in told.stderr
