from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speech_mining.errors import SettingsError
from speech_mining.text.readers import Passage, ShardError, Unread, list_shards, open_shard
from tests.faulty_server import Answer, faulty_server

LINES = ["Erste Zeile.", "Zweite Zeile mit Ä, 😀 und \u2028 darin.", "", "Vierte."]
PLAIN = "\n".join(LINES).encode()


def texts(passages: list[Passage]) -> list[str]:
    return [passage.text for passage in passages]


def read(path: Path, **options: object) -> tuple[list[Passage], list[Unread]]:
    told: list[Unread] = []
    return list(open_shard(str(path), tell=told.append, **options)), told  # type: ignore[arg-type]


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "packed",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN + b"\n",
        gzip.compress(PLAIN),
        gzip.compress(PLAIN[:20]) + gzip.compress(PLAIN[20:]),
        lzma.compress(PLAIN[:20]) + lzma.compress(PLAIN[20:]),
        bz2.compress(PLAIN[:20]) + bz2.compress(PLAIN[20:]),
        pa.compress(PLAIN[:20], codec="zstd", asbytes=True) + pa.compress(PLAIN[20:], codec="zstd", asbytes=True),
    ],
    ids=["plain", "mark", "crlf", "final", "gzip", "members", "xz", "bzip2", "zstd"],
)
def test_a_line_is_the_same_however_it_is_packed(tmp_path: Path, packed: bytes) -> None:
    passages, told = read(written(tmp_path / "no_suffix", packed))
    assert texts(passages) == LINES
    assert [passage.line for passage in passages] == [1, 2, 3, 4]
    assert {passage.document for passage in passages} == {"no_suffix"}
    assert not told


