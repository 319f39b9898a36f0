"""`s2s mine` as a user runs it: files in, file out, errors of one paragraph and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from speech_mining.cli.app import main
from speech_mining.knn import both_directions, normalise
from speech_mining.mining.strategies import mine

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `s2s mine` in a folder of its own; the exit code."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["s2s", "mine", *words])
        with pytest.raises(SystemExit) as exited:
            main()
        return int(exited.value.code or 0)

    return command


def sides(count: int = 120) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows of any length; row i of the target translates row count - 1 - i of the source."""
    rng = np.random.default_rng(0)
    meanings = rng.standard_normal((count, 24))
    return 3 * meanings, (meanings + 0.4 * rng.standard_normal(meanings.shape))[::-1]


def save_sides(dtype: str = "f4") -> tuple[npt.NDArray, npt.NDArray]:
    source, target = (side.astype(dtype) for side in sides())
    np.save("src.npy", source)
    np.save("tgt.npy", target)
    return source, target


def read_tsv(name: str) -> pl.DataFrame:
    return pl.read_csv(name, separator="\t", has_header=False, new_columns=["score", "source", "target"])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_pairs_are_written_as_the_library_finds_them(run: Run, dtype: str) -> None:
    source, target = save_sides(dtype)

    assert run("src.npy", "tgt.npy", "--out", "pairs.tsv") == 0

    native = (side.astype(side.dtype.newbyteorder("=")) for side in (source, target))
    expected = mine(both_directions(*map(normalise, native)))
    found = read_tsv("pairs.tsv")
    assert found["score"].to_list() == expected.score.tolist()  # every digit
    assert found["source"].to_list() == expected.source.tolist()
    assert found["target"].to_list() == expected.target.tolist()
    assert (found["source"] + found["target"] == 119).mean() > 0.95  # type: ignore[operator]


def test_parquet_holds_what_the_tsv_holds(run: Run) -> None:
    save_sides()

    assert run("src.npy", "tgt.npy", "--out", "new/pairs.parquet") == run("src.npy", "tgt.npy", "--out", "p.tsv") == 0

    table = pl.read_parquet("new/pairs.parquet")
    assert dict(table.schema) == {"score": pl.Float64, "source": pl.Int64, "target": pl.Int64}
    assert table.equals(read_tsv("p.tsv"))


def test_every_option_reaches_the_library(run: Run) -> None:
    source, target = save_sides()

    assert (
        run(
            *("src.npy", "tgt.npy", "--k", "3", "--margin", "distance", "--strategy", "union", "--threshold", "0.3"),
            *("--engine", "faiss", "--memory-gb", "0.5", "--threads", "1", "--out", "p.tsv"),
        )
        == 0
    )

    neighbours = both_directions(normalise(source), normalise(target), 3)
    expected = mine(neighbours, margin="distance", strategy="union", threshold=0.3)
    assert read_tsv("p.tsv")["score"].to_list() == expected.score.tolist()
    assert 0 < len(expected.score) < mine(neighbours, strategy="union", threshold=-9).counts["pairs"]


@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_two_runs_write_the_same_bytes(run: Run, kind: str) -> None:
    save_sides()

    for name, threads in (("one", "1"), ("two", "2")):
        run("src.npy", "tgt.npy", "--threads", threads, "--out", f"{name}.{kind}")

    assert Path(f"one.{kind}").read_bytes() == Path(f"two.{kind}").read_bytes()


@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_no_pair_above_the_threshold_is_an_empty_file(run: Run, kind: str) -> None:
    save_sides()

    assert run("src.npy", "tgt.npy", "--threshold", "1000", "--out", f"p.{kind}") == 0

    if kind == "tsv":
        assert Path("p.tsv").read_bytes() == b""
    else:
        assert pl.read_parquet("p.parquet").schema == {"score": pl.Float64, "source": pl.Int64, "target": pl.Int64}


def test_a_matrix_without_rows_gives_no_pairs(run: Run) -> None:
    save_sides()
    np.save("none.npy", np.empty((0, 24), np.float32))

    assert run("src.npy", "none.npy", "--out", "p.tsv") == 0
    assert Path("p.tsv").read_bytes() == b""


def test_the_summary_says_how_many_how_fast_and_with_what(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_sides()

    run("src.npy", "tgt.npy", "--out", "p.tsv")

    said = capsys.readouterr()
    assert said.out == ""
    assert f"{len(read_tsv('p.tsv'))} pairs written to p.tsv." in said.err
    assert "120 x 120 rows" in said.err and "cosines a second; auto took fp32" in said.err


def test_help_shows_examples(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0

    said = capsys.readouterr().out
    assert "s2s mine deu.npy eng.npy --out pairs.tsv" in said and "SRC.npy" in said


def with_row(value: float) -> npt.NDArray[np.float32]:
    rows = np.ones((9, 24), np.float32)
    rows[4] = value
    return rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones((5, 23), np.float32), "src.npy has rows of 24 values, bad.npy of 23"),
        (np.ones(24, np.float32), "bad.npy is float32 with shape (24,)"),
        (np.ones((5, 24), np.int64), "bad.npy is int64"),
        (np.array([[{}]]), "bad.npy holds Python objects, which are never unpickled"),
        (with_row(np.nan), "bad.npy has 1 of 9 rows that hold NaN or infinity: rows 4."),
        (with_row(0), "bad.npy has 1 of 9 rows that are zero: rows 4."),
        (b"", "bad.npy is not a .npy file"),
        (b"<html>not found</html>", "bad.npy is not a .npy file"),
        (None, "There is no file bad.npy"),
    ],
)
def test_a_bad_matrix_is_one_paragraph(
    run: Run, capsys: pytest.CaptureFixture[str], content: npt.NDArray | bytes | None, message: str
) -> None:
    save_sides()
    if isinstance(content, bytes):
        Path("bad.npy").write_bytes(content)
    elif content is not None:
        np.save("bad.npy", content)

    assert run("src.npy", "bad.npy", "--out", "p.tsv") == 2

    said = capsys.readouterr().err
    assert message in " ".join(said.split()) and "Traceback" not in said and "\n\n" not in said.strip()
    assert not Path("p.tsv").exists()


def test_a_matrix_cut_short_is_one_paragraph(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_sides()
    Path("cut.npy").write_bytes(Path("tgt.npy").read_bytes()[:-100])

    assert run("src.npy", "cut.npy", "--out", "p.tsv") == 2
    assert "cut.npy cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--margin", "distance", "--out", "p.tsv"), "distance margin was asked for without a threshold"),
        (("--out", "p.csv"), "ends in .tsv or .parquet"),
        (("--out", "src.npy/p.tsv"), "cannot be written"),
        (("--memory-gb", "0", "--out", "p.tsv"), "memory_gb is 0"),
        (("--k", "0", "--out", "p.tsv"), "equal to 1"),
        (("--strategy", "best", "--out", "p.tsv"), "intersection"),
        ((), "--out"),
    ],
)
def test_bad_options_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    save_sides()

    assert run("src.npy", "tgt.npy", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
