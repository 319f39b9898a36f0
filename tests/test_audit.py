import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.audit import audit, verdict_of

UV = Path(sys.executable).with_name("uv")
NEEDS_UV = pytest.mark.skipif(not UV.exists(), reason="`make` installs uv beside Python")
SOUND = {"name": "numpy", "version": "2.4.0", "vulns": []}
BROKEN = {"name": "jinja2", "version": "2.4", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.11.3"]}]}
UNKNOWN = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}


def test_an_advisory_fails_the_audit_and_tells_what_mends_it() -> None:
    verdict = verdict_of({"dependencies": [SOUND, BROKEN]})
    assert verdict.code == 1
    assert verdict.lines == (
        "jinja2 2.4: PYSEC-1, mended in 2.11.3",
        "audit: 1 known vulnerabilities in 2 packages",
    )


def test_a_service_that_knows_no_package_is_a_skip_and_no_pass() -> None:
    verdict = verdict_of({"dependencies": [UNKNOWN, UNKNOWN]})
    assert verdict.code == 0
    assert "SKIPPED, the service knows none of 2 packages" in verdict.lines[0]
    assert "Not audited: all of constraints.txt" in verdict.lines[0]


def test_packages_that_the_service_does_not_know_are_named() -> None:
    verdict = verdict_of({"dependencies": [SOUND, UNKNOWN]})
    assert verdict.code == 0
    assert verdict.lines[0] == "audit: 1 packages were not audited: ours"


class _Advisories(BaseHTTPRequestHandler):
    """The API of osv.dev, which knows one advisory, of jinja2."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found: dict[str, Any] = {}
        if asked["package"]["name"] == "jinja2":
            fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.11.3"}]}
            affected = [{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "ranges": [fixed]}]
            found = {"vulns": [{"id": "PYSEC-1", "summary": "bad", "affected": affected}]}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def advisories() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Advisories)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
@NEEDS_UV
def test_pip_audit_itself_is_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("jinja2==2.4\nnumpy==2.4.0\nspam==1.0 ; python_version < '3'\n", "utf-8")
    with advisories() as url:
        verdict = audit(pinned, ["--vulnerability-service", "osv", "--osv-url", url])
    if "wrote no report" in verdict.lines[0]:
        pytest.skip(f"pip-audit cannot be had here: {verdict.lines[0]}")
    assert verdict.code == 1
    assert verdict.lines[0] == "jinja2 2.4: PYSEC-1, mended in 2.11.3"
    assert "in 2 packages" in verdict.lines[-1]


@pytest.mark.slow
@NEEDS_UV
def test_a_service_out_of_reach_is_a_skip(tmp_path: Path) -> None:
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("numpy==2.4.0\n", "utf-8")
    verdict = audit(pinned, ["--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9/", "--timeout", "1"])
    assert verdict.code == 0
    assert "SKIPPED" in verdict.lines[0]