def test_an_empty_shard_has_no_passages(tmp_path: Path) -> None:
    for content in (b"", gzip.compress(b"")):
        assert read(written(tmp_path / "empty", content)) == ([], [])


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (gzip.compress, zlib.decompressobj(31).decompress),
        (lzma.compress, lzma.LZMADecompressor().decompress),
        (bz2.compress, bz2.BZ2Decompressor().decompress),
    ],
)
def test_a_shard_cut_short_gives_every_line_before_the_cut_and_one_damage(  # type: ignore[no-untyped-def]
    tmp_path: Path, pack, unpack
) -> None:
    lines = [f"Zeile {number} {number * 7919 % 10007}" for number in range(120_000)]
    whole = pack("\n".join(lines).encode())
    cut = whole[: len(whole) * 2 // 3]
    passages, told = read(written(tmp_path / "cut", cut))
    assert texts(passages) == lines[: unpack(cut).count(b"\n")] and len(passages) > 10_000
    assert [(one.reason, one.line) for one in told] == [("damaged", len(passages) + 1)]


def test_zstandard_cut_short_loses_no_more_than_a_piece(tmp_path: Path) -> None:
    lines = [f"Zeile {number} {number * 7919 % 10007}" for number in range(200_000)]
    whole = pa.compress("\n".join(lines).encode(), codec="zstd", asbytes=True)
    passages, told = read(written(tmp_path / "cut.zst", whole[: len(whole) // 2]))
    assert texts(passages) == lines[: len(passages)] and len(passages) > 50_000
    assert [one.reason for one in told] == ["damaged"]


def test_a_line_too_long_is_passed_over_and_counted(tmp_path: Path) -> None:
    content = b"vorher\n" + b"x" * 5000 + b"\nnachher\n" + b"y" * 100 + b"\r\n" + b"z" * 101
    passages, told = read(written(tmp_path / "long", content), most_line_bytes=100)
    assert texts(passages) == ["vorher", "nachher", "y" * 100]
    assert [passage.line for passage in passages] == [1, 3, 4]
    assert [(one.reason, one.line, one.bytes) for one in told] == [
        ("too_long_line", 2, 5000),
        ("too_long_line", 5, 101),
    ]


def test_bytes_that_are_no_utf8_are_marked_where_they_stand(tmp_path: Path) -> None:
    passages, _ = read(written(tmp_path / "latin1", "für\nohne".encode("latin-1")))
    assert texts(passages) == ["f\ufffdr", "ohne"]


def test_utf16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="UTF-16"):
        read(written(tmp_path / "wide", "Guten Tag".encode("utf-16")))


def test_a_format_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="lines, paragraphs"):
        read(written(tmp_path / "a", "b"), format="xml")


def test_a_shard_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="cannot be read"):
        read(tmp_path / "absent.gz")


def test_a_meta_file_gives_each_line_its_document(tmp_path: Path) -> None:
    meta = written(tmp_path / "m.gz", gzip.compress(b"http://a\t1\nhttp://b\nhttp://c\nhttp://d\n"))
    shard = written(tmp_path / "s", PLAIN)
    passages, _ = read(shard, meta=str(meta), format="lines")
    assert [passage.document for passage in passages] == ["http://a\t1", "http://b", "http://c", "http://d"]
    assert all(passage.is_sentence for passage in passages)


def test_a_meta_file_keeps_step_over_lines_that_are_too_long(tmp_path: Path) -> None:
    meta = written(tmp_path / "m", "eins\nzwei\ndrei\nvier\n")
    shard = written(tmp_path / "s", "a\n" + "b" * 100 + "\nc\n" + "d" * 100 + "\n")
    passages, _ = read(shard, meta=str(meta), most_line_bytes=10)
    assert [(passage.text, passage.document) for passage in passages] == [("a", "eins"), ("c", "drei")]


@pytest.mark.parametrize(("meta", "found"), [("1\n2\n3\n", "no line 4"), ("1\n2\n3\n4\n5\n", "line 5")])
def test_a_meta_file_of_another_length_is_an_error(tmp_path: Path, meta: str, found: str) -> None:
    about = written(tmp_path / "m", meta)
    with pytest.raises(ShardError, match=found):
        read(written(tmp_path / "s", PLAIN), meta=str(about))


def test_a_damaged_shard_is_not_held_against_its_meta_file(tmp_path: Path) -> None:
    about = written(tmp_path / "m", "\n" * 100_000)
    packed = gzip.compress(b"".join(b"%d\n" % (number * 7919 % 10007) for number in range(100_000)))
    passages, told = read(written(tmp_path / "s", packed[: len(packed) // 2]), meta=str(about))
    assert passages and [one.reason for one in told] == ["damaged"]


def test_json_lines_of_ccnet_oscar_and_mc4_are_read_by_their_own_keys(tmp_path: Path) -> None:
    records = [
        {"raw_content": "Guten Tag.\nNoch eine Zeile.", "url": "http://ccnet", "language": "de", "nlines": 2},
        {
            "content": "Guten Abend.",
            "warc_headers": {"warc-target-uri": "http://oscar22", "warc-identified-content-language": "eng,deu"},
            "metadata": {"identification": {"label": "de", "prob": 0.9}, "annotation": None},
        },
        {"id": 7, "text": "Alt.", "meta": {"warc_headers": {"warc-target-uri": "http://oscar2109"}}},
        {"text": "Bonjour.", "timestamp": "2019-04-25T12:57:54Z", "url": "http://mc4"},
        {"text": "Lone \ud83d surrogate", "id": "x"},
        {"text": "no document"},
    ]
    shard = written(tmp_path / "s.jsonl", "\n".join(json.dumps(one) for one in records))
    passages, told = read(shard)
    assert [(one.document, one.language) for one in passages] == [
        ("http://ccnet", "deu"),
        ("http://oscar22", "deu"),
        ("http://oscar2109", None),
        ("http://mc4", None),
        ("x", None),
        ("s.jsonl", None),
    ]
    assert passages[0].text == records[0]["raw_content"]
    assert passages[4].text == "Lone \ufffd\ufffd\ufffd surrogate"
    assert not told


def test_json_that_is_no_record_is_counted_with_its_line(tmp_path: Path) -> None:
    lines = ['{"text": "gut"}', "{broken", "[1, 2]", '{"text": 5}', "", "[" * 100_000, '{"text": "auch"}']
    passages, told = read(written(tmp_path / "s.json.gz", gzip.compress("\n".join(lines).encode())))
    assert [(one.text, one.line) for one in passages] == [("gut", 1), ("auch", 7)]
    assert [(one.reason, one.line) for one in told] == [("malformed", line) for line in (2, 3, 4, 6)]


def record(kind: str, body: bytes, *headers: str) -> bytes:
    lines = ["WARC/1.0", f"WARC-Type: {kind}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body + b"\r\n\r\n"


def wet(count: int) -> list[bytes]:
    about = "WARC-Identified-Content-Language: deu,eng"
    bodies = [f"Seite {number}\nMit Text über Öl.".encode() for number in range(count)]
    return [
        record("warcinfo", b"Software-Info: none"),
        *(record("conversion", body, f"WARC-Target-URI: http://x/{i}", about) for i, body in enumerate(bodies)),
    ]


def test_wet_records_are_documents_with_their_url_and_language(tmp_path: Path) -> None:
    shard = written(tmp_path / "s.warc.wet.gz", b"".join(gzip.compress(one) for one in wet(3)))
    passages, told = read(shard)
    assert [(one.document, one.line, one.language) for one in passages] == [
        (f"http://x/{number}", number + 2, "deu") for number in range(3)
    ]
    assert passages[1].text == "Seite 1\nMit Text über Öl."
    assert not told


def test_a_wet_archive_cut_anywhere_gives_no_half_document_and_tells(tmp_path: Path) -> None:
    first, second = b"".join(wet(1)), wet(2)[2]
    for place in range(len("WARC/1"), len(second) - len("\r\n\r\n")):
        passages, told = read(written(tmp_path / "s.wet", first + second[:place]))
        assert texts(passages) == ["Seite 0\nMit Text über Öl."], place
        assert [one.reason for one in told] == ["damaged"], place


def test_a_wet_record_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    records = [*wet(1), record("conversion", b"x" * 1000), *wet(1)[1:]]
    passages, told = read(written(tmp_path / "s.wet", b"".join(records)), most_line_bytes=100)
    assert len(passages) == 2 and [(one.reason, one.line) for one in told] == [("too_long_line", 3)]


def test_web_pages_of_a_warc_become_their_main_text(tmp_path: Path) -> None:
    page = (
        "<html><head><title>T</title><script>var x;</script></head><body><nav><a href=/>Start</a></nav><article>"
        "<p>Das ist ein <b>guter</b> Satz über Öl.</p><p>Zweiter Absatz.</p></article></body></html>"
    ).encode("latin-1")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=ISO-8859-1\r\n\r\n"
    picture = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG"
    absent = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<p>Nicht da."
    about = ("WARC-Target-URI: http://x/seite", "Content-Type: application/http; msgtype=response")
    records = [record("response", one, *about) for one in (head + page, picture, absent)]
    passages, told = read(written(tmp_path / "s.warc.gz", b"".join(gzip.compress(one) for one in records)))
    assert [(one.document, one.line) for one in passages] == [("http://x/seite", 1)]
    assert passages[0].text.split("\n\n") == ["Das ist ein guter Satz über Öl.", "Zweiter Absatz."]
    assert not told


def test_rows_of_parquet_are_documents_over_row_groups(tmp_path: Path) -> None:
    rows = [{"text": f"Text {i}.", "url": f"http://x/{i}", "language": "fra", "n": i} for i in range(300)]
    rows[7]["text"] = None  # type: ignore[assignment]
    rows[9]["text"] = "x" * 1000
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet", row_group_size=77)
    passages, told = read(tmp_path / "s.parquet", most_line_bytes=100)
    assert len(passages) == 298
    assert passages[-1] == Passage("Text 299.", "http://x/299", 300, "fra")
    assert [(one.reason, one.line) for one in told] == [("malformed", 8), ("too_long_line", 10)]


def test_parquet_with_text_that_is_no_utf8_is_marked_not_refused(tmp_path: Path) -> None:
    column = pa.array([b"gut", b"f\xfcr", None]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column, "url": ["a", "b", "c"]}), tmp_path / "s.parquet")
    passages, told = read(tmp_path / "s.parquet")
    assert [(one.text, one.document) for one in passages] == [("gut", "a"), ("f\ufffdr", "b")]
    assert [one.reason for one in told] == ["malformed"]


def test_parquet_cut_short_is_an_error_that_says_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 1000}), tmp_path / "s.parquet")
    written(tmp_path / "cut.parquet", (tmp_path / "s.parquet").read_bytes()[:-20])
    with pytest.raises(ShardError, match="cut short"):
        read(tmp_path / "cut.parquet")


