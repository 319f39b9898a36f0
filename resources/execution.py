"""Execution: the one switch between a workstation's processes and a cluster's pods, `S2S_EXECUTION=local|k8s`.

What belongs here is the executor of every job, and with it what all step pods have in common; what the pods of one
asset ask for is in `resources.compute`.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from resources.batch_executor import batches_in_process
from resources.compute import resources_of
from resources.operation_settings import KubernetesSettings, PoolSettings
from resources.settings import Settings
from speech_mining.errors import SettingsError

VOLUME = "s2s-shared"


def executor_of(settings: Settings) -> dg.ExecutorDefinition:
    """Processes of this machine, or a pod of its own for every step."""
    return _processes(settings.pools) if settings.execution == "local" else _pods(settings)


def most_processes(pools: PoolSettings) -> int:
    """As many as there are slots in all pools: a process more could only wait, and holds a GB meanwhile."""
    return pools.gpu + pools.cpu + pools.download


def _processes(pools: PoolSettings) -> dg.ExecutorDefinition:
    """Dagster's own executor, bounded; a run's config may still say otherwise."""

    def bounded(config: dict[str, Any]) -> dict[str, Any]:
        if "multiprocess" not in config:
            return config
        told = config["multiprocess"]
        return {"multiprocess": {**told, "max_concurrent": told.get("max_concurrent") or most_processes(pools)}}

    base = batches_in_process(dg.multi_or_in_process_executor)
    return base.configured(bounded, config_schema=base.config_schema.as_field())


def _pods(settings: Settings) -> dg.ExecutorDefinition:
    """A pod a step.

    Kubernetes' client costs as much to import as Dagster itself, and only a run's own pod starts steps: the code
    server and the pods of the steps load this definition without it.
    """

    @dg.executor(name="k8s", config_schema=_OF_A_RUN, requirements=dg.multiprocess_executor.get_requirements({}))
    def pods(context: dg.InitExecutorContext) -> dg.Executor:
        from dagster_k8s import k8s_job_executor

        asked = {**executor_config(settings), **context.executor_config}
        configured = k8s_job_executor.configured(asked)
        resolved = configured.apply_config_mapping({"config": {}})
        if resolved.value is None or configured.executor_creation_fn is None:
            raise SettingsError(
                f"Kubernetes' executor does not take what the settings give: {resolved.errors}.",
                cause="settings of `kubernetes`, or another release of dagster-k8s",
                fix="`s2s settings` shows what is in force; the release is pinned in constraints.txt",
            )
        return configured.executor_creation_fn(context._replace(executor_config=resolved.value["config"]))

    return pods


_OF_A_RUN = {"max_concurrent": dg.Field(int, is_required=False, description="Pods of this run at once.")}
"""What a run's config may change."""


def executor_config(settings: Settings) -> dict[str, Any]:
    """Configuration of `k8s_job_executor`; what is not named here comes from the run launcher.

    A step that asks for nothing itself, such as a check, gets what pool cpu gets: never the little that a run's own
    pod is given.
    """
    asked = settings.kubernetes
    named = {
        "job_namespace": asked.namespace,
        "job_image": asked.image,
        "image_pull_policy": asked.image_pull_policy,
        "service_account_name": asked.service_account,
        "env_secrets": list(asked.secrets),
        "env_config_maps": list(asked.config_maps),
        "max_concurrent": asked.most_steps,
        **_shared_volume(asked),
    }
    return {
        **{name: value for name, value in named.items() if value},
        "enable_owner_references": asked.end_with_run,
        "step_k8s_config": {
            "container_config": {"resources": resources_of(asked.cpu, asked.gpu_resource)},
            "job_spec_config": {"ttl_seconds_after_finished": asked.keep_finished_s},
        },
    }


def _shared_volume(asked: KubernetesSettings) -> dict[str, Any]:
    if not asked.volume_claim:
        return {}
    return {
        "volumes": [{"name": VOLUME, "persistent_volume_claim": {"claim_name": asked.volume_claim}}],
        "volume_mounts": [{"name": VOLUME, "mount_path": asked.volume_mount}],
    }
