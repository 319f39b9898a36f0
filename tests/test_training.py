from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from demo.world.concepts import ConceptTeacher, concept_names, concepts
from speech_mining.cli.train import train
from speech_mining.encoders.protocol import Sentence
from speech_mining.encoders.student import REACH, STRIDE, Student
from speech_mining.errors import EncoderError
from speech_mining.training.recipes import find_recipe
from speech_mining.training.student import (
    Batch,
    Heard,
    TrainingRecording,
    detector_loss,
    fold,
    frame_recordings,
    train_detector,
    word_detector,
)
from tests.tone_world import CONFIG, MEANINGS, UNKNOWN, sentence, speech, trained

SAME = {
    "deu": "Im Winter sah der alte König eine Katze vor dem Schloss.",
    "eng": "In winter, the old king saw a cat in front of the castle.",
    "fra": "En hiver, le vieux roi vit un chat devant le château.",
    "spa": "En invierno, el rey viejo vio un gato delante del castillo.",
}


# The network and its training


def test_training_lowers_the_loss_and_learns_to_count_words() -> None:
    weights, losses = trained()
    assert np.mean(losses[-10:]) < 0.05 * np.mean(losses[:10])
    unheard = sentence([2, 1, 1, 0, 3, 2, 1, 0, 1], seed=1234)
    counted = Student(weights, version="test").frames(unheard.waveform, "ton", 0).sum(axis=0)
    np.testing.assert_allclose(counted[:UNKNOWN], [2, 4, 2], atol=0.3)


def test_a_seed_decides_every_byte_of_the_weights() -> None:
    framed, short = speech(12), replace(CONFIG, epochs=2)
    first, second, other = (
        train_detector(framed, MEANINGS, config)[0] for config in (short, short, replace(short, seed=1))
    )
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert first["head.weight"].tobytes() != other["head.weight"].tobytes()


def test_folding_the_batch_norms_changes_nothing_that_is_heard() -> None:
    import torch

    from speech_mining.encoders.student import _Network

    torch.manual_seed(0)
    network = word_detector(16, MEANINGS)
    features = torch.randn(4, 40, 400)
    network(features)  # moves the running means and variances away from 0 and 1
    network.eval()
    arrays = fold(network)
    room = {"unknown.mean": np.zeros(16, np.float32), "unknown.projection": np.zeros((16, 1), np.float32)}
    heard = _Network({**arrays, **room})(features[0].T.numpy())
    spoken = network(features[:1])[0].T.detach().double()
    expected = torch.softmax(spoken[:, :-1], 1) * torch.nn.functional.softplus(spoken[:, -1:])
    assert len(heard) == (400 - 2 * REACH) // STRIDE
    np.testing.assert_allclose(heard[:, :UNKNOWN], expected[:, :UNKNOWN], atol=1e-5)


