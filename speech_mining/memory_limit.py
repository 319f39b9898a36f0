"""How much memory this process may use: the machine's, or less where a control group (a container) says so.

What belongs here is reading the system's figures. A limit may stand at any level of the tree of groups above the
process, in either version of the interface: the lowest counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
_V1_FILE, _V2_FILE = "memory.limit_in_bytes", "memory.max"


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes, and what sets them."""

    total_bytes: int
    why: str


def memory_limit(
    groups: Path = CGROUPS, membership: Path = MEMBERSHIP, machine_bytes: int | None = None
) -> MemoryLimit:
    """The memory that this process may use.

    Args:
        groups: where the control groups are mounted.
        membership: which groups the process is in, as the kernel tells it.
        machine_bytes: of the machine; None asks the system.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if machine_bytes is None else machine_bytes
    limits = [
        MemoryLimit(told, f"the limit of the control group in {file}")
        for file in _limit_files(groups, membership)
        if (told := _bytes_in(file)) is not None
    ]
    return min([MemoryLimit(machine, "the memory of the machine"), *limits], key=lambda limit: limit.total_bytes)


def _limit_files(groups: Path, membership: Path) -> Iterator[Path]:
    """Of the process' own group and every one above it; a container often sees its own group as the root."""
    lines = membership.read_text("utf-8").splitlines() if membership.is_file() else []
    for controllers, path in [tuple(line.split(":", 2)[1:]) for line in lines if line.count(":") >= 2] or [("", "/")]:
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, file = (groups / "memory", _V1_FILE) if controllers else (groups, _V2_FILE)
        own = Path(path.lstrip("/"))
        yield from (folder / above / file for above in [own, *own.parents])


def _bytes_in(file: Path) -> int | None:
    """None: no such file, or no limit ("max"; version 1 writes a number beyond any machine)."""
    try:
        told = file.read_text("ascii").strip()
    except OSError:
        return None
    return int(told) if told.isdigit() else None
