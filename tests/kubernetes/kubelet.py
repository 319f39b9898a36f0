"""The kubelet: a pod's container is a process of this machine, and the pod's status follows it.

The process sees what a container sees: the variables of its manifest and its image, a folder of its own, no more. Its
memory limit is kept: whatever its processes hold together above it ends them, with 137 and OOMKilled.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.kubernetes.control import Control, Node
from tests.kubernetes.faults import Blow, Faults
from tests.kubernetes.objects import Object, memory_limit_bytes, pod_finished, running, stamp, terminated, waiting
from tests.kubernetes.store import Store

_WAIT_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


@dataclass(frozen=True)
class Machine:
    """What pods find on the machines they run on."""

    folder: Path
    """Of the pods' own folders and logs."""
    image_env: Mapping[str, str]
    """Variables that the image sets."""
    claims: dict[str, Path] = field(default_factory=dict)
    """Claims of shared volumes, and where each lies; it must be mounted there."""


class UnreadyError(Exception):
    """A container that cannot be made yet: reason and message."""


class Kubelet:
    """Runs every pod that has a node, each watched by a thread."""

    def __init__(self, store: Store, control: Control, faults: Faults, machine: Machine, nodes: list[Node]) -> None:
        self.store, self.control, self.faults, self.machine, self.nodes = store, control, faults, machine, nodes
        self._pods: dict[str, _Pod] = {}
        self._stopped = threading.Event()

    def tick(self) -> None:
        for pod in self.store.all("pods"):
            if pod["spec"].get("nodeName") and pod["metadata"]["uid"] not in self._pods and not pod_finished(pod):
                watched = _Pod(self, pod)
                self._pods[pod["metadata"]["uid"]] = watched
                watched.start()

    def log_of(self, pod: Object) -> Path:
        """Where a pod's output is."""
        return self.machine.folder / f"{pod['metadata']['name']}.{pod['metadata']['uid'][:8]}.log"

    def evict(self, pod: Object) -> None:
        """End a pod as a node does that runs out of memory or disk."""
        self._pods[pod["metadata"]["uid"]].strike("evict")

    def stop(self) -> None:
        """End every process."""
        self._stopped.set()
        for pod in self._pods.values():
            pod.join()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()


