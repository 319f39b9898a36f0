"""The job whose processes `test_fan_out` kills: neighbours of two languages, searched in blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from partitions.languages import language_partition, layer
from resources.settings import load_settings
from resources.storage import Storage
from s2s_assets.mined_pairs import neighbours
from speech_mining.mining.kinds import SPEECH_TO_SPEECH

LANGUAGES = ("deu", "eng")
PAIR = "deu-eng"
PRELOADED = ("tests.fan_out_runner", "torch", "speech_mining.knn.kernels", "speech_mining.mining.blocks")
"""Imported once, by the process that all steps are forked from: a step then starts in half a second, not in five."""


def neighbours_job(home: str, products: int, retries: int) -> dg.JobDefinition:
    """The neighbours alone, made of indexes that are there."""
    settings = load_settings(
        home=Path(home),
        languages=LANGUAGES,
        fan_out={"enabled": True, "products": products, "in_place": 0},
        memory={"retries": retries, "retry_wait_s": 0.0},
        mining={"memory_gb": 0.2, "k": 5},
    )
    job = dg.define_asset_job("neighbours", selection=[SPEECH_TO_SPEECH.layer("neighbours")])
    return dg.Definitions(
        [neighbours(SPEECH_TO_SPEECH, settings), *indexes()],
        jobs=[job],
        resources={"storage": Storage.of(settings)},
        executor=dg.multiprocess_executor,
    ).resolve_job_def("neighbours")


def indexes() -> list[dg.AssetSpec]:
    """What the neighbours are made of; it is there already."""
    return [dg.AssetSpec(layer(each, "speech_index"), partitions_def=language_partition(each)) for each in LANGUAGES]


def run(home: Path, instance: dg.DagsterInstance, products: int, retries: int, **more: Any) -> dg.JobExecutionResult:
    """Run it as the daemon would: every step in a process of its own."""
    job = dg.build_reconstructable_job(
        "tests.fan_out_runner",
        "neighbours_job",
        reconstructable_kwargs={"home": str(home), "products": products, "retries": retries},
    )
    steps = {"max_concurrent": 2, "start_method": {"forkserver": {"preload_modules": list(PRELOADED)}}}
    config = {
        "execution": {"config": steps},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        "ops": {"s2s_neighbours": {"config": {"engine": "fp32"}}},  # as it is told to the asset of one step
    }
    return dg.execute_job(job, instance, run_config=config, tags={"dagster/partition": PAIR}, **more)
