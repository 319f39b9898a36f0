"""`s2s align` and `s2s mine --map` as a user runs them: files in, files out, errors of one paragraph, exit code 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from speech_mining.align.alignment import METHODS, Wish, align
from speech_mining.align.spaces import SpaceMap
from speech_mining.cli.align import Method
from speech_mining.cli.app import main
from tests.aligned_spaces import Spaces, spaces

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `s2s` in a folder of its own; the exit code."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["s2s", *words])
        with pytest.raises(SystemExit) as exited:
            main()
        return int(exited.value.code or 0)

    return command


def saved(count: int = 200, dimension: int = 10, noise: float = 0.1) -> Spaces:
    """Both sides in files of the working folder."""
    of = spaces(count, dimension, noise)
    np.save("src.npy", of.source)
    np.save("tgt.npy", of.target)
    return of


def write_dictionary(of: Spaces) -> None:
    lines = [f"{row}\t{answer}" for row, answer in enumerate(of.answers[: len(of.answers) // 2])]
    Path("pairs.tsv").write_text("\n".join(lines))


def right(of: Spaces, name: str = "p.tsv") -> float:
    """Share of the source rows whose pair is the right one."""
    found = pl.read_csv(name, separator="\t", has_header=False, new_columns=["score", "source", "target"])
    return float((of.answers[found["source"].to_numpy()] == found["target"].to_numpy()).sum() / len(of.answers))


def test_a_turned_space_is_mined_through_its_map_and_only_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    of = saved()

    assert run("align", "src.npy", "tgt.npy", "--out", "map.npz", "--method", "distribution", "--restarts", "2") == 0
    told = capsys.readouterr().out
    assert run("mine", "src.npy", "tgt.npy", "--map", "map.npz", "--threshold", "1", "--out", "p.tsv") == 0
    through = capsys.readouterr().err
    assert run("mine", "src.npy", "tgt.npy", "--threshold", "1", "--out", "plain.tsv") == 0

    assert right(of) > 0.9
    assert right(of, "plain.tsv") < 0.1
    assert told.count("distribution") == 2
    assert told.count("kept") == 1
    assert "Both sides go through map.npz (criterion 0." in through


def test_the_command_finds_what_the_library_finds(run: Run) -> None:
    of = saved(100)
    wish = Wish(method="distribution", seed=7, restarts=1)

    align(of.source, of.target, wish).map.save(Path("library.npz"))
    for name in ("one.npz", "two.npz"):
        assert (
            run(
                "align",
                "src.npy",
                "tgt.npy",
                "--out",
                name,
                "--method",
                "distribution",
                *"--seed 7 --restarts 1".split(),
            )
            == 0
        )

    assert Path("one.npz").read_bytes() == Path("two.npz").read_bytes() == Path("library.npz").read_bytes()


def test_every_option_reaches_the_library(run: Run) -> None:
    of = saved(100, noise=0.5)
    write_dictionary(of)
    plain, other = "--method supervised --dictionary pairs.tsv".split(), {}

    assert run("align", "src.npy", "tgt.npy", "--out", "plain.npz", *plain) == 0
    for number, options in enumerate(("--whiten", "--reweight 0.5", "--normalise unit", "--csls-k 3", "--frequent 50")):
        assert run("align", "src.npy", "tgt.npy", "--out", f"{number}.npz", *plain, *options.split()) == 0
        other[options] = SpaceMap.load(Path(f"{number}.npz"))

    first = SpaceMap.load(Path("plain.npz"))
    for options in ("--whiten", "--reweight 0.5", "--normalise unit"):
        assert not np.allclose(other[options].source.weights, first.source.weights, atol=1e-3)
    for options in ("--csls-k 3", "--frequent 50"):
        assert other[options].facts["criterion"] != first.facts["criterion"]


def test_a_dictionary_of_words_serves(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    of = saved()
    Path("src.txt").write_text("\n".join(f"wort{row}" for row in range(200)))
    Path("tgt.txt").write_text("\n".join(f"word{row}" for row in range(200)))
    Path("pairs.txt").write_text("\n".join([f"wort{row} word{of.answers[row]}" for row in range(100)] + ["nie never"]))
    words = "--source-words src.txt --target-words tgt.txt".split()

    assert (
        run(
            "align",
            "src.npy",
            "tgt.npy",
            "--out",
            "map.npz",
            "--method",
            "supervised",
            "--dictionary",
            "pairs.txt",
            *words,
        )
        == 0
    )
    assert "1 lines of pairs.txt name a word without a row" in capsys.readouterr().err
    assert run("mine", "src.npy", "tgt.npy", "--map", "map.npz", "--threshold", "1", "--out", "p.tsv") == 0

    assert right(of) > 0.9


def test_spaces_of_two_dimensions_are_mined_through_their_map(run: Run) -> None:
    of = saved()
    wider = np.hstack([of.target, np.zeros((200, 3), np.float32)])
    np.save("wide.npy", wider)
    write_dictionary(of)

    assert (
        run("align", "src.npy", "wide.npy", "--out", "map.npz", "--method", "supervised", "--dictionary", "pairs.tsv")
        == 0
    )
    assert run("mine", "src.npy", "wide.npy", "--map", "map.npz", "--threshold", "1", "--out", "p.tsv") == 0

    assert right(of) > 0.9


def test_shards_are_mapped_as_the_whole_is(run: Run) -> None:
    of = saved()
    write_dictionary(of)
    Path("shards").mkdir()
    for number, rows in enumerate(np.array_split(of.source, 3)):
        np.save(f"shards/{number}.npy", rows)
    run("align", "src.npy", "tgt.npy", "--out", "map.npz", "--method", "supervised", "--dictionary", "pairs.tsv")

    for source, out in (("src.npy", "whole.tsv"), ("shards", "parts.tsv")):
        assert run("mine", source, "tgt.npy", "--map", "map.npz", "--out", out) == 0

    assert Path("whole.tsv").read_bytes() == Path("parts.tsv").read_bytes()


def test_neighbours_are_kept_with_the_map_they_were_found_through(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    of = saved()
    write_dictionary(of)
    mining = ("mine", "src.npy", "tgt.npy", "--out", "p.tsv", "--neighbours", "near.npz")
    for name, normalise in (("map.npz", "unit"), ("other.npz", "unit,centre,unit")):
        run(
            "align",
            "src.npy",
            "tgt.npy",
            "--out",
            name,
            "--method",
            "supervised",
            "--dictionary",
            "pairs.tsv",
            "--normalise",
            normalise,
        )

    assert run(*mining, "--map", "map.npz") == 0
    capsys.readouterr()
    assert run(*mining, "--map", "map.npz", "--threshold", "1.2") == 0
    assert "neighbours were read from near.npz" in capsys.readouterr().err
    assert run(*mining, "--map", "other.npz") == 2
    assert run(*mining) == 2
    assert "neighbours of another search" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("align src.npy tgt.npy --out map.txt", "ends in .npz"),
        ("align src.npy missing.npy --out map.npz", "missing.npy"),
        ("align src.npy tgt.npy --out map.npz --method supervised", "no dictionary is given"),
        ("align src.npy tgt.npy --out map.npz --dictionary pairs.tsv", "a dictionary is given"),
        ("align src.npy tgt.npy --out map.npz --source-words pairs.tsv", "together"),
        ("align src.npy tgt.npy --out map.npz --normalise length", "cannot be normalised by 'length'"),
        ("align src.npy tgt.npy --out map.npz --device nothing", "no device 'nothing'"),
        ("align src.npy tgt.npy --out map.npz --time-limit 0", "time limit is 0"),
        ("mine src.npy tgt.npy --map src.npy --out p.tsv", "holds no map"),
        ("mine narrow.npy tgt.npy --map map.npz --out p.tsv", "map.npz takes rows of 10 there"),
    ],
)
def test_what_cannot_be_done_is_one_paragraph(
    run: Run, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    of = saved(60)
    write_dictionary(of)
    np.save("narrow.npy", of.source[:, :6])
    if "--map map" in words:
        run("align", "src.npy", "tgt.npy", "--out", "map.npz", "--method", "supervised", "--dictionary", "pairs.tsv")
    capsys.readouterr()

    assert run(*words.split()) == 2

    found = " ".join(capsys.readouterr().err.split())
    assert told in found
    assert "Traceback" not in found
    assert not Path("p.tsv").exists()


def test_a_bad_row_of_a_mapped_side_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    of = saved(60)
    write_dictionary(of)
    run("align", "src.npy", "tgt.npy", "--out", "map.npz", "--method", "supervised", "--dictionary", "pairs.tsv")
    spoiled = of.source.copy()
    spoiled[7] = 0
    np.save("src.npy", spoiled)

    assert run("mine", "src.npy", "tgt.npy", "--map", "map.npz", "--out", "p.tsv") == 2

    assert "are zero: rows 7" in " ".join(capsys.readouterr().err.split())


def test_the_command_offers_every_method() -> None:
    assert {method.value for method in Method} == set(METHODS)


def test_a_killed_command_leaves_the_old_map(run: Run) -> None:
    saved(300, 15)
    Path("map.npz").write_bytes(b"of yesterday")
    words = "align src.npy tgt.npy --out map.npz --method adversarial --restarts 50 --workers 2".split()
    code = "import sys; from speech_mining.cli.app import main; sys.argv[0] = 's2s'; main()"
    killed = subprocess.Popen([sys.executable, "-c", code, *words], start_new_session=True, stderr=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        killed.wait(4)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()

    assert Path("map.npz").read_bytes() == b"of yesterday"
    assert sorted(path.name for path in Path().iterdir()) == ["map.npz", "src.npy", "tgt.npy"]
