"""The cluster of `tests.kubernetes` keeps Kubernetes' rules, and a whole mine in its pods equals one in a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from kubernetes.client.rest import ApiException

from benchmarks.postgres import missing, temporary_postgres
from tests.kubernetes.cluster import NAMESPACE, Cluster, cluster, one_machine, wait_until
from tests.kubernetes.control import Node
from tests.kubernetes.deployment import PASSWORD, Deployment, book_range, deployment
from tests.kubernetes.mini_mine import BLOCKS, BOOK_LAYERS, PAIR, PAIR_LAYERS, VARIABLES, contents, mine_in_one_process

pytestmark = [
    pytest.mark.timeout(1800),  # a busy machine is no failure
    pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated"),  # Dagster's daemon
]

# The cluster itself, through Kubernetes' own client


@dataclass(frozen=True)
class Client:
    """A person at `kubectl`."""

    cluster: Cluster
    batch: kubernetes.client.BatchV1Api
    core: kubernetes.client.CoreV1Api

    def start(self, code: str, name: str = "job-1", **changes: Any) -> Any:
        """Create a job whose pod runs some Python; `changes` are of the container, of the pod or of the job."""
        of_job = {key: changes.pop(key) for key in ("backoffLimit", "ttlSecondsAfterFinished") if key in changes}
        of_pod = {key: changes.pop(key) for key in ("nodeSelector", "tolerations", "volumes") if key in changes}
        container = {"name": "main", "image": "registry.example/one:1", "args": ["python", "-c", code], **changes}
        pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container], **of_pod}
        job = {"backoffLimit": 0, **of_job, "template": {"spec": pod}}
        body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": job}
        return self.batch.create_namespaced_job(NAMESPACE, body)

    def pods(self, name: str = "job-1") -> list[Any]:
        found: list[Any] = self.core.list_namespaced_pod(NAMESPACE, label_selector=f"job-name={name}").items
        return found

    def status(self, name: str = "job-1") -> Any:
        return self.batch.read_namespaced_job_status(name, NAMESPACE).status

    def log(self, name: str = "job-1", **how: Any) -> str:
        """What the only pod of a job has written; undecoded, since the client would print the bytes' own spelling."""
        pod = self.pods(name)[0].metadata.name
        told: bytes = self.core.read_namespaced_pod_log(pod, NAMESPACE, _preload_content=False, **how).data
        return told.decode()

    def ended(self, name: str = "job-1") -> Any:
        """Wait for a job to be complete or failed; its status."""
        wait_until(lambda: bool(self.status(name).conditions), f"{name} did not end")
        return self.status(name)

    def waits(self, reason: str) -> None:
        """Wait for a pod to wait for `reason`."""

        def so() -> bool:
            states = [status.state.waiting for pod in self.pods() for status in pod.status.container_statuses or []]
            return [state.reason for state in states if state] == [reason]

        wait_until(so, f"no pod waits for {reason}")

    def runs(self, name: str = "job-1") -> Any:
        """Wait for a job's pod to run."""
        wait_until(lambda: [pod.status.phase for pod in self.pods(name)] == ["Running"], f"{name} does not run")
        return self.pods(name)[0]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    nodes = [one_machine("plain", **{"nvidia.com/gpu": "0"}), Node("gpu", one_machine().allocatable)]
    nodes[1].taints = {"nvidia.com/gpu": "present"}
    with cluster(tmp_path, nodes=nodes) as running:
        api = kubernetes.config.new_client_from_config(str(running.kubeconfig))
        yield Client(running, kubernetes.client.BatchV1Api(api), kubernetes.client.CoreV1Api(api))
        assert running.broken == []


def test_a_job_completes_with_its_process_and_its_log_is_kept(client: Client) -> None:
    client.start("print('said')")
    status = client.ended()
    assert (status.succeeded, status.failed, status.conditions[0].type) == (1, None, "Complete")
    (pod,) = client.pods()
    assert pod.status.phase == "Succeeded" and pod.status.container_statuses[0].state.terminated.exit_code == 0
    assert client.log() == "said\n"
    assert pod.metadata.owner_references[0].uid == client.batch.read_namespaced_job("job-1", NAMESPACE).metadata.uid


