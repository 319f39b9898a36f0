from __future__ import annotations

import email.utils
import hashlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speech_mining import __version__
from speech_mining.errors import DownloadError, SettingsError
from speech_mining.sources.client import ClientConfig, PoliteClient
from speech_mining.sources.downloads import Downloaded, FileFacts, Told, archive_file_facts, download_recording
from speech_mining.sources.mirrors import Mirrors
from tests.faulty_server import Answer, FaultyServer, faulty_server, free_port

SOUND = b"ID3\x04" + bytes(range(256)) * 1200  # 307 204 bytes
FACTS = FileFacts(len(SOUND), hashlib.md5(SOUND).hexdigest(), hashlib.sha1(SOUND).hexdigest())
SHA256 = hashlib.sha256(SOUND).hexdigest()


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as serving:
        yield serving


@pytest.fixture
def waits() -> list[float]:
    return []


def config_of(server: FaultyServer, **fields: Any) -> ClientConfig:
    settings: dict[str, Any] = {"metadata_interval_s": 0, "read_timeout_s": 5, "renewing_bytes": 1, **fields}
    return ClientConfig(**settings).trusting(server.url)


def fetch(
    server: FaultyServer,
    url: str,
    destination: Path,
    expected: FileFacts | None = FACTS,
    waits: list[float] | None = None,
    **fields: Any,
) -> Downloaded:
    written: list[float] = [] if waits is None else waits
    with PoliteClient(config_of(server, **fields), sleep=written.append) as client:
        return download_recording(client, url, destination, expected=expected)


def sent(server: FaultyServer) -> int:
    return sum(request.sent for request in server.requests)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("expected", [FACTS, None, FileFacts(bytes=len(SOUND)), FileFacts(sha256=SHA256.upper())])
def test_a_file_arrives_whole_and_alone(server: FaultyServer, tmp_path: Path, expected: FileFacts | None) -> None:
    got = fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "deep" / "a.mp3", expected)
    assert got == Downloaded(tmp_path / "deep" / "a.mp3", len(SOUND), SHA256, 0, 1)
    assert got.path.read_bytes() == SOUND and files_in(tmp_path / "deep") == ["a.mp3"]


@pytest.mark.parametrize("expected", [FACTS, FileFacts(bytes=len(SOUND), sha256=SHA256), FileFacts(sha256=SHA256)])
def test_a_file_that_is_there_and_verified_is_not_asked_for(
    server: FaultyServer, tmp_path: Path, expected: FileFacts
) -> None:
    (tmp_path / "a.mp3").write_bytes(SOUND)
    (tmp_path / "a.mp3.part").write_bytes(b"of a run before")
    got = fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "a.mp3", expected)
    assert got == Downloaded(tmp_path / "a.mp3", len(SOUND), SHA256, 0, 0) and server.requests == []
    assert files_in(tmp_path) == ["a.mp3"]


@pytest.mark.parametrize("there", [SOUND[:-1], SOUND[:-1] + b"x", b""])
def test_a_file_that_is_there_and_differs_is_replaced(server: FaultyServer, tmp_path: Path, there: bytes) -> None:
    (tmp_path / "a.mp3").write_bytes(there)
    assert fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "a.mp3").requests == 1
    assert (tmp_path / "a.mp3").read_bytes() == SOUND


@pytest.mark.parametrize("status", [404, 410, 403])
def test_what_is_not_there_is_not_found_at_once(server: FaultyServer, tmp_path: Path, status: int) -> None:
    with pytest.raises(DownloadError, match=f"HTTP {status}") as raised:
        fetch(server, server.at("/a.mp3", Answer(status=status)), tmp_path / "a.mp3")
    assert raised.value.reason == "not_found" and len(server.requests) == 1 and files_in(tmp_path) == []


def test_a_server_that_fails_thrice_is_asked_a_fourth_time(
    server: FaultyServer, tmp_path: Path, waits: list[float]
) -> None:
    url = server.at("/a.mp3", *[Answer(status=500)] * 3, Answer(SOUND))
    assert fetch(server, url, tmp_path / "a.mp3", waits=waits).requests == 4
    assert len(waits) == 3
    for wait_s, full_s in zip(waits, (1, 2, 4), strict=True):
        assert full_s / 2 <= wait_s <= full_s


