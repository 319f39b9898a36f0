"""Dagster's own processes on loopback: the webserver, the daemon, the code server; questions to them, their memory.

What belongs here is starting, asking and looking; what is asked and what it must cost is in `benchmarks.scale`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.synthetic_library import Size

MODULE = "s2s_assets.definitions"
QUERIES = Path(__file__).parent / "queries"
STARTS_WITHIN_S = 300.0
DAGSTER_YAML: Mapping[str, Any] = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
    # what is asked for is queued and never begun: the cost of asking is measured, not that of running
    "concurrency": {"runs": {"max_concurrent_runs": 0}},
}


@dataclass(frozen=True)
class Home:
    """A lake, a Dagster instance, and the settings of a library of some size."""

    folder: Path
    size: Size

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME."""
        return self.folder / "dagster"

    @property
    def environment(self) -> dict[str, str]:
        """Of every process that works on it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("S2S_", "DAGSTER_"))}
        return kept | {
            "S2S_HOME": str(self.folder),
            "DAGSTER_HOME": str(self.dagster),
            "S2S_CATALOGUE_URL": "https://librivox.org",
            "S2S_LANGUAGES": ",".join(self.size.codes),
            "S2S_SPEECH_PAIRS": ",".join(self.size.mined),
        }

    def prepare(self, storage: Mapping[str, Any] | None = None) -> None:
        """Make the folders and dagster.yaml; `storage` names a database other than SQLite."""
        self.dagster.mkdir(parents=True, exist_ok=True)
        told = {**DAGSTER_YAML, **({"storage": dict(storage)} if storage else {})}
        (self.dagster / "dagster.yaml").write_text(yaml.safe_dump(told), "utf-8")


@dataclass(frozen=True)
class Process:
    """A process of Dagster's and everything it started."""

    name: str
    pid: int
    port: int = 0

    def processor_s(self) -> float:
        """Processor seconds that the tree has used so far."""
        return sum(_used_s(pid) for pid in _tree(self.pid))

    def memory_mb(self) -> dict[str, float]:
        """What each process of the tree holds in memory, resident, in 10⁶ bytes, by what it is."""
        held: dict[str, float] = {}
        for pid in _tree(self.pid):
            name = _role(pid)
            if name:
                held[name] = held.get(name, 0.0) + _resident_mb(pid)
        return held


@dataclass(frozen=True)
class Webserver(Process):
    """A webserver that answers."""

    @property
    def address(self) -> str:
        """Where its UI is."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, query: str, variables: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
        """Put a question to GraphQL; returns the seconds it took, as a client sees them, and the answer.

        Raises:
            RuntimeError: the answer is an error, or holds one.
        """
        began = time.perf_counter()
        answer = httpx.post(f"{self.address}/graphql", json={"query": query, "variables": variables}, timeout=600)
        told: dict[str, Any] = answer.json()
        seconds = time.perf_counter() - began
        if "errors" in told:
            raise RuntimeError(f"GraphQL: {told['errors'][0]['message']}")
        _refuse_errors(told["data"])
        return seconds, told["data"]


def query(name: str) -> str:
    """The text of a question of `benchmarks/queries`."""
    return (QUERIES / f"{name}.graphql").read_text("utf-8")


def _refuse_errors(answer: Any) -> None:
    """An error of the union that a field may answer with is an answer to GraphQL, and none to us."""
    fields = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    if isinstance(answer, dict) and str(answer.get("__typename", "")).endswith("Error"):
        raise RuntimeError(f"GraphQL answered {answer}")
    for field in fields:
        _refuse_errors(field)


@contextmanager
def webserver(home: Home) -> Iterator[Webserver]:
    """Serve the UI and GraphQL of a home, until the block ends."""
    port = _free_port()
    words = ["dagster_webserver", "--module-name", MODULE, "--host", "127.0.0.1", "--port", str(port)]
    with _running(home, words, "webserver") as pid:
        served = Webserver("webserver", pid, port)
        _await(served, home.folder / "webserver.log")
        yield served


@contextmanager
def daemon(home: Home) -> Iterator[Process]:
    """Run the daemon of a home, until the block ends."""
    with _running(home, ["dagster._daemon", "run", "--module-name", MODULE], "daemon") as pid:
        yield Process("daemon", pid)


@contextmanager
def _running(home: Home, module: list[str], name: str) -> Iterator[int]:
    with (home.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env=home.environment,
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started; these are in its session."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _await(served: Webserver, log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            served.ask(query("version"), {})
            return
        except (httpx.HTTPError, ValueError):
            if time.monotonic() > until or not Path(f"/proc/{served.pid}").exists():
                raise RuntimeError(f"no webserver: {log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.2)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in _text(task).split()]
    return found


def _role(pid: int) -> str:
    words = _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")
    if "resource_tracker" in words or not words:
        return ""
    if "api grpc" in words:
        return "code server"
    return "daemon" if "dagster._daemon" in words else "webserver" if "dagster_webserver" in words else "other"


def _resident_mb(pid: int) -> float:
    lines = _text(Path(f"/proc/{pid}/status")).splitlines()
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS"))


def _used_s(pid: int) -> float:
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it ended while we looked
        return ""


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
