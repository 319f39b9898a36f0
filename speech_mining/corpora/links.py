"""Links: a table of addresses, spans and scores, and no audio: what may be given away where the audio may not.

Like SeamlessAlign's metadata: whoever has the table fetches the recordings and cuts them again (`s2s reconstruct`,
module `reconstruct`). Of a side of text it tells the file, line and place, and not the words.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speech_mining.corpora.card import card
from speech_mining.corpora.material import Material, Row

FILE = "links.tsv.gz"
SPOKEN = ("url", "sha256", "start_sample", "end_sample", "audiobook", "section", "readers", "licence")
WRITTEN = ("address", "document", "line", "offset", "length")
_LETTERS = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

_READING = """## How it is read

`links.tsv.gz` is a table: score, id, split, and of each side the address of its recording, the recording's SHA-256, and
first sample and the one behind the last at 16 kHz. `s2s reconstruct links.tsv.gz --out FOLDER` fetches and cuts."""


def write(material: Material, folder: Path) -> None:
    """Write `links.tsv.gz`, best score first, and `README.md`."""
    with (folder / FILE).open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        for cells in _lines(material):
            packed.write(("\t".join(cells) + "\n").encode())
    (folder / "README.md").write_text(card(material.lineage, reading=_READING), "utf-8")


def columns(spoken: tuple[str, ...]) -> list[str]:
    """Of a table whose sides `spoken` are speech."""
    sides = {side: SPOKEN if side in spoken else WRITTEN for side in ("source", "target")}
    told = [f"{side}_{name}" for side, names in sides.items() for name in ("language", *names)]
    return ["score", "id", "split", *told]


def _lines(material: Material) -> Iterator[list[str]]:
    names = columns(material.kind.spoken)
    yield names
    for row in material.rows():
        told = {**row.told, **_hashes(material, row), "id": row.id, "split": row.split}
        yield [_cell(told[name]) for name in names]


def _hashes(material: Material, row: Row) -> dict[str, str]:
    return {f"{side}_sha256": material.hash_of(side, row.told) for side in material.kind.spoken}


def _cell(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value).translate(_LETTERS)
