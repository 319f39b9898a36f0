"""A real S3 server on loopback, for tests of what lies in an object store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from s3fs import S3FileSystem

from tests.faulty_server import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "loopback", "AWS_SECRET_ACCESS_KEY": "loopback", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve until the block ends; the environment points at the server as it does in production. Yields its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], **quiet)  # type: ignore[call-overload]
    before = dict(os.environ)
    os.environ.update(KEYS, AWS_ENDPOINT_URL=url)
    S3FileSystem.clear_instance_cache()  # those of another server are kept under the same name
    try:
        _await(url)
        yield url
    finally:
        server.kill()
        server.wait()
        os.environ.clear()
        os.environ.update(before)
        S3FileSystem.clear_instance_cache()


@contextmanager
def at_endpoint(url: str) -> Iterator[None]:
    """Let everything reach the object store by another address, such as a proxy's, until the block ends."""
    before = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = url
    S3FileSystem.clear_instance_cache()
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before
        S3FileSystem.clear_instance_cache()


def new_bucket(url: str) -> str:
    """Make an empty bucket; returns the URL of a prefix in it."""
    name = f"lake-{uuid.uuid4().hex}"
    httpx.put(f"{url}/{name}", trust_env=False).raise_for_status()
    return f"s3://{name}/deep/lake"


def _await(url: str) -> None:
    for _ in range(600):
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"nobody listens at {url}")
