"""Compute: the pools that bound what runs at once, retries, and what every asset says about itself."""

from __future__ import annotations

import dagster as dg

GPU, CPU, DOWNLOAD = "gpu", "cpu", "download"
OWNERS = ["team:speech-mining"]


def network_retries(times: int) -> dg.RetryPolicy | None:
    """For steps that wait for a server; the client inside repeats single requests long before this."""
    if not times:
        return None
    return dg.RetryPolicy(max_retries=times, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


ONE_GPU = {"dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}}
"""Op tags of a step that wants a GPU; without Kubernetes they are labels only."""
