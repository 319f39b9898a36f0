"""Two spaces without pairs: the arithmetic of a map, the matching, the methods, and the choice between them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.align.adversarial import Game, Setting, axes_on_axes, by_game
from speech_mining.align.alignment import LEAST_ROWS, Alignment, AlignmentError, Pairing, Wish, align
from speech_mining.align.csls import Question, match, neighbourhoods, ranks
from speech_mining.align.dictionary import read_dictionary
from speech_mining.align.distribution import by_distribution, profile
from speech_mining.align.gromov import Likeness, Plan, Transport, by_transport, likeliest, profiles_apart
from speech_mining.align.procrustes import PLAIN, REWEIGHTED, Around, both_sides, orthogonal
from speech_mining.align.refinement import Guess, Refinement, agreed, fitted, refined, self_taught
from speech_mining.align.spaces import Form, SpaceMap, read_steps, unit
from speech_mining.errors import EmbeddingError, SettingsError
from tests.aligned_spaces import Spaces, rotation, spaces

QUICK = Wish(restarts=1, transport=Transport(frequent=500, steps=10), game=Game(epochs=1, updates=20, hidden=32))


def accuracy(found: Alignment, of: Spaces) -> float:
    """Share of source rows whose nearest target row under CSLS is the right one."""
    matched = match(found.map.source.apply(of.source), found.map.target.apply(of.target), threads=1)
    return float((matched.forward == of.answers).mean())


def supervised(of: Spaces, **options: Any) -> Alignment:
    return align(of.source, of.target, Wish(method="supervised", **options), of.dictionary)


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 12))
@settings(max_examples=15, deadline=None)
def test_the_map_of_each_side_keeps_lengths_and_angles(seed: int, dimension: int, other: int) -> None:
    random = np.random.default_rng(seed)
    source, target = (random.standard_normal((30, columns)).astype(np.float32) for columns in (dimension, other))

    for weights in both_sides(source, target):
        assert weights.shape[1] == min(dimension, other)
        assert np.allclose(weights.T @ weights, np.eye(min(dimension, other)), atol=1e-5)


def test_procrustes_finds_the_rotation_that_was_made() -> None:
    random = np.random.default_rng(0)
    rows, turned = random.standard_normal((40, 7)), rotation(7, 1)

    assert np.allclose(orthogonal(rows, rows @ turned), turned, atol=1e-5)


def test_procrustes_of_a_quarter_turn_worked_by_hand() -> None:
    source = np.array([[1, 0], [0, 1]], np.float32)
    target = np.array([[0, 1], [-1, 0]], np.float32)

    assert np.allclose(orthogonal(source, target), [[0, 1], [-1, 0]], atol=1e-6)


def test_whitening_is_undone_in_the_common_space() -> None:
    of = spaces(200, 6, noise=0.0)
    source = Form.learned(of.source).apply(of.source)

    mine, other = both_sides(source, source @ rotation(6, 3).astype(np.float32), Around(whitened=True))

    assert np.allclose(np.cov((source @ mine).T), mine.T @ np.cov(source.T) @ mine, atol=1e-5)
    assert np.allclose(
        np.sort(np.linalg.eigvalsh(np.cov((source @ mine).T))), np.linalg.eigvalsh(np.cov(source.T)), atol=1e-4
    )
    assert np.allclose(source @ mine, source @ rotation(6, 3).astype(np.float32) @ other, atol=1e-3)


def test_reweighting_shortens_directions_that_do_not_go_together() -> None:
    random = np.random.default_rng(0)
    shared = random.standard_normal((500, 2)).astype(np.float32)
    source, target = (np.hstack([shared, random.standard_normal((500, 2))]).astype(np.float32) for _ in range(2))

    lengths = np.linalg.norm(both_sides(source, target, Around(reweighted=1.0))[0], axis=0)

    assert lengths[:2].min() > 0.9
    assert lengths[2:].max() < 0.2


def csls_by_hand(source: npt.NDArray[Any], target: npt.NDArray[Any], k: int) -> npt.NDArray[np.float64]:
    cosines = source.astype(np.float64) @ target.astype(np.float64).T
    most = min(k, *cosines.shape)
    own, other = (np.sort(table, axis=1)[:, -most:].mean(1) for table in (cosines, cosines.T))
    return 2 * cosines - own[:, None] - other[None]


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60), st.integers(1, 15))
@settings(max_examples=15, deadline=None)
def test_matches_are_those_of_the_whole_table(seed: int, rows: int, columns: int, k: int) -> None:
    random = np.random.default_rng(seed)
    source, target = (unit(random.standard_normal((count, 5))) for count in (rows, columns))

    matched = match(source, target, k=k, wanted=3, threads=1)

    table = csls_by_hand(source, target, k)
    lists = matched.neighbours
    assert np.allclose(table.max(1), table[np.arange(rows), matched.forward], atol=1e-5)
    assert np.allclose(table.max(0), table[matched.backward, np.arange(columns)], atol=1e-5)
    assert np.allclose(lists.forward_cosines * matched.scale, -np.sort(-table, axis=1)[:, : lists.k], atol=1e-5)


def test_a_hub_is_taken_down() -> None:
    source = unit(np.array([[1, 0, 0.2], [0, 1, 0.2], [1, 1, 0.2]], np.float32))
    hub, far = [1, 1, 0.0], [1, 0, -1.0]
    target = unit(np.array([hub, far], np.float32))

    assert (source @ target.T).argmax(1).tolist() == [0, 0, 0]  # all are nearest to the hub
    assert match(source, target, k=3, threads=1).forward.tolist() == [1, 0, 0]


@given(st.integers(0, 10_000), st.sampled_from(["nn", "csls"]))
@settings(max_examples=15, deadline=None)
def test_ranks_are_those_of_the_whole_table(seed: int, measure: str) -> None:
    random = np.random.default_rng(seed)
    source, target = unit(random.standard_normal((25, 4))), unit(random.standard_normal((30, 4)))
    rows = random.permutation(25)[:9]
    answers = [random.permutation(30)[: random.integers(1, 4)] for _ in rows]

    found = ranks(source, target, Question(rows, answers), measure=measure, k=5, threads=1)

    table = csls_by_hand(source, target, 5) if measure == "csls" else (source @ target.T).astype(np.float64)
    for row, right, rank in zip(rows, answers, found, strict=True):
        order = np.argsort(-table[row])
        first = next(place for place, column in enumerate(order) if column in right)
        assert rank == 1 + first


def test_right_rows_do_not_count_before_each_other() -> None:
    source, target = unit(np.array([[1, 0]])), unit(np.array([[1, 0], [1, 0], [0, 1], [1, 0]]))

    def rank(right: list[int]) -> int:
        return int(ranks(source, target, Question(np.array([0]), [np.array(right)]), measure="nn")[0])

    assert rank([0, 1, 1, 3]) == 1
    assert rank([0, 1]) == 2  # row 3 is as near
    assert rank([2]) == 4


def test_a_map_that_makes_all_rows_alike_is_ranked_last() -> None:
    same = np.tile(unit(np.ones((1, 3))), (8, 1))

    assert ranks(same, same, Question(np.arange(8), [np.array([row]) for row in range(8)])).tolist() == [8] * 8


@pytest.mark.parametrize(
    ("rows", "answers", "told"),
    [
        ([0], [[]], "at least one right row"),
        ([0, 1], [[0]], "at least one right row"),
        ([9], [[0]], "not there"),
        ([0], [[-1]], "not there"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(rows: list[int], answers: list[list[int]], told: str) -> None:
    side = unit(np.eye(4))
    with pytest.raises(EmbeddingError, match=told):
        ranks(side, side, Question(np.array(rows), [np.array(right, np.int64) for right in answers]))
    with pytest.raises(SettingsError, match="no measure"):
        ranks(side, side, Question(np.array([0]), [np.array([0])]), measure="l2")


def test_supervision_recovers_a_rotated_space_of_which_half_is_known() -> None:
    of = spaces(400, 20, noise=0.0)
    known = Pairing(of.dictionary.source[:200], of.dictionary.target[:200])

    assert accuracy(align(of.source, of.target, Wish(method="supervised"), known), of) == 1.0


@pytest.mark.parametrize("method", ["distribution", "gw"])
def test_a_rotated_noisy_space_is_recovered_without_a_pair(method: str) -> None:
    of = spaces(500, 20, noise=0.2)
    bound = accuracy(supervised(of), of)

    assert bound > 0.9
    assert accuracy(align(of.source, of.target, replace(QUICK, method=method)), of) > bound - 0.05


def test_the_game_brings_a_rough_map_nearer() -> None:
    of = spaces(500, 20, noise=0.2)

    def share(weights: npt.NDArray[np.float32]) -> float:
        matched = match(unit(of.prepared[0] @ weights), of.prepared[1], threads=1)
        return float((matched.forward == of.answers).mean())

    game = Game(epochs=6, updates=250, hidden=128)
    played = by_game(of.prepared, game, 2, Setting("cpu", share))

    assert played is not None
    assert np.allclose(played.weights @ played.weights.T, np.eye(20), atol=1e-4)
    assert share(axes_on_axes(of.prepared, 2)) < 0.03
    assert share(played.weights) > 0.06  # 0.21 where this was written; games differ with the last digit


def test_a_discriminator_that_has_won_is_renewed() -> None:
    apart = unit(np.eye(20)[:10].repeat(5, 0)), unit(np.ones((50, 20)))
    game = Game(epochs=2, updates=150, hidden=32, map_rate=0.0)

    played = by_game(apart, game, 0, Setting("cpu", lambda weights: 0.0))

    assert played is not None
    assert played.renewed > 0
    assert by_game(apart, replace(game, won=0.0), 0, Setting("cpu", lambda weights: 0.0)).renewed == 0  # type: ignore[union-attr]


def test_auto_survives_a_game_that_collapses() -> None:
    of = spaces(500, 20, noise=0.2)
    hopeless = replace(QUICK, game=Game(begin="identity", epochs=1, updates=1, hidden=8))

    alone = align(of.source, of.target, replace(hopeless, method="adversarial"))
    chosen = align(of.source, of.target, hopeless)

    assert accuracy(alone, of) < 0.1
    assert accuracy(chosen, of) > 0.8
    assert [attempt.method for attempt in chosen.attempts] == ["distribution", "gw", "adversarial"]
    assert chosen.best.criterion == max(attempt.criterion for attempt in chosen.attempts)
    assert chosen.best.method != "adversarial"


def test_the_criterion_goes_with_what_is_right() -> None:
    of = spaces(300, 15, noise=0.2)
    wrong = Pairing(of.dictionary.source, np.roll(of.dictionary.target, 1))
    shuffled = align(of.source, of.target, Wish(method="supervised"), wrong)

    assert supervised(of).best.criterion > shuffled.best.criterion + 0.1


@given(st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_turning_a_side_changes_no_first_pairing(seed: int) -> None:
    of = spaces(120, 10, noise=0.2)
    turned = unit((of.source.astype(np.float64) @ rotation(10, seed)).astype(np.float32))
    sides, others = ((Form.learned(rows).apply(rows), of.prepared[1]) for rows in (of.source, turned))

    here, there = by_distribution(sides), by_distribution(others)
    assert (here.target == there.target).mean() > 0.98  # of rows as near as float32 tells

    game = axes_on_axes(sides, 0), axes_on_axes(others, 0)
    assert np.allclose(sides[0] @ game[0], others[0] @ game[1], atol=1e-3)


def test_permuting_rows_permutes_what_is_found() -> None:
    of = spaces(300, 15, noise=0.1)
    order = np.random.default_rng(5).permutation(300)
    moved = replace(of, source=of.source[order], answers=of.answers[order])
    wish = replace(QUICK, method="distribution")

    assert accuracy(align(moved.source, moved.target, wish), moved) == pytest.approx(
        accuracy(align(of.source, of.target, wish), of), abs=0.02
    )


def test_sides_of_two_dimensions_meet_in_the_smaller_one() -> None:
    of = spaces(400, 20, noise=0.1)
    wider = np.hstack([of.target, np.zeros((400, 5), np.float32)]) @ rotation(25, 2).astype(np.float32)
    other = replace(of, target=wider)

    for method in ("distribution", "gw"):
        found = align(of.source, wider, replace(QUICK, method=method))
        assert found.map.target.weights.shape == (25, 20)
        assert accuracy(found, other) > 0.9
    assert accuracy(supervised(other), other) > 0.9
    assert {attempt.method for attempt in align(of.source, wider, QUICK).attempts} == {"distribution", "gw"}
    with pytest.raises(SettingsError, match="spaces of one dimension"):
        align(of.source, wider, replace(QUICK, method="adversarial"))


def test_the_longer_side_may_hold_rows_without_a_partner() -> None:
    of = spaces(500, 20, noise=0.1)
    short = replace(of, source=of.source[:400], answers=of.answers[:400])

    for method in ("distribution", "gw"):
        assert accuracy(align(short.source, short.target, replace(QUICK, method=method)), short) > 0.8


def test_self_teaching_climbs_out_of_a_pairing_that_is_mostly_wrong() -> None:
    of = spaces(500, 20, noise=0.3)
    random = np.random.default_rng(0)
    target = np.where(random.random(500) < 0.06, of.answers, random.integers(0, 500, 500))
    first = Pairing(np.arange(500), target)

    taught = self_taught(of.prepared, first, Refinement(), random)

    right = (of.answers[taught.source] == taught.target).mean()
    assert (of.answers == target).mean() < 0.1
    assert right > 0.8


def share_right(of: Spaces, guess: Guess) -> float:
    matched = match(unit(of.prepared[0] @ guess.source), unit(of.prepared[1] @ guess.target), threads=1)
    return float((matched.forward == of.answers).mean())


def rough(of: Spaces, seed: int, known: int = 16, wrong: int = 24) -> Guess:
    """A map of few pairs, most of them wrong; other seeds have others."""
    random = np.random.default_rng(seed)
    rows = random.choice(len(of.answers), known + wrong, replace=False)
    found = np.concatenate([of.answers[rows[:known]], random.integers(0, len(of.answers), wrong)])
    return fitted(of.prepared, (of.prepared[0][rows], of.prepared[1][found]), Refinement())[0]


def mutual_partners(of: Spaces, guess: Guess) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rows that are each other's nearest under a map."""
    matched = match(unit(of.prepared[0] @ guess.source), unit(of.prepared[1] @ guess.target), threads=1)
    rows = np.flatnonzero(matched.backward[matched.forward] == np.arange(len(matched.forward)))
    return of.prepared[0][rows], of.prepared[1][matched.forward[rows]]


