"""Make an environment of its own for peers that cannot share ours, and install their pinned versions there.

    python -m benchmarks.peers.install [--folder DIR] [--only stopes]

Packages come from wherever pip is set up to find them; a CPU build of torch is enough, and a tenth of the size of the
one that most indexes give for Linux. Running it again brings an environment up to date. LASER is not installed: its
script runs from a checkout (`--laser DIR` or S2S_LASER).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from speech_mining.benchmark.contenders import STOPES_PYTHON, default_environment, interpreter

REQUIREMENTS = {
    "stopes": Path(__file__).parent / "stopes-requirements.txt",
    "sentence-transformers": Path(__file__).parent / "sentence-transformers-requirements.txt",
}


def main() -> None:
    """Install and say how the comparison finds it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.install", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_environment(), help="default: %(default)s")
    parser.add_argument("--only", choices=REQUIREMENTS, help="one of the two; default: both")
    given = parser.parse_args()
    wanted = [REQUIREMENTS[given.only]] if given.only else list(REQUIREMENTS.values())
    try:
        python = install(given.folder, wanted)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"Not installed: {' '.join(map(str, error.cmd))} ended with code {error.returncode}."
        ) from None
    print(f"Installed. {how_it_is_found(given.folder, python)}")


def install(folder: Path, requirements: list[Path]) -> Path:
    """Make a virtual environment with this Python, unless there is one, and install into it.

    Returns:
        Its interpreter.

    Raises:
        subprocess.CalledProcessError: venv or pip failed; they have said why on standard error.
    """
    python = interpreter(folder.absolute())
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    words = [word for path in requirements for word in ("--requirement", str(path))]
    subprocess.run([str(python), "-m", "pip", "install", "--disable-pip-version-check", *words], check=True)
    return python


def how_it_is_found(folder: Path, python: Path) -> str:
    """What is left to do before the comparison."""
    if folder == default_environment():
        return "`s2s bench` looks there by itself."
    return f"Let `s2s bench` find it: export {STOPES_PYTHON}={python}"


if __name__ == "__main__":
    main()
