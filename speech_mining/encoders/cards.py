"""Cards of one's own, and whether a file on this machine is still the one that its card recorded.

What belongs here is YAML and SHA-256; no model is loaded and no library of models is needed. A card may hold the digest
of each of its files (`s2s models add` writes them). Each is compared when the file is loaded, once in a process as long
as the file's size and time stay the same: the version of an encoder reads the file for its digest anyway, so that
comparing costs nothing more. Nothing is remembered from one process to the next: a file that went bad on the disk keeps
its time. Measured on one core with SHA instructions: 0.8 GB/s, 3 s for a SONAR speech encoder of 2.4 GB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from speech_mining.errors import EncoderError

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class OwnCard:
    """A card of the model directory, as its file states it."""

    name: str
    file: Path
    stated: Mapping[str, Any]

    @property
    def digests(self) -> dict[str, str]:
        """File, relative to the card → SHA-256, as recorded when it was added."""
        return recorded_digests(self.name, self.stated.get("sha256"), str(self.file))

    @property
    def local_files(self) -> dict[str, str]:
        """Field → file, of the fields that name a file of this machine."""
        named = {field: str(self.stated[field]) for field in ("checkpoint", "tokenizer") if self.stated.get(field)}
        local = {field: file.removeprefix("file://") for field, file in named.items()}
        return {field: file for field, file in local.items() if "://" not in file}


def own_cards(model_dir: Path) -> list[OwnCard]:
    """Every card of a model directory, by file and in the order stated there.

    Raises:
        EncoderError: no such directory, or a file that is not YAML cards.
    """
    import yaml

    if not model_dir.is_dir():
        raise EncoderError(
            f"The model directory {model_dir} does not exist.", fix="create it, or correct S2S_MODEL_DIR"
        )
    cards = []
    for file in sorted([*model_dir.rglob("*.yaml"), *model_dir.rglob("*.yml")]):
        try:
            documents = [given for given in yaml.safe_load_all(file.read_text("utf-8")) if given is not None]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise EncoderError(f"{file} is not YAML: {error}", fix="correct the card, or move it away") from error
        for stated in documents:
            if not isinstance(stated, dict) or not stated.get("name"):
                raise EncoderError(f"{file} holds a card without a name.", fix="add the line `name: <card>`")
            cards.append(OwnCard(str(stated["name"]), file, stated))
    return cards


def recorded_digests(card: str, stated: object, where: str) -> dict[str, str]:
    """The `sha256:` of a card: file, relative to the card → lower-case SHA-256; empty where it states none.

    Raises:
        EncoderError: it is no mapping.
    """
    if stated is None:
        return {}
    if not isinstance(stated, Mapping):
        raise EncoderError(
            f"The card {card} in {where} has a sha256 that is no mapping.",
            expected="`sha256:` followed by one line `<file>: <64 hexadecimal digits>` a file",
            fix="add the model again with `s2s models add`, or remove the line",
        )
    return {str(file): str(digest).lower() for file, digest in stated.items()}


def refuse_changed(card: str, path: Path, expected: str) -> None:
    """Hold a file against the digest that a card recorded; a file that was held before is not read again.

    Raises:
        EncoderError: it is another file; both digests are named.
    """
    if (found := sha256_once(path)) != expected.lower():
        raise EncoderError(
            f"The file {path} is not the one that the card {card} recorded: its SHA-256 is {found}.",
            expected=expected,
            cause="it was exchanged after it was added, or damaged on the disk or by a copy",
            fix="put the recorded file back (`s2s models verify` tells of every file); or, if it was exchanged on "
            f"purpose, run `s2s models add` for the card {card} again: the encoder then has another version",
        )


def sha256_of(path: Path) -> str:
    """Digest of a file, read now: hexadecimal."""
    with path.open("rb") as read:
        return digest_of(read)


def sha256_once(path: Path) -> str:
    """Digest of a file, read again in this process only when its size or time changes."""
    about = path.stat()
    return _sha256(path.resolve(), about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    return sha256_of(path)


def digest_of(read: BinaryIO, written: BinaryIO | None = None) -> str:
    """SHA-256 of what is read; copied to `written` on the way, so that what is hashed is what is stored."""
    digest = hashlib.sha256()
    while chunk := read.read(_CHUNK_BYTES):
        digest.update(chunk)
        if written is not None:
            written.write(chunk)
    return digest.hexdigest()
