"""A whole lake, every layer of the demo's, unpacked in milliseconds: see `tests.fixtures.make_lake`."""

from __future__ import annotations

import tarfile
from pathlib import Path

from speech_mining.lake import Lake

FIXTURES = Path(__file__).parent / "fixtures"
KEPT = FIXTURES / "lake_0_1_0.tar.xz"


def unpack(home: Path, archive: Path = KEPT) -> Lake:
    """Write a kept lake to `lake` in a home."""
    with tarfile.open(archive) as kept:
        kept.extractall(home / "lake", filter="data")
    return Lake(home / "lake")


def send(lake: Lake, url: str, scratch: Path) -> Lake:
    """Copy a lake of this machine into an object store."""
    other = Lake(url, scratch=scratch)
    assert lake.folder is not None
    for path in sorted(path for path in lake.folder.rglob("*") if path.is_file()):
        target = other.root / path.relative_to(lake.folder).as_posix()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return other
