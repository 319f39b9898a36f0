from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speech_mining.errors import CatalogueError
from speech_mining.records import AUDIOBOOK_ID
from speech_mining.sources.manifest import Manifest
from speech_mining.sources.protocol import Catalogue
from tests.test_sources_folder import lay, listed, opened, read, rejected

ARCHIVE = "https://archive.org/download/tales/"


def written(folder: Path, *rows: str, header: str = "url\tlanguage\tbook\tsection", name: str = "m.tsv") -> Path:
    path = folder / name
    path.write_bytes("\n".join([header, *rows]).encode("utf-8", "surrogateescape") + b"\n")
    return path


def spans(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    return catalogue.timestamps.rows()


def test_a_manifest_lists_files_and_addresses_by_language_book_and_section(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.mp3")
    path = written(tmp_path, f"{ARCHIVE}2.mp3\tGerman\tTales\t2", "a/1.mp3\tde\tTales\t1", f"{ARCHIVE}9.mp3\teng\t9\t1")
    found = read(path)
    assert listed(found) == [("deu", "Tales", 1), ("deu", "Tales", 2), ("eng", "9", 1)]
    local, remote = found.sections.filter(pl.col("language") == "deu").rows(named=True)
    assert local["listen_url"] == (tmp_path / "a/1.mp3").as_uri() and local["file_version"]
    assert remote["listen_url"] == f"{ARCHIVE}2.mp3" and remote["file_version"] is None
    assert (found.books, found.whole) == (2, True) and found.rejections.is_empty() and found.timestamps.is_empty()


def test_optional_columns_fill_the_catalogue_and_seconds_become_samples(tmp_path: Path) -> None:
    lay(tmp_path, "1.mp3")
    header = "url,language,book,title,section_title,authors,readers,license,duration_s,start,end,colour"
    line = '1.mp3,deu,b,"A, ""title""",One,Kleist,Ann,CC0,61.4,0.25,3.5,blue'
    found = read(written(tmp_path, line, header=header, name="m.csv"))
    (row,) = found.sections.rows(named=True)
    told = [row[name] for name in ("title", "section_title", "authors", "readers", "licence", "duration_s")]
    assert told == ['A, "title"', "One", "Kleist", "Ann", "CC0", 61]
    assert spans(found) == [("b", 1, 4000, 56_000)]


def test_several_lines_of_one_address_are_spans_of_one_section_numbered_by_first_line(tmp_path: Path) -> None:
    lay(tmp_path, "x.mp3", "a.mp3")
    rows = ["x.mp3\tdeu\tb\t5\t6", "a.mp3\tdeu\tb\t1\t2", "x.mp3\tdeu\tb\t1.5\t3"]
    found = read(written(tmp_path, *rows, header="url\tlanguage\tbook\tstart\tend"))
    assert [Path(url).name for url in found.sections["listen_url"]] == ["x.mp3", "a.mp3"]
    assert spans(found) == [("b", 1, 24_000, 48_000), ("b", 1, 80_000, 96_000), ("b", 2, 16_000, 32_000)]


def test_the_same_manifest_packed_or_as_parquet_says_the_same(tmp_path: Path) -> None:
    lay(tmp_path, "1.mp3", "2.mp3")
    plain = written(tmp_path, "1.mp3\tdeu\tb\t1", "2.mp3\tdeu\tb\t2")
    packed = tmp_path / "packed.tsv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "m.parquet"
    pl.read_csv(plain, separator="\t").write_parquet(table)
    frames = [read(path).sections for path in (plain, packed, table)]
    assert frames[0].equals(frames[1]) and frames[0].equals(frames[2]) and frames[0].height == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ok.mp3\tdeu\tb\t2\textra", "malformed"),
        ("ok.mp3\tdeu", "malformed"),
        ("\tdeu\tb\t2", "malformed"),
        ("ok.mp3\tdeu\t\t2", "malformed"),
        ("ok.mp3\tdeu\tb\ttwo", "malformed"),
        ("ok.mp3\tdeu\tb\t-1", "malformed"),
        ("ok.mp3\tdeu\tb\t1000000", "malformed"),
        ("ok.mp3\tdeu\tb\t1", "malformed"),
        ("ok.mp3\tdeu\tb\t", "malformed"),
        ("ok.mp3\txyzzyan\tb\t2", "unknown_language"),
        ("ok.mp3\tMultilingual\tb\t2", "unknown_language"),
        ("ok.mp3\t\tb\t2", "unknown_language"),
        ("ok.mp3\teng\tc\t2", "language_not_wanted"),
        ("absent.mp3\tdeu\tb\t2", "not_found"),
        ("empty.mp3\tdeu\tb\t2", "empty_file"),
        ("notes.txt\tdeu\tb\t2", "not_audio"),
        ("/etc/passwd\tdeu\tb\t2", "not_audio"),
        ("https://example.com/a.mp3\tdeu\tb\t2", "forbidden_url"),
        ("http://127.0.0.1/a.mp3\tdeu\tb\t2", "forbidden_url"),
        ("https://archive.org@example.com/a.mp3\tdeu\tb\t2", "forbidden_url"),
        ("ftp://archive.org/a.mp3\tdeu\tb\t2", "forbidden_url"),
        ("file://elsewhere/a.mp3\tdeu\tb\t2", "forbidden_url"),
        ("ok.mp3\udcff\tdeu\tb\t2", "not_audio"),
        ("\x00.mp3\tdeu\tb\t2", "malformed"),
    ],
)
def test_a_line_that_cannot_be_used_is_a_rejection_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    lay(tmp_path, "first.mp3", "ok.mp3", "notes.txt", "empty.mp3")
    (tmp_path / "empty.mp3").write_bytes(b"")
    found = read(written(tmp_path, "first.mp3\tdeu\tb\t1", "", line), {"deu"})
    assert listed(found) == [("deu", "b", 1)]
    assert [row[2] for row in rejected(found)] == [reason]
    assert found.rejections["detail"][0].startswith("line 4: ")