class _Pod(threading.Thread):
    """One pod from its start to its end."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        super().__init__(daemon=True, name=pod["metadata"]["name"])
        self._kubelet, self._pod = kubelet, pod
        self._container = pod["spec"]["containers"][0]
        self._node = next(node for node in kubelet.nodes if node.name == pod["spec"]["nodeName"])
        self._limit_bytes = memory_limit_bytes(pod)
        self._blow: Blow | None = None

    def strike(self, blow: Blow) -> None:
        """Let something befall the pod."""
        self._blow = blow

    def run(self) -> None:
        environment = self._until_ready()
        if environment is None:
            self._end("Failed", 137, "Error", time.time())
            return
        folder = self._kubelet.machine.folder / self._pod["metadata"]["uid"]
        (folder / "tmp").mkdir(parents=True)
        began = time.time()
        with self._kubelet.log_of(self._pod).open("wb") as log:
            process = subprocess.Popen(
                _command(self._container), env={**environment, "TMPDIR": str(folder / "tmp"), "HOME": str(folder)},
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._tell("Running", running(self._container, began))
        self._watch(process, began)

    def _until_ready(self) -> dict[str, str] | None:
        """Wait for the image and for what the manifest names; None: the pod was to end before."""
        while not self._to_end():
            try:
                return self._environment()
            except UnreadyError as unready:
                reason, message = unready.args
                self._tell("Pending", waiting(self._container, reason, message))
                self._kubelet.control.event(self._pod, "Pod", "Failed", message)
                time.sleep(_WAIT_S)
        return None

    def _environment(self) -> dict[str, str]:
        """The variables of the container.

        Raises:
            UnreadyError: an image, a secret, a config map or a claim is not there.
        """
        image = self._container["image"]
        if image in self._kubelet.faults.unpullable:
            raise UnreadyError("ImagePullBackOff", f'Back-off pulling image "{image}"')
        self._mount()
        told = {**self._kubelet.machine.image_env, "HOSTNAME": self._pod["metadata"]["name"]}
        for source in self._container.get("envFrom") or []:
            told.update(self._all_of(source))
        for one in self._container.get("env") or []:
            value = one.get("value") or ""
            told[one["name"]] = _expanded(value, told) if "valueFrom" not in one else self._one_of(one["valueFrom"])
        return told

    def _mount(self) -> None:
        """Hold every mounted claim against where it lies; other volumes are not looked at."""
        volumes = {volume["name"]: volume for volume in self._pod["spec"].get("volumes") or []}
        for mount in self._container.get("volumeMounts") or []:
            claim = (volumes[mount["name"]].get("persistentVolumeClaim") or {}).get("claimName")
            at = self._kubelet.machine.claims.get(claim or "")
            if claim and at is None:
                raise UnreadyError("ContainerCreating", f'persistentvolumeclaim "{claim}" not found')
            if claim and Path(mount["mountPath"]) != at:
                raise UnreadyError(
                    "CreateContainerError", f"{claim} lies at {at}, and there is no mounting it elsewhere"
                )

    def _all_of(self, source: Object) -> Mapping[str, str]:
        secret = "secretRef" in source
        reference = source["secretRef" if secret else "configMapRef"]
        return self._data("secrets" if secret else "configmaps", reference)

    def _one_of(self, source: Object) -> str:
        if "fieldRef" in source:
            return str(_path(self._pod, source["fieldRef"]["fieldPath"]))
        secret = "secretKeyRef" in source
        reference = source["secretKeyRef" if secret else "configMapKeyRef"]
        data = self._data("secrets" if secret else "configmaps", reference)
        if reference["key"] not in data and not reference.get("optional"):
            raise UnreadyError(
                "CreateContainerConfigError", f"couldn't find key {reference['key']} in {reference['name']}"
            )
        return data.get(reference["key"], "")

    def _data(self, kind: str, reference: Object) -> Mapping[str, str]:
        found = self._kubelet.store.get(kind, self._pod["metadata"]["namespace"], reference["name"])
        if found is None and not reference.get("optional"):
            raise UnreadyError("CreateContainerConfigError", f'{kind[:-1]} "{reference["name"]}" not found')
        return dict(found["data"]) if found else {}

    def _watch(self, process: subprocess.Popen[bytes], began: float) -> None:
        """Follow the process to its end; whatever it left behind ends with it."""
        asked_at, reason = None, ""
        while process.poll() is None:
            time.sleep(_WAIT_S)
            if self._node.lost_at is not None or self._kubelet.stopped:
                _kill(process.pid)
                process.wait()
                self._until_found()
                break
            planned = self._kubelet.faults.of_pod(self._pod, self._log()) if self._kubelet.faults.strikes else None
            blow = self._blow or planned
            if self._limit_bytes and _held_bytes(process.pid) > self._limit_bytes:
                blow = "oom"
            if blow in ("oom", "evict", "crash"):
                reason = {"oom": "OOMKilled", "evict": "Evicted"}.get(str(blow), "Error")
                _kill(process.pid)
                process.wait()
            elif blow == "drain":
                self._kubelet.control.delete("pods", self._pod)
            if asked_at is None and self._to_end():
                asked_at = time.time()
                process.terminate()
            if asked_at is not None and time.time() > asked_at + self._grace_s():
                _kill(process.pid)
        _kill(process.pid)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        self._end("Failed" if code else "Succeeded", code, reason or ("Error" if code else "Completed"), began)

    def _until_found(self) -> None:
        """While a node is dark nobody tells of its pods; when it is back, it tells that they ended."""
        while self._node.lost_at is not None and not self._kubelet.stopped:
            time.sleep(_WAIT_S)

    def _log(self) -> str:
        return self._kubelet.log_of(self._pod).read_text("utf-8", "replace")

    def _grace_s(self) -> float:
        return float(self._pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _to_end(self) -> bool:
        """Whether somebody asked for the pod's end."""
        metadata = self._pod["metadata"]
        now = self._kubelet.store.get("pods", metadata["namespace"], metadata["name"])
        gone = now is None or now["metadata"]["uid"] != metadata["uid"] or "deletionTimestamp" in now["metadata"]
        return gone or self._kubelet.stopped

    def _tell(self, phase: str, container: Object) -> None:
        with self._kubelet.store.changing("pods", self._pod) as kept:
            if kept:
                kept["status"].update(phase=phase, containerStatuses=[container], podIP="127.0.0.1", hostIP="127.0.0.1")
                kept["status"].setdefault("startTime", stamp(time.time()))

    def _end(self, phase: str, code: int, reason: str, began: float) -> None:
        self._tell(phase, terminated(self._container, began, time.time(), code, reason))
        if reason == "Evicted":
            told = "The node was low on resource: memory."
            with self._kubelet.store.changing("pods", self._pod) as kept:
                if kept:
                    kept["status"].update(reason=reason, message=told)
            self._kubelet.control.event(self._pod, "Pod", reason, told)


def _command(container: Object) -> list[str]:
    """What to run: `dagster` and `python` are those of this environment."""
    command = [*(container.get("command") or []), *(container.get("args") or [])]
    beside = Path(sys.executable).parent / command[0]
    return [sys.executable if command[0].startswith("python") else str(beside), *command[1:]]


def _expanded(value: str, told: Mapping[str, str]) -> str:
    """`$(NAME)` is the value of a variable that was told before."""
    return _REFERENCE.sub(lambda found: told.get(found[1], found[0]), value)


def _path(thing: Object, path: str) -> object:
    found: object = thing
    for name in path.split("."):
        found = found[name] if isinstance(found, dict) else None
    return found


def _kill(session: int) -> None:
    """End every process of a session, as a container's end does."""
    for pid in _of_session(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _held_bytes(session: int) -> int:
    """Memory that the processes of a session hold."""
    held = 0
    for pid in _of_session(session):
        try:
            held += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            continue
    return held


def _of_session(session: int) -> Iterator[int]:
    """Processes whose session is `session`; the sixth field of `stat`, after the name in brackets."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            yield int(folder.name)
