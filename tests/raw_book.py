"""A small book on a real server, and its `raw_audio` through real Dagster: what tests of that layer share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from partitions.audiobooks import add_audiobooks
from resources.librivox import LibriVox
from resources.settings import load_settings
from resources.storage import Storage
from s2s_assets.raw_audio import raw_audio
from speech_mining.lake import Lake, Partition
from speech_mining.records import CATALOGUE
from tests.faulty_server import Answer, FaultyServer

ORIGINS = ("https://archive.org", "https://www.archive.org")
ITEM = "a_book_librivox"


def sound(number: int, size: int = 100_000) -> bytes:
    return b"ID3\x04" + hashlib.sha256(b"%d" % number).digest() * (size // 32)


def section(number: int, url: str = "", **told: Any) -> dict[str, Any]:
    texts = ("title", "authors", "section_title", "readers", "reader_ids", "url_librivox", "licence")
    row: dict[str, Any] = {**dict.fromkeys(CATALOGUE), **dict.fromkeys(texts, "words")}
    listen_url = url or f"https://www.archive.org/download/{ITEM}/{number}.mp3"
    return {**row, "audiobook": "7", "section": number, "language": "deu", "listen_url": listen_url, **told}


@dataclass
class RawBook:
    """Book 7, in German."""

    server: FaultyServer
    lake_url: str
    home: Path
    mirrors: Mapping[str, Sequence[str]] | None = None
    catalogue_url: str = ""
    storage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(self.lake_url, scratch=self.home / "reader")

    @property
    def scratch(self) -> Path:
        return self.home / "downloads"

    @property
    def partition(self) -> Partition:
        return self.lake.partition("raw_audio", "deu", "7")

    def serve(self, recordings: Mapping[int, bytes], *, at: str = "") -> None:
        """Serve recordings and their checksums, on the server or below a path of it."""
        listed = [
            {"name": f"{number}.mp3", "size": str(len(body)), "md5": hashlib.md5(body).hexdigest()}
            for number, body in recordings.items()
        ]
        self.server.at(f"{at}/metadata/{ITEM}", Answer(json.dumps({"files": listed}).encode()))
        for number, body in recordings.items():
            self.server.at(f"{at}/download/{ITEM}/{number}.mp3", Answer(body))

    def list(self, *sections: dict[str, Any]) -> None:
        with self.lake.replace("catalogue") as new:
            new.write_table("catalogue.parquet", pl.DataFrame(sections, schema=dict(CATALOGUE)), CATALOGUE)

    def materialize(self, **librivox: Any) -> dict[str, Any]:
        """Materialize, and return what Dagster was told."""
        origins = self.mirrors or {origin: [self.server.url] for origin in ORIGINS}
        asked = {"attempts": 2, "first_wait_s": 0.0, "requests_per_second": 1000.0, **librivox}
        resources = {
            "librivox": LibriVox(catalogue_url=self.catalogue_url or self.server.url, mirrors=origins, **asked),
            "storage": Storage(url=self.lake_url, scratch=str(self.scratch), **self.storage),
        }
        settings = load_settings(home=self.home, languages="deu", librivox={"step_retries": 0})
        with dg.DagsterInstance.ephemeral() as instance:
            add_audiobooks(instance, "deu", ["7"])
            done = dg.materialize(
                [raw_audio("deu", settings)],
                partition_key="7",
                instance=instance,
                resources=resources,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            (event,) = done.get_asset_materialization_events()
            return {name: value.value for name, value in event.materialization.metadata.items()}

    def asked(self) -> list[str]:
        """The paths asked for since the last call."""
        paths = [request.path for request in self.server.requests]
        self.server.requests.clear()
        return paths

    def table(self, name: str) -> pl.DataFrame:
        return self.partition.read_frame(f"{name}.parquet")

    def contents(self) -> dict[int, bytes]:
        """Section → its bytes in the lake."""
        files = self.table("recordings").select("section", "file").iter_rows()
        return {number: self.partition.path(file).read_bytes() for number, file in files}


def leftovers(*roots: Path) -> list[str]:
    """Files below some folders that a finished run should not leave: parts, locks, staging."""
    suspicious = (".part", ".lock", ".refused", ".mp3.json")
    return sorted(
        str(path)
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and (path.name.endswith(suspicious) or ".staging" in path.parts)
    )