def test_maps_that_err_each_in_its_own_way_are_right_together() -> None:
    of = spaces(300, 20, noise=0.6)
    guesses = [rough(of, seed) for seed in range(6)]
    alone = [agreed(of.prepared, [guess], Refinement()) for guess in guesses]

    together = share_right(of, agreed(of.prepared, guesses, Refinement()))

    assert max(share_right(of, guess) for guess in guesses) < 0.4
    assert together > max(share_right(of, guess) for guess in alone) + 0.1
    assert together > 0.5


@pytest.mark.parametrize("around", [PLAIN, REWEIGHTED])
def test_what_one_map_agrees_on_is_the_map_of_its_mutual_pairs(around: Around) -> None:
    of = spaces(300, 20, noise=0.4)
    guess = rough(of, 0)
    partners = mutual_partners(of, guess)

    found = agreed(of.prepared, [guess], Refinement(around=around))

    expected = fitted(of.prepared, partners, Refinement(), around)[0]
    assert 10 < len(partners[0]) < 300
    assert np.array_equal(found.source, expected.source)
    assert np.array_equal(found.target, expected.target)
    assert found.criterion == expected.criterion


def test_a_pair_counts_as_often_as_it_is_found() -> None:
    of = spaces(300, 20, noise=0.4)
    one, other = rough(of, 0), rough(of, 1)
    partners = [mutual_partners(of, guess) for guess in (one, one, one, other)]

    found = agreed(of.prepared, [one, one, one, other], Refinement())

    thrice, once = (
        both_sides(np.concatenate([own for own, _ in counted]), np.concatenate([other for _, other in counted]))
        for counted in (partners, partners[2:])
    )
    assert np.allclose(found.source @ found.target.T, thrice[0] @ thrice[1].T, atol=1e-4)
    assert not np.allclose(found.source @ found.target.T, once[0] @ once[1].T, atol=1e-2)


