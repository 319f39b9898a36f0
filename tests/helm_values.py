"""What the official chart makes of our values: the instance, and the Jobs of a run and of a step.

The chart itself is a template of Helm, which is not here; what is written down is which value goes where, read off the
chart's templates of release 1.13. The Jobs are made by dagster-k8s, in the order in which its launcher and its executor
merge what they are told.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from dagster import DagsterInstance
from dagster._core.definitions.reconstruct import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import (
    DagsterK8sJobConfig,
    UserDefinedDagsterK8sConfig,
    construct_dagster_k8s_job,
)

from resources.compute import GPU, TAG, step_tags
from resources.execution import executor_config
from resources.settings import Settings, load_settings
from tests.kubernetes_manifests import Manifest, sent

DEPLOY = Path(__file__).parent.parent / "deploy"
NAMESPACE, RELEASE = "s2s", "dagster"
RUN_ID = "01234567-89ab-4cde-8f01-23456789abcd"


def kubeconfig(folder: Path, server: str = "http://127.0.0.1:9") -> Path:
    """Write the access to an API server on loopback, without a password."""
    path = folder / "kubeconfig.yaml"
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "loopback",
        "clusters": [{"name": "loopback", "cluster": {"server": server}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "nobody", "namespace": "s2s"}}],
    }
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    return path


def values(*overlays: str) -> dict[str, Any]:
    """Our values as Helm merges them: maps are merged, everything else is replaced."""
    merged: dict[str, Any] = {}
    for name in ("values.yaml", *overlays):
        merged = _merged(merged, yaml.safe_load((DEPLOY / "helm" / name).read_text(encoding="utf-8")))
    return merged


def environment() -> dict[str, str]:
    """The variables of the ConfigMap of our settings."""
    told = yaml.safe_load((DEPLOY / "kubernetes" / "settings.yaml").read_text(encoding="utf-8"))["data"]
    return {str(name): value for name, value in told.items()}


def instance_of(told: dict[str, Any], kubeconfig: Path) -> dict[str, Any]:
    """The dagster.yaml that the chart writes, but for Postgres; the cluster's API is the one of `kubeconfig`."""
    daemon = told["dagsterDaemon"]
    return {
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": _launcher(told, kubeconfig),
        },
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": _snake(daemon["runCoordinator"]["config"]["queuedRunCoordinator"]),
        },
        "run_monitoring": _snake(daemon["runMonitoring"]),
        "run_retries": _snake(daemon["runRetries"]),
        "sensors": _snake(daemon["sensors"]),
        "schedules": _snake(daemon["schedules"]),
        "backfills": _snake(daemon["backfills"]),
        "concurrency": {name: _snake(told["concurrency"][name]) for name in ("pools", "runs")},
        "retention": {name: part for name, part in _snake(told["retention"]).items() if name != "enabled"},
        "telemetry": told["telemetry"],
        **told["additionalInstanceConfig"],
    }


def job_of_run(told: dict[str, Any], instance: DagsterInstance) -> Manifest:
    """The Job of a run's own pod."""
    launcher = _of_kubernetes(instance)
    run = _run(told)
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=True)
    return _job(context, launcher, told, "run_worker", f"dagster-run-{RUN_ID}")


def job_of_step(told: dict[str, Any], instance: DagsterInstance, pool: str, asset: str, settings: Settings) -> Manifest:
    """The Job of a step that makes an asset."""
    launcher = _of_kubernetes(instance)
    asked = executor_config(settings)
    context = K8sContainerContext.create_for_run(_run(told), launcher, include_run_tags=False)
    context = context.merge(
        K8sContainerContext(
            **{name: asked[name] for name in _OF_A_CONTAINER if name in asked},
            run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(asked["step_k8s_config"]),
        )
    )
    own = UserDefinedDagsterK8sConfig.from_dict(step_tags(pool, asset, settings)[TAG])
    return _job(context.merge(K8sContainerContext(run_k8s_config=own)), launcher, told, "step_worker", "dagster-step-1")


_OF_A_CONTAINER = (
    "image_pull_policy",
    "service_account_name",
    "env_config_maps",
    "env_secrets",
    "volume_mounts",
    "volumes",
)


def _of_kubernetes(instance: DagsterInstance) -> K8sRunLauncher:
    launcher = instance.run_launcher
    if not isinstance(launcher, K8sRunLauncher):
        raise TypeError(f"the launcher is {type(launcher).__name__}")
    return launcher


