"""The lake as a Dagster resource. What a lake is, is in `speech_mining.lake`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from speech_mining.lake import Lake, NewPartition, Partition


class Storage(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where partitions are kept: a folder or an object store."""

    url: str = Field(description="A path, or any URL that fsspec understands, such as s3://bucket/prefix.")
    scratch: str = Field(description="A local folder for downloads under way; they resume from there.")

    @property
    def lake(self) -> Lake:
        """The lake itself."""
        return Lake(self.url)


def published(lake: Lake, metadata: Mapping[str, Any], layer: str, *key: str) -> dg.MaterializeResult[None]:
    """What an asset reports of a partition that it has published: its figures, and its content as the data version."""
    return dg.MaterializeResult(
        metadata=metadata, data_version=dg.DataVersion(lake.partition(layer, *key).data_version)
    )


__all__ = ["Lake", "NewPartition", "Partition", "Storage", "published"]
