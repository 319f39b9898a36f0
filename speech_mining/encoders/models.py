"""The model directory: which cards there are, how a checkpoint comes in, and whether it is still what it was.

What belongs here is files and cards. Finding and loading a card's model is `speech_mining.encoders.sonar` and
`.huggingface`. A file is written under a card's own folder, its card last, both atomically; the card holds the SHA-256
of every file, so that a damaged copy is found on a machine that can fetch no other.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from speech_mining.atomic import replacing
from speech_mining.encoders.cards import OwnCard, digest_of, own_cards, sha256_of
from speech_mining.encoders.huggingface import HUGGING_FACE, Recipe, model_files
from speech_mining.encoders.sonar import SPEECH_CARD, _AssetCards, _published_cards, text_languages
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent

CARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
CHECKPOINTS, TOKENIZERS = (".pt", ".pth", ".bin", ".safetensors"), (".model", ".spm")
_PICKLES = (".pt", ".pth", ".bin")

Origin: TypeAlias = Literal["published", "own"]
Presence: TypeAlias = Literal["here", "missing", "refused"]
Health: TypeAlias = Literal["ok", "damaged", "missing", "unrecorded"]


@dataclass(frozen=True)
class ModelFile:
    """One file that a card names, and whether it is on this machine."""

    card: str
    family: str
    languages: tuple[str, ...]
    """ISO 639-3; empty: the card states none."""
    field: str
    """`checkpoint`, `tokenizer`, or `folder` of a Hugging Face model."""
    file: str
    address: str
    origin: Origin
    state: Presence
    path: str
    """Empty: not on this machine. Where the card is refused: why."""


@dataclass(frozen=True)
class Added:
    """What `add_model` wrote."""

    card: str
    card_file: Path
    sha256: Mapping[str, str]
    """File, relative to the model directory → digest."""
    left_out: tuple[str, ...]
    """What a trusted pickle held beside tensors, numbers and text: its names."""


@dataclass(frozen=True)
class Verified:
    """One file of one's own card, held against the digest its card recorded."""

    card: str
    file: str
    state: Health
    expected: str
    found: str


# --- list ---


def list_models(model_dir: Path | None) -> list[ModelFile]:
    """Every file of every card that SONAR publishes, and of one's own; nothing is downloaded."""
    own = own_cards(model_dir) if model_dir else []
    cards = _AssetCards(model_dir)
    store = cards.store
    ours = {card.name.removesuffix("@user").rstrip("@") for card in own}
    of_sonar = {
        name.rstrip("@") for given in _published_cards() if "fairseq2" not in given.source for name in given.asset_names
    }
    rows = [row for card in own if card.stated.get("model_family") == HUGGING_FACE for row in _folder_rows(card)]
    folders = {row.card for row in rows}
    for name in sorted({name.split("@")[0] for name in of_sonar} | ours):
        if name not in folders and store.maybe_retrieve_card(name) is not None:
            rows += _card_rows(cards, name, "own" if name in ours else "published")
    return sorted(rows, key=lambda row: (row.card, row.field))


def _card_rows(cards: _AssetCards, name: str, origin: Origin) -> list[ModelFile]:
    try:
        card = cards.card(name)
        family = card.maybe_get_field("model_family")
        told = str(family.value) if family else ""
        fields = [field for field in ("checkpoint", "tokenizer") if card.has_field(field)]
        return [_card_row(cards, name, told, field, origin) for field in fields]
    except EncoderError as error:
        return [ModelFile(name, "", (), "checkpoint", "", "", origin, "refused", error.found)]


def _card_row(cards: _AssetCards, name: str, family: str, field: str, origin: Origin) -> ModelFile:
    weights = cards.weights(name, field)
    state: Presence = "here" if weights.path else "missing"
    languages = _languages(cards, name, family)
    return ModelFile(name, family, languages, field, weights.file, weights.uri, origin, state, str(weights.path or ""))