def test_pairs_of_both_ways_are_those_of_the_source_and_then_those_of_the_target() -> None:
    pairs = Pairing.both_ways(np.array([2, 0]), np.array([1, 0, 0]))

    assert (pairs.source.tolist(), pairs.target.tolist()) == ([0, 1, 1, 0, 0], [2, 0, 0, 1, 2])
    assert len(pairs) == 5


def test_refinement_never_lowers_the_criterion() -> None:
    of = spaces(300, 15, noise=0.4)
    first = by_distribution(of.prepared)
    found = [refined(of.prepared, first, Refinement(rounds=rounds)).criterion for rounds in (0, 1, 3, 10)]

    assert found == sorted(found)
    assert found[-1] > found[0]


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    of = spaces(200, 10, noise=0.2)
    wish = replace(QUICK, transport=Transport(frequent=100, steps=5), seed=3)

    for workers in (1, 2):
        align(of.source, of.target, replace(wish, workers=workers)).map.save(tmp_path / f"{workers}.npz")
    align(of.source, of.target, replace(wish, seed=4)).map.save(tmp_path / "other.npz")

    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    assert (tmp_path / "1.npz").read_bytes() != (tmp_path / "other.npz").read_bytes()


@pytest.mark.parametrize("after", [0.0, 0.003, 0.05, 1.0], ids="{} s".format)
def test_a_killed_process_of_the_pool_is_told(after: float) -> None:
    """Whether it is killed while the next one starts, before it has read what to do, or at work."""
    of = spaces(100, 8, noise=0.1)
    others = set(multiprocessing.active_children())
    killed = threading.Thread(target=_kill_a_child, args=(others, after), daemon=True)
    killed.start()

    endless = replace(QUICK, method="adversarial", restarts=2, workers=2, game=Game(updates=10**9))
    with pytest.raises(AlignmentError, match="was killed"):
        align(of.source, of.target, endless)
    killed.join()
    assert set(multiprocessing.active_children()) <= others


