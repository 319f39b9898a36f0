import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.executor.init import InitExecutorContext
from dagster._core.executor.multiprocess import MultiprocessExecutor
from dagster._core.executor.step_delegating import StepDelegatingExecutor
from dagster._core.system_config.objects import ResolvedRunConfig
from dagster_k8s.job import get_user_defined_k8s_config

from resources.batch_executor import BatchesInProcess
from resources.compute import CPU, DOWNLOAD, GPU, TAG, step_tags
from resources.execution import executor_config, executor_of
from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.errors import SettingsError
from tests.helm_values import kubeconfig
from tests.kubernetes_manifests import amount

ALWAYS = {(side, amount) for side in ("requests", "limits") for amount in ("memory", "ephemeral-storage")}
"""What every step names, lest it inherit the little that a run's own pod is given."""


def made(settings: Settings, instance: dg.DagsterInstance, config: dict[str, Any]) -> dg.Executor:
    """The executor as a run makes it, with the run's config."""
    definition = executor_of(settings)

    @dg.job(executor_def=definition)
    def nothing() -> None: ...

    resolved = ResolvedRunConfig.build(nothing, {"execution": {"config": config}} if config else {})
    assert definition.executor_creation_fn is not None
    context = InitExecutorContext(
        InMemoryJob(nothing), definition, resolved.execution.execution_engine_config, instance
    )
    return definition.executor_creation_fn(context)


def processes(executor: dg.Executor) -> MultiprocessExecutor:
    """The executor of runs that are no batch; its bound has no public name."""
    assert isinstance(executor, BatchesInProcess)
    assert isinstance(executor.otherwise, MultiprocessExecutor)
    return executor.otherwise


def of_kubernetes(tmp_path: Path) -> dg.DagsterInstance:
    launcher = {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "service_account_name": "dagster",
            "instance_config_map": "dagster-instance",
            "dagster_home": "/opt/dagster/dagster_home",
            "job_namespace": "s2s",
            "load_incluster_config": False,
            "kubeconfig_file": str(kubeconfig(tmp_path)),
        },
    }
    return dg.DagsterInstance.local_temp(str(tmp_path), overrides={"run_launcher": launcher})


def tags_of_all(settings: Settings) -> dict[tuple[str, str], dict[str, Any]]:
    """Asset or check, and op → what its step's pod asks for; nothing where nobody said it."""
    repository = build(settings).get_repository_def()
    steps = {key.to_user_string(): asset for key, asset in repository.assets_defs_by_key.items() if asset.is_executable}
    checks = {
        f"{key.asset_key.to_user_string()}:{key.name}": check
        for key, check in repository.asset_checks_defs_by_key.items()
    }
    return {
        (name, op.name): json.loads(op.tags.get(TAG, "{}"))
        for name, made in {**steps, **checks}.items()
        for op in made.node_def.iterate_op_defs()
    }


def test_steps_of_one_machine_are_as_many_processes_as_the_pools_have_slots() -> None:
    settings = load_settings(pools={"gpu": 2, "cpu": 3, "download": 1})
    with dg.DagsterInstance.ephemeral() as instance:
        executor = made(settings, instance, {})
    assert processes(executor)._max_concurrent == 6


def test_a_run_may_ask_for_other_processes_or_for_none() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        asked = made(load_settings(), instance, {"multiprocess": {"max_concurrent": 7}})
        alone = made(load_settings(), instance, {"in_process": {}})
    assert processes(asked)._max_concurrent == 7
    assert isinstance(alone, BatchesInProcess)
    assert isinstance(alone.otherwise, InProcessExecutor)


def test_on_kubernetes_every_step_is_a_pod(tmp_path: Path) -> None:
    with of_kubernetes(tmp_path) as instance:
        executor = made(load_settings(execution="k8s"), instance, {"max_concurrent": 3})
    assert isinstance(executor, StepDelegatingExecutor)
    assert executor._max_concurrent == 3


def test_what_kubernetes_does_not_take_is_told_by_its_name(tmp_path: Path) -> None:
    settings = load_settings(execution="k8s").model_copy(update={"kubernetes": _Broken()})
    with of_kubernetes(tmp_path) as instance, pytest.raises(SettingsError, match="max_concurrent"):
        made(settings, instance, {})


class _Broken:
    """Settings past their own checks, as another release of dagster-k8s might see them."""

    def __init__(self) -> None:
        self._sound = load_settings().kubernetes

    def __getattr__(self, name: str) -> Any:
        return "many" if name == "most_steps" else getattr(self._sound, name)


def test_only_who_asks_for_pods_waits_for_the_client_of_kubernetes() -> None:
    code = "import sys, s2s_assets.definitions as d; print(d.defs.executor.name, *sorted(sys.modules))"
    heavy = {"kubernetes", "dagster_k8s", "torch", "fairseq2", "faiss", "av", "onnxruntime", "duckdb"}
    for execution, name in (("local", "multi_or_in_process_executor"), ("k8s", "k8s")):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "S2S_EXECUTION": execution},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert told[0] == name
        assert not heavy & set(told)


def test_an_execution_that_there_is_not_is_refused() -> None:
    with pytest.raises(SettingsError, match="execution"):
        load_settings(execution="slurm")


def test_every_step_of_every_asset_and_check_says_what_its_pod_gets() -> None:
    more = {"students": {"kid": {"data": ["clips"]}}, "exports": {"formats": ["fairseq"]}}
    settings = load_settings(execution="k8s", **more)
    lacking = []
    for step, told in tags_of_all(settings).items():
        resources = get_user_defined_k8s_config({TAG: json.dumps(told)}).container_config.get("resources", {})
        named = {(side, amount) for side, amounts in resources.items() for amount in amounts}
        if not ALWAYS <= named:
            lacking.append(step)
    assert not lacking


