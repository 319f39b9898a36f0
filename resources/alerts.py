"""Alerts: what is told, to whom, and how it gets there: a log, a webhook, a callable of one's own.

What belongs here is the message and its way. What is worth an alert is in `s2s_assets.alerts` and
`s2s_assets.freshness`. Nothing here raises into whoever has something to tell, and nothing secret leaves: the address
of a webhook is in an environment variable, texts are cut, and what looks like a credential is blacked out.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from resources.settings import Settings
from speech_mining.errors import SettingsError, SpeechMiningError

SCHEMA = 1
"""Of the JSON that a webhook is sent; a field may be added under the same number, none is taken away or changed."""
LONGEST_TEXT = 1_500
LONGEST_DETAIL = 500
LONGEST_WAIT_S = 10.0
"""What a receiver's Retry-After is cut to: the sensor that tells has a minute in all, and another tick comes."""

Kind = Literal["run_failed", "check_failed", "stale", "recovered"]
SEVERITIES: Mapping[Kind, str] = {
    "run_failed": "error",
    "check_failed": "error",
    "stale": "warning",
    "recovered": "info",
}


class AlertError(SpeechMiningError):
    """An alert that a receiver did not get."""


@dataclass(frozen=True)
class Alert:
    """Something that a person shall know."""

    kind: Kind
    subjects: tuple[str, ...]
    """What it is about: assets, a language's index, pairs; such as `deu/raw_audio` or `s2s_corpus deu-eng`."""
    text: str
    """One paragraph that says all, for whoever sees nothing else."""
    at: datetime
    url: str = ""
    """Where to look on, if the settings name the UI."""
    details: Mapping[str, str | int | float] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """As JSON: fields that stay, cut and without credentials; see docs/freshness.md."""
        told = asdict(self)
        details = {name: cut(value, LONGEST_DETAIL) for name, value in self.details.items()}
        return {
            **told,
            "schema": SCHEMA,
            "severity": SEVERITIES[self.kind],
            "subjects": [str(cut(subject, LONGEST_DETAIL)) for subject in self.subjects],
            "text": cut(self.text, LONGEST_TEXT),
            "at": self.at.astimezone(timezone.utc).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "details": details,
        }


class Hook(Protocol):
    """Somebody who is told. It may raise: that is logged, and stops neither the others nor a run."""

    def __call__(self, alert: Alert) -> None:
        """Tell it."""


@dataclass(frozen=True)
class Log:
    """Into a log."""

    logger: logging.Logger

    def __call__(self, alert: Alert) -> None:
        """One line, at the level of its severity."""
        body = alert.body()
        self.logger.log(getattr(logging, body["severity"].upper()), "%s: %s %s", body["kind"], body["text"], alert.url)


@dataclass(frozen=True)
class Webhook:
    """An HTTP POST of JSON to the address in an environment variable."""

    variable: str
    timeout_s: float = 5.0
    attempts: int = 4
    first_wait_s: float = 1.0

    def __call__(self, alert: Alert) -> None:
        """Send it; a receiver that is down or busy is asked again, one that refuses is not.

        Raises:
            AlertError: it did not arrive. The address is in no message.
        """
        import httpx
        import tenacity

        address = os.environ.get(self.variable, "")
        if not address.startswith(("https://", "http://")):
            raise AlertError(
                f"The environment variable {self.variable} holds no address.",
                expected="https://…, in the environment of the code location",
                fix=f"set {self.variable} there, or alerts.webhook to another name",
            )
        asked = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=self._wait_s,
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            with httpx.Client(timeout=self.timeout_s) as client:
                asked(_post, client, address, alert.body())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Not the error itself: httpx puts the address, which may be a secret, into it.
            raise AlertError(
                f"The webhook of {self.variable} did not take an alert: {_reason(error)}.",
                expected="an answer from 200 to 299",
                cause="the receiver is down, or the address is wrong or no longer valid",
                fix="try the address by hand; the alert itself is in the log of the sensor",
            ) from None

    def _wait_s(self, state: Any) -> float:
        error = state.outcome.exception()
        told = _retry_after_s(getattr(error, "response", None))
        doubled: float = self.first_wait_s * 2 ** (state.attempt_number - 1)
        return min(LONGEST_WAIT_S, doubled if told is None else told)