def test_a_log_is_followed_to_the_end_of_its_pod(client: Client) -> None:
    client.start("import time\nfor n in range(4): print(n, flush=True); time.sleep(0.1)")
    client.runs()
    assert client.log(follow=True).split() == ["0", "1", "2", "3"]
    assert client.log(tail_lines=1) == "3\n"


def test_a_failed_pod_is_replaced_until_the_limit_is_reached(client: Client) -> None:
    client.start("raise SystemExit(3)", backoffLimit=1)
    status = client.ended()
    assert (status.failed, status.succeeded, status.active) == (2, None, None) or status.active == 0
    assert status.conditions[0].reason == "BackoffLimitExceeded"
    assert [pod.status.container_statuses[0].state.terminated.exit_code for pod in client.pods()] == [3, 3]


def test_a_pod_above_its_memory_limit_is_killed_and_says_so(client: Client) -> None:
    client.start("held = bytearray(200_000_000)\nimport time\ntime.sleep(60)", resources={"limits": {"memory": "64Mi"}})
    client.ended()
    ended = client.pods()[0].status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


def test_an_evicted_pod_stays_to_tell_of_it_and_its_job_fails(client: Client) -> None:
    client.start("import time; time.sleep(60)")
    name = client.runs().metadata.name
    client.cluster.kubelet.evict(client.cluster.pods()[0])
    assert client.ended().failed == 1
    (pod,) = client.pods()
    assert (pod.metadata.name, pod.status.phase, pod.status.reason) == (name, "Failed", "Evicted")


def test_a_pod_that_is_deleted_counts_as_failed_and_goes(client: Client) -> None:
    client.start("import time; time.sleep(60)")
    client.core.delete_namespaced_pod(client.runs().metadata.name, NAMESPACE)
    assert client.ended().failed == 1
    wait_until(lambda: client.pods() == [], "the pod stays")


def test_the_pods_of_a_lost_node_are_given_up_only_after_a_while(client: Client) -> None:
    client.start("import time; time.sleep(60)")
    client.runs()
    node = client.cluster.nodes[0]
    client.cluster.lose(node)
    assert client.status().active == 1
    assert client.ended().failed == 1 and client.pods() == []


def test_deleting_a_job_leaves_its_pods_unless_they_are_to_go_too(client: Client) -> None:
    for name, policy in (("orphaning", None), ("cascading", "Background")):
        client.start("import time; time.sleep(60)", name)
        client.runs(name)
        client.batch.delete_namespaced_job(name, NAMESPACE, **({"propagation_policy": policy} if policy else {}))
    wait_until(lambda: client.pods("cascading") == [], "the pods of a cascading deletion stay")
    (left,) = client.pods("orphaning")
    assert left.status.phase == "Running" and not left.metadata.owner_references


def test_a_finished_job_goes_after_its_time_and_its_pod_with_it(client: Client) -> None:
    client.start("pass", ttlSecondsAfterFinished=0)
    wait_until(lambda: client.batch.list_namespaced_job(NAMESPACE).items == [], "the job stays")
    wait_until(lambda: client.pods() == [], "the pod stays")


def test_a_pod_waits_for_a_node_that_has_what_it_asks_for(client: Client) -> None:
    wanted = {"limits": {"nvidia.com/gpu": "1"}}
    client.start("pass", resources=wanted)
    wait_until(lambda: _why_pending(client, "job-1") == ["Unschedulable"], "the GPU's node has a taint")
    wait_until(lambda: bool(client.core.list_namespaced_event(NAMESPACE).items), "nothing was told")
    tolerant = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    client.start("pass", "job-2", resources=wanted, tolerations=tolerant)
    assert client.ended("job-2").succeeded == 1
    assert client.pods("job-2")[0].spec.node_name == "gpu"


def test_two_pods_never_share_a_gpu(client: Client, tmp_path: Path) -> None:
    held = {"resources": {"limits": {"nvidia.com/gpu": "1"}}, "tolerations": [{"operator": "Exists"}]}
    until = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.05)"
    client.start(until, "job-1", **held)
    client.runs("job-1")
    client.start("pass", "job-2", **held)
    wait_until(lambda: _why_pending(client, "job-2") == ["Unschedulable"], "the second does not wait")
    (tmp_path / "go").touch()
    assert client.ended("job-1").succeeded == client.ended("job-2").succeeded == 1