def test_the_jitter_is_the_same_for_the_same_seed_and_another_for_another(server: FaultyServer, tmp_path: Path) -> None:
    runs: list[list[float]] = []
    for seed in (1, 1, 2):
        waits: list[float] = []
        url = server.at("/a.mp3", *[Answer(status=500)] * 3, Answer(SOUND))
        fetch(server, url, tmp_path / f"{len(runs)}.mp3", waits=waits, seed=seed)
        runs.append(waits)
    assert runs[0] == runs[1] != runs[2]


def test_a_server_that_fails_for_ever_is_left_alone_in_the_end(
    server: FaultyServer, tmp_path: Path, waits: list[float]
) -> None:
    with pytest.raises(DownloadError, match="HTTP 503, 6 times in a row") as raised:
        fetch(server, server.at("/a.mp3", Answer(status=503)), tmp_path / "a.mp3", waits=waits, longest_wait_s=5)
    assert raised.value.reason == "server_error" and len(server.requests) == 6 and max(waits) <= 5


def test_nobody_listening_is_a_connection_error(server: FaultyServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    config = ClientConfig(attempts=2).trusting(url)
    with PoliteClient(config, sleep=lambda _: None) as client, pytest.raises(DownloadError, match="2 times") as raised:
        download_recording(client, f"{url}/a.mp3", tmp_path / "a.mp3")
    assert raised.value.reason == "connection"


CUTS = [0, 1, 3, 4, 1000, 65_535, 65_536, 65_537, 200_000, len(SOUND) - 1]
CUTS += random.Random(25).sample(range(len(SOUND)), 25)


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_connection_is_resumed_and_no_byte_comes_twice(server: FaultyServer, tmp_path: Path, cut: int) -> None:
    url = server.at("/a.mp3", Answer(SOUND, cut_after=cut), Answer(SOUND))
    got = fetch(server, url, tmp_path / "a.mp3")
    assert got.path.read_bytes() == SOUND and got.requests == 2
    assert server.requests[1].headers.get("Range") == (f"bytes={cut}-" if cut else None)
    assert sent(server) == len(SOUND)


def test_many_cuts_do_not_end_patience_as_long_as_bytes_come(server: FaultyServer, tmp_path: Path) -> None:
    got = fetch(server, server.at("/a.mp3", Answer(SOUND, cut_after=10_000)), tmp_path / "a.mp3", attempts=2)
    assert got.path.read_bytes() == SOUND and got.requests == 31 and sent(server) == len(SOUND)


def test_cuts_that_bring_next_to_nothing_end_patience(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND, cut_after=10))
    with pytest.raises(DownloadError, match="3 times in a row") as raised:
        fetch(server, url, tmp_path / "a.mp3", attempts=3, renewing_bytes=100)
    assert raised.value.reason == "connection" and (tmp_path / "a.mp3.part").read_bytes() == SOUND[:30]


def test_a_later_run_goes_on_from_what_an_earlier_one_left(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "a.mp3.part").write_bytes(SOUND[:100_000])
    got = fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "a.mp3")
    assert got.resumed_from == 100_000 and got.requests == 1 and got.path.read_bytes() == SOUND
    assert sent(server) == len(SOUND) - 100_000 and files_in(tmp_path) == ["a.mp3"]


def test_a_run_killed_before_the_rename_costs_no_request(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "a.mp3.part").write_bytes(SOUND)
    got = fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "a.mp3")
    assert got.requests == 0 and got.path.read_bytes() == SOUND and files_in(tmp_path) == ["a.mp3"]


def test_all_is_there_already_the_server_says_with_416(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "a.mp3.part").write_bytes(SOUND)
    got = fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "a.mp3", FileFacts(md5=FACTS.md5))
    assert got.requests == 1 and sent(server) == 0 and got.path.read_bytes() == SOUND


@pytest.mark.parametrize("left", [SOUND + b"more", b"x" * 1000, b"x" * len(SOUND)])
def test_what_an_earlier_run_left_and_does_not_fit_is_fetched_again_from_the_start(
    server: FaultyServer, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "a.mp3.part").write_bytes(left)
    for expected in (FACTS, FileFacts(md5=FACTS.md5)):
        got = fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "a.mp3", expected)
        assert got.path.read_bytes() == SOUND and got.resumed_from == 0
        got.path.unlink()
        (tmp_path / "a.mp3.part").write_bytes(left)