@dataclass(frozen=True)
class Alerts:
    """Everybody who is told."""

    hooks: Sequence[tuple[str, Hook]]
    """Name and hook."""
    logger: logging.Logger

    @classmethod
    def of(cls, settings: Settings, logger: logging.Logger) -> Alerts:
        """The hooks that the settings ask for."""
        asked = settings.alerts
        hooks: list[tuple[str, Hook]] = []
        if asked.log:
            hooks.append(("alerts.log", Log(logger)))
        if asked.webhook:
            limits = (asked.webhook_timeout_s, asked.webhook_attempts, asked.webhook_first_wait_s)
            hooks.append(("alerts.webhook", Webhook(asked.webhook, *limits)))
        if asked.hook:
            hooks.append(("alerts.hook", _Late(asked.hook)))
        return cls(hooks, logger)

    def tell(self, alert: Alert) -> bool:
        """Tell everybody; whether all of them took it. It never raises."""
        return all([self._took(name, hook, alert) for name, hook in self.hooks])

    def _took(self, name: str, hook: Hook, alert: Alert) -> bool:
        try:
            hook(alert)
        except Exception as error:  # a stranger's code, and an alert must never break what it tells of
            self.logger.error("%s failed: %s", name, cut(f"{type(error).__name__}: {error}", LONGEST_DETAIL))
            return False
        return True


@dataclass(frozen=True)
class _Late:
    """A callable that is imported when it is first called: a code location loads without it."""

    name: str

    def __call__(self, alert: Alert) -> None:
        load_hook(self.name)(alert)


def load_hook(name: str) -> Callable[[Alert], None]:
    """What `module:callable` names.

    Raises:
        SettingsError: there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"alerts.hook names {name}, which cannot be had: {error}.",
            expected="a module on the code location's path, and something in it that takes an Alert",
            fix="install the module where the code location runs, or correct alerts.hook",
        ) from None
    if not callable(found):
        raise SettingsError(f"alerts.hook names {name}, which cannot be called.", expected="something to call")
    return found  # type: ignore[no-any-return]


def cut(value: str | int | float, longest: int) -> str | int | float:
    """A text without credentials, and no longer than that; numbers as they are."""
    if not isinstance(value, str):
        return value
    plain = without_secrets(value)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(r"(https?://[^\s?#]+)[?#]\S+")
_NAMED = re.compile(
    r"(?i)\b([a-z0-9_-]*(?:password|passwd|secret|token|api_?key|access_?key|authorization))(\s*[=:]\s*)\S+"
)
_SECRET_NAME = re.compile(r"(?i)password|passwd|secret|token|key|credential|webhook|dsn|_pg_")
SHORTEST_SECRET = 6
"""Values of variables that are shorter are words, and would be blacked out of any text."""


def without_secrets(text: str) -> str:
    """A text in which what looks like a credential is blacked out.

    That is: the user of an address, the query of one (signed links), whatever follows `password=` and the like, and
    the value of every environment variable whose name says that it is a secret.
    """
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    text = _CREDENTIALS.sub("***@", text)
    text = _QUERY.sub(r"\1?***", text)
    return _NAMED.sub(r"\1\2***", text)


def _post(client: Any, address: str, body: Mapping[str, Any]) -> None:
    answer = client.post(address, content=json.dumps(body), headers={"Content-Type": "application/json"})
    answer.raise_for_status()


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt may help: no connection, no answer in time, too many requests, a fault of the server."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 425, 429) or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _retry_after_s(response: Any) -> float | None:
    """Seconds that an answer asks for, in numbers or as a date; None where it asks for nothing that can be read."""
    told = "" if response is None else response.headers.get("Retry-After", "")
    if told.isdigit():
        return float(told)
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return None


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"status {response.status_code}"
