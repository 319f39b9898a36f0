from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from speech_mining.encoders.neural_student import NeuralStudent, read_card
from speech_mining.encoders.protocol import SpeechSpan
from speech_mining.errors import EncoderError
from speech_mining.training.configuration import StudentConfig
from speech_mining.training.distillation import CURVES, TrainedStudent, train_student
from speech_mining.training.examples import Examples
from tests.student_world import QUICK, WITH_DROPOUT, tones

ROOT = Path(__file__).parents[1]


def trained(folder: Path, config: StudentConfig = QUICK, **changed: Any) -> TrainedStudent:
    given: dict[str, Any] = {"train": tones(24, 1), "dev": tones(12, 2), **changed}
    return train_student(given.pop("train"), given.pop("dev"), config, folder, **given)


# It learns


def test_training_lowers_the_loss_and_finds_clips_it_never_heard(tmp_path: Path) -> None:
    student = trained(tmp_path, replace(QUICK, updates=60, validate_every=20))
    validated = student.curves.drop_nulls("dev_recall_at_1")
    assert dict(student.curves.schema) == CURVES
    assert validated["update"].to_list() == [0, 20, 40, 60]
    first, last = validated.row(0, named=True), validated.row(-1, named=True)
    assert last["dev_loss"] < 0.4 * first["dev_loss"]
    assert last["dev_recall_at_1"] >= 0.7 > first["dev_recall_at_1"]
    assert last["examples"] > 60 and last["seconds_of_audio"] == pytest.approx(0.65 * last["examples"], rel=0.1)
    assert (student.resumed_from, student.left_out, student.skipped_updates) == (0, {}, 0)


def test_the_best_weights_are_kept_and_say_of_which_update_they_are(tmp_path: Path) -> None:
    student = trained(tmp_path)
    best = student.curves.drop_nulls("dev_recall_at_1").sort(
        ["dev_recall_at_1", "dev_loss", "update"], descending=[True, False, False]
    )
    assert student.best_update == best["update"][0]
    assert student.weights == tmp_path / "student.safetensors"
    card = read_card(student.weights)
    assert (card.trained["update"], card.languages) == (student.best_update, ("deu", "eng"))
    assert StudentConfig.of_dict(card.trained["config"]) == QUICK
    dev = tones(12, 2)
    spans = [
        SpeechSpan(waveform := dev.read(clip), 0, len(waveform), language)
        for clip, language in dev.clips.select("clip", "language").iter_rows()
    ]
    vectors = NeuralStudent.load(student.weights, device="cpu").embed(spans).vectors.astype(np.float32)
    own = dev.targets[[rows[0] for rows in dev.target_rows]].astype(np.float32)
    assert float(np.mean(1 - (vectors * own).sum(1))) == pytest.approx(best["dev_loss"][0], abs=1e-3)


@pytest.mark.parametrize("loss", ["l1", "l2", "contrastive"])
def test_every_loss_teaches(loss: Any, tmp_path: Path) -> None:
    student = trained(tmp_path, replace(QUICK, loss=loss, temperature=0.1, validate_every=30))
    dev = student.curves["dev_loss"].drop_nulls()
    assert dev[-1] < dev[0]


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        (
            "wav2vec2",
            {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "conv_dim": [8] * 7,
                "num_conv_pos_embeddings": 8,
                "num_conv_pos_embedding_groups": 2,
                "feat_extract_norm": "layer",
            },
        ),
        (
            "w2v-bert",
            {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
        ),
    ],
)
def test_transformers_learn_and_only_what_is_not_frozen_moves(
    architecture: Any, size: dict[str, Any], tmp_path: Path
) -> None:
    config = replace(QUICK, architecture=architecture, size=size, pooling="bos", updates=6, checkpoint_every=3)
    start = trained(tmp_path / "start", replace(config, updates=1, peak_rate=1e-30))
    student = trained(tmp_path / "trained", replace(config, peak_rate=3e-3))
    before, after = load_file(start.weights), load_file(_last(tmp_path / "trained") / "weights.safetensors")
    moved = {name for name, value in after.items() if not np.allclose(value, before[name], atol=1e-9)}
    frozen = {name for name in after if name.startswith("body.model.feature_extractor")}
    assert bool(frozen) == (architecture == "wav2vec2")
    assert not moved & frozen
    assert {name for name in after if name.startswith("body.model.encoder.layers") and "weight" in name} <= moved
    assert student.curves["loss"].drop_nulls()[-1] < student.curves["loss"].drop_nulls()[0]


# The projection comes first