def test_what_an_earlier_run_left_is_not_trusted_where_no_checksum_can_tell(
    server: FaultyServer, tmp_path: Path
) -> None:
    (tmp_path / "a.mp3.part").write_bytes(b"x" * 1000)
    got = fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "a.mp3", FileFacts(bytes=len(SOUND)))
    assert got.path.read_bytes() == SOUND and "Range" not in server.requests[0].headers


def test_a_server_that_ignores_ranges_starts_again_and_the_bytes_are_right(
    server: FaultyServer, tmp_path: Path
) -> None:
    url = server.at("/a.mp3", Answer(SOUND, ranges=False, cut_after=100_000), Answer(SOUND, ranges=False))
    got = fetch(server, url, tmp_path / "a.mp3")
    assert got.path.read_bytes() == SOUND and got.resumed_from == 0 and sent(server) == len(SOUND) + 100_000


def test_what_an_earlier_run_left_is_not_counted_where_the_server_starts_again(
    server: FaultyServer, tmp_path: Path
) -> None:
    (tmp_path / "a.mp3.part").write_bytes(SOUND[:100_000])
    got = fetch(server, server.at("/a.mp3", Answer(SOUND, ranges=False)), tmp_path / "a.mp3")
    assert got == Downloaded(tmp_path / "a.mp3", len(SOUND), SHA256, 0, 1) and sent(server) == len(SOUND)


def test_a_server_that_ignores_ranges_and_is_always_cut_is_not_asked_for_ever(
    server: FaultyServer, tmp_path: Path
) -> None:
    url = server.at("/a.mp3", Answer(SOUND, ranges=False, cut_after=100_000))
    with pytest.raises(DownloadError, match="3 times in a row"):
        fetch(server, url, tmp_path / "a.mp3", attempts=3)
    assert len(server.requests) == 3


def test_a_206_that_goes_on_elsewhere_is_not_spliced(server: FaultyServer, tmp_path: Path) -> None:
    wrong = Answer(SOUND[5000:], status=206, headers={"Content-Range": f"bytes 5000-{len(SOUND) - 1}/{len(SOUND)}"})
    url = server.at("/a.mp3", Answer(SOUND, cut_after=1000), wrong, Answer(SOUND))
    assert fetch(server, url, tmp_path / "a.mp3", None).path.read_bytes() == SOUND


def test_a_206_without_content_range_is_not_spliced(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND, cut_after=1000), Answer(SOUND, status=206), Answer(SOUND))
    assert fetch(server, url, tmp_path / "a.mp3", None).path.read_bytes() == SOUND


def test_a_file_that_changed_between_two_answers_is_fetched_from_the_start(
    server: FaultyServer, tmp_path: Path
) -> None:
    url = server.at("/a.mp3", Answer(b"old" * 50_000, cut_after=1000), Answer(SOUND))
    assert fetch(server, url, tmp_path / "a.mp3", None).path.read_bytes() == SOUND


def test_a_file_that_shrank_between_two_answers_is_fetched_from_the_start(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(b"old" * 50_000, cut_after=1000), Answer(SOUND[:500]))
    assert fetch(server, url, tmp_path / "a.mp3", None).path.read_bytes() == SOUND[:500]


def test_a_server_that_gives_less_than_the_asked_range_is_asked_on(server: FaultyServer, tmp_path: Path) -> None:
    part = Answer(SOUND[1000:5000], status=206, headers={"Content-Range": f"bytes 1000-4999/{len(SOUND)}"})
    url = server.at("/a.mp3", Answer(SOUND, cut_after=1000), part, Answer(SOUND))
    got = fetch(server, url, tmp_path / "a.mp3", None)
    assert got.path.read_bytes() == SOUND and got.requests == 3 and sent(server) == len(SOUND)


def test_the_etag_guards_what_is_resumed(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND, cut_after=1000, headers={"ETag": '"v1"'}), Answer(SOUND))
    fetch(server, url, tmp_path / "a.mp3", None)
    assert server.requests[1].headers["If-Range"] == '"v1"'


