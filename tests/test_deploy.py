import fnmatch
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from setuptools import find_packages

from resources.compute import CPU, DOWNLOAD, GPU
from resources.settings import Settings, load_settings, origins
from tests.helm_values import (
    DEPLOY,
    environment,
    image,
    instance_of,
    job_of_run,
    job_of_step,
    kubeconfig,
    shown,
    values,
)
from tests.kubernetes_manifests import amount, assert_valid, manifests_of, refusals

ROOT = DEPLOY.parent
VOLUME = "values-volume.yaml"


@pytest.fixture(params=[(), (VOLUME,)], ids=["object store", "volume"], scope="module")
def told(request: pytest.FixtureRequest) -> dict[str, Any]:
    return values(*request.param)


@pytest.fixture(scope="module")
def instance(told: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    folder = tmp_path_factory.mktemp("instance")
    overrides = instance_of(told, kubeconfig(folder))
    with dg.DagsterInstance.local_temp(str(folder), overrides=overrides) as made:
        yield made


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_dagster_accepts_the_instance_that_the_values_make(instance: dg.DagsterInstance) -> None:
    assert type(instance.run_launcher).__name__ == "K8sRunLauncher"
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_max_resume_run_attempts == 3
    assert instance.run_retries_enabled
    assert instance.get_concurrency_config().pool_config.pool_granularity.value == "op"
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled


def test_the_settings_of_the_cluster_are_settings_that_there_are(settings: Settings) -> None:
    assert settings.execution == "k8s"
    assert settings.kubernetes.assets["s2s_neighbours"]["memory"] == "128Gi"
    known = {"S2S_" + name.replace(".", "__").upper() for name in origins(settings)}
    assert not {name for name in environment() if not any(one.startswith(name) for one in known)}


def test_kubernetes_accepts_the_jobs_of_runs_and_of_steps(
    told: dict[str, Any], instance: dg.DagsterInstance, settings: Settings
) -> None:
    assert_valid(job_of_run(told, instance))
    for pool in (GPU, CPU, DOWNLOAD):
        assert_valid(job_of_step(told, instance, pool, "deu/something", settings))


def test_a_step_gets_what_its_pool_gets_and_a_run_stays_small(
    told: dict[str, Any], instance: dg.DagsterInstance, settings: Settings
) -> None:
    of_run = container(job_of_run(told, instance))["resources"]
    assert amount(of_run["limits"]["memory"]) <= 2 * 2**30
    assert not {"cpu", "nvidia.com/gpu"} & of_run["limits"].keys()
    of_gpu = container(job_of_step(told, instance, GPU, "deu/speech_embeddings", settings))
    assert of_gpu["resources"] == {
        "requests": {"cpu": "4", "memory": "32Gi", "ephemeral-storage": "50Gi"},
        "limits": {"memory": "32Gi", "ephemeral-storage": "50Gi", "nvidia.com/gpu": "1"},
    }
    of_cpu = container(job_of_step(told, instance, CPU, "deu/segments", settings))
    assert of_cpu["resources"]["limits"] == {"memory": "8Gi", "ephemeral-storage": "20Gi"}
    assert of_gpu["image"] == image(told) + "-cuda"
    assert of_cpu["image"] == image(told)
    alone = container(job_of_step(told, instance, GPU, "s2s_neighbours", settings))
    assert alone["resources"]["limits"]["memory"] == "128Gi"


def test_no_pod_runs_as_root_or_may_become_it(
    told: dict[str, Any], instance: dg.DagsterInstance, settings: Settings
) -> None:
    for job in (job_of_run(told, instance), job_of_step(told, instance, GPU, "deu/segments", settings)):
        pod = job["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert container(job)["securityContext"]["allowPrivilegeEscalation"] is False
    for name in ("dagsterDaemon", "dagsterWebserver"):
        assert told[name]["podSecurityContext"]["runAsNonRoot"] is True
        assert told[name]["securityContext"]["allowPrivilegeEscalation"] is False


def test_secrets_are_named_and_never_told(
    told: dict[str, Any], instance: dg.DagsterInstance, settings: Settings
) -> None:
    named = [name for name, value in leaves(told) if re.search("password|secret|token", name, re.I) and value]
    of_names = {"postgresqlSecretName", "generatePostgresqlPasswordSecret", "name", "key"}
    assert {name.rpartition(".")[2] for name in named} <= of_names
    assert told["generatePostgresqlPasswordSecret"] is False
    step = container(job_of_step(told, instance, GPU, "deu/segments", settings))
    assert {"secretRef": {"name": "s2s-secrets"}} in step["envFrom"]
    password = next(one for one in step["env"] if one["name"] == "DAGSTER_PG_PASSWORD")
    assert password.keys() == {"name", "valueFrom"}


def test_the_ui_is_reached_from_inside_the_cluster_only(told: dict[str, Any]) -> None:
    assert told["ingress"]["enabled"] is False
    assert told["dagsterWebserver"]["service"]["type"] == "ClusterIP"


def test_pools_are_set_before_the_daemon_starts_a_run(told: dict[str, Any]) -> None:
    before = told["dagsterDaemon"]["extraPrependedInitContainers"][0]
    assert before["command"] == ["s2s", "pools", "--apply"]
    assert before["image"] == image(told)
    assert {"configMapRef": {"name": "s2s-settings"}} in before["envFrom"]
    daemon = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "daemon"},
        "spec": {"containers": [before], "volumes": [{"name": "dagster-instance", "configMap": {"name": "instance"}}]},
    }
    assert_valid(daemon)


