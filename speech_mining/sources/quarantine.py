"""Files that came and were refused, kept to look at, each with the reason beside it.

What belongs here is the folder: `<language>/<book>/<section>.<first of sha256><suffix>` and `….json`. Why a file is
refused is the business of whoever puts it here: a download, or a decoder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speech_mining.atomic import replacing
from speech_mining.errors import LakeError
from speech_mining.records import AUDIOBOOK_ID

_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}|")
_SHA256_SHOWN = 12


@dataclass(frozen=True)
class Refusal:
    """Why a recording was refused; a section has one at a time."""

    language: str
    audiobook: str
    section: int
    reason: str
    """One of `records.RejectionReason`."""
    found: str
    expected: str
    url: str


@dataclass(frozen=True)
class Quarantine:
    """A folder of refused files.

    It holds at most `most_bytes`: the oldest give way to a new one, and of a file that is larger by itself only the
    reason is kept.
    """

    folder: Path
    most_bytes: int

    def put(self, path: Path, refusal: Refusal, *, suffix: str = "", move: bool = False) -> Path:
        """Keep a file and the reason of its refusal, in place of what was kept of its section before.

        Args:
            path: the file; it is copied unless `move`.
            refusal: whose it is, and why.
            suffix: how the kept file's name ends (".mp3"); default: the end of `path`.
            move: take it away from where it is, without copying where the disk allows.

        Returns:
            The JSON file that tells the reason, with the size and the hash of the file.

        Raises:
            LakeError: the language or the book is not a plain name.
        """
        content = {**asdict(refusal), **_facts(path)}
        ending = (suffix or path.suffix).lower()
        kept = self._of(refusal) / (
            f"{refusal.section:04d}.{content['sha256'][:_SHA256_SHOWN]}{ending if _SUFFIX.fullmatch(ending) else ''}"
        )
        self.release(refusal.language, refusal.audiobook, refusal.section)
        content["kept"] = self._make_room(content["bytes"])
        kept.parent.mkdir(parents=True, exist_ok=True)
        if content["kept"]:
            _transfer(path, kept, move)
        told = kept.with_name(f"{kept.name}.json")
        with replacing(told) as part:
            part.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False), "utf-8")
        return told

    def release(self, language: str, audiobook: str, section: int) -> None:
        """Forget what was kept of a section: it could be had since."""
        folder = self._book(language, audiobook)
        for name in (f"{section:04d}.*", f".{section:04d}.*"):  # also what a kill left half written
            for path in folder.glob(name):
                path.unlink(missing_ok=True)
        for emptied in (folder, folder.parent):
            if emptied.is_dir() and not any(emptied.iterdir()):
                emptied.rmdir()

    def held(self, language: str, audiobook: str) -> list[Mapping[str, Any]]:
        """What is kept of a book, by section: the content of its JSON files, and `file`, where each lies."""
        return [
            {**json.loads(told.read_text("utf-8")), "file": str(told.with_suffix(""))}
            for told in sorted(self._book(language, audiobook).glob("[0-9]*.json"))
        ]

    def _of(self, refusal: Refusal) -> Path:
        return self._book(refusal.language, refusal.audiobook)

    def _book(self, language: str, audiobook: str) -> Path:
        for name in (language, audiobook):
            if not AUDIOBOOK_ID.fullmatch(name):
                raise LakeError(f"{name!r} cannot name a folder.", expected="letters, digits, '.', '_' and '-'")
        return self.folder / language / audiobook

    def _make_room(self, size: int) -> bool:
        """Remove the oldest files until one of `size` fits; False where it never does."""
        if size > self.most_bytes:
            return False
        files = sorted(self._files(), key=lambda path: (path.stat().st_mtime_ns, str(path)))
        held = sum(path.stat().st_size for path in files)
        for path in files:
            if held + size <= self.most_bytes:
                break
            held -= path.stat().st_size
            path.unlink()
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)
        return True

    def _files(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("*/*/*") if path.is_file() and path.suffix != ".json")


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        digest.update(chunk)
    return digest


def _transfer(path: Path, kept: Path, move: bool) -> None:
    if move and path.stat().st_dev == kept.parent.stat().st_dev:
        os.replace(path, kept)  # noqa: PTH105
        return
    with replacing(kept) as part:
        shutil.copyfile(path, part)
    if move:
        path.unlink()
