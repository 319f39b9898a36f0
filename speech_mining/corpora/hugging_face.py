"""Hugging Face: parquet with two `Audio` columns and a dataset card.

`datasets.load_dataset(FOLDER)` reads it, and a folder that is pushed to the hub shows a player for each row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speech_mining.corpora.card import card
from speech_mining.corpora.material import Material, Row
from speech_mining.corpora.shards import SHARD_BYTES, sharded
from speech_mining.records import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import pyarrow as pa

SPLIT_NAMES = {"train": "train", "dev": "validation", "test": "test"}
ROWS_A_GROUP = 100
"""Clips are read a row group at a time: a hundred are some 25 MB."""
_BUCKETS = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write(material: Material, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `data/train-00000-of-00001.parquet` and so on, and `README.md`."""
    schema = _schema(material)
    for split in material.splits:
        # counted first: a shard's name says how many there are, and only one shard's rows fit in memory
        count = sum(1 for _ in sharded(material.rows(split), shard_bytes))
        for number, rows in enumerate(sharded(material.rows(split), shard_bytes)):
            name = f"{SPLIT_NAMES[split]}-{number:05d}-of-{count:05d}.parquet"
            _write_shard(material, rows, schema, folder / "data" / name)
    page = card(material.lineage, header=_header(material), reading=_READING)
    (folder / "README.md").write_text(page, "utf-8")


_READING = """## How it is read

```python
from datasets import load_dataset

pairs = load_dataset("path/to/this/folder", split="train")
pairs[0]["score"], pairs[0]["source_audio"]
```"""


def _write_shard(material: Material, rows: Sequence[Row], schema: pa.Schema, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_index=True) as writer:
        for start in range(0, len(rows), ROWS_A_GROUP):
            group = [_cells(material, row) for row in rows[start : start + ROWS_A_GROUP]]
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _cells(material: Material, row: Row) -> dict[str, Any]:
    audio = {
        f"{side}_audio": {"bytes": row.clips[side].read(), "path": f"{row.id}.{side}.flac"}
        for side in material.kind.spoken
    }
    return {"id": row.id, **audio, **row.told}


def _schema(material: Material) -> pa.Schema:
    """Columns, and what `datasets` is told of them: a struct of bytes and path is `Audio` only by this."""
    import pyarrow as pa

    audio = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    told = _told_schema(material)
    fields = [
        pa.field("id", pa.string()),
        *(pa.field(f"{side}_audio", audio) for side in material.kind.spoken),
        *told,
    ]
    features = {field.name: _feature(field, audio) for field in fields}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _told_schema(material: Material) -> list[pa.Field]:
    import pyarrow as pa

    types = {"String": pa.string(), "Int32": pa.int32(), "Int64": pa.int64(), "Float32": pa.float32()}
    dtypes = material.frame.schema
    return [pa.field(name, types.get(str(dtypes[name]), pa.float64())) for name in material.columns]


def _feature(field: pa.Field, audio: pa.DataType) -> dict[str, Any]:
    if field.type == audio:
        return {"sampling_rate": SAMPLE_RATE_HZ, "_type": "Audio"}
    return {"dtype": "float64" if str(field.type) == "double" else _dtype(field), "_type": "Value"}


def _dtype(field: pa.Field) -> str:
    return {"float": "float32"}.get(str(field.type), str(field.type))


def _header(material: Material) -> str:
    """The YAML that the hub and `datasets` read: where each split is, and what may be searched for."""
    import yaml

    count = material.frame.height
    told: dict[str, Any] = {
        "language": sorted(set(material.languages)),
        "pretty_name": f"{material.kind.name} {material.pair}",
        "task_categories": ["translation", *(["automatic-speech-recognition"] if material.kind.name == "s2t" else [])],
        "size_categories": [next((name for most, name in _BUCKETS if count < most), "n>1M")],
        "tags": ["audio", "speech-translation", "mined"],
        "configs": [{"config_name": "default", "data_files": _data_files(material)}],
    }
    return f"---\n{yaml.safe_dump(told, sort_keys=True, allow_unicode=True)}---\n\n"


def _data_files(material: Material) -> list[dict[str, str]]:
    names = [SPLIT_NAMES[split] for split in material.splits]
    return [{"split": name, "path": f"data/{name}-*.parquet"} for name in names]
