"""The control plane: the Job controller, the scheduler, and the collector of what has lost its owner.

The rules are those of Kubernetes 1.30 as far as a job of one pod meets them: a failed pod is replaced until more than
`backoffLimit` have failed, a pod that is deleted while it runs counts as failed, a finished job goes after its
`ttlSecondsAfterFinished`, and deleting a job through batch/v1 leaves its pods behind unless asked otherwise.
"""

from __future__ import annotations

import copy
import random
import string
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.kubernetes.objects import (
    Object,
    condition,
    finished,
    owned_by,
    owner_of_pods,
    pod_finished,
    requests,
    stamp,
    tolerated,
)
from tests.kubernetes.store import Store
from tests.kubernetes_manifests import amount


@dataclass
class Node:
    """A machine of the cluster."""

    name: str
    allocatable: Mapping[str, str]
    """What its pods may ask for together, `pods` among it; a kind of resource that is not named is none."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Mapping[str, str] = field(default_factory=dict)
    cordoned: bool = False
    lost_at: float | None = None
    """When it went dark; its processes are dead, and the API does not know yet."""


@dataclass(frozen=True)
class Pace:
    """Waits of the control plane in seconds; the real ones are 10 and 300, too long for a test."""

    backoff_s: float = 0.2
    unreachable_s: float = 1.0


class Control:
    """What keeps jobs and pods as they should be; `tick` does it once."""

    def __init__(self, store: Store, nodes: list[Node], pace: Pace) -> None:
        self._store = store
        self._nodes = nodes
        self._pace = pace
        self._counted: dict[str, set[str]] = {}
        self._next_pod_at: dict[str, float] = {}
        self._ended_at: dict[str, float] = {}

    def tick(self) -> None:
        """Nothing changes meanwhile."""
        with self._store.lock:
            pods = self._store.all("pods")
            for job in self._store.all("jobs"):
                self._keep_job(job, [pod for pod in pods if owned_by(pod, _uid(job))])
            for pod in self._store.all("pods"):
                self._keep_pod(pod)

    def delete(self, kind: str, thing: Object, propagation: str = "") -> None:
        """As the API deletes: a pod is asked to end, a job is gone at once and its pods are orphans by default."""
        with self._store.lock:
            if kind == "pods":
                self._ask_to_end(thing)
                return
            uid = thing["metadata"]["uid"]
            for pod in self._store.all("pods", thing["metadata"]["namespace"]):
                if owned_by(pod, uid) and propagation not in ("Background", "Foreground"):
                    self._orphan(pod)
            self._store.remove(kind, thing)

    def event(self, thing: Object, kind: str, reason: str, message: str, *, warning: bool = True) -> None:
        """Tell what happened, as `kubectl describe` shows it; the same of the same object is told once."""
        metadata = thing["metadata"]
        about = {"kind": kind, "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]}
        told = {"type": "Warning" if warning else "Normal", "reason": reason, "message": message, "count": 1}
        now = stamp(time.time())
        name = f"{metadata['name'][:40]}.{reason.lower()}"
        whole = {"metadata": {"name": name}, "involvedObject": about, "firstTimestamp": now, "lastTimestamp": now}
        self._store.create("events", metadata["namespace"], {**whole, **told})

    def _ask_to_end(self, pod: Object) -> None:
        with self._store.changing("pods", pod) as kept:
            if kept:
                kept["metadata"].setdefault("deletionTimestamp", stamp(time.time()))
                if not kept["spec"].get("nodeName"):
                    kept["status"]["phase"] = "Failed"

    def _orphan(self, pod: Object) -> None:
        with self._store.changing("pods", pod) as kept:
            if kept:
                kept["metadata"]["ownerReferences"] = []

    # jobs

    def _keep_job(self, job: Object, pods: list[Object]) -> None:
        if self._ownerless(job):
            self.delete("jobs", job, "Background")
            return
        with self._store.changing("jobs", job) as kept:
            if kept and not finished(kept):
                self._count(kept, pods)
        kept = self._store.get("jobs", job["metadata"]["namespace"], job["metadata"]["name"])
        if kept and finished(kept):
            self._after_end(kept, pods)
        elif kept and not kept["status"].get("active"):
            self._start_pod(kept)

    def _count(self, job: Object, pods: list[Object]) -> None:
        """Bring a job's status to what its pods say."""
        status, counted = job["status"], self._counted.setdefault(_uid(job), set())
        for pod in pods:
            if pod_finished(pod) and _uid(pod) not in counted:
                counted.add(_uid(pod))
                name = "succeeded" if pod["status"]["phase"] == "Succeeded" else "failed"
                status[name] = status.get(name, 0) + 1
                self._next_pod_at[_uid(job)] = time.time() + self._pace.backoff_s * 2 ** (status.get("failed", 0) - 1)
        status["active"] = sum(not pod_finished(pod) and _uid(pod) not in counted for pod in pods)
        status["ready"] = sum(pod["status"]["phase"] == "Running" for pod in pods)
        now = time.time()
        if status.get("succeeded", 0) >= job["spec"].get("completions", 1):
            status["completionTime"] = stamp(now)
            status["conditions"] = [condition("Complete", now)]
        elif status.get("failed", 0) > job["spec"]["backoffLimit"]:
            told = "Job has reached the specified backoff limit"
            status["conditions"] = [condition("Failed", now, reason="BackoffLimitExceeded", message=told)]
            self.event(job, "Job", "BackoffLimitExceeded", told)

    def _start_pod(self, job: Object) -> None:
        if time.time() < self._next_pod_at.get(_uid(job), 0.0):
            return
        pod = copy.deepcopy(job["spec"]["template"])
        tail = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
        pod["metadata"] = {**pod.get("metadata", {}), "name": f"{job['metadata']['name'][:57]}-{tail}"}
        pod["metadata"]["ownerReferences"] = [owner_of_pods(job)]
        pod["status"] = {"phase": "Pending", "conditions": []}
        made = self._store.create("pods", job["metadata"]["namespace"], pod)
        with self._store.changing("jobs", job) as kept:
            if kept and made:
                kept["status"].setdefault("startTime", stamp(time.time()))
                kept["status"]["active"] = 1
                self.event(kept, "Job", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}", warning=False)

    def _after_end(self, job: Object, pods: list[Object]) -> None:
        ended = self._ended_at.setdefault(_uid(job), time.time())
        keep_s = job["spec"].get("ttlSecondsAfterFinished")
        if keep_s is not None and time.time() >= ended + keep_s:
            self.delete("jobs", job, "Background")
        for pod in pods:
            if not pod_finished(pod):
                self._ask_to_end(pod)

    # pods

    def _keep_pod(self, pod: Object) -> None:
        if pod["metadata"].get("deletionTimestamp") and pod_finished(pod):
            self._store.remove("pods", pod)
        elif self._ownerless(pod):
            self._ask_to_end(pod)
        elif pod_finished(pod):
            return
        elif not pod["spec"].get("nodeName"):
            self._schedule(pod)
        elif self._unreachable(pod):
            self._store.remove("pods", pod)
            self._fail_job_of(pod)

    def _ownerless(self, thing: Object) -> bool:
        owners = thing["metadata"].get("ownerReferences") or []
        return bool(owners) and self._store.uids.isdisjoint(owner["uid"] for owner in owners)

    def _schedule(self, pod: Object) -> None:
        fit = [node for node in self._nodes if self._fits(pod, node)]
        now = time.time()
        with self._store.changing("pods", pod) as kept:
            if kept and fit:
                kept["spec"]["nodeName"] = fit[0].name
                kept["status"]["conditions"] = [condition("PodScheduled", now)]
            elif kept:
                told = f"0/{len(self._nodes)} nodes are available for {dict(requests(pod))}"
                unfit = condition("PodScheduled", now, status="False", reason="Unschedulable", message=told)
                kept["status"]["conditions"] = [unfit]
                self.event(kept, "Pod", "FailedScheduling", told)

    def _fits(self, pod: Object, node: Node) -> bool:
        if node.cordoned or node.lost_at is not None or not tolerated(pod, node.taints):
            return False
        wanted = pod["spec"].get("nodeSelector") or {}
        if any(node.labels.get(name) != value for name, value in wanted.items()):
            return False
        used = [requests(one) for one in self._on(node.name) if not pod_finished(one)]
        return all(
            asked + sum(one.get(name, 0.0) for one in used) <= amount(node.allocatable.get(name, "0"))
            for name, asked in requests(pod).items()
        )

    def _on(self, node: str) -> list[Object]:
        return [pod for pod in self._store.all("pods") if pod["spec"].get("nodeName") == node]

    def _unreachable(self, pod: Object) -> bool:
        """Whether the pod's node has been dark for so long that the pod is given up."""
        dark = [node.lost_at for node in self._nodes if node.name == pod["spec"].get("nodeName")]
        given_up = [at for at in dark if at is not None and time.time() >= at + self._pace.unreachable_s]
        return bool(given_up)

    def _fail_job_of(self, pod: Object) -> None:
        for job in self._store.all("jobs", pod["metadata"]["namespace"]):
            if owned_by(pod, _uid(job)):
                pod["status"]["phase"] = "Failed"
                with self._store.changing("jobs", job) as kept:
                    if kept and not finished(kept):
                        self._count(kept, [pod])


def _uid(thing: Object) -> str:
    return str(thing["metadata"]["uid"])
