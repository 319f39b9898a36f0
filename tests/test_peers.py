"""What LASER and stopes choose from the same embeddings, and where we differ on purpose (`docs/peers.md`).

Each semantics stands here as a case worked by hand, which always runs, and is compared with the peer itself where it
is installed: stopes by the interpreter that `S2S_STOPES_PYTHON` names, LASER by the checkout that `S2S_LASER` names.
The peer reads the same .npy files, in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from speech_mining.audio.decode import read_waveform
from speech_mining.encoders.protocol import SpeechSpan
from speech_mining.encoders.student import Student
from speech_mining.knn import both_directions, normalise
from speech_mining.mining.strategies import Mined, mine

Embeddings: TypeAlias = npt.NDArray[np.float32]
Both: TypeAlias = tuple[Embeddings, Embeddings]
Sides: TypeAlias = Callable[[], Both]
Scored: TypeAlias = dict[tuple[int, int], float]

STOPES = Path(os.environ.get("S2S_STOPES_PYTHON", ""))
LASER = Path(os.environ.get("S2S_LASER", ""))
with_stopes = pytest.mark.skipif(
    not STOPES.is_file(), reason="no stopes: set S2S_STOPES_PYTHON to a Python that imports stopes 2.2.1"
)
with_laser = pytest.mark.skipif(
    not (LASER / "source" / "mine_bitexts.py").is_file(), reason="no LASER: set S2S_LASER to a checkout of it"
)
LIBRARY = Path(__file__).parent.parent / "demo" / "library" / "download"
K = 8
ROUNDING = 2e-6
"""The peers add and divide in float32, we in float64: scores differ by up to 3.1e-7 in what is compared here."""


def planted() -> Both:
    """Translations of half of the rows, from hardly disturbed to hardly recognisable."""
    chance = np.random.default_rng(4)
    source, target = (chance.standard_normal((count, 48)).astype(np.float32) for count in (400, 350))
    noise = np.geomspace(0.3, 3, 200, dtype=np.float32)[:, None]
    target[:200] = source[:200] + noise * target[:200]
    return normalise(source + 0.6), normalise(target + 0.6)


def spoken() -> Both:
    """Speech of the miniature library, German and English, cut every second into spans of 4 s."""
    sides = []
    for language, path in (
        ("deu", "geschichtenvomofen_librivox/geschichtenvomofen_01_kleinwelt_64kb.mp3"),
        ("eng", "talesfromtheharbour_librivox/talesfromtheharbour_01_miniature_64kb.mp3"),
    ):
        heard = read_waveform(LIBRARY / path)
        starts = range(0, len(heard) - 64_000, 16_000)
        spans = [SpeechSpan(heard, start, start + 64_000, language) for start in starts]
        sides.append(normalise(Student.load().embed(spans).vectors))
    return sides[0], sides[1]


def at_the_threshold() -> Both:
    """Two rows that are the same on both sides, so that their cosine is exactly 1."""
    axes = np.eye(4, dtype=np.float32)
    return axes[:2], axes[:2]


def opposites() -> Both:
    """One row a side, pointing away from each other: cosine -1, and so are both means."""
    ahead = np.array([[1, 0, 0, 0]], np.float32)
    return ahead, -ahead


def twins() -> Both:
    """Row 0 of both sides is the same sentence, rows 1 to 4 are unrelated and nearly at right angles."""
    axes = np.eye(10, dtype=np.float32) + np.float32(0.1)
    return normalise(axes[:5]), normalise(axes[[0, 6, 7, 8, 9]])


def axes() -> Both:
    """Two rows at right angles, the same on both sides."""
    return np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)


ALL_SIDES: tuple[Sides, ...] = (planted, spoken, opposites, twins, axes)
either = pytest.mark.parametrize("sides", [planted, spoken])


def ours(sides: Both, **how: Any) -> Mined:
    return mine(both_directions(*sides, K), **how)


def scored(mined: Mined) -> Scored:
    return dict(zip(zip(mined.source.tolist(), mined.target.tolist(), strict=True), mined.score.tolist(), strict=True))


def assert_same(theirs: Scored, mined: Mined, times: float = 1.0) -> None:
    """The same pairs, with the peer's scores `times` ours."""
    expected = scored(mined)
    assert theirs.keys() == expected.keys()
    assert len(theirs) > 5  # else nothing was compared
    for pair, score in theirs.items():
        assert score == pytest.approx(times * expected[pair], abs=ROUNDING), pair


# --- LASER -----------------------------------------------------------------------------------------------------------


