"""Rows in shards of a bounded size, and tars whose bytes depend on nothing but what is in them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from speech_mining.corpora.material import Row

SHARD_BYTES = 400 * 2**20
"""What a shard's audio may have: some hundred MB, as trainers like it for shuffling and resuming."""


def sharded(rows: Iterable[Row], most_bytes: int) -> Iterator[list[Row]]:
    """Rows in their order, in lists whose clips have at most `most_bytes`; a row that is larger stands alone."""
    shard: list[Row] = []
    size = 0
    for row in rows:
        own = sum(clip.length for clip in row.clips.values())
        if shard and size + own > most_bytes:
            yield shard
            shard, size = [], 0
        shard.append(row)
        size += own
    if shard:
        yield shard


def as_json(told: Mapping[str, Any]) -> bytes:
    """One line of JSON with sorted keys."""
    return json.dumps(told, sort_keys=True, ensure_ascii=False).encode()


class Tar:
    """A tar that carries no time, owner or machine."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)

    def __enter__(self) -> Tar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def add(self, name: str, content: bytes) -> None:
        """Append a file."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o644
        self._tar.addfile(info, io.BytesIO(content))
