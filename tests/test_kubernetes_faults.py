"""Pods that die, nodes that go dark, an API that flaps: what survives them, and what does not.

Dagster's own waits are real here (a lost pod is looked for every 20 s, a refused call repeated after 10), so these
tests wait more than they work.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from tests.kubernetes.cluster import Cluster, cluster, one_machine, wait_until
from tests.kubernetes.control import Node
from tests.kubernetes.deployment import IMAGE, Deployment, deployment
from tests.kubernetes.faults import Strike, Weather
from tests.kubernetes.mini_mine import BLOCKS, PAIR, VARIABLES, contents, mine_in_one_process
from tests.kubernetes.objects import finished, pod_finished

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # a busy machine is no failure
    pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated"),  # Dagster's daemon
]

ENDING = {"S2S_KUBERNETES__END_WITH_RUN": "true"}
"""Without it the steps of a terminated run go on: its worker leaves them to the one that it thinks will resume."""
MONITORING = {
    "enabled": True,
    "start_timeout_seconds": 1,
    "cancel_timeout_seconds": 1,
    "max_resume_run_attempts": 1,
    "free_slots_after_run_end_seconds": 1,
}


@dataclass(frozen=True)
class World:
    """A deployment whose lake holds all up to the indexes, and what one process made of them."""

    deployed: Deployment
    lake: Path
    pristine: Path
    """The neighbours that one process found."""
    whole: dict[str, str]

    @property
    def gpu(self) -> Node:
        """The only node with GPUs: two."""
        return self.cluster.nodes[1]

    @property
    def cluster(self) -> Cluster:
        return self.deployed.cluster

    def forget(self, *layers: str) -> None:
        for layer in layers:
            shutil.rmtree(self.lake / layer, ignore_errors=True)

    def launch(self, layer: str, **tags: str) -> str:
        """Materialize a layer of the pair that the lake does not hold."""
        self.forget(layer, *(("s2s_neighbour_state", "s2s_neighbour_blocks") if layer == "s2s_neighbours" else ()))
        return self.deployed.launch(layer, partition=PAIR, tags={f"dagster/{name}": tag for name, tag in tags.items()})

    def assert_as_in_one_process(self, layer: str) -> None:
        made = {path: content for path, content in contents(self.lake).items() if path.startswith(f"{layer}/")}
        assert made == {path: content for path, content in self.whole.items() if path.startswith(f"{layer}/")} != {}


def _nodes() -> list[Node]:
    amounts = {"cpu": "32", "memory": "256Gi"}
    return [one_machine(f"with-{gpus}-gpus", **amounts, **{"nvidia.com/gpu": gpus}) for gpus in ("0", "2")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    mine_in_one_process(home)
    whole = contents(home / "lake")
    shutil.rmtree(home / "dagster")  # the records of the one process
    pristine = Path(shutil.copytree(home / "lake/s2s_neighbours", tmp_path_factory.mktemp("neighbours") / "pristine"))
    with (
        cluster(tmp_path_factory.mktemp("cluster"), nodes=_nodes()) as running,
        deployment(running, home, {**VARIABLES, **BLOCKS, **ENDING}, run_monitoring=MONITORING) as deployed,
    ):
        deployed.instance.event_log_storage.set_concurrency_slots("gpu", 2)
        yield World(deployed, home / "lake", pristine, whole)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """The same, in good weather, with the pair's neighbours; what a test leaves running is ended."""
    shared.forget("s2s_neighbours")
    shutil.copytree(shared.pristine, shared.lake / "s2s_neighbours")
    yield shared
    faults = shared.cluster.faults
    faults.weather(None)
    faults.unpullable.clear()
    faults.strikes.clear()
    assert faults.planned == 0, "a trouble that was planned was met by nobody"
    for node in shared.cluster.nodes:
        node.cordoned, node.lost_at = False, None
    for job in shared.cluster.jobs():
        shared.cluster.control.delete("jobs", job, "Background")
    wait_until(lambda: shared.cluster.pods() == [], "a pod stays")
    instance = shared.deployed.instance
    for run in instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        instance.report_run_canceled(run)
    for run_id in instance.event_log_storage.get_concurrency_run_ids():
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    assert shared.cluster.broken == shared.cluster.api.unknown == []


def _held_slots(deployed: Deployment, pool: str) -> int:
    return len(deployed.instance.event_log_storage.get_concurrency_info(pool).claimed_slots)


