"""The lake as a Dagster resource. What a lake is, is in `speech_mining.lake`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from resources.settings import Settings
from speech_mining.lake import Lake, NewPartition, Partition
from speech_mining.sources.audiobook import Place
from speech_mining.sources.disk import Room, told_when_full
from speech_mining.sources.quarantine import Quarantine
from speech_mining.sources.writer import only_writer


class Storage(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where partitions are kept: a folder or an object store."""

    url: str = Field(description="A path, or any URL that fsspec understands, such as s3://bucket/prefix.")
    scratch: str = Field(description="A local folder for downloads under way; they resume from there.")

    quarantine_mb: int = Field(default=2048, description="What refused files may take, beside the scratch folder.")
    reserve_mb: int = Field(default=512, description="What must stay free on the disks when a book starts.")
    copies_gb: float = Field(default=20.0, description="What copies of an object store's files may take in scratch.")
    wait_for_writer_s: float = Field(default=10.0, description="How long another writer of a book is waited for.")

    @classmethod
    def of(cls, settings: Settings) -> Storage:
        """The one that the settings ask for."""
        scratch = str(settings.home.absolute() / "downloads")
        return cls(url=settings.lake_url, scratch=scratch, **settings.storage.model_dump())

    @property
    def lake(self) -> Lake:
        """The lake itself."""
        return Lake(self.url, scratch=Path(self.scratch) / ".lake", cache_bytes=round(self.copies_gb * 2**30))

    @property
    def quarantine(self) -> Quarantine:
        """Files that came and were refused."""
        return Quarantine(Path(self.scratch).absolute().parent / "quarantine", self.quarantine_mb * 2**20)

    @property
    def workshop(self) -> Path:
        """Where training keeps what it resumes from, a folder a student."""
        return Path(self.scratch).absolute().parent / "training"

    def scratch_of(self, *names: str) -> Path:
        """A folder on this machine that a layer keeps for itself from run to run; nothing is lost with it but time."""
        return Path(self.scratch).absolute().parent.joinpath("scratch", *names)

    @contextmanager
    def arriving(self, language: str, book: str) -> Iterator[Place]:
        """Where the recordings of a book arrive, as its only writer; what lies there is gone when the block ends well.

        Raises:
            BusyError: another process is at it.
            NoRoomError: the disk is full.
        """
        folder = Path(self.scratch) / language / book
        folders = {"scratch": folder, "the lake": self.lake.folder}
        room = Room({name: path for name, path in folders.items() if path is not None}, self.reserve_mb * 2**20)
        lock = folder.with_name(f".{book}.lock")
        with told_when_full(f"Audiobook {book}"), only_writer(lock, wait_s=self.wait_for_writer_s):
            yield Place(folder, room, self.quarantine)
            shutil.rmtree(folder, ignore_errors=True)


def published(lake: Lake, metadata: Mapping[str, Any], layer: str, *key: str) -> dg.MaterializeResult[None]:
    """What an asset reports of a partition that it has published: its figures, and its content as the data version."""
    return dg.MaterializeResult(
        metadata=metadata, data_version=dg.DataVersion(lake.partition(layer, *key).data_version)
    )


__all__ = ["Lake", "NewPartition", "Partition", "Storage", "published"]
