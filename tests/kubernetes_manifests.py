"""Kubernetes' manifests held against the official JSON schema, and against what an API server checks beside it.

The schema comes from the package kubernetes-validate, so no cluster and no network is needed. It says nothing of names
that must agree, of amounts that must not exceed their limits, nor of how a label may be spelled: `refusals` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

RELEASES = ("1.30", "1.37")
"""The oldest release of Kubernetes that we look at, and the newest whose schema the package has."""

Manifest = dict[str, Any]
_LABEL = re.compile(r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")
_NAME = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)(m|k|[KMGTP]i?)?$")
_POWERS = {"": 1.0, "m": 1e-3, "k": 1e3}
_POWERS |= {letter: 1000.0**power for power, letter in enumerate("KMGTP", 1)}
_POWERS |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", 1)}


def assert_valid(manifest: Manifest) -> None:
    """Raise what the schema or an API server would say against a manifest, in the spelling of the API (camelCase)."""
    for release in RELEASES:
        kubernetes_validate.validate(manifest, release, strict=True)
    found = list(refusals(manifest))
    if found:
        raise AssertionError("; ".join(found))


def manifests_of(path: Path) -> list[Manifest]:
    """Every manifest of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def sent(model: Any) -> Manifest:
    """A model of the `kubernetes` client as it goes over the wire."""
    from kubernetes.client import ApiClient

    manifest: Manifest = ApiClient().sanitize_for_serialization(model)
    return manifest


def amount(quantity: str) -> float:
    """A quantity as a number: 500m is 0.5, 1Ki is 1024."""
    found = _QUANTITY.match(str(quantity))
    if not found:
        raise ValueError(f"{quantity!r} is no quantity")
    return float(found[1]) * _POWERS[found[2] or ""]


def refusals(manifest: Manifest) -> Iterator[str]:
    """What an API server refuses although the schema lets it pass."""
    yield from _metadata(manifest.get("metadata", {}))
    spec = manifest.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template") or {}
    pod = template.get("spec") if template else spec if manifest["kind"] == "Pod" else None
    if pod is None:
        return
    yield from _metadata({"name": "template", **template.get("metadata", {})})
    volumes = [volume["name"] for volume in pod.get("volumes") or []]
    yield from (f"two volumes are named {name}" for name in sorted({one for one in volumes if volumes.count(one) > 1}))
    for container in pod.get("containers") or []:
        yield from _container(container, set(volumes))
    for one in pod.get("tolerations") or []:
        if one.get("operator") == "Exists" and one.get("value"):
            yield f"the toleration of {one.get('key')} has a value, and its operator is Exists"
    if manifest["kind"] == "Job" and pod.get("restartPolicy") not in {"Never", "OnFailure"}:
        yield "a Job's pods restart never or on failure"


def _metadata(metadata: Manifest) -> Iterator[str]:
    if not _NAME.match(metadata.get("name") or metadata.get("generateName", "").rstrip("-")):
        yield f"the name {metadata.get('name')!r} is not one of DNS"
    for label, value in (metadata.get("labels") or {}).items():
        if not _LABEL.match(value) or not _LABEL.match(label.rpartition("/")[2]):
            yield f"the label {label}={value} is spelled as none may be"


def _container(container: Manifest, volumes: set[str]) -> Iterator[str]:
    name = container["name"]
    mounts = container.get("volumeMounts") or []
    yield from (f"{name} mounts {one['name']}, which is no volume" for one in mounts if one["name"] not in volumes)
    paths = [one["mountPath"] for one in mounts]
    yield from (f"{name} mounts two volumes at {path}" for path in sorted({p for p in paths if paths.count(p) > 1}))
    names = [one["name"] for one in container.get("env") or []]
    yield from (f"{name} is told {one} twice" for one in sorted({n for n in names if names.count(n) > 1}))
    asked = container.get("resources") or {}
    requests, limits = asked.get("requests") or {}, asked.get("limits") or {}
    for resource, quantity in requests.items():
        if resource in limits and amount(quantity) > amount(limits[resource]):
            yield f"{name} requests {quantity} {resource}, above its limit {limits[resource]}"
    for resource, quantity in limits.items():
        if "/" in resource and (amount(quantity) % 1 or requests.get(resource, quantity) != quantity):
            yield f"{name} asks for {quantity} {resource}: devices are whole, and requested as limited"