def laser(folder: Path, sides: Both, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `mine_bitexts.py --mode mine` on the files of both sides; a text is the number of its row.

    It imports LASER's encoders, which are of no use to mining and need fairseq: an empty module stands for them.
    """
    empty = folder / "empty" / "laser_encoders"
    empty.mkdir(parents=True, exist_ok=True)
    (empty / "__init__.py").touch()
    (empty / "models.py").write_text("SentenceEncoder = None\n")
    words = [str(LASER / "source" / "mine_bitexts.py")]
    for name, side in zip(("src", "trg"), sides, strict=True):
        np.save(folder / f"{name}.npy", side)
        np.load(folder / f"{name}.npy").tofile(folder / f"{name}.raw")  # it reads values without a header
        (folder / f"{name}.txt").write_text("".join(f"{row}\n" for row in range(len(side))))
        words += [
            str(folder / f"{name}.txt"),
            f"--{name}-lang",
            name,
            f"--{name}-embeddings",
            str(folder / f"{name}.raw"),
        ]
    asked = {"dim": sides[0].shape[1], "neighborhood": K, "mode": "mine", "output": folder / "mined.tsv", **options}
    words += [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "LASER": str(LASER), "PYTHONPATH": str(folder / "empty")}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)


def laser_pairs(folder: Path, sides: Both, **options: Any) -> Scored:
    told = laser(folder, sides, **options)
    assert told.returncode == 0, told.stderr
    rows = [line.split("\t") for line in (folder / "mined.tsv").read_text().splitlines()]
    found = {(int(source), int(target)): float(score) for score, source, target in rows}
    assert len(found) == len(rows)
    return found


@with_laser
@either
@pytest.mark.parametrize(("margin", "threshold"), [("ratio", 1.06), ("distance", 0.02), ("absolute", 0.5)])
def test_max_is_lasers(tmp_path: Path, sides: Sides, margin: str, threshold: float) -> None:
    theirs = laser_pairs(tmp_path, sides(), retrieval="max", margin=margin, threshold=threshold)
    assert_same(theirs, ours(sides(), margin=margin, strategy="max", threshold=threshold))


@with_laser
@either
def test_intersection_is_lasers_but_for_the_threshold_it_does_not_apply(tmp_path: Path, sides: Sides) -> None:
    theirs = laser_pairs(tmp_path, sides(), retrieval="intersect", threshold=1.06)
    assert min(theirs.values()) < 1.06
    assert_same(theirs, ours(sides(), strategy="intersection", threshold=-np.inf))
    reaching = {pair: score for pair, score in theirs.items() if score >= 1.06}
    assert_same(reaching, ours(sides(), strategy="intersection", threshold=1.06))


@with_laser
@pytest.mark.parametrize("retrieval", ["fwd", "bwd"])
def test_laser_cannot_mine_in_one_direction(tmp_path: Path, retrieval: str) -> None:
    """It searches in that direction only, and then needs the mean cosines of both."""
    told = laser(tmp_path, planted(), retrieval=retrieval)
    assert told.returncode != 0
    assert "NameError" in told.stderr


def test_a_pair_at_the_threshold_is_kept() -> None:
    assert scored(ours(at_the_threshold(), margin="absolute", threshold=1.0)) == {(0, 0): 1.0, (1, 1): 1.0}


@with_laser
def test_laser_drops_a_pair_at_the_threshold(tmp_path: Path) -> None:
    assert laser_pairs(tmp_path, at_the_threshold(), margin="absolute", threshold=1.0) == {}
    assert len(laser_pairs(tmp_path, at_the_threshold(), margin="absolute", threshold=0.99)) == 2


def test_a_ratio_of_two_negative_numbers_is_no_margin() -> None:
    mined = ours(opposites(), threshold=0.5)
    assert (mined.counts["pairs"], mined.counts["undefined"]) == (0, 2)


@with_laser
def test_laser_pairs_opposites(tmp_path: Path) -> None:
    assert laser_pairs(tmp_path, opposites(), retrieval="max", threshold=0.5) == {(0, 0): 1.0}


# --- stopes ----------------------------------------------------------------------------------------------------------


USUAL = {"margin": "ratio", "type": "union", "sort": False, "threshold": 1.06, "fp16": False, "lose": False}
WAYS: dict[str, dict[str, Any]] = {
    **{f"{kind}_nearest": {"type": kind} for kind in ("forward", "backward", "union")},
    **{f"{kind}_margin": {"type": kind, "sort": True} for kind in ("forward", "backward", "union")},
    "distance": {"margin": "distance", "threshold": 0.06},
    "absolute": {"margin": "absolute", "threshold": 1.1},
    "all": {"threshold": 0.5},
    "all_rounded": {"threshold": 0.5, "fp16": True},
    "one_neighbour_missing": {"lose": True},
    "nothing": {"threshold": 1e6},
}


@dataclass(frozen=True)
class Found:
    """What stopes' `mine` returned."""

    rows: list[tuple[int, int]]
    """Pairs in its order, repeated as it repeats them."""
    score: Scored
    score_max: float
    after_last_stage: int
    """Pairs that its next stage, which writes them out, leaves below `score_max`."""


@pytest.fixture(scope="module")
def stopes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sides, str], Found | str]:
    """What stopes makes of some sides in one of the `WAYS`, or the name of the exception that it ends with.

    Importing stopes takes seconds, so one process does it all.
    """
    folders = {sides: tmp_path_factory.mktemp(sides.__name__) for sides in ALL_SIDES}
    for sides, folder in folders.items():
        for name, side in zip(("source", "target"), sides(), strict=True):
            np.save(folder / f"{name}.npy", side)
        ways = {name: {**USUAL, **way} for name, way in WAYS.items()}
        (folder / "asked.json").write_text(json.dumps({"k": K, "ways": ways}))
    command = [STOPES, Path(__file__).parent / "peer_stopes.py", *folders.values()]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path_factory.getbasetemp())
    assert told.returncode == 0, told.stderr
    return lambda sides, way: _found(folders[sides], way)


