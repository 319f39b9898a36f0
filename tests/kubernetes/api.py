"""The API server: the calls that `dagster_k8s` and a person with `kubectl` make of jobs, pods, logs and events.

Every call is counted as `verb resource`, as roles are written; what no client of ours is known to call is refused with
405 and kept in `Api.unknown`.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

from tests.kubernetes.control import Control
from tests.kubernetes.faults import Faults, Trouble
from tests.kubernetes.objects import Object, failure, pod_finished
from tests.kubernetes.store import Store
from tests.kubernetes_manifests import assert_valid

_PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1)/namespaces(?:/(?P<namespace>[^/]+)(?:/(?P<kind>jobs|pods|events)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<part>status|log))?)?)?)?"
)
_LISTS = {"jobs": ("JobList", "batch/v1"), "pods": ("PodList", "v1"), "events": ("EventList", "v1")}
_SINGLE = {"jobs": ("Job", "batch/v1"), "pods": ("Pod", "v1"), "events": ("Event", "v1")}


class RefusedError(Exception):
    """A request that is answered by a `Status`: code, reason, message."""


@dataclass
class Api:
    """What the server knows and has seen."""

    store: Store
    control: Control
    faults: Faults
    log_of: Callable[[Object], Path]
    token: str
    namespaces: tuple[str, ...]
    manifests: list[Object] = field(default_factory=list)
    """Every job that was to be created, as it came."""
    calls: list[str] = field(default_factory=list)
    """`verb resource` of every request, in order."""
    unknown: list[str] = field(default_factory=list)
    """Requests that no client of ours is known to make."""


class Server:
    """The API on a port of loopback."""

    def __init__(self, api: Api) -> None:
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.api = api
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._http.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    api: Api

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.stopping = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def do_GET(self) -> None:
        self._answer("get")

    def do_POST(self) -> None:
        self._answer("create")

    def do_PATCH(self) -> None:
        self._answer("patch")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def do_PUT(self) -> None:
        self._answer("update")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, verb: str) -> None:
        api, parts = self.server.api, urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # who asked was killed meanwhile
            self.close_connection = True
            return
        found = _PATH.fullmatch(parts.path)
        resource = found and "/".join(filter(None, (found["kind"] or "namespaces", found["part"])))
        call = f"{'list' if found and verb == 'get' and found['kind'] and not found['name'] else verb} {resource}"
        api.calls.append(call)
        time.sleep(api.faults.slow_s)
        trouble = api.faults.of_request(f"{call} {(found and found['name']) or ''}".strip())
        if trouble and not trouble.startswith("done"):
            self._fail(trouble)
            return
        try:
            if found is None:
                raise RefusedError(
                    405, "MethodNotAllowed", f"{verb} {parts.path} is none of the calls that are known here"
                )
            if self.headers.get("Authorization") != f"Bearer {api.token}":
                raise RefusedError(401, "Unauthorized", "Unauthorized")
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            sent = json.loads(body) if body else {}
            told = _Call(api, found.groupdict(), query, sent).made(call)
        except RefusedError as refused:
            code, reason, message = refused.args
            if code == 405:
                api.unknown.append(f"{verb} {self.path}")
            self._send(code, json.dumps(failure(code, reason, message)).encode())
            return
        if trouble:
            self._fail(trouble)
        elif isinstance(told, _Log):
            self._send_log(told)
        else:
            self._send(201 if verb == "create" else 200, json.dumps(told).encode())

    def _fail(self, trouble: Trouble) -> None:
        status = trouble.rpartition(" ")[2]
        if status.isdigit():
            self._send(int(status), json.dumps(failure(int(status), "ServiceUnavailable", "flapping")).encode())
            return
        self.close_connection = True
        if trouble == "hang":
            self.server.stopping.wait(60)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _send_log(self, log: _Log) -> None:
        if not log.follow:
            self._send(200, log.text(), "text/plain")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent, ended = 0, False
        while not ended and not self.server.stopping.is_set():
            ended = log.ended()  # before the file is read: what comes after is nothing
            new = log.text()[sent:]
            if new:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(new), new))
                self.wfile.flush()
            sent += len(new)
            time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")


@dataclass(frozen=True)
class _Log:
    """A pod's output, as it was asked for."""

    file: Path
    tail_lines: int | None
    timestamps: bool
    follow: bool
    ended: Callable[[], bool]

    def text(self) -> bytes:
        lines = self.file.read_bytes().splitlines(keepends=True)
        chosen = lines if self.tail_lines is None else lines[-self.tail_lines :]
        mark = b"1970-01-01T00:00:00Z " if self.timestamps else b""
        return b"".join(mark + line for line in chosen)


