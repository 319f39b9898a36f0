"""A whole cluster in this process: its parts put together, and what a test does to it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.kubernetes.api import Api, Server
from tests.kubernetes.control import Control, Node, Pace
from tests.kubernetes.faults import Faults, step_of
from tests.kubernetes.kubelet import Kubelet, Machine
from tests.kubernetes.objects import Object, labels
from tests.kubernetes.store import Store

NAMESPACE = "speech-mining"
ROOT = Path(__file__).parent.parent.parent
_TOKEN = "of-the-service-account"
_TICK_S = 0.05


class Cluster:
    """An API on loopback, its control plane, and the machines that run its pods."""

    def __init__(self, folder: Path, nodes: Sequence[Node], image_env: Mapping[str, str], pace: Pace) -> None:
        self.folder, self.nodes = folder, list(nodes)
        self.store, self.faults = Store(), Faults()
        self.control = Control(self.store, self.nodes, pace)
        machine = Machine(folder / "pods", {**image_variables(), **image_env})
        machine.folder.mkdir(parents=True)
        self.claims = machine.claims
        self.kubelet = Kubelet(self.store, self.control, self.faults, machine, self.nodes)
        self.api = Api(self.store, self.control, self.faults, self.kubelet.log_of, _TOKEN, (NAMESPACE,))
        self.server = Server(self.api)
        self.kubeconfig = folder / "kubeconfig.yaml"
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.server.url)), "utf-8")
        self.broken: list[str] = []
        """What went wrong in the cluster itself: a test that finds anything here is worth nothing."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def give(self, kind: str, name: str, data: Mapping[str, str]) -> None:
        """Make a secret or a config map (`secrets`, `configmaps`); its values are plain text."""
        self.store.create(kind, NAMESPACE, {"metadata": {"name": name}, "data": dict(data)})

    def jobs(self, step: str = "", run_id: str = "") -> list[Object]:
        """Jobs that are there, of a step (`run`: of runs' own pods) and of a run, if asked for."""
        return [job for job in self.store.all("jobs") if _is_of(job, step, run_id)]

    def pods(self, step: str = "", run_id: str = "") -> list[Object]:
        """Pods that are there, likewise."""
        return [pod for pod in self.store.all("pods") if _is_of(pod, step, run_id)]

    def pod(self, step: str, run_id: str = "", phase: str = "Running") -> Object:
        """Wait for the newest pod of a step to be in a phase."""
        found: list[Object] = []

        def there() -> bool:
            found[:] = [pod for pod in self.pods(step, run_id) if pod["status"]["phase"] == phase]
            return bool(found)

        wait_until(there, f"no pod of {step} is {phase}")
        return found[-1]

    def log(self, pod: Object) -> str:
        """What a pod has written."""
        file = self.kubelet.log_of(pod)
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def lose(self, node: Node) -> None:
        """Let a machine go dark, and all its pods with it."""
        node.lost_at = time.time()

    def made(self, step: str = "", run_id: str = "") -> list[Object]:
        """Every job that was asked for, refused ones and repeated ones included."""
        return [job for job in self.api.manifests if _is_of(job, step, run_id)]

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self.kubelet.stop()
        self.server.stop()

    def _work(self) -> None:
        while not self._stopped.wait(_TICK_S):
            try:
                self.control.tick()
                self.kubelet.tick()
            except Exception as error:  # the loop must go on: a test would wait for ever, and never learn why
                self.broken.append(repr(error))


@contextmanager
def cluster(
    folder: Path, *, nodes: Sequence[Node] = (), image_env: Mapping[str, str] | None = None, pace: Pace | None = None
) -> Iterator[Cluster]:
    """Have a cluster until the block ends; every process of its pods ends with it.

    Args:
        folder: for pods' logs, their own folders and the kubeconfig.
        nodes: its machines; none: one of eight cores and a GPU.
        image_env: variables that the image sets, beside those that Python needs.
        pace: waits of the control plane.
    """
    running = Cluster(folder, nodes or [one_machine()], image_env or {}, pace or Pace())
    try:
        yield running
    finally:
        running.stop()


def one_machine(name: str = "node-1", **amounts: str) -> Node:
    """A machine of eight cores, 64 GiB and a GPU, or of other amounts."""
    usual = {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "200Gi", "pods": "110", "nvidia.com/gpu": "1"}
    return Node(name, {**usual, **amounts})


def wait_until(met: Callable[[], bool], otherwise: str, most_s: float = 300.0) -> None:
    """Wait for something; a generous end, since a busy machine is no failure.

    Raises:
        AssertionError: it did not come to be; `otherwise` says what that means.
    """
    end = time.monotonic() + most_s
    while not met():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


def _is_of(thing: Object, step: str, run_id: str) -> bool:
    return step in ("", step_of(thing)) and run_id in ("", labels(thing).get("dagster/run-id"))


def image_variables() -> dict[str, str]:
    """What the image holds: this checkout, this Python, and nothing of the person at the keyboard."""
    path = os.pathsep.join((str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"))
    return {"PATH": path, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "DAGSTER_DISABLE_TELEMETRY": "1"}


def _kubeconfig(url: str) -> Object:
    context = {"cluster": "loopback", "user": "dagster", "namespace": NAMESPACE}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "loopback",
        "clusters": [{"name": "loopback", "cluster": {"server": url}}],
        "users": [{"name": "dagster", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "loopback", "context": context}],
    }