@pytest.mark.parametrize(
    ("start", "end"),
    [("3", "2"), ("2", "2"), ("-1", "2"), ("", "2"), ("1", ""), ("nan", "2"), ("1", "inf"), ("a", "2"), ("1", "1e9")],
)
def test_a_span_that_is_none_is_a_rejection(tmp_path: Path, start: str, end: str) -> None:
    lay(tmp_path, "1.mp3")
    header = "url\tlanguage\tbook\tstart\tend"
    found = read(written(tmp_path, "1.mp3\tdeu\tb\t0\t1", f"1.mp3\tdeu\tb\t{start}\t{end}", header=header))
    assert spans(found) == [("b", 1, 0, 16_000)]
    assert [row[2] for row in rejected(found)] == ["malformed"]


def test_lines_that_contradict_lines_before_them_are_rejections(tmp_path: Path) -> None:
    lay(tmp_path, "1.mp3", "2.mp3")
    header = "url\tlanguage\tbook\tsection\tstart\tend"
    rows = [
        "1.mp3\tdeu\tb\t1\t\t",  # the whole of what has spans below
        "1.mp3\tdeu\tb\t1\t0\t1",
        "1.mp3\tdeu\tb\t1\t0\t1",  # the same
        "1.mp3\tdeu\tb\t2\t1\t2",  # another section of the same file
        "2.mp3\tdeu\tb\t1\t1\t2",  # a section that is taken
        "1.mp3\tdeu\tb\t1\t\t",  # the whole of what has spans
        "2.mp3\tdeu\tb\t\t1\t2",  # no section
        "1.mp3\tdeu\tb\t\t4\t5",  # of a file whose section is known
    ]
    found = read(written(tmp_path, *rows, header=header))
    assert spans(found) == [("b", 1, 0, 16_000), ("b", 1, 64_000, 80_000)]
    told = [detail.partition(":")[0] for detail in found.rejections["detail"]]
    assert told == ["line 2", "line 4", "line 5", "line 6", "line 7", "line 8"]


def test_books_of_one_name_in_two_languages_keep_their_spans_apart_whatever_is_wanted(tmp_path: Path) -> None:
    lay(tmp_path, "d.mp3", "e.mp3")
    header = "url\tlanguage\tbook\tstart\tend"
    path = written(tmp_path, "d.mp3\tdeu\ttales\t0\t1", "e.mp3\teng\ttales\t0\t2", header=header)
    assert spans(read(path)) == [("tales.deu", 1, 0, 16_000), ("tales.eng", 1, 0, 32_000)]
    assert listed(read(path, {"deu"})) == [("deu", "tales.deu", 1)]