def _kill_a_child(others: set[Any], after: float) -> None:
    """A process that the pool of this one begins; `others` were there before, of other tests."""
    while not (children := set(multiprocessing.active_children()) - others):
        time.sleep(0.001)
    time.sleep(after)
    os.kill(children.pop().pid, signal.SIGKILL)


def test_progress_tells_each_attempt() -> None:
    of = spaces(100, 8, noise=0.1)
    told: list[tuple[int, int]] = []

    align(
        of.source, of.target, replace(QUICK, method="distribution", restarts=2), progress=lambda *now: told.append(now)
    )

    assert told == [(0, 2), (1, 2), (2, 2)]


def test_a_time_limit_ends_attempts_and_begins_no_more() -> None:
    of = spaces(300, 15, noise=0.2)
    endless = replace(QUICK, method="adversarial", restarts=2, time_limit_s=0.5, game=Game(updates=10**9))

    with pytest.raises(AlignmentError, match=r"None of 2 attempts .* within 0.5 s"):
        align(of.source, of.target, endless)

    found = align(of.source, of.target, replace(endless, method="auto", time_limit_s=8.0))
    assert found.best.method in ("distribution", "gw")
    assert [attempt.told for attempt in found.attempts][2:] == [
        "out of time before a first guess",
        *["not begun: out of time"] * 3,
    ]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_every_type_of_value_and_a_memory_map_are_taken(tmp_path: Path, dtype: str) -> None:
    of = spaces(150, 10, noise=0.1)
    np.save(tmp_path / "source.npy", (3 * of.source).astype(dtype))
    mapped = np.load(tmp_path / "source.npy", mmap_mode="r")

    found = align(mapped, of.target, Wish(method="supervised"), of.dictionary)

    assert accuracy(found, of) > 0.95


