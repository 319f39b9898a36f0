"""WebDataset: tars of `<id>.src.flac`, `<id>.tgt.flac` and `<id>.json`, a few hundred MB each.

A side of text is `<id>.src.txt` or `<id>.tgt.txt`. The three stand side by side, so that a trainer streams them.
"""

from __future__ import annotations

from pathlib import Path

from speech_mining.corpora.card import card
from speech_mining.corpora.material import SHORT, Material, Row
from speech_mining.corpora.shards import SHARD_BYTES, Tar, as_json, sharded

_READING = """## How it is read

```python
import webdataset

for pair in webdataset.WebDataset("train-000000.tar", shardshuffle=False).decode():
    pair["__key__"], pair["src.flac"], pair["json"]
```"""


def write(material: Material, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `train-000000.tar` and so on, and `README.md`."""
    for split in material.splits:
        for number, rows in enumerate(sharded(material.rows(split), shard_bytes)):
            with Tar(folder / f"{split}-{number:06d}.tar") as tar:
                for row in rows:
                    _add(material, row, tar)
    (folder / "README.md").write_text(card(material.lineage, reading=_READING), "utf-8")


def _add(material: Material, row: Row, tar: Tar) -> None:
    for side, short in SHORT.items():
        if side in material.kind.spoken:
            tar.add(f"{row.id}.{short}.flac", row.clips[side].read())
        else:
            tar.add(f"{row.id}.{short}.txt", row.text(side).encode())
    tar.add(f"{row.id}.json", as_json({"id": row.id, "split": row.split, **row.told}))
