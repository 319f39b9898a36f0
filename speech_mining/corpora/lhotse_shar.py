"""Lhotse Shar: cuts as lines of JSON, and tars of their audio in the same order.

That is `cuts.000000.jsonl.gz`, `recording.000000.tar` and `target_recording.000000.tar`. Written without Lhotse,
since a shard is lines of JSON and tars; `CutSet.from_shar(in_dir=FOLDER / "train")` reads it. A cut's supervision is
who speaks and which language; the target side is `cut.target_recording`, or of a side of text the supervision's
`custom["translation"]`. Everything else that the corpus tells is in `cut.custom`.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from speech_mining.corpora.card import card
from speech_mining.corpora.material import Material, Row
from speech_mining.corpora.shards import SHARD_BYTES, Tar, as_json, sharded
from speech_mining.errors import SettingsError
from speech_mining.mining.kinds import TEXT_TO_TEXT
from speech_mining.records import SAMPLE_RATE_HZ

_READING = """## How it is read

```python
from lhotse import CutSet

for cut in CutSet.from_shar(in_dir="train"):
    cut.load_audio(), cut.load_target_recording()
```"""


def write(material: Material, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a folder for each split, and `README.md`.

    Raises:
        SettingsError: neither side is speech.
    """
    if material.kind == TEXT_TO_TEXT:
        raise SettingsError("Lhotse's cuts are of speech.", expected="s2s, s2t or t2s", fix="--kind s2s")
    for split in material.splits:
        for number, rows in enumerate(sharded(material.rows(split), shard_bytes)):
            _write_shard(material, rows, folder / split, f"{number:06d}")
    (folder / "README.md").write_text(card(material.lineage, reading=_READING), "utf-8")


def _write_shard(material: Material, rows: Sequence[Row], folder: Path, number: str) -> None:
    fields = _fields(material)
    with ExitStack() as stack:
        tars = {name: stack.enter_context(Tar(folder / f"{name}.{number}.tar")) for name in fields}
        raw = stack.enter_context((folder / f"cuts.{number}.jsonl.gz").open("wb"))
        cuts = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))
        for row in rows:
            cuts.write(as_json(_cut(material, row)) + b"\n")
            for name, side in fields.items():
                tars[name].add(f"{row.id}.flac", row.clips[side].read())
                tars[name].add(f"{row.id}.json", as_json(_recording(row, side)))


def _fields(material: Material) -> dict[str, str]:
    """Shar's field → side: the first that is spoken is the cut's recording."""
    first, *others = material.kind.spoken
    return {"recording": first, **{f"{side}_recording": side for side in others}}


def _recording(row: Row, side: str) -> dict[str, Any]:
    samples = row.clips[side].samples
    return {
        "id": f"{row.id}.{side}",
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": SAMPLE_RATE_HZ,
        "num_samples": samples,
        "duration": samples / SAMPLE_RATE_HZ,
        "channel_ids": [0],
    }


def _cut(material: Material, row: Row) -> dict[str, Any]:
    first, *others = material.kind.spoken
    recording = _recording(row, first)
    held = {f"{side}_recording": _recording(row, side) for side in others}
    return {
        "id": row.id,
        "type": "MonoCut",
        "start": 0.0,
        "duration": recording["duration"],
        "channel": 0,
        "recording": recording,
        "supervisions": [_supervision(material, row, first, recording["duration"])],
        "custom": {**row.told, **held, "split": row.split},
    }


def _supervision(material: Material, row: Row, side: str, duration_s: float) -> dict[str, Any]:
    languages = dict(zip(("source", "target"), material.languages, strict=True))
    written = [name for name in languages if name not in material.kind.spoken]
    custom = {"translation": row.text(written[0]), "translation_language": languages[written[0]]} if written else {}
    return {
        "id": row.id,
        "recording_id": f"{row.id}.{side}",
        "start": 0.0,
        "duration": duration_s,
        "channel": 0,
        "language": languages[side],
        "speaker": row.told[f"{side}_readers"],
        **({"custom": custom} if custom else {}),
    }
