"""Recurring speech: preambles are found, stories are left alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.mining import recurring as module
from speech_mining.mining.recurring import RecurringConfig, count_mirrors, recurring_rows


@dataclass(frozen=True, eq=False)
class Language:
    """Recordings as an encoder of content hears them: a candidate is the sum of what its runs say, by their length."""

    vectors: np.ndarray
    recording: np.ndarray
    runs: np.ndarray
    preamble: np.ndarray  # bool (n,): the candidate holds a preamble run


def planted_language(recordings: int = 12, *, seed: int = 0, preamble_runs: int = 6, spoken: float = 1.0) -> Language:
    draw = np.random.default_rng(seed)
    lengths = np.round(draw.uniform(0.7, 4.5, preamble_runs), 2)
    preamble = draw.normal(size=(preamble_runs, 256))
    twice = draw.normal(size=256)  # a sentence of the story that two recordings and one recording twice tell
    rows = []
    for recording in range(recordings):
        has = draw.random() < spoken
        before, after = (int(has) * preamble_runs, 30)
        content = np.concatenate([preamble[:before], draw.normal(size=(after, 256))])
        duration = np.concatenate([lengths[:before], draw.uniform(0.5, 5.0, after)])
        if recording < 2:
            content[[before + 5, before + 15]], duration[[before + 5, before + 15]] = twice, 4.0
        content = content + 0.25 * draw.normal(size=content.shape)  # another narrator, another microphone
        for first in range(len(content)):
            for last in range(first, len(content)):
                if 3 <= duration[first : last + 1].sum() <= 20:
                    vector = duration[first : last + 1] @ content[first : last + 1]
                    rows.append((vector, recording, (first, last), first < before))
    vectors = np.array([row[0] for row in rows])
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return Language(unit, *(np.array([row[n] for row in rows]) for n in (1, 2, 3)))


def precision_and_recall(dropped: np.ndarray, preamble: np.ndarray) -> tuple[float, float]:
    right = (dropped & preamble).sum()
    return right / max(1, dropped.sum()), right / max(1, preamble.sum())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("preamble_runs", "spoken"), [(6, 1.0), (10, 0.7), (4, 1.0)])
def test_candidates_with_preamble_are_dropped_and_stories_are_not(seed: int, preamble_runs: int, spoken: float) -> None:
    language = planted_language(seed=seed, preamble_runs=preamble_runs, spoken=spoken)
    report = recurring_rows(language.vectors, language.recording, language.runs)
    precision, recall = precision_and_recall(report.dropped, language.preamble)
    assert precision >= 0.97
    assert recall >= 0.97
    # most of what holds preamble holds story as well, and does not recur itself
    assert precision_and_recall(report.recurring, language.preamble)[1] < 0.8


def test_a_sentence_told_in_two_recordings_and_twice_in_one_is_left_alone() -> None:
    language = planted_language(4, spoken=0.0)
    report = recurring_rows(language.vectors, language.recording, language.runs)
    assert report.others.max() == 1  # it was heard
    assert not report.dropped.any()


def four_recordings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Worked by hand: in each recording "p" (run 0), "p and a little story" (0-1), that story and the next (1-2)."""
    e = np.eye(9)
    rows = []
    for n in range(4):
        rows += [e[0], 0.96 * e[0] + 0.28 * e[1 + n], 0.6 * e[1 + n] + 0.8 * e[5 + n]]
    runs = np.tile([[0, 0], [0, 1], [1, 2]], (4, 1))
    return np.array(rows, np.float16), np.repeat(np.arange(4), 3), runs


def test_a_preamble_with_a_little_story_recurs_but_marks_only_the_preamble() -> None:
    report = recurring_rows(*four_recordings())
    assert report.needed == 2
    assert report.others.tolist() == [3, 3, 0] * 4
    assert report.recurring.tolist() == [True, True, False] * 4
    assert report.marked_runs.rows() == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert report.dropped.tolist() == [True, True, False] * 4


def test_a_mirror_is_nearest_both_ways() -> None:
    vectors, recording, _ = four_recordings()
    mirrors = count_mirrors(vectors, recording, vectors.astype(np.float32), recording, 0.9)
    assert mirrors.tolist() == [3, 0, 0] * 4


def test_a_candidate_that_does_not_recur_is_dropped_for_the_run_it_contains() -> None:
    vectors, recording, runs = four_recordings()
    vectors[1::3] = np.eye(9, dtype=np.float16)[1:5]  # mostly story now
    report = recurring_rows(vectors, recording, runs)
    assert report.recurring.tolist() == [True, False, False] * 4
    assert report.dropped.tolist() == [True, True, False] * 4


