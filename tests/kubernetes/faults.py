"""What goes wrong, on demand or by a seed: requests that fail, pods that die, images that cannot be had."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from tests.kubernetes.objects import Object, labels

Blow = Literal["oom", "evict", "drain", "crash"]
"""Killed for memory; killed by a node that runs out of it (the pod stays, Failed); removed with its pod; SIGKILL."""

Trouble = Literal["500", "503", "401", "reset", "hang", "done, 504", "done, cut"]
"""A status; a connection that is cut; one that is held open; a request that is done all the same."""


@dataclass(frozen=True)
class Strike:
    """What befalls a pod of a step, or of a run."""

    step: str
    """Regular expression of the step's key; `run` for a run's own pod."""
    blow: Blow
    when_log_has: str = ""
    """The pod is struck once its log holds this; empty: once it runs."""
    times: int = 1


@dataclass(frozen=True)
class Weather:
    """A share of all requests that fails, drawn by a seed."""

    share: float
    seed: int
    troubles: tuple[Trouble, ...] = ("503", "reset")


@dataclass
class Faults:
    """What is planned; thread-safe."""

    strikes: list[Strike] = field(default_factory=list)
    unpullable: set[str] = field(default_factory=set)
    """Images that cannot be pulled until they are taken out again."""
    slow_s: float = 0.0
    """How long every request waits before it is answered."""
    struck: list[tuple[str, Blow]] = field(default_factory=list)
    """Pods that were struck, and how."""
    _planned: list[tuple[re.Pattern[str], Trouble]] = field(default_factory=list)
    _weather: Weather | None = None
    _chance: Random = field(default_factory=Random)
    _met: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_requests(self, call: str, troubles: Iterable[Trouble]) -> None:
        """Let the next requests whose `VERB resource NAME` matches meet these, one after the other."""
        with self._lock:
            self._planned.extend((re.compile(call), trouble) for trouble in troubles)

    def weather(self, weather: Weather | None) -> None:
        """From now on a share of all requests fails; None: no more."""
        with self._lock:
            self._weather = weather
            self._chance = Random(weather.seed if weather else 0)

    @property
    def planned(self) -> int:
        """Planned troubles that no request has met yet."""
        return len(self._planned)

    def of_request(self, call: str) -> Trouble | None:
        """What the request `call`, such as `create jobs` or `get pods NAME`, meets."""
        with self._lock:
            for at, (pattern, trouble) in enumerate(self._planned):
                if pattern.fullmatch(call):
                    del self._planned[at]
                    return trouble
            if self._weather and self._chance.random() < self._weather.share:
                return self._chance.choice(self._weather.troubles)
            return None

    def of_pod(self, pod: Object, log: str) -> Blow | None:
        """What befalls a pod that runs and has written so much; one thing, once."""
        step = step_of(pod)
        with self._lock:
            if any(name == pod["metadata"]["name"] for name, _ in self.struck):
                return None
            for strike in self.strikes:
                met = self._met.get(id(strike), 0)
                if met < strike.times and re.fullmatch(strike.step, step) and strike.when_log_has in log:
                    self._met[id(strike)] = met + 1
                    self.struck.append((pod["metadata"]["name"], strike.blow))
                    return strike.blow
            return None


def step_of(pod: Object) -> str:
    """Key of the step that a pod runs; `run` for a run's own pod."""
    known = labels(pod)
    return "run" if known.get("app.kubernetes.io/component") == "run_worker" else known.get("dagster/op", "")
