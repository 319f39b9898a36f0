"""The comparison with peers, on real ones: FAISS always, stopes and LASER where they are installed."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from benchmarks.peers.install import REQUIREMENTS, install
from speech_mining.benchmark import agreement, contenders, embeddings
from speech_mining.benchmark.contenders import CONTENDERS, Absent, Places
from speech_mining.benchmark.report import agreements, make_report, markdown, notes, times, write_report
from speech_mining.benchmark.rounds import Outcome, Request, run_rounds
from speech_mining.cli.bench import bench, show
from speech_mining.cli.mine import read_embeddings
from speech_mining.errors import SpeechMiningError
from speech_mining.knn import Neighbours, both_directions

STOPES_PYTHON = os.environ.get("S2S_STOPES_PYTHON", str(contenders.interpreter(contenders.default_environment())))
LASER = os.environ.get("S2S_LASER", "")
CHECKOUT = Path(__file__).parent.parent

BY_NAME = {contender.name: contender for contender in CONTENDERS}


def absent(name: str) -> bool:
    return isinstance(BY_NAME[name].python(Places(Path(STOPES_PYTHON), Path(LASER))), Absent)


with_stopes = pytest.mark.skipif(
    absent("stopes"), reason="no stopes: run python -m benchmarks.peers.install, or set S2S_STOPES_PYTHON"
)
with_sentence_transformers = pytest.mark.skipif(
    absent("sentence-transformers"),
    reason="no sentence-transformers: run python -m benchmarks.peers.install, or set S2S_STOPES_PYTHON",
)
with_laser = pytest.mark.skipif(absent("laser"), reason="no LASER: set S2S_LASER to a checkout")

app = typer.Typer(rich_markup_mode="rich")
app.command()(bench)
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `s2s bench` with these words in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [*words], terminal_width=200)


@dataclass(frozen=True)
class Bench:
    """The comparison without the command, among those who are named: starting ours alone takes four seconds."""

    folder: Path

    def request(self, rows: int, target_rows: int, **asked: Any) -> Request:
        sides = embeddings.lay_synthetic(self.folder, rows, target_rows, 48)
        rest = {"k": 5, "threads": 1, "engine": "auto", "threshold": 1.06, "repeats": 1, "places": places(), **asked}
        return Request(sides, **rest)

    def outcomes(self, request: Request, *names: str) -> list[Outcome]:
        return run_rounds([BY_NAME[name] for name in names], request, self.folder, lambda *_: None)

    def rows(self, request: Request, *names: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = make_report(self.outcomes(request, *names), request, {}, self.folder)["contenders"]
        return rows


@pytest.fixture
def bench_in(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def places() -> Places:
    return Places(Path(STOPES_PYTHON), Path(LASER))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Result, dict[str, Any]]]:
    """One run of the command where no peer is installed but FAISS: what it printed, and its report."""
    folder = tmp_path_factory.mktemp("bench")
    words = ("--rows", "300", "--target-rows", "250", "--dimension", "48", "--k", "5", "--threads", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        for name in ("S2S_STOPES_PYTHON", "S2S_LASER"):
            patch.delenv(name, raising=False)
        out = ("--engine", "faiss", "--repeats", "1", "--out", str(folder / "new" / "report.json"))
        ended = CliRunner().invoke(app, [*words, *out], terminal_width=200)
    yield ended, json.loads((folder / "new" / "report.json").read_text())


def row_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in report["contenders"] if row["name"] == name)


def save_sides(count: int = 90, dtype: str = "f4") -> None:
    """Rows of any length on two sides, in src.npy and tgt.npy."""
    source, target = embeddings.synthetic_sides(count, count - 10, 32, seed=3)
    np.save("src.npy", (3 * source).astype(dtype))
    np.save("tgt.npy", target.astype(dtype))


def pretender(path: Path, when_measured: str) -> Path:
    """An interpreter that has stopes, as far as it says, and does this when it should measure."""
    path.write_text(f'#!/bin/sh\ncase "$2" in *version*) echo 2.2.1;; *) {when_measured};; esac\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_everybody_who_is_here_is_timed(whole: tuple[Result, dict[str, Any]]) -> None:
    ended, report = whole

    assert ended.exit_code == 0, ended.output
    ours, faiss, sgemm = (row_of(report, name) for name in ("ours", "faiss", "sgemm"))
    assert {row["state"] for row in (ours, faiss, sgemm)} == {"measured"}
    assert sgemm["neighbours"] is None and "pair_agreement" not in faiss and faiss["pairs"] is None
    assert ours["pairs"] > 0 and ours["knn_times_ours"] == ours["total_times_ours"] == 1.0
    assert faiss["knn_times_ours"] == faiss["seconds_knn"] / ours["seconds_knn"] > 0
    assert all(row["peak_rss_mb"] > 20 for row in (ours, faiss, sgemm))
    assert report["threads"] == 1 and report["machine"]["processor"]
    assert (report["data"]["source_rows"], report["data"]["target_rows"]) == (300, 250)
    assert ours["note"] == "faiss was asked for"  # --engine
    assert re.search(r"^ours [\d.]+: faiss was asked for$", ended.output, re.MULTILINE)


def test_faiss_finds_our_neighbours(whole: tuple[Result, dict[str, Any]]) -> None:
    faiss = row_of(whole[1], "faiss")["neighbours"]

    assert faiss["ours_of_theirs"] == faiss["theirs_of_ours"] == 1.0 and faiss["gap"] < 1e-6


def test_a_peer_that_is_not_installed_is_named_with_what_to_do(whole: tuple[Result, dict[str, Any]]) -> None:
    ended, report = whole

    for name in ("stopes", "sentence-transformers"):
        row = row_of(report, name)
        assert row["state"] == "not installed" and "python -m benchmarks.peers.install" in row["fix"]
        assert f"{name} not installed: there is no" in ended.output
    assert "S2S_LASER" in row_of(report, "laser")["fix"]
    assert "laser not installed: no checkout of LASER was named; git clone" in ended.output


def test_markdown_has_what_the_command_prints(whole: tuple[Result, dict[str, Any]], tmp_path: Path) -> None:
    ended, report = whole

    write_report(report, tmp_path / "report.md")

    text = (tmp_path / "report.md").read_text()
    assert text == markdown(report)
    for line in [*times(report)[1], *agreements(report)[1]]:
        assert f"| {' | '.join(line)} |" in text
        assert re.search(r"\s+".join(map(re.escape, line)), ended.output)
    for told in notes(report):
        assert f"- {told}" in text and told in ended.output


def test_the_longest_name_and_counts_fit_eighty_columns(
    whole: tuple[Result, dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = row_of(whole[1], "faiss") | {
        "name": "sentence-transformers",
        "seconds_total": 1234.5,
        "total_times_ours": 9.5,
    }
    found["pair_agreement"] = {"strategy": "max", "shared": 50880, "only_theirs": 1234, "only_ours": 4321}

    show({**whole[1], "contenders": [found]})

    said = capsys.readouterr().out
    for (line,) in (times({"contenders": [found]})[1], agreements({"contenders": [found]})[1]):
        assert re.search(r"^ *" + r" +".join(map(re.escape, line)) + r" *$", said, re.MULTILINE)


def test_rounds_take_turns_and_the_median_counts(bench_in: Bench) -> None:
    told: list[tuple[int, int, str]] = []
    request = bench_in.request(60, 50, repeats=3)

    names = [BY_NAME["laser"], BY_NAME["faiss"]]
    laser, faiss = run_rounds(names, replace(request, places=Places()), bench_in.folder, lambda *now: told.append(now))

    assert told == [(done, 6, name) for done, name in enumerate([*["laser", "faiss"] * 3, ""])]
    assert laser.problem is not None and not laser.measures
    seconds = sorted(measure.seconds_knn for measure in faiss.measures)
    assert len(seconds) == 3 and faiss.seconds_knn == seconds[1] and faiss.seconds_total is None


def test_lists_longer_than_a_side_agree(bench_in: Bench) -> None:
    _, faiss = bench_in.rows(bench_in.request(9, 4, k=16), "ours", "faiss")

    assert faiss["neighbours"]["theirs_of_ours"] == faiss["neighbours"]["ours_of_theirs"] == 1.0


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_files_are_normalised_and_cut_to_their_first_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_sides(dtype=dtype)

    sides = embeddings.lay_files(tmp_path, Path("src.npy"), Path("tgt.npy"), 70, None, read_embeddings)

    assert (sides.source_rows, sides.target_rows, sides.dimension) == (70, 70, 32)
    assert sides.origin == "src.npy and tgt.npy"
    source = np.load(sides.source)
    assert source.dtype == np.float32 and np.array_equal(source, read_embeddings(Path("src.npy"))[:70])


@with_stopes
@pytest.mark.parametrize(("rows", "k"), [(300, 5), (9, 16)])
def test_stopes_finds_our_neighbours_and_our_union_of_pairs(bench_in: Bench, rows: int, k: int) -> None:
    _, stopes = bench_in.rows(bench_in.request(rows, rows - 3, k=k), "ours", "stopes")

    assert stopes["version"].startswith("2.2.1, faiss ")
    assert stopes["neighbours"]["ours_of_theirs"] == stopes["neighbours"]["theirs_of_ours"] == 1.0
    assert stopes["pair_agreement"]["strategy"] == "union"
    assert stopes["pair_agreement"]["shared"] > 0
    assert stopes["pair_agreement"]["only_theirs"] == stopes["pair_agreement"]["only_ours"] == 0
    assert stopes["pairs"] > stopes["pair_agreement"]["shared"]  # best in both directions: twice


@with_stopes
def test_stopes_without_a_pair_is_no_failure(bench_in: Bench) -> None:
    (stopes,) = bench_in.rows(bench_in.request(20, 20, threshold=1000.0), "stopes")

    assert stopes["state"] == "measured" and stopes["pairs"] == 0


@with_laser
@pytest.mark.parametrize(("rows", "k"), [(300, 5), (9, 16)])
def test_laser_finds_our_neighbours_and_our_pairs(bench_in: Bench, rows: int, k: int) -> None:
    ours, laser = bench_in.rows(bench_in.request(rows, rows - 3, k=k), "ours", "laser")

    assert laser["neighbours"]["ours_of_theirs"] == laser["neighbours"]["theirs_of_ours"] == 1.0
    expected = {"strategy": "max", "shared": ours["pairs"], "only_theirs": 0, "only_ours": 0}
    assert laser["pair_agreement"] == expected
    assert laser["pairs"] == ours["pairs"] > 0
    assert laser["seconds_total"] > laser["seconds_knn"]


@with_laser
def test_laser_without_a_pair_writes_none(bench_in: Bench) -> None:
    (laser,) = bench_in.rows(bench_in.request(20, 20, threshold=1000.0), "laser")

    assert laser["pairs"] == 0


@with_sentence_transformers
def test_sentence_transformers_finds_our_neighbours(bench_in: Bench) -> None:
    _, found = bench_in.rows(bench_in.request(300, 250), "ours", "sentence-transformers")

    assert found["neighbours"]["ours_of_theirs"] == found["neighbours"]["theirs_of_ours"] == 1.0


def test_a_folder_without_lasers_script_is_told() -> None:
    found = BY_NAME["laser"].python(Places(laser=Path("elsewhere")))

    assert isinstance(found, Absent) and found.reason == "elsewhere holds no source/mine_bitexts.py"


def test_a_python_without_stopes_is_told() -> None:
    found = BY_NAME["stopes"].python(Places(Path(sys.executable)))

    assert isinstance(found, Absent) and found.reason == f"{sys.executable} has no stopes"


@pytest.mark.parametrize(
    ("when_measured", "reason"),
    [
        ('echo "cannot open the index" >&2; exit 3', "ended with code 3:\ncannot open the index"),
        ('echo "Loading..."; echo "half a warning" >&2', "printed no figures but 'Loading...':\nhalf a warning"),
        ('echo \'{"peer": "stopes"}\'', 'printed no figures but \'{"peer": "stopes"}\', without a word'),
        ("true", "printed no figures but 'nothing', without a word"),
        ("kill -9 $$", "ended with signal SIGKILL, as for want of memory, without a word"),
    ],
)
def test_a_peer_that_fails_keeps_its_last_words_and_the_rest_goes_on(
    bench_in: Bench, when_measured: str, reason: str
) -> None:
    python = pretender(bench_in.folder / "python", when_measured)

    stopes, faiss = bench_in.rows(bench_in.request(30, 30, places=Places(python), repeats=2), "stopes", "faiss")

    assert (stopes["state"], stopes["reason"]) == ("failed", reason)
    assert faiss["state"] == "measured" and len(faiss["runs"]) == 2


def test_the_command_shows_a_peers_traceback_and_ends_with_code_one(run: Run) -> None:
    Path("LASER/source").mkdir(parents=True)
    Path("LASER/source/mine_bitexts.py").write_text("import no_such_encoder\n")

    ended = run("--rows", "9", "--peer", "laser", "--laser", "LASER", "--repeats", "1")

    assert ended.exit_code == 1
    assert "laser failed: ended with code 1:" in ended.output
    assert "ModuleNotFoundError: No module named 'no_such_encoder'" in ended.output


def test_ours_that_fails_leaves_the_others_their_seconds_but_no_ratios(bench_in: Bench) -> None:
    ours, faiss = bench_in.rows(bench_in.request(9, 9, engine="steam"), "ours", "faiss")

    assert ours["state"] == "failed" and "There is no engine 'steam'" in ours["reason"]
    assert "knn_times_ours" not in faiss and faiss["seconds_knn"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("src.npy",), "Only one matrix was given, src.npy. Expected: SRC.npy and TGT.npy, or neither"),
        (("src.npy", "tgt.npy", "--dimension", "8"), "Files were given together with --dimension 8"),
        (("--peer", "annoy"), "There is no peer 'annoy'. Expected: one of faiss, stopes, laser, sentence-transformers"),
        (("--out", "report.csv"), "ends in .json or .md"),
        (("--out", "src.npy/report.md"), "cannot be written"),
        (("src.npy", "wide.npy"), "src.npy has rows of 32 values, wide.npy of 33"),
        (("src.npy", "none.npy"), "none.npy has no rows"),
        (("src.npy", "nowhere.npy"), "There is no file nowhere.npy"),
    ],
)
def test_bad_words_are_refused_before_anything_is_measured(run: Run, words: tuple[str, ...], message: str) -> None:
    save_sides()
    np.save("wide.npy", np.ones((5, 33), np.float32))
    np.save("none.npy", np.empty((0, 32), np.float32))

    ended = run(*words)

    assert isinstance(ended.exception, SpeechMiningError) and message in str(ended.exception)
    assert not Path("report.csv").exists()


def test_the_checkout_has_a_door_of_its_own() -> None:
    words = [sys.executable, "-m", "benchmarks.peers", "--peer", "annoy"]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=CHECKOUT)

    assert ended.returncode == 2
    assert "There is no peer 'annoy'" in ended.stderr and "Traceback" not in ended.stderr


def test_synthetic_pairs_are_easy_and_hard() -> None:
    source, target = embeddings.synthetic_sides(400, 300, 256)

    cosines = np.einsum("ij,ij->i", source[:150], target[:150])
    assert cosines[:10].min() > cosines[-10:].max() + 0.1
    assert np.array_equal(embeddings.synthetic_sides(400, 300, 256)[1], target)


def random_table(rng: np.random.Generator, rows: int, others: int, k: int) -> npt.NDArray[np.int64]:
    """k distinct neighbours a row, or as many as there are and -1."""
    table = np.full((rows, k), -1, np.int64)
    for row in table:
        row[: min(k, others)] = rng.permutation(others)[:k]
    return table


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_shares_and_gap_are_what_sets_and_loops_say(n: int, m: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = embeddings.synthetic_sides(n, m, 7, seed)
    forward, backward = random_table(rng, n, m, k), random_table(rng, m, n, k)
    ours = both_directions(source, target, k)

    found = compared(ours, forward, backward, source, target)

    gaps, shared, total = [], 0, 0
    sides = ((forward, ours.forward_rows, source @ target.T), (backward, ours.backward_rows, target @ source.T))
    for table, own_table, cosines in sides:
        for theirs, own, row in zip(table, own_table, cosines, strict=True):
            one, other = set(theirs[theirs >= 0]), set(own[own >= 0])
            shared, total = shared + len(one & other), total + len(other)
            gaps.append(abs(row[list(one)].min() - row[list(other)].min()))
    assert found is not None
    assert found.ours_of_theirs == found.theirs_of_ours == shared / total
    assert found.gap == pytest.approx(max(gaps), abs=1e-6)


def compared(
    ours: Neighbours, forward: npt.NDArray[np.int64], backward: npt.NDArray[np.int64], *sides: npt.NDArray[np.float32]
) -> agreement.NeighbourAgreement | None:
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "tables.npz", forward_rows=forward, backward_rows=backward)
        return agreement.compare_neighbours(ours, Path(folder), *sides)


def test_pairs_are_counted_once_and_told_apart(tmp_path: Path) -> None:
    source, target = embeddings.synthetic_sides(40, 30, 64)
    ours = both_directions(source, target, 4)
    own = agreement.strategies.mine(ours, strategy="max", threshold=1.06)
    kept, strangers = slice(1, None), ([39, 38], [29, 29])
    sides = ((own.source, strangers[0]), (own.target, strangers[1]))
    source_twice, target_twice = (np.concatenate([rows[kept], rows[kept], more]) for rows, more in sides)
    np.savez(tmp_path / "pairs.npz", source=source_twice, target=target_twice)

    found = agreement.compare_pairs(ours, tmp_path, "max", 1.06)

    assert found == agreement.PairAgreement("max", len(own.score) - 1, 2, 1)


def test_requirements_pin_every_version_and_name_no_place() -> None:
    for path in REQUIREMENTS.values():
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert lines and all(re.fullmatch(r"[a-z][\w-]*==\d[\w.]*", line) for line in lines)
    assert "stopes==2.2.1" in REQUIREMENTS["stopes"].read_text().split()


def test_an_environment_is_made_and_a_package_that_is_nowhere_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing, absent = tmp_path / "nothing.txt", tmp_path / "absent.txt"
    nothing.write_text("# nothing\n")
    absent.write_text("no-such-package-anywhere==1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    python = install(tmp_path / "peers", [nothing])

    assert python == tmp_path / "peers" / "bin" / "python"
    assert subprocess.run([python, "-c", "import pip"]).returncode == 0
    with pytest.raises(subprocess.CalledProcessError):
        install(tmp_path / "peers", [absent])


def test_scripts_for_other_interpreters_import_nothing_of_ours_at_their_top() -> None:
    folder = Path(embeddings.__file__).parent
    for script in [folder / "stopwatch.py", *(folder / "peers").glob("*.py")]:
        for node in ast.parse(script.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "numpy"}, script