def test_as_many_recordings_as_configured_are_needed() -> None:
    vectors, recording, runs = four_recordings()
    assert recurring_rows(vectors, recording, runs, RecurringConfig(min_recordings=4)).recurring.any()
    assert not recurring_rows(vectors, recording, runs, RecurringConfig(min_recordings=5)).recurring.any()


def test_a_work_that_a_few_people_read_is_left_alone_in_a_large_language() -> None:
    draw = np.random.default_rng(5)
    vectors = draw.normal(size=(200, 64))
    vectors[:6] = vectors[0]  # one sentence in 6 of 200 recordings, 3 %
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    runs = np.zeros((200, 2), np.int64)
    assert not recurring_rows(vectors, np.arange(200), runs).dropped.any()
    config = RecurringConfig(min_share=0.02)
    assert recurring_rows(vectors, np.arange(200), runs, config).dropped.sum() == 6


def test_the_order_of_rows_and_the_names_of_recordings_do_not_matter() -> None:
    language = planted_language(6, seed=2)
    order = np.random.default_rng(0).permutation(len(language.recording))
    names = np.array([901, 17, 55, 4, 1000, 3])
    straight = recurring_rows(language.vectors, language.recording, language.runs)
    shuffled = recurring_rows(language.vectors[order], names[language.recording[order]], language.runs[order])
    assert straight.dropped.any()
    assert np.array_equal(shuffled.dropped, straight.dropped[order])
    assert np.array_equal(shuffled.others, straight.others[order])


def test_a_seeded_sample_of_recordings_finds_the_preamble_everywhere() -> None:
    language = planted_language(40, seed=4)
    config = RecurringConfig(max_rows=2_000)
    report = recurring_rows(language.vectors, language.recording, language.runs, config)
    again = recurring_rows(language.vectors, language.recording, language.runs, config)
    assert report.sampled
    assert report.compared_rows <= 2_000 < len(language.recording)
    assert report.compared_recordings < 15
    precision, recall = precision_and_recall(report.dropped, language.preamble)
    assert precision >= 0.97
    assert recall >= 0.97
    assert np.array_equal(report.dropped, again.dropped)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    language = planted_language(5, seed=1)
    whole = recurring_rows(language.vectors, language.recording, language.runs)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "BLOCK_PRODUCTS", 40_000)
    blocked = recurring_rows(
        language.vectors, language.recording, language.runs, progress=lambda done, total: told.append((done, total))
    )
    assert np.array_equal(whole.others, blocked.others)
    assert len(told) > 10
    assert told[-1] == (len(language.recording), len(language.recording))
    assert told == sorted(told)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.5, 0.8, 0.95]))
def test_others_equal_a_count_row_by_row(seed: int, recordings: int, similarity: float) -> None:
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(30, 3))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    recording = draw.integers(0, recordings, 30)
    runs = np.zeros((30, 2), np.int64)
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = [
        len({recording[j] for j in range(30) if recording[j] != recording[i] and unit[i] @ unit[j] >= similarity})
        for i in range(30)
    ]
    assert recurring_rows(vectors, recording, runs, RecurringConfig(similarity=similarity)).others.tolist() == expected


def test_no_rows_recur_nowhere() -> None:
    report = recurring_rows(np.empty((0, 8), np.float16), np.empty(0, np.int64), np.empty((0, 2), np.int64))
    assert report.dropped.shape == (0,)
    assert report.marked_runs.is_empty()


def test_rows_that_are_not_of_unit_length_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="unit length"):
        recurring_rows(np.full((2, 4), 1.0, np.float16), np.arange(2), np.zeros((2, 2), np.int64))


def test_tables_of_different_length_are_refused() -> None:
    with pytest.raises(EmbeddingError, match=r"recording \(3,\)"):
        recurring_rows(np.eye(2, dtype=np.float16), np.arange(3), np.zeros((2, 2), np.int64))


def test_a_last_run_before_the_first_is_refused() -> None:
    with pytest.raises(EmbeddingError, match="before its first"):
        recurring_rows(np.eye(2, dtype=np.float16), np.arange(2), np.array([[0, 1], [3, 2]]))


@pytest.mark.parametrize("values", [{"similarity": 0.0}, {"similarity": 90}, {"min_recordings": 1}, {"min_share": 2}])
def test_settings_that_mean_nothing_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"Expected"):
        RecurringConfig(**values)  # type: ignore[arg-type]
