"""The model directory and `s2s models`, with real checkpoints; and the choice of encoders in the Dagster resource."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from resources.encoders import Encoders
from speech_mining.cli.models import models as app
from speech_mining.encoders.cards import own_cards, sha256_of
from speech_mining.encoders.huggingface import HuggingFaceText
from speech_mining.encoders.laser import Laser
from speech_mining.encoders.models import add_model, verify_models
from speech_mining.encoders.protocol import Sentence
from speech_mining.encoders.sonar import SonarSpeech, SonarText, locate_weights
from speech_mining.errors import EncoderError
from tests.test_huggingface import OUT, build
from tests.test_laser import HIDDEN, build_laser
from tests.tiny_sonar import build_speech, build_text

GERMAN = "sonar_speech_encoder_deu"


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file that `weights_only` reads; which tensors it holds is nothing to the model directory."""
    import torch

    path = tmp_path / "spenc.pt"
    torch.save({"weight": torch.arange(4.0)}, path)
    return path


def ran(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def states(models: Path) -> list[str]:
    return [row.state for row in verify_models(models)]


def test_a_checkpoint_replaces_a_published_card_and_its_digest_is_recorded(models: Path, checkpoint: Path) -> None:
    added = add_model(checkpoint, GERMAN, models)
    assert added.card == f"{GERMAN}@user" and added.card_file == models / f"{GERMAN}.yaml"
    assert added.sha256 == {f"{GERMAN}/spenc.pt": digest(checkpoint)}
    assert locate_weights(GERMAN, model_dir=models).path == models / GERMAN / "spenc.pt"
    assert SonarSpeech("deu", model_dir=models).version.endswith(f"sha256-{digest(checkpoint)}")
    assert states(models) == ["ok"]


def test_a_new_name_needs_a_base_and_loads_as_the_base_does(models: Path, tmp_path: Path) -> None:
    source = tmp_path / "given"
    source.mkdir()
    build_laser(source)
    (source / "tiny_laser.yaml").rename(tmp_path / "base.yaml")
    with pytest.raises(EncoderError, match=r"no published card called mine.*--base"):
        add_model(source, "mine", models)
    assert not models.exists()
    added = add_model(source, "mine", models, base="laser2_text_encoder")
    assert set(added.sha256) == {"mine/tiny_laser.pt", "mine/tiny.spm"}
    assert Laser("mine", model_dir=models).dimension == 1024  # the architecture of the base
    with pytest.raises(EncoderError, match=r"card mine, .*cannot be loaded"):  # tiny weights do not fit it
        Laser("mine", device="cpu", model_dir=models).load()
    with pytest.raises(EncoderError, match="no asset card called nowhere"):
        add_model(source, "other", models, base="nowhere")


def test_a_checkpoint_and_a_tokenizer_may_come_one_after_the_other(models: Path, tmp_path: Path) -> None:
    build_laser(tmp_path)
    add_model(tmp_path / "tiny_laser.pt", "laser2_text_encoder", models)
    add_model(tmp_path / "tiny.spm", "laser2_text_encoder", models)
    (card,) = own_cards(models)
    assert set(card.digests) == {"laser2_text_encoder/tiny.spm", "laser2_text_encoder/tiny_laser.pt"}
    assert locate_weights("laser2_text_encoder", field="tokenizer", model_dir=models).path is not None
    assert states(models) == ["ok", "ok"]


def test_equal_inputs_give_equal_bytes_and_adding_again_replaces(models: Path, checkpoint: Path) -> None:
    import torch

    card = add_model(checkpoint, GERMAN, models).card_file
    before = card.read_bytes()
    add_model(checkpoint, GERMAN, models)
    assert card.read_bytes() == before
    torch.save({"weight": torch.ones(3)}, checkpoint)
    add_model(checkpoint, GERMAN, models)
    assert card.read_bytes() != before and states(models) == ["ok"]
    assert not [path for path in models.rglob("*") if path.name.startswith(".")]


def test_a_link_leaves_the_file_where_it_is(models: Path, checkpoint: Path) -> None:
    for _ in range(2):
        add_model(checkpoint, GERMAN, models, link=True)
    linked = models / GERMAN / "spenc.pt"
    assert linked.is_symlink() and linked.resolve() == checkpoint
    assert states(models) == ["ok"]
    checkpoint.unlink()
    assert states(models) == ["missing"]


def test_a_hugging_face_folder_is_found_by_its_name_and_its_code_stays_behind(models: Path, tmp_path: Path) -> None:
    source = build(tmp_path / "given")
    (source / "mine.py").write_text("raise SystemExit")
    add_model(source, "sentence-transformers/LaBSE", models)
    encoder = HuggingFaceText("sentence-transformers/LaBSE", device="cpu", model_dir=models)
    assert encoder.folder == models / "sentence-transformers" / "LaBSE"
    assert encoder.embed([Sentence("hello world", "eng")]).vectors.shape == (1, OUT)
    assert not list(models.rglob("*.py"))
    assert set(states(models)) == {"ok"} and len(states(models)) > 5
    assert SonarSpeech("deu", model_dir=models).dimension == 1024  # fairseq2 reads the directory still


def test_verify_tells_what_is_damaged_missing_or_unrecorded(models: Path, tmp_path: Path) -> None:
    build_laser(tmp_path)
    add_model(tmp_path / "tiny_laser.pt", "laser2_text_encoder", models)
    add_model(tmp_path / "tiny.spm", "laser2_text_encoder", models)
    add_model(tmp_path / "tiny_laser.pt", GERMAN, models)
    (models / "plain.yaml").write_text(
        "name: by_hand\ncheckpoint: plain.pt\n---\nname: far\ncheckpoint: https://x/y.pt"
    )
    (models / "plain.pt").write_bytes(b"x")
    damaged = models / "laser2_text_encoder" / "tiny_laser.pt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    about = damaged.stat()
    damaged.write_bytes(content)
    os.utime(damaged, ns=(about.st_atime_ns, about.st_mtime_ns))  # same size, same time: still seen
    (models / "laser2_text_encoder" / "tiny.spm").unlink()
    told = {(row.card, Path(row.file).name): row.state for row in verify_models(models)}
    assert told == {
        ("laser2_text_encoder@user", "tiny_laser.pt"): "damaged",
        ("laser2_text_encoder@user", "tiny.spm"): "missing",
        (f"{GERMAN}@user", "tiny_laser.pt"): "ok",
        ("by_hand", "plain.pt"): "unrecorded",
    }
    ended = ran("verify", "--model-dir", models, "--json")
    assert ended.exit_code == 1
    assert sorted(row["state"] for row in json.loads(ended.stdout)) == ["damaged", "missing", "ok", "unrecorded"]


def test_verify_of_a_sound_directory_ends_with_zero(models: Path, checkpoint: Path) -> None:
    assert ran("add", checkpoint, "--card", GERMAN, "--model-dir", models).exit_code == 0
    ended = ran("verify", "--model-dir", models)
    assert ended.exit_code == 0 and "1 files, 0 damaged or missing, 0 without" in ended.stdout


def test_a_pickle_that_would_run_code_is_refused_runs_none_and_leaves_nothing(models: Path, tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.ones(2), "trap": Trap(tmp_path / "sprung")}, tmp_path / "bad.pt")
    with pytest.raises(EncoderError, match=r"bad\.pt is a pickle of more than tensors.*--trust-pickle"):
        add_model(tmp_path / "bad.pt", GERMAN, models)
    assert not (tmp_path / "sprung").exists() and not models.exists()


