"""Who takes part in the comparison, which interpreter runs each, and what to do where one is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from speech_mining.errors import SettingsError

OURS, YARDSTICK = "ours", "sgemm"
STOPES_PYTHON, LASER_FOLDER = "S2S_STOPES_PYTHON", "S2S_LASER"
LASER_SCRIPT = Path("source") / "mine_bitexts.py"
PROBE_TIMEOUT_S = 60
"""Asking an interpreter for a package's version takes a tenth of a second; a cold network disk is slow."""
INSTALL = (
    "in a checkout run `python -m benchmarks.peers.install`, or make an environment with {package} of your own and "
    f"name its Python in {STOPES_PYTHON}"
)
_SCRIPTS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Places:
    """Where peers that are no dependency of this project are, as far as the user has said."""

    stopes_python: Path | None = None
    """An interpreter with stopes, sentence-transformers or both; None looks where they are installed by default."""
    laser: Path | None = None
    """A checkout of LASER."""


@dataclass(frozen=True)
class Absent:
    """Why a contender cannot run, and what to do about it."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Contender:
    """One who takes part."""

    name: str
    script: Path
    """What the stopwatch loads."""
    python: Callable[[Places], Path | Absent]
    """The interpreter to run it with."""
    strategy: str = ""
    """The one of our strategies that its choice of pairs is compared with; empty where it chooses none."""


def default_environment() -> Path:
    """Where the peers' environment is made unless another folder is named: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "speech-mining" / "peers"


def interpreter(environment: Path) -> Path:
    """The Python of a virtual environment."""
    return environment / "bin" / "python"


def _here(places: Places) -> Path | Absent:
    return Path(sys.executable)


def _with_laser(places: Places) -> Path | Absent:
    fix = f"git clone https://github.com/facebookresearch/LASER, and name the folder by --laser or {LASER_FOLDER}"
    if places.laser is None:
        return Absent("no checkout of LASER was named", fix)
    if not (places.laser / LASER_SCRIPT).is_file():
        return Absent(f"{places.laser} holds no {LASER_SCRIPT}", fix)
    return Path(sys.executable)


def _with_stopes(places: Places) -> Path | Absent:
    return _with_package("stopes", places)


def _with_sentence_transformers(places: Places) -> Path | Absent:
    try:
        version("sentence-transformers")
    except PackageNotFoundError:
        return _with_package("sentence-transformers", places)
    return Path(sys.executable)


def _with_package(package: str, places: Places) -> Path | Absent:
    python = places.stopes_python or interpreter(default_environment())
    fix = INSTALL.format(package="stopes 2.2.1" if package == "stopes" else package)
    if not python.is_file():
        return Absent(f"there is no {python}", fix)
    try:
        asked = [str(python), "-c", f"from importlib.metadata import version; print(version({package!r}))"]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Absent(f"{python} does not run ({error})", fix)
    return python if told.returncode == 0 else Absent(f"{python} has no {package}", fix)


CONTENDERS = (
    Contender(OURS, _SCRIPTS / "ours.py", _here, strategy="max"),
    Contender("faiss", _SCRIPTS / "faiss_flat.py", _here),
    Contender("stopes", _SCRIPTS / "stopes_flat.py", _with_stopes, strategy="union"),
    Contender("laser", _SCRIPTS / "laser_mine_bitexts.py", _with_laser, strategy="max"),
    Contender("sentence-transformers", _SCRIPTS / "sentence_transformers_search.py", _with_sentence_transformers),
    Contender(YARDSTICK, _SCRIPTS / "sgemm.py", _here),
)
PEERS = tuple(contender.name for contender in CONTENDERS if contender.name not in (OURS, YARDSTICK))


def chosen(peers: list[str]) -> list[Contender]:
    """Ours, the yardstick and the named peers, or all peers when none is named.

    Raises:
        SettingsError: a name that is no peer's.
    """
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        raise SettingsError(f"There is no peer {unknown[0]!r}.", expected=f"one of {', '.join(PEERS)}")
    wanted = {OURS, YARDSTICK, *(peers or PEERS)}
    return [contender for contender in CONTENDERS if contender.name in wanted]
