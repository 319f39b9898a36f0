"""Who is writing to a lake: staging that names its owner, and one publisher of a partition at a time.

A name in the staging area tells machine, process and when the process began (in ticks since boot), so that a process id
that is used again names nobody. What a process of this machine still holds is never taken for abandoned, whatever the
clock says; what another machine left is old only by the clock of the disk that both write to, never by this machine's.

What belongs here is owners and locks. What they write is in `lake`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from speech_mining.sources.writer import BusyError, only_writer

if TYPE_CHECKING:
    from upath import UPath

ABANDONED_S = 3 * 24 * 3600
"""Staging of another machine that nobody has touched for so long belongs to a machine that is no more."""
WAIT_S = 600.0
"""How long another publisher of the same partition is waited for: it moves a folder, it does not fill one."""
CLAIM = ".writing."
"""How the object begins that says who is publishing a partition of an object store."""
WAITS = "waits."
"""And then, of one that removes nothing."""
REMOVERS_WAIT_S = 30.0
"""How long one that may remove something is waited for: it lists a folder and takes a few objects away."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_LOCK = ".lock"
_CLAIMS: set[str] = set()
"""What this process claims at this moment."""


def owned_name() -> str:
    """A free name that tells who made it."""
    return f"{platform.node()}_{os.getpid()}.{began(os.getpid())}_{uuid.uuid4().hex}"


def alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def began(pid: int) -> str:
    """When a process began, in ticks since this machine's boot; empty where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def held_here(name: str, *, claim: bool = False) -> bool | None:
    """Whether the process of this machine that owns a name is at it; None where the owner is of another machine.

    Args:
        name: as `owned_name` makes them.
        claim: it is a claim, of which a process knows its own.
    """
    host, _, process = name.rpartition("_")[0].rpartition("_")
    pid, _, start = process.partition(".")
    if host != platform.node() or not pid.isdigit():
        return None
    same = alive(int(pid)) and start in ("", began(int(pid)))
    return same and (int(pid) != os.getpid() or not claim or name in _CLAIMS)


def abandoned(area: Path) -> list[Path]:
    """What killed writers left in a staging area: of this machine by process, of others by age."""
    return [left for left in _listed(area) if _is_abandoned(left, area)]


def sweep(area: Path) -> None:
    """Remove what killed writers left."""
    for left in abandoned(area):
        if left.name.endswith(_LOCK):
            _remove_lock(left)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def only_publisher(area: Path, name: str, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Be the only one who changes a partition on a disk; a kill gives it back.

    Without it the later of two writers may name a generation that the earlier one is about to remove. A shared volume
    whose server knows no locks has to do without.

    Args:
        area: the staging area of the lake.
        name: of the partition.
        wait_s: how long another publisher is waited for.

    Raises:
        BusyError: another process has it all that time.
    """
    lock = area / f".{hashlib.sha256(name.encode()).hexdigest()[:20]}{_LOCK}"
    with ExitStack() as held:
        try:
            held.enter_context(only_writer(lock, wait_s=wait_s))
        except OSError as problem:
            if problem.errno not in _NO_LOCKS:
                raise
        yield


class Claim:
    """Says in an object store, which knows no locks, that a partition is being published.

    A claim is written before anything else is done, and what is written is seen by all at once. So of two writers at
    least one sees the other. Only one that sees nobody may remove anything; one that sees another steps back and waits
    until nobody is left who may, and then looks whether what it published is still whole.

    Args:
        folder: of the partition.
    """

    def __init__(self, folder: UPath) -> None:
        self._folder = folder
        self._name = owned_name()
        self._object = folder / f"{CLAIM}{self._name}"
        _CLAIMS.add(self._name)
        self._object.write_bytes(b"")

    def alone(self) -> bool:
        """Whether nobody else is at the partition; claims of the dead are taken away."""
        return not self._others()

    def step_back(self) -> None:
        """Promise to remove nothing, so that others need not wait for it."""
        waiting = self._folder / f"{CLAIM}{WAITS}{self._name}"
        waiting.write_bytes(b"")
        self._object, claimed_first = waiting, self._object
        _take_away(claimed_first)

    def await_removers(self, *, wait_s: float = REMOVERS_WAIT_S) -> None:
        """Wait until nobody is left who may remove something, but not long: one of another machine may be dead."""
        until = time.monotonic() + wait_s
        while time.monotonic() < until and any(not name.startswith(WAITS) for name in self._others()):
            time.sleep(0.1)

    def end(self) -> None:
        """Take the claim away."""
        _CLAIMS.discard(self._name)
        _take_away(self._object)

    def _others(self) -> list[str]:
        claims = [child for child in self._folder.iterdir() if child.name.startswith(CLAIM)]
        others = [claim for claim in claims if not claim.name.endswith(self._name)]
        now_s = self._object.stat().st_mtime if others else None
        return [claim.name.removeprefix(CLAIM) for claim in others if _is_claimed(claim, now_s)]


@contextmanager
def claimed(folder: UPath) -> Iterator[Claim]:
    """Claim a partition of an object store as long as the block takes."""
    claim = Claim(folder)
    try:
        yield claim
    finally:
        claim.end()


def _take_away(claim: UPath) -> None:
    with suppress(OSError):  # one that the store does not take away now, the next writer does
        claim.unlink(missing_ok=True)


def _is_claimed(claim: UPath, now_s: float | None) -> bool:
    here = held_here(claim.name.removeprefix(CLAIM).removeprefix(WAITS), claim=True)
    if here is None:  # of another machine: the store's own clock decides, if it is known
        try:
            here = now_s is None or now_s - claim.stat().st_mtime < ABANDONED_S
        except FileNotFoundError:
            return False
    if not here:
        claim.unlink(missing_ok=True)
    return here


def _listed(area: Path) -> list[Path]:
    return sorted(area.iterdir()) if area.is_dir() else []


def _is_abandoned(left: Path, area: Path) -> bool:
    if left.name.endswith(_LOCK):
        return _is_free(left)
    here = held_here(left.name)
    return not here if here is not None else disk_time_s(area) - touched_s(left) > ABANDONED_S


def _is_free(lock: Path) -> bool:
    """Whether nobody holds a lock that lies there."""
    try:
        with lock.open("rb") as handle:
            return _lockable(handle.fileno())
    except OSError:
        return False


def _lockable(handle: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_lock(lock: Path) -> None:
    with suppress(BusyError, OSError), only_writer(lock, wait_s=0):
        pass


def disk_time_s(area: Path) -> float:
    """What time it is on the disk: a shared volume stamps files by its server's clock."""
    probe = area / owned_name()
    try:
        area.mkdir(parents=True, exist_ok=True)
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return 0.0  # on a disk that cannot be written nothing is old
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def touched_s(path: Path) -> float:
    """When anything of a file or folder was last written."""
    inside = path.rglob("*") if path.is_dir() else ()
    stamps = []
    for each in (path, *inside):
        with suppress(FileNotFoundError):
            stamps.append(each.stat().st_mtime)
    return max(stamps, default=float("inf"))
