"""`python -m tests.kubernetes FOLDER`: the jobs of a run and of a step that wants a GPU, as the API gets them."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import yaml

from speech_mining.atomic import replacing
from tests.kubernetes.cluster import cluster, one_machine, wait_until
from tests.kubernetes.deployment import deployment
from tests.kubernetes.mini_mine import VARIABLES

STEP = "deu__speech_embeddings"


def write_manifests(folder: Path) -> None:
    """Write `run.yaml` and `step.yaml`; no node has a GPU, so that the step never starts."""
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = one_machine(**{"nvidia.com/gpu": "0"})
        running = stack.enter_context(cluster(temporary / "cluster", nodes=[plain]))
        deployed = stack.enter_context(deployment(running, temporary / "home", VARIABLES))
        deployed.instance.add_dynamic_partitions("audiobooks_deu", ["91001"])
        run_id = deployed.launch("deu/speech_embeddings", partition="91001")
        wait_until(lambda: running.made(STEP) != [], "no pod was asked for the step")
        deployed.terminate(run_id)
        deployed.until_ended(run_id)
        for title, step in (("run", "run"), ("step", STEP)):
            with replacing(folder / f"{title}.yaml") as part:
                part.write_text(yaml.safe_dump(running.made(step)[0], sort_keys=False), "utf-8")


if __name__ == "__main__":
    write_manifests(Path(sys.argv[1]))
