from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speech_mining.encoders.neural_inputs import INPUTS, kaldi_bands, log_mel_frames, normalised_waveform, pad
from speech_mining.encoders.neural_student import (
    NeuralStudent,
    StudentCard,
    is_neural_student,
    read_card,
    save_neural_student,
)
from speech_mining.encoders.protocol import SpeechSpan
from speech_mining.encoders.student import SHIPPED
from speech_mining.errors import EncoderError

Waveform = npt.NDArray[np.float32]

SIZES: dict[str, dict[str, Any]] = {
    "convolutions": {"width": 12, "layers": 1, "heads": 2},
    "wav2vec2": {
        "hidden_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "conv_dim": [6] * 7,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "feat_extract_norm": "layer",
    },
    "w2v-bert": {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12},
}
SIZES["wav2vec2-base"] = {**SIZES["wav2vec2"], "feat_extract_norm": "group"}
POOLINGS = ("bos", "mean", "max", "attention")


def architecture(kind: str) -> str:
    return kind.removesuffix("-base")


def network(kind: str, pooling: str = "attention", activation: str = "tanh", seed: int = 0) -> Any:
    import torch

    from speech_mining.encoders.neural_network import NetworkShape, build_network

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(NetworkShape(architecture(kind), SIZES[kind], pooling, activation, 8)).eval()


def written(path: Path, kind: str, pooling: str = "attention", **changed: Any) -> Path:
    made = network(kind, pooling)
    card = StudentCard(
        architecture=made.shape.architecture,
        body=made.shape.body,
        pooling=pooling,
        activation="tanh",
        dimension=8,
        languages=("deu", "eng"),
        longest_s=3.0,
        shortest_s=0.2,
        trained={"update": 3},
    )
    save_neural_student(replace(card, **changed), made.state_dict(), path)
    return path


def speech(seconds: float, seed: int) -> Waveform:
    chance = np.random.default_rng(seed)
    pitch = 150 + 40 * seed
    swing = np.sin(2 * np.pi * pitch * np.arange(round(seconds * 16_000)) / 16_000)
    return (0.1 * swing + 0.02 * chance.standard_normal(len(swing))).astype(np.float32)


def span(waveform: Waveform, language: str = "deu") -> SpeechSpan:
    return SpeechSpan(waveform, 0, len(waveform), language)


# The file


@pytest.mark.parametrize("kind", SIZES)
def test_a_student_survives_its_file(kind: str, tmp_path: Path) -> None:
    import torch

    path = written(tmp_path / "mine.safetensors", kind)
    student = NeuralStudent.load(path, device="cpu")
    waveform = speech(1.0, 1)
    inputs, lengths = pad([INPUTS[architecture(kind)](waveform)])
    with torch.inference_mode():
        expected = network(kind)(torch.from_numpy(inputs), torch.from_numpy(lengths)).numpy()[0]
    found = student.embed([span(waveform)])
    np.testing.assert_allclose(found.vectors[0], expected / np.linalg.norm(expected), atol=1e-3)
    assert (student.name, student.dimension, student.languages) == ("mine", 8, frozenset({"deu", "eng"}))
    assert read_card(path).trained == {"update": 3}


def test_equal_weights_give_equal_bytes_and_the_version_tells_others(tmp_path: Path) -> None:
    first, again = (written(tmp_path / name, "convolutions") for name in ("a.safetensors", "b.safetensors"))
    other = written(tmp_path / "c.safetensors", "convolutions", trained={"update": 4})
    assert first.read_bytes() == again.read_bytes()
    versions = [NeuralStudent.load(path).version for path in (first, again, other)]
    assert versions[0] == versions[1] != versions[2]