def _why_pending(client: Client, name: str) -> list[str]:
    return [one.reason for pod in client.pods(name) for one in pod.status.conditions or []]


def test_an_image_that_cannot_be_pulled_is_waited_for(client: Client) -> None:
    client.cluster.faults.unpullable.add("registry.example/one:1")
    client.start("pass")
    client.waits("ImagePullBackOff")
    client.cluster.faults.unpullable.clear()
    assert client.ended().succeeded == 1


def test_a_pod_sees_its_manifest_and_nothing_of_ours(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_PERSON", "at the keyboard")
    code = "import os; print(sorted(name for name in os.environ if '_' in name or name == 'FROM'))"
    told = [
        {"name": "ONE_KEY", "valueFrom": {"secretKeyRef": {"name": "password", "key": "key"}}},
        {"name": "FROM", "value": "$(ONE_KEY)"},
    ]
    client.start(code + "; print(os.environ['FROM'])", env=told, envFrom=[{"configMapRef": {"name": "settings"}}])
    client.waits("CreateContainerConfigError")
    client.cluster.give("configmaps", "settings", {"S2S_ONE": "1"})
    client.cluster.give("secrets", "password", {"key": "of the secret"})
    assert client.ended().succeeded == 1
    assert client.log() == "['DAGSTER_DISABLE_TELEMETRY', 'FROM', 'ONE_KEY', 'S2S_ONE']\nof the secret\n"


def test_a_job_that_ends_takes_all_its_processes_along(client: Client) -> None:
    child = "import time; time.sleep(600)"
    client.start(f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid)")
    assert client.ended().succeeded == 1
    pid = int(client.log())

    def gone() -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    wait_until(gone, f"process {pid} lives on")


def test_what_cannot_be_is_refused_as_kubernetes_refuses_it(client: Client) -> None:
    def refused(call: Callable[[], object]) -> int:
        with pytest.raises(ApiException) as told:
            call()
        assert '"kind": "Status"' in told.value.body
        return int(told.value.status)

    client.start("pass")
    assert refused(lambda: client.start("pass")) == 409
    assert refused(lambda: client.start("pass", "Not_A_Name")) == 422
    assert refused(lambda: client.start("pass", "job-2", volumeMounts=[{"name": "none", "mountPath": "/x"}])) == 422
    assert refused(lambda: client.start("pass", "job-2", imagePullPolicies="Always")) == 422, "the schema knows no such"
    assert refused(lambda: client.status("job-2")) == 404
    assert refused(lambda: client.core.list_namespaced_service(NAMESPACE)) == 405
    assert client.cluster.api.unknown == [f"get /api/v1/namespaces/{NAMESPACE}/services"]
    client.cluster.api.token = "of somebody else"
    assert refused(lambda: client.status()) == 401


# A whole mine


CALLS = {"create jobs", "get jobs/status", "get pods"}
"""What runs and steps that go well ask of the API; a run reads its own pod, which then owns the jobs of its steps."""


@dataclass(frozen=True)
class Mined:
    """What was mined in pods, and where."""

    deployment: Deployment
    home: Path

    @property
    def cluster(self) -> Cluster:
        return self.deployment.cluster


@pytest.fixture(scope="module")
def of_one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("one_process")
    mine_in_one_process(home)
    return contents(home / "lake")


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mined]:
    """All layers of the mini mine, made by the cluster with its records in Postgres, where that is installed."""
    folder = tmp_path_factory.mktemp("mined")
    plain, gpu = one_machine("plain", **{"nvidia.com/gpu": "0"}), one_machine("with-gpu")
    gpu.taints = {"nvidia.com/gpu": "present"}
    with ExitStack() as stack:
        postgres = None if missing() else stack.enter_context(temporary_postgres())
        running = stack.enter_context(cluster(folder / "cluster", nodes=[plain, gpu]))
        deployed = stack.enter_context(deployment(running, folder / "home", {**VARIABLES, **BLOCKS}, postgres))
        _mine(deployed)
        yield Mined(deployed, folder / "home")