def _step(thing: dict[str, dict[str, dict[str, str]]]) -> str:
    return thing["metadata"]["labels"].get("dagster/op", "run")


def _jobs_by_step(cluster: Cluster, run_id: str) -> Counter[str]:
    """How many jobs each step had; a job that was asked for twice is one."""
    return Counter(_step(job) for job in {job["metadata"]["name"]: job for job in cluster.made("", run_id)}.values())


def _blocks(cluster: Cluster, run_id: str, phase: str = "") -> list[dict[str, dict[str, str]]]:
    """Pods of blocks, of all phases or of one."""
    pods = [pod for pod in cluster.pods("", run_id) if "search_block" in _step(pod)]
    return [pod for pod in pods if phase in ("", pod["status"]["phase"])]


def _two_blocks_run(cluster: Cluster, run_id: str) -> None:
    wait_until(lambda: len(_blocks(cluster, run_id, "Running")) == 2, "no two blocks run at once")


def _lose_gpus(world: World, run_id: str) -> None:
    """Let the node of the blocks go dark until its pods are given up."""
    world.cluster.lose(world.gpu)
    wait_until(lambda: _blocks(world.cluster, run_id, "Running") == [], "the pods of a dark node are kept")


def _evict_run(cluster: Cluster, run_id: str) -> None:
    """Until its job says so too, which is what the daemon looks at."""
    cluster.kubelet.evict(cluster.pod("run", run_id))
    wait_until(lambda: all(finished(job) for job in cluster.jobs("run", run_id)), "it is not evicted")


def test_lost_pods_cost_their_blocks_and_a_lost_run_costs_nothing(world: World) -> None:
    """The run's pod is evicted, the blocks' node goes dark, the merge dies of memory; the API flaps."""
    cluster, deployed = world.cluster, world.deployed
    cluster.faults.strikes.append(Strike(r".*merge_blocks", "oom", "STEP_START"))
    cluster.faults.weather(Weather(0.05, seed=7))
    world.gpu.cordoned = True
    run_id = world.launch("s2s_neighbours")
    wait_until(lambda: len(_blocks(cluster, run_id)) == 2, "no two blocks wait")  # each took its slot before
    assert _held_slots(deployed, "gpu") == 2
    _evict_run(cluster, run_id)
    deployed.monitor()
    wait_until(lambda: "Resuming execution" in deployed.messages(run_id), "nobody resumes the run")
    world.gpu.cordoned = False
    _two_blocks_run(cluster, run_id)
    _lose_gpus(world, run_id)
    world.gpu.lost_at = None
    deployed.succeed(run_id)
    world.assert_as_in_one_process("s2s_neighbours")
    jobs = _jobs_by_step(cluster, run_id)
    assert [jobs[step] for step in jobs if "search_block" in step] == [2, 2]
    assert [jobs[step] for step in jobs if "plan" in step] == [1]
    assert [jobs[step] for step in jobs if "merge" in step] == [2]
    assert jobs["run"] == 2


def test_a_run_that_is_lost_with_its_steps_is_started_again_and_its_slots_are_free(world: World) -> None:
    """Dagster resumes it by asking for the dead steps' jobs again, whose names are taken: that run fails.

    Started again from its failure it would leave out the blocks, which neither failed nor succeeded: so all its steps
    are made again, and what is in the lake is not searched twice.
    """
    cluster, deployed = world.cluster, world.deployed
    lost = world.launch("s2s_neighbours")
    _two_blocks_run(cluster, lost)
    _evict_run(cluster, lost)
    _lose_gpus(world, lost)
    assert _held_slots(deployed, "gpu") == 2
    deployed.monitor()
    assert deployed.until_ended(lost) == [dg.DagsterRunStatus.FAILURE]
    assert "already exists" in deployed.messages(lost)
    wait_until(lambda: _freed(deployed) == 0, "a dead run holds places in a pool")
    world.gpu.lost_at = None
    (again,) = deployed.retry(lost)
    deployed.succeed(again)
    world.assert_as_in_one_process("s2s_neighbours")


def _freed(deployed: Deployment) -> int:
    deployed.free_slots()
    return _held_slots(deployed, "gpu")