@dataclass(frozen=True)
class _Call:
    """One request that is allowed."""

    api: Api
    at: dict[str, str]
    query: dict[str, str]
    sent: Object

    def made(self, call: str) -> Object | _Log:
        """Do what `verb resource` says.

        Raises:
            RefusedError: there is no such thing, or it cannot be.
        """
        namespace = self.at["namespace"]
        if namespace and namespace not in self.api.namespaces:
            raise RefusedError(404, "NotFound", f'namespaces "{namespace}" not found')
        known: dict[str, Callable[[], Object | _Log]] = {
            "get namespaces": self._namespaces,
            "create jobs": self._create_job,
            "get jobs": self._one,
            "get jobs/status": self._one,
            "get pods": self._one,
            "get pods/log": self._log,
            "list jobs": self._list,
            "list pods": self._list,
            "list events": self._list,
            "patch jobs": self._patch_job,
            "delete jobs": self._delete,
            "delete pods": self._delete,
        }
        if call not in known or "watch" in self.query or "continue" in self.query:
            raise RefusedError(405, "MethodNotAllowed", f"{call} is none of the calls that are known here")
        return known[call]()

    def _namespaces(self) -> Object:
        things = [{"metadata": {"name": name}, "status": {"phase": "Active"}} for name in self.api.namespaces]
        if not self.at["namespace"]:
            return {"kind": "NamespaceList", "apiVersion": "v1", "metadata": {}, "items": things}
        return {"kind": "Namespace", "apiVersion": "v1", **things[self.api.namespaces.index(self.at["namespace"])]}

    def _list(self) -> Object:
        kind, version = _LISTS[self.at["kind"]]
        selectors = self.query.get("labelSelector", ""), self.query.get("fieldSelector", "")
        items = self.api.store.all(self.at["kind"], self.at["namespace"], *selectors)
        told = {"resourceVersion": self.api.store.version}
        return {"kind": kind, "apiVersion": version, "metadata": told, "items": items}

    def _one(self) -> Object:
        kind, version = _SINGLE[self.at["kind"]]
        return {"kind": kind, "apiVersion": version, **self._found()}

    def _found(self) -> Object:
        found = self.api.store.get(self.at["kind"], self.at["namespace"], self.at["name"])
        if found is None:
            group = ".batch" if self.at["kind"] == "jobs" else ""
            raise RefusedError(404, "NotFound", f'{self.at["kind"]}{group} "{self.at["name"]}" not found')
        return found

    def _create_job(self) -> Object:
        self.api.manifests.append(self.sent)
        wrong = _invalid(self.sent)
        if wrong:
            raise RefusedError(422, "Invalid", f'Job.batch "{self.sent["metadata"].get("name")}" is invalid: {wrong}')
        made = self.api.store.create("jobs", self.at["namespace"], _with_defaults(self.sent))
        if made is None:
            name = self.sent["metadata"]["name"]
            raise RefusedError(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        with self.api.store.changing("jobs", made) as kept:
            uid = {"batch.kubernetes.io/controller-uid": made["metadata"]["uid"]}
            assert kept is not None
            kept["spec"]["selector"] = {"matchLabels": uid}
            kept["spec"]["template"]["metadata"]["labels"].update(uid, **{"controller-uid": made["metadata"]["uid"]})
        return self._again("jobs", made)

    def _again(self, kind: str, thing: Object) -> Object:
        return self.api.store.get(kind, thing["metadata"]["namespace"], thing["metadata"]["name"]) or thing

    def _patch_job(self) -> Object:
        found = self._found()
        with self.api.store.changing("jobs", found) as kept:
            if kept is not None:
                _merge(kept, self.sent)
        return self._again("jobs", found)

    def _delete(self) -> Object:
        found = self._found()
        propagation = self.query.get("propagationPolicy") or self.sent.get("propagationPolicy") or ""
        self.api.control.delete(self.at["kind"], found, propagation)
        # jobs and pods answer differently: a job by a Status, a pod by itself
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return done if self.at["kind"] == "jobs" else {"kind": "Pod", "apiVersion": "v1", **found}

    def _log(self) -> _Log:
        pod = self._found()
        name, known = self.query.get("container"), [one["name"] for one in pod["spec"]["containers"]]
        if name and name not in known:
            raise RefusedError(400, "BadRequest", f"container {name} is not valid for pod {pod['metadata']['name']}")
        if pod["status"]["phase"] == "Pending" or not self.api.log_of(pod).exists():
            told = f'container "{known[0]}" in pod "{pod["metadata"]["name"]}" is waiting to start'
            raise RefusedError(400, "BadRequest", told)
        tail = self.query.get("tailLines")
        marks, follow = (self.query.get(name) in ("true", "True") for name in ("timestamps", "follow"))
        return _Log(self.api.log_of(pod), int(tail) if tail else None, marks, follow, lambda: self._ended(pod))

    def _ended(self, pod: Object) -> bool:
        now = self.api.store.get("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
        return now is None or pod_finished(now)


def _with_defaults(job: Object) -> Object:
    """A job with what the API server adds."""
    whole: Object = json.loads(json.dumps(job))
    whole["spec"] = {"backoffLimit": 6, "completions": 1, "parallelism": 1, **whole["spec"]}
    name = job["metadata"]["name"]
    metadata = whole["spec"]["template"].setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), "job-name": name, "batch.kubernetes.io/job-name": name}
    whole["status"] = {}
    return whole


def _invalid(job: Object) -> str:
    """What an API server would say against a job; empty: nothing."""
    try:
        assert_valid(job)
    except (AssertionError, kubernetes_validate.ValidationError) as error:
        return str(error)
    images = [container.get("image") for container in job["spec"]["template"]["spec"]["containers"]]
    return "" if all(images) else "spec.template.spec.containers[0].image: Required value"


def _merge(kept: Object, sent: Object) -> None:
    """A merge patch (RFC 7396), in place."""
    for name, value in sent.items():
        if value is None:
            kept.pop(name, None)
        elif isinstance(value, dict) and isinstance(kept.get(name), dict):
            _merge(kept[name], value)
        else:
            kept[name] = value
