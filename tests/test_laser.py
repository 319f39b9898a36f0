"""LASER2 with tiny random weights, through sonar-space's own family `lstm`: card, checkpoint, tokenizer, model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speech_mining.encoders.laser import LANGUAGES, Laser
from speech_mining.encoders.protocol import Sentence, TextEncoder
from speech_mining.encoders.sonar import speech_languages
from speech_mining.errors import EncoderError
from tests.tiny_sonar import _write_pieces

HIDDEN = 12
CARD = """
name: {name}
model_family: lstm
model_arch: laser2
model_config:
  model_dim: 8
  hidden_size: {hidden}
  num_layers: 2
checkpoint: tiny_laser.pt
tokenizer: tiny.spm
tokenizer_family: lstm
"""
TEXTS = ("hello world", "number 7", "der schnelle braune fuchs", "le petit chat 21", "hello", "fuchs 3 le 4")


def build_laser(directory: Path, name: str = "tiny_laser", *, seed: int = 0, hidden: int = HIDDEN) -> str:
    """Write a tiny LASER2 (its checkpoint under `model`, as the published one has it); returns the card's name."""
    speech_languages()  # sets fairseq2 up with its libraries in the right order
    import torch
    from sonar.models.laser2_text import get_laser2_model_hub

    hub = get_laser2_model_hub()
    config: Any = copy.deepcopy(hub.get_arch_config("laser2"))
    config.model_dim, config.hidden_size, config.num_layers = 8, hidden, 2
    _write_pieces(directory / "tiny.spm")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hub.create_new_model(config, device=torch.device("cpu"))
    torch.save({"model": model.state_dict(), "dictionary": {"<pad>": 1}}, directory / "tiny_laser.pt")
    (directory / "tiny_laser.yaml").write_text(CARD.format(name=name, hidden=hidden))
    return name


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    build_laser(directory)
    return directory


@pytest.fixture(scope="module")
def laser(models: Path) -> Laser:
    return Laser("tiny_laser", device="cpu", max_batch_tokens=40, model_dir=models)


def alone(laser: Laser, text: str) -> npt.NDArray[np.float32]:
    """One sentence through sonar-space's tokenizer and model, unpadded, unit length."""
    import torch

    tokens = laser._assets.load_tokenizer("tiny_laser").create_encoder()(text)
    with torch.inference_mode():
        row = laser.load().model(tokens[None], torch.tensor([len(tokens)]))[0]
    unit: npt.NDArray[np.float32] = (row / row.norm()).numpy()
    return unit


def test_vectors_equal_those_of_each_sentence_alone_in_the_order_given(laser: Laser) -> None:
    embedded = laser.embed([Sentence(text, "deu") for text in TEXTS])
    expected = np.array([alone(laser, text) for text in TEXTS])
    assert embedded.vectors.dtype == np.float16 and embedded.vectors.shape == (len(TEXTS), 2 * HIDDEN)
    np.testing.assert_allclose(embedded.vectors.astype(np.float32), expected, atol=1e-5 + 2**-11)
    np.testing.assert_array_equal(embedded.kept, np.arange(len(TEXTS)))
    apart = np.abs(expected[:, None] - expected[None]).max(axis=2)
    assert apart[~np.eye(len(TEXTS), dtype=bool)].min() > 4e-3


def test_the_batch_budget_does_not_change_the_vectors(models: Path) -> None:
    budgets = (16, 1_000)
    a, b = (
        Laser("tiny_laser", device="cpu", max_batch_tokens=budget, model_dir=models)
        .embed([Sentence(text, "deu") for text in TEXTS])
        .vectors.astype(np.float32)
        for budget in budgets
    )
    np.testing.assert_allclose(a, b, atol=1e-5 + 2**-11)


def test_text_is_lower_cased_and_its_quotes_made_plain_unless_asked_otherwise(models: Path, laser: Laser) -> None:
    given = [Sentence(text, "eng") for text in ("Hello World", "hello world")]
    lowered = laser.embed(given).vectors
    np.testing.assert_array_equal(lowered[0], lowered[1])
    cased = Laser("tiny_laser", device="cpu", lower_case=False, model_dir=models)
    assert np.abs(cased.embed(given).vectors[0] - lowered[0]).max() > 4e-3
    assert cased.version != laser.version
    assert laser._normalised("„Hör’ – …") == "\"hör' - ..."


def test_sentences_without_content_or_too_long_are_rejected(laser: Laser) -> None:
    given = ["", "  \t ", "漢字漢字", "hello world", "hello world " * 20, "hello 漢"]
    embedded = laser.embed([Sentence(text, "eng") for text in given])
    assert embedded.kept.tolist() == [3, 5]
    assert [(told.item, told.reason) for told in embedded.rejected] == [
        (0, "no_content"),
        (1, "no_content"),
        (2, "no_content"),
        (4, "too_long"),
    ]
    assert laser.embed([]).vectors.shape == (0, 2 * HIDDEN)


def test_progress_ends_at_the_number_of_items(laser: Laser) -> None:
    told: list[tuple[int, int]] = []
    laser.embed([Sentence(text, "deu") for text in (*TEXTS, "")], progress=lambda *now: told.append(now))
    assert told[-1] == (7, 7) and told == sorted(told)


def test_a_language_that_laser_was_not_trained_on_is_an_error(laser: Laser) -> None:
    assert len(LANGUAGES) == 93 and {"deu", "eng", "fra", "spa"} <= LANGUAGES
    with pytest.raises(EncoderError, match=r"'xyz' given to LASER2.*93 ISO 639-3"):
        laser.embed([Sentence("hello", "xyz")])


def test_the_published_card_has_laser2s_dimension_and_a_version_without_weights() -> None:
    published = Laser()
    assert published.dimension == 1024
    assert published.version.endswith("laser/laser2.pt:https://dl.fbaipublicfiles.com/nllb/laser/laser2.spm")


def test_the_version_changes_with_the_checkpoint(tmp_path: Path) -> None:
    before = Laser(build_laser(tmp_path), model_dir=tmp_path).version
    build_laser(tmp_path, seed=1)
    assert Laser("tiny_laser", model_dir=tmp_path).version != before


def test_missing_weights_are_one_error_that_names_card_and_file(tmp_path: Path) -> None:
    build_laser(tmp_path)
    (tmp_path / "tiny_laser.pt").unlink()
    encoder = Laser("tiny_laser", device="cpu", model_dir=tmp_path)
    assert encoder.dimension == 2 * HIDDEN  # read from the card
    with pytest.raises(
        EncoderError,
        match=r"card tiny_laser.*tiny_laser\.pt.*put it back.*s2s models add tiny_laser\.pt.*S2S_MODEL_DIR",
    ):
        encoder.load()


def test_the_encoder_keeps_the_protocols_promises(laser: Laser) -> None:
    words: TextEncoder = laser
    assert (words.name, words.dimension, words.languages) == ("laser2-text", 2 * HIDDEN, LANGUAGES)
