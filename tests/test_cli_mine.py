"""`s2s mine` as a user runs it: files in, file out, errors of one paragraph and exit code 2."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from speech_mining.cli.app import main
from speech_mining.cli.memory import peak_memory
from speech_mining.cli.mine import Best, Engine
from speech_mining.knn import both_directions, normalise
from speech_mining.knn.checkpoint_files import Folder
from speech_mining.knn.hardware import ENGINES
from speech_mining.mining.strategies import BEST, mine

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
    assert "s2s mine deu.npy eng.npy --out pairs.tsv" in said and "SRC.npy" in said and "--neighbours" in said


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


def test_shards_of_a_folder_are_one_matrix_in_the_order_of_their_numbers(run: Run) -> None:
    source, _ = save_sides()
    Path("src").mkdir()
    for number, part in enumerate(np.array_split(source, 12)):
        np.save(f"src/part.{number}.npy", part)
    Path("src/readme.txt").write_text("not a shard")

    assert run("src.npy", "tgt.npy", "--out", "whole.tsv") == 0
    assert run("src", "tgt.npy", "--out", "shards.tsv", "--memory-gb", "0.2") == 0

    assert Path("shards.tsv").read_bytes() == Path("whole.tsv").read_bytes()
    assert sorted(path.name for path in Path().iterdir()) == ["shards.tsv", "src", "src.npy", "tgt.npy", "whole.tsv"]


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ({}, "holds no .npy file"),
        ({"a.npy": np.ones((2, 3), "f4"), "b.npy": np.ones((2, 4), "f4")}, "b.npy is float32 with rows of 4 values"),
        ({"a.npy": np.ones((2, 3), "f4"), "b.npy": np.ones((2, 3), "f2")}, "b.npy is float16 with rows of 3 values"),
        ({"a.npy": np.ones(3, "f4")}, "shape (3,)"),
        ({"a.npy": np.array([["x"]], object)}, "never unpickled"),
    ],
)
def test_shards_that_do_not_fit_together_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], shards: dict, message: str
) -> None:
    save_sides()
    Path("src").mkdir()
    for name, rows in shards.items():
        np.save(f"src/{name}", rows, allow_pickle=True)

    assert run("src", "tgt.npy", "--out", "pairs.tsv") == 2

    assert message in " ".join(capsys.readouterr().err.split()) and not Path("pairs.tsv").exists()


def test_kept_neighbours_give_other_margins_without_a_search(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_sides()
    assert run("src.npy", "tgt.npy", "--out", "first.tsv", "--neighbours", "kept.npz") == 0
    before = Path("kept.npz").read_bytes()
    capsys.readouterr()

    assert run("src.npy", "tgt.npy", "--out", "again.tsv", "--neighbours", "kept.npz") == 0
    said = " ".join(capsys.readouterr().err.split())
    other = ("--margin", "distance", "--threshold", "0.1", "--strategy", "forward", "--k", "5")
    assert run("src.npy", "tgt.npy", "--out", "kept.tsv", "--neighbours", "kept.npz", *other) == 0
    assert run("src.npy", "tgt.npy", "--out", "fresh.tsv", *other) == 0

    assert Path("again.tsv").read_bytes() == Path("first.tsv").read_bytes()
    assert "neighbours were read from kept.npz" in said and "0.0 million cosines a second" in said
    assert Path("kept.tsv").read_bytes() == Path("fresh.tsv").read_bytes()
    assert Path("kept.npz").read_bytes() == before


def test_neighbours_of_another_search_are_refused_by_what_differs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    source, _ = save_sides()
    assert run("src.npy", "tgt.npy", "--out", "pairs.tsv", "--neighbours", "kept.npz", "--k", "4") == 0
    source[7] += 1
    np.save("src.npy", source)
    capsys.readouterr()

    assert run("src.npy", "tgt.npy", "--out", "pairs.tsv", "--neighbours", "kept.npz", "--k", "5") == 2

    said = " ".join(capsys.readouterr().err.split())
    assert "the source matrix is another (other values), 4 neighbours a row were kept and 5 are asked for" in said
    assert "target matrix" not in said


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not a zip at all"])
def test_what_does_not_hold_neighbours_is_refused(run: Run, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    save_sides()
    Path("kept.npz").write_bytes(content)

    assert run("src.npy", "tgt.npy", "--out", "pairs.tsv", "--neighbours", "kept.npz") == 2

    assert "does not hold neighbours" in " ".join(capsys.readouterr().err.split())
    assert Path("kept.npz").read_bytes() == content


def test_neighbours_go_to_an_npz_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_sides()
    assert run("src.npy", "tgt.npy", "--out", "pairs.tsv", "--neighbours", "kept.parquet") == 2
    assert "ends in .npz" in " ".join(capsys.readouterr().err.split())


def test_the_nearest_neighbour_can_stand_for_a_row(run: Run) -> None:
    source, target = (np.random.default_rng(seed).standard_normal((120, 24)) for seed in (1, 2))
    np.save("src.npy", source)
    np.save("tgt.npy", target)
    words = ("--strategy", "union", "--threshold", "-9")
    assert run("src.npy", "tgt.npy", "--out", "pairs.tsv", "--best", "nearest", *words) == 0
    assert run("src.npy", "tgt.npy", "--out", "others.tsv", *words) == 0

    neighbours = both_directions(normalise(source), normalise(target))
    expected = mine(neighbours, strategy="union", best="nearest", threshold=-9)
    assert read_tsv("pairs.tsv")["target"].to_list() == expected.target.tolist()
    assert read_tsv("others.tsv")["target"].to_list() != expected.target.tolist()


def test_peak_memory_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_sides()
    run("src.npy", "tgt.npy", "--out", "pairs.tsv")

    told = (
        r"Peak memory (\d+\.\d\d) GB \(RssAnon, sampled\), (\d+\.\d\d) of it for the work; (\d+\.\d\d) GB with mapped"
    )
    found = re.search(told, " ".join(capsys.readouterr().err.split()))
    assert found
    anonymous, work, resident = map(float, found.groups())
    assert 0.1 < anonymous < resident and work < anonymous


def test_peak_memory_is_that_of_its_highest_moment() -> None:
    with peak_memory() as peak:
        block = np.ones(30_000_000 // 8)
        time.sleep(0.2)
        del block
        time.sleep(0.1)

    assert 25e6 < peak.anonymous - peak.before < 60e6 and peak.anonymous <= peak.resident


def test_the_choices_are_those_of_the_library() -> None:
    assert [engine.value for engine in Engine] == list(ENGINES)
    assert [best.value for best in Best] == list(BEST)


COMMAND = [sys.executable, "-c", "from speech_mining.cli.app import main; main()", "mine"]


def killed(where: Path, words: tuple[str, ...], when: Path) -> None:
    """Give the command, and kill it as soon as a file is there."""
    with subprocess.Popen([*COMMAND, *words], cwd=where, stderr=subprocess.PIPE) as search:
        while not when.exists() and search.poll() is None:
            time.sleep(0.002)
        search.send_signal(signal.SIGKILL)
    assert when.exists() and search.returncode == -signal.SIGKILL


def finished(where: Path, *words: str) -> str:
    """Give the command; what it said."""
    told = subprocess.run([*COMMAND, *words], cwd=where, capture_output=True, text=True, check=True).stderr
    return " ".join(told.split())


@pytest.mark.parametrize("shards", [False, True])
def test_a_killed_search_goes_on_with_the_first_unfinished_shard(tmp_path: Path, shards: bool) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "tgt.npy", rng.standard_normal((9_000, 64), np.float32))
    source = rng.standard_normal((60_000, 64), np.float32)
    (tmp_path / "src").mkdir()
    for number, part in enumerate(np.array_split(source, 3) if shards else [source]):
        np.save(tmp_path / f"src/part.{number}.npy", part)
    words = ("src", "tgt.npy", "--threads", "1", "--threshold", "1", "--neighbours", "kept.npz", "--memory-gb", "0.1")
    kept = tmp_path / ".killed.tsv.partial"

    killed(tmp_path, (*words, "--out", "killed.tsv"), kept / "state.json")
    assert not (tmp_path / "killed.tsv").exists() and not (tmp_path / "kept.npz").exists()
    done = json.loads((kept / "state.json").read_text())["shards"][-1]["stop"]
    said = finished(tmp_path, *words, "--out", "killed.tsv")
    once = (tmp_path / "kept.npz").read_bytes()
    (tmp_path / "kept.npz").unlink()
    whole = finished(tmp_path, *words, "--out", "whole.tsv")

    assert 0 < done < 60_000 and f"{done} of 60000 source rows had been finished" in said
    assert "had been finished" not in whole
    assert (tmp_path / "killed.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes() != b""
    assert (tmp_path / "kept.npz").read_bytes() == once
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.npz", "killed.tsv", "src", "tgt.npy", "whole.tsv"]


def test_what_another_search_left_is_not_gone_on_with(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "src.npy", rng.standard_normal((40_000, 64), np.float32))
    np.save(tmp_path / "tgt.npy", rng.standard_normal((9_000, 64), np.float32))
    words = ("src.npy", "tgt.npy", "--threads", "1", "--threshold", "1")
    killed(tmp_path, (*words, "--out", "pairs.tsv"), tmp_path / ".pairs.tsv.partial" / "state.json")

    said = finished(tmp_path, *words, "--k", "5", "--out", "pairs.tsv")
    finished(tmp_path, *words, "--k", "5", "--out", "whole.tsv")

    assert "is of no use: it belongs to a search with another k" in said
    assert (tmp_path / "pairs.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()


def test_neighbours_that_were_being_written_when_the_command_was_killed_are_written_by_the_next(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for side in ("src", "tgt"):
        np.save(tmp_path / f"{side}.npy", rng.standard_normal((30_000, 16), np.float32))
    words = ("src.npy", "tgt.npy", "--threshold", "1", "--k", "64", "--neighbours", "kept.npz")

    with subprocess.Popen([*COMMAND, *words, "--out", "pairs.tsv"], cwd=tmp_path, stderr=subprocess.PIPE) as search:
        while not list(tmp_path.glob(".kept.npz.*")) and search.poll() is None:
            time.sleep(0.001)
        search.send_signal(signal.SIGKILL)
    assert search.returncode == -signal.SIGKILL and not (tmp_path / "kept.npz").exists()

    assert "had been finished" in finished(tmp_path, *words, "--out", "pairs.tsv")
    assert "neighbours were read from kept.npz" in finished(tmp_path, *words, "--out", "again.tsv")
    assert (tmp_path / "pairs.tsv").read_bytes() == (tmp_path / "again.tsv").read_bytes()


def test_an_interrupted_search_says_what_it_keeps(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for side in ("src", "tgt"):
        np.save(f"{side}.npy", rng.standard_normal((20_000 if side == "src" else 50, 8)))
    keep = Folder.keep

    def keep_and_stop(self: Folder, *state: Any) -> None:
        keep(self, *state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "keep", keep_and_stop)
        assert run("src.npy", "tgt.npy", "--out", "pairs.tsv") == 130

    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"1\d{4} source rows are finished and kept; the same command goes on with the next", said)
    assert run("src.npy", "tgt.npy", "--out", "pairs.tsv") == 0
    assert "had been finished by a search that was stopped" in " ".join(capsys.readouterr().err.split())


def test_neighbours_of_one_exact_engine_serve_for_another_and_those_of_cells_do_not(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sides()
    words = ("src.npy", "tgt.npy", "--neighbours", "kept.npz", "--threshold", "1")
    assert (
        run(*words, "--out", "one.tsv", "--engine", "fp32") == run(*words, "--out", "two.tsv", "--engine", "int8") == 0
    )
    assert Path("one.tsv").read_bytes() == Path("two.tsv").read_bytes()

    assert run(*words, "--out", "three.tsv", "--engine", "ivf") == 2
    assert "they were found by fp32 and ivf is asked for" in " ".join(capsys.readouterr().err.split())


def test_the_same_neighbours_are_the_same_bytes(run: Run) -> None:
    save_sides()
    for name, threads in (("one", "1"), ("two", "2")):
        run("src.npy", "tgt.npy", "--neighbours", f"{name}.npz", "--threads", threads, "--out", "p.tsv")

    assert Path("one.npz").read_bytes() == Path("two.npz").read_bytes()
    with np.load("one.npz") as tables:
        assert tables["forward_rows"].shape == tables["backward_cosines"].shape == (120, 16)


def test_a_folder_that_cannot_be_made_is_found_out_before_the_search(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sides()
    assert run("src.npy", "tgt.npy", "--out", "/proc/none/pairs.tsv") == 2
    assert run("src.npy", "tgt.npy", "--out", "p.tsv", "--neighbours", "/proc/none/kept.npz") == 2

    said = " ".join(capsys.readouterr().err.split())
    assert "/proc/none/pairs.tsv cannot be written (No such file or directory)" in said
    assert "/proc/none/kept.npz cannot be written" in said
    assert not Path("p.tsv").exists()