def test_while_the_projection_learns_alone_the_body_stays_as_it_was(tmp_path: Path) -> None:
    config = replace(QUICK, updates=8, projection_only_updates=4, checkpoint_every=1, validate_every=8)
    seen: dict[int, dict[str, bytes]] = {}

    def look(done: int, total: int, /) -> None:
        if done:
            weights = load_file(_last(tmp_path) / "weights.safetensors")
            seen[done] = {name: value.tobytes() for name, value in weights.items()}

    trained(tmp_path, config, progress=look)
    body = [name for name in seen[1] if name.startswith("body.")]
    assert all(seen[1][name] == seen[4][name] for name in body)
    assert seen[1]["projection.weight"] != seen[4]["projection.weight"]
    assert seen[1]["attention.weight"] != seen[4]["attention.weight"]
    assert all(seen[4][name] != seen[5][name] for name in body if name != "body.mask_vector")


def _last(folder: Path) -> Path:
    return sorted(folder.glob("checkpoints/*/checkpoint-*"))[-1]


# Kills


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_leaves_the_same_bytes(tmp_path: Path) -> None:
    config = json.dumps(WITH_DROPOUT.as_dict())
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _finish(whole, config)
    chance = random.Random(2)
    for update in sorted(chance.sample(range(1, QUICK.updates), 3)):
        _kill_after(update, killed, config)
        assert not (killed / "student.safetensors").exists()
    _finish(killed, config)
    assert (killed / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    for name in ("weights.safetensors", "optimiser.safetensors", "state.json"):
        assert (_last(killed) / name).read_bytes() == (_last(whole) / name).read_bytes()


def _command(folder: Path, config: str) -> list[str]:
    return [sys.executable, "-m", "tests.student_world", str(folder), config]


def _environment(**others: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **others}


def _finish(folder: Path, config: str) -> None:
    subprocess.run(_command(folder, config), cwd=ROOT, env=_environment(), check=True, capture_output=True)


def _kill_after(update: int, folder: Path, config: str) -> None:
    with subprocess.Popen(
        _command(folder, config), cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= update:
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.read()
    assert process.returncode == -signal.SIGKILL


def test_whoever_stops_a_training_between_two_updates_finds_a_checkpoint_there(tmp_path: Path) -> None:
    def stop(done: int, total: int, /) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", WITH_DROPOUT, progress=stop)
    assert _last(tmp_path / "stopped").name == "checkpoint-00000007"
    told: list[str] = []
    student = trained(tmp_path / "stopped", WITH_DROPOUT, tell=told.append)
    assert student.resumed_from == 7
    assert told == ["Training goes on after update 7 of 30."]
    assert student.weights.read_bytes() == trained(tmp_path / "whole", WITH_DROPOUT).weights.read_bytes()


def test_a_checkpoint_of_another_configuration_or_other_data_is_not_gone_on_from(tmp_path: Path) -> None:
    trained(tmp_path)
    told: list[str] = []
    other = trained(tmp_path, replace(QUICK, seed=1), tell=told.append)
    assert other.resumed_from == 0
    assert "another configuration or other data" in told[0]
    assert trained(tmp_path, train=tones(25, 1)).resumed_from == 0
    assert trained(tmp_path).resumed_from == QUICK.updates  # the first is still there


def test_a_damaged_checkpoint_is_told_and_passed_over(tmp_path: Path) -> None:
    whole = trained(tmp_path).weights.read_bytes()
    optimiser = _last(tmp_path) / "optimiser.safetensors"
    content = bytearray(optimiser.read_bytes())
    content[-1] ^= 1
    optimiser.write_bytes(content)
    told: list[str] = []
    student = trained(tmp_path, tell=told.append)
    damage = "optimiser.safetensors is not what was written"
    assert told == [f"The checkpoint checkpoint-00000030 is damaged and was passed over: {damage}."]
    assert (student.resumed_from, student.weights.read_bytes()) == (0, whole)


def test_no_file_of_a_training_is_a_pickle(tmp_path: Path) -> None:
    trained(tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    assert kinds == {".safetensors", ".json"}


# What cannot be learned from


def test_a_bad_clip_is_counted_and_costs_nothing_else(tmp_path: Path) -> None:
    student = trained(tmp_path, train=tones(24, 1, broken=frozenset({"3", "8"})))
    assert student.left_out == {"not_audio": 2}
    heard = student.curves["examples"][-1]
    assert 0 < heard < trained(tmp_path / "whole").curves["examples"][-1]


def test_dev_clips_that_cannot_be_heard_are_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    student = trained(tmp_path, dev=tones(12, 2, broken=frozenset({"0", "5"})), tell=told.append)
    assert told == ["2 dev clips cannot be heard: 2 not_audio."]
    assert student.curves["dev_recall_at_1"].drop_nulls().len() == 4


def test_clips_beyond_the_limits_are_counted_before_any_is_read(tmp_path: Path) -> None:
    student = trained(tmp_path, replace(QUICK, shortest_s=0.5, longest_s=0.8))
    lengths = tones(24, 1).clips["duration_s"]
    assert student.left_out == {"too_long": int((lengths > 0.8).sum()), "too_short": int((lengths < 0.5).sum())}


def test_where_no_clip_can_be_heard_training_ends_with_the_reason(tmp_path: Path) -> None:
    silent = tones(24, 1, broken=frozenset(str(row) for row in range(24)))
    with pytest.raises(EncoderError, match="No clip of 20 updates in a row, up to update 20, can be heard: not_audio"):
        trained(tmp_path, train=silent)


def test_a_loss_that_is_no_number_is_skipped_and_too_many_in_a_row_are_an_error(tmp_path: Path) -> None:
    class Spoilt(Examples):
        """Every clip turns the network's arithmetic to infinity: what a rate that is too high does."""

    spoilt = tones(24, 1)
    targets = spoilt.targets.copy()
    examples = Spoilt(spoilt.clips, targets, spoilt.target_rows, spoilt.read)
    targets[:] = np.nan  # after the check
    with pytest.raises(EncoderError, match=r"no number in 20 updates in a row, up to update 20.*lower peak_rate"):
        trained(tmp_path, train=examples)


def test_some_losses_that_are_no_number_are_counted_and_leave_the_weights_whole(tmp_path: Path) -> None:
    spoilt = tones(24, 1)
    targets = np.concatenate([spoilt.targets, spoilt.targets[:1]])
    rows = [(len(targets) - 1,) if row == 0 else mine for row, mine in enumerate(spoilt.target_rows)]
    examples = Examples(spoilt.clips, targets, rows, spoilt.read)
    targets[-1] = np.nan
    student = trained(tmp_path, train=examples)
    assert 0 < student.skipped_updates < QUICK.updates
    assert all(np.isfinite(value).all() for value in load_file(_last(tmp_path) / "weights.safetensors").values())


@pytest.mark.parametrize("side", ["train", "dev"])
def test_nothing_to_train_or_examine_on_is_an_error(side: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"Of 0 clips to (train|examine)"):
        trained(tmp_path, **{side: tones(4, 1).subset(np.zeros(0, np.int64))})


def test_half_precision_is_refused_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EncoderError, match="fp16 on the CPU"):
        trained(tmp_path, replace(QUICK, precision="fp16"))


def test_mixed_precision_learns_too(tmp_path: Path) -> None:
    student = trained(tmp_path, replace(QUICK, precision="bf16"))
    dev = student.curves["dev_loss"].drop_nulls()
    assert dev[-1] < 0.7 * dev[0]
    assert {value.dtype for value in load_file(_last(tmp_path) / "weights.safetensors").values()} == {
        np.dtype("float32")
    }


# Several processes


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one_that_accumulates_two_batches(tmp_path: Path) -> None:
    config = replace(WITH_DROPOUT, updates=8, projection_only_updates=3, validate_every=8, checkpoint_every=4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            _command(tmp_path / "two", json.dumps(config.as_dict())),
            cwd=ROOT,
            env=_environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    alone = trained(tmp_path / "one", replace(config, accumulation=2))
    two, one = (load_file(_last(tmp_path / name) / "weights.safetensors") for name in ("two", "one"))
    for name in one:
        # A bias of attention's keys changes no output: its gradient is rounding, of which Adam makes whole steps.
        means = np.ones(len(one[name]), bool) if one[name].ndim else np.ones((), bool)
        if name.endswith("in_proj_bias"):
            means[len(means) // 3 : 2 * len(means) // 3] = False
        np.testing.assert_allclose(two[name][means], one[name][means], atol=1e-4, err_msg=name)
    state = json.loads((_last(tmp_path / "two") / "state.json").read_text("utf-8"))["state"]
    assert state["examples"] == alone.curves["examples"][-1]
    assert (tmp_path / "two" / "student.safetensors").exists()
    start = load_file(trained(tmp_path / "start", replace(config, updates=1, peak_rate=1e-30)).weights)
    assert max(np.abs(one[name] - start[name]).max() for name in one) > 1e-2  # far more than the rounding above


# The curve


def test_the_learning_curve_is_there_for_tensorboard_once_for_each_update(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    checkpoints, kept = tmp_path / "checkpoints", tmp_path / "kept"

    def stop(done: int, total: int, /) -> None:
        if done == 9:  # as a kill leaves it: rows up to 9, a checkpoint of 8
            shutil.copytree(checkpoints, kept)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, progress=stop)
    shutil.rmtree(checkpoints)
    kept.rename(checkpoints)
    student = trained(tmp_path)
    assert student.resumed_from == 8
    (place,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(place))
    events.Reload()
    recalls = [(event.step, round(event.value, 6)) for event in events.Scalars("dev/recall_at_1")]
    validated = student.curves.drop_nulls("dev_recall_at_1")
    assert recalls == [(row[0], round(row[1], 6)) for row in validated.select("update", "dev_recall_at_1").iter_rows()]
    losses = student.curves.drop_nulls("loss")["update"].to_list()
    assert [event.step for event in events.Scalars("train/loss")] == losses
