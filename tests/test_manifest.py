"""The manifest: what people take home, and get back to the last bit."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speech_mining.corpora.manifest import CORPUS, corpus_frame, read_manifest, write_manifest
from speech_mining.errors import LakeError, SettingsError
from speech_mining.records import PAIRS, RECORDINGS, segment_id


def recordings(language: str, *places: tuple[str, int], title: str = "Märchen") -> pl.DataFrame:
    rows = [
        (book, section, language, f"{section}.mp3", 1, "0" * 64, 60, f"https://archive.org/{book}_{section}.mp3",
         title, "Kapitel", "Ada; Bo", "Public Domain")
        for book, section in places
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=dict(RECORDINGS), orient="row")


def pair(score: float, source_start: int = 16_000, target_start: int = 32_007) -> tuple[object, ...]:
    source, target = ("12", 1, source_start, source_start + 64_000), ("7", 3, target_start, target_start + 80_000)
    return (score, 0.5, segment_id(*source), segment_id(*target), *source, *target)


def pairs(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=dict(PAIRS), orient="row")


GERMAN, ENGLISH = recordings("deu", ("12", 1), ("12", 2)), recordings("eng", ("7", 3), title="Tales")


def corpus(*scores: float) -> pl.DataFrame:
    rows = [pair(score, 16_000 + 100_000 * n, 32_007 + 100_000 * n) for n, score in enumerate(scores)]
    return corpus_frame(pairs(*rows), GERMAN, ENGLISH, "deu-eng")


def test_a_row_tells_where_each_side_may_be_heard() -> None:
    row = corpus(1.2).row(0, named=True)
    assert list(row) == list(CORPUS)
    assert (row["source_start_ms"], row["source_end_ms"]) == (1000, 5000)
    assert (row["target_start_ms"], row["target_end_ms"]) == (2000, 7000)  # 32 007 samples are 2000.4 ms
    assert (row["source_language"], row["target_language"]) == ("deu", "eng")
    assert (row["source_url"], row["target_url"]) == ("https://archive.org/12_1.mp3", "https://archive.org/7_3.mp3")
    assert (row["source_title"], row["target_title"], row["source_readers"]) == ("Märchen", "Tales", "Ada; Bo")
    assert row["target_start_sample"] == 32_007


def test_the_best_pair_comes_first() -> None:
    assert corpus(1.07, 1.3, 1.1)["score"].to_list() == [1.3, 1.1, 1.07]


def test_no_pairs_make_an_empty_manifest_with_a_header(tmp_path: Path) -> None:
    empty = corpus_frame(pl.DataFrame(schema=dict(PAIRS)), GERMAN, ENGLISH, "deu-eng")
    write_manifest(empty, tmp_path / "m.tsv.gz")
    assert gzip.decompress((tmp_path / "m.tsv.gz").read_bytes()) == ("\t".join(CORPUS) + "\n").encode()
    assert read_manifest(tmp_path / "m.tsv.gz").equals(empty)


def test_the_score_is_the_first_column_and_the_header_says_so(tmp_path: Path) -> None:
    write_manifest(corpus(1.0625, 1.25), tmp_path / "m.tsv.gz")
    lines = gzip.decompress((tmp_path / "m.tsv.gz").read_bytes()).decode().splitlines()
    assert lines[0].split("\t")[:5] == [
        "score",
        "source_audiobook",
        "source_section",
        "source_start_ms",
        "source_end_ms",
    ]
    assert [line.split("\t")[0] for line in lines[1:]] == ["1.25", "1.0625"]
    assert {len(line.split("\t")) for line in lines} == {len(CORPUS)}


def test_tabs_and_line_breaks_in_a_title_break_no_line(tmp_path: Path) -> None:
    write_manifest(corpus(1.2).with_columns(source_title=pl.lit("a\tb\r\nc\\d")), tmp_path / "m.tsv.gz")
    header, row = gzip.decompress((tmp_path / "m.tsv.gz").read_bytes()).decode().splitlines()
    cells = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert cells["source_title"] == r"a\tb\r\nc\\d"


def test_equal_corpora_give_equal_bytes_wherever_and_in_whatever_order(tmp_path: Path) -> None:
    frame = corpus(1.3, 1.2, 1.2, 1.1)
    write_manifest(frame, tmp_path / "a.tsv.gz")
    write_manifest(frame.reverse(), tmp_path / "other.gz")
    first = (tmp_path / "a.tsv.gz").read_bytes()
    assert first == (tmp_path / "other.gz").read_bytes()
    assert first[3] == 0  # no name in the header
    assert first[4:8] == b"\0\0\0\0"  # no time


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.one_of(st.sampled_from("\t\n\r\\tnr\"' é"), st.characters(codec="utf-8")), max_size=12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_what_is_read_is_what_was_written(tmp_path: Path, text: str, score: float, cosine: float) -> None:
    lit = [pl.lit(text).alias("source_title"), pl.lit(score).alias("score")]
    frame = corpus(1.0, 2.0).with_columns(*lit, pl.lit(cosine, pl.Float32).alias("cosine"))
    frame = frame.sort("source_segment")
    write_manifest(frame, tmp_path / "m.tsv.gz")
    assert read_manifest(tmp_path / "m.tsv.gz").equals(frame)


def test_a_pair_of_an_unlisted_recording_is_refused() -> None:
    with pytest.raises(LakeError, match=r"source of 1 pairs is not among its recordings.*\('12', 1\)"):
        corpus_frame(pairs(pair(1.2)), recordings("deu", ("12", 2)), ENGLISH, "deu-eng")


def test_a_pair_in_another_language_is_refused() -> None:
    with pytest.raises(LakeError, match="target of 1 pairs is not in fra"):
        corpus_frame(pairs(pair(1.2)), GERMAN, ENGLISH, "deu-fra")


def test_a_recording_listed_twice_is_refused() -> None:
    with pytest.raises(LakeError, match="listed twice"):
        corpus_frame(pairs(pair(1.2)), pl.concat([GERMAN, GERMAN]), ENGLISH, "deu-eng")


@pytest.mark.parametrize("name", ["deu", "deu-", "german-english", "deu-eng-fra"])
def test_what_is_no_language_pair_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="two ISO 639-3 codes"):
        corpus_frame(pairs(pair(1.2)), GERMAN, ENGLISH, name)


def test_a_hole_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv.gz"
    write_manifest(corpus(1.2), path)
    before = path.read_bytes()
    with pytest.raises(LakeError, match="source_url"):
        write_manifest(corpus(1.2).with_columns(source_url=pl.lit(None, pl.String)), path)
    assert path.read_bytes() == before


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv.gz"
    write_manifest(corpus(1.2, 1.1), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LakeError, match="cut short"):
        read_manifest(path)


def test_a_file_that_is_no_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tsv.gz").write_text("score\n")
    with pytest.raises(LakeError, match="cannot be read as a manifest"):
        read_manifest(tmp_path / "m.tsv.gz")


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tsv.gz").write_bytes(gzip.compress(b"score\tsource\n1.2\t3\n"))
    with pytest.raises(LakeError, match=r"has columns \['score', 'source'\]"):
        read_manifest(tmp_path / "m.tsv.gz")
