"""LaBSE and every other sentence-transformers text model behind our protocol, through `transformers` alone.

What belongs here is the sentence-transformers folder (modules.json: a transformer, a pooling, dense layers), read
without that package, and the way from sentences to unit rows. Weights are safetensors, or PyTorch files that
`torch.load(weights_only=True)` reads; code that a model brings along is never run.

Feng et al. 2022, "Language-agnostic BERT Sentence Embedding"; Reimers & Gurevych 2019, "Sentence-BERT".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import langcodes
import numpy as np
import numpy.typing as npt

from speech_mining.encoders.cards import OwnCard, own_cards, refuse_changed, sha256_once
from speech_mining.encoders.feeding import Vectors
from speech_mining.encoders.placement import Precision, placement
from speech_mining.encoders.protocol import Embedded, Sentence
from speech_mining.encoders.sonar import default_model_dir
from speech_mining.encoders.work import Refusal, Work, as_float32, embed_tokens
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent

CODE_VERSION = "1"
"""Part of every version: raise it when the same weights would give other vectors."""
POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
"""Pooling modes of sentence-transformers, in the order in which it joins their vectors."""
ACTIVATIONS = ("Tanh", "Identity", "ReLU", "GELU", "Sigmoid")
HUGGING_FACE = "huggingface"
"""`model_family` of a card whose folder `HuggingFaceText` reads; fairseq2 never loads it."""
_SMALL_FILES = ("*.json", "*.txt", "*.model", "README.md")


def model_files(folder: Path) -> list[Path]:
    """Every file of a model folder that its vectors may depend on, relative and in order; never code.

    PyTorch weights are left out where the same folder has safetensors, which are read in their place.
    """
    found: set[Path] = set()
    for place in _folders(folder):
        weights = sorted(place.glob("*.safetensors")) or sorted(place.glob("pytorch_model*.bin"))
        small = {path for pattern in _SMALL_FILES for path in place.glob(pattern)}
        found |= {path.relative_to(folder) for path in {*weights, *small} if path.is_file()}
    return sorted(found)


def _folders(folder: Path) -> list[Path]:
    """The model's folder and those that modules.json names in it."""
    named = [folder / str(module.get("path", "")) for module in _modules(folder)]
    inside = [place for place in named if place.resolve().is_relative_to(folder.resolve()) and place.is_dir()]
    return list(dict.fromkeys([folder, *inside]))


