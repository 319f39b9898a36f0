"""One writer at a time: a lock that a killed process does not leave behind.

What belongs here is the lock. What is written under it is the caller's business.
"""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from speech_mining.errors import SpeechMiningError

_LOOK_AGAIN_S = 0.1


class BusyError(SpeechMiningError):
    """Something that another process is writing."""


@contextmanager
def only_writer(lock: Path, *, wait_s: float = 10.0, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Hold `lock` until the block ends; the file is there only as long as somebody holds it.

    The kernel gives the lock back when its holder dies, so a file that a kill leaves behind blocks nobody.

    Args:
        lock: a file that names what is written; its folder is made where missing.
        wait_s: how long to wait for another writer.
        sleep: waits so many seconds.

    Raises:
        BusyError: another process has it all that time; the error names it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = _take(lock)
    waited_s = 0.0
    while held is None:
        if waited_s >= wait_s:
            raise _busy(lock)
        sleep(_LOOK_AGAIN_S)
        waited_s += _LOOK_AGAIN_S
        held = _take(lock)
    try:
        os.truncate(held, 0)
        os.write(held, f"{os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(held)


def _take(lock: Path) -> int | None:
    """An open, locked handle of `lock`; None where another has it, or has just removed the name."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock.exists() and os.path.samestat(lock.stat(), os.fstat(handle)):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def _busy(lock: Path) -> BusyError:
    holder = lock.read_text("utf-8") if lock.exists() else ""
    return BusyError(
        f"{lock.parent / lock.stem.lstrip('.')} is being written by process {holder or '(unknown)'}.",
        expected="one writer at a time",
        cause="the same partition is materialized by another run",
        fix="wait until that run ends, or end it",
    )
