"""How good a map between spoken and written words is: worked by hand, and against maps learned from a dictionary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from speech_mining.align.dictionary import read_translations
from speech_mining.align.evaluation import (
    SEEN,
    UNSEEN,
    UNSUPERVISED,
    Spaces,
    answers_of,
    evaluated,
    recall,
    verdict,
)
from speech_mining.align.spaces import Form, Side, SpaceMap, unit
from speech_mining.align.tables import EVALUATION
from speech_mining.errors import EmbeddingError, SettingsError

WORDS, DIMENSION = 60, 8


def _space(seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((WORDS, DIMENSION), np.float32)


def _turned(rows: npt.NDArray[np.float32], noise: float = 0.0) -> npt.NDArray[np.float32]:
    chance = np.random.default_rng(9)
    turn = np.linalg.qr(chance.standard_normal((DIMENSION, DIMENSION)))[0]
    turned = (rows @ turn + noise * chance.standard_normal(rows.shape)).astype(np.float32)
    return np.asarray(turned, np.float32)


def _identity() -> SpaceMap:
    side = Side(Form(("unit",), np.zeros(DIMENSION, np.float32)), np.eye(DIMENSION, dtype=np.float32))
    return SpaceMap(side, side, {})


def _same() -> dict[int, list[int]]:
    return {row: [row] for row in range(WORDS)}


def test_a_turned_space_is_learned_and_the_map_that_does_not_turn_finds_chance() -> None:
    rows = _space()
    table = evaluated(Spaces(rows, _turned(rows), _same()), _identity())
    assert table.schema == pl.Schema(dict(EVALUATION))
    assert recall(table, UNSEEN) == recall(table, SEEN) == 1.0
    assert recall(table, UNSUPERVISED) < 0.15
    assert table["words"].to_list() == [WORDS] * 6


def test_recalls_counted_by_hand() -> None:
    target = _space()
    source = target.copy()
    source[:15] = target[np.roll(np.arange(15), 1)]
    table = evaluated(Spaces(source, target, _same()), _identity())
    assert recall(table, UNSUPERVISED, "nn") == (WORDS - 15) / WORDS
    either = {row: [row, (row - 1) % 15] if row < 15 else [row] for row in range(WORDS)}
    table = evaluated(Spaces(source, target, either), _identity())
    assert recall(table, UNSUPERVISED, "nn") == 1.0


def test_words_the_dictionary_held_flatter_the_map_that_learned_them() -> None:
    rows, other = _space(), _space(1)
    table = evaluated(Spaces(rows, other, _same()), _identity())
    assert recall(table, SEEN, depth=10) > recall(table, UNSEEN, depth=10) + 0.1
    assert recall(table, UNSEEN, depth=1) < 0.15


def _nearest_by_hand(
    source: npt.NDArray[np.float32], target: npt.NDArray[np.float32], known: npt.NDArray[np.int64], power: float
) -> npt.NDArray[np.int64]:
    """The nearest target row of each source row: Procrustes on known rows, directions counting by `power`."""
    alike = [unit(unit(side) - unit(side).mean(axis=0)) for side in (source, target)]
    left, strength, right = np.linalg.svd(alike[0][known].T @ alike[1][known])
    weight = (strength / strength[0]) ** power
    cosines = unit(alike[0] @ left * weight) @ unit(alike[1] @ right.T * weight).T
    return np.asarray(cosines.argmax(axis=1), np.int64)


@pytest.mark.parametrize(("dimension", "decay", "noise"), [(40, 0.8, 0.3), (20, 0.8, 0.2), (8, 0.8, 0.3)])
def test_the_bound_is_the_better_of_a_plain_and_of_a_weighed_map(dimension: int, decay: float, noise: float) -> None:
    chance, every = np.random.default_rng(0), np.arange(200)
    rows = chance.standard_normal((200, dimension)) * decay ** every[:dimension]
    turn = np.linalg.qr(chance.standard_normal((dimension, dimension)))[0]
    source, target = np.float32(rows), np.float32((rows + noise * chance.standard_normal(rows.shape)) @ turn)
    side = Side(Form(("unit",), np.zeros(dimension, np.float32)), np.eye(dimension, dtype=np.float32))
    table = evaluated(Spaces(source, target, {row: [row] for row in range(200)}), SpaceMap(side, side, {}))
    dealt = np.random.default_rng(0).permutation(200) % 5
    seen = [(_nearest_by_hand(source, target, every, power) == every).mean() for power in (0, 0.5)]
    unseen = [
        np.mean([(_nearest_by_hand(source, target, every[dealt != fold], power) == every)[dealt == fold].mean()
                 for fold in range(5)])
        for power in (0, 0.5)
    ]  # fmt: skip
    assert unseen[0] != unseen[1]
    assert recall(table, SEEN, "nn") == pytest.approx(max(seen))
    assert recall(table, UNSEEN, "nn") == pytest.approx(max(unseen))


def test_deeper_recalls_are_never_lower() -> None:
    rows = _space()
    table = evaluated(Spaces(rows, _turned(rows, noise=0.8), _same()), _identity())
    assert (table["r1"] <= table["r5"]).all()
    assert (table["r5"] <= table["r10"]).all()


def test_a_small_dictionary_is_refused() -> None:
    rows = _space()
    few = {row: [row] for row in range(10)}
    with pytest.raises(EmbeddingError, match="A dictionary of 10 words is too small"):
        evaluated(Spaces(rows, rows, few), _identity())
    with pytest.raises(EmbeddingError, match="in 1 folds"):
        evaluated(Spaces(rows, rows, _same()), _identity(), folds=1)


def _table(own: float, bound: float) -> pl.DataFrame:
    lines = [(UNSUPERVISED, "csls", 50, own, own, own), (UNSEEN, "csls", 50, bound, bound, bound)]
    return pl.DataFrame(lines, schema=dict(EVALUATION), orient="row")


@pytest.mark.parametrize(
    ("own", "bound", "criterion", "collapsed", "within"),
    [
        (0.70, 0.72, 0.7, False, True),
        (0.66, 0.72, 0.7, False, False),
        (0.02, 0.72, 0.7, True, False),
        (0.70, 0.72, 0.3, True, False),
        (0.02, 0.03, 0.7, True, False),
        (0.00, 0.00, 0.8, True, False),
        (0.30, 0.72, 0.7, True, False),
    ],
)
def test_a_map_collapsed_when_its_criterion_or_its_recall_is_low(
    own: float, bound: float, criterion: float, collapsed: bool, within: bool
) -> None:
    judged = verdict(_table(own, bound), criterion, 0.5)
    assert (judged.collapsed, judged.within) == (collapsed, within)


def test_without_a_dictionary_the_criterion_is_all_there_is() -> None:
    empty = pl.DataFrame(schema=dict(EVALUATION))
    assert verdict(empty, 0.4, 0.5).collapsed
    assert not verdict(empty, 0.6, 0.5).collapsed
    assert not verdict(empty, 0.6, 0.5).within
    assert "no dictionary" in verdict(empty, 0.6, 0.5).told


def test_a_dictionary_is_read_with_tabs_or_blanks(tmp_path: Path) -> None:
    path = tmp_path / "deu-eng.tsv"
    path.write_text("Haus\thouse\nHaus home\n\nzu Hause\tat home\n", "utf-8")
    assert read_translations(path) == {"haus": {"house", "home"}, "zu hause": {"at home"}}
    path.write_text("Haus house home\n", "utf-8")
    with pytest.raises(SettingsError, match=r"Line 1 of .* has 3 values"):
        read_translations(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_translations(tmp_path / "absent.tsv")


def test_answers_are_rows_of_written_words() -> None:
    known = {"haus": ["home", "house", "hut"], "und": ["and"]}
    assert answers_of(["haus", "", "und", "haus"], ["house", "home", "cat"], known) == {0: [0, 1], 3: [0, 1]}
