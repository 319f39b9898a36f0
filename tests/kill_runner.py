"""Materializes a book in a process of its own, forked after the imports so that twenty of them start at once.

Reads a line of JSON ({"home", "url"}) for each run and writes its pid; reads an empty line, and writes how it ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys

import av  # noqa: F401
import dagster as dg
import onnxruntime  # noqa: F401
import silero_vad  # noqa: F401

from partitions.audiobooks import add_audiobooks
from resources.settings import load_settings
from s2s_assets.definitions import build
from tests.raw_book import ORIGINS


def materialize(home: str, url: str) -> bool:
    """`raw_audio` and `segments` of book 7, through Dagster."""
    settings = load_settings(
        home=home,
        catalogue_url=url,
        languages="deu",
        librivox={
            "step_retries": 0,
            "attempts": 2,
            "first_wait_s": 0.0,
            "requests_per_second": 1000.0,
            "mirrors": dict.fromkeys(ORIGINS, url),
        },
    )
    job = build(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        add_audiobooks(instance, "deu", ["7"])
        done = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(["deu", name]) for name in ("raw_audio", "segments")],
            partition_key="7",
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    return bool(done.success)


def run(order: dict[str, str], told: int) -> None:
    """A run in its own process: it ends here, after it has told what it imported."""
    done = materialize(**order)
    os.write(told, " ".join(sorted(sys.modules)).encode())
    os._exit(0 if done else 1)


def learn(names: str) -> None:
    """Import what a run imported, so that the next need not: 3.5 s become 1."""
    for name in names.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main() -> None:
    """Run until there is nothing more to run."""
    print("ready", flush=True)
    for line in sys.stdin:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            run(json.loads(line), write)
        os.close(write)
        print(pid, flush=True)
        with os.fdopen(read, encoding="utf-8") as imported:
            learn(imported.read())
        sys.stdin.readline()  # until then the pid is nobody else's, and may be killed
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