def _found(folder: Path, way: str) -> Found | str:
    if (folder / f"{way}.error").exists():
        return (folder / f"{way}.error").read_text()
    with np.load(folder / f"{way}.npz") as kept:
        rows = list(zip(kept["source"].tolist(), kept["target"].tolist(), strict=True))
        score = dict(zip(rows, kept["score"].tolist(), strict=True))
        return Found(rows, score, float(kept["score_max"]), int(kept["after_last_stage"]))


@with_stopes
@either
@pytest.mark.parametrize("best", ["nearest", "margin"])
@pytest.mark.parametrize("strategy", ["forward", "backward", "union"])
def test_forward_backward_and_union_are_stopes(stopes: Any, sides: Sides, strategy: str, best: str) -> None:
    theirs = stopes(sides, f"{strategy}_{best}")
    assert_same(theirs.score, ours(sides(), strategy=strategy, best=best))


@with_stopes
@either
def test_stopes_doubles_cosines_and_so_the_distance_and_absolute_margins(stopes: Any, sides: Sides) -> None:
    near = {"strategy": "union", "best": "nearest"}
    assert_same(stopes(sides, "distance").score, ours(sides(), margin="distance", threshold=0.03, **near), times=2)
    assert_same(stopes(sides, "absolute").score, ours(sides(), margin="absolute", threshold=0.55, **near), times=2)


@with_stopes
@either
def test_stopes_union_repeats_the_pairs_that_are_best_in_both_directions(stopes: Any, sides: Sides) -> None:
    theirs = stopes(sides, "union_margin")
    repeated = {pair for pair in theirs.rows if theirs.rows.count(pair) == 2}
    assert repeated == scored(ours(sides(), strategy="intersection")).keys()
    assert len(theirs.rows) == len(theirs.score) + len(repeated)


@with_stopes
def test_the_last_stage_of_stopes_drops_the_best_pairs(stopes: Any) -> None:
    theirs = stopes(planted, "forward_nearest")
    assert theirs.score_max == 1.25
    best = [score for score in ours(planted(), strategy="forward", best="nearest").score if score > 1.25]
    assert len(theirs.rows) - theirs.after_last_stage == len(best) > 0


@with_stopes
@either
def test_distances_that_stopes_keeps_in_half_precision_move_its_scores(stopes: Any, sides: Sides) -> None:
    exact, rounded = stopes(sides, "all"), stopes(sides, "all_rounded")
    moved = max(abs(exact.score[pair] - rounded.score[pair]) for pair in exact.score.keys() & rounded.score.keys())
    assert 5e-5 < moved < 2e-3


@with_stopes
def test_stopes_pairs_opposites(stopes: Any) -> None:
    assert stopes(opposites, "all").score == {(0, 0): 1.0}


@with_stopes
def test_stopes_fails_on_a_missing_neighbour_and_on_finding_nothing(stopes: Any) -> None:
    assert stopes(planted, "one_neighbour_missing") == "IndexError"
    assert stopes(planted, "nothing") == "TypeError"


def test_a_missing_neighbour_is_left_out_and_finding_nothing_is_no_error() -> None:
    found = both_directions(*twins(), K)
    found.forward_rows[0, 4], found.forward_cosines[0, 4] = -1, -np.inf  # of 8 places 5 were filled
    assert mine(found).counts["candidates"] == 2 * 5 * 5 - 1
    assert mine(found, threshold=1e6).counts["pairs"] == 0


def test_union_holds_each_pair_once_and_the_best_one_however_high_its_score() -> None:
    """The pair of twins is best in both directions, and its margin is far above stopes' 1.25."""
    mined = ours(twins(), strategy="union", threshold=1.25)
    assert scored(mined).keys() == {(0, 0)}
    assert mined.score[0] > 1.5
    assert scored(ours(twins(), strategy="intersection", threshold=1.25)).keys() == {(0, 0)}


@with_stopes
def test_stopes_has_the_twins_twice_and_its_last_stage_loses_them(stopes: Any) -> None:
    theirs = stopes(twins, "union_nearest")
    assert theirs.rows.count((0, 0)) == 2 and theirs.score[0, 0] > 1.5
    assert theirs.after_last_stage == len(theirs.rows) - 2


def test_the_distance_margin_is_in_cosines() -> None:
    """By hand: cosines 1 and 0, so both means are 1/2 and the margin of the twins 1 - 1/2."""
    assert scored(ours(axes(), margin="distance", threshold=0.03)) == {(0, 0): 0.5, (1, 1): 0.5}


@with_stopes
def test_stopes_has_twice_that_distance(stopes: Any) -> None:
    assert stopes(axes, "distance").score == {(0, 0): 1.0, (1, 1): 1.0}