def test_lines_may_end_as_on_windows_and_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    lay(tmp_path, "1.mp3")
    for name, text in (
        ("m.tsv", "url\tbook\tlanguage\r\n1.mp3\tb\tdeu\r\n"),
        ("m.csv", "url,book,language\r\n1.mp3,b,deu\r\n"),
    ):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert listed(read(tmp_path / name)) == [("deu", "b", 1)]


def test_a_host_that_the_operator_named_is_allowed(tmp_path: Path) -> None:
    from speech_mining.sources.client import ClientConfig, PoliteClient
    from speech_mining.sources.protocol import open_source

    path = written(tmp_path, "http://mirror.lan:8080/1.mp3\tdeu\tb\t1")
    with PoliteClient(ClientConfig(configured_hosts=("mirror.lan:8080",))) as client:
        source = open_source(str(path), client)
    assert isinstance(source, Manifest)
    assert "mirror.lan:8080" in source.hosts.configured


@pytest.mark.parametrize(
    "header", ["url\tlanguage\tname", "url\tlanguage\tbook\tbook", "url\tlanguage\tbook\tstart", "1.mp3\tdeu\tb"]
)
def test_a_manifest_without_its_columns_is_a_clear_error(tmp_path: Path, header: str) -> None:
    path = written(tmp_path, "1.mp3\tdeu\tb", header=header)
    with pytest.raises(CatalogueError) as raised:
        read(path)
    assert "url, language, book" in raised.value.expected


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "m.tsv.gz").write_bytes(gzip.compress(b"url\tlanguage\tbook\n" * 99)[:-9])
    (tmp_path / "m.parquet").write_bytes(b"PAR1 no")
    for name in ("m.tsv.gz", "m.parquet"):
        with pytest.raises(CatalogueError, match="cannot be read"):
            read(tmp_path / name)


CELLS = st.text(st.characters(exclude_characters="\n\r\t", exclude_categories=("Cs",)), max_size=6)
LINES = st.lists(
    st.tuples(
        st.sampled_from(["1.mp3", "2.mp3", "http://archive.org/3.mp3", "file:///x"]) | CELLS,
        st.sampled_from(["deu", "English", "fr"]) | CELLS,
        st.sampled_from(["b", "c"]) | CELLS,
        st.sampled_from(["1", "2", "", "03"]) | CELLS,
        st.sampled_from(["", "0", "1.5"]) | CELLS,
        st.sampled_from(["", "2", "3"]) | CELLS,
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES)
def test_any_line_is_told_once_and_what_is_kept_can_be_used(tmp_path: Path, lines: list[tuple[str, ...]]) -> None:
    lay(tmp_path, "1.mp3", "2.mp3")
    header = "url\tlanguage\tbook\tsection\tstart\tend"
    found = read(written(tmp_path, *("\t".join(line) for line in lines), header=header))
    kept = found.sections.height + sum(
        max(0, n - 1) for n in found.timestamps.group_by("audiobook", "section").len()["len"]
    )
    assert kept + found.rejections.height == sum(any(cell.strip() for cell in line) for line in lines)
    assert all(AUDIOBOOK_ID.fullmatch(audiobook) for audiobook in found.sections["audiobook"])
    assert found.sections.select("audiobook", "section").is_unique().all()
    assert (found.timestamps["end_sample"] > found.timestamps["start_sample"]).all()
    assert found.timestamps.join(found.sections, on=["audiobook", "section"], how="anti").is_empty()


def test_numbers_of_a_parquet_manifest_that_are_no_numbers_are_rejections(tmp_path: Path) -> None:
    lay(tmp_path, "1.mp3")
    rows = {"url": ["1.mp3"] * 3, "language": ["deu"] * 3, "book": ["b"] * 3, "section": [1, 1, None]}
    times = {"start": [0.0, math.nan, 1.0], "end": [1.0, 2.0, None]}
    pl.DataFrame({**rows, **times}).write_parquet(tmp_path / "m.parquet")
    found = read(tmp_path / "m.parquet")
    assert spans(found) == [("b", 1, 0, 16_000)]
    assert [detail.partition(":")[0] for detail in found.rejections["detail"]] == ["line 2", "line 3"]


def test_a_file_that_only_has_the_suffix_is_a_clear_error_that_shows_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "deu.tsv"
    path.write_text("once upon a time\n")
    with pytest.raises(CatalogueError, match="once upon"):
        opened(path)
