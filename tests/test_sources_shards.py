from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import CatalogueError
from speech_mining.sources.stopes_shards import StopesShards, read_segments
from tests.test_sources_folder import lay, listed, opened, read, rejected

SHARD = "a.mp3 100 29432 0\na.mp3 100 39834 0\nb.mp3 60383 87443 1\n"


def shard(root: Path, text: str = SHARD, name: str = "deu/tales.tsv", audio: tuple[str, ...] = ("a", "b")) -> Path:
    lay(root, *(f"{Path(name).parent}/{stem}.mp3" for stem in audio))
    (root / name).write_bytes(text.encode())
    return root / name


def test_a_shard_is_a_book_and_each_of_its_files_a_section_with_its_spans(tmp_path: Path) -> None:
    shard(tmp_path)
    found = read(tmp_path)
    assert listed(found) == [("deu", "tales", 1), ("deu", "tales", 2)]
    assert found.timestamps.rows() == [
        ("tales", 1, 100, 29_432),
        ("tales", 1, 100, 39_834),
        ("tales", 2, 60_383, 87_443),
    ]
    assert found.sections["listen_url"].to_list() == [(tmp_path / f"deu/{x}.mp3").as_uri() for x in "ab"]
    assert found.sections["title"].unique().to_list() == ["tales"] and None not in found.sections["file_version"]
    assert (found.books, found.whole) == (1, True) and found.rejections.is_empty()


@pytest.mark.parametrize("pack", ["", ".gz", ".zst"])
def test_one_shard_may_be_given_alone_and_packed(tmp_path: Path, pack: str) -> None:
    plain = shard(tmp_path)
    path = plain.with_name(f"tales.tsv{pack}")
    if pack == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    if pack == ".zst":
        path.write_bytes(pa.compress(plain.read_bytes(), codec="zstd", asbytes=True))
    whole = read(tmp_path) if not pack else None
    found = read(path)
    assert listed(found) == [("deu", "tales", 1), ("deu", "tales", 2)] and found.timestamps.height == 3
    assert whole is None or whole.sections.equals(found.sections)


@pytest.mark.parametrize(
    ("line", "segment"),
    [
        ("x.mp3 10 15", ("x.mp3", 10, 15)),
        ("x.mp3 10 15 32", ("x.mp3", 10, 15)),
        ("x.mp3 10 15 -1", ("x.mp3", 10, 15)),
        ("x.mp3|10|15", ("x.mp3", 160, 240)),
        ("x.mp3|10|15|16", ("x.mp3", 160, 240)),
        ("x.mp3|10|15|48", ("x.mp3", 160, 240)),
        ("a path/x y.mp3|10|15", ("a path/x y.mp3", 160, 240)),
        ("x.mp3\t10\t15\t0", ("x.mp3", 10, 15)),
        ("0.98\tx.mp3 10 15 0\teng", ("x.mp3", 10, 15)),
        ("1.25\tx.mp3|10|15|16\teng", ("x.mp3", 160, 240)),
    ],
)
def test_both_grammars_are_read_as_stopes_reads_them(line: str, segment: tuple[str, int, int]) -> None:
    read_one, refused = read_segments([line], None)
    assert read_one.rows() == [(1, *segment)] and refused.is_empty()


@pytest.mark.parametrize(
    ("header", "unit", "span"),
    [
        ("audio start end batch_no", None, (10, 20)),
        ("audio start_ms end_ms", None, (160, 320)),
        ("path\tstart_frame\tend_frame\tbatch_no", None, (10, 20)),
        ("audio start end", "ms", (160, 320)),
        ("audio start_ms end_ms", "frames", (10, 20)),
    ],
)
def test_the_header_tells_the_unit_and_the_user_overrules_it(
    header: str, unit: str | None, span: tuple[int, int]
) -> None:
    found, refused = read_segments([header, "x.mp3 10 20 0"], unit)  # type: ignore[arg-type]
    assert found.rows() == [(2, "x.mp3", *span)] and refused.is_empty()


