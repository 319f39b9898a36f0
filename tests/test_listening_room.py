"""The listening room by real HTTP on loopback: who is let in, what is heard, what is kept."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import uvicorn

from resources.listen_command import adopter
from speech_mining.errors import SettingsError
from speech_mining.listening.candidates import candidates, kind_named
from speech_mining.listening.judgements import Journal
from speech_mining.listening.room import Room
from speech_mining.listening.server import Door, bind, byte_range, room_app
from tests.listening_lake import PAIR, RATE_HZ, SEGMENT_S, make_lake, pitch_hz, place

SCORES = [1.005 + 0.01 * number for number in range(20)]


@dataclass
class Served:
    """A room that answers, and a client that was let in."""

    room: Room
    door: Door
    client: httpx.Client

    def say(self, position: int, verdict: str) -> httpx.Response:
        pair = self.client.get(f"/api/pairs/{position}").json()
        told = {"source": pair["source"]["id"], "target": pair["target"]["id"], "verdict": verdict}
        return self.client.post("/api/judgements", json=told)


@contextmanager
def serving(home: Path, scores: list[float] | None = None, told: dict[str, str] | None = None) -> Iterator[Served]:
    lake = make_lake(home, scores or SCORES, told)
    found = candidates(lake, kind_named("s2s"), PAIR)
    room = Room(found, Journal(home / "judgements" / "s2s" / f"{PAIR}.jsonl"), "ada", lake, adopt=adopter("s2s"))
    bound = bind()
    door = Door(bound.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(room_app(room, door), log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{door.port}", follow_redirects=True, timeout=60) as client:
            client.get(door.address)
            yield Served(room, door, client)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("home")) as found:
        yield found


def a_stranger(served: Served) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{served.door.port}")


PATHS = ("/", "/api/room", "/api/pairs/0", "/static/room.js", "/audio/1.wav", "/peaks/1", "/nowhere")


@pytest.mark.parametrize("path", PATHS)
def test_nobody_is_let_in_without_the_token(served: Served, path: str) -> None:
    with a_stranger(served) as client:
        assert client.get(path).status_code == 401
        assert client.get(path, params={"token": "guess"}).status_code == 401
        assert client.get(path, headers={"Cookie": f"{served.door.cookie}=guess"}).status_code == 401
        assert client.post("/api/judgements", json={}).status_code == 401


def test_the_token_leaves_the_address_for_a_cookie_that_no_script_and_no_other_site_gets(served: Served) -> None:
    with a_stranger(served) as client:
        answer = client.get(served.door.address)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),  # another port of this machine
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1:1"}, 421),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_other_sites_are_refused_even_with_the_cookie(served: Served, headers: dict[str, str], status: int) -> None:
    assert served.client.get("/api/room", headers=headers).status_code == status


def test_a_form_of_another_site_cannot_judge(served: Served) -> None:
    told = b'{"source": "1", "target": "2", "verdict": "right"}'
    assert (
        served.client.post("/api/judgements", content=told, headers={"Content-Type": "text/plain"}).status_code == 415
    )


@pytest.mark.parametrize("path", ["/", "/api/room", "/nowhere", "/static/room.css"])
def test_every_answer_forbids_foreign_scripts_frames_and_copies(served: Served, path: str) -> None:
    headers = served.client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"


def heard_hz(wav: bytes) -> int:
    samples, rate_hz = soundfile.read(io.BytesIO(wav))
    assert (len(samples), rate_hz) == (SEGMENT_S * RATE_HZ, RATE_HZ)
    return round(float(np.abs(np.fft.rfft(samples)).argmax()) / SEGMENT_S)


def test_a_segment_is_cut_from_its_own_place(served: Served) -> None:
    for position in (0, 7, 19):
        pair = served.client.get(f"/api/pairs/{position}").json()
        number = pair["source"]["start_ms"] // 1000
        assert pair["score"] == round(SCORES[number], 4)
        for side, language in (("source", "deu"), ("target", "eng")):
            wav = served.client.get(f"/audio/{pair[side]['id']}.wav").content
            assert heard_hz(wav) == pitch_hz(language, number)


@pytest.mark.parametrize(
    ("asked", "status", "place"),
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=32000-", 206, slice(32000, None)),
        ("bytes=-10", 206, slice(-10, None)),
        ("bytes=0-99999999", 206, slice(0, None)),
        ("bytes=0-1,5-6", 200, slice(0, None)),
        ("lines=0-1", 200, slice(0, None)),
        ("bytes=-", 200, slice(0, None)),
        ("bytes=99999999-", 416, None),
        ("bytes=5-4", 416, None),
        ("bytes=-0", 416, None),
        (f"bytes={'9' * 40}-", 416, None),
    ],
)
def test_ranges_are_cut_as_asked(served: Served, asked: str, status: int, place: slice | None) -> None:
    path = f"/audio/{served.client.get('/api/pairs/0').json()['source']['id']}.wav"
    whole = served.client.get(path)
    answer = served.client.get(path, headers={"Range": asked})
    assert (answer.status_code, whole.headers["accept-ranges"]) == (status, "bytes")
    if place is not None:
        assert answer.content == whole.content[place]
    else:
        assert answer.headers["content-range"] == f"bytes */{len(whole.content)}"


def test_a_range_names_its_first_and_last_byte() -> None:
    assert byte_range("bytes=2-5", 10) == slice(2, 6)
    assert byte_range(None, 10) is None


@pytest.mark.parametrize(
    "path",
    [
        "/audio/../../../etc/passwd.wav",
        "/audio/..%2f..%2f..%2fetc%2fpasswd.wav",
        "/audio/%2e%2e/one.flac",
        "/audio/one.flac",
        "/audio/123.wav",
        "/audio/-1.wav",
        "/static/..%2froom.py",
        "/static/../room.py",
        "/static/room.py",
        "/peaks/..%2f1",
    ],
)
def test_nothing_but_segments_of_the_pairs_is_heard(served: Served, path: str) -> None:
    assert served.client.get(path).status_code == 404


def test_the_outline_of_a_segment_is_told(served: Served) -> None:
    segment = served.client.get("/api/pairs/0").json()["source"]["id"]
    peaks = served.client.get(f"/peaks/{segment}").json()
    assert len(peaks) == 120 and max(peaks) == 1 and min(peaks) > 0.9


def test_judgements_are_kept_with_judge_time_and_versions(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        answer = served.say(3, "right")
        assert (answer.status_code, answer.json()) == (201, {"position": 3, "next": 4})
        (said,) = served.room.journal.read().lines
        assert (said.judge, said.verdict, said.kind, said.language_pair) == ("ada", "right", "s2s", PAIR)
        assert said.corpus == served.room.lake.partition("s2s_corpus", PAIR).data_version
        assert said.pairs == served.room.lake.partition("s2s_pairs", PAIR).data_version
        assert served.client.get("/api/pairs/3").json()["verdict"] == "right"
        served.say(3, "wrong")
        served.say(4, "skipped")
        state = served.client.get("/api/room").json()
        assert (state["verdicts"], state["done"], state["skipped"]) == ({"right": 0, "partly": 0, "wrong": 1}, 1, 1)
        assert served.say(3, "withdrawn").status_code == 201
        assert served.client.get("/api/room").json()["done"] == 0


def test_the_last_open_pair_leads_back_to_the_first_open_one_and_then_to_none(tmp_path: Path) -> None:
    with serving(tmp_path, SCORES[:3]) as served:
        assert [served.say(position, "right").json()["next"] for position in (2, 0, 1)] == [0, 1, None]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"source": 1, "target": "2", "verdict": "right"}', 400),
        (b'{"source": "1", "target": "2", "verdict": "right"}', 409),
        (b"[" * 4000, 400),
        (b" " * 5000, 413),
    ],
)
def test_a_wrong_body_is_refused_and_nothing_is_kept(served: Served, body: bytes, status: int) -> None:
    answer = served.client.post("/api/judgements", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, served.room.journal.read().lines) == (status, ())


def test_pages_beyond_the_end_and_wishes_beyond_sense_are_refused(served: Served) -> None:
    assert served.client.get("/api/pairs/20").status_code == 409
    assert served.client.get("/api/room?precision=nan").status_code == 400
    assert served.client.get("/api/room?precision=2").status_code == 400


def test_spoiled_lines_are_shown_with_their_numbers(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.say(0, "right")
        with served.room.journal.path.open("ab") as file:
            file.write(b"by hand\n")
        state = served.client.get("/api/room").json()
        assert state["bad_lines"] == [{"line": 2, "why": "it is not JSON"}] and state["done"] == 1


def test_a_recording_that_vanished_is_told_and_the_pair_can_still_be_skipped(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.room.lake.remove("raw_audio", "deu", "11")
        segment = served.client.get("/api/pairs/0").json()["source"]["id"]
        for path in (f"/audio/{segment}.wav", f"/peaks/{segment}"):
            answer = served.client.get(path)
            assert answer.status_code == 500 and "raw_audio of deu/11 is not there" in answer.json()["error"]
        assert served.say(0, "skipped").status_code == 201


def test_a_suggestion_can_be_adopted_and_comments_of_the_settings_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    (tmp_path / "s2s.toml").write_text("# mine\n[mining]\nk = 8  # few\nthreshold = 1.06\n", "utf-8")
    with serving(tmp_path, [1.001 + 0.0005 * number for number in range(40)]) as served:
        for position in range(40):
            served.say(position, "right")
        state = served.client.get("/api/room?precision=0.8").json()
        assert state["suggested"] == 1.0 and "at least" not in state["suggestion"]
        answer = served.client.post("/api/threshold", json={"threshold": state["suggested"]})
        assert answer.status_code == 200 and "mining.threshold = 1" in answer.json()["told"]
        assert (tmp_path / "s2s.toml").read_text("utf-8") == "# mine\n[mining]\nk = 8  # few\nthreshold = 1.0\n"
        refused = served.client.post("/api/threshold", json={"threshold": 0.5})  # below the floor
        assert refused.status_code == 409 and "floor" in refused.json()["error"]
        assert "threshold = 1.0" in (tmp_path / "s2s.toml").read_text("utf-8")


def test_a_threshold_of_the_environment_cannot_be_adopted_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    monkeypatch.setenv("S2S_TEXT__THRESHOLD", "1.1")
    with pytest.raises(SettingsError, match="S2S_TEXT__THRESHOLD is set"):
        adopter("s2t")(1.05)
    assert not (tmp_path / "s2s.toml").exists()


def test_a_home_without_settings_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_HOME", str(tmp_path))
    adopter("t2t")(1.04)
    assert (tmp_path / "s2s.toml").read_text("utf-8") == "[text]\ntext_threshold = 1.04\n"


def test_a_taken_port_is_told() -> None:
    taken = bind()
    with taken, pytest.raises(SettingsError, match="cannot be had"):
        bind(taken.getsockname()[1])


def test_pairs_below_the_threshold_are_heard_and_overlapping_ones_are_not(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, SCORES)
    pairs = lake.partition("s2s_pairs", PAIR).read_frame("pairs.parquet")
    rival = pairs[:1].with_columns(score=pairs["score"][0] - 0.001, target_segment=pairs["target_segment"][1])
    with lake.replace("s2s_pairs", PAIR) as new:
        new.write_frame("pairs.parquet", pairs.vstack(rival))
        new.write_json("scoring.json", {"threshold": 1.0})
    found = candidates(lake, kind_named("s2s"), PAIR)
    assert sorted(round(score, 3) for score in found.scores) == [round(score, 3) for score in SCORES]
    assert found.threshold == 1.06


def _judge_one(address: str, judged_before: int) -> None:
    with httpx.Client(follow_redirects=True, timeout=60) as client:
        root = re.sub(r"\?.*", "", str(client.get(address).url))
        state = client.get(f"{root}api/room").json()
        assert state["done"] == judged_before
        pair = client.get(f"{root}api/pairs/{state['next']}").json()
        told = {"source": pair["source"]["id"], "target": pair["target"]["id"], "verdict": "right"}
        assert client.post(f"{root}api/judgements", json=told).status_code == 201


def test_a_killed_room_keeps_what_was_judged(tmp_path: Path) -> None:
    make_lake(tmp_path, SCORES)
    program = "import typer; from resources.listen_command import listen; typer.run(listen)"
    environment = {**os.environ, "S2S_HOME": str(tmp_path), "S2S_LANGUAGES": "deu,eng"}
    for kept in range(2):
        command = [sys.executable, "-c", program, PAIR, "--judge", "ada"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            _judge_one(next(line for line in process.stdout if line.startswith("http")).strip(), kept)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert len(Journal(tmp_path / "judgements" / "s2s" / f"{PAIR}.jsonl").read().lines) == 2


def test_the_lake_knows_its_places() -> None:
    assert place("deu", 2) == ("11", 1, 2 * RATE_HZ, 3 * RATE_HZ)