def _job(
    context: K8sContainerContext, launcher: K8sRunLauncher, told: dict[str, Any], component: str, name: str
) -> Manifest:
    config: DagsterK8sJobConfig = context.get_k8s_job_config(image(told), launcher)
    job = construct_dagster_k8s_job(
        job_config=config,
        args=["dagster", "api", "execute_run" if component == "run_worker" else "execute_step"],
        job_name=name,
        pod_name=name,
        component=component,
        user_defined_k8s_config=context.run_k8s_config,
        labels={"dagster/run-id": RUN_ID},
    )
    return sent(job)


def image(told: dict[str, Any]) -> str:
    """The image of the code location."""
    named = told["dagster-user-deployments"]["deployments"][0]["image"]
    return f"{named['repository']}:{named['tag']}"


def _run(told: dict[str, Any]) -> DagsterRun:
    origin = RepositoryPythonOrigin(
        executable_path="python",
        code_pointer=ModuleCodePointer("s2s_assets.definitions", "defs"),
        container_image=image(told),
        container_context={"k8s": _container_context(told["dagster-user-deployments"]["deployments"][0])},
    )
    return DagsterRun(job_name="__ASSET_JOB", run_id=RUN_ID, job_code_origin=JobPythonOrigin("__ASSET_JOB", origin))


def _container_context(deployment: dict[str, Any]) -> dict[str, Any]:
    """What a code location tells of itself for the runs of its code."""
    return {
        "image_pull_policy": deployment["image"]["pullPolicy"],
        "env_config_maps": [
            f"{RELEASE}-dagster-user-deployments-{deployment['name']}-user-env",
            *(one["name"] for one in deployment.get("envConfigMaps", [])),
        ],
        "env_secrets": [one["name"] for one in deployment.get("envSecrets", [])],
        "volumes": deployment.get("volumes", []),
        "volume_mounts": deployment.get("volumeMounts", []),
        "resources": deployment.get("resources", {}),
        "namespace": NAMESPACE,
        "service_account_name": f"{RELEASE}-dagster-user-deployments-user-deployments",
        "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
    }


def _launcher(told: dict[str, Any], kubeconfig: Path) -> dict[str, Any]:
    asked = told["runLauncher"]["config"]["k8sRunLauncher"]
    raw = asked["runK8sConfig"]
    return {
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
        "job_namespace": NAMESPACE,
        "image_pull_policy": asked["imagePullPolicy"],
        "service_account_name": RELEASE,
        "dagster_home": told["global"]["dagsterHome"],
        "instance_config_map": f"{RELEASE}-instance",
        "postgres_password_secret": told["global"]["postgresqlSecretName"],
        "env_config_maps": [one["name"] for one in asked["envConfigMaps"]],
        "env_secrets": [one["name"] for one in asked["envSecrets"]],
        "env_vars": asked["envVars"],
        "volume_mounts": asked["volumeMounts"],
        "volumes": asked["volumes"],
        "resources": asked["resources"],
        "fail_pod_on_run_failure": asked["failPodOnRunFailure"],
        "security_context": asked["securityContext"],
        "run_k8s_config": {_snake_word(name): part for name, part in raw.items()},
    }


def _snake(told: dict[str, Any]) -> dict[str, Any]:
    return {_snake_word(name): _snake(value) if isinstance(value, dict) else value for name, value in told.items()}


def _snake_word(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(base[name], over[name])
        for name in base.keys() & over.keys()
        if isinstance(base[name], dict) and isinstance(over[name], dict)
    }
    return {**base, **over, **both}


EXAMPLE = (GPU, "deu/speech_embeddings")
"""The step whose Job is shown in docs/kubernetes.md."""


def shown(settings: Settings, folder: Path) -> str:
    """The Job of the example as YAML; made with our values and the settings given."""
    told = values()
    with DagsterInstance.local_temp(str(folder), overrides=instance_of(told, kubeconfig(folder))) as instance:
        return str(yaml.safe_dump(job_of_step(told, instance, *EXAMPLE, settings), sort_keys=False))


if __name__ == "__main__":  # S2S settings of deploy/kubernetes/settings.yaml must be in the environment
    with TemporaryDirectory() as scratch:
        print(shown(load_settings(), Path(scratch)), end="")
