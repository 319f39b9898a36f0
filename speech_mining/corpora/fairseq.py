"""fairseq: tables of speech-to-text and speech-to-speech translation, whose audio lies in stored zips.

A clip is addressed as `source-000.zip:offset:length`, as fairseq (and fairseq2's `FileMapper`) read it. fairseq joins
the address to `audio_root` and cuts it at its colons, so that no folder on the way may have a colon in its name.

- speech to speech: `id, src_audio, src_n_frames, tgt_audio, tgt_n_frames`, and languages and score;
- speech to text: `id, audio, n_frames, tgt_text, speaker`, and languages and score;
- text to speech: `id, audio, n_frames, src_text, speaker` of the spoken side, as fairseq's synthesis reads it.

Frames are samples, as fairseq counts where `use_audio_input` is on.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from speech_mining.corpora.card import card
from speech_mining.corpora.material import Material, Row
from speech_mining.corpora.shards import SHARD_BYTES
from speech_mining.errors import SettingsError
from speech_mining.mining.kinds import TEXT_TO_TEXT

ZIP_BYTES = 2 * SHARD_BYTES
"""Below 2 GiB: local headers stay without zip64, and offsets fit any reader."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LINE = str.maketrans({"\t": " ", "\n": " ", "\r": " ", "\v": " ", "\f": " ", "\x1c": " ", "\x1d": " ", "\x1e": " ",
                       "\x85": " ", "\u2028": " ", "\u2029": " ", "\0": " "})  # fmt: skip
"""fairseq reads without quotes: what would end a cell or a line becomes a space."""

_CONFIG = """# Frames are samples: the model reads waveforms.
use_audio_input: true
use_sample_rate: 16000
# The folder of this file, as seen from where fairseq runs.
audio_root: .
"""
_READING = """## How it is read

`train.tsv`, `dev.tsv` and `test.tsv` are tables of fairseq's tasks `speech_to_text` and `speech_to_speech`; run it in
this folder, or set `audio_root` in `config.yaml`."""


def write(material: Material, folder: Path, *, zip_bytes: int = ZIP_BYTES) -> None:
    """Write `train.tsv` and so on, `config.yaml`, `README.md`, and the zips of each spoken side.

    Raises:
        SettingsError: neither side is speech.
    """
    if material.kind == TEXT_TO_TEXT:
        raise SettingsError("fairseq's tables of speech hold speech.", expected="s2s, s2t or t2s", fix="--kind s2s")
    with ExitStack() as stack:
        zips = {side: stack.enter_context(_Zips(folder, side, zip_bytes)) for side in material.kind.spoken}
        for split in material.splits:
            table = "".join(f"{line}\n" for line in _lines(material, split, zips))
            (folder / f"{split}.tsv").write_text(table, "utf-8", newline="")
    (folder / "config.yaml").write_text(_CONFIG, "utf-8")
    (folder / "README.md").write_text(card(material.lineage, reading=_READING), "utf-8")


def _lines(material: Material, split: str, zips: Mapping[str, _Zips]) -> Iterator[str]:
    named = False
    for row in material.rows(split):
        cells = _cells(material, row, {side: zips[side].add(row) for side in zips})
        if not named:
            yield "\t".join(cells)
            named = True
        yield "\t".join(cell.translate(_LINE) for cell in cells.values())


def _cells(material: Material, row: Row, places: Mapping[str, str]) -> dict[str, str]:
    frames = {side: str(clip.samples) for side, clip in row.clips.items()}
    languages = dict(zip(("src_lang", "tgt_lang"), material.languages, strict=True))
    ends = {**languages, "score": repr(row.told["score"])}
    if len(places) == 2:
        spoken = {"src_audio": places["source"], "src_n_frames": frames["source"]}
        return {"id": row.id, **spoken, "tgt_audio": places["target"], "tgt_n_frames": frames["target"], **ends}
    (side, place), text = next(iter(places.items())), {"source": "tgt_text", "target": "src_text"}
    other = "target" if side == "source" else "source"
    told = {text[side]: row.text(other), "speaker": row.told[f"{side}_readers"]}
    return {"id": row.id, "audio": place, "n_frames": frames[side], **told, **ends}


class _Zips:
    """Stored zips of a side, one behind the other."""

    def __init__(self, folder: Path, side: str, most_bytes: int) -> None:
        self._folder, self._side, self._most_bytes = folder, side, most_bytes
        self._number, self._stack = -1, ExitStack()

    def __enter__(self) -> _Zips:
        self._next()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, row: Row) -> str:
        """Store a clip; where it lies, as fairseq addresses it."""
        content = row.clips[self._side].read()
        if self._file.tell() and self._file.tell() + len(content) > self._most_bytes:
            self._next()
        self._zip.writestr(zipfile.ZipInfo(f"{row.id}.flac", _EPOCH), content)
        return f"{self._name}:{self._file.tell() - len(content)}:{len(content)}"

    @property
    def _name(self) -> str:
        return f"{self._side}-{self._number:03d}.zip"

    def _next(self) -> None:
        self._stack.close()
        self._number += 1
        self._file = self._stack.enter_context((self._folder / self._name).open("wb"))
        self._zip = self._stack.enter_context(zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED))