def test_the_loss_of_a_case_worked_by_hand() -> None:
    import torch

    # One crop, two meanings, four frames: a silence of one frame, a word "0" of two, one frame that is not counted.
    even = torch.zeros(1, 3, 4)  # p = 1/2 each, g = softplus(0) = ln 2
    batch = Batch(torch.zeros(1), torch.tensor([[0, 1, 1, -1]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    said_nothing, said_word = np.log(2), 2 * np.log(2)
    words, frames = -np.log(0.5), -np.log(0.5)
    expected = words + (said_nothing**2 + (said_word - 1) ** 2) / 2 + 0.3 * frames
    assert float(detector_loss(even, batch, 0.3)) == pytest.approx(expected, abs=1e-4)


def test_frames_know_what_is_heard_in_them() -> None:
    waveform = np.zeros(16_000, np.float32)
    recording = TrainingRecording(
        waveform, (Heard(3200, 6400, (2,)), Heard(6400, 8000, (0, 1)), Heard(9600, 11_200, ()))
    )
    framed = frame_recordings([recording, recording])
    frames = 100 + 2 * REACH
    assert framed.features.shape == (2 * frames, 40) and framed.unit_count == 14
    at = {second: int(framed.units[REACH + round(100 * second)]) for second in (0.0, 0.2, 0.25, 0.45, 0.55, 0.65, 0.75)}
    assert list(at.values()) == [0, 1, 1, 3, 4, 5, 6]  # 2 is the empty silence between the two words
    assert framed.units[frames + REACH + 25] == 7 + 1
    assert framed.meanings.tolist() == [2, 0, 1] * 2 and framed.owner.tolist() == [1, 3, 3, 8, 10, 10]


def test_no_speech_and_no_recipe_are_errors() -> None:
    with pytest.raises(EncoderError, match="no speech to train on"):
        frame_recordings([])
    with pytest.raises(EncoderError, match="no training recipe 'dmeo'"):
        find_recipe("dmeo")


# The teacher


def test_translations_have_the_very_same_vector() -> None:
    vectors = ConceptTeacher().embed([Sentence(text, language) for language, text in SAME.items()]).vectors
    assert all(row.tobytes() == vectors[0].tobytes() for row in vectors)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-3)


def test_concepts_are_found_by_their_longest_expression() -> None:
    assert concepts(SAME["eng"], "eng") == [
        "t:in winter", "f:the", "a:old", "n:king", "v:saw", "f:a", "n:cat", "p:in front of", "f:the", "n:castle",
    ]  # fmt: skip
    assert concepts("Près du roi", "fra") == ["p:near", "f:the", "n:king"]
    assert concepts("L’ours, un zeppelin", "fra") == ["f:the", "n:bear", "f:a", "?:zeppelin"]


def test_the_fewer_words_differ_the_nearer_sentences_are() -> None:
    texts = [
        "The old king saw a cat.",
        "The old king saw a dog.",
        "A poor farmer sang quietly.",
        "Zeppelins carry brochures.",
    ]
    same, near, far, strange = ConceptTeacher().embed([Sentence(text, "eng") for text in texts]).vectors.astype(float)
    assert same @ near > max(same @ far, same @ strange) + 0.03
    unknown = ConceptTeacher().embed([Sentence("zeppelin", "eng"), Sentence("brochure", "eng")]).vectors.astype(float)
    assert unknown[0] @ unknown[1] < 0.9


def test_a_sentence_that_says_nothing_is_rejected_and_an_unknown_language_is_an_error() -> None:
    embedded = ConceptTeacher().embed([Sentence("", "eng"), Sentence("the cat", "eng"), Sentence("?! …", "deu")])
    assert [(one.item, one.reason) for one in embedded.rejected] == [(0, "no_content"), (2, "no_content")]
    assert embedded.kept.tolist() == [1] and embedded.vectors.shape == (1, 512)
    assert ConceptTeacher().embed([]).vectors.shape == (0, 512)
    with pytest.raises(EncoderError, match="no language 'pol'"):
        ConceptTeacher().embed([Sentence("kot", "pol")])


# The recipe


def test_the_examination_is_heard_neither_in_training_nor_in_the_library() -> None:
    from demo.recipe import EXAMINED, examination_texts, library_texts, unseen_sentences
    from demo.world.grammar import realise

    examined = examination_texts()
    assert len(set(examined)) == EXAMINED == 600
    assert len(library_texts()) >= 100 and not library_texts() & set(examined)
    # The very seed of the examination: without the exclusion these would be its sentences.
    training = unseen_sentences("examination", 300, {*library_texts(), *examined})
    assert not {realise(one, "eng") for one in training} & {*library_texts(), *examined}


def test_every_concept_of_a_spoken_sentence_has_its_time() -> None:
    pytest.importorskip("espeakng_loader", reason="needs the synthesiser: pip install speech-mining[narration]")
    from demo.recipe import say, take_breath

    for language, text in SAME.items():
        spoken = say(text, language)
        told = [concept for _, _, meant in spoken.stretches for concept in meant]
        assert told == concepts(text, language)
        edges = [edge for begin, end, _ in spoken.stretches for edge in (begin, end)]
        assert edges == sorted(edges) and edges[-1] <= len(spoken.samples)
        slower = take_breath(spoken, random.Random(3))
        kept = [spoken.samples[begin:end] for begin, end, _ in spoken.stretches]
        moved = [slower.samples[begin:end] for begin, end, _ in slower.stretches]
        assert all(one.tobytes() == other.tobytes() for one, other in zip(kept, moved, strict=True))


def test_coding_moves_no_sample() -> None:
    pytest.importorskip("espeakng_loader", reason="needs the synthesiser: pip install speech-mining[narration]")
    from demo.recipe import record, say

    spoken = say(SAME["eng"], "eng").samples
    plain, coded = (record(spoken, random.Random(1), kbit) for kbit in (None, 40))
    assert len(plain) == len(coded) == pytest.approx(len(spoken) * 16_000 / 22_050, abs=1)
    lags = range(-200, 201)
    match = [float(np.dot(plain[8000:24_000], coded[8000 + lag : 24_000 + lag])) for lag in lags]
    assert abs(lags[int(np.argmax(match))]) <= 1


def test_the_demos_recipe_writes_a_student(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="needs the synthesiser: pip install speech-mining[narration]")
    recipe = find_recipe("demo")
    stages: list[str] = []

    def stage(name: str):  # type: ignore[no-untyped-def]
        stages.append(name)
        return lambda done, total: None

    out = tmp_path / "tiny.safetensors"
    recipe.train(out, seed=0, sentences=8, stages=stage)
    assert stages == [f"{one} {work}" for one in ("deu", "eng", "fra", "spa") for work in ("narrating", "training")]
    student = Student.load(out)
    assert student.meanings == concept_names() and student.trained["sentences"] == 8
    assert student.trained["teacher"] == ConceptTeacher().version


def test_the_command_prints_the_figures_of_the_shipped_weights() -> None:
    pytest.importorskip("espeakng_loader", reason="needs the synthesiser: pip install speech-mining[narration]")
    app = typer.Typer()
    app.command()(train)
    told = CliRunner().invoke(app, ["--recipe", "demo", "--evaluate-only", "--sentences", "24"], catch_exceptions=False)
    assert told.exit_code == 0
    lines = [line for line in told.output.splitlines() if "mean of 12 directions" in line]
    assert [float(line.split()[-2]) for line in lines] == [1.0, 1.0]
    assert sum("to" in line and "R@1" in line for line in told.output.splitlines()) == 26
    assert "with the word after" in told.output and "minutes" in told.output