def test_a_stalled_answer_is_cut_and_resumed(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND, stall_after=70_000), Answer(SOUND))
    started = time.monotonic()
    got = fetch(server, url, tmp_path / "a.mp3", read_timeout_s=0.3)
    assert got.path.read_bytes() == SOUND and sent(server) == len(SOUND) and time.monotonic() - started < 5


def test_an_answer_that_drips_is_cut_and_resumed(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND, drip=(10, 0.05)), Answer(SOUND))
    got = fetch(server, url, tmp_path / "a.mp3", read_timeout_s=0.3, slowest_bytes_per_s=1000)
    assert got.path.read_bytes() == SOUND and got.requests == 2 and server.requests[0].sent < 1000


def test_too_large_a_content_length_is_fetched_by_what_is_known_of_the_file(
    server: FaultyServer, tmp_path: Path
) -> None:
    url = server.at("/a.mp3", Answer(SOUND, announce=len(SOUND) + 500))
    got = fetch(server, url, tmp_path / "a.mp3")
    assert got.path.read_bytes() == SOUND and got.requests == 1


def test_too_large_a_content_length_with_nothing_known_is_a_connection_error(
    server: FaultyServer, tmp_path: Path
) -> None:
    url = server.at("/a.mp3", Answer(SOUND, announce=len(SOUND) + 500, ranges=False))
    with pytest.raises(DownloadError) as raised:
        fetch(server, url, tmp_path / "a.mp3", None, attempts=2)
    assert raised.value.reason == "connection" and not (tmp_path / "a.mp3").exists()


def test_too_small_a_content_length_is_found_by_the_checksum(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND, announce=1000, ranges=False))
    with pytest.raises(DownloadError, match="1000 bytes and not 307204") as raised:
        fetch(server, url, tmp_path / "a.mp3")
    assert raised.value.reason == "checksum_mismatch" and files_in(tmp_path) == []


def test_twenty_gigabytes_are_refused_before_a_byte_is_read(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND, announce=20 * 10**9, stall_after=0))
    started = time.monotonic()
    with pytest.raises(DownloadError, match="20000000000 bytes") as raised:
        fetch(server, url, tmp_path / "a.mp3", None)
    assert raised.value.reason == "too_large" and len(server.requests) == 1 and time.monotonic() - started < 2
    assert files_in(tmp_path) == []


def test_a_file_said_to_be_too_large_is_not_asked_for(server: FaultyServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="3000000000") as raised:
        fetch(server, server.at("/a.mp3", Answer(SOUND)), tmp_path / "a.mp3", FileFacts(bytes=3 * 10**9))
    assert raised.value.reason == "too_large" and server.requests == []


def test_a_body_that_does_not_say_its_length_is_cut_at_the_cap(server: FaultyServer, tmp_path: Path) -> None:
    endless = Answer(SOUND, headers={"Content-Length": "x", "Connection": "close"}, cut_after=len(SOUND))
    with pytest.raises(DownloadError) as raised:
        fetch(server, server.at("/a.mp3", endless), tmp_path / "a.mp3", None, attempts=1)
    assert raised.value.reason == "connection"  # an unreadable length is a broken answer
    with pytest.raises(DownloadError, match="at most 100000") as raised:
        fetch(server, server.at("/b.mp3", Answer(SOUND)), tmp_path / "b.mp3", None, most_recording_bytes=100_000)
    assert raised.value.reason == "too_large"


def test_a_wrong_sum_is_fetched_once_more_and_then_refused(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND[:-1] + b"x"))
    with pytest.raises(DownloadError, match="md5") as raised:
        fetch(server, url, tmp_path / "a.mp3")
    assert raised.value.reason == "checksum_mismatch" and len(server.requests) == 2 and files_in(tmp_path) == []


def test_a_wrong_sum_that_was_an_accident_is_healed(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND[:-1] + b"x"), Answer(SOUND))
    assert fetch(server, url, tmp_path / "a.mp3").path.read_bytes() == SOUND
    assert "Range" not in server.requests[1].headers


