"""What etcd holds: every object by kind, namespace and name. A change gives a new resourceVersion."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kubernetes.objects import Object, selected, stamp


class Store:
    """Objects in memory; what is handed out is a copy, changes are made inside `changing`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._version = 0

    def create(self, kind: str, namespace: str, body: Object) -> Object | None:
        """Keep a new object; None where one of its name is there."""
        name = body["metadata"]["name"]
        with self.lock:
            if (kind, namespace, name) in self._objects:
                return None
            new = copy.deepcopy(body)
            made = {"uid": str(uuid.uuid4()), "creationTimestamp": stamp(time.time()), "namespace": namespace}
            new["metadata"].update(made)
            self._objects[kind, namespace, name] = new
            self._renew(new)
            return copy.deepcopy(new)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """A copy of one object."""
        with self.lock:
            return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def all(self, kind: str, namespace: str = "", label_selector: str = "", field_selector: str = "") -> list[Object]:
        """Copies of the objects of a kind that meet the selectors, in the order they came; no namespace: of all."""
        with self.lock:
            found = [
                thing
                for (known, inside, _), thing in self._objects.items()
                if known == kind and namespace in ("", inside) and selected(thing, label_selector, field_selector)
            ]
            return copy.deepcopy(found)

    @property
    def uids(self) -> set[str]:
        """Of everything that is there."""
        with self.lock:
            return {thing["metadata"]["uid"] for thing in self._objects.values()}

    @contextmanager
    def changing(self, kind: str, thing: Object) -> Iterator[Object | None]:
        """The object itself, to be changed while nobody else reads it; None where it is gone or another's by now."""
        at = (kind, thing["metadata"]["namespace"], thing["metadata"]["name"])
        with self.lock:
            kept = self._objects.get(at)
            same = kept if kept and kept["metadata"]["uid"] == thing["metadata"]["uid"] else None
            yield same
            if same:
                self._renew(same)

    def remove(self, kind: str, thing: Object) -> None:
        """Forget an object."""
        with self.lock:
            self._objects.pop((kind, thing["metadata"]["namespace"], thing["metadata"]["name"]), None)

    @property
    def version(self) -> str:
        """Of the whole store, as lists tell it."""
        return str(self._version)

    def _renew(self, thing: Object) -> None:
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)
