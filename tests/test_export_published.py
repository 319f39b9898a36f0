"""Manifests of others are read as they are documented, and no further."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import polars as pl
import pytest

from speech_mining.corpora.published import Places, compare, measured_hours, read_published, spans_of
from speech_mining.errors import AudioError, LakeError, SettingsError

SPEECH_MATRIX = (
    "score\tde_audio\ten_audio\n1.12\tde_aud.zip:520:21\ten_aud.zip:50:22\n1.10\tde_aud.zip:1:1\ten_aud.zip:2:2\n"
)
LIBRIVOX = "1.25\ttales_01_5.0_9.0\tstories_02_1.0_6.0\textra\n1.20\tother_01_0.0_4.0\tstories_02_10.0_12.0\t\n"
PLACES = Places("column_2", "column_3", r"(?P<recording>.+)_(?P<start>[0-9.]+)_(?P<end>[0-9.]+)", "seconds")
LIBRARY = Path(__file__).parent.parent / "demo" / "library" / "download"


def put(folder: Path, text: str, *, packed: bool = True) -> Path:
    path = folder / "manifest.tsv.gz"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_speech_matrix_keeps_the_names_of_its_header(tmp_path: Path, packed: bool) -> None:
    found = read_published(put(tmp_path, SPEECH_MATRIX, packed=packed))
    assert found.has_header
    assert found.frame.columns == ["score", "de_audio", "en_audio"]
    assert found.frame.row(0) == (1.12, "de_aud.zip:520:21", "en_aud.zip:50:22")


def test_columns_that_nobody_documented_are_shown_by_number(tmp_path: Path) -> None:
    found = read_published(put(tmp_path, LIBRIVOX))
    assert not found.has_header
    assert found.frame.columns == ["score", "column_2", "column_3", "column_4"]
    assert found.frame["column_4"].to_list() == ["extra", None]


@pytest.mark.parametrize(
    ("text", "told"),
    [("no\tscore\n", "cannot be read"), ("1.0\ta\tb\n1.1\ta\tb\n", "scores that rise"), ("", "cannot")],
)
def test_what_is_no_manifest_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(LakeError, match=told):
        read_published(put(tmp_path, text))


def test_spans_are_read_as_the_user_says(tmp_path: Path) -> None:
    spans = spans_of(read_published(put(tmp_path, LIBRIVOX)), PLACES)
    assert spans.row(0) == (1.25, "tales_01", 80_000, 144_000, "stories_02", 16_000, 96_000)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (Places("column_9", "column_3", PLACES.pattern), "no column 'column_9'"),
        (Places("column_2", "column_3", "(?P<recording>.+)"), "no group 'start'"),
        (Places("column_2", "column_3", "("), "is no pattern"),
        (Places("column_2", "column_3", PLACES.pattern.replace("_", "@")), "does not match 'tales_01_5.0_9.0'"),
        (Places("column_2", "column_3", PLACES.pattern, "frames"), "no unit 'frames'"),
    ],
)
def test_a_reading_that_does_not_fit_is_told(tmp_path: Path, places: Places, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        spans_of(read_published(put(tmp_path, LIBRIVOX)), places)


def test_hours_and_overlap_worked_by_hand(tmp_path: Path) -> None:
    theirs = spans_of(read_published(put(tmp_path, LIBRIVOX)), PLACES)
    corpus = pl.DataFrame(
        {
            "source_url": ["https://a.example/x/tales_01.mp3", "https://a.example/x/tales_01.mp3"],
            "target_url": ["https://a.example/y/stories_02.mp3", "https://a.example/y/stories_02.mp3"],
            "source_start_sample": [16_000 * 6, 16_000 * 20],
            "source_end_sample": [16_000 * 10, 16_000 * 24],
            "target_start_sample": [16_000 * 1, 16_000 * 11],
            "target_end_sample": [16_000 * 5, 16_000 * 13],
        }
    )
    found = compare(theirs, corpus)
    assert found.hours == {"source": 8 / 3600, "target": 7 / 3600}
    assert found.our_hours == {"source": 8 / 3600, "target": 6 / 3600}
    assert found.shared_hours == {"source": 3 / 3600, "target": 5 / 3600}  # 6 to 9 s; 1 to 5 and 11 to 12 s
    assert found.shared_rows == 1  # 3 of 5 s, and 4 of 5 s; the second row has another source
    assert (found.rows, found.our_rows, found.strangers) == (2, 2, 0)


def test_durations_are_measured_of_audio_in_stored_zips(tmp_path: Path) -> None:
    content = sorted(LIBRARY.rglob("*.mp3"))[0].read_bytes()
    with zipfile.ZipFile(tmp_path / "de_aud.zip", "w") as packed:
        packed.writestr("a.mp3", content)
    offset = (tmp_path / "de_aud.zip").read_bytes().index(content)
    text = f"score\tde_audio\ten_audio\n1.1\tde_aud.zip:{offset}:{len(content)}\t../secret.mp3\n"
    found = read_published(put(tmp_path, text))
    assert 60 < 3600 * measured_hours(found, "de_audio", tmp_path) < 120
    with pytest.raises(AudioError, match="There is no file"):
        measured_hours(found, "en_audio", tmp_path)