@pytest.mark.parametrize(
    "page",
    [
        Answer(b"\n <!DOCTYPE html><html></html>"),
        Answer(b"sorry", headers={"Content-Type": "text/html; charset=utf-8"}),
        Answer(b'{"error": 1}', headers={"Content-Type": "application/json"}),
        Answer(SOUND, headers={"Content-Encoding": "gzip"}),
    ],
)
def test_a_web_page_in_place_of_sound_is_told_from_it(server: FaultyServer, tmp_path: Path, page: Answer) -> None:
    with pytest.raises(DownloadError) as raised:
        fetch(server, server.at("/a.mp3", page), tmp_path / "a.mp3", None)
    assert raised.value.reason == "not_audio" and files_in(tmp_path) == []


def test_a_web_page_in_the_middle_does_not_spoil_what_was_received(server: FaultyServer, tmp_path: Path) -> None:
    page = Answer(b"<html>", headers={"Content-Type": "text/html"}, ranges=False)
    url = server.at("/a.mp3", Answer(SOUND, cut_after=100_000), page)
    with pytest.raises(DownloadError):
        fetch(server, url, tmp_path / "a.mp3")
    assert (tmp_path / "a.mp3.part").read_bytes() == SOUND[:100_000]


def test_an_empty_file_is_refused(server: FaultyServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="empty") as raised:
        fetch(server, server.at("/a.mp3", Answer(b"")), tmp_path / "a.mp3", None)
    assert raised.value.reason == "empty_file" and files_in(tmp_path) == []


def test_a_failure_leaves_the_file_that_was_there(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"old")
    with pytest.raises(DownloadError):
        fetch(server, server.at("/a.mp3", Answer(status=404)), tmp_path / "a.mp3")
    assert (tmp_path / "a.mp3").read_bytes() == b"old"


