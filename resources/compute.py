"""Compute: the pools that bound what runs at once, what a step's pod asks for, retries, and who owns every asset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import dagster as dg

from resources.operation_settings import PodSettings
from resources.settings import Settings

GPU, CPU, DOWNLOAD = "gpu", "cpu", "download"
CHECK = "check"
"""No pool: an asset check is a step, and on Kubernetes a pod, of its own."""
OWNERS = ["team:speech-mining"]
TAG = "dagster-k8s/config"

Asset: TypeAlias = dg.AssetKey | Sequence[str] | str


def network_retries(times: int) -> dg.RetryPolicy | None:
    """For steps that wait for a server; the client inside repeats single requests long before this."""
    if not times:
        return None
    return dg.RetryPolicy(max_retries=times, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def pod_retries(settings: Settings) -> dg.RetryPolicy | None:
    """For steps that neither wait for a server nor may die of memory: their pod can still be drained, evicted or lost.

    Dagster starts such a step again only if it has a policy, and then an error of its own is tried again too: a few
    pods that fail quickly, against a run that would be lost with every node. Processes of one machine need none.
    """
    if settings.execution == "local" or not settings.kubernetes.pod_retries:
        return None
    return dg.RetryPolicy(max_retries=settings.kubernetes.pod_retries, delay=10)


def step_tags(pool: str, asset: Asset, settings: Settings) -> dict[str, Any]:
    """Op tags of a step: what its pod asks for, by its pool and the exceptions made for the asset.

    Without Kubernetes they are labels that the UI shows.

    Args:
        pool: gpu, cpu or download; or check.
        asset: its key, such as `deu/segments`, or a check's name; exceptions are made by all of it or by its last part.
        settings: `kubernetes` says what pools get, and the exceptions.
    """
    wanted = pod_of(pool, dg.AssetKey.from_coercible(asset).to_user_string(), settings)
    container: dict[str, Any] = {"resources": resources_of(wanted, settings.kubernetes.gpu_resource)}
    if wanted.image:
        container["image"] = wanted.image
    return {TAG: {"container_config": container, "pod_spec_config": _placement(wanted)}}


def pod_of(pool: str, asset: str, settings: Settings) -> PodSettings:
    """What the pods of an asset ask for: of its pool, then of every language's, then of its own."""
    of_pools: dict[str, PodSettings] = {
        GPU: settings.kubernetes.gpu,
        CPU: settings.kubernetes.cpu,
        DOWNLOAD: settings.kubernetes.download,
        CHECK: settings.kubernetes.check,
    }
    exceptions = settings.kubernetes.assets
    layer = asset.rpartition("/")[2]
    return PodSettings.model_validate(
        {**of_pools[pool].model_dump(), **exceptions.get(layer, {}), **exceptions.get(asset, {})}
    )


def resources_of(wanted: PodSettings, gpu_resource: str) -> dict[str, dict[str, str]]:
    """A container's requests and limits.

    Every amount is named on both sides but the limit of cores: what is left out would be inherited from the run
    launcher, whose amounts are those of a run's own small pod.
    """
    held = {"memory": wanted.memory, "ephemeral-storage": wanted.ephemeral_storage}
    limits = dict(held)
    if wanted.cpu_limit:
        limits["cpu"] = wanted.cpu_limit
    if wanted.gpus:
        limits[gpu_resource] = str(wanted.gpus)
    return {"requests": {"cpu": wanted.cpu, **held}, "limits": limits}


def _placement(wanted: PodSettings) -> dict[str, Any]:
    """Where its pod may run, in the spelling of a pod's spec."""
    tolerations = [{name: value for name, value in one.model_dump().items() if value} for one in wanted.tolerations]
    placed = {
        "node_selector": dict(wanted.node_selector),
        "tolerations": tolerations,
        "priority_class_name": wanted.priority_class,
    }
    return {name: value for name, value in placed.items() if value}
