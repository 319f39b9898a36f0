"""Text models of the Hugging Face kind: a random tiny BERT in LaBSE's own layout, through the real classes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speech_mining.encoders.huggingface import POOLINGS, HuggingFaceText, Recipe, model_files, pool
from speech_mining.encoders.protocol import Sentence, TextEncoder
from speech_mining.errors import EncoderError

HIDDEN, OUT = 16, 24
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] hello world the small fox runs under a tree number seven".split()
TEXTS = ("hello world", "the small fox runs under a tree", "seven", "a fox", "the tree runs", "hello hello world")
README = "---\nlanguage:\n- en\n- no\n- zh-TW\n- multilingual\n---\n# A model\n"


def build(folder: Path, *, seed: int = 0, safe: bool = True, pooling: str = "cls_token", out: int = OUT) -> Path:
    """Write a random BERT with pooling, dense layer (tanh) and normalisation, as sentence-transformers lays it out."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=12).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder, safe_serialization=safe)
        dense = torch.nn.Linear(HIDDEN, out)
    kinds = ("", "1_Pooling", "2_Dense", "3_Normalize")
    names = ("Transformer", "Pooling", "Dense", "Normalize")
    modules = [
        {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{name}"}
        for idx, (path, name) in enumerate(zip(kinds, names, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{mode}": mode == pooling for mode in POOLINGS}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": HIDDEN, **modes}))
    (folder / "2_Dense").mkdir(exist_ok=True)
    told = {"in_features": HIDDEN, "out_features": out, "activation_function": "torch.nn.modules.activation.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(told))
    state = {f"linear.{name}": tensor.detach().clone() for name, tensor in dense.state_dict().items()}
    if safe:
        save_file(state, folder / "2_Dense" / "model.safetensors")
    else:
        torch.save(state, folder / "2_Dense" / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def encoder(model: Path) -> HuggingFaceText:
    return HuggingFaceText(str(model), device="cpu", max_batch_tokens=16)


def by_hand(folder: Path, texts: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Each sentence alone, without padding, through transformers' own classes: [CLS], dense, tanh, unit length."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertModel, BertTokenizerFast

    tokenizer, bert = BertTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    dense = load_file(folder / "2_Dense" / "model.safetensors")
    rows = []
    for text in texts:
        with torch.inference_mode():
            first = bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]
            row = torch.tanh(dense["linear.weight"] @ first + dense["linear.bias"])
        rows.append((row / row.norm()).numpy())
    return np.array(rows, dtype=np.float32)


def embedded_by(encoder: TextEncoder, texts: tuple[str, ...]) -> npt.NDArray[np.float32]:
    return encoder.embed([Sentence(text, "eng") for text in texts]).vectors.astype(np.float32)


def test_importing_the_module_loads_no_heavy_library() -> None:
    imported = (
        "import sys, speech_mining.encoders.huggingface; "
        "print(sorted({'torch', 'fairseq2', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_vectors_equal_those_of_each_sentence_alone(encoder: HuggingFaceText, model: Path) -> None:
    embedded = encoder.embed([Sentence(text, "eng") for text in TEXTS])
    expected = by_hand(model, TEXTS)
    assert embedded.vectors.dtype == np.float16 and embedded.vectors.shape == (len(TEXTS), OUT)
    np.testing.assert_allclose(embedded.vectors.astype(np.float32), expected, atol=1e-5 + 2**-11)
    np.testing.assert_array_equal(embedded.kept, np.arange(len(TEXTS)))
    apart = np.abs(expected[:, None] - expected[None]).max(axis=2)
    assert apart[~np.eye(len(TEXTS), dtype=bool)].min() > 0.01  # so that their order is seen


def test_the_batch_budget_does_not_change_the_vectors(model: Path) -> None:
    one_by_one, together = (
        embedded_by(HuggingFaceText(str(model), device="cpu", max_batch_tokens=budget), TEXTS) for budget in (1, 1_000)
    )
    np.testing.assert_allclose(one_by_one, together, atol=1e-5 + 2**-11)


@pytest.mark.parametrize("mode", POOLINGS)
def test_each_pooling_is_worked_by_hand_and_sees_no_padding(mode: str) -> None:
    import torch

    states = torch.tensor([[[1.0, -2.0], [3.0, 4.0], [99.0, 99.0]]])
    expected = {
        "cls_token": [1, -2],
        "mean_tokens": [2, 1],
        "max_tokens": [3, 4],
        "mean_sqrt_len_tokens": [4 / 2**0.5, 2 / 2**0.5],
        "weightedmean_tokens": [7 / 3, 6 / 3],
        "lasttoken": [3, 4],
    }
    pooled = pool(states, torch.tensor([[1, 1, 0]]), [mode])
    np.testing.assert_allclose(pooled.numpy(), [expected[mode]], rtol=1e-6)


def test_two_poolings_are_joined_in_the_order_of_sentence_transformers() -> None:
    import torch

    states = torch.tensor([[[1.0], [5.0]]])
    assert pool(states, torch.tensor([[1, 1]]), ["mean_tokens", "max_tokens"]).tolist() == [[3.0, 5.0]]


def test_a_folder_without_modules_is_averaged_and_needs_no_dense_layer(model: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(model, tmp_path / "plain")
    (plain / "modules.json").unlink()
    recipe = Recipe.read(plain)
    assert (recipe.poolings, recipe.dense, recipe.dimension) == (("mean_tokens",), (), HIDDEN)
    assert embedded_by(HuggingFaceText(str(plain), device="cpu"), TEXTS).shape == (len(TEXTS), HIDDEN)


def test_what_cannot_be_embedded_is_rejected_with_its_reason(encoder: HuggingFaceText) -> None:
    given = ["", "  \t ", "zebra", "hello world", "hello " * 11, "hello " * 10]
    embedded = encoder.embed([Sentence(text, "eng") for text in given])
    assert embedded.kept.tolist() == [3, 5]
    assert [(told.item, told.reason) for told in embedded.rejected] == [
        (0, "no_content"),
        (1, "no_content"),
        (2, "no_content"),
        (4, "too_long"),
    ]
    assert "13 tokens, the encoder takes 12" in embedded.rejected[-1].detail
    norms = np.linalg.norm(embedded.vectors.astype(np.float32), axis=1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)


def test_progress_ends_at_the_number_of_items_and_no_items_give_no_rows(encoder: HuggingFaceText) -> None:
    told: list[tuple[int, int]] = []
    encoder.embed([Sentence(text, "eng") for text in (*TEXTS, "")], progress=lambda *now: told.append(now))
    assert told[-1] == (7, 7) and told == sorted(told) and len(told) > 2
    assert encoder.embed([]).vectors.shape == (0, OUT)


def test_a_models_prompt_stands_before_every_sentence(model: Path, tmp_path: Path) -> None:
    prompted = shutil.copytree(model, tmp_path / "prompted")
    told = {"prompts": {"query": "number seven "}, "default_prompt_name": "query"}
    (prompted / "config_sentence_transformers.json").write_text(json.dumps(told))
    encoder = HuggingFaceText(str(prompted), device="cpu")
    np.testing.assert_allclose(embedded_by(encoder, ("fox",)), by_hand(model, ("number seven fox",)), atol=1e-3)
    assert [told.reason for told in encoder.embed([Sentence("", "eng")]).rejected] == ["no_content"]


def test_the_settings_of_the_model_lower_its_limit_and_its_case(model: Path, tmp_path: Path) -> None:
    own = shutil.copytree(model, tmp_path / "own")
    (own / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": true}')
    recipe = Recipe.read(own)
    assert (recipe.longest_tokens, recipe.lower_case, recipe.dimension) == (5, True, OUT)
    assert Recipe.read(model).longest_tokens == 12


def test_languages_are_read_from_the_readme_or_vouched_for(model: Path, tmp_path: Path) -> None:
    told = shutil.copytree(model, tmp_path / "told")
    (told / "README.md").write_text(README)
    assert HuggingFaceText(str(told)).languages == {"eng", "nor", "zho"}
    assert HuggingFaceText(str(told), languages=["deu"]).languages == {"deu"}
    assert HuggingFaceText(str(model)).languages == frozenset()
    with pytest.raises(EncoderError, match=r"'deu'.*README does not list.*languages="):
        HuggingFaceText(str(told), device="cpu").embed([Sentence("hello", "deu")])


def test_the_version_changes_with_weights_and_pooling_and_not_with_the_place(tmp_path: Path) -> None:
    first, again, other = (
        build(tmp_path / place / "tiny", seed=seed) for place, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    mean = build(tmp_path / "d" / "tiny", pooling="mean_tokens")
    (again / "README.md").write_text(README)
    versions = [HuggingFaceText(str(folder)).version for folder in (first, again, other, mean)]
    assert versions[0] == versions[1] and len(set(versions)) == 3
    assert versions[0].startswith("huggingface-text-1+hf-tiny:sha256-")


def test_weights_without_safetensors_are_read_as_tensors_only_and_give_the_same(model: Path, tmp_path: Path) -> None:
    pickled = build(tmp_path / "pickled", safe=False)
    assert not list(pickled.rglob("*.safetensors"))
    np.testing.assert_allclose(
        embedded_by(HuggingFaceText(str(pickled), device="cpu"), TEXTS), by_hand(model, TEXTS), atol=1e-3
    )


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", [".", "2_Dense"])
def test_weights_that_would_run_code_are_refused_and_run_none(tmp_path: Path, place: str) -> None:
    import torch

    folder = build(tmp_path / "trap", safe=False)
    torch.save({"linear.weight": Trap(tmp_path / "sprung")}, folder / place / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"cannot be loaded.*pickle of more than tensors"):
        HuggingFaceText(str(folder), device="cpu").load()
    assert not (tmp_path / "sprung").exists()


def test_a_model_that_brings_its_own_code_is_refused_and_runs_none(model: Path, tmp_path: Path) -> None:
    own = shutil.copytree(model, tmp_path / "own")
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "mine.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n")
    with pytest.raises(EncoderError, match=r"cannot be loaded.*brings its own code"):
        HuggingFaceText(str(own), device="cpu").load()
    assert not (tmp_path / "sprung").exists()
    assert Path("mine.py") not in model_files(own)


def test_a_tensor_that_the_weights_lack_is_an_error_and_not_filled_at_random(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    short = shutil.copytree(model, tmp_path / "short")
    tensors = load_file(short / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    save_file(tensors, short / "model.safetensors", {"format": "pt"})
    assert HuggingFaceText(str(short), device="cpu").load()  # the pooler is not used
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, short / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match=r"lack 1 of the model's tensors: encoder\.layer\.1\.output\.dense\.weight"):
        HuggingFaceText(str(short), device="cpu").load()


def test_damaged_weights_are_an_error_of_ours(model: Path, tmp_path: Path) -> None:
    cut = shutil.copytree(model, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3_000])
    with pytest.raises(EncoderError, match=r"weights in .*cut cannot be loaded.*cut short"):
        HuggingFaceText(str(cut), device="cpu").load()


def test_missing_weights_are_one_error_with_both_ways_to_get_them(model: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(
        EncoderError, match=r"bare.*model\.safetensors.*HF_HOME.*hf download.*s2s models add bare.*S2S_MODEL_DIR"
    ):
        HuggingFaceText(str(bare), device="cpu").load()


def test_a_model_that_is_nowhere_is_the_same_error(tmp_path: Path) -> None:
    asked = (
        "from speech_mining.encoders.huggingface import HuggingFaceText\n"
        "try: HuggingFaceText('nobody/nothing').dimension\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "PATH": "/usr/bin"}
        told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, env=environment)
    assert told.stdout.startswith("EncoderError The model nobody/nothing is not on this machine"), told.stderr
    assert "HF_HOME" in told.stdout and "S2S_MODEL_DIR" in told.stdout


def test_a_name_is_found_in_the_model_directory(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(model, tmp_path / "sentence-transformers" / "LaBSE")
    monkeypatch.setenv("S2S_MODEL_DIR", str(tmp_path))
    encoder = HuggingFaceText("sentence-transformers/LaBSE")
    assert (encoder.name, encoder.dimension) == ("hf-labse", OUT)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("modules.json", '[{"type": "sentence_transformers.models.WeightedLayerPooling", "path": ""}]', "the step"),
        ("modules.json", "{}", "not a list"),
        ("modules.json", "[", "not JSON"),
        ("1_Pooling/config.json", '{"pooling_mode_other": true}', "the pooling"),
        ("2_Dense/config.json", '{"in_features": 1, "out_features": 1, "activation_function": "x.Odd"}', "Odd"),
        ("config.json", '{"model_type": "t5", "is_encoder_decoder": true}', "with a decoder"),
    ],
)
def test_a_model_of_a_kind_not_known_here_is_refused(
    model: Path, tmp_path: Path, file: str, content: str, told: str
) -> None:
    odd = shutil.copytree(model, tmp_path / "odd")
    (odd / file).write_text(content)
    with pytest.raises(EncoderError, match=told):
        _ = HuggingFaceText(str(odd)).dimension


def test_the_encoder_keeps_the_protocols_promises(encoder: HuggingFaceText) -> None:
    words: TextEncoder = encoder
    assert (words.name, words.dimension) == ("hf-tiny", OUT)
