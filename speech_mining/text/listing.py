"""Which shards an address holds: a file, a folder, a glob, or a list of addresses; each with its size and version."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from speech_mining.errors import SettingsError
from speech_mining.records import natural_order
from speech_mining.text.streams import ShardError, file_system, numbered_lines, unpacked, unreachable

_LISTS = (".paths", ".paths.gz", ".list", ".list.gz")
_NOT_SHARDS = (".meta", ".md", ".sha256", ".md5", ".crc", ".tmp", ".part", ".json.lock")
_VERSIONS = ("ETag", "etag", "md5", "checksum", "mtime", "LastModified", "last_modified", "updated")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_SLUG = 60
_ASKED_AT_ONCE = 16
"""72 000 files of one Common Crawl snapshot take as many questions to its server."""


@dataclass(frozen=True)
class Shard:
    """A file of text of one language: what is cleaned, de-duplicated and embedded in one go."""

    name: str  # unique, stable: names partitions and files
    address: str
    language: str  # ISO 639-3
    bytes: int  # 0: its server does not tell
    version: str  # what tells one content from another: an ETag, else size and time of change; its meta file's too
    format: str = "auto"
    meta: str = ""


def list_shards(address: str, language: str, *, format: str = "auto", meta: str = "") -> list[Shard]:
    """The shards at an address, in natural order of their addresses.

    Args:
        address: a file; a folder, with all below it; a glob (`s3://bucket/deu/*.zst`); or a list, named `….paths` or
            `….list`, maybe with `.gz`: an address a line. What a line names is where it says, or lies beside the
            list; of Common Crawl's lists, whose lines begin with a folder that the list's own address holds
            (`crawl-data/…`), where that folder lies.
        language: of all of them, ISO 639-3.
        format: of all of them, see `open_shard`.
        meta: the same for meta files: as many, which belong to the shards in order.

    Raises:
        ShardError: there is nothing, or nothing that may be read, or a file is listed twice.
        SettingsError: there are more or fewer meta files than shards.
    """
    addresses = _addresses(address)
    metas = _addresses(meta) if meta else [""] * len(addresses)
    if len(metas) != len(addresses):
        raise SettingsError(
            f"{address} has {len(addresses)} shards, and {meta} {len(metas)} meta files.", expected="one for each"
        )
    twice = [one for one, count in Counter(addresses).items() if count > 1]
    if twice:
        raise ShardError(f"{address} names {twice[0]} twice.", expected="each file once")
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        facts = list(threads.map(_size_and_version, addresses, metas))
    return [
        Shard(shard_name(one), one, language, size, version, format, about)
        for one, about, (size, version) in zip(addresses, metas, facts, strict=True)
    ]


def refuse_changed(shard: Shard, when: str) -> None:
    """Hold a shard against what it was when it was listed; one that has no version is taken as it is.

    Args:
        shard: as it was listed.
        when: the change must have come, as the error says it.

    Raises:
        ShardError: its file, or its meta file, is another one now, or is gone.
    """
    if not shard.version:
        return
    for address in filter(None, (shard.address, shard.meta)):
        _forget_what_was_listed(address)
    try:
        _, version = _size_and_version(shard.address, shard.meta)
    except ShardError as problem:
        if not isinstance(problem.__cause__, FileNotFoundError):
            raise
        raise _no_longer_as_listed(shard, f"is gone {when}", "it was removed or renamed") from problem
    if version != shard.version:
        found = f"has changed {when}: {shard.version} became {version}"
        raise _no_longer_as_listed(shard, found, "something writes to it")


def shard_name(address: str) -> str:
    """A name for a shard that fits partitions and files: what fits of the file's name, and 12 digits of a hash.

    It depends on the address alone. Of 72 000 shards with names alike, two are the same with a probability of 10^-5.
    """
    composed = unicodedata.normalize("NFC", address)
    digest = hashlib.blake2b(composed.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    plain = unicodedata.normalize("NFKD", file_name(address)).encode("ascii", "ignore").decode()
    slug = _UNFIT.sub("-", plain).strip("._-")[:_LONGEST_SLUG]
    return f"{slug or 'shard'}-{digest}"


def file_name(address: str) -> str:
    """The last part of a path or URL, which is the document where a shard tells no better."""
    return PurePosixPath(address.split("://")[-1].split("?")[0]).name


def _addresses(address: str) -> list[str]:
    if address.split("?")[0].endswith(_LISTS):
        return list(_of_list(address))
    system, path = file_system(address)
    system.invalidate_cache()
    try:
        if any(letter in path for letter in "*[") and not system.exists(path):
            found: Sequence[str] = [one for one in system.glob(path) if not system.isdir(one)]
        elif system.isdir(path):
            found = [one for one in system.find(path) if _may_be_shard(one, path)]
        else:
            found = [path] if system.exists(path) else []
    except (OSError, ValueError) as problem:
        raise unreachable(address, problem) from problem
    if not found:
        raise ShardError(
            f"{address} holds no shard.",
            expected="a file, a folder, a glob, or a list of addresses (.paths, .list)",
            fix="look at the address",
        )
    return sorted((_absolute(system, one) for one in found), key=natural_order)


def _of_list(address: str) -> Iterator[str]:
    parent = address.rpartition("/")[0]
    with unpacked(address, lambda _: None) as stream:
        for _, line in numbered_lines(stream, _refuse):
            name = line.decode("utf-8", "replace").strip()
            if not name or name.startswith("#"):
                continue
            if "://" in name or name.startswith(("/", "~")):
                yield name
                continue
            before, folder, _ = f"{parent}/".partition(f"/{name.split('/')[0]}/")
            yield f"{before}/{name}" if folder else f"{parent or '.'}/{name}"


def _refuse(unread: Any) -> None:
    raise ShardError(f"The list cannot be read: {unread.reason} at line {unread.line}, {unread.detail}.")


def _may_be_shard(path: str, folder: str) -> bool:
    inside = PurePosixPath(path[len(folder.rstrip("/")) :].lstrip("/")).parts
    hidden = any(part.startswith((".", "_")) for part in inside)
    name = inside[-1].lower() if inside else ""
    return not hidden and not any(name.endswith((end, f"{end}.gz", f"{end}.zst", f"{end}.xz")) for end in _NOT_SHARDS)


def _absolute(system: Any, path: str) -> str:
    """A local path as it is, from the root; another with its scheme."""
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return str(Path(path).absolute()) if "file" in protocols else str(system.unstrip_protocol(path))


def _no_longer_as_listed(shard: Shard, found: str, cause: str) -> ShardError:
    return ShardError(
        f"{shard.address} {found}.",
        expected="the file that was listed, from its first byte to its last",
        cause=cause,
        fix="list the shards again (materialize text_shards) once the file is at rest",
    )


def _forget_what_was_listed(address: str) -> None:
    """Object stores remember listings for the life of a process."""
    system, path = file_system(address)
    system.invalidate_cache(system._parent(path))


def _size_and_version(address: str, meta: str = "") -> tuple[int, str]:
    size, version = _of_file(address)
    return size, f"{version} {_of_file(meta)[1]}" if meta else version


def _of_file(address: str) -> tuple[int, str]:
    system, path = file_system(address)
    try:
        facts = system.info(path)
    except (OSError, ValueError) as problem:
        raise unreachable(address, problem) from problem
    size = int(facts.get("size") or 0)
    if "ino" in facts:  # a local file, as `records.CATALOGUE` has it
        return size, f"{size}-{Path(path).stat().st_mtime_ns}"
    told = next((str(facts[key]) for key in _VERSIONS if facts.get(key)), "")
    return size, f"{size}-{told.strip(chr(34))}" if told else str(size)