def test_only_frequent_rows_are_matched_and_all_are_mapped() -> None:
    of = spaces(400, 15, noise=0.1)
    few = Refinement(frequent=150)

    found = align(of.source[:, :], of.target, replace(QUICK, method="distribution", refinement=few))

    assert found.map.source.apply(of.source).shape == (400, 15)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows: rows[0], "two dimensions"),
        (lambda rows: rows[: LEAST_ROWS - 1], f"at least {LEAST_ROWS} rows"),
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 7, np.nan, rows), "NaN or infinity: rows 7"),
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 7, 0, rows), "are zero: rows 7"),
        (lambda rows: np.ones_like(rows), "lie at the mean"),
        (lambda rows: rows.astype(np.int64), "int64"),
    ],
)
def test_rows_that_cannot_be_aligned_are_named(spoil: Any, told: str) -> None:
    of = spaces(100, 8, noise=0.1)
    with pytest.raises(EmbeddingError, match=told):
        align(of.source, spoil(of.target), replace(QUICK, method="distribution"))


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (Wish(method="magic"), "no method 'magic'"),
        (Wish(method="supervised"), "no dictionary is given"),
        (Wish(restarts=0), "restarts is 0"),
        (Wish(workers=0), "workers is 0"),
        (Wish(seed=-1), "none below 0"),
        (Wish(time_limit_s=0), "time limit is 0"),
        (Wish(refinement=Refinement(k=0)), "refinement.k is 0"),
        (Wish(refinement=Refinement(frequent=5)), "5 frequent rows"),
        (Wish(device="nothing:0"), "no device 'nothing:0'"),
        (Wish(game=Game(begin="luck")), "begins .*luck"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(wish: Wish, told: str) -> None:
    of = spaces(60, 5, noise=0.1)
    with pytest.raises(SettingsError, match=told):
        align(of.source, of.target, wish)


def test_a_dictionary_is_for_supervision_alone_and_names_rows_that_are_there() -> None:
    of = spaces(60, 5, noise=0.1)
    with pytest.raises(SettingsError, match="a dictionary is given"):
        align(of.source, of.target, QUICK, of.dictionary)
    for rows, told in ((np.array([60]), "row 60, and there are 60"), (np.array([-1]), "row -1")):
        with pytest.raises(EmbeddingError, match=told):
            align(of.source, of.target, Wish(method="supervised"), Pairing(rows, np.array([0])))
    with pytest.raises(EmbeddingError, match="no pairs"):
        align(of.source, of.target, Wish(method="supervised"), Pairing(np.empty(0, np.int64), np.empty(0, np.int64)))


@pytest.mark.parametrize("told", ["unit,centre,unit", "unit", "centre", "unit,centre", "none"])
def test_a_map_is_read_back_as_it_was_written(tmp_path: Path, told: str) -> None:
    of = spaces(100, 8, noise=0.1)
    found = supervised(of, steps=read_steps(told)).map

    found.save(tmp_path / "map.npz")
    read = SpaceMap.load(tmp_path / "map.npz")

    assert read.facts == found.facts
    for side in ("source", "target"):
        rows = getattr(of, side)
        assert np.array_equal(getattr(read, side).apply(rows), getattr(found, side).apply(rows))
    assert accuracy(supervised(of, steps=read_steps(told)), of) > 0.8


class Broken:
    """Values that cannot be read to their end."""

    def __array__(self, *_: Any, **__: Any) -> npt.NDArray[Any]:
        raise OSError("no room")


def test_a_map_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    found = supervised(spaces(100, 8, noise=0.1)).map
    found.save(tmp_path / "map.npz")
    before = (tmp_path / "map.npz").read_bytes()

    broken = replace(found, target=replace(found.target, weights=Broken()))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no room"):
        broken.save(tmp_path / "map.npz")

    assert (tmp_path / "map.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["map.npz"]


@pytest.mark.parametrize("told", ["unit,unit,middle", "centre,centre", "", "unit;centre"])
def test_steps_that_there_are_not_are_refused(told: str) -> None:
    with pytest.raises(SettingsError, match="cannot be normalised by"):
        read_steps(told)


def test_a_file_without_a_map_and_rows_of_another_space_are_refused(tmp_path: Path) -> None:
    of = spaces(60, 5, noise=0.1)
    np.savez(tmp_path / "other.npz", rows=of.source)
    (tmp_path / "text.npz").write_text("no map")
    for name in ("other.npz", "text.npz", "missing.npz"):
        with pytest.raises(EmbeddingError, match=rf"{name} holds no map"):
            SpaceMap.load(tmp_path / name)
    with pytest.raises(EmbeddingError, match="the map takes rows of 5"):
        supervised(of).map.source.apply(np.ones((3, 4), np.float32))


def test_the_mean_is_that_of_the_rows_it_was_learned_from() -> None:
    of = spaces(100, 8, noise=0.1)
    side = supervised(of).map.source

    assert np.array_equal(side.apply(of.source)[:3], side.apply(of.source[:3]))


def test_profiles_of_partners_are_alike() -> None:
    of = spaces(200, 10, noise=0.0)
    own, other = (profile(side) for side in of.prepared)

    assert np.allclose(own, other[of.answers], atol=1e-3)


def test_transport_carries_rows_to_their_partners() -> None:
    of = spaces(200, 10, noise=0.05)
    found = by_transport(of.prepared, Transport(), np.random.default_rng(0))

    assert (of.answers[found.source] == found.target).mean() > 0.9


def likeness(rows: int, columns: int, seed: int = 0) -> Likeness:
    """Any two symmetric tables."""
    random = np.random.default_rng(seed)
    own, other = (random.standard_normal((count, count)) for count in (rows, columns))
    return Likeness((own + own.T, other + other.T), random.random((rows, columns)))


def any_plan(rows: int, columns: int) -> Plan:
    """With marginals that are not uniform."""
    return np.random.default_rng(9).dirichlet(np.ones(rows * columns)).reshape(rows, columns)


def test_distortion_is_the_sum_over_pairs_of_pairs() -> None:
    of, plan = likeness(4, 3), any_plan(4, 3)
    own, other = of.tables

    written_out = sum(
        (own[i, k] - other[j, m]) ** 2 * plan[i, j] * plan[k, m]
        for i in range(4) for j in range(3) for k in range(4) for m in range(3)
    )  # fmt: skip

    assert of.distortion(plan) == pytest.approx(written_out, rel=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_distortion_is_what_pot_begins_with() -> None:
    import ot

    of, plan = likeness(6, 5), any_plan(6, 5)
    log = ot.gromov.gromov_wasserstein(*of.tables, plan.sum(1), plan.sum(0), G0=plan, max_iter=1, log=True)[1]

    assert of.distortion(plan) == pytest.approx(log["loss"][0], rel=1e-12)


def test_the_permutation_that_makes_one_table_the_other_distorts_nothing() -> None:
    own, order = likeness(30, 30).tables[0], np.random.default_rng(1).permutation(30)
    of = Likeness((own, own[np.ix_(order, order)]), np.zeros((30, 30)))
    right = np.eye(30)[:, order] / 30

    assert of.distortion(right) == pytest.approx(0, abs=1e-12)
    assert of.distortion(np.roll(right, 1, axis=1)) > 1


def test_distortion_is_the_same_from_either_side() -> None:
    of, plan = likeness(6, 4), any_plan(6, 4)

    assert Likeness(of.tables[::-1], of.apart.T).distortion(plan.T) == pytest.approx(of.distortion(plan), rel=1e-12)


@given(st.integers(0, 10_000), st.integers(2, 25), st.integers(2, 25), st.floats(0.0, 1.0), st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_plan_gives_every_row_its_share_in_time_or_not(
    seed: int, rows: int, columns: int, structure: float, hurried: bool
) -> None:
    plan = likeness(rows, columns, seed).plan(structure, 20, lambda: hurried)

    assert plan.shape == (rows, columns)
    assert (plan >= 0).all()
    assert np.allclose(plan.sum(1), 1 / rows)
    assert np.allclose(plan.sum(0), 1 / columns)


@pytest.mark.filterwarnings("ignore")
def test_a_plan_made_in_pieces_is_the_one_made_at_once() -> None:
    import ot

    of, even = likeness(40, 40), np.full(40, 1 / 40)
    asked: list[int] = []

    def out_of_time() -> bool:
        asked.append(1)
        return False

    pieces = {steps: of.plan(0.7, steps, out_of_time) for steps in (5, 10)}

    for steps, plan in pieces.items():
        whole = ot.gromov.fused_gromov_wasserstein(
            of.apart, *of.tables, even, even, alpha=0.7, symmetric=True, max_iter=steps
        )
        assert np.allclose(plan, whole, atol=1e-9)
    assert len(asked) == 3
    assert not np.allclose(pieces[5], pieces[10], atol=1e-4)
    assert np.array_equal(of.plan(0.7, 10, lambda: True), pieces[5])


def test_a_plan_of_what_rows_are_alone_pairs_those_least_apart() -> None:
    order = np.random.default_rng(1).permutation(12)
    of = replace(likeness(12, 12), apart=1 - np.eye(12)[:, order])

    assert np.allclose(of.plan(0.0, 50), np.eye(12)[:, order] / 12)


def test_most_of_a_plan_is_read_from_both_sides() -> None:
    pairs = likeliest(np.array([[0.1, 0.2, 0.2], [0.3, 0.15, 0.05]]))

    assert (pairs.source.tolist(), pairs.target.tolist()) == ([0, 1, 1, 0, 0], [1, 0, 0, 1, 2])


def test_profiles_of_partners_are_not_apart_and_may_be_of_two_lengths() -> None:
    of = spaces(200, 10, noise=0.0)
    apart = profiles_apart(of.prepared)

    assert np.allclose(apart[np.arange(200), of.answers], 0, atol=1e-5)
    assert profiles_apart([of.prepared[0], of.prepared[1][:150]]).shape == (200, 150)
    assert (apart > -1e-5).all()


def test_neighbourhoods_of_few_rows_are_all_of_them() -> None:
    source, target = unit(np.eye(3)), unit(np.eye(3)[:2])

    own, other = neighbourhoods(source, target, k=10, threads=1)

    assert own.tolist() == [0.5, 0.5, 0.0]
    assert other.tolist() == [0.5, 0.5]


def test_a_dictionary_of_numbers_or_words_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("0\t2\n1 0\n")
    (tmp_path / "words.tsv").write_text("alt\told\n\nFluss\triver\nnie\tnever\n")
    (tmp_path / "deu").write_text("Fluss\n\n\u2028x\n\nalt\n")  # a row without a word is a row
    (tmp_path / "eng").write_text("new\nold\nriver\nnever\n")

    rows = read_dictionary(tmp_path / "rows.tsv")
    words = read_dictionary(tmp_path / "words.tsv", (tmp_path / "deu", tmp_path / "eng"))

    assert (rows.pairs.source.tolist(), rows.pairs.target.tolist(), rows.skipped) == ([0, 1], [2, 0], 0)
    assert (words.pairs.source.tolist(), words.pairs.target.tolist(), words.skipped) == ([4, 0], [1, 2], 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 1 2\n", "Line 1 .* has 3 values"),
        ("0 1\nalt old\n", "Line 2 .* 'alt old'.*--source-words"),
        ("-1 0\n", "row numbers"),
        ("", "pairs no rows"),
        ("0 99999999999999999999\n", "row numbers"),
    ],
)
def test_a_dictionary_that_is_none_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "pairs").write_text(text)
    with pytest.raises(SettingsError, match=told):
        read_dictionary(tmp_path / "pairs")


def test_a_word_with_two_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("a\nb\na\n")
    (tmp_path / "pairs").write_text("a b\n")
    with pytest.raises(SettingsError, match="row 0 and row 2 'a'"):
        read_dictionary(tmp_path / "pairs", (tmp_path / "words", tmp_path / "words"))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_dictionary(tmp_path / "none")