def test_progress_ends_at_the_bytes_of_the_packed_file(tmp_path: Path) -> None:
    content = os.urandom(3_000_000).hex().encode()
    told: list[tuple[int, int]] = []
    path = written(
        tmp_path / "s", gzip.compress(b"\n".join(content[i : i + 99] for i in range(0, len(content), 99)), 1)
    )
    list(open_shard(str(path), progress=lambda done, total: told.append((done, total))))
    size = path.stat().st_size
    assert told == sorted(told) and told[-1] == (size, size) and len(told) >= 3


def test_shards_are_read_over_http_and_a_broken_connection_is_no_damage() -> None:
    body = gzip.compress(b"".join(b"Zeile %d\n" % (number * 7919 % 10007) for number in range(500_000)), 1)
    with faulty_server() as server:
        whole = server.at("/whole.gz", Answer(body))
        assert sum(1 for _ in open_shard(whole)) == 500_000
        cut = server.at("/cut.gz", Answer(body, cut_after=len(body) // 2))
        told: list[Unread] = []
        with pytest.raises(ShardError, match="cannot be read"):
            list(open_shard(cut, tell=told.append))
        assert not told


MEMORY = """
import resource, sys
from speech_mining.text.readers import open_shard
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
small, big = sys.argv[1:]
sum(1 for _ in open_shard(small))
before = peak()
told = []
passages = sum(1 for _ in open_shard(big, tell=told.append))
print(passages, [one.reason for one in told], peak() - before)
"""


def test_memory_does_not_grow_with_the_shard_nor_with_a_line(tmp_path: Path) -> None:
    small = written(tmp_path / "small.gz", gzip.compress(b"eins\nzwei\n"))
    with gzip.open(tmp_path / "big.gz", "wb", 1) as big:
        for _ in range(100):
            big.write(b"x" * 1_000_000)
        big.write(b"\n")
        for _ in range(10):
            big.write((b"y" * 9_999 + b"\n") * 1000)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(small), str(tmp_path / "big.gz")], capture_output=True, text=True, check=True
    )
    passages, reasons, grown_mib = done.stdout.replace("['too_long_line']", "too_long_line").split()
    assert (passages, reasons) == ("10000", "too_long_line")
    assert int(grown_mib) < 40, "200 MB of text, one line of 100 MB"


