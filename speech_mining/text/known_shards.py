"""The shards of text that were listed last, kept in the lake: what is new, what changed, what is gone.

Listing an address is `listing`; what is done about a shard that changed is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from types import MappingProxyType

import polars as pl

from speech_mining.errors import LakeError, SettingsError
from speech_mining.lake import Lake
from speech_mining.records import Schema
from speech_mining.text.listing import Shard, list_shards

LAYER, TABLE = "text_shards", "shards.parquet"
SHARDS: Schema = {
    "shard": pl.String(),
    "language": pl.String(),
    "address": pl.String(),
    "bytes": pl.Int64(),
    "version": pl.String(),
    "format": pl.String(),
    "meta": pl.String(),
}


@dataclass(frozen=True, eq=False)
class Listed:
    """Shards as of now.

    Args:
        shards: `SHARDS`, by language and then in the order in which the first of two equal sentences is kept.
        changed: names of those that are new or have another version, by language.
    """

    shards: pl.DataFrame
    changed: Mapping[str, tuple[str, ...]]


def list_again(
    lake: Lake,
    addresses: Mapping[str, Sequence[str]],
    format: str,
    metas: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Listed:
    """List every address, and hold what is found against what was kept last.

    Args:
        lake: where what was found last is kept.
        addresses: language → files, folders, globs, lists of files or URLs.
        format: of all shards, or "auto".
        metas: language → where the meta files of each of its addresses are, in the same order; see `list_shards`.

    Raises:
        ShardError: an address holds nothing, or cannot be reached.
        SettingsError: two addresses of a language name the same shard, or there are more or fewer meta files.
    """
    kept = lake.find(LAYER)
    before = kept.read_table(TABLE, SHARDS) if kept else pl.DataFrame(schema=dict(SHARDS))
    found = [
        shard
        for language in sorted(addresses)
        for shard in _of_language(addresses[language], language, format, metas.get(language, ()))
    ]
    table = pl.DataFrame([_row(shard) for shard in found], schema=dict(SHARDS), orient="row")
    changed = table.join(before, on=["language", "shard", "version"], how="anti")
    by_language = {language: tuple(changed.filter(language=language)["shard"]) for language in sorted(addresses)}
    return Listed(table, by_language)


def keep(lake: Lake, found: Listed) -> None:
    """Keep what was found; once everybody who must know was told of what changed, since it is not told again."""
    with lake.replace(LAYER) as new:
        new.write_table(TABLE, found.shards, SHARDS)


def known_shard(lake: Lake, language: str, name: str) -> Shard:
    """A shard by its name.

    Raises:
        LakeError: it is not listed.
    """
    rows = lake.partition(LAYER).read_table(TABLE, SHARDS).filter(language=language, shard=name)
    if rows.is_empty():
        raise LakeError(
            f"There is no shard {name} of {language}.",
            cause="its file is gone since the shards were listed",
            fix="materialize text_shards",
        )
    row = rows.row(0, named=True)
    return Shard(name, row["address"], language, row["bytes"], row["version"], row["format"], row["meta"])


def _of_language(addresses: Sequence[str], language: str, format: str, metas: Sequence[str]) -> list[Shard]:
    shards = [
        shard
        for address, meta in zip_longest(addresses, metas, fillvalue="")
        for shard in list_shards(address, language, format=format, meta=meta)
    ]
    names = [shard.name for shard in shards]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(
            f"Text of {language} is named twice, such as the shard {twice}.",
            expected="each file under one address",
            fix="take one of the addresses out of text.shards",
        )
    return shards


def _row(shard: Shard) -> tuple[str, str, str, int, str, str, str]:
    return shard.name, shard.language, shard.address, shard.bytes, shard.version, shard.format, shard.meta