def test_frames_with_the_bar_of_older_releases_are_read_where_the_address_says_so(tmp_path: Path) -> None:
    path = shard(tmp_path, "a.mp3|1600|3200|16\n")
    assert read(path).timestamps.rows() == [("tales", 1, 25_600, 51_200)]
    assert read(f"{path}?unit=frames").timestamps.rows() == [("tales", 1, 1600, 3200)]
    source = opened(f"{tmp_path}?unit=frames")
    assert isinstance(source, StopesShards) and source.unit == "frames"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a.mp3", "neither"),
        ("a.mp3 10", "neither"),
        ("a.mp3 10 15 20 30", "neither"),
        ("a.mp3 10|15 20", "neither"),
        ("a.mp3 start 10 15", "neither"),
        ("a.mp3:2048:4096", "neither"),
        ("a file.mp3 10 15 0", "neither"),
        ("a.mp3 1.5 2.5 0", "neither"),
        ("a.mp3 10 99999999999999999999", "neither"),
        ("a.mp3 29432 100 0", "reversed"),
        ("a.mp3 5 5 0", "empty"),
        ("a.mp3 -5 5 0", "negative"),
        ("a.mp3 0 -1 0", "negative"),
        ("b.mp3 1 2 7", "same segment"),
        ("a.mp3 \udcff 1 2", "neither"),
    ],
)
def test_a_line_that_is_no_segment_is_a_rejection_with_its_number(tmp_path: Path, line: str, told: str) -> None:
    path = shard(tmp_path)
    path.write_bytes(f"b.mp3 1 2 0\n\n{line}\n".encode("utf-8", "surrogateescape"))
    found = read(path)
    assert found.timestamps.rows() == [("tales", 1, 1, 2)]
    assert [row[::2] for row in rejected(found)] == [("tales", "malformed")]
    assert found.rejections["detail"][0].startswith("line 3: ") and told in found.rejections["detail"][0]


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    found = read(shard(tmp_path, "audio start end\r\na.mp3 1 2\r\nb.mp3\t3\t4\r\n"))
    assert found.timestamps.rows() == [("tales", 1, 1, 2), ("tales", 2, 3, 4)] and found.rejections.is_empty()


def test_a_span_that_is_refused_tells_its_samples(tmp_path: Path) -> None:
    found = read(shard(tmp_path, "a.mp3 1 2 0\na.mp3|10|5\n"))
    assert found.rejections.select("start_sample", "end_sample").rows() == [(160, 80)]


def test_a_file_that_cannot_be_had_is_one_rejection_and_keeps_its_number(tmp_path: Path) -> None:
    path = shard(tmp_path, "gone.mp3 1 2 0\ngone.mp3 3 4 0\n/etc/passwd 1 2 0\na.mp3 1 2 0\n")
    found = read(path)
    assert listed(found) == [("deu", "tales", 3)] and found.timestamps.rows() == [("tales", 3, 1, 2)]
    assert rejected(found) == [("tales", 1, "not_found"), ("tales", 2, "not_audio")]
    assert "2 lines from line 1" in found.rejections["detail"][0]


def test_shards_of_one_name_in_two_languages_keep_their_spans_apart_whatever_is_wanted(tmp_path: Path) -> None:
    shard(tmp_path, name="deu/0.tsv")
    shard(tmp_path, "a.mp3 7 8 0\n", name="eng/0.tsv", audio=("a",))
    shard(tmp_path, name="xyzzyan/0.tsv")
    found = read(tmp_path, {"eng"})
    assert listed(found) == [("eng", "0.eng", 1)] and found.timestamps.rows() == [("0.eng", 1, 7, 8)]
    assert sorted(row[2] for row in rejected(found)) == ["language_not_wanted", "unknown_language"]
    assert {row[1] for row in listed(read(tmp_path))} == {"0.deu", "0.eng"}


def test_the_same_shard_plain_and_packed_is_taken_once_and_told(tmp_path: Path) -> None:
    path = shard(tmp_path)
    path.with_name("tales.tsv.gz").write_bytes(gzip.compress(path.read_bytes()))
    found = read(tmp_path)
    assert found.timestamps.height == 3 and rejected(found) == [(None, None, "malformed")]


def test_a_shard_that_cannot_be_unpacked_is_a_clear_error(tmp_path: Path) -> None:
    path = shard(tmp_path)
    for suffix in (".gz", ".zst"):
        packed = path.with_name(f"other.tsv{suffix}")
        packed.write_bytes(b"this is not packed")
        with pytest.raises(CatalogueError, match="cannot be read"):
            read(packed)


NUMBERS = st.integers(-2, 10**6).map(str) | st.sampled_from(["x", "", "1e3"])
LINES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c d", ""]), NUMBERS, NUMBERS, st.sampled_from([" ", "|", "\t"])), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_every_line_is_a_segment_or_a_rejection_and_agrees_with_a_plain_reading(
    lines: list[tuple[str, str, str, str]],
) -> None:
    found, refused = read_segments([sep.join((audio, start, end)) for audio, start, end, sep in lines], None)
    assert sorted([*found["line"], *refused["line"]]) == [n for n, line in enumerate(lines, 1) if "".join(line).strip()]
    said: set[tuple[str, int, int]] = set()
    for audio, start, end, sep in lines:
        if all(text.lstrip("-").isdigit() for text in (start, end)) and audio and not (sep == " " and " " in audio):
            factor = 16 if sep == "|" else 1
            if 0 <= int(start) < int(end):
                said.add((audio, int(start) * factor, int(end) * factor))
    assert set(found.drop("line").rows()) == said
