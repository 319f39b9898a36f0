"""Alerts: what a receiver gets, what it never gets, and how often. A real server on loopback, real runs that fail."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import httpx
import pytest

from partitions.batches import Batch
from resources.alerts import LONGEST_WAIT_S, Alert, AlertError, Alerts, Webhook, load_hook, without_secrets
from resources.settings import Settings, load_settings
from s2s_assets.alerts import alert_sensors
from speech_mining.errors import DownloadError, SettingsError
from tests.post_server import PostServer

BEGIN = datetime(2026, 1, 5, 12, tzinfo=timezone.utc)
HEARD: list[Alert] = []
PLAIN = Alert("stale", ("deu/speech_index",), "1 of 4 is older than it may be.", BEGIN, details={"days": 15.2})


def hear(alert: Alert) -> None:
    HEARD.append(alert)


def fall_over(alert: Alert) -> None:
    raise KeyError("no such pager")


@pytest.fixture
def server() -> Iterator[PostServer]:
    with PostServer() as made:
        yield made


@pytest.fixture
def webhook(server: PostServer, monkeypatch: pytest.MonkeyPatch) -> Webhook:
    monkeypatch.setenv("OUR_RECEIVER", f"{server.url}/services/T0/s3cr3t-path")
    return Webhook("OUR_RECEIVER", timeout_s=0.3, attempts=3, first_wait_s=0.0)


def test_a_webhook_gets_the_documented_fields(server: PostServer, webhook: Webhook) -> None:
    webhook(PLAIN)
    (body,) = server.bodies
    host = body.pop("host")
    assert isinstance(host, str)
    assert body == {
        "schema": 1,
        "kind": "stale",
        "severity": "warning",
        "subjects": ["deu/speech_index"],
        "text": "1 of 4 is older than it may be.",
        "at": "2026-01-05T12:00:00+00:00",
        "url": "",
        "details": {"days": 15.2},
    }


@pytest.mark.parametrize("faults", [[500], [503, 502], [429], ["slow"], ["hang up"]])
def test_a_receiver_that_is_down_busy_or_slow_is_asked_again(
    server: PostServer, webhook: Webhook, faults: list[int | str]
) -> None:
    server.faults = list(faults)
    webhook(PLAIN)
    assert len(server.asked) == len(faults) + 1
    assert server.bodies[-1]["kind"] == "stale"


def test_one_that_is_down_for_good_is_given_up_after_so_many_requests(server: PostServer, webhook: Webhook) -> None:
    server.faults = [500] * 10
    with pytest.raises(AlertError, match="status 500"):
        webhook(PLAIN)
    assert len(server.asked) == 3


def test_one_that_refuses_is_asked_once(server: PostServer, webhook: Webhook) -> None:
    server.faults = [404]
    with pytest.raises(AlertError, match="status 404"):
        webhook(PLAIN)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("2", 2.0), ("Mon, 05 Jan 2026 12:00:00 GMT", 0.0), ("86400", LONGEST_WAIT_S), ("soon", 4.0), ("", 4.0)],
)
def test_a_busy_receiver_says_how_long_to_wait_and_is_believed_up_to_a_limit(told: str, seconds: float) -> None:
    request = httpx.Request("POST", "http://receiver")
    answer = httpx.Response(429, headers={"Retry-After": told} if told else {}, request=request)
    state = SimpleNamespace(attempt_number=3, outcome=Future())
    state.outcome.set_exception(httpx.HTTPStatusError("busy", request=request, response=answer))
    assert Webhook("OUR_RECEIVER", first_wait_s=1.0)._wait_s(state) == seconds


def test_the_address_of_a_webhook_is_in_no_error_and_no_log(
    server: PostServer, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults = [500] * 10
    alerts = Alerts([("alerts.webhook", webhook)], logging.getLogger("tests"))
    assert not alerts.tell(PLAIN)
    monkeypatch.setenv("OUR_RECEIVER", "http://127.0.0.1:1/s3cr3t-path")
    assert not alerts.tell(PLAIN)
    monkeypatch.setenv("OUR_RECEIVER", "s3cr3t-path")
    assert not alerts.tell(PLAIN)
    assert "OUR_RECEIVER" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_an_address_in_the_settings_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="name of an environment variable") as error:
        load_settings(home=tmp_path, alerts={"webhook": "https://hooks.example.org/s3cr3t"})
    assert "s3cr3t" not in str(error.value)


def test_a_hook_that_raises_stops_neither_the_others_nor_the_run(tmp_path: Path) -> None:
    HEARD.clear()
    settings = load_settings(home=tmp_path, alerts={"hook": "tests.test_alerts:fall_over"})
    alerts = Alerts.of(settings, logging.getLogger("tests"))
    assert [name for name, _ in alerts.hooks] == ["alerts.log", "alerts.hook"]
    assert not alerts.tell(PLAIN)
    assert Alerts([*alerts.hooks, ("last", hear)], alerts.logger).tell(PLAIN) is False
    assert HEARD == [PLAIN]


@pytest.mark.parametrize("name", ["no_such_module:f", "tests.test_alerts:nobody", "tests.test_alerts:BEGIN"])
def test_a_hook_that_is_not_there_says_what_to_do(name: str) -> None:
    with pytest.raises(SettingsError, match=r"alerts\.hook names"):
        load_hook(name)


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ("GET https://me:pw@a.org/x failed", "GET https://***@a.org/x failed"),
        ("https://a.org/x?X-Amz-Signature=abc&z=1 gone", "https://a.org/x?*** gone"),
        ("password=hunter22 for db", "password=*** for db"),
        ("AWS_SECRET_ACCESS_KEY: abcdef", "AWS_SECRET_ACCESS_KEY: ***"),
        ("the key 0123456789abc is known", "the key *** is known"),
        ("3 of 50 audiobooks failed: 12, 15", "3 of 50 audiobooks failed: 12, 15"),
    ],
)
def test_credentials_are_blacked_out(told: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_API_KEY", "0123456789abc")
    assert without_secrets(told) == left


def test_long_texts_are_cut(server: PostServer, webhook: Webhook) -> None:
    webhook(Alert("run_failed", ("x",), "a" * 100_000, BEGIN, details={"trace": "b" * 100_000}))
    assert len(json.dumps(server.bodies[0])) < 4000


@dataclass
class House:
    """Runs on a real instance, and the sensors that follow them."""

    instance: dg.DagsterInstance
    settings: Settings
    day: float = 0.0
    broken: set[str] = field(default_factory=set)
    """Assets and checks that fail now."""

    def run(
        self, partition: str | None = None, *, books: tuple[str, str] | None = None, **config: Any
    ) -> dg.DagsterRun:
        """Run all of it, and let the sensors hear of it; the run as it ended."""
        tags = {}
        if books:
            tags = Batch(*books, books).tags
        job = self.definitions().resolve_job_def("raw" if books else "pair")
        result = job.execute_in_process(
            instance=self.instance, partition_key=partition, tags=tags, raise_on_error=False, run_config=config or None
        )
        failure, recovery = alert_sensors(self.settings, clock=lambda: BEGIN + timedelta(days=self.day))
        event = result.get_run_success_event() if result.success else result.get_run_failure_event()
        context = dg.build_run_status_sensor_context(
            sensor_name="tests", dagster_instance=self.instance, dagster_run=result.dagster_run, dagster_event=event
        )
        sensor, told = (recovery, context) if result.success else (failure, context.for_run_failure())
        sensor(told)
        return result.dagster_run

    def definitions(self) -> dg.Definitions:
        broken = self.broken
        books = dg.StaticPartitionsDefinition(["1", "2", "3"])
        pairs = dg.StaticPartitionsDefinition(["deu-eng", "deu-fra"])

        @dg.asset(key=["deu", "raw_audio"], partitions_def=books, backfill_policy=dg.BackfillPolicy.multi_run(50))
        def raw_audio() -> None:
            if "raw_audio" in broken:
                raise DownloadError("https://u:pw@archive.org/7?sig=abc answers 503.", reason="server_error")

        @dg.asset(partitions_def=pairs, config_schema={"threshold": dg.Field(float, is_required=False)})
        def s2s_corpus() -> None:
            pass

        @dg.asset_check(asset="s2s_corpus", partitions_def=pairs, blocking=True)
        def no_overlap() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed="no_overlap" not in broken, description="3 pairs overlap")

        return dg.Definitions(
            assets=[raw_audio, s2s_corpus],
            asset_checks=[no_overlap],
            jobs=[dg.define_asset_job("raw", "deu/raw_audio"), dg.define_asset_job("pair", "s2s_corpus")],
        )

    def heard(self) -> list[tuple[str, tuple[str, ...]]]:
        told = [(alert.kind, alert.subjects) for alert in HEARD]
        HEARD.clear()
        return told


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    HEARD.clear()
    settings = load_settings(
        home=tmp_path, alerts={"hook": "tests.test_alerts:hear", "log": False, "ui_url": "http://127.0.0.1:3000/"}
    )
    with dg.DagsterInstance.ephemeral() as instance:
        yield House(instance, settings)


def test_a_run_that_fails_is_told_with_what_it_was_at_and_without_its_credentials(house: House) -> None:
    house.broken = {"raw_audio"}
    run = house.run(books=("1", "3"))
    (alert,) = HEARD
    body = alert.body()
    assert (body["kind"], body["severity"], body["subjects"]) == ("run_failed", "error", ["deu/raw_audio"])
    assert "https://***@archive.org/7?*** answers 503." in body["text"]
    assert body["details"] == {"run_id": run.run_id, "partitions": "1 to 3", "failures_since": 0}
    assert body["url"] == f"http://127.0.0.1:3000/runs/{run.run_id}"
    assert "pw" not in json.dumps(body) and "Traceback" not in json.dumps(body)


def test_a_server_that_is_down_is_one_alert_a_day_and_one_when_it_is_back(house: House) -> None:
    house.broken = {"raw_audio"}
    for _ in range(4):
        house.run(books=("1", "3"))
    assert house.heard() == [("run_failed", ("deu/raw_audio",))]
    house.day = 1
    house.run(books=("2", "3"))
    assert "It failed 3 times more since" in HEARD[0].text
    assert house.heard() == [("run_failed", ("deu/raw_audio",))]
    house.broken = set()
    house.run(books=("1", "2"))
    house.run(books=("3", "3"))
    assert house.heard() == [("recovered", ("deu/raw_audio",))]


def test_one_that_comes_and_goes_does_not_alert_at_every_turn(house: House) -> None:
    for broken in ({"raw_audio"}, set(), {"raw_audio"}, {"raw_audio"}):
        house.broken = set(broken)
        house.run(books=("1", "3"))
    assert house.heard() == [("run_failed", ("deu/raw_audio",)), ("recovered", ("deu/raw_audio",))]


def test_a_blocking_check_is_told_as_such_and_of_its_pair_only(house: House) -> None:
    house.broken = {"no_overlap"}
    house.run("deu-eng")
    (alert,) = HEARD
    assert alert.text == "s2s_corpus deu-eng failed: check no_overlap failed: 3 pairs overlap"
    assert house.heard() == [("check_failed", ("s2s_corpus deu-eng",))]
    house.run("deu-fra")
    assert house.heard() == [("check_failed", ("s2s_corpus deu-fra",))]
    house.broken = set()
    house.run("deu-eng")
    assert house.heard() == [("recovered", ("s2s_corpus deu-eng",))]


def test_the_config_of_a_run_is_never_told(house: House) -> None:
    house.broken = {"no_overlap"}
    house.run("deu-eng", ops={"s2s_corpus": {"config": {"threshold": 1.234567}}})
    assert "1.234567" not in json.dumps(HEARD[0].body())


def test_a_run_that_goes_well_after_one_that_did_says_nothing(house: House) -> None:
    house.run("deu-eng")
    house.run(books=("1", "3"))
    assert house.heard() == []


def test_what_is_known_outlives_the_process(house: House) -> None:
    """It is in the instance's storage, not in the sensor."""
    from s2s_assets.alerts import Known

    house.broken = {"raw_audio"}
    house.run(books=("1", "3"))
    known = Known.read(house.instance, "deu/raw_audio")
    assert (known.failing, known.told_at) == (True, BEGIN.isoformat())
