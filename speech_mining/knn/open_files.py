"""Room for the files that a process keeps open: a language's blocks of vectors are mapped into memory, one file each.

A map holds its file open, and a login shell lets a process have 1024: fewer than a language has audiobooks.
"""

from __future__ import annotations

import resource
from pathlib import Path

from speech_mining.errors import LakeError

SPARE = 256
"""Files that the rest of the process may open meanwhile."""
MAPS = Path("/proc/sys/vm/max_map_count")


def make_room(more: int) -> None:
    """Let this process map so many more files at once: its own limit is raised, as far as the machine allows.

    Raises:
        LakeError: the machine does not allow so many.
    """
    _refuse_more_maps(more)
    wanted = sum(1 for _ in Path("/dev/fd").iterdir()) + more + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and wanted > hard:
        raise LakeError(
            f"{more} blocks of vectors want {wanted} open files, and this process may have {hard}.",
            cause="a limit of the shell, the service or the container",
            fix=f"raise the hard limit: LimitNOFILE={wanted} in systemd, `--ulimit nofile={wanted}` in Docker",
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _refuse_more_maps(more: int) -> None:
    most = int(MAPS.read_text()) if MAPS.exists() else None
    if most is not None and more + SPARE > most:
        raise LakeError(
            f"{more} blocks of vectors are mapped one by one, and Linux gives a process {most} maps here.",
            fix=f"sysctl vm.max_map_count={2 * (more + SPARE)}",
        )