def _modules(folder: Path) -> list[dict[str, Any]]:
    """What modules.json states; a folder without one is a transformer whose states are averaged, as SBERT has it."""
    stated = _json(folder / "modules.json")
    if stated is None:
        return [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    if not isinstance(stated, list) or not all(isinstance(module, dict) for module in stated):
        raise EncoderError(f"{folder / 'modules.json'} is not a list of modules.", fix="fetch the model again")
    return stated


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise EncoderError(
            f"{path} is not JSON: {error}", cause="a copy that was cut short", fix="fetch it again"
        ) from error


@dataclass(frozen=True)
class Dense:
    """A linear layer after the pooling, and its activation."""

    folder: Path
    inputs: int
    outputs: int
    activation: str
    bias: bool


@dataclass(frozen=True)
class Recipe:
    """What a model folder says about itself, read without its weights."""

    transformer: Path
    poolings: tuple[str, ...]
    dense: tuple[Dense, ...]
    hidden: int
    longest_tokens: int
    lower_case: bool
    prompt: str
    """Put before every sentence, as `default_prompt_name` of the model says."""
    languages: frozenset[str]
    """ISO 639-3; empty: the model states none."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.dense[-1].outputs if self.dense else self.hidden * len(self.poolings)

    @classmethod
    def read(cls, folder: Path) -> Recipe:
        """Read a folder.

        Raises:
            EncoderError: no model, or a step that is not known here: a vector without it would be another.
        """
        steps: dict[str, list[Path]] = {"Transformer": [], "Pooling": [], "Dense": [], "Normalize": []}
        for module in _modules(folder):
            kind = str(module.get("type", "")).rsplit(".", 1)[-1]
            if kind not in steps:
                raise _unknown(folder, f"the step {kind}", f"one of {', '.join(steps)}")
            steps[kind].append(folder / str(module.get("path", "")))
        transformer = (steps["Transformer"] or [folder])[0]
        config = _json(transformer / "config.json")
        if not isinstance(config, dict):
            raise EncoderError(
                f"{transformer} holds no config.json.",
                expected="a folder of a Hugging Face model",
                fix="give the folder that holds config.json, or a name on the Hugging Face hub",
            )
        if config.get("is_encoder_decoder"):
            raise _unknown(folder, "an encoder with a decoder", "an encoder alone, such as BERT or XLM-R")
        settings = _json(transformer / "sentence_bert_config.json") or {}
        return cls(
            transformer=transformer,
            poolings=_poolings(steps["Pooling"], folder),
            dense=tuple(_dense(step, folder) for step in steps["Dense"]),
            hidden=int(config.get("hidden_size") or config.get("dim") or config.get("d_model") or 0),
            longest_tokens=_longest(transformer, settings, config),
            lower_case=bool(settings.get("do_lower_case", False)),
            prompt=_prompt(folder),
            languages=_stated_languages(folder / "README.md"),
        )


def _unknown(folder: Path, found: str, expected: str) -> EncoderError:
    return EncoderError(
        f"The model {folder} asks for {found}.",
        expected=expected,
        cause="a kind of sentence-transformers model that is not known here",
        fix="take another model: leaving the step out would give other vectors than its authors'",
    )


def _poolings(steps: Sequence[Path], folder: Path) -> tuple[str, ...]:
    if not steps:
        return ("mean_tokens",)
    config = _json(steps[0] / "config.json") or {}
    asked = {name.removeprefix("pooling_mode_") for name, value in config.items() if value is True}
    asked &= {name.removeprefix("pooling_mode_") for name in config if name.startswith("pooling_mode_")}
    if not asked or asked - set(POOLINGS):
        raise _unknown(folder, f"the pooling {sorted(asked)}", f"one or more of {', '.join(POOLINGS)}")
    if config.get("include_prompt") is False and _prompt(folder):
        raise _unknown(folder, "a pooling that leaves its prompt out", "include_prompt: true")
    return tuple(mode for mode in POOLINGS if mode in asked)


def _dense(step: Path, folder: Path) -> Dense:
    config = _json(step / "config.json") or {}
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS:
        raise _unknown(folder, f"the activation {activation}", f"one of {', '.join(ACTIVATIONS)}")
    return Dense(step, int(config["in_features"]), int(config["out_features"]), activation, config.get("bias", True))


def _longest(transformer: Path, settings: dict[str, Any], config: dict[str, Any]) -> int:
    """The longest sentence in tokens: what the model states, or the least of what its parts can take."""
    if settings.get("max_seq_length"):
        return int(settings["max_seq_length"])
    tokenizer = _json(transformer / "tokenizer_config.json") or {}
    limits = (tokenizer.get("model_max_length"), config.get("max_position_embeddings"))
    return min([512, *(int(limit) for limit in limits if limit)])


def _prompt(folder: Path) -> str:
    config = _json(folder / "config_sentence_transformers.json") or {}
    name = config.get("default_prompt_name")
    return str((config.get("prompts") or {}).get(name, "")) if name else ""


def _stated_languages(readme: Path) -> frozenset[str]:
    """The `language:` of a model card's first block, as ISO 639-3; "multilingual" and the like name none."""
    import yaml

    parts = readme.read_text("utf-8").split("---", 2) if readme.is_file() else []
    if len(parts) < 3 or parts[0].strip():
        return frozenset()
    try:
        # every scalar as text: Norwegian is `no`, which YAML would read as false
        stated = (yaml.load(parts[1], yaml.BaseLoader) or {}).get("language") or []
    except (yaml.YAMLError, AttributeError):
        return frozenset()
    return frozenset(filter(None, map(_iso_639_3, [stated] if isinstance(stated, str) else stated)))


def _iso_639_3(code: object) -> str | None:
    if not isinstance(code, str) or not 2 <= len(code.split("-")[0]) <= 3:
        return None
    try:
        return langcodes.Language.get(code).to_alpha3()
    except LookupError:
        return None


class HuggingFaceText:
    """A sentence-transformers model as text encoder; found and loaded when it is first used.

    Args:
        model: a folder; or a name, looked for as a folder of the model directory, then in the hub's cache on this
            machine, then on the hub (`HF_HUB_OFFLINE=1` forbids the last).
        languages: ISO 639-3 codes to vouch for; None reads them from the model's README. Where that states none,
            any language is taken.
        device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto" is float16 on CUDA and float32 on the CPU, which knows no other.
        max_batch_tokens: tokens in a batch, padding included.
        batch_share: of that, in (0, 1]: less where an attempt before died of memory.
        model_dir: directory of models of one's own; None reads `S2S_MODEL_DIR`.
        revision: a branch, tag or commit of the hub; pin a commit for lineage.
    """

    def __init__(
        self,
        model: str,
        *,
        languages: Iterable[str] | None = None,
        device: str = "auto",
        dtype: Precision = "auto",
        max_batch_tokens: int = 8_192,
        batch_share: float = 1.0,
        model_dir: Path | None = None,
        revision: str | None = None,
    ) -> None:
        self.model = model
        self._given = None if languages is None else frozenset(languages)
        self._device, self._dtype = device, dtype
        self._max_batch_tokens = max(1, int(max_batch_tokens * batch_share))
        self._model_dir, self._revision = model_dir or default_model_dir(), revision

    @property
    def name(self) -> str:
        """The model's own name, without the folders before it."""
        return "hf-" + self.model.rstrip("/").rsplit("/", 1)[-1].lower()

    @cached_property
    def folder(self) -> Path:
        """Where the model is on this machine; fetched from the hub if it is nowhere here.

        Raises:
            EncoderError: it is not here and cannot be fetched.
        """
        here = [Path(self.model), *([self._model_dir / self.model] if self._model_dir else [])]
        for folder in here:
            if folder.is_dir():
                return folder
        return _from_the_hub(self.model, self._revision)

    @cached_property
    def recipe(self) -> Recipe:
        """What the folder says about the model; reads no weights."""
        return Recipe.read(self.folder)

    @property
    def dimension(self) -> int:
        """Length of a vector, read from the model's configuration."""
        return self.recipe.dimension

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-3 codes it was given or states; empty where there are neither, and any language is taken."""
        return self.recipe.languages if self._given is None else self._given

    @property
    def version(self) -> str:
        """Our code's version, the model's name and one SHA-256 over its weights, tokenizer and configuration."""
        digest = hashlib.sha256()
        for file in model_files(self.folder):
            if file.name == "README.md":
                continue
            digest.update(f"{file.as_posix()} {sha256_once(self.folder / file)}\n".encode())
        return f"huggingface-text-{CODE_VERSION}+{self.name}:sha256-{digest.hexdigest()}"

    def embed(self, items: Sequence[Sentence], *, progress: Progress = silent) -> Embedded:
        """Embed sentences; those that are empty, of unknown pieces only, or too long are rejected with a reason.

        sentence-transformers cuts a sentence at the model's limit; a cut sentence is no translation of a whole one,
        so it is rejected here.

        Raises:
            EncoderError: a language that the model does not know, or weights that are missing or damaged.
        """
        self._refuse_unknown({sentence.language for sentence in items})
        if not items:
            return Work(0, self.dimension, {}, progress).embedded()
        tokens = self.load().tokens([sentence.text for sentence in items])
        refusals = {item: reason for item, given in enumerate(tokens) if (reason := self.load().refusal(given))}
        work = Work(len(items), self.dimension, refusals, progress)
        return embed_tokens(work, tokens, self.load().vectors, self._max_batch_tokens)

    def load(self) -> LoadedHuggingFace:
        """The model on its device, loaded at the first call.

        Raises:
            EncoderError: the weights are missing, damaged or not of this architecture.
        """
        return self._loaded

    @cached_property
    def _loaded(self) -> LoadedHuggingFace:
        device, dtype = placement(self._device, self._dtype)
        self._refuse_changed()
        return LoadedHuggingFace(self.recipe, device, dtype)

    def _refuse_changed(self) -> None:
        """Hold the folder against the card of the model directory that recorded it, if one did."""
        models = self._model_dir
        if models is None or not self.folder.resolve().is_relative_to(models.resolve()):
            return
        for card in own_cards(models):
            place = card.file.parent / str(card.stated.get("folder", ""))
            if card.stated.get("model_family") == HUGGING_FACE and place.resolve() == self.folder.resolve():
                _refuse_unlike(card, place)

    def _refuse_unknown(self, languages: set[str]) -> None:
        if self.languages and (unknown := sorted(languages - self.languages)):
            raise EncoderError(
                f"The language {unknown[0]!r} given to the text encoder {self.model}.",
                expected=f"one of its {len(self.languages)} ISO 639-3 codes",
                cause="its README does not list the language",
                fix="vouch for it with `languages=`, or take another encoder",
            )


def _refuse_unlike(card: OwnCard, folder: Path) -> None:
    """Hold every file of a folder against its card; one that the card does not record is refused as well.

    Safetensors put beside recorded PyTorch weights would be read in their place.
    """
    recorded = {card.file.parent / file: digest for file, digest in card.digests.items()}
    here = [folder / file for file in model_files(folder) if file.name != "README.md"]
    if recorded and (others := sorted(set(here) - set(recorded))):
        raise EncoderError(
            f"The folder {folder} holds {others[0].name}, which its card {card.name} does not record.",
            expected=f"the files that {card.file.name} lists under sha256, and no other",
            cause="a file was put there after the model was added",
            fix="take it away, or add the model again with `s2s models add`",
        )
    for file, digest in recorded.items():
        if not file.is_file():
            raise _missing_weights(card.name, str(file.relative_to(card.file.parent)), "its card records the file")
        refuse_changed(card.name, file, digest)


class LoadedHuggingFace:
    """A transformer on its device with its tokenizer, pooling and dense layers."""

    def __init__(self, recipe: Recipe, device: Any, dtype: Any) -> None:
        self.recipe, self._device = recipe, device
        self.tokenizer: Any = _load_tokenizer(recipe.transformer)
        self.model: Any = _load_transformer(recipe.transformer).to(device, dtype).eval()
        self._dense = [_load_dense(dense).to(device, dtype).eval() for dense in recipe.dense]
        self._empty = set(self.tokenizer.all_special_ids)
        self._prompt_tokens = len(self._ids([recipe.prompt])[0]) - len(self._ids([""])[0]) if recipe.prompt else 0

    def tokens(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """Tokenize with the model's prompt and special pieces, nothing cut: int64 (tokens,) each."""
        return self._ids([self.recipe.prompt + text.strip() for text in texts])

    def _ids(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        given = [text.lower() for text in texts] if self.recipe.lower_case else list(texts)
        encoded = self.tokenizer(given, truncation=False, padding=False, verbose=False)["input_ids"]
        return [np.asarray(ids, dtype=np.int64) for ids in encoded]

    def refusal(self, tokens: npt.NDArray[np.int64]) -> Refusal | None:
        """Why these tokens cannot be embedded, if they cannot."""
        known = [int(token) for token in tokens if int(token) not in self._empty]  # the unknown piece is special too
        if len(known) <= self._prompt_tokens or not self.tokenizer.decode(known).strip():
            return "no_content", f"{len(tokens)} tokens, none of which says something"
        if len(tokens) > self.recipe.longest_tokens:
            return "too_long", f"{len(tokens)} tokens, the encoder takes {self.recipe.longest_tokens}"
        return None

    def vectors(self, tokens: Sequence[npt.NDArray[np.int64]]) -> Vectors:
        """Embed tokenized sentences as one batch, padded on the right: float32 (n, d), not normalised."""
        import torch

        longest = max(len(given) for given in tokens)
        ids = np.full((len(tokens), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros((len(tokens), longest), dtype=np.int64)
        for row, given in enumerate(tokens):
            ids[row, : len(given)], mask[row, : len(given)] = given, 1
        with torch.inference_mode():
            given_mask = torch.from_numpy(mask).to(self._device)
            states = self.model(input_ids=torch.from_numpy(ids).to(self._device), attention_mask=given_mask)
            pooled = pool(states.last_hidden_state, given_mask, self.recipe.poolings)
            for dense in self._dense:
                pooled = dense(pooled)
            return as_float32(pooled)


def pool(states: Any, mask: Any, modes: Sequence[str]) -> Any:
    """One vector a sentence from its tokens' states, as `sentence_transformers.models.Pooling` makes it.

    Args:
        states: tensor (n, tokens, hidden).
        mask: int64 tensor (n, tokens), 1 for a token and 0 for padding on the right; no row of zeros only.
        modes: of `POOLINGS`, joined in that order.

    Returns:
        Tensor (n, hidden x modes), of the states' type; sums are made in float32.
    """
    import torch

    wide = states.float()
    here = mask.unsqueeze(-1).to(wide.dtype)
    count = here.sum(1)
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=wide.dtype)[None, :, None]
    ways = {
        "cls_token": lambda: wide[:, 0],
        "mean_tokens": lambda: (wide * here).sum(1) / count,
        "max_tokens": lambda: wide.masked_fill(here == 0, float("-inf")).max(1).values,
        "mean_sqrt_len_tokens": lambda: (wide * here).sum(1) / count.sqrt(),
        "weightedmean_tokens": lambda: (wide * here * place).sum(1) / (here * place).sum(1),
        "lasttoken": lambda: wide[torch.arange(len(wide), device=mask.device), mask.sum(1) - 1],
    }
    return torch.cat([ways[mode]() for mode in modes], dim=1).to(states.dtype)


def _load_tokenizer(folder: Path) -> Any:
    import transformers

    tokenizers: Any = transformers.AutoTokenizer
    try:
        return tokenizers.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise _damaged(folder, "tokenizer", error) from error


def _load_transformer(folder: Path) -> Any:
    """The transformer in float32, from safetensors or from what `weights_only` reads; no part of it left to chance."""
    import logging as levels
    import pickle

    from safetensors import SafetensorError
    from transformers import AutoModel
    from transformers.utils import logging

    safe = any(folder.glob("*.safetensors"))
    if not safe and not any(folder.glob("pytorch_model*.bin")):
        raise _missing_weights(str(folder), "model.safetensors", "the folder holds no weights")
    told = logging.get_verbosity()
    logging.set_verbosity(levels.ERROR)  # that weights are missing is an error of ours, below
    try:
        model, report = AutoModel.from_pretrained(
            str(folder),
            use_safetensors=safe,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError, pickle.PickleError) as error:
        raise _damaged(folder, "weights", error) from error
    finally:
        logging.set_verbosity(told)
    # The pooler of BERT is not used: many sentence models leave its weights out.
    if absent := sorted(name for name in report["missing_keys"] if not name.startswith("pooler.")):
        raise EncoderError(
            f"The weights in {folder} lack {len(absent)} of the model's tensors: {', '.join(absent[:3])}.",
            cause="a checkpoint of another architecture; transformers would fill them at random",
            fix="fetch the model again",
        )
    return model


def _load_dense(dense: Dense) -> Any:
    import torch

    layer = torch.nn.Linear(dense.inputs, dense.outputs, bias=dense.bias)
    tensors = _dense_tensors(dense.folder)
    try:
        layer.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise _damaged(dense.folder, "weights", error) from error
    return torch.nn.Sequential(layer, getattr(torch.nn, dense.activation)())


def _dense_tensors(folder: Path) -> dict[str, Any]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        if safe.is_file():
            return dict(load_file(safe))
        return dict(torch.load(pickled, map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise _missing_weights(str(folder), "model.safetensors", "the folder holds no weights") from error
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError, pickle.PickleError) as error:
        raise _damaged(folder, "weights", error) from error


def _from_the_hub(name: str, revision: str | None) -> Path:
    """The folder of a model in the hub's cache, fetched there if the network allows."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.txt", "*.model", "README.md", "*.safetensors"]
    try:
        folder = _with_weights(snapshot_download, name, revision, wanted)
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _missing_weights(name, "model.safetensors", f"neither a folder here nor on the hub ({reason})") from error
    return Path(folder)


def _with_weights(download: Any, name: str, revision: str | None, wanted: list[str]) -> str:
    """Safetensors where the repository has them, else its PyTorch weights; the cache answers first, without network."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = [*wanted, "pytorch_model*.bin", "*/pytorch_model.bin"]
    try:
        kept = str(download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
        if (Path(kept) / "config.json").is_file() and _has_weights(Path(kept)):
            return kept
    except LocalEntryNotFoundError:
        pass
    fetched = str(download(name, revision=revision, allow_patterns=wanted, ignore_patterns=["onnx/*", "openvino/*"]))
    if _has_weights(Path(fetched)):
        return fetched
    return str(download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["onnx/*", "openvino/*"]))


def _has_weights(folder: Path) -> bool:
    """Whether each module that has weights has them here: the transformer, and every dense layer."""
    places = [place for place in _folders(folder) if _needs_weights(place, folder)]
    return all(any(place.glob("*.safetensors")) or any(place.glob("pytorch_model*.bin")) for place in places)


def _needs_weights(place: Path, folder: Path) -> bool:
    kinds = {folder / str(module.get("path", "")): str(module.get("type", "")) for module in _modules(folder)}
    return kinds.get(place, "").endswith(("Transformer", "Dense"))


def _missing_weights(model: str, file: str, cause: str) -> EncoderError:
    """The one error of a model that is not here: its name, the file, and both ways to get it."""
    named, folder = model.rstrip("/"), model.rstrip("/").rsplit("/", 1)[-1]
    return EncoderError(
        f"The model {model} is not on this machine: {file}.",
        cause=cause,
        fix="either download it: on a connected machine the first use does, into the hub's cache (HF_HOME, by default "
        f"~/.cache/huggingface), which may be copied here; or fetch it there with `hf download {named} --local-dir "
        f"{folder}`, bring the folder here and run `s2s models add {folder} --card {folder}` with S2S_MODEL_DIR set to "
        f"a directory of your own: the encoder is then hf:{folder}",
    )


def _damaged(folder: Path, what: str, error: Exception) -> EncoderError:
    told = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return EncoderError(
        f"The {what} in {folder} cannot be loaded: {told}",
        expected="safetensors, or a pickle of tensors and nothing else, of the architecture in config.json",
        cause="a copy that was cut short, a model that brings its own code, or a pickle of more than tensors, which "
        "is refused",
        fix="fetch the model again, or save its weights as safetensors",
    )
