"""What every test shares: an environment in which no setting of the person at the keyboard is in force."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

KEPT = (
    "S2S_REAL_SPEECH",
    "S2S_STOPES_PYTHON",
    "S2S_LASER",
    "S2S_DRILLS",
    "S2S_DRILLS_LIBRARY",
    "S2S_DRILLS_REPORT",
)
for name in [name for name in os.environ if name.startswith("S2S_") and name not in KEPT]:
    del os.environ[name]
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with the tiny BLASER and MuTox of `tests.test_filters`."""
    from tests.test_filters import build_blaser, build_mutox

    directory = tmp_path_factory.mktemp("models")
    build_blaser(directory)
    build_mutox(directory)
    return directory