def test_only_a_neural_students_file_is_one(tmp_path: Path) -> None:
    assert is_neural_student(written(tmp_path / "a.safetensors", "convolutions"))
    assert not is_neural_student(SHIPPED)
    assert not is_neural_student(tmp_path / "absent.safetensors")
    for content in (b"", b"PK\x03\x04 a zip", b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00[]"):
        (tmp_path / "other").write_bytes(content)
        assert not is_neural_student(tmp_path / "other")
        with pytest.raises(EncoderError, match="holds no neural student"):
            NeuralStudent.load(tmp_path / "other")
    with pytest.raises(EncoderError, match="its format is 'speech-mining-student-1'"):
        read_card(SHIPPED)
    with pytest.raises(EncoderError, match="cannot be read"):
        read_card(tmp_path / "absent.safetensors")


def test_a_file_that_was_cut_short_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", "convolutions")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(EncoderError, match="its tensors cannot be loaded"):
        NeuralStudent.load(path).embed([span(speech(1.0, 1))])


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    made = network("convolutions")
    card = read_card(written(tmp_path / "a.safetensors", "convolutions"))
    save_neural_student(replace(card, body={"width": 24}), made.state_dict(), tmp_path / "b.safetensors")
    with pytest.raises(EncoderError, match="its tensors cannot be loaded"):
        NeuralStudent.load(tmp_path / "b.safetensors", device="cpu").embed([span(speech(1.0, 1))])


def test_a_header_without_a_field_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", "convolutions")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    told = json.loads(header["__metadata__"]["student"])
    del told["pooling"]
    header["__metadata__"]["student"] = json.dumps(told)
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    with pytest.raises(EncoderError, match="its header lacks 'pooling'"):
        read_card(path)


# Batches


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_vector_does_not_depend_on_what_shares_its_batch(kind: str, pooling: str) -> None:
    import torch

    made = network(kind, pooling)
    hear = INPUTS[architecture(kind)]
    # 7 363 samples end inside a frame of every architecture.
    clips = [hear(speech(seconds, seed)) for seed, seconds in enumerate((1.7, 7_363 / 16_000, 0.31, 1.0))]
    with torch.inference_mode():
        inputs, lengths = pad(clips)
        together = made(torch.from_numpy(inputs), torch.from_numpy(lengths)).numpy()
        # What is padding must not be heard, whatever it holds.
        for row, length in enumerate(lengths):
            inputs[row, length:] = 7.0
        noisy = made(torch.from_numpy(inputs), torch.from_numpy(lengths)).numpy()
        for row, clip in enumerate(clips):
            one, own = pad([clip])
            alone = made(torch.from_numpy(one), torch.from_numpy(own)).numpy()[0]
            np.testing.assert_allclose(together[row], alone, atol=1e-5)
            np.testing.assert_allclose(noisy[row], alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-4


def test_the_budget_changes_no_vector(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", "w2v-bert")
    spans = [span(speech(0.3 + 0.2 * seed, seed)) for seed in range(8)]
    small = NeuralStudent.load(path, device="cpu", max_batch_seconds=1.0).embed(spans)
    large = NeuralStudent.load(path, device="cpu", max_batch_seconds=100.0).embed(spans)
    np.testing.assert_allclose(small.vectors, large.vectors, atol=1e-3)  # fp16's own step
    assert len(small.vectors) == 8


# Pooling


@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_pooling_is_its_formula_over_the_frames_that_are_there(pooling: str) -> None:
    import torch

    from speech_mining.encoders.neural_network import pool

    chance = np.random.default_rng(0)
    states, weights = chance.standard_normal((3, 5, 4)), chance.standard_normal((3, 5))
    counts = (5, 2, 1)
    here = np.arange(5) < np.array(counts)[:, None]
    expected = []
    for row, count in enumerate(counts):
        mine, raised = states[row, :count], np.exp(weights[row, :count])
        shares = raised / raised.sum()
        ways = {"bos": mine[0], "mean": mine.mean(0), "max": mine.max(0), "attention": shares @ mine}
        expected.append(ways[pooling])
    found = pool(torch.from_numpy(states), torch.from_numpy(here), pooling, torch.from_numpy(weights)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_bos_vector_is_ones_before_the_first_frame() -> None:
    import torch

    made = network("wav2vec2", "bos")
    seen: list[Any] = []
    made.body.model.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0].clone()))
    inputs, lengths = pad([normalised_waveform(speech(0.5, 1))])
    with torch.inference_mode():
        made(torch.from_numpy(inputs), torch.from_numpy(lengths))
    assert seen[0].shape[1] == int(made.body.frame_counts(torch.from_numpy(lengths))[0]) + 1
    assert (seen[0][:, 0] == 1).all() and not (seen[0][:, 1] == 1).all()


def test_bos_needs_attention_between_frames() -> None:
    from speech_mining.encoders.neural_network import NetworkShape, build_network

    with pytest.raises(EncoderError, match=r"set size\.layers to 1"):
        build_network(NetworkShape("convolutions", {"width": 8}, "bos", "tanh", 8))


@pytest.mark.parametrize("kind", ["convolutions", "wav2vec2", "w2v-bert"])
def test_a_misspelt_size_is_an_error(kind: str) -> None:
    from speech_mining.encoders.neural_network import NetworkShape, build_network

    with pytest.raises(EncoderError, match="names hiden_size"):
        build_network(NetworkShape(kind, {"hiden_size": 8}, "mean", "tanh", 8))


# Masks


def test_a_masked_frame_is_not_heard_and_another_is() -> None:
    import torch

    from speech_mining.encoders.neural_network import Masks

    made = network("convolutions", "mean")
    inputs, lengths = pad([log_mel_frames(speech(1.0, 1))])
    frames = int(made.body.frame_counts(torch.from_numpy(lengths))[0])

    def heard(masked: list[int], features: list[int]) -> Any:
        time, width = torch.zeros(1, frames, dtype=torch.bool), torch.zeros(1, 12, dtype=torch.bool)
        time[0, masked], width[0, features] = True, True
        before = made.body.context
        seen: list[Any] = []
        made.body.context = lambda states, here: (seen.append(states), before(states, here))[1]
        try:
            made(torch.from_numpy(inputs), torch.from_numpy(lengths), Masks(time, width))
        finally:
            made.body.context = before
        return seen[0][0]

    with torch.inference_mode():
        plain, masked = heard([], []), heard([3, 4], [7])
    vector = made.body.mask_vector.detach().clone()
    vector[7] = 0
    assert torch.equal(masked[3], vector) and torch.equal(masked[4], vector)
    assert (masked[:, 7] == 0).all()
    others = [feature for feature in range(12) if feature != 7]
    assert torch.equal(masked[5:, others], plain[5:, others])


# What is rejected


def test_what_cannot_be_embedded_is_rejected_with_a_reason(tmp_path: Path) -> None:
    student = NeuralStudent.load(written(tmp_path / "a.safetensors", "convolutions"), device="cpu")
    broken = speech(1.0, 1)
    broken[100] = np.nan
    items = [speech(1.0, 1), np.zeros(16_000, np.float32), broken, speech(0.1, 1), speech(3.5, 1), speech(0.5, 2)]
    told: list[tuple[int, int]] = []
    found = student.embed([span(one) for one in items], progress=lambda done, total: told.append((done, total)))
    assert [(one.item, one.reason) for one in found.rejected] == [
        (1, "silent"),
        (2, "not_a_number"),
        (3, "too_short"),
        (4, "too_long"),
    ]
    assert found.kept.tolist() == [0, 5]
    np.testing.assert_allclose(np.linalg.norm(found.vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    assert told[-1] == (6, 6)


def test_nothing_to_embed_needs_no_weights(tmp_path: Path) -> None:
    student = NeuralStudent.load(written(tmp_path / "a.safetensors", "convolutions"), device="cpu")
    assert student.embed([]).vectors.shape == (0, 8)
    assert student.embed([span(np.zeros(16_000, np.float32))]).vectors.shape == (0, 8)


def test_a_language_that_was_not_taught_is_an_error(tmp_path: Path) -> None:
    student = NeuralStudent.load(written(tmp_path / "a.safetensors", "convolutions"), device="cpu")
    with pytest.raises(EncoderError, match="does not know the language 'fra'"):
        student.embed([span(speech(1.0, 1), "fra")])


# What a student starts from


def _folder(kind: str, folder: Path) -> Any:
    model = network(kind).body.model
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["wav2vec2", "w2v-bert"])
def test_a_student_starts_from_a_folder_of_weights(kind: str, tmp_path: Path) -> None:
    import torch

    from speech_mining.encoders.neural_network import NetworkShape, start_network

    model = _folder(kind, tmp_path / "model")
    started = start_network(NetworkShape(kind, {}, "mean", "tanh", 8), tmp_path / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(started.body.model.state_dict()[name], value), name
    assert started.body.model.config.layerdrop == 0


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    from speech_mining.encoders.neural_network import NetworkShape, start_network

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(EncoderError, match=r"only pytorch_model\.bin.*can run code.*save_pretrained"):
        start_network(NetworkShape("wav2vec2", {}, "mean", "tanh", 8), tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    from speech_mining.encoders.neural_network import NetworkShape, start_network

    _folder("w2v-bert", tmp_path / "model")
    with pytest.raises(EncoderError, match="are of a wav2vec2-bert"):
        start_network(NetworkShape("wav2vec2", {}, "mean", "tanh", 8), tmp_path / "model")


# Features


def test_the_filter_bank_is_the_one_that_w2v_bert_was_trained_on() -> None:
    from transformers import SeamlessM4TFeatureExtractor

    theirs = SeamlessM4TFeatureExtractor(
        feature_size=80, num_mel_bins=80, sampling_rate=16_000, stride=2, padding_value=0.0
    )
    for seconds, level in ((0.5, 1.0), (0.995, 1.0), (0.5, 1e-3)):  # softly, the extractor's floor is heard
        waveform = np.float32(level) * speech(seconds, 3)
        expected = theirs(waveform, sampling_rate=16_000, return_tensors="np", return_attention_mask=True)
        kept = expected["attention_mask"][0].astype(bool)
        np.testing.assert_allclose(kaldi_bands(waveform), expected["input_features"][0][kept], atol=2e-3)


def test_the_waveform_is_scaled_as_wav2vec2s_extractor_scales_it() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    waveform = speech(0.5, 3) + np.float32(0.2)
    expected = Wav2Vec2FeatureExtractor(do_normalize=True)(waveform, sampling_rate=16_000, return_tensors="np")
    np.testing.assert_allclose(normalised_waveform(waveform)[:, 0], expected["input_values"][0], atol=1e-4)
