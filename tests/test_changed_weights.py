"""Weights that are not what their card recorded, and weights that would run code: neither is ever loaded."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speech_mining.encoders.cards import sha256_once
from speech_mining.encoders.huggingface import HuggingFaceText
from speech_mining.encoders.laser import Laser
from speech_mining.encoders.models import add_model
from speech_mining.encoders.sonar import SonarSpeech, SonarText
from speech_mining.errors import EncoderError
from tests.test_huggingface import build
from tests.test_laser import build_laser
from tests.tiny_sonar import build_speech, build_text

Load = Callable[[Path], object]
WITH_A_CARD: dict[str, tuple[Callable[[Path], str], Load]] = {
    "sonar speech": (build_speech, lambda at: SonarSpeech({"deu": "mine"}, device="cpu", model_dir=at).load("deu")),
    "sonar text": (build_text, lambda at: SonarText("mine", device="cpu", model_dir=at).load()),
    "laser": (build_laser, lambda at: Laser("mine", device="cpu", model_dir=at).load()),
}
EVERY_KIND = [*WITH_A_CARD, "hugging face"]


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def added(kind: str, root: Path) -> tuple[Path, Path, Load]:
    """A model directory in which `s2s models add` recorded a tiny model: it, the weights there, how they are loaded."""
    models, given = root / "models", root / "given"
    given.mkdir(parents=True)
    if kind == "hugging face":
        add_model(build(given), "mine", models)
        return (
            models,
            models / "mine" / "model.safetensors",
            lambda at: HuggingFaceText("mine", device="cpu", model_dir=at).load(),
        )
    make, load = WITH_A_CARD[kind]
    name = make(given)
    models.mkdir()
    card = (given / f"{name}.yaml").read_text("utf-8").replace(f"name: {name}", "name: mine")
    (models / "mine.yaml").write_text(card)
    add_model(given, "mine", models)
    return models, models / "mine" / f"{name}.pt", load


def exchange_a_byte(path: Path) -> None:
    """As a worn disk does: the same size, the same time."""
    about, content = path.stat(), bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_weights_that_changed_since_they_were_added_are_refused_with_both_digests(kind: str, tmp_path: Path) -> None:
    models, weights, load = added(kind, tmp_path)
    assert load(models)
    recorded = digest(weights)
    exchange_a_byte(weights)
    told = rf"{weights.name} is not the one that the card mine recorded: its SHA-256 is {digest(weights)}"
    with pytest.raises(EncoderError, match=rf"{told}.*Expected: {recorded}.*models verify.*models add"):
        load(models)


def test_a_changed_tokenizer_is_refused_as_weights_are(tmp_path: Path) -> None:
    models, _, load = added("sonar text", tmp_path)
    with (models / "mine" / "tiny.model").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(EncoderError, match=r"tiny\.model is not the one"):
        load(models)


def test_the_name_of_another_file_does_not_excuse_a_changed_one_nor_does_an_upper_case_digest(tmp_path: Path) -> None:
    models, weights, load = added("laser", tmp_path)
    card = models / "mine.yaml"
    card.write_text(card.read_text("utf-8").replace(digest(weights), digest(weights).upper()), "utf-8")
    assert load(models)
    (models / "mine" / "other.pt").write_bytes(weights.read_bytes()[:-1])
    card.write_text(card.read_text("utf-8").replace("checkpoint: mine/", "checkpoint: ./mine/../mine/"), "utf-8")
    exchange_a_byte(weights)
    with pytest.raises(EncoderError, match="is not the one"):
        load(models)


def test_a_card_without_a_digest_is_loaded_and_one_whose_digests_are_no_mapping_is_told(tmp_path: Path) -> None:
    models, _, load = added("laser", tmp_path)
    card = models / "mine.yaml"
    without = card.read_text("utf-8").split("sha256:")[0]
    card.write_text(without, "utf-8")
    assert load(models)
    card.write_text(f"{without}sha256: abc\n", "utf-8")
    with pytest.raises(EncoderError, match=r"card mine in .* has a sha256 that is no mapping"):
        load(models)


def test_a_file_is_read_for_its_digest_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    first, about = sha256_once(file), file.stat()
    assert first == digest(file)
    file.write_bytes(b"xyz")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert sha256_once(file) == first  # same size, same time: not read again in this process
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert sha256_once(file) == digest(file) != first


def test_safetensors_put_beside_recorded_weights_are_refused(tmp_path: Path) -> None:
    models, given = tmp_path / "models", build(tmp_path / "given", safe=False)
    add_model(given, "mine", models)
    encoder = HuggingFaceText("mine", device="cpu", model_dir=models)
    assert encoder.load()
    (models / "mine" / "model.safetensors").write_bytes((build(tmp_path / "b") / "model.safetensors").read_bytes())
    with pytest.raises(EncoderError, match=r"holds model\.safetensors, which its card mine does not record"):
        HuggingFaceText(str(models / "mine"), device="cpu", model_dir=models).load()


def test_a_recorded_file_that_is_gone_is_the_error_of_missing_weights(tmp_path: Path) -> None:
    models, _, load = added("hugging face", tmp_path)
    (models / "mine" / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"model mine is not on this machine: mine/2_Dense/model\.safetensors.*add"):
        load(models)


# Untrusted pickles


def traps(path: Path, sprung: Path) -> dict[str, Callable[[], object]]:
    """The ways in which a checkpoint can hold code: torch's archive, its old format, and a bare pickle."""
    import torch

    state = {"model": {"weight": Trap(sprung)}, "weight": Trap(sprung)}
    return {
        "archive": lambda: torch.save(state, path),
        "old format": lambda: torch.save(state, path, _use_new_zipfile_serialization=False),
        "bare pickle": lambda: path.write_bytes(pickle.dumps(Trap(sprung), protocol=2)),
    }


