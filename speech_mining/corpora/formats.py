"""The formats a corpus may be exported in, and how an export is put into a folder: whole, or not at all.

What belongs here is the list, and the way of a folder from its making to its place. What is in it is the business of
the module of its format.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from speech_mining.atomic import sync
from speech_mining.corpora import cutting, fairseq, hugging_face, lhotse_shar, links, nemo, web_dataset
from speech_mining.corpora.material import Material, Planned
from speech_mining.errors import SettingsError
from speech_mining.progress import Progress, silent
from speech_mining.sources.disk import told_when_full
from speech_mining.sources.writer import only_writer

VERSION = "1"
RECORD = "export.json"
"""Beside the data: where it came from, and by what it is known to be an export."""

Exporter: TypeAlias = Callable[[Material, Path], None]
FORMATS: Mapping[str, Exporter] = MappingProxyType(
    {
        "hugging-face": hugging_face.write,
        "lhotse-shar": lhotse_shar.write,
        "web-dataset": web_dataset.write,
        "fairseq": fairseq.write,
        "nemo": nemo.write,
        "links": links.write,
    }
)
WITHOUT_AUDIO = frozenset({"links"})
"""Formats that hold no clip: nothing is cut for them."""


def exporter(name: str) -> Exporter:
    """The exporter of a format.

    Raises:
        SettingsError: there is none.
    """
    if name not in FORMATS:
        raise SettingsError(
            f"There is no export format {name!r}.",
            expected=f"one of {', '.join(FORMATS)}",
            fix="choose one of them with --format, or in exports.formats",
        )
    return FORMATS[name]


def fill(
    planned: Planned, name: str, folder: Path, store: Path, *, workers: int = 2, progress: Progress = silent
) -> None:
    """Fill an empty folder with an export.

    Args:
        planned: the corpus.
        name: of the format.
        folder: empty.
        store: where clips are kept while they are cut; what it holds already is not cut again.
        workers: recordings that are decoded at once.
        progress: recordings cut, and all.

    Raises:
        SettingsError: there is no such format, or it cannot hold this kind.
        NoRoomError: the disk is full; clips that are cut are kept.
        AudioError, LakeError: see `cutting.cut`.
    """
    write = exporter(name)
    with told_when_full(f"The export of {planned.pair}"):
        wanted = planned if name not in WITHOUT_AUDIO else planned.unheard()
        write(wanted.cut(store, workers=workers, progress=progress), folder)
        (folder / RECORD).write_text(json.dumps(record_of(planned, name), indent=1, sort_keys=True), "utf-8")


def record_of(planned: Planned, name: str) -> dict[str, object]:
    """What tells one export from another: format, versions, and the whole lineage."""
    versions = {"export": VERSION, "cutting": cutting.VERSION}
    return {"format": name, "versions": versions, "lineage": planned.lineage.as_dict()}


def export_to(planned: Planned, name: str, out: Path, *, workers: int = 2, progress: Progress = silent) -> bool:
    """Put an export where a user wants it: it appears there when it is whole.

    It is made in `.<name>.exporting` beside it. A run that was killed leaves that, with the clips it has cut, and the
    next one goes on from there. An earlier export in the place is replaced; anything else is left alone.

    Returns:
        whether there was anything to do: False where this very export is there already.

    Raises:
        SettingsError: something else is in the place.
        BusyError: another process is making it.
    """
    exporter(name)
    out = out.absolute()
    staging = out.with_name(f".{out.name}.exporting")
    with told_when_full(f"The export of {planned.pair}"), only_writer(staging.with_suffix(".lock"), wait_s=0):
        if _known(out) == json.loads(json.dumps(record_of(planned, name))):
            return False
        made = staging / "made"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        fill(planned, name, made, staging / "clips", workers=workers, progress=progress)
        _sync(made)
        _put(made, out, staging / "earlier")
        shutil.rmtree(staging, ignore_errors=True)
    return True


def _known(out: Path) -> object:
    """The record of the export that is in the place, None where the place is free."""
    if not out.exists() and not out.is_symlink():
        return None
    if out.is_dir() and not any(out.iterdir()):
        return None
    try:
        told = json.loads((out / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        told = None
    if not isinstance(told, dict) or "lineage" not in told:
        raise SettingsError(
            f"{out} is not empty, and no export.",
            expected="a folder that is not there yet, is empty, or holds an earlier export",
            cause="it holds something else, which an export would destroy",
            fix="choose another folder with --out, or move away what is there",
        )
    return told


def _put(made: Path, out: Path, aside: Path) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    if out.exists():
        out.rename(aside)
    made.rename(out)


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync(path)
