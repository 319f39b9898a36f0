"""Shapes of Kubernetes objects as they stand on the wire: selectors, requests, statuses, references. Pure functions.

An object is a dictionary in the API's own spelling (`apiVersion`, `metadata.ownerReferences`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from tests.kubernetes_manifests import amount

Object = dict[str, Any]

FINISHED_PHASES = ("Succeeded", "Failed")


def stamp(seconds: float) -> str:
    """A moment as the API writes it, RFC 3339 in UTC; seconds since 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def requests(pod: Object) -> dict[str, float]:
    """What a pod asks of a node, all its containers together; a limit without a request is a request."""
    asked: dict[str, float] = {"pods": 1.0}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, written in wanted.items():
            asked[name] = asked.get(name, 0.0) + amount(written)
    return asked


def memory_limit_bytes(pod: Object) -> int | None:
    """Of the first container; None: no limit."""
    limits = (pod["spec"]["containers"][0].get("resources") or {}).get("limits") or {}
    return int(amount(limits["memory"])) if "memory" in limits else None


def labels(thing: Object) -> dict[str, str]:
    """Labels of an object; empty where there are none."""
    return thing["metadata"].get("labels") or {}


def selected(thing: Object, label_selector: str, field_selector: str) -> bool:
    """Whether an object meets both selectors, each a list of `name=value`; an empty one is met by all."""
    of_labels = all(labels(thing).get(name) == value for name, value in _terms(label_selector))
    return of_labels and all(_field(thing, name) == value for name, value in _terms(field_selector))


def _terms(selector: str) -> list[tuple[str, str]]:
    written = [term.replace("==", "=").partition("=") for term in selector.split(",") if term]
    return [(name, value) for name, _, value in written]


def _field(thing: Object, path: str) -> Any:
    found: Any = thing
    for name in path.split("."):
        found = (found or {}).get(name)
    return found


def owned_by(thing: Object, uid: str) -> bool:
    """Whether an object names `uid` as an owner."""
    return any(owner["uid"] == uid for owner in thing["metadata"].get("ownerReferences") or [])


def owner_of_pods(job: Object) -> Object:
    """The reference that a job's pods carry."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    of_job = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
    return {**of_job, "controller": True, "blockOwnerDeletion": True}


def condition(kind: str, now: float, *, status: str = "True", reason: str = "", message: str = "") -> Object:
    """A condition of a job or a pod."""
    told = {"reason": reason, "message": message} if reason else {}
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": stamp(now), **told}


def finished(job: Object) -> bool:
    """Whether a job is complete or failed."""
    return any(one["type"] in ("Complete", "Failed") for one in job["status"].get("conditions", []))


def pod_finished(pod: Object) -> bool:
    """Whether a pod's container has ended and will not start again."""
    return pod["status"]["phase"] in FINISHED_PHASES


def failure(code: int, reason: str, message: str) -> Object:
    """The body of every refused request."""
    told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**told, "message": message, "reason": reason, "code": code}


def waiting(container: Object, reason: str, message: str = "") -> Object:
    """The status of a container that has not started."""
    return _container_status(container, {"waiting": {"reason": reason, "message": message}})


def running(container: Object, now: float) -> Object:
    """The status of a container that runs."""
    return _container_status(container, {"running": {"startedAt": stamp(now)}}, up=True)


def terminated(container: Object, began: float, now: float, exit_code: int, reason: str) -> Object:
    """The status of a container that has ended."""
    told = {"exitCode": exit_code, "reason": reason, "startedAt": stamp(began), "finishedAt": stamp(now)}
    return _container_status(container, {"terminated": told})


def _container_status(container: Object, state: Object, *, up: bool = False) -> Object:
    named = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return {**named, "ready": up, "started": up, "state": state, "lastState": {}}


def tolerated(pod: Object, taints: Mapping[str, str]) -> bool:
    """Whether a pod may run on a node with these taints (key → value), all of effect NoSchedule."""
    return all(_tolerates(pod, key, value) for key, value in taints.items())


def _tolerates(pod: Object, key: str, value: str) -> bool:
    for one in pod["spec"].get("tolerations") or []:
        of_key = one.get("key") in (None, key) and one.get("effect") in (None, "NoSchedule")
        if of_key and (one.get("operator") == "Exists" or one.get("value") == value):
            return True
    return False
