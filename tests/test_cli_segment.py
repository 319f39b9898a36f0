from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

from speech_mining.cli.segment import segment
from speech_mining.errors import AudioError, SettingsError, SpeechMiningError
from speech_mining.records import SEGMENTS
from tests import bad_audio
from tests.test_segmentation import narration  # noqa: F401  (a fixture)

SECOND = 16_000

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    app = typer.Typer()
    app.command()(segment)

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)

    return run


@pytest.fixture
def spoken(narration: tuple[np.ndarray, object], tmp_path: Path) -> Path:  # noqa: F811
    return bad_audio.write_audio(tmp_path / "chapter.mp3", narration[0][: 30 * SECOND], SECOND)


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    return bad_audio.write_wav(tmp_path / "tone.wav", bad_audio.tone(4, SECOND), SECOND)


def assert_told(result: Result, kind: type[SpeechMiningError], match: str) -> None:
    assert isinstance(result.exception, kind), result.output
    assert re.search(match, str(result.exception)), str(result.exception)


def test_parquet_holds_every_column_of_segments(invoke: Invoke, spoken: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "chapter.parquet"
    result = invoke(spoken, "--out", out)
    assert result.exit_code == 0, result.output
    frame = pl.read_parquet(out)
    assert dict(frame.schema) == dict(SEGMENTS) and len(frame) > 10
    assert frame["audiobook"].unique().to_list() == ["chapter"] and frame["section"].unique().to_list() == [1]
    lengths = frame["end_ms"] - frame["start_ms"]
    assert 3_000 <= lengths.min() and lengths.max() <= 20_000  # type: ignore[operator]
    assert f"{len(frame)} segments written" in result.stdout


def test_tsv_has_a_header_and_the_rows_of_parquet(invoke: Invoke, spoken: Path, tmp_path: Path) -> None:
    for suffix in ("tsv", "parquet"):
        assert invoke(spoken, "--out", tmp_path / f"a.{suffix}").exit_code == 0
    tsv = pl.read_csv(tmp_path / "a.tsv", separator="\t", schema_overrides=dict(SEGMENTS))
    parquet = pl.read_parquet(tmp_path / "a.parquet")
    assert tsv.columns == parquet.columns
    exact = [name for name in SEGMENTS if name not in ("level_dbfs", "coverage")]
    assert tsv.select(exact).equals(parquet.select(exact))
    assert np.allclose(tsv["level_dbfs"], parquet["level_dbfs"], atol=1e-4)


def test_the_bounds_are_obeyed(invoke: Invoke, spoken: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    assert invoke(spoken, "--min-s", 2, "--max-s", 6, "--max-gap-ms", 600, "--out", out).exit_code == 0
    lengths = pl.read_parquet(out).select(pl.col("end_ms") - pl.col("start_ms")).to_series()
    assert 2_000 <= lengths.min() < 3_000 and lengths.max() <= 6_000  # type: ignore[operator]


def test_without_out_the_figures_and_the_first_rows_are_shown(invoke: Invoke, spoken: Path) -> None:
    result = invoke(spoken)
    assert result.exit_code == 0
    for word in ("chapter.mp3", "30.0 s", "coverage", "start_ms", "The first 10 of"):
        assert word in result.stdout
    assert len(re.findall(r"^ +chapter +\d", result.stdout, flags=re.MULTILINE)) == 10


def test_json_is_the_last_line_and_agrees_with_the_file(invoke: Invoke, spoken: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    told = json.loads(invoke(spoken, "--json", "--out", out).stdout.splitlines()[-1])
    assert told["candidates"] == len(pl.read_parquet(out)) == told["recordings"][0]["candidates"]
    assert told["recordings"][0]["duration_s"] == pytest.approx(30, abs=0.01)
    assert told["recordings"][0]["decoding"]["codec"] == "mp3float" and told["left_out"] == []


def test_a_folder_is_searched_and_one_bad_file_is_left_out(
    invoke: Invoke, spoken: Path, tone: Path, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    bad_audio.web_page(tmp_path / "inner" / "gone.mp3")
    (tmp_path / "notes.txt").write_text("no audio")
    result = invoke(tmp_path, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [Path(row["file"]).name for row in told["recordings"]] == ["chapter.mp3", "tone.wav"]
    assert [(Path(row["file"]).name, row["reason"]) for row in told["left_out"]] == [("gone.mp3", "not_audio")]
    assert "left out" in result.stderr and "web page" in result.stderr


def test_no_speech_is_said_and_an_empty_table_written(invoke: Invoke, tone: Path, tmp_path: Path) -> None:
    result = invoke(tone, "--out", tmp_path / "a.tsv")
    assert result.exit_code == 0 and "no_speech" in result.stdout
    assert (tmp_path / "a.tsv").read_text() == "\t".join(SEGMENTS) + "\n"


def test_a_bad_file_alone_is_an_error_and_nothing_is_written(invoke: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    for maker, match in (
        (bad_audio.empty, "is empty"),
        (bad_audio.web_page, "is a web page"),
        (bad_audio.zip_archive, "is a zip archive"),
        (bad_audio.random_bytes, "cannot be decoded"),
    ):
        assert_told(invoke(maker(tmp_path / "bad.mp3"), "--out", out), AudioError, match)
    assert_told(invoke(tmp_path / "absent.mp3", "--out", out), AudioError, "There is no file")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--min-s", "20", "--max-s", "3"], "not shorter than the longest"),
        (["--min-s", "5", "--max-s", "5"], "not shorter than the longest"),
        (["--min-s", "-1"], "-1.0 to 20.0"),
        (["--min-s", "nan"], "nan to 20.0"),
        (["--max-s", "inf"], "3.0 to inf"),
        (["--max-gap-ms", "-1"], "max_gap_ms is -1"),
    ],
)
def test_impossible_bounds_are_told_before_anything_is_read(invoke: Invoke, options: list[str], match: str) -> None:
    assert_told(invoke("absent.mp3", *options), SettingsError, match)


@pytest.mark.parametrize(("name", "match"), [("a.csv", r"\.tsv or \.parquet"), ("a", "no suffix")])
def test_an_unknown_suffix_is_told_before_anything_is_read(invoke: Invoke, name: str, match: str) -> None:
    assert_told(invoke("absent.mp3", "--out", name), SpeechMiningError, match)


def test_a_folder_as_out_is_told(invoke: Invoke, tone: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").mkdir()
    assert_told(invoke(tone, "--out", tmp_path / "a.tsv"), SpeechMiningError, "is a folder")


def test_a_folder_without_audio_and_two_files_of_one_name_are_told(invoke: Invoke, tone: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert_told(invoke(tmp_path / "none"), SpeechMiningError, "holds no audio file")
    twin = bad_audio.write_wav(tmp_path / "none" / "tone.wav", bad_audio.tone(1, SECOND), SECOND)
    assert_told(invoke(tone, twin), SpeechMiningError, "both called tone")


def test_help_shows_examples(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for word in ("Examples", "chapter01.parquet", "--min-s", "--json"):
        assert word in result.stdout


def test_the_same_command_writes_the_same_bytes(invoke: Invoke, spoken: Path, tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        assert invoke(spoken, "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_picture_is_drawn(invoke: Invoke, spoken: Path, tone: Path, tmp_path: Path) -> None:
    result = invoke(spoken, tone, "--plot", tmp_path / "new" / "a.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    assert "tone.wav: sounds like music or noise" in result.stdout and "chapter.mp3: sounds" not in result.stdout


def test_a_picture_that_cannot_be_drawn_is_told_before_anything_is_read(invoke: Invoke, tmp_path: Path) -> None:
    assert_told(invoke("absent.mp3", "--plot", "a.jpg"), SpeechMiningError, "ends in .png")
    many = [tmp_path / f"{number}.mp3" for number in range(21)]
    assert_told(invoke(*many, "--plot", tmp_path / "a.png"), SpeechMiningError, "draw 21 recordings")


def test_the_limits_and_the_detector_are_obeyed(invoke: Invoke, spoken: Path, tmp_path: Path) -> None:
    counts = {}
    for words in ((), ("--max-ends", 1), ("--max-per-hour", 600), ("--detector", "energy"), ("--min-silence-ms", 700)):
        told = json.loads(invoke(spoken, "--json", *words).stdout.splitlines()[-1])["recordings"][0]
        counts[words[:1]] = told["candidates"], told["left_out"], told["coverage"]
    assert counts[()][1] == 0 < counts[("--max-ends",)][1]
    assert counts[("--max-per-hour",)][0] == 5 and counts[("--max-per-hour",)][2] == counts[()][2]
    assert counts[("--min-silence-ms",)][0] < counts[()][0] != counts[("--detector",)][0] > 10


def test_an_unknown_detector_is_told(invoke: Invoke) -> None:
    assert_told(invoke("absent.mp3", "--detector", "webrtc"), SettingsError, "silero, energy")
