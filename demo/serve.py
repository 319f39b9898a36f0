"""`python -m demo.serve`: the Dagster UI on this machine, with the home's instance (`make dev`)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import dagster as dg

from demo.home import prepare_home
from demo.pipeline import release_killed_runs
from resources.dead_runs import end_dead_runs
from resources.pools import set_pools


def main() -> None:
    """Prepare the home, then become `dagster dev`."""
    options = argparse.ArgumentParser(description="Serve the Dagster UI with the home's instance.")
    options.add_argument("--home", type=Path, default=Path(os.environ.get("S2S_HOME", "s2s_home")))
    options.add_argument("--port", type=int, default=3000)
    chosen = options.parse_args()
    settings = prepare_home(chosen.home)
    with dg.DagsterInstance.get() as instance:
        set_pools(instance, settings)
        release_killed_runs(instance)
        end_dead_runs(instance)
    workspace = Path(__file__).parent.parent / "workspace.yaml"
    command = ["dagster", "dev", "--workspace", str(workspace), "--host", "127.0.0.1", "--port", str(chosen.port)]
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main()
