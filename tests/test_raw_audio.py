"""`raw_audio` through real Dagster, from a server that misbehaves, into a lake on a disk and in an object store."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest

from resources.settings import load_settings
from speech_mining.errors import LakeError
from speech_mining.sources.mirrors import Mirrors
from speech_mining.sources.quarantine import Quarantine, Refusal
from speech_mining.sources.writer import BusyError, only_writer
from tests.faulty_server import Answer, FaultyServer, faulty_server
from tests.raw_book import ITEM, ORIGINS, RawBook, leftovers, section, sound
from tests.s3_server import new_bucket, s3_server

ALL = {number: sound(number) for number in (1, 2, 3)}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as serving:
        yield serving


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(params=["disk", "s3"])
def book(request: pytest.FixtureRequest, server: FaultyServer, tmp_path: Path) -> RawBook:
    on_disk = request.param == "disk"
    lake = str(tmp_path / "lake") if on_disk else new_bucket(request.getfixturevalue("s3"))
    listed = RawBook(server, lake, tmp_path)
    listed.serve(ALL)
    listed.list(*map(section, ALL))
    return listed


@pytest.fixture
def local(server: FaultyServer, tmp_path: Path) -> RawBook:
    listed = RawBook(server, str(tmp_path / "lake"), tmp_path)
    listed.serve(ALL)
    listed.list(*map(section, ALL))
    return listed


def test_recordings_arrive_as_they_were_named_by_their_content_with_a_manifest(book: RawBook) -> None:
    told = book.materialize()
    assert book.contents() == ALL and told["downloads"] == 3 and told["rejected"] == 0 and not told["left_alone"]
    recordings = book.table("recordings")
    assert recordings["sha256"].to_list() == [hashlib.sha256(body).hexdigest() for body in ALL.values()]
    assert recordings["file"].to_list() == [f"{sha256}.mp3" for sha256 in recordings["sha256"]]
    assert book.table("listing").columns == ["section", "url", "file_version"]
    assert leftovers(book.home) == []


def test_a_book_that_is_there_and_unchanged_costs_no_request_and_no_byte(book: RawBook) -> None:
    first = book.materialize()
    book.asked()
    before = sorted(book.partition.files)
    again = book.materialize()
    assert book.asked() == [] and again["left_alone"] and again["downloads"] == 0
    assert sorted(book.partition.files) == before and again["megabytes"] == first["megabytes"]


def test_a_new_title_renews_the_manifest_and_asks_nothing(book: RawBook) -> None:
    book.materialize()
    book.asked()
    book.list(*(section(number, title="another") for number in ALL))
    told = book.materialize()
    assert book.asked() == [] and not told["left_alone"] and told["downloads"] == 0
    assert set(book.table("recordings")["title"]) == {"another"} and book.contents() == ALL


def test_a_new_section_is_fetched_alone_and_a_vanished_one_goes(book: RawBook) -> None:
    book.materialize()
    book.asked()
    now = {2: ALL[2], 3: ALL[3], 4: sound(4)}
    book.serve(now)
    book.list(*map(section, now))
    assert book.materialize()["downloads"] == 1 and book.contents() == now
    assert book.asked() == [f"/metadata/{ITEM}", f"/download/{ITEM}/4.mp3"]
    assert len(book.partition.files) == 3 + 3


def test_a_damaged_or_missing_file_is_found_and_fetched_again_alone(local: RawBook) -> None:
    local.materialize()
    first, second, _ = local.table("recordings")["file"]
    path = local.partition.local_path(first)
    path.write_bytes(ALL[1][:-1] + b"x")
    local.partition.local_path(second).unlink()
    local.asked()
    assert local.materialize()["downloads"] == 2 and local.contents() == ALL
    assert f"/download/{ITEM}/3.mp3" not in local.asked()


def test_sections_of_equal_bytes_are_one_file(book: RawBook) -> None:
    book.serve({1: ALL[1], 2: ALL[1], 3: ALL[3]})
    book.materialize()
    assert book.contents() == {1: ALL[1], 2: ALL[1], 3: ALL[3]}
    assert len([name for name in book.partition.files if name.endswith(".mp3")]) == 2
    book.list(section(1), section(2), section(3), section(4, url=f"{book.server.url}/copy.mp3"))
    book.server.at("/copy.mp3", Answer(ALL[3]))
    book.materialize()
    assert book.contents()[4] == ALL[3] and len([n for n in book.partition.files if n.endswith(".mp3")]) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=500), "server_error"),
        (Answer(status=404), "not_found"),
        (Answer(sound(9)), "checksum_mismatch"),
        (Answer(b"<html>", headers={"Content-Type": "text/html"}), "not_audio"),
        (Answer(sound(9), announce=20 * 10**9), "too_large"),
        (Answer(status=302, headers={"Location": "http://10.0.0.1/a.mp3"}), "forbidden_url"),
    ],
)
def test_a_rejection_that_may_pass_is_tried_again_and_only_it(local: RawBook, answer: Answer, reason: str) -> None:
    path = f"/download/{ITEM}/2.mp3"
    local.server.at(path, answer)
    assert local.materialize()["rejected_by_reason"] == {reason: 1}
    assert local.contents() == {1: ALL[1], 3: ALL[3]}
    local.server.at(path, Answer(ALL[2]))
    local.asked()
    told = local.materialize()
    assert told["rejected"] == 0 and local.contents() == ALL and local.asked() == [f"/metadata/{ITEM}", path]


def test_a_book_that_was_withdrawn_is_recorded_as_gone_and_then_left_alone(local: RawBook) -> None:
    local.server.at(f"/metadata/{ITEM}", Answer(b'{"is_dark": true}'))
    assert local.materialize()["rejected_by_reason"] == {"gone": 3}
    assert local.asked() == [f"/metadata/{ITEM}"]
    assert local.materialize()["left_alone"] and local.asked() == []


def test_nothing_at_all_for_a_reason_that_may_pass_is_an_error_and_the_old_book_stays(local: RawBook) -> None:
    local.materialize()
    before = local.partition.data_version
    local.list(section(5))
    local.server.at(f"/metadata/{ITEM}", Answer(status=503))
    with pytest.raises(dg.Failure, match="HTTP 503"):
        local.materialize()
    assert local.partition.data_version == before and local.contents() == ALL


def test_metadata_that_cannot_be_had_cost_the_patience_of_one_request_a_book(local: RawBook) -> None:
    local.server.at(f"/metadata/{ITEM}", Answer(status=503))
    with pytest.raises(dg.Failure):
        local.materialize(attempts=3)
    assert local.asked() == [f"/metadata/{ITEM}"] * 3


def versions(book: RawBook, version: str | None) -> None:
    book.list(*(section(number, file_version=version) for number in ALL))


def test_another_version_of_a_file_is_asked_for_unless_its_checksum_is_known(book: RawBook) -> None:
    versions(book, "1")
    book.materialize()
    book.asked()
    versions(book, "2")
    assert book.materialize()["downloads"] == 0 and book.asked() == [f"/metadata/{ITEM}"]
    book.serve({**ALL, 2: sound(22)})
    versions(book, "3")
    assert book.materialize()["downloads"] == 1 and book.contents() == {**ALL, 2: sound(22)}
    book.asked()
    versions(book, None)
    assert book.materialize()["left_alone"] and book.asked() == []


def test_a_recording_that_cannot_be_renewed_stays_beside_its_rejection_and_is_tried_again(local: RawBook) -> None:
    versions(local, "1")
    local.materialize()
    local.serve({**ALL, 2: sound(22)})
    local.server.at(f"/download/{ITEM}/2.mp3", Answer(status=500))
    versions(local, "2")
    told = local.materialize()
    assert told["rejected_by_reason"] == {"server_error": 1} and local.contents() == ALL
    assert local.table("listing")["file_version"].to_list() == ["2", "1", "2"]
    local.server.at(f"/download/{ITEM}/2.mp3", Answer(sound(22)))
    assert local.materialize()["rejected"] == 0 and local.contents()[2] == sound(22)


# Mirrors


def mirrored(book: RawBook, *bases: str) -> RawBook:
    book.mirrors = {origin: [book.server.url + base for base in bases] for origin in ORIGINS}
    return book


def test_a_mirror_that_lacks_a_file_is_followed_by_the_next(local: RawBook) -> None:
    local.serve({1: ALL[1]}, at="/first")
    local.serve(ALL, at="/second")
    local.server.at(f"/first/metadata/{ITEM}", Answer(b"{}"))  # what a mirror says of an item it does not have
    assert mirrored(local, "/first", "/second").materialize()["rejected"] == 0
    assert local.contents() == ALL
    asked = local.asked()
    assert f"/first/download/{ITEM}/1.mp3" in asked and f"/second/download/{ITEM}/1.mp3" not in asked
    assert f"/second/download/{ITEM}/2.mp3" in asked


def test_a_mirror_that_is_down_is_waited_for_once_and_then_asked_last(local: RawBook) -> None:
    with faulty_server() as down:
        down.at(f"/metadata/{ITEM}", Answer(status=503))
        local.mirrors = {origin: [down.url, local.server.url] for origin in ORIGINS}
        assert local.materialize(attempts=3)["rejected"] == 0 and local.contents() == ALL
        assert [request.path for request in down.requests] == [f"/metadata/{ITEM}"] * 3


def test_an_origin_is_asked_only_where_it_is_in_its_own_list(local: RawBook) -> None:
    local.serve({1: ALL[1]}, at="/mirror")
    mirrored(local, "/mirror")
    assert local.materialize()["rejected_by_reason"] == {"not_found": 2}
    assert all(path.startswith("/mirror/") for path in local.asked())
    local.mirrors = {
        f"{local.server.url}/download": [f"{local.server.url}/mirror/download", f"{local.server.url}/download"]
    }
    local.list(*(section(number, url=f"{local.server.url}/download/{ITEM}/{number}.mp3") for number in ALL))
    assert local.materialize()["rejected"] == 0 and local.contents() == ALL


def test_a_mirror_whose_file_is_another_is_followed_by_one_that_has_it(local: RawBook) -> None:
    local.serve(ALL, at="/first")
    local.serve(ALL, at="/second")
    local.server.at(f"/first/download/{ITEM}/2.mp3", Answer(sound(9)))
    assert mirrored(local, "/first", "/second").materialize()["rejected"] == 0
    assert local.contents() == ALL and list((local.home / "quarantine").rglob("*.mp3")) == []


def test_what_one_mirror_sent_is_resumed_at_the_next(local: RawBook) -> None:
    local.serve(ALL, at="/first")
    local.serve(ALL, at="/second")
    cut = Answer(ALL[2], cut_after=60_000)
    local.server.at(f"/first/download/{ITEM}/2.mp3", cut, Answer(status=500))
    assert mirrored(local, "/first", "/second").materialize()["rejected"] == 0 and local.contents() == ALL
    (resumed,) = (request for request in local.server.requests if request.path == f"/second/download/{ITEM}/2.mp3")
    assert resumed.headers["Range"] == "bytes=60000-" and "If-Range" not in resumed.headers


def test_what_one_mirror_sent_is_forgotten_at_the_next_where_no_checksum_can_tell(local: RawBook) -> None:
    local.mirrors = {"https://librivox.org": [f"{local.server.url}/first", f"{local.server.url}/second"]}
    local.server.at("/first/a.mp3", Answer(b"x" * 100_000, cut_after=60_000), Answer(status=500))
    local.server.at("/second/a.mp3", Answer(ALL[1]))
    local.list(section(1, url="https://librivox.org/a.mp3"))
    local.materialize()
    assert local.contents() == {1: ALL[1]} and "Range" not in local.server.requests[-1].headers


def test_a_mirror_may_stand_alone_in_the_settings_and_several_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings(librivox={"mirrors": {"https://a": "http://b"}}).librivox.mirrors == {
        "https://a": ["http://b"]
    }
    monkeypatch.setenv("S2S_LIBRIVOX__MIRRORS", '{"https://a": ["http://b", "https://a"]}')
    mirrors = load_settings().librivox.mirrors
    assert mirrors == {"https://a": ["http://b", "https://a"]}
    assert set(Mirrors.of(mirrors).others()) == {"http://b"}  # an origin in its own list is not trusted for it


# Quarantine


@pytest.mark.parametrize(
    ("answer", "reason", "kept"),
    [
        (Answer(sound(9)), "checksum_mismatch", sound(9)),
        (Answer(b"<html>sorry"), "not_audio", b"<html>sorry"),
        (Answer(b"sorry", headers={"Content-Type": "text/html"}), "not_audio", b"sorry"),
        (Answer(b""), "empty_file", b""),
    ],
)
def test_what_came_and_was_refused_is_kept_with_its_reason_until_a_success(
    local: RawBook, answer: Answer, reason: str, kept: bytes
) -> None:
    url = f"{local.server.url}/2.mp3" if reason == "empty_file" else ""
    local.list(section(1), section(2, url=url), section(3))
    path = "/2.mp3" if url else f"/download/{ITEM}/2.mp3"
    local.server.at(path, answer)
    first = local.materialize()
    folder = local.home / "quarantine" / "deu" / "7"
    name = f"0002.{hashlib.sha256(kept).hexdigest()[:12]}.mp3"
    assert sorted(path.name for path in folder.iterdir()) == [name, f"{name}.json"]
    assert (folder / name).read_bytes() == kept and first["quarantined"] == 1
    told = json.loads((folder / f"{name}.json").read_text())
    assert (told["reason"], told["section"], told["bytes"], told["kept"]) == (reason, 2, len(kept), True)
    assert told["url"].endswith("2.mp3") and told["found"] and told["expected"] and told["language"] == "deu"
    before = (folder / f"{name}.json").read_bytes()
    local.materialize()
    assert (folder / f"{name}.json").read_bytes() == before
    local.server.at(path, Answer(ALL[2]))
    assert local.materialize()["quarantined"] == 0 and not folder.exists()


def test_a_quarantine_that_is_full_keeps_the_reason_and_not_the_file(local: RawBook) -> None:
    local.storage = {"quarantine_mb": 0}
    local.server.at(f"/download/{ITEM}/2.mp3", Answer(sound(9)))
    assert local.materialize()["quarantined"] == 1
    (left,) = (local.home / "quarantine").rglob("*.*")
    assert left.suffix == ".json" and json.loads(left.read_text())["kept"] is False


def refusal(section: int, reason: str = "damaged", book: str = "7") -> Refusal:
    return Refusal("deu", book, section, reason, found="noise", expected="speech", url="https://archive.org/a.mp3")


def test_a_quarantine_takes_a_copy_and_one_file_a_section(tmp_path: Path) -> None:
    recording = tmp_path / "a.mp3"
    recording.write_bytes(ALL[1])
    quarantine = Quarantine(tmp_path / "quarantine", 2**20)
    for reason in ("damaged", "no_speech"):
        quarantine.put(recording, refusal(3, reason))
    quarantine.put(recording, refusal(10_003))
    quarantine.put(recording, refusal(3, book="8"))
    assert [(told["section"], told["reason"]) for told in quarantine.held("deu", "7")] == [
        (3, "no_speech"),
        (10_003, "damaged"),
    ]
    quarantine.release("deu", "7", 3)
    assert [told["section"] for told in quarantine.held("deu", "7")] == [10_003] and recording.read_bytes() == ALL[1]
    assert quarantine.held("deu", "8") and not quarantine.held("eng", "7")


def test_in_a_full_quarantine_the_oldest_give_way(tmp_path: Path) -> None:
    recording = tmp_path / "a.mp3"
    recording.write_bytes(bytes(400))
    quarantine = Quarantine(tmp_path / "quarantine", 1000)
    for number in (1, 2, 3):
        told = quarantine.put(recording, refusal(number))
        os.utime(told.with_suffix(""), ns=(number, number))
    assert [told["section"] for told in quarantine.held("deu", "7")] == [2, 3]
    quarantine.put(recording, refusal(2), move=True)
    assert [told["section"] for told in quarantine.held("deu", "7")] == [2, 3] and not recording.exists()


@pytest.mark.parametrize("book", ["..", "a/b", "", ".hidden"])
def test_a_quarantine_has_no_way_out(tmp_path: Path, book: str) -> None:
    (tmp_path / "a.mp3").touch()
    with pytest.raises(LakeError, match="cannot name a folder"):
        Quarantine(tmp_path / "quarantine", 1000).put(tmp_path / "a.mp3", refusal(1, book=book))


# One writer, leftovers


def test_a_writer_that_ends_soon_is_waited_for(tmp_path: Path) -> None:
    lock, waits = tmp_path / ".7.lock", list[float]()
    with ExitStack() as first:
        first.enter_context(only_writer(lock))

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                first.close()

        with only_writer(lock, wait_s=10, sleep=wait):
            assert len(waits) == 3 and lock.read_text().startswith(f"{os.getpid()} on ")
            with (
                pytest.raises(BusyError, match=f"7 is being written by process {os.getpid()}"),
                only_writer(lock, wait_s=0),
            ):
                pass
    assert not lock.exists()


def test_a_second_writer_is_refused_and_told_who_writes(local: RawBook) -> None:
    lock = local.scratch / "deu" / ".7.lock"
    lock.parent.mkdir(parents=True)
    local.storage = {"wait_for_writer_s": 0.2}
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(f"{os.getpid()} on here")
        held.flush()
        with pytest.raises(dg.Failure, match=f"is being written by process {os.getpid()} on here"):
            local.materialize()
        assert local.asked() == []
    assert local.materialize()["rejected"] == 0 and not lock.exists()  # a lock without a holder blocks nobody


def test_what_killed_runs_left_is_gone_after_the_next(local: RawBook) -> None:
    folder = local.scratch / "deu" / "7"
    folder.mkdir(parents=True)
    for name in ("0001.mp3.part", "0009.mp3.part", "0009.mp3", ".0002.mp3.json.abc.part"):
        (folder / name).write_bytes(ALL[1][:50_000])
    local.materialize()
    assert leftovers(local.home) == [] and not folder.exists()
    (resumed,) = (request for request in local.server.requests if request.path.endswith("1.mp3"))
    assert resumed.headers["Range"] == "bytes=50000-"


def test_a_run_that_fails_keeps_what_it_will_go_on_from_and_nothing_else(local: RawBook) -> None:
    folder = local.scratch / "deu" / "7"
    folder.mkdir(parents=True)
    for name in ("0001.mp3.part", "0009.mp3.part", ".0002.mp3.json.abc.part"):
        (folder / name).write_bytes(ALL[1][:50_000])
    for number in ALL:
        local.server.at(f"/download/{ITEM}/{number}.mp3", Answer(status=503))
    with pytest.raises(dg.Failure, match="HTTP 503"):
        local.materialize()
    assert [path.name for path in folder.iterdir()] == ["0001.mp3.part"]


def test_leftovers_go_also_where_the_book_is_left_alone(local: RawBook) -> None:
    local.materialize()
    folder = local.scratch / "deu" / "7"
    folder.mkdir(parents=True)
    (folder / "0001.mp3").write_bytes(ALL[1])
    generation = Path(str(local.partition.folder)).with_name("f" * 32)
    generation.mkdir()
    assert local.materialize()["left_alone"]
    assert not folder.exists() and not generation.exists()


def test_a_file_of_no_known_checksum_that_a_killed_run_had_whole_is_not_fetched_again(local: RawBook) -> None:
    url = local.server.at("/a.mp3", Answer(ALL[1]))
    local.server.at("/b.mp3", Answer(status=500))
    local.list(section(1, url=url))
    folder = local.scratch / "deu" / "7"
    folder.mkdir(parents=True)
    (folder / "0001.mp3").write_bytes(ALL[1])
    record = {"url": url, "file_version": None, "bytes": len(ALL[1]), "sha256": hashlib.sha256(ALL[1]).hexdigest()}
    (folder / "0001.mp3.json").write_text(json.dumps(record))
    local.materialize()
    assert local.asked() == [] and local.contents() == {1: ALL[1]}
    local.list(section(1, url=url, file_version="2"))
    folder.mkdir(parents=True)
    (folder / "0001.mp3").write_bytes(ALL[1])
    (folder / "0001.mp3.json").write_text(json.dumps(record))
    local.materialize()
    assert local.asked() == ["/a.mp3"]  # the record was of another version


# Disks


def test_a_disk_without_room_for_the_book_and_the_reserve_is_told_before_anything_is_fetched(local: RawBook) -> None:
    free_mb = shutil.disk_usage(local.home).free // 2**20
    local.storage = {"reserve_mb": free_mb + 100_000}
    with pytest.raises(dg.Failure, match=r"The book wants 0\.3 MB and the disk of scratch .* has [0-9.]+ MB free"):
        local.materialize()
    assert local.asked() == [f"/metadata/{ITEM}"] and leftovers(local.home) == []


def test_what_a_book_wants_is_told_by_its_seconds_where_no_size_is_known_less_what_is_there(local: RawBook) -> None:
    url = local.server.at("/a.mp3", Answer(ALL[1]))
    local.list(section(1, url=url, duration_s=10**9), section(2, url=f"{url}?2", duration_s=10**9 // 8))
    with pytest.raises(dg.Failure, match=r"wants 1000000\.0 MB"):  # of section 1 more than may be received is wanted
        local.materialize(max_recording_mb=2**20)
    assert local.asked() == []
    local.list(section(1, duration_s=10**9))  # archive.org knows better
    assert local.materialize()["rejected"] == 0


UNDER_LIMIT = """
import resource, sys
from pathlib import Path
import dagster as dg
from tests.raw_book import RawBook
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
class Server:
    url = sys.argv[3]