def test_the_lake_on_a_volume_changes_where_the_home_is_and_nothing_else() -> None:
    deployments = [values(*overlay)["dagster-user-deployments"]["deployments"][0] for overlay in ((), (VOLUME,))]
    for deployment in deployments:
        deployment.pop("volumes")
    assert deployments[0] == deployments[1]


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_accepts_what_is_applied_beside_the_chart(path: Path) -> None:
    manifests = manifests_of(path)
    assert manifests
    for manifest in manifests:
        assert_valid(manifest)


def test_the_policy_of_the_network_holds_for_runs_and_steps(
    told: dict[str, Any], instance: dg.DagsterInstance, settings: Settings
) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests_of(DEPLOY / "kubernetes/network-policy.yaml")}
    chosen = policies["s2s-workers"]["podSelector"]["matchExpressions"][0]
    for job in (job_of_run(told, instance), job_of_step(told, instance, CPU, "deu/segments", settings)):
        assert job["spec"]["template"]["metadata"]["labels"][chosen["key"]] in chosen["values"]
    port = told["dagsterWebserver"]["service"]["port"]
    assert policies["s2s-webserver"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port}]
    assert told["dagsterWebserver"]["readinessProbe"]["httpGet"]["port"] == port
    served = told["dagster-user-deployments"]["deployments"][0]["port"]
    assert policies["s2s-code-server"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": served}]


def test_the_job_in_the_documentation_is_the_one_that_is_made(settings: Settings, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(apiVersion: batch/v1\n.*?)```", page, re.S)
    assert blocks == [shown(settings, tmp_path)]


def test_what_is_wrong_with_a_manifest_is_found() -> None:
    asked = {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": "500m"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "Wrong_Name", "labels": {"a": "-b"}},
        "spec": {
            "containers": [
                {
                    "name": "one",
                    "resources": asked,
                    "env": [{"name": "A"}, {"name": "A"}],
                    "volumeMounts": [{"name": "none", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}],
                }
            ],
            "volumes": [{"name": "v"}, {"name": "v"}],
            "tolerations": [{"key": "k", "operator": "Exists", "value": "v"}],
        },
    }
    assert len(list(refusals(pod))) == 9
    with pytest.raises(Exception, match="replica"):
        assert_valid({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"replicas": 1}})


def test_the_image_ends_without_root_and_without_tools() -> None:
    stages = dockerfile()
    last = stages[-1]
    user = [words for name, words in last if name == "USER"]
    assert user == ["10001:10001"]
    assert last[-1][0] == "CMD"
    assert json.loads(last[-1][1])[:3] == ["dagster", "api", "grpc"]
    text = "\n".join(words for stage in stages for _, words in stage)
    assert not re.search(r"\b(apt-get|gcc|build-essential|curl|wget|sudo)\b", text)
    assert "https://" not in text, "an index is named when the image is built"


def test_the_image_is_pinned() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    base = re.search(r"^ARG PYTHON_IMAGE=python:(\S+)$", text, re.M)
    assert base and re.fullmatch(r"3\.11\.\d+-slim-\w+", base[1])
    stages = dockerfile()
    named = {"${PYTHON_IMAGE}", "tools", "base", "torch-${VARIANT}"}
    assert {words.split()[0] for stage in stages for name, words in stage if name == "FROM"} <= named
    installed = [words for stage in stages for name, words in stage if name == "RUN" and "uv pip install" in words]
    assert len(installed) == 4
    for words in installed:
        assert "--constraint /opt/s2s/constraints.txt" in words or "--no-index --no-deps" in words


def test_a_change_of_code_makes_one_small_layer_anew() -> None:
    last = dockerfile()[-1]
    own = next(i for i, (name, words) in enumerate(last) if name == "RUN" and "from=project" in words)
    dependencies = next(i for i, (name, words) in enumerate(last) if name == "RUN" and "requirements.txt" in words)
    assert dependencies < own
    copied = [words for name, words in last[:own] if name == "COPY"]
    assert copied == ["--from=requirements /requirements.txt /opt/s2s/"]


def test_both_variants_are_stages() -> None:
    names = {words.split()[-1] for stage in dockerfile() for name, words in stage if name == "FROM"}
    assert {"torch-cpu", "torch-cuda", "final"} <= names


def test_the_build_sees_every_package_and_nothing_else() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    include = re.search(r"include = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert include is not None
    wanted = [pattern.strip().strip('"') for pattern in include[1].split(",")]
    packages = {name.partition(".")[0] for name in find_packages(str(ROOT), include=wanted)}
    copied = {
        word
        for stage in dockerfile()
        for name, words in stage
        if name == "COPY" and "--from" not in words
        for word in shlex.split(words)[:-1]
    }
    assert packages <= let_in
    assert packages <= copied
    assert copied == let_in
    for private in (".git", ".venv", "s2s_home", "tests", "deploy"):
        assert not any(fnmatch.fnmatch(private, rule) for rule in let_in)


def dockerfile() -> list[list[tuple[str, str]]]:
    """Stages of (instruction, rest); lines that go on are joined, comments left out."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    told = [line.split(maxsplit=1) for line in re.sub(r"\\\n\s*", "", lines).splitlines() if line.strip()]
    stages: list[list[tuple[str, str]]] = []
    for name, words in told:
        if name == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((name, words))
    return stages


def container(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]
    return found


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from leaves(value, f"{prefix}.{name}")
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value, prefix)
    else:
        yield prefix, tree
