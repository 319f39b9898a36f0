"""An audiobook with everything wrong in it, through the real assets: each fault costs its own recording only."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator

import dagster as dg
import numpy as np
import polars as pl
import pytest
import soundfile

from resources.settings import LIBRARY, Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.lake import Lake
from tests.faulty_server import Answer, FaultyServer, faulty_server


def _english_recording() -> tuple[bytes, str]:
    """The shipped English recording whose address sorts first, and its announced duration in seconds."""
    listed = json.loads((LIBRARY / "catalogue.json").read_text("utf-8"))["books"]
    book = next(book for book in listed if book["language"] == "English" and book["url_librivox"])
    section = min(book["sections"], key=lambda section: section["listen_url"])
    return (LIBRARY / section["listen_url"].split("archive.org/")[1]).read_bytes(), section["playtime"]


def _wav(samples: np.ndarray, rate_hz: int, channels: int = 1) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, np.stack([samples] * channels, axis=1), rate_hz, format="WAV", subtype="PCM_16")
    return written.getvalue()


def _zip(content: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("chapter.mp3", content)
    return written.getvalue()


def _section(number: int, url: object, playtime: str = "90") -> dict[str, object]:
    return {
        "id": str(number),
        "section_number": str(number),
        "title": f"Chapter {number}",
        "listen_url": url,
        "language": "English",
        "playtime": playtime,
        "file_name": None,
        "readers": [{"reader_id": "1", "display_name": "A Reader"}],
        "genres": [],
    }


def _book(identifier: object, sections: object, **other: object) -> dict[str, object]:
    return {
        "id": identifier,
        "title": "A Book of Faults",
        "language": "English",
        "url_librivox": "https://librivox.org/a-book-of-faults/",
        "authors": [{"id": "1", "first_name": "An", "last_name": "Author"}],
        "num_sections": "1",
        "totaltimesecs": 90,
        "sections": sections,
        **other,
    }


GOOD, STEREO, TRUNCATED, CORRUPT, HTML, ZIP, EMPTY, SILENT, NOT_FOUND, BROKEN, CUT, UP, FILE, ELSEWHERE = range(1, 15)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    whole, playtime = _english_recording()
    rng = np.random.default_rng(0)
    blotted = bytearray(whole)
    for at in rng.integers(2000, len(whole) - 6000, 30):
        blotted[at : at + 4096] = rng.integers(0, 256, 4096, dtype=np.uint8).tobytes()
    with faulty_server() as faulty:
        files = {
            GOOD: Answer(whole),
            STEREO: Answer(_stereo(whole)),
            TRUNCATED: Answer(whole[: len(whole) // 3]),
            CORRUPT: Answer(bytes(blotted)),
            HTML: Answer(b"<!DOCTYPE html><html><body>Sorry</body></html>"),
            ZIP: Answer(_zip(whole)),
            EMPTY: Answer(b""),
            SILENT: Answer(_wav(np.zeros(16_000 * int(playtime)), 16_000)),
            BROKEN: Answer(status=500),
            CUT: Answer(whole, cut_after=5000, ranges=False),
        }
        urls = {number: faulty.at(f"/audio/{number}.mp3", answer) for number, answer in files.items()}
        urls[NOT_FOUND] = f"{faulty.url}/audio/nothing.mp3"
        urls[UP] = f"{faulty.url}/../../etc/passwd"
        urls[FILE] = "file:///etc/passwd"
        urls[ELSEWHERE] = "http://10.0.0.1/chapter.mp3"
        books = [
            _book("7", [_section(number, url, playtime) for number, url in sorted(urls.items(), reverse=True)]),
            _book("8", None),
            _book("not a number", [_section(1, urls[GOOD])]),
            _book("9", [_section(1, urls[GOOD])], language="Neverlandish"),
            _book("10", [{"section_number": ["1"], "listen_url": 3}], title=None),
            "not a book",
        ]
        page = json.dumps({"books": books}).encode()
        empty = Answer(b'{"error":"Audiobooks could not be found"}', 404, {"Content-Type": "application/json"})
        faulty.at("/api/feed/audiobooks/", Answer(page, headers={"Content-Type": "application/json"}), empty)
        faulty.at("/api/feed/audiobooks", Answer(page, headers={"Content-Type": "application/json"}), empty)
        yield faulty


def _stereo(mp3: bytes) -> bytes:
    samples, rate_hz = soundfile.read(io.BytesIO(mp3))
    return _wav(samples, rate_hz, channels=2)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, server: FaultyServer) -> Settings:
    return load_settings(
        home=tmp_path_factory.mktemp("home"),
        catalogue_url=server.url,
        languages="eng",
        librivox={"attempts": 2, "first_wait_s": 0.0, "requests_per_second": 1000.0},
    )


@pytest.fixture(scope="module")
def lake(settings: Settings) -> Lake:
    job = build(settings).resolve_implicit_global_asset_job_def()
    layers = [dg.AssetKey(["eng", name]) for name in ("raw_audio", "segments")]
    with dg.DagsterInstance.ephemeral() as instance:
        for selection, book in (([dg.AssetKey("catalogue")], None), (layers, "7")):
            assert job.execute_in_process(instance=instance, asset_selection=selection, partition_key=book).success
        assert instance.get_dynamic_partitions("audiobooks_eng") == ["7"]
    return Lake(settings.lake_url)


def _reasons(lake: Lake, layer: str) -> dict[int, str]:
    rejections = lake.partition(layer, "eng", "7").read_frame("rejections.parquet")
    return dict(rejections.select("section", "reason").iter_rows())


def test_the_catalogue_keeps_the_book_and_names_everything_it_left_out(lake: Lake) -> None:
    catalogue = lake.partition("catalogue")
    assert catalogue.read_frame("catalogue.parquet")["audiobook"].unique().to_list() == ["7"]
    rejections = catalogue.read_frame("rejections.parquet")
    reasons = rejections.filter(pl.col("audiobook") == "7").select("section", "reason").iter_rows()
    assert dict(reasons) == {UP: "forbidden_url", FILE: "forbidden_url", ELSEWHERE: "forbidden_url"}
    others = rejections.filter(pl.col("audiobook").is_null() | (pl.col("audiobook") != "7"))
    assert set(others["reason"]) <= {"malformed", "unknown_language", "unfinished"}
    assert others.height >= 5
    assert rejections["detail"].str.len_chars().min() > 5


def test_what_could_not_be_fetched_is_named_and_the_rest_is_there(lake: Lake) -> None:
    assert _reasons(lake, "raw_audio") == {
        HTML: "not_audio",
        EMPTY: "empty_file",
        NOT_FOUND: "not_found",
        BROKEN: "server_error",
        CUT: "connection",
    }
    recordings = lake.partition("raw_audio", "eng", "7").read_frame("recordings.parquet")
    assert recordings["section"].to_list() == [GOOD, STEREO, TRUNCATED, CORRUPT, ZIP, SILENT]


def test_what_could_not_be_segmented_is_named_and_the_rest_is_there(lake: Lake) -> None:
    reasons = _reasons(lake, "segments")
    assert reasons[TRUNCATED] == "duration_mismatch"
    assert reasons[ZIP] == "not_audio"
    assert reasons[SILENT] == "no_speech"
    assert set(reasons) - {CORRUPT} == {TRUNCATED, ZIP, SILENT}
    segments = lake.partition("segments", "eng", "7").read_frame("segments.parquet")
    assert {GOOD, STEREO} <= set(segments["section"])


def test_a_stereo_recording_at_another_rate_gives_nearly_the_same_segments(lake: Lake) -> None:
    segments = lake.partition("segments", "eng", "7").read_frame("segments.parquet")
    good, stereo = (segments.filter(pl.col("section") == number).height for number in (GOOD, STEREO))
    assert abs(good - stereo) <= 0.1 * good


def test_materializing_again_asks_for_nothing_that_is_there(
    lake: Lake, settings: Settings, server: FaultyServer
) -> None:
    before = lake.partition("raw_audio", "eng", "7").data_version
    asked = len([request for request in server.requests if request.path == f"/audio/{GOOD}.mp3"])
    job = build(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("audiobooks_eng", ["7"])
        raw_audio = [dg.AssetKey(["eng", "raw_audio"])]
        assert job.execute_in_process(instance=instance, asset_selection=raw_audio, partition_key="7").success
    assert lake.partition("raw_audio", "eng", "7").data_version == before
    assert len([request for request in server.requests if request.path == f"/audio/{GOOD}.mp3"]) == asked


def test_an_audiobook_the_catalogue_does_not_know_is_a_clear_error(lake: Lake, settings: Settings) -> None:
    job = build(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("audiobooks_eng", ["404"])
        raw_audio = [dg.AssetKey(["eng", "raw_audio"])]
        with pytest.raises(dg.Failure, match=r"The catalogue has no audiobook 404 in eng.*materialize the catalogue"):
            job.execute_in_process(instance=instance, asset_selection=raw_audio, partition_key="404")
