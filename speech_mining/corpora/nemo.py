"""NeMo: a line of JSON for each pair, beside a FLAC file for each clip.

NeMo resolves `audio_filepath` against the manifest's folder. A text side is `text`, as its speech translation reads
it; of two spoken sides the target is `target_audio_filepath`, which NeMo hands on unread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speech_mining.corpora.card import card
from speech_mining.corpora.cutting import Clip
from speech_mining.corpora.material import SHORT, Material, Row
from speech_mining.corpora.shards import as_json
from speech_mining.errors import SettingsError
from speech_mining.mining.kinds import TEXT_TO_TEXT
from speech_mining.records import SAMPLE_RATE_HZ

_READING = """## How it is read

`train.jsonl`, `dev.jsonl` and `test.jsonl` are manifests of NeMo; audio is named relative to them."""


def write(material: Material, folder: Path) -> None:
    """Write `train.jsonl` and so on, `audio/<two letters>/<id>.src.flac`, and `README.md`.

    Raises:
        SettingsError: neither side is speech.
    """
    if material.kind == TEXT_TO_TEXT:
        raise SettingsError("A manifest of NeMo holds speech.", expected="s2s, s2t or t2s", fix="--kind s2s")
    for split in material.splits:
        with (folder / f"{split}.jsonl").open("wb") as manifest:
            for row in material.rows(split):
                manifest.write(as_json(_line(material, row, folder)) + b"\n")
    (folder / "README.md").write_text(card(material.lineage, reading=_READING), "utf-8")


def _line(material: Material, row: Row, folder: Path) -> dict[str, Any]:
    heard, *others = row.clips
    told: dict[str, Any] = {
        "id": row.id,
        "score": row.told["score"],
        **_languages(material),
        **_audio(row, heard, folder),
    }
    for side in others:
        told |= {f"{side}_{name}": value for name, value in _audio(row, side, folder).items()}
    written = [row.text(side) for side in SHORT if side not in row.clips]
    provenance = {name: row.told[name] for name in row.told if name.endswith(("_url", "_readers", "_licence"))}
    return {**told, "text": "".join(written), **provenance}


def _languages(material: Material) -> dict[str, str]:
    return dict(zip(("source_lang", "target_lang"), material.languages, strict=True))


def _audio(row: Row, side: str, folder: Path) -> dict[str, Any]:
    clip: Clip = row.clips[side]
    name = f"audio/{row.id[-2:]}/{row.id}.{SHORT[side]}.flac"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(clip.read())
    return {"audio_filepath": name, "duration": clip.samples / SAMPLE_RATE_HZ}