def test_the_shards_of_a_folder_a_glob_and_a_list_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "deu"
    (folder / "sub").mkdir(parents=True)
    for name in ("s10.txt.gz", "s9.txt.gz", "sub/s9.txt.gz"):
        written(folder / name, gzip.compress(b"eins"))
    for name in (".hidden", "_SUCCESS", "s9.meta.gz", "README.md"):
        written(folder / name, b"no shard")
    listed = written(
        tmp_path / "all.paths", "deu/s9.txt.gz\n# remark\n\ndeu/s10.txt.gz\n" + f"{folder}/sub/s9.txt.gz\n"
    )
    found = list_shards(str(folder), "deu")
    assert [Path(one.address).relative_to(folder).as_posix() for one in found] == [
        "s9.txt.gz",
        "s10.txt.gz",
        "sub/s9.txt.gz",
    ]
    assert len({one.name for one in found}) == 3
    assert {one.address for one in list_shards(str(listed), "deu")} == {one.address for one in found}
    assert list_shards(f"{folder}/s*.txt.gz", "deu") == [one for one in found if "/sub/" not in one.address]
    assert list_shards(found[0].address, "deu") == [found[0]]


def test_a_changed_shard_keeps_its_name_and_has_another_version(tmp_path: Path) -> None:
    path = written(tmp_path / "Wörter 1.txt", b"eins")
    before = list_shards(str(path), "deu")[0]
    written(path, b"drei")
    os.utime(path, ns=(1, 1))
    after = list_shards(str(path), "deu")[0]
    assert before.name == after.name and before.name.startswith("Worter-1.txt-")
    assert before.version != after.version and before.bytes == after.bytes == 4


def test_the_lines_of_common_crawls_lists_lie_where_their_folder_lies() -> None:
    with faulty_server() as server:
        name = "crawl-data/CC-MAIN-2023-06/segments/1/wet/a.warc.wet.gz"
        listed = server.at("/crawl-data/CC-MAIN-2023-06/wet.paths.gz", Answer(gzip.compress(name.encode() + b"\n")))
        server.at(f"/{name}", Answer(gzip.compress(b"".join(wet(2))), headers={"ETag": '"abc"'}))
        shards = list_shards(listed, "deu")
        assert [one.address for one in shards] == [f"{server.url}/{name}"]
        assert len(list(open_shard(shards[0].address))) == 2


def test_what_holds_no_shard_or_other_meta_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no shard"):
        list_shards(str(tmp_path), "deu")
    for name in ("a.txt", "b.txt", "a.meta"):
        written(tmp_path / name, b"eins")
    with pytest.raises(SettingsError, match="one for each"):
        list_shards(f"{tmp_path}/*.txt", "deu", meta=f"{tmp_path}/*.meta")
    with pytest.raises(ShardError, match="twice"):
        list_shards(str(written(tmp_path / "x.list", "a.txt\na.txt\n")), "deu")