try:
    RawBook(Server, sys.argv[2] + "/lake", Path(sys.argv[2])).materialize()
except dg.Failure as failure:
    print(failure.description)
"""


def under_limit(book: RawBook, limit_bytes: int) -> str:
    """What a run says whose files may not grow beyond a limit."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", UNDER_LIMIT, str(limit_bytes), str(book.home), book.server.url],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_disk_that_is_full_in_the_middle_is_told_and_the_next_run_goes_on_from_there(local: RawBook) -> None:
    large = sound(4, 3_000_000)
    local.materialize()
    before = local.partition.data_version
    local.asked()
    local.serve({**ALL, 4: large})
    local.list(*map(section, (1, 2, 3, 4)))
    said = under_limit(local, 2_000_000)
    assert "could not be written: File too large" in said and "run the same again" in said
    assert local.partition.data_version == before and local.contents() == ALL
    part = local.scratch / "deu" / "7" / "0004.mp3.part"
    assert 1_000_000 < part.stat().st_size <= 2_000_000
    had = part.stat().st_size
    local.materialize()
    assert local.server.requests[-1].headers["Range"] == f"bytes={had}-" and local.contents()[4] == large
    assert leftovers(local.home) == []


# Files of this machine


def test_files_of_this_machine_are_copied_and_edits_are_found(local: RawBook, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "kapitel #1.mp3"
    mine.parent.mkdir()
    mine.write_bytes(ALL[1])
    local.catalogue_url = str(tmp_path / "mine")
    local.list(section(1, url=mine.as_uri(), file_version="1"))
    told = local.materialize()
    assert local.contents() == {1: ALL[1]} and told["downloads"] == 0 and told["rejected"] == 0
    mine.write_bytes(ALL[2])
    assert local.contents() == {1: ALL[1]}
    assert local.materialize()["left_alone"]
    local.list(section(1, url=mine.as_uri(), file_version="2"))
    local.materialize()
    assert local.contents() == {1: ALL[2]} and local.asked() == []


def test_files_of_this_machine_are_forbidden_to_a_catalogue_of_a_server(local: RawBook, tmp_path: Path) -> None:
    (tmp_path / "secret.mp3").write_bytes(ALL[1])
    local.list(section(1, url=(tmp_path / "secret.mp3").as_uri()))
    assert local.materialize()["rejected_by_reason"] == {"forbidden_url": 1}


def test_a_file_of_this_machine_that_cannot_be_used_is_a_rejection(local: RawBook, tmp_path: Path) -> None:
    local.catalogue_url = tmp_path.as_uri()
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "page.mp3").write_bytes(b"<html>")
    (tmp_path / "large.mp3").write_bytes(bytes(2**20 + 1))
    urls = [
        *(tmp_path.joinpath(name).as_uri() for name in ("empty.mp3", "page.mp3", "large.mp3", "nothing.mp3")),
        "file:///dev/zero", "file://server/share/a.mp3", f"{tmp_path.as_uri()}/x/../empty.mp3", tmp_path.as_uri(),
    ]  # fmt: skip
    local.list(*(section(number, url=url) for number, url in enumerate(urls, start=1)))
    local.materialize(max_recording_mb=1)
    reasons = dict(local.table("rejections").select("section", "reason").iter_rows())
    assert list(reasons.values()) == [
        "empty_file", "not_audio", "too_large", "not_found", "forbidden_url", "forbidden_url", "forbidden_url",
        "forbidden_url",
    ]  # fmt: skip
