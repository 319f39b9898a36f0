"""`s2s ingest`, the real command in a process of its own, on a real server and on a folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speech_mining.lake import Lake
from tests.faulty_server import Answer, FaultyServer, faulty_server

ITEM = "a_book_librivox"


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as served:
        yield served


def _sound(number: int) -> bytes:
    return b"ID3\x04" + hashlib.sha256(b"%d" % number).digest() * 8000


def _serve(server: FaultyServer, books: Mapping[str, list[int]], **how: Any) -> dict[str, str]:
    """A catalogue of German books and their recordings; returns the environment that leads there."""
    listed = [
        {
            "id": book,
            "title": f"Book {book}",
            "language": "German",
            "url_librivox": f"https://librivox.org/{book}",
            "sections": [
                {
                    "section_number": str(number),
                    "listen_url": f"https://www.archive.org/download/{ITEM}/{book}_{number}.mp3",
                    "playtime": "60",
                }
                for number in numbers
            ],
        }
        for book, numbers in books.items()
    ]
    server.at("/api/feed/audiobooks/", Answer(json.dumps({"books": listed}).encode()), _END)
    files = []
    for book, numbers in books.items():
        for number in numbers:
            body = _sound(number)
            files.append({"name": f"{book}_{number}.mp3", "size": str(len(body)), "md5": hashlib.md5(body).hexdigest()})
            server.at(f"/download/{ITEM}/{book}_{number}.mp3", Answer(body, **how))
    server.at(f"/metadata/{ITEM}", Answer(json.dumps({"files": files}).encode()))
    mirrors = {origin: [server.url] for origin in ("https://archive.org", "https://www.archive.org")}
    return {
        "S2S_CATALOGUE_URL": server.url,
        "S2S_LANGUAGES": "deu",
        "S2S_LIBRIVOX__MIRRORS": json.dumps(mirrors),
        "S2S_LIBRIVOX__REQUESTS_PER_SECOND": "1000",
        "S2S_LIBRIVOX__ATTEMPTS": "2",
        "S2S_LIBRIVOX__FIRST_WAIT_S": "0",
    }


_END = Answer(b'{"error": "Audiobooks could not be found"}', status=404)


def _run(home: Path, environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*words), env=_environment(home, environment), capture_output=True, text=True)


def _command(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("s2s")), "ingest", *words]


def _environment(home: Path, environment: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "S2S_HOME": str(home), **environment}


def _files_asked(server: FaultyServer) -> list[str]:
    asked = [Path(request.path).name for request in server.requests if "/download/" in request.path]
    server.requests.clear()
    return sorted(asked)


def test_audiobooks_come_into_the_lake_and_the_second_time_nothing_is_asked_for(
    server: FaultyServer, tmp_path: Path
) -> None:
    environment = _serve(server, {"7": [1, 2], "9": [1], "11": [1]})
    told = _run(tmp_path, environment, "--language", "deu", "--limit", "2", "--json")
    assert told.returncode == 0, told.stderr
    figures = json.loads(told.stdout)["deu"]
    assert figures == {
        "audiobooks": 2,
        "left_alone": 0,
        "failed": 0,
        "recordings": 3,
        "rejected": 0,
        "downloads": 3,
        "segments": 0,
    }
    assert _files_asked(server) == ["7_1.mp3", "7_2.mp3", "9_1.mp3"]
    lake = Lake(tmp_path / "lake")
    assert lake.keys("raw_audio", "deu") == ["7", "9"]

    environment = _serve(server, {"7": [1, 2], "9": [1], "11": [1]})
    told = _run(tmp_path, environment, "--language", "deu", "--limit", "2", "--json")
    assert json.loads(told.stdout)["deu"]["left_alone"] == 2
    assert _files_asked(server) == []


def test_a_book_that_cannot_be_had_is_named_and_the_others_come(server: FaultyServer, tmp_path: Path) -> None:
    environment = _serve(server, {"7": [1], "9": [1]})
    server.at(f"/download/{ITEM}/7_1.mp3", Answer(status=503))
    told = _run(tmp_path, environment)
    assert told.returncode == 1
    assert "deu 7" in told.stderr and "503" in told.stderr
    assert Lake(tmp_path / "lake").keys("raw_audio", "deu") == ["9"]


def _hear_ctrl_c() -> None:
    """Where this process ignores SIGINT, as in the background of a shell, what it starts would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_it_at_once_and_the_same_command_goes_on(server: FaultyServer, tmp_path: Path) -> None:
    environment = _serve(server, {"7": [1]}, drip=(20_000, 0.2))
    process = subprocess.Popen(
        _command(), env=_environment(tmp_path, environment), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=_hear_ctrl_c,
    )  # fmt: skip
    parts = tmp_path / "downloads" / "deu" / "7"
    began = time.monotonic()
    while not any(path.stat().st_size > 40_000 for path in parts.glob("*.part")):
        assert time.monotonic() - began < 60 and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on from here" in said and "Traceback" not in said
    assert Lake(tmp_path / "lake").keys("raw_audio", "deu") == []
    server.requests.clear()

    told = _run(tmp_path, _serve(server, {"7": [1]}), "--json")

    assert json.loads(told.stdout)["deu"]["recordings"] == 1
    (asked,) = (request for request in server.requests if "/download/" in request.path)
    assert asked.headers["Range"].startswith("bytes=") and asked.sent < len(_sound(1)) - 40_000


def test_a_language_that_is_not_listed_is_a_clear_error(server: FaultyServer, tmp_path: Path) -> None:
    told = _run(tmp_path, _serve(server, {"7": [1]}), "--language", "por")
    assert told.returncode == 2
    assert "no audiobook in por" in told.stderr and "deu" in told.stderr


def test_a_folder_of_recordings_is_brought_and_segmented(tmp_path: Path) -> None:
    book = tmp_path / "recordings" / "deu" / "Emma"
    book.mkdir(parents=True)
    noise = np.random.default_rng(0).standard_normal(16_000 * 5) * 0.01
    soundfile.write(book / "01.wav", noise, 16_000)
    (book / "02.mp3").write_bytes(b"no sound at all, but not a page either" * 50)
    told = _run(tmp_path / "home", {}, "--language", "deu", "--catalogue", str(book.parents[1]), "--segment", "--json")
    assert told.returncode == 0, told.stderr
    figures = json.loads(told.stdout)["deu"]
    assert (figures["audiobooks"], figures["recordings"], figures["segments"]) == (1, 2, 0)
    lake = Lake(tmp_path / "home" / "lake")
    reasons = lake.partition("segments", "deu", "Emma").read_frame("rejections.parquet")["reason"].to_list()
    assert "no_speech" in reasons and len(reasons) == 2
    kept = list((tmp_path / "home" / "quarantine" / "deu" / "Emma").glob("0002.*.json"))
    assert len(kept) == 1
