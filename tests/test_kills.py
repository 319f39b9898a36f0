"""SIGKILL at random moments of a book's way from the server to its segments; the next run mends everything."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from resources.settings import LIBRARY
from speech_mining.audio.decode import read_waveform
from speech_mining.lake import Lake
from tests.faulty_server import Answer, FaultyServer, faulty_server
from tests.forked_runs import Runner
from tests.raw_book import ITEM, RawBook, leftovers, section

KILLS = 20
LENGTH_S = 9
PACE = (16_384, 0.01)
"""Bytes and seconds: a recording takes 0.1 to 0.2 s to arrive, so that kills fall into downloads too."""


@dataclass
class Undisturbed:
    server: FaultyServer
    runner: Runner
    content: dict[str, bytes]
    took_s: float


def _recordings() -> dict[int, bytes]:
    (path, *_) = sorted((LIBRARY / "download").rglob("*.mp3"))
    heard = read_waveform(path)
    cuts = {}
    for number in (1, 2, 3):
        start = (number - 1) * LENGTH_S * 16_000
        written = BytesIO()
        soundfile.write(written, heard[start : start + LENGTH_S * 16_000].astype(np.float32), 16_000, format="FLAC")
        cuts[number] = written.getvalue()
    return cuts


def _prepare(server: FaultyServer, home: Path) -> RawBook:
    book = RawBook(server, str(home / "lake"), home)
    book.list(*(section(number, duration_s=LENGTH_S) for number in (1, 2, 3)))
    return book


def _content(home: Path) -> dict[str, bytes]:
    """Every file of the two layers, by its path in the lake: generations are named by their content."""
    lake = home / "lake"
    return {str(path.relative_to(lake)): path.read_bytes() for path in _layers(home) if path.is_file()}


def _layers(home: Path) -> Iterator[Path]:
    for layer in ("raw_audio", "segments"):
        yield from (home / "lake" / layer).rglob("*")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    runner = Runner("tests.kill_runner")
    home = tmp_path_factory.mktemp("undisturbed")
    with faulty_server() as server:
        book = _prepare(server, home)
        recordings = _recordings()
        book.serve(recordings)
        for number, body in recordings.items():
            server.at(f"/download/{ITEM}/{number}.mp3", Answer(body, drip=PACE))
        runner.start(home=home, url=server.url)
        assert runner.end() == 0
        again = tmp_path_factory.mktemp("again")
        _prepare(server, again)
        started = time.monotonic()
        runner.start(home=again, url=server.url)
        assert runner.end() == 0
        took_s = time.monotonic() - started
        assert _content(home) == _content(again)
        yield Undisturbed(server, runner, _content(home), took_s)
    runner.stop()


@pytest.mark.slow
def test_a_book_killed_at_any_moment_is_whole_after_the_next_run_and_nothing_whole_comes_twice(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    moments = random.Random(11)
    reached: set[str] = set()
    for number in range(KILLS):
        home = tmp_path / str(number)
        book = _prepare(undisturbed.server, home)
        pid = undisturbed.runner.start(home=home, url=undisturbed.server.url)
        time.sleep(undisturbed.took_s * moments.uniform(0, 1))
        os.kill(pid, signal.SIGKILL)
        ended = undisturbed.runner.end()
        assert ended in (0, -signal.SIGKILL)
        whole = _whole(book)
        reached.add(_reached(book, ended))
        book.asked()
        undisturbed.runner.start(home=home, url=undisturbed.server.url)
        assert undisturbed.runner.end() == 0
        assert not whole & set(book.asked())
        assert _content(home) == undisturbed.content
        assert leftovers(home) == []
    assert {"downloads", "segments"} <= reached  # else the moments were not spread over the whole way


def _whole(book: RawBook) -> set[str]:
    """What must not be asked for again: everything once the partition is there, else each file that is whole."""
    if book.lake.find("raw_audio", "deu", "7") is not None:
        return {f"/metadata/{ITEM}", *(f"/download/{ITEM}/{number}.mp3" for number in (1, 2, 3))}
    return {f"/download/{ITEM}/{int(path.stem)}.mp3" for path in (book.scratch / "deu" / "7").glob("*.mp3")}


def _reached(book: RawBook, ended: int) -> str:
    lake = Lake(book.lake_url)
    if ended == 0 or lake.find("segments", "deu", "7") is not None:
        return "end"
    if lake.find("raw_audio", "deu", "7") is not None:
        return "segments"
    return "downloads" if (book.scratch / "deu" / "7").exists() else "start"
