"""fairseq's speech-to-text manifests: `train*.tsv`, `dev*.tsv`, `test*.tsv` of `id audio n_frames tgt_text …`.

`audio` is a file, or `archive.zip:offset:length`, bytes of an archive that packs without compressing. `n_frames` counts
frames of features or samples, whichever was prepared, and is not believed. Whether `tgt_text` is a transcription or a
translation is told by the columns `src_lang` and `tgt_lang`, by the manifest's name (`train_asr_fr.tsv`,
`train_st_fr_en.tsv`), or by the user. A manifest of speech-to-speech translation has `src_audio`; its `tgt_audio` is
passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from speech_mining.sources.foreign_text import shown
from speech_mining.transcribed.folder import Folder
from speech_mining.transcribed.languages import Wanted, language_code, require_language, settled
from speech_mining.transcribed.listing import (
    SPLITS,
    ListedClip,
    Reading,
    Row,
    TranscribedSpeechError,
    UnusableClipError,
    listed_rows,
    split_named,
)
from speech_mining.transcribed.places import features_refused, range_place
from speech_mining.transcribed.tables import header_of, rows_of

_TASK = re.compile(r"_(?P<task>asr|st)(?:_(?P<source>[A-Za-z-]{2,7}))?(?:_(?P<target>[A-Za-z-]{2,7}))?$")
_RANGE = re.compile(r"(?P<file>.+):(?P<offset>[0-9]{1,15}):(?P<length>[0-9]{1,15})")


@dataclass(frozen=True)
class _Manifest:
    path: Path
    split: str
    columns: frozenset[str]
    task: str
    """What its name says after the split: "asr_fr", "st_fr_en"; may be empty."""
    language: str
    translation_language: str
    """ISO 639-3 by its name, empty where that does not say."""

    @property
    def translates(self) -> bool:
        """Whether its name says that `tgt_text` is a translation."""
        return self.task.startswith("st")


def seen(folder: Path) -> str:
    """The first manifest of a folder; empty where none lies there."""
    return next((path.name for path in sorted(folder.glob("*.tsv")) if _is_manifest(path)), "")


def read(folder: Path, wanted: Wanted) -> Reading:
    """Clips of the manifests of one task.

    Raises:
        TranscribedSpeechError: there is none, or several tasks and the languages wanted do not choose; or a language
            is not told; later, while clips are read: features of audio, and no audio.
    """
    paths = [path for path in sorted(folder.glob("*.tsv")) if _is_manifest(path)]
    found = [_manifest(path, split) for path in paths if (split := split_named(path.stem)) is not None]
    chosen = _of_one_task(folder, found, wanted)
    for manifest in chosen:
        _require_languages(manifest, wanted)
    chosen.sort(key=lambda manifest: (SPLITS.index(manifest.split), manifest.path.name))
    inside = Folder(folder)
    clips = (
        listed
        for manifest in chosen
        for listed in listed_rows(
            rows_of(manifest.path, manifest.path.name), lambda row: row.first("id"), _clip_of(inside, manifest, wanted)
        )
    )
    return Reading(clips, _notes(paths, found, chosen))


def _is_manifest(path: Path) -> bool:
    columns = set(header_of(path)) if path.is_file() else set()
    return "id" in columns and bool(columns & {"audio", "src_audio"})


def _manifest(path: Path, split: str) -> _Manifest:
    told = _TASK.search(path.stem)
    codes = (
        [language_code(name) or "" if name else "" for name in (told["source"], told["target"])] if told else ["", ""]
    )
    return _Manifest(path, split, frozenset(header_of(path)), told[0][1:] if told else "", codes[0], codes[1])


def _of_one_task(folder: Path, manifests: list[_Manifest], wanted: Wanted) -> list[_Manifest]:
    fitting = [
        manifest
        for manifest in manifests
        if (not manifest.language or wanted.language in ("", manifest.language))
        and (not manifest.translation_language or wanted.translation_language in ("", manifest.translation_language))
    ]
    tasks = sorted({manifest.task for manifest in fitting})
    if len(tasks) > 1 and wanted.translation_language:
        tasks = [task for task in tasks if task.startswith("st")] or tasks
    if len(tasks) == 1:
        return [manifest for manifest in fitting if manifest.task == tasks[0]]
    named = ", ".join(manifest.path.name for manifest in fitting or manifests) or "no manifest named after a split"
    raise TranscribedSpeechError(
        f"{folder} holds {named}.",
        expected="manifests of one task: train*.tsv, dev*.tsv, test*.tsv",
        fix="say language and translation_language, or put the manifests of each task into a folder of their own",
    )


def _require_languages(manifest: _Manifest, wanted: Wanted) -> None:
    if not (wanted.language or manifest.language or "src_lang" in manifest.columns):
        raise require_language(str(manifest.path), "src_lang")
    translates = manifest.translates or "src_text" in manifest.columns
    told = wanted.translation_language or manifest.translation_language or "tgt_lang" in manifest.columns
    if translates and "tgt_text" in manifest.columns and not told:
        raise require_language(str(manifest.path), "tgt_lang", setting="translation_language")


def _clip_of(folder: Folder, manifest: _Manifest, wanted: Wanted) -> Callable[[Row], ListedClip]:
    def clip_of(row: Row) -> ListedClip:
        file, place = _audio(folder, row.first("audio", "src_audio"))
        language = settled(wanted.language or manifest.language, row.first("src_lang"))
        transcription, translation, translation_language = _texts(manifest, wanted, row, language)
        return ListedClip(
            row.source,
            row.line,
            row.first("id"),
            manifest.split,
            language,
            file,
            place,
            transcription=transcription,
            translation=translation,
            translation_language=translation_language,
            speaker=row.first("speaker"),
        )

    return clip_of


def _texts(manifest: _Manifest, wanted: Wanted, row: Row, language: str) -> tuple[str, str, str]:
    """Transcription, translation and its language: a target in the language that is spoken is a transcription."""
    source, target = row.first("src_text"), row.first("tgt_text")
    told = row.first("tgt_lang")
    into = wanted.translation_language or manifest.translation_language
    if told and language_code(told) == language:
        return source or target, "", ""
    if not (told or into):
        return source or target, "", ""
    return source, target, settled(into, told)


def _audio(folder: Folder, told: str) -> tuple[Path, str]:
    """File and place of the cell `audio`; names may be relative to the folder above, as in "fr/fbank80.zip"."""
    ranged = _RANGE.fullmatch(told)
    name = ranged["file"] if ranged else told
    if not name:
        raise UnusableClipError("missing_clip", "the cell audio is empty")
    if name.lower().endswith(".npy"):
        raise features_refused(shown(told))
    file = folder.file(name)
    above = folder.root.parent / name
    # os.path: of a name too long for the file system, pathlib raises
    if not os.path.exists(file) and os.path.exists(above) and folder.holds(above):  # noqa: PTH110
        file = above
    return file, range_place(int(ranged["offset"]), int(ranged["length"])) if ranged else ""


def _notes(paths: list[Path], found: list[_Manifest], chosen: list[_Manifest]) -> tuple[str, ...]:
    read_from = {manifest.path for manifest in chosen}
    left = ", ".join(path.name for path in paths if path not in read_from)
    notes = [f"not read: {left}"] if left else []
    if any("tgt_audio" in manifest.columns for manifest in chosen):
        notes.append("tgt_audio, speech of the other language, is passed over")
    return tuple(notes)