def test_a_launch_that_nobody_heard_is_made_again_and_one_whose_answer_was_lost_is_not(world: World) -> None:
    """Four refusals in a row are a failed run, which the daemon starts again; after that the answer alone is lost."""
    cluster, deployed = world.cluster, world.deployed
    cluster.faults.next_requests("create jobs", ["503", "500", "503", "401", "done, 504"])
    unheard = world.launch("s2s_pairs")
    assert deployed.run(unheard).status == dg.DagsterRunStatus.FAILURE
    assert len(cluster.made("run", unheard)) == len(cluster.jobs("run", unheard)) == 0
    (again,) = deployed.retry(unheard)
    deployed.succeed(again)
    world.assert_as_in_one_process("s2s_pairs")
    assert len(cluster.made("run", again)) == 2, "asked for twice"
    assert len(cluster.pods("run", again)) == 1, "made once"


def test_a_run_that_is_terminated_leaves_no_job_no_pod_and_no_process(world: World) -> None:
    cluster, deployed = world.cluster, world.deployed
    world.gpu.cordoned = True
    run_id = world.launch("s2s_neighbours")
    wait_until(lambda: _blocks(cluster, run_id) != [], "no block was begun")
    assert deployed.terminate(run_id) == "TerminateRunSuccess"
    assert deployed.until_ended(run_id) == [dg.DagsterRunStatus.CANCELED]
    wait_until(lambda: not [pod for pod in cluster.pods("", run_id) if not pod_finished(pod)], "a pod goes on")
    assert [job for job in cluster.jobs("", run_id) if not finished(job)] == []
    assert not (world.lake / "s2s_neighbours").exists()


def test_a_run_whose_image_cannot_be_had_is_given_up_with_the_reason_and_never_begins(world: World) -> None:
    cluster, deployed = world.cluster, world.deployed
    cluster.faults.unpullable.add(IMAGE)
    run_id = world.launch("s2s_pairs")
    cluster.pod("run", run_id, "Pending")
    wait_until(lambda: "containerStatuses" in cluster.pods("run", run_id)[0]["status"], "the kubelet is silent")
    wait_until(lambda: _monitored(deployed, run_id).is_finished, "the run is not given up")
    assert f'Back-off pulling image "{IMAGE}"' in deployed.messages(run_id)
    _assert_never_begins(world, run_id)


def test_a_launch_whose_answer_is_cut_off_is_a_failed_run_and_never_begins(world: World) -> None:
    """Dagster asks for the job again, is told that there is one, and does not see that it is its own."""
    cluster, deployed = world.cluster, world.deployed
    cluster.faults.unpullable.add(IMAGE)
    cluster.faults.next_requests("create jobs", ["done, cut"])
    run_id = world.launch("s2s_pairs")
    assert deployed.run(run_id).status == dg.DagsterRunStatus.FAILURE
    assert "already exists" in deployed.messages(run_id)
    _assert_never_begins(world, run_id)


def _assert_never_begins(world: World, run_id: str) -> None:
    """The pod of a run that was given up starts after all, and ends at once."""
    world.cluster.faults.unpullable.clear()
    world.cluster.pod("run", run_id, "Succeeded")
    assert "started after the run had already finished" in world.deployed.messages(run_id)
    assert world.cluster.made("s2s_pairs", run_id) == []


def test_an_api_that_is_away_for_half_a_minute_makes_the_daemon_start_a_second_worker(world: World) -> None:
    """What Dagster cannot ask about it takes for dead. The second worker goes on beside the first; no step is twice."""
    cluster, deployed = world.cluster, world.deployed
    cluster.faults.unpullable.add(IMAGE)
    run_id = world.launch("s2s_pairs")
    wait_until(lambda: any("nodeName" in pod["spec"] for pod in cluster.pods("run", run_id)), "it has no node")
    for node in cluster.nodes:
        node.cordoned = True
    cluster.faults.unpullable.clear()
    wait_until(lambda: cluster.pods("s2s_pairs", run_id) != [], "the step is not asked for")
    cluster.faults.next_requests("get jobs/status dagster-run.*", ["503"] * 4)
    deployed.monitor()
    assert len(cluster.jobs("run", run_id)) == 2, "the first worker was well"
    for node in cluster.nodes:
        node.cordoned = False
    deployed.succeed(run_id)
    world.assert_as_in_one_process("s2s_pairs")
    assert len(cluster.made("s2s_pairs", run_id)) == 1


def _monitored(deployed: Deployment, run_id: str) -> dg.DagsterRun:
    deployed.monitor()
    return deployed.run(run_id)
