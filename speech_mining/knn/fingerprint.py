"""Whether a matrix on disk is the one that something was computed from.

The content is what counts: SHA-256 of all values in the order of rows, so that copying, renaming or cutting a matrix
into other files changes nothing. Reading it all again takes as long as the disk does, so files are also remembered by
what the system says of them (device, inode, size, times of change), as git does: where none of that has changed,
neither has the content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

Fingerprint: TypeAlias = dict[str, Any]
"""As it is written to JSON: `rows`, `dimension`, `dtype`, `content` and `files`."""

BLOCK_BYTES = 1 << 22


class Origin(Protocol):
    """The two matrices that neighbours are searched in."""

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Of the `source` and the `target`; reads both whole."""

    def differences(self, kept: Mapping[str, Any]) -> list[str]:
        """In what they differ from those whose fingerprints were kept, in words."""


def fingerprint(matrix: Any, files: Sequence[Path]) -> Fingerprint:
    """Describe a matrix so that it is known again; reads it whole.

    Args:
        matrix: (n, d), an array, a memory map or a `Stack`.
        files: where it is.
    """
    return {**_form(matrix), "content": _digest(matrix), "files": _stamps(files)}


def difference(kept: Mapping[str, Any], matrix: Any, files: Sequence[Path]) -> str:
    """In what a matrix differs from the one whose fingerprint was kept, in words; empty if in nothing.

    It is read only where the system says that a file was touched.
    """
    form = _form(matrix)
    for name, value in form.items():
        if kept.get(name) != value:
            return f"{name} {value}, not {kept.get(name)}"
    if kept.get("files") == _stamps(files) or kept.get("content") == _digest(matrix):
        return ""
    return "other values"


def _form(matrix: Any) -> dict[str, Any]:
    return {"rows": len(matrix), "dimension": int(matrix.shape[1]), "dtype": matrix.dtype.str}


def _digest(matrix: Any) -> str:
    digest = hashlib.sha256()  # with the processor's own instructions twice as fast as BLAKE2
    step = max(1, BLOCK_BYTES // max(1, matrix.shape[1] * matrix.dtype.itemsize))
    for first in range(0, len(matrix), step):
        digest.update(np.ascontiguousarray(matrix[first : first + step]).data)
    return digest.hexdigest()


def _stamps(files: Sequence[Path]) -> list[list[int]]:
    states = [file.stat() for file in files]
    return [[state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns] for state in states]