def _mine(deployed: Deployment) -> None:
    deployed.succeed(deployed.launch("catalogue"))
    books = {name: deployed.instance.get_dynamic_partitions(f"audiobooks_{name}") for name in ("deu", "eng")}
    layers = {name: [f"{name}/{layer}" for layer in BOOK_LAYERS] for name in books}
    deployed.succeed(*(deployed.launch(*layers[name], tags=book_range(books[name])) for name in books))
    deployed.succeed(*(deployed.launch(f"{name}/speech_index", partition=name) for name in books))
    deployed.succeed(deployed.launch(*PAIR_LAYERS, partition=PAIR, checks=["s2s_pairs:scores_reach_the_floor"]))


@pytest.mark.slow
def test_a_mine_in_pods_gives_the_bytes_of_one_process(mined: Mined, of_one_process: dict[str, str]) -> None:
    assert any(path.startswith(f"s2s_corpus/{PAIR}/") for path in of_one_process)
    assert contents(mined.home / "lake") == of_one_process


@pytest.mark.slow
def test_every_step_was_a_pod_of_its_own_and_none_was_started_twice(mined: Mined) -> None:
    jobs = mined.cluster.made()
    names = [job["metadata"]["name"] for job in jobs]
    assert len(names) == len(set(names))
    steps = [job["metadata"]["labels"].get("dagster/op") for job in jobs]
    layers = [f"{language}__{layer}" for language in ("deu", "eng") for layer in (*BOOK_LAYERS, "speech_index")]
    of_pair = ["s2s_neighbours.s2s_plan_blocks", "s2s_neighbours.s2s_merge_blocks", "s2s_pairs", "s2s_corpus"]
    once = ["catalogue", *layers, *of_pair, "s2s_pairs_scores_reach_the_floor"]
    blocks = [step for step in steps if step and "search_block" in step]
    assert len(blocks) == 2 and sorted(step for step in steps if step) == sorted([*once, *blocks])
    assert steps.count(None) == len(mined.deployment.instance.get_runs()) == 6


@pytest.mark.slow
def test_steps_of_the_pool_gpu_ran_on_the_node_that_has_one_and_no_others_did(mined: Mined) -> None:
    on: dict[str, set[str]] = {"plain": set(), "with-gpu": set()}
    for pod in mined.cluster.pods():
        on[pod["spec"]["nodeName"]].add(pod["metadata"]["labels"].get("dagster/op", "run"))
    asking = {job["metadata"]["labels"].get("dagster/op") for job in mined.cluster.made() if _asks_for_gpu(job)}
    assert on["with-gpu"] == asking >= {"deu__speech_embeddings", "eng__speech_embeddings"}
    assert any("search_block" in step for step in asking)
    assert "run" in on["plain"] and "catalogue" in on["plain"]


def _asks_for_gpu(job: Any) -> bool:
    containers: Sequence[Any] = job["spec"]["template"]["spec"]["containers"]
    return any("nvidia.com/gpu" in one["resources"].get("limits", {}) for one in containers)


@pytest.mark.slow
def test_the_jobs_of_steps_belong_to_the_pod_of_their_run(mined: Mined) -> None:
    run_of = {pod["metadata"]["uid"]: pod["metadata"]["labels"]["dagster/run-id"] for pod in mined.cluster.pods()}
    steps = [job["metadata"] for job in mined.cluster.made() if "dagster/op" in job["metadata"]["labels"]]
    owners = [[run_of[owner["uid"]] for owner in step["ownerReferences"]] for step in steps]
    assert steps and owners == [[step["labels"]["dagster/run-id"]] for step in steps]


@pytest.mark.slow
def test_only_calls_were_made_that_the_role_allows(mined: Mined) -> None:
    assert {"create jobs", "get pods"} <= set(mined.cluster.api.calls) <= CALLS
    assert mined.cluster.api.unknown == mined.cluster.broken == []


@pytest.mark.slow
def test_the_password_of_postgres_is_in_no_manifest(mined: Mined) -> None:
    secret = mined.cluster.store.get("secrets", NAMESPACE, PASSWORD)
    if secret is None:
        pytest.skip(missing())
    assert secret["data"]["postgresql-password"] not in str(mined.cluster.made())