def _languages(cards: _AssetCards, name: str, family: str) -> tuple[str, ...]:
    prefix = SPEECH_CARD.format(language="")
    if name.startswith(prefix) and len(name) == len(prefix) + 3:
        return (name.removeprefix(prefix),)
    if family == "lstm":
        from speech_mining.encoders.laser import LANGUAGES

        return tuple(sorted(LANGUAGES))
    if family == "transformer_encoder":
        return tuple(sorted(text_languages(cards.tokenizer_languages(name))))
    return ()


def _folder_rows(card: OwnCard) -> list[ModelFile]:
    folder = card.file.parent / str(card.stated.get("folder", card.name))
    here = folder.is_dir()
    languages = tuple(sorted(Recipe.read(folder).languages)) if here else ()
    state: Presence = "here" if here else "missing"
    path, address = str(folder) if here else "", folder.absolute().as_uri()
    return [ModelFile(card.name, HUGGING_FACE, languages, "folder", folder.name, address, "own", state, path)]


# --- add ---


def add_model(
    source: Path,
    card: str,
    model_dir: Path,
    *,
    base: str = "",
    link: bool = False,
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> Added:
    """Bring a checkpoint, or a Hugging Face folder, into the model directory with a card that holds its SHA-256.

    Args:
        source: a checkpoint or tokenizer; a folder of both; or a folder with a config.json.
        card: a published card, which this one replaces; or a new name.
        model_dir: made if it does not exist.
        base: the card whose architecture a new name has; not needed for a Hugging Face folder.
        link: make symbolic links in place of copies.
        trust_pickle: unpickle a checkpoint of more than tensors, which may run any code that it holds, once and now;
            what is stored is its tensors, numbers and text alone, so that loading it later trusts nobody.
        progress: told the number of files done.

    Raises:
        EncoderError: no model there, a pickle of more than tensors, or a card that cannot be made. Nothing is written.
    """
    if not CARD_NAME.fullmatch(card):
        raise EncoderError(
            f"A card called {card!r}.", expected="letters, digits, '.', '_', '-', and one '/' at most", fix="rename it"
        )
    if not source.exists():
        raise EncoderError(f"There is no file or folder {source}.", fix="give the checkpoint, or the folder it is in")
    folder = source.is_dir() and any((source / name).is_file() for name in ("config.json", "modules.json"))
    stated, files = _folder_card(source, card) if folder else _checkpoint_card(source, card, base, model_dir)
    _refuse_second_card(stated["name"], _card_file(card, model_dir), model_dir)
    unsafe = [path for path in files.values() if path.suffix in _PICKLES and not _tensors_only(path, trust_pickle)]
    model_dir.mkdir(parents=True, exist_ok=True)
    digests, left_out = {}, []
    for done, (target, path) in enumerate(files.items(), start=1):
        if path in unsafe:
            left_out += _store_trusted(path, model_dir / target)
            digests[target] = sha256_of(model_dir / target)
        else:
            digests[target] = _store(path, model_dir / target, link)
        progress(done, len(files))
    file = _write_card(_card_file(card, model_dir), stated, digests)
    return Added(str(stated["name"]), file, digests, tuple(left_out))


def _card_file(card: str, model_dir: Path) -> Path:
    return model_dir / f"{card.replace('/', '__')}.yaml"


def _folder_card(source: Path, card: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """The card of a Hugging Face folder, and its files: target in the model directory → source."""
    Recipe.read(source)  # refuses what could not be used later
    files = {f"{card}/{file.as_posix()}": source / file for file in model_files(source)}
    if not any(path.suffix in CHECKPOINTS for path in files.values()):
        raise EncoderError(
            f"{source} holds no weights.",
            expected="model.safetensors or pytorch_model.bin",
            fix="fetch the model again",
        )
    return {"name": card, "model_family": HUGGING_FACE, "folder": card}, files


def _checkpoint_card(source: Path, card: str, base: str, model_dir: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The card of a checkpoint, its tokenizer or both, and its files."""
    published = _AssetCards(None)
    known = any(card == name.rstrip("@") for given in _published_cards() for name in given.asset_names)
    own = {given.name for given in own_cards(model_dir)} if model_dir.is_dir() else set()
    if not known and not base and card not in own:
        raise EncoderError(
            f"There is no published card called {card}.",
            expected="a published card, whose architecture the checkpoint has, or a new name with --base",
            fix="see the names with `s2s models list`, and give `--base sonar_speech_encoder_eng` or another",
        )
    if base:
        published.card(base)
    stated: dict[str, Any] = {"name": f"{card}@user"} if known else {"name": card, **({"base": base} if base else {})}
    named = published if known else None
    chosen = _files_by_field(source, card, named)
    files = {f"{card}/{path.name}": path for path in chosen.values()}
    return stated | {field: f"{card}/{path.name}" for field, path in chosen.items()}, files


def _files_by_field(source: Path, card: str, published: _AssetCards | None) -> dict[str, Path]:
    """Which file is the checkpoint and which the tokenizer: by its published name, else by its suffix."""
    candidates = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    chosen: dict[str, Path] = {}
    for field, suffixes in (("checkpoint", CHECKPOINTS), ("tokenizer", TOKENIZERS)):
        fitting = [path for path in candidates if path.suffix in suffixes]
        stated = published and published.card(card).maybe_get_field(field)
        named = [path for path in fitting if stated and path.name == published.weights(card, field).file]  # type: ignore[union-attr]
        fitting = named or fitting
        if len(fitting) > 1:
            raise EncoderError(
                f"{source} holds {len(fitting)} files that could be the {field}: "
                f"{', '.join(path.name for path in fitting)}.",
                expected="one",
                fix="give the file itself in place of its folder",
            )
        if fitting:
            chosen[field] = fitting[0]
    if not chosen:
        raise EncoderError(
            f"{source} holds no checkpoint.",
            expected=f"a file that ends in {', '.join(CHECKPOINTS)}; a tokenizer ends in {', '.join(TOKENIZERS)}",
            fix="give the file, the folder it is in, or the folder of a Hugging Face model with its config.json",
        )
    return chosen


def _refuse_second_card(name: str, file: Path, model_dir: Path) -> None:
    """Two cards of one name are an error of fairseq2's for every model of the directory: better now than then."""
    others = own_cards(model_dir) if model_dir.is_dir() else []
    for card in others:
        if card.name == name and card.file != file:
            raise EncoderError(
                f"{card.file} holds a card called {name} already.",
                expected="one card of a name",
                fix="remove that card, or take another name",
            )


def _tensors_only(path: Path, trusted: bool) -> bool:
    """Whether `torch.load(weights_only=True)` reads it; if it does not, the file has to be trusted.

    Raises:
        EncoderError: a pickle of more than tensors that is not trusted, or a file that is no checkpoint.
    """
    import pickle

    import torch

    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if trusted:
            return False
        raise EncoderError(
            f"{path} is a pickle of more than tensors: loading it could run code.",
            expected="what torch.load(weights_only=True) reads, or safetensors",
            cause=str(error).strip().splitlines()[-1],
            fix="save the state dict of the model alone; or, if you trust whoever made the file, add --trust-pickle, "
            "which unpickles it once and stores its tensors alone",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _no_checkpoint(path, error) from error
    return True


def _no_checkpoint(path: Path, error: Exception) -> EncoderError:
    return EncoderError(
        f"{path} cannot be read as a PyTorch checkpoint: {error}",
        cause="a copy or a download that was cut short",
        fix="fetch the file again",
    )


def _store(source: Path, target: Path, link: bool) -> str:
    """Copy a file, or link to it, and return its SHA-256; a kill leaves the old file or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".safetensors":
        _refuse_damaged_safetensors(source)
    if link:
        digest = sha256_of(source)
        part = target.with_name(f".{target.name}.{os.getpid()}.link")
        part.unlink(missing_ok=True)
        part.symlink_to(source.resolve())
        part.replace(target)
        return digest
    with replacing(target) as part, source.open("rb") as read, part.open("wb") as written:
        return digest_of(read, written)


def _refuse_damaged_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        raise _no_checkpoint(path, error) from error


def _store_trusted(source: Path, target: Path) -> list[str]:
    """Unpickle a trusted file, store what of it is tensors, numbers and text; returns the names of the rest."""
    import torch

    try:
        given = torch.load(source, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the pickle's own code raises
        raise _no_checkpoint(source, error) from error
    left_out: list[str] = []
    plain = _plain(given, "", left_out)
    if not any(isinstance(value, torch.Tensor) for value in _values(plain)):
        raise EncoderError(f"{source} holds no tensor.", expected="the state dict of a model", fix="give another file")
    with replacing(target) as part, part.open("wb") as written:
        torch.save(plain, written)  # to an open file: under a path its random name would stand in the bytes
    return left_out


def _plain(given: Any, name: str, left_out: list[str]) -> Any:
    """The part of an object that `weights_only` reads back; what is left out is named, as `optimizer.state`."""
    import torch

    if isinstance(given, torch.nn.Module):
        given = given.state_dict()
    if isinstance(given, torch.Tensor):
        return given.detach()
    if given is None or type(given) in (bool, int, float, str):
        return given
    if isinstance(given, Mapping):
        kept = {key: _plain(value, f"{name}.{key}".lstrip("."), left_out) for key, value in given.items()}
        return {key: value for key, value in kept.items() if type(key) in (str, int) and value is not _NOTHING}
    if isinstance(given, (list, tuple)):
        rows = [_plain(value, f"{name}[{place}]", left_out) for place, value in enumerate(given)]
        return [value for value in rows if value is not _NOTHING]
    left_out.append(f"{name or 'the whole file'} ({type(given).__name__})")
    return _NOTHING


_NOTHING = object()


def _values(given: Any) -> Iterator[Any]:
    if isinstance(given, dict):
        given = list(given.values())
    if not isinstance(given, list):
        yield given
        return
    for value in given:
        yield from _values(value)


def _write_card(file: Path, stated: Mapping[str, Any], digests: Mapping[str, str]) -> Path:
    """Write a card, atomically; what an older card of this file states beside is kept, digests of its files too."""
    import yaml

    before = {}
    if file.is_file() and stated.get("model_family") != HUGGING_FACE:
        before = dict(yaml.safe_load(file.read_text("utf-8")) or {})
    merged = {**before, **stated}
    kept = {str(merged[field]) for field in ("checkpoint", "tokenizer") if field in merged}
    recorded = {name: digest for name, digest in (before.get("sha256") or {}).items() if name in kept}
    merged["sha256"] = dict(sorted({**recorded, **digests}.items()))
    with replacing(file) as part:
        part.write_text(yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=200), "utf-8")
    return file


# --- verify ---


def verify_models(model_dir: Path, *, progress: Progress = silent) -> list[Verified]:
    """Read every file of one's own cards again, and hold it against the digest that its card recorded."""
    asked = [(card, file) for card in own_cards(model_dir) for file in _files_of(card)]
    rows = []
    for done, (card, file) in enumerate(asked, start=1):
        rows.append(_verified(card, file))
        progress(done, len(asked))
    return rows


def _files_of(card: OwnCard) -> Sequence[str]:
    return sorted({*card.digests, *card.local_files.values()})


def _verified(card: OwnCard, file: str) -> Verified:
    path, expected = card.file.parent / file, card.digests.get(file, "")
    if not path.is_file():
        return Verified(card.name, str(path), "missing", expected, "")
    found = sha256_of(path)
    state: Health = "unrecorded" if not expected else "ok" if found == expected else "damaged"
    return Verified(card.name, str(path), state, expected, found)
