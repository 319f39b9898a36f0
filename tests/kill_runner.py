"""Materializes a book in a process of its own, which may be killed: see `forked_runs`."""

from __future__ import annotations

import av  # noqa: F401
import dagster as dg
import onnxruntime  # noqa: F401
import silero_vad  # noqa: F401

from partitions.audiobooks import add_audiobooks
from resources.settings import load_settings
from s2s_assets.definitions import build
from tests.forked_runs import serve
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


if __name__ == "__main__":
    serve(materialize)