def test_retry_after_in_seconds_is_waited(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    url = server.at("/a.mp3", Answer(status=429, headers={"Retry-After": "7"}), Answer(SOUND))
    fetch(server, url, tmp_path / "a.mp3", waits=waits)
    assert waits == [7.0]


def test_retry_after_as_a_date_is_waited(server: FaultyServer, tmp_path: Path) -> None:
    date = email.utils.formatdate(1_800_000_042, usegmt=True)
    url = server.at("/a.mp3", Answer(status=503, headers={"Retry-After": date}), Answer(SOUND))
    waits: list[float] = []
    with PoliteClient(config_of(server), sleep=waits.append, now=lambda: 1_800_000_000.0) as client:
        download_recording(client, url, tmp_path / "a.mp3")
    assert waits == [42.0]


@pytest.mark.parametrize("written", ["999999999999", "soon", "-5", "Wed, 99 Nov 9999"])
def test_retry_after_is_capped_and_nonsense_ignored(server: FaultyServer, tmp_path: Path, written: str) -> None:
    waits: list[float] = []
    url = server.at("/a.mp3", Answer(status=429, headers={"Retry-After": written}), Answer(SOUND))
    fetch(server, url, tmp_path / "a.mp3", waits=waits, longest_wait_s=9)
    assert waits == [9] if written.isdigit() else waits[0] <= 1


def test_a_redirect_to_an_allowed_host_is_followed_with_its_range(server: FaultyServer, tmp_path: Path) -> None:
    there = server.at("/there.mp3", Answer(SOUND, cut_after=1000), Answer(SOUND))
    url = server.at("/a.mp3", Answer(status=302, headers={"Location": "/there.mp3"}))
    assert fetch(server, url, tmp_path / "a.mp3").path.read_bytes() == SOUND
    assert [request.path for request in server.requests] == ["/a.mp3", "/there.mp3"] * 2 and there
    assert server.requests[3].headers["Range"] == "bytes=1000-"


@pytest.mark.parametrize(
    "location",
    ["https://example.com/a.mp3", "file:///etc/passwd", "//example.com/a.mp3", "http://127.0.0.1:9/a.mp3",
     "http://localhost/a.mp3", "http://169.254.169.254/latest", "http://[::1]/a.mp3", "https://u:p@archive.org/a.mp3",
     "http://archive.org:22/"],
)  # fmt: skip
def test_a_redirect_elsewhere_is_refused(server: FaultyServer, tmp_path: Path, location: str) -> None:
    url = server.at("/a.mp3", Answer(status=302, headers={"Location": location}))
    with pytest.raises(DownloadError, match="must not be asked") as raised:
        fetch(server, url, tmp_path / "a.mp3")
    assert raised.value.reason == "forbidden_url" and len(server.requests) == 1


def test_redirects_that_go_in_circles_or_nowhere_end(server: FaultyServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="more than 5 times"):
        fetch(server, server.at("/a.mp3", Answer(status=302, headers={"Location": "/a.mp3"})), tmp_path / "a.mp3")
    assert len(server.requests) == 6
    with pytest.raises(DownloadError, match="does not say where"):
        fetch(server, server.at("/b.mp3", Answer(status=302)), tmp_path / "b.mp3")


def test_an_allowed_name_that_leads_to_a_private_address_is_refused(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.0.0.7", 443))])
    with PoliteClient() as client, pytest.raises(DownloadError, match=r"10\.0\.0\.7") as raised:
        download_recording(client, "https://archive.org/download/a/b.mp3", tmp_path / "a.mp3")
    assert raised.value.reason == "forbidden_url"


def test_a_name_that_leads_elsewhere_the_second_time_is_refused_before_its_body_is_read(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = socket.getaddrinfo, []

    def rebound(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        asked.append(host)
        public = [(2, 1, 6, "", ("93.184.216.34", 80))]
        return public if len(asked) == 1 else resolve("127.0.0.1", server.port, *rest, **named)

    server.at("/a.mp3", Answer(SOUND))
    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with PoliteClient() as client, pytest.raises(DownloadError, match=r"127\.0\.0\.1") as raised:
        download_recording(client, "http://archive.org/a.mp3", tmp_path / "a.mp3")
    assert raised.value.reason == "forbidden_url" and len(asked) == 2 and files_in(tmp_path) == []


def test_a_mirror_is_asked_in_place_of_its_origin_by_the_longest_prefix(server: FaultyServer, tmp_path: Path) -> None:
    server.at("/base/download/x/a.mp3", Answer(SOUND))
    mirrors = {"https://www.archive.org": f"{server.url}/base/", "https://www.archive.org/other": "http://127.0.0.1:9"}
    with PoliteClient(ClientConfig(mirrors=mirrors)) as client:
        for scheme in ("http", "https"):
            url = f"{scheme}://www.archive.org/download/x/a.mp3"
            assert download_recording(client, url, tmp_path / f"{scheme}.mp3", expected=FACTS).requests == 1
    standing = Mirrors.of(mirrors)
    assert standing.addresses("https://www.archive.org.example.com/a") == ("https://www.archive.org.example.com/a",)
    assert standing.addresses("https://www.archive.org/other/a") == ("http://127.0.0.1:9/a",)


def test_a_mirror_does_not_open_the_door_to_another_host(server: FaultyServer, tmp_path: Path) -> None:
    config = ClientConfig(mirrors={"https://example.com": server.url})
    with PoliteClient(config) as client, pytest.raises(DownloadError, match=r"example\.com is not on the list"):
        download_recording(client, "https://example.com/a.mp3", tmp_path / "a.mp3")
    assert server.requests == []


def test_a_proxy_of_the_environment_is_used_for_the_public_and_not_for_what_is_configured(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.at("http://archive.org/a.mp3", Answer(SOUND))  # a proxy is asked for whole addresses
    server.at("/near.mp3", Answer(SOUND))
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    with PoliteClient(config_of(server)) as client:
        download_recording(client, "http://archive.org/a.mp3", tmp_path / "a.mp3", expected=FACTS)
        download_recording(client, f"{server.url}/near.mp3", tmp_path / "b.mp3", expected=FACTS)
    assert [request.path for request in server.requests] == ["http://archive.org/a.mp3", "/near.mp3"]


@pytest.mark.parametrize("base", ["mirror.lan", "file:///srv", "http://a:b@mirror.lan"])
def test_a_mirror_that_is_no_address_is_a_settings_error(base: str) -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        PoliteClient(ClientConfig(mirrors={"https://archive.org": base}))


def test_the_client_says_who_it_is(server: FaultyServer, tmp_path: Path) -> None:
    url = server.at("/a.mp3", Answer(SOUND))
    fetch(server, url, tmp_path / "a.mp3", contact="mailto:someone@example.org")
    assert server.requests[0].headers["User-Agent"] == f"speech-mining/{__version__} (mailto:someone@example.org)"


def test_metadata_is_asked_once_a_second_also_by_several_threads(server: FaultyServer) -> None:
    url, waits = server.at("/m", Answer(b"{}")), list[float]()
    config = ClientConfig(metadata_interval_s=1).trusting(server.url)
    with PoliteClient(config, sleep=waits.append, clock=lambda: 100.0) as client:
        threads = [threading.Thread(target=client.read, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(waits) == [1.0, 2.0, 3.0]


def test_no_more_than_two_downloads_run_at_once(server: FaultyServer, tmp_path: Path) -> None:
    urls = [server.at(f"/{n}.mp3", Answer(SOUND[:3000], drip=(1000, 0.05))) for n in range(5)]
    running, most = 0, 0
    lock = threading.Lock()
    with PoliteClient(config_of(server)) as client:

        def run(number: int) -> None:
            nonlocal running, most

            def told(done: int, total: int) -> None:
                nonlocal running, most
                with lock:
                    running += done == 1000
                    running -= done == total
                    most = max(most, running)

            download_recording(client, urls[number], tmp_path / f"{number}.mp3", told=Told(progress=told))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 2 and len(files_in(tmp_path)) == 5


def test_progress_counts_the_bytes_of_the_whole_file_also_when_resumed(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "a.mp3.part").write_bytes(SOUND[:100_000])
    told: list[tuple[int, int]] = []
    with PoliteClient(config_of(server)) as client:
        download_recording(
            client,
            server.at("/a.mp3", Answer(SOUND)),
            tmp_path / "a.mp3",
            expected=FACTS,
            told=Told(progress=lambda done, total: told.append((done, total))),
        )
    assert told[0][0] > 100_000 and told[-1] == (len(SOUND), len(SOUND)) and told == sorted(told)


def facts_from(server: FaultyServer, answer: Any, identifier: str = "some_item") -> dict[str, FileFacts]:
    server.at(f"/metadata/{identifier}", Answer(json.dumps(answer).encode()))
    with PoliteClient(ClientConfig(metadata_interval_s=0, mirrors={"https://archive.org": server.url})) as client:
        return dict(archive_file_facts(client, identifier))


def test_archive_orgs_metadata_give_size_and_sums_of_each_file(server: FaultyServer) -> None:
    listed = [
        {"name": "a.mp3", "size": str(len(SOUND)), "md5": FACTS.md5, "sha1": FACTS.sha1},
        {"name": "b.mp3"},
        {"name": "c.mp3", "size": 12, "md5": "short", "sha1": 7},
        {"size": "1"},
        "d.mp3",
    ]
    facts = facts_from(server, {"files": listed})
    assert facts == {"a.mp3": FACTS, "b.mp3": FileFacts(), "c.mp3": FileFacts(bytes=None)}


@pytest.mark.parametrize("answer", [{}, [], {"is_dark": True, "files": []}])
def test_an_item_that_was_withdrawn_is_gone(server: FaultyServer, answer: Any) -> None:
    with pytest.raises(DownloadError, match="no longer has some_item") as raised:
        facts_from(server, answer)
    assert raised.value.reason == "gone"


@pytest.mark.parametrize("answer", [{"files": None}, {"metadata": {}}, [1], "text", None, 3])
def test_metadata_without_files_are_malformed(server: FaultyServer, answer: Any) -> None:
    with pytest.raises(DownloadError, match="without a list of files") as raised:
        facts_from(server, answer)
    assert raised.value.reason == "malformed"


def test_metadata_that_are_a_web_page_are_malformed(server: FaultyServer) -> None:
    server.at("/metadata/some_item", Answer(b"<html>", headers={"Content-Type": "text/html"}))
    with PoliteClient(ClientConfig(mirrors={"https://archive.org": server.url})) as client:
        with pytest.raises(DownloadError, match="text/html") as raised:
            archive_file_facts(client, "some_item")
    assert raised.value.reason == "malformed"


@pytest.mark.parametrize("identifier", ["../etc", "a/b", "", ".", "a b", "a?b", "a%2fb", "é"])
def test_what_is_no_identifier_is_not_asked_for(server: FaultyServer, identifier: str) -> None:
    with PoliteClient(ClientConfig(mirrors={"https://archive.org": server.url})) as client:
        with pytest.raises(DownloadError) as raised:
            archive_file_facts(client, identifier)
    assert raised.value.reason == "forbidden_url" and server.requests == []