def test_every_step_is_started_again_when_its_pod_is_lost() -> None:
    more = {"students": {"kid": {"data": ["clips"]}}, "encoder": "student:kid", "exports": {"formats": ["fairseq"]}}
    without = {execution: unrepeated(load_settings(execution=execution, **more)) for execution in ("local", "k8s")}
    assert without["k8s"] == set()
    assert {"s2s_pairs", "s2s_corpus", "deu__segments"} <= without["local"]


def unrepeated(settings: Settings) -> set[str]:
    """Ops that nobody starts again."""
    repository = build(settings).get_repository_def()
    made = [*repository.assets_defs_by_key.values(), *repository.asset_checks_defs_by_key.values()]
    nodes = [each.node_def for each in made if each.is_executable]
    return {op.name for node in nodes for op in node.iterate_op_defs() if op.name and op.retry_policy is None}


def test_gpus_are_asked_for_by_the_pool_gpu_and_by_nothing_else() -> None:
    repository = build(load_settings(execution="k8s")).get_repository_def()
    wrong = []
    for key, asset in repository.assets_defs_by_key.items():
        for op in asset.node_def.iterate_op_defs() if asset.is_executable else ():
            limits = json.loads(op.tags[TAG])["container_config"]["resources"]["limits"]
            if ("nvidia.com/gpu" in limits) != (op.pool == GPU):
                wrong.append((key, op.name, op.pool))
    assert not wrong


def test_exceptions_are_made_for_a_layer_and_for_one_asset_of_it() -> None:
    exceptions = {"segments": {"memory": "16Gi", "cpu": "3"}, "deu/segments": {"memory": "24Gi"}}
    settings = load_settings(kubernetes={"assets": exceptions})
    memory = {}
    for language in ("deu", "eng"):
        asked = step_tags(CPU, dg.AssetKey([language, "segments"]), settings)[TAG]["container_config"]["resources"]
        assert asked["requests"]["cpu"] == "3"
        memory[language] = asked["limits"]["memory"], asked["requests"]["memory"]
    assert memory == {"deu": ("24Gi", "24Gi"), "eng": ("16Gi", "16Gi")}
    assert step_tags(CPU, "s2s_corpus", settings) == step_tags(CPU, "s2s_corpus", load_settings())


def test_one_amount_of_a_pool_is_changed_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_KUBERNETES__GPU__MEMORY", "96Gi")
    asked = step_tags(GPU, "s2s_neighbours", load_settings())[TAG]
    assert asked["container_config"]["resources"] == {
        "requests": {"cpu": "4", "memory": "96Gi", "ephemeral-storage": "50Gi"},
        "limits": {"memory": "96Gi", "ephemeral-storage": "50Gi", "nvidia.com/gpu": "1"},
    }
    assert asked["pod_spec_config"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


def test_nodes_images_and_priorities_are_chosen_by_pool() -> None:
    chosen = {"node_selector": {"disk": "ssd"}, "priority_class": "low", "image": "registry/other:1", "cpu_limit": "4"}
    asked = step_tags(DOWNLOAD, "deu/raw_audio", load_settings(kubernetes={"download": chosen}))[TAG]
    assert asked["pod_spec_config"] == {"node_selector": {"disk": "ssd"}, "priority_class_name": "low"}
    assert asked["container_config"]["image"] == "registry/other:1"
    assert asked["container_config"]["resources"]["limits"]["cpu"] == "4"


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"gpu": {"memory": "lots"}}, "memory"),
        ({"assets": {"segments": {"memori": "8Gi"}}}, "segments: memori"),
        ({"assets": {"segments": {"memory": "8 GB"}}}, "segments: memory"),
        ({"volume_mount": "s2s"}, "volume_mount"),
        ({"most_steps": 0}, "most_steps"),
    ],
)
def test_amounts_that_kubernetes_would_refuse_are_refused_when_settings_are_read(
    wrong: dict[str, Any], match: str
) -> None:
    with pytest.raises(SettingsError, match=match):
        load_settings(kubernetes=wrong)


def test_a_step_that_asks_for_nothing_itself_gets_what_the_pool_cpu_gets() -> None:
    settings = load_settings(execution="k8s", kubernetes={"cpu": {"memory": "12Gi"}})
    resources = executor_config(settings)["step_k8s_config"]["container_config"]["resources"]
    assert amount(resources["limits"]["memory"]) == 12 * 2**30


def test_what_all_steps_share_is_told_to_the_executor_and_what_is_not_named_is_left_to_the_launcher() -> None:
    bare = executor_config(load_settings(execution="k8s"))
    assert not bare.keys() & {"volumes", "job_namespace", "job_image", "service_account_name", "env_secrets"}
    asked = {
        "volume_claim": "lake",
        "secrets": ["aws"],
        "config_maps": ["s2s"],
        "service_account": "miner",
        "image": "registry/s2s:1",
        "namespace": "mining",
        "keep_finished_s": 60,
    }
    told = executor_config(load_settings(execution="k8s", kubernetes=asked))
    assert told["volumes"][0]["persistent_volume_claim"] == {"claim_name": "lake"}
    assert told["volume_mounts"][0]["mount_path"] == "/s2s"
    assert (told["env_secrets"], told["env_config_maps"]) == (["aws"], ["s2s"])
    assert (told["service_account_name"], told["job_image"], told["job_namespace"]) == (
        "miner",
        "registry/s2s:1",
        "mining",
    )
    assert told["step_k8s_config"]["job_spec_config"] == {"ttl_seconds_after_finished": 60}
