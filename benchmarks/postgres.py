"""A Postgres of one's own for as long as it is needed: a fresh cluster in a temporary folder, on loopback.

Debian's package keeps its programs outside the path; they are looked for there too. Postgres refuses to run as root:
then it runs as the user `postgres`, or `nobody`.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEBIAN = Path("/usr/lib/postgresql")
USER, DATABASE = "dagster", "dagster"
STARTS_WITHIN_S = 60.0


@dataclass(frozen=True)
class Cluster:
    """A running Postgres and how to reach it."""

    port: int
    password: str
    host: str = "127.0.0.1"

    @property
    def environment(self) -> Mapping[str, str]:
        """What `deploy/dagster.yaml` reads."""
        return {
            "DAGSTER_PG_HOST": self.host,
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_USERNAME": USER,
            "DAGSTER_PG_PASSWORD": self.password,
            "DAGSTER_PG_DB": DATABASE,
        }

    @property
    def storage(self) -> dict[str, Any]:
        """The block `storage` of a dagster.yaml."""
        database = {
            "scheme": "postgresql+psycopg2",  # sqlalchemy 2.1 takes a bare "postgresql" for psycopg 3
            "hostname": self.host,
            "port": self.port,
            "username": USER,
            "password": self.password,
            "db_name": DATABASE,
        }
        return {"postgres": {"postgres_db": database}}


def programs() -> Path | None:
    """The folder of initdb and postgres, the newest there is; None without them."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    versions = [folder for folder in DEBIAN.glob("*/bin") if (folder / "initdb").exists()]
    return max(versions, key=lambda folder: float(folder.parent.name), default=None)


def missing() -> str:
    """Why no Postgres can be started here; empty where one can."""
    if programs() is None:
        return f"no initdb on the path or below {DEBIAN}: install the package postgresql"
    return ""


@contextmanager
def temporary_postgres() -> Iterator[Cluster]:
    """Start a cluster with one user and one database; it is stopped and removed when the block ends.

    Raises:
        FileNotFoundError: Postgres is not installed.
        RuntimeError: it did not start; its own words are in the message.
    """
    found = programs()
    if found is None:
        raise FileNotFoundError(missing())
    folder = Path(tempfile.mkdtemp(prefix="s2s-postgres-", dir="/tmp"))  # a socket's path is short: 107 bytes
    rights = _rights(folder)
    cluster = Cluster(_free_port(), secrets.token_urlsafe(16))
    try:
        _create(found, folder, cluster.password, rights)
        with _serving(found, folder, cluster, rights):
            _run(
                [found / "createdb", "--host", cluster.host, "--port", str(cluster.port), "--username", USER, DATABASE],
                {**os.environ, "PGPASSWORD": cluster.password},
                {},
            )
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rights(folder: Path) -> dict[str, Any]:
    """Who the server runs as; the folder becomes theirs."""
    if os.getuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _create(found: Path, folder: Path, password: str, rights: Mapping[str, Any]) -> None:
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password, "utf-8")
    if rights:
        os.chown(secret, rights["user"], rights["group"])
    words = [found / "initdb", "--pgdata", folder / "data", "--username", USER, "--pwfile", secret]
    _run([*words, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"], None, rights)


@contextmanager
def _serving(found: Path, folder: Path, cluster: Cluster, rights: Mapping[str, Any]) -> Iterator[None]:
    log = folder / "server.log"
    words = [found / "postgres", "-D", folder / "data", "-h", cluster.host, "-p", str(cluster.port), "-k", folder]
    with log.open("wb") as told:
        server = subprocess.Popen([str(word) for word in words], stdout=told, stderr=told, cwd=folder, **rights)
    try:
        _await(found, cluster, server, log)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # "fast": open connections are ended
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGQUIT)
            server.wait()


def _await(found: Path, cluster: Cluster, server: subprocess.Popen[bytes], log: Path) -> None:
    ready = [str(found / "pg_isready"), "--quiet", "--host", cluster.host, "--port", str(cluster.port)]
    until = time.monotonic() + STARTS_WITHIN_S
    while subprocess.run(ready, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"Postgres did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _run(words: list[Any], environment: Mapping[str, str] | None, rights: Mapping[str, Any]) -> None:
    ended = subprocess.run(
        [str(word) for word in words], env=environment, capture_output=True, text=True, cwd="/", check=False, **rights
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{Path(words[0]).name} failed: {ended.stderr.strip() or ended.stdout.strip()}")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
