"""Takes shards of text in, in a process of its own, which may be killed: see `forked_runs`."""

from __future__ import annotations

import dagster as dg

from partitions.text_shards import set_text_shards
from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.lake import Lake
from speech_mining.text.known_shards import LAYER, SHARDS, TABLE
from tests.forked_runs import serve

LAYERS = ("text_sentences", "text_duplicates", "text_embeddings")


def settings_of(home: str, shards: str) -> Settings:
    """English text, and the demo's encoder."""
    return load_settings(
        home=home,
        languages="deu",
        speech_pairs="",
        text={"shards": {"eng": [shards]}},
        text_encoder="miniature",
        catalogue_url="https://librivox.org",
    )


def take_in(home: str, shards: str) -> bool:
    """Clean, free of repeats and embed every shard that was listed, a run a layer."""
    settings = settings_of(home, shards)
    names = Lake(settings.lake_url).partition(LAYER).read_table(TABLE, SHARDS)["shard"].to_list()
    batch = {"dagster/asset_partition_range_start": names[0], "dagster/asset_partition_range_end": names[-1]}
    job = build(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        set_text_shards(instance, "eng", names)
        return all(
            job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(["eng", layer])],
                partition_key="eng" if layer == "text_duplicates" else None,
                tags={} if layer == "text_duplicates" else batch,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            ).success
            for layer in LAYERS
        )


if __name__ == "__main__":
    serve(take_in)