@pytest.mark.parametrize("way", ["archive", "old format", "bare pickle"])
@pytest.mark.parametrize("kind", list(WITH_A_CARD))
def test_a_pickle_that_would_run_code_is_refused_by_every_loader_and_runs_none(
    kind: str, way: str, tmp_path: Path
) -> None:
    models, weights, load = added(kind, tmp_path)
    card = models / "mine.yaml"
    card.write_text(card.read_text("utf-8").split("sha256:")[0], "utf-8")  # so that the digest does not refuse it first
    traps(weights, tmp_path / "sprung")[way]()
    with pytest.raises(EncoderError, match=r"card mine, .*cannot be loaded.*pickle of more than tensors"):
        load(models)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("way", ["archive", "old format", "bare pickle"])
@pytest.mark.parametrize("place", [".", "2_Dense"])
def test_a_folder_whose_pickle_would_run_code_is_refused_and_runs_none(place: str, way: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "given", safe=False)
    traps(folder / place / "pytorch_model.bin", tmp_path / "sprung")[way]()
    with pytest.raises(EncoderError, match=r"cannot be loaded.*pickle of more than tensors"):
        HuggingFaceText(str(folder), device="cpu").load()
    assert not (tmp_path / "sprung").exists()


def test_the_trap_is_sprung_by_whoever_trusts_it(tmp_path: Path) -> None:
    import torch

    for way, lay in traps(tmp_path / "a.pt", tmp_path / "sprung").items():
        lay()
        pickle.loads((tmp_path / "a.pt").read_bytes()) if way == "bare pickle" else torch.load(
            tmp_path / "a.pt", weights_only=False
        )
        assert (tmp_path / "sprung").exists(), way
        (tmp_path / "sprung").unlink()


@pytest.mark.parametrize(
    ("kind", "line"),
    [*((kind, "restrict: false") for kind in WITH_A_CARD), ("laser", "restrict: 0"), ("laser", "restrict: null")],
)
def test_a_card_that_lifts_the_restriction_is_refused_for_every_kind(kind: str, line: str, tmp_path: Path) -> None:
    models, weights, load = added(kind, tmp_path)
    with (models / "mine.yaml").open("a") as card:
        card.write(f"{line}\n")
    traps(weights, tmp_path / "sprung")["archive"]()
    with pytest.raises(EncoderError, match="without restriction"):
        load(models)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", list(WITH_A_CARD))
def test_a_card_cannot_choose_a_loader_that_trusts_a_models_own_code(kind: str, tmp_path: Path) -> None:
    models, _, load = added(kind, tmp_path)
    card = models / "mine.yaml"
    lines = [line for line in card.read_text("utf-8").splitlines() if not line.startswith("model_family")]
    card.write_text("\n".join([*lines, "model_family: hg"]) + "\n", "utf-8")
    with pytest.raises(EncoderError, match=r"model_family|family field"):
        load(models)


def test_a_tokenizer_of_another_family_is_refused(tmp_path: Path) -> None:
    models, _, load = added("laser", tmp_path)
    card = models / "mine.yaml"
    card.write_text(card.read_text("utf-8").replace("tokenizer_family: lstm", "tokenizer_family: hg"), "utf-8")
    with pytest.raises(EncoderError, match=r"tokenizer_family: hg.*nllb, lstm"):
        load(models)


@pytest.mark.parametrize("kind", list(WITH_A_CARD))
def test_a_file_that_was_refused_is_added_by_the_flag_and_trusts_nobody_later(kind: str, tmp_path: Path) -> None:
    import torch

    models, weights, load = added(kind, tmp_path)
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"trap": Trap(tmp_path / "sprung")}, tmp_path / weights.name)
    with pytest.raises(EncoderError, match="--trust-pickle"):
        add_model(tmp_path / weights.name, "mine", models)
    assert not (tmp_path / "sprung").exists() and load(models)
    add_model(tmp_path / weights.name, "mine", models, trust_pickle=True)
    assert (tmp_path / "sprung").exists()
    (tmp_path / "sprung").unlink()
    kept = torch.load(weights, weights_only=True)
    assert set(state) <= set(kept) and not (tmp_path / "sprung").exists()
