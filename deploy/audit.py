"""`make audit`: every pinned dependency against the published vulnerabilities, by a pip-audit in its own environment.

pip-audit says "no known vulnerabilities found" and ends well where its service answers for no package at all, as a
mirror of the package index does that has files and no advisories: 269 of 269 passed over, measured. So its report is
read here. Nothing audited is a skip, told as one; an advisory is a failure.

Arguments go on to pip-audit: `python deploy/audit.py --vulnerability-service osv`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIP_AUDIT = "pip-audit==2.10.1"
CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
SHOWN = 10


@dataclass(frozen=True)
class Verdict:
    """What to print, and how the command ends."""

    lines: tuple[str, ...]
    code: int


def verdict_of(report: Mapping[str, Any]) -> Verdict:
    """Read pip-audit's report: its `dependencies` have `vulns`, or a `skip_reason`."""
    dependencies = report["dependencies"]
    audited = [one for one in dependencies if "skip_reason" not in one]
    passed_over = sorted(one["name"] for one in dependencies if "skip_reason" in one)
    found = [(one, vulnerability) for one in audited for vulnerability in one.get("vulns", [])]
    lines = [_line(one, vulnerability) for one, vulnerability in found]
    if not audited:
        return skipped(f"the service knows none of {len(dependencies)} packages")
    if passed_over:
        lines.append(f"audit: {len(passed_over)} packages were not audited: {_some(passed_over)}")
    lines.append(f"audit: {len(found)} known vulnerabilities in {len(audited)} packages")
    return Verdict(tuple(lines), 1 if found else 0)


def skipped(reason: str) -> Verdict:
    """Nothing was audited, and nobody may take it for a pass."""
    return Verdict(
        (f"audit: SKIPPED, {reason}. Not audited: all of {CONSTRAINTS.name}. Run it where the service is reached.",), 0
    )


def _line(dependency: Mapping[str, Any], vulnerability: Mapping[str, Any]) -> str:
    mended = ", ".join(vulnerability.get("fix_versions", [])) or "no release yet"
    return f"{dependency['name']} {dependency['version']}: {vulnerability['id']}, mended in {mended}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def audit(requirements: Path, options: Sequence[str]) -> Verdict:
    """Audit a file of pinned requirements."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *(str(Path(sys.executable).with_name("uv")), "tool", "run", "--from", PIP_AUDIT, "pip-audit"),
            *("--requirement", str(requirements), "--no-deps", "--disable-pip", "--progress-spinner", "off"),
            *("--format", "json", "--output", str(report), *options),
        ]
        own = {**os.environ, "UV_TOOL_DIR": str(Path(folder) / "tools")}
        told = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
        if not report.is_file():  # it ends with 1 for an advisory and for a service out of reach, but writes only then
            reason = (told.stderr.strip().splitlines() or ["no reason given"])[-1]
            return skipped(f"pip-audit wrote no report ({reason})")
        return verdict_of(json.loads(report.read_text("utf-8")))


def main() -> int:
    """Audit our constraints, and tell."""
    verdict = audit(CONSTRAINTS, sys.argv[1:])
    print("\n".join(verdict.lines))
    return verdict.code


if __name__ == "__main__":
    sys.exit(main())
