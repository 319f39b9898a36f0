from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from demo.world.grammar import realise
from speech_mining.cli.app import _bind, app
from speech_mining.encoders.neural_student import NeuralStudent, is_neural_student, read_card
from speech_mining.encoders.protocol import SpeechSpan

TEACHER = "demo.world.concepts:ConceptTeacher"
CONFIG = {
    "architecture": "convolutions",
    "size": {"width": 16},
    "updates": 6,
    "projection_only_updates": 2,
    "peak_rate": 1e-2,
    "max_batch_seconds": 8.0,
    "validate_every": 3,
    "checkpoint_every": 2,
}
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not app.registered_commands:
        _bind()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Tones with sentences of the miniature world beside them; one clip cannot be decoded."""
    from demo.recipe import unseen_sentences

    folder = tmp_path / "data"
    chance = np.random.default_rng(0)
    for split, first in (("train", 0), ("dev", 8)):
        (folder / split).mkdir(parents=True)
        for row, sentence in enumerate(unseen_sentences(f"command-{split}", 8 if split == "train" else 4, ())):
            tone = 0.1 * np.sin(2 * np.pi * (200 + 100 * (row + first)) * np.arange(12_000) / 16_000)
            clip = folder / split / f"{split}{row}.wav"
            soundfile.write(clip, tone + 0.01 * chance.standard_normal(12_000), 16_000)
            clip.with_suffix(".txt").write_text(realise(sentence, "deu"), "utf-8")
    (folder / "train" / "train99.wav").write_bytes(b"no audio")
    (folder / "train" / "train99.txt").write_text("Der Wolf sah den König.", "utf-8")
    return folder


def command(data: Path, out: Path, config: Path, *others: str) -> list[str]:
    given = ["--config", str(config), "--data", str(data), "--teacher", TEACHER, "--language", "deu"]
    return ["train", *given, "--out", str(out), *others]


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_the_command_trains_a_student_that_embeds(kind: str, data: Path, tmp_path: Path) -> None:
    config, out = tmp_path / f"config.{kind}", tmp_path / "deu.safetensors"
    lines = [f"{name} = {json.dumps(value)}" for name, value in CONFIG.items() if name != "size"]
    config.write_text(json.dumps(CONFIG) if kind == "json" else "\n".join([*lines, "[size]", "width = 16"]))
    done = CliRunner().invoke(app, command(data, out, config))
    assert done.exit_code == 0, done.output
    assert is_neural_student(out)
    assert "R@1 on dev" in done.output
    card = read_card(out)
    assert (card.trained["config"]["updates"], card.languages, card.dimension) == (6, ("deu",), 512)
    waveform = np.sin(np.arange(16_000) / 7).astype(np.float32)
    assert len(NeuralStudent.load(out, device="cpu").embed([SpeechSpan(waveform, 0, 16_000, "deu")]).vectors) == 1
    assert (tmp_path / "deu.training" / "student.safetensors").exists()


def test_a_set_without_dev_is_dealt_and_says_so(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    out = tmp_path / "deu.safetensors"
    done = CliRunner().invoke(app, command(data / "train", out, config, "--dev-share", "0.4"))
    assert done.exit_code == 0, done.output
    assert "no dev split: 40% of its speakers are set apart" in done.stderr
    assert "1 clips are left out: not_audio" in done.stderr


def test_the_command_needs_configuration_data_and_a_file_to_write(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "--data", str(tmp_path)])
    assert "--config, --data and --out" in str(done.exception)


def test_a_configuration_that_is_no_table_is_told(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text("[1, 2")
    done = CliRunner().invoke(app, command(data, tmp_path / "out.safetensors", config))
    assert "cannot be read" in str(done.exception)


@pytest.mark.slow
def test_ctrl_c_leaves_a_folder_that_the_same_command_goes_on_from(data: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "config.json", tmp_path / "deu.safetensors"
    config.write_text(json.dumps({**CONFIG, "updates": 150, "validate_every": 150, "checkpoint_every": 150}))
    folder = tmp_path / "scratch"
    given = command(data, out, config, "--resume", str(folder))
    script = f"from speech_mining.cli.app import main; import sys; sys.argv = ['s2s', *{given!r}]; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not list(folder.glob("checkpoints/*/best-*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 130, told
    assert "the same command goes on from its checkpoint" in " ".join(told.split())
    assert not out.exists()
    (checkpoint,) = folder.glob("checkpoints/*/checkpoint-*")
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert f"goes on after update {int(checkpoint.name[-8:])} of 150" in done.stderr
    assert is_neural_student(out)