def test_a_trusted_pickle_is_stored_as_tensors_alone_and_trusts_nobody_later(models: Path, tmp_path: Path) -> None:
    import torch

    given = {"model": {"weight": torch.arange(3.0)}, "epoch": 7, "trap": Trap(tmp_path / "sprung"), "odd": [1, {2}]}
    torch.save(given, tmp_path / "bad.pt")
    added = add_model(tmp_path / "bad.pt", GERMAN, models, trust_pickle=True)
    assert (tmp_path / "sprung").exists()  # this is what trust means
    assert added.left_out == ("odd[1] (set)",)  # what the trap returned, None, is plain
    kept = torch.load(models / GERMAN / "bad.pt", weights_only=True)
    assert kept["model"]["weight"].tolist() == [0, 1, 2] and kept["epoch"] == 7 and kept["odd"] == [1]
    first = added.sha256
    assert add_model(tmp_path / "bad.pt", GERMAN, models, trust_pickle=True).sha256 == first
    assert states(models) == ["ok"]


def test_a_file_that_is_no_checkpoint_is_an_error_and_leaves_nothing(models: Path, tmp_path: Path) -> None:
    for name in ("cut.pt", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut short")
        with pytest.raises(EncoderError, match=r"cut\.\w+ (cannot be read|is a pickle)"):
            add_model(tmp_path / name, GERMAN, models)
        assert not list(models.rglob("*.yaml")) and not list(models.rglob("cut*"))


def test_what_cannot_be_added_is_an_error_that_tells_why(models: Path, tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "empty").mkdir()
    two = tmp_path / "two"
    two.mkdir()
    for name in ("a.pt", "b.pt"):
        (two / name).write_bytes(checkpoint.read_bytes())
    for source, card, told in (
        (tmp_path / "nowhere", GERMAN, "no file or folder"),
        (tmp_path / "empty", GERMAN, "holds no checkpoint"),
        (two, GERMAN, r"2 files that could be the checkpoint: a\.pt, b\.pt"),
        (checkpoint, "../outside", "letters, digits"),
    ):
        with pytest.raises(EncoderError, match=told):
            add_model(source, card, models)
    models.mkdir()
    (models / "mine.yaml").write_text(f"name: {GERMAN}@user\ncheckpoint: x.pt\n")
    with pytest.raises(EncoderError, match=r"mine\.yaml holds a card called sonar_speech_encoder_deu@user already"):
        add_model(checkpoint, GERMAN, models)


def test_the_file_of_the_published_name_is_taken_among_several(models: Path, tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in ("spenc.v3ap.deu.pt", "spenc.v3ap.eng.pt"):
        (folder / name).write_bytes(checkpoint.read_bytes())
    (file,) = add_model(folder, GERMAN, models).sha256
    assert file.endswith("/spenc.v3ap.deu.pt")


def test_the_list_tells_every_card_its_language_and_where_its_file_is(models: Path, checkpoint: Path) -> None:
    add_model(checkpoint, GERMAN, models)
    add_model(build(checkpoint.parent / "tiny"), "tiny", models)
    ended = ran("list", "--model-dir", models, "--json")
    assert ended.exit_code == 0, ended.output
    rows = {(row["card"], row["field"]): row for row in json.loads(ended.stdout)}
    speech = [row for (card, _), row in rows.items() if card.startswith("sonar_speech_encoder_")]
    assert sum(len(row["languages"]) == 1 for row in speech) >= 57
    german, french = rows[GERMAN, "checkpoint"], rows["sonar_speech_encoder_fra", "checkpoint"]
    assert (german["languages"], german["origin"], german["state"]) == (["deu"], "own", "here")
    assert german["path"] == str(models / GERMAN / "spenc.pt")
    assert (french["languages"], french["origin"], french["file"]) == (["fra"], "published", "spenc.v3ap.fra.pt")
    assert len(rows["laser2_text_encoder", "tokenizer"]["languages"]) == 93
    assert "deu" in rows["text_sonar_basic_encoder", "checkpoint"]["languages"]
    assert rows["tiny", "folder"]["state"] == "here"
    assert not any("wav2vec2" in card for card, _ in rows)  # fairseq2's own, which this project does not use


def test_a_card_that_asks_for_unrestricted_unpickling_is_listed_as_refused(models: Path) -> None:
    models.mkdir()
    (models / "odd.yaml").write_text(f"name: {GERMAN}@user\ncheckpoint: x.pt\nrestrict: false\n")
    rows = {row["card"]: row for row in json.loads(ran("list", "--model-dir", models, "--json").stdout)}
    assert rows[GERMAN]["state"] == "refused"


def test_the_command_is_bound_and_names_what_it_lacks() -> None:
    asked = "import sys; sys.argv = ['s2s', 'models', 'verify']; from speech_mining.cli.app import main; main()"
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert ended.returncode == 2 and "No model directory is named. Fix: set S2S_MODEL_DIR" in ended.stderr


def test_a_directory_whose_cards_cannot_be_read_is_an_error(models: Path) -> None:
    with pytest.raises(EncoderError, match="does not exist"):
        verify_models(models)
    models.mkdir()
    for content, told in (
        ("a: [", "is not YAML"),
        ("checkpoint: x", "without a name"),
        ("name: x\nsha256: y", "mapping"),
    ):
        (models / "odd.yaml").write_text(content)
        with pytest.raises(EncoderError, match=told):
            verify_models(models)


def test_the_digest_is_the_one_that_sha256sum_prints(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_text_encoders_are_chosen_by_language_and_nothing_is_loaded(tmp_path: Path) -> None:
    build_laser(tmp_path)
    build_text(tmp_path)
    folder = build(tmp_path / "tiny")
    chosen = Encoders(
        text_default="sonar",
        text_by_language={"fra": "laser:tiny_laser", "eng": f"hf:{folder}", "ita": "laser", "spa": "hf:tiny"},
        model_dir=str(tmp_path),
        device="cpu",
    )
    kinds = {language: chosen.text(language) for language in ("deu", "fra", "eng", "ita", "spa")}
    assert [type(kinds[language]) for language in kinds] == [SonarText, Laser, HuggingFaceText, Laser, HuggingFaceText]
    assert (kinds["fra"].dimension, kinds["ita"].dimension) == (2 * HIDDEN, 1024)
    assert kinds["eng"].version == kinds["spa"].version
    assert chosen.text("fra") is kinds["fra"]
    assert kinds["fra"].embed([Sentence("le petit chat", "fra")]).vectors.shape == (1, 2 * HIDDEN)


def test_a_speech_encoder_of_ones_own_card_is_chosen_by_its_name(tmp_path: Path) -> None:
    build_speech(tmp_path, "tiny_deu")
    encoder = Encoders(by_language={"deu": "sonar:tiny_deu"}, model_dir=str(tmp_path)).speech("deu")
    assert "tiny_deu:sha256-" in encoder.version and encoder.languages == {"deu"}
    assert Encoders().speech("deu").name == "miniature"


def test_a_choice_that_cannot_be_is_an_error_that_lists_the_choices(tmp_path: Path) -> None:
    for wrong in ("hf:", "sonnar"):
        with pytest.raises(EncoderError, match=rf"no text encoder '{wrong}'.*'hf:<name or folder>'"):
            Encoders(text_default=wrong).text("deu")
    for wrong in ("laser", "hf:LaBSE"):
        with pytest.raises(EncoderError, match=r"chosen as an encoder of speech.*it reads text"):
            Encoders(default=wrong).speech("deu")
    with pytest.raises(EncoderError, match=r"laser2-text does not know the language que.*text_encoders"):
        Encoders(text_default="laser").text("que")
