"""Word-sized pieces of speech, which of them are alike, and vectors of words from the company they keep."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.align.csls import match
from speech_mining.align.spaces import unit
from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.lake import Lake
from speech_mining.words.alignment import WordWish, align_words, first_pairing
from speech_mining.words.audiobooks import CutConfig, hear, read_timings, sections_of
from speech_mining.words.boundaries import BoundaryConfig, novelty, word_spans
from speech_mining.words.cepstra import SHAPE, cepstra, shape
from speech_mining.words.contexts import ContextConfig, context_vectors, surprise, together
from speech_mining.words.spaces import WordSpace
from speech_mining.words.speech2vec import SpeechConfig, neighbours, speech2vec, type_means
from speech_mining.words.spoken import SpokenConfig, spoken_space
from speech_mining.words.tokens import Tokens, Utterance, tokens_of
from speech_mining.words.types import TypeConfig, alike, by_frequency
from speech_mining.words.written import words_of, written_space
from tests.word_world import PAUSE_MS, WORD_MS, WORDS, sentences, sound, write_speech

FRAMES = WORD_MS // 10


def _heard(told: list[list[int]], seed: int = 0) -> Tokens:
    chance = np.random.default_rng(seed)
    spoken = ([sound(word, chance) for word in sentence] for sentence in told)
    return tokens_of(Utterance(cepstra(np.concatenate(one)), _spans(len(one))) for one in spoken)


def _spans(count: int) -> list[tuple[int, int]]:
    return [(FRAMES * at, FRAMES * (at + 1)) for at in range(count)]


# Shapes


def test_cepstra_of_the_same_sound_at_another_level_differ_in_loudness_only() -> None:
    tone = 0.1 * np.sin(2 * np.pi * 700 * np.arange(4800) / 16_000)
    rich = (tone + 0.02 * np.random.default_rng(0).standard_normal(4800)).astype(np.float32)
    quiet, loud = cepstra(rich)[3:-3], cepstra(2 * rich)[3:-3]
    # Loudness is the sum of 40 bands over sqrt(40), each raised by log 4 over the spread of 3.
    assert (loud - quiet)[:, 0] == pytest.approx(math.log(4) / 3 * math.sqrt(40), abs=0.05)
    assert np.abs((loud - quiet)[:, 1:]).max() < 0.05


def test_a_shape_has_one_size_and_ends_in_the_logarithm_of_its_length() -> None:
    frames = np.repeat(np.arange(13, dtype=np.float32)[None], 40, axis=0)
    for first, last in ((0, 3), (5, 9), (0, 40)):
        made = shape(frames, first, last)
        assert made.shape == (SHAPE,)
        assert made[-1] == pytest.approx(math.log(last - first))
        assert made[:-1].reshape(16, 12) == pytest.approx(np.tile(np.arange(1, 13) / 4, (16, 1)))


def test_the_outer_frames_of_a_long_piece_do_not_count() -> None:
    frames = np.random.default_rng(0).standard_normal((30, 13)).astype(np.float32)
    other = frames.copy()
    other[[10, 19]] = 99
    assert (shape(frames, 10, 20) == shape(other, 10, 20)).all()
    other[11] = 99
    assert (shape(frames, 10, 20) != shape(other, 10, 20)).any()


def test_pieces_shorter_than_30_ms_are_no_tokens_and_leave_their_place() -> None:
    frames = np.zeros((20, 13), np.float32)
    tokens = tokens_of([Utterance(frames, [(0, 2), (2, 10)]), Utterance(frames, [(0, 20)])])
    assert tokens.utterances.tolist() == [0, 1]
    assert tokens.places.tolist() == [1, 0]
    assert tokens_of([]).shapes.shape == (0, SHAPE)


def test_columns_of_tokens_belong_together() -> None:
    with pytest.raises(EmbeddingError, match="2 shapes, 1 utterances"):
        Tokens(np.zeros((2, SHAPE), np.float32), np.zeros(1, np.int64), np.zeros(2, np.int64))


# Boundaries


def test_words_are_cut_where_the_sound_changes() -> None:
    chance = np.random.default_rng(3)
    frames = cepstra(np.concatenate([sound(word, chance) for word in (0, 39, 7, 32, 16)]))
    cuts = [first for first, _ in word_spans(frames[:60], BoundaryConfig())][1:]
    assert len(cuts) == 4
    assert all(abs(cut - FRAMES * at) <= 1 for at, cut in enumerate(cuts, 1))


def test_what_never_changes_is_cut_into_equal_parts_of_at_most_the_longest() -> None:
    spans = word_spans(np.ones((200, 4), np.float32), BoundaryConfig(longest=80))
    assert [first for first, _ in spans[1:]] == [last for _, last in spans[:-1]]
    assert (spans[0][0], spans[-1][1]) == (0, 200)
    assert len(spans) == 3
    assert max(last - first for first, last in spans) <= 80


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 300), st.integers(0, 2**31))
def test_pieces_cover_a_stretch_in_order_and_keep_their_limits(count: int, seed: int) -> None:
    frames = np.random.default_rng(seed).standard_normal((count, 5)).astype(np.float32)
    config = BoundaryConfig()
    spans = word_spans(frames, config)
    assert [0, *(last for _, last in spans)] == [*(first for first, _ in spans), count]
    assert all(last - first <= config.longest for first, last in spans)
    assert len(spans) == 1 or all(last - first >= config.shortest for first, last in spans)


def test_a_stretch_shorter_than_a_word_has_no_pieces() -> None:
    assert word_spans(np.zeros((2, 13), np.float32), BoundaryConfig()) == []
    assert novelty(np.arange(8, dtype=np.float32)[:, None] // 4, 2).argmax() == 4
    with pytest.raises(SettingsError, match="cannot be cut"):
        BoundaryConfig(shortest=50, longest=80)


# Types


def test_tokens_of_one_word_are_one_type_and_the_most_frequent_is_the_first() -> None:
    told = [[0, 1, 2, 0, 3, 0, 1, 2]] * 12
    types = alike(_heard(told).shapes, TypeConfig(types=4)).reshape(12, 8)
    assert (types == types[0]).all()
    first = types[0].tolist()
    assert first[0] == first[3] == first[5] == 0
    assert len(set(first)) == 4
    assert first[4] == 3


def test_equal_tokens_and_seeds_have_equal_types() -> None:
    shapes = _heard(sentences(60, 1)).shapes
    assert (alike(shapes, TypeConfig(types=30, seed=4)) == alike(shapes, TypeConfig(types=30, seed=4))).all()


def test_few_tokens_have_few_types_and_broken_ones_are_refused() -> None:
    shapes = _heard(sentences(20, 1)).shapes
    assert alike(shapes, TypeConfig(types=500)).max() < len(shapes) // 8
    assert alike(shapes[:1], TypeConfig()).tolist() == [0]
    assert len(alike(shapes[:0], TypeConfig())) == 0
    shapes[3, 3] = np.nan
    with pytest.raises(EmbeddingError, match="no finite vector"):
        alike(shapes, TypeConfig())


def test_labels_are_numbered_by_frequency_then_by_first_token() -> None:
    assert by_frequency(np.array([9, 4, 4, 7, 7, 4])).tolist() == [2, 0, 0, 1, 1, 0]


# Company


def test_company_counted_by_hand() -> None:
    labels, utterances = np.array([0, 1, 0, 2, 1, -1, 2]), np.array([0, 0, 0, 1, 1, 1, 1])
    whole = together(labels, utterances, 3, 10)
    assert whole.tolist() == [[2, 2, 0], [2, 0, 2], [0, 2, 2]]
    near = together(labels, utterances, 3, 1)
    assert near.tolist() == [[0, 2, 0], [2, 0, 1], [0, 1, 0]]
    assert together(labels, utterances, 2, 1).tolist() == [[0, 2], [2, 0]]


def test_surprise_worked_by_hand() -> None:
    table = np.array([[0.0, 4, 0], [4, 0, 2], [0, 2, 0]])
    own = np.array([4, 6, 2]) / 12
    smooth = own**0.75 / (own**0.75).sum()
    made = surprise(table, 0.75)
    assert made[0, 1] == pytest.approx(math.log(4 / 12 / (own[0] * smooth[1])))
    assert made[2, 1] == pytest.approx(math.log(2 / 12 / (own[2] * smooth[1])))
    assert made[0, 0] == made[0, 2] == 0
    assert surprise(np.zeros((3, 3)), 0.75).tolist() == np.zeros((3, 3)).tolist()


def test_what_is_less_together_than_by_chance_is_no_surprise() -> None:
    assert surprise(np.array([[100.0, 1], [1, 100]]), 1.0)[0, 1] == 0


def test_vectors_keep_the_distances_of_the_table() -> None:
    told = sentences(300, 2)
    labels, utterances = np.concatenate(told), np.repeat(np.arange(300), [len(one) for one in told])
    labels = by_frequency(labels)
    vectors = context_vectors(labels, utterances, 30, ContextConfig(dimension=15))
    table = surprise(together(labels, utterances, 30, 40), 0.75)
    # U S U^T of the table's symmetric square: rows' inner products are those of its square root.
    left, strength, _ = np.linalg.svd(table)
    assert vectors @ vectors.T == pytest.approx((left[:, :15] * strength[:15]) @ left[:, :15].T, abs=1e-4)
    assert vectors.shape == (30, 15)


def test_too_few_words_and_lonely_words_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="There are 3 words"):
        context_vectors(np.arange(3), np.zeros(3, np.int64), 3, ContextConfig())
    labels = np.arange(25)
    utterances = np.array([0] * 24 + [1])
    with pytest.raises(EmbeddingError, match="1 of 25 words keep no company, the first is number 24"):
        context_vectors(labels, utterances, 25, ContextConfig())


def test_written_words_are_lower_case_without_digits() -> None:
    assert words_of("L'Été, 12 vieux-amis DANS 3!") == ["l", "été", "vieux-amis", "dans"]
    assert words_of("") == []


def test_written_words_come_by_frequency_and_rare_ones_have_no_vector() -> None:
    told = [" ".join(WORDS[word] for word in sentence) for sentence in sentences(200, 1)]
    space = written_space([*told, "seldom ba"], 1000, 2, ContextConfig(dimension=5))
    assert list(space.counts) == sorted(space.counts, reverse=True)
    assert "seldom" not in space.words
    assert written_space(told, 25, 2, ContextConfig()).vectors.shape == (25, 12)
    with pytest.raises(EmbeddingError, match="No word stands often enough"):
        written_space([], 10, 1, ContextConfig())


# Speech2Vec


def _pairs_that_swap(count: int) -> list[list[int]]:
    """Words 0 and 1 stand beside 16 and 17 alone, words 2 and 3 beside 24 and 25."""
    chance = np.random.default_rng(0)
    sides = [((0, 1), (16, 17)), ((2, 3), (24, 25))]
    told = []
    for _ in range(count):
        first, second = sides[chance.integers(2)]
        told.append([int(chance.choice(first)), int(chance.choice(second))])
    return told


def test_speech2vec_puts_words_of_the_same_company_together_however_they_sound() -> None:
    told = _pairs_that_swap(250)
    said = np.concatenate(told)
    config = SpeechConfig(dimension=8, width=16, window=1, epochs=40, rate=1e-2)
    trained = speech2vec(_heard(told), config)
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    names = np.unique(said)
    means = type_means(trained.vectors, np.searchsorted(names, said), len(names))
    means -= means.mean(axis=0)
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    cosine = units @ units.T
    assert cosine[0, 1] > 0.8
    assert cosine[2, 3] > 0.8
    assert max(cosine[0, 2], cosine[0, 3], cosine[1, 2], cosine[1, 3]) < 0.6


def test_speech2vec_of_equal_seeds_is_equal_and_of_others_is_not() -> None:
    tokens = _heard(sentences(20, 1))
    one, same, other = (speech2vec(tokens, SpeechConfig(epochs=1, seed=seed)).vectors for seed in (3, 3, 4))
    assert one.tobytes() == same.tobytes()
    assert one.shape == (len(tokens), 50)
    assert not np.allclose(one, other)


def test_words_that_stand_alone_teach_nothing() -> None:
    alone = _heard([[0], [1], [2]])
    with pytest.raises(EmbeddingError, match="No word has a neighbour"):
        speech2vec(alone, SpeechConfig())
    with pytest.raises(SettingsError, match="cannot be trained"):
        SpeechConfig(window=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 99))
def test_a_neighbour_is_another_token_of_the_same_utterance_and_near(sizes: list[int], window: int, seed: int) -> None:
    edges = np.cumsum([0, *sizes])
    ends = np.column_stack([np.repeat(edges[:-1], sizes), np.repeat(edges[1:], sizes)])
    own, other = neighbours(ends, np.arange(edges[-1]), window, np.random.default_rng(seed))
    assert len(own) == sum(size for size in sizes if size > 1)
    assert (own != other).all()
    assert (np.abs(own - other) <= window).all()
    assert (ends[own] == ends[other]).all()


def test_mean_vectors_of_types() -> None:
    vectors = np.array([[1.0, 0], [3, 0], [0, 5], [9, 9]], np.float32)
    assert type_means(vectors, np.array([0, 0, 1, 2]), 2).tolist() == [[2, 0], [0, 5]]
    with pytest.raises(EmbeddingError, match="Type 1 has no token"):
        type_means(vectors, np.array([0, 0, 0, 2]), 3)


# Spoken words


def _purity(types: npt.NDArray[np.int64], said: npt.NDArray[np.int64]) -> float:
    counted = pl.DataFrame({"type": types, "said": said}).group_by("type", "said").len()
    return float(counted.group_by("type").agg(pl.max("len"))["len"].sum()) / len(types)


def test_types_found_by_sound_are_the_words_that_were_said() -> None:
    told = sentences(250, 1)
    said = np.concatenate(told)
    found = spoken_space(_heard(told), SpokenConfig(least=5, types=TypeConfig(types=45)))
    assert _purity(found.types, said) > 0.95
    assert found.space.counts.tolist() == np.bincount(found.types)[: len(found.space.words)].tolist()
    assert found.space.words[0] == "t0000"


def test_known_identities_take_the_place_of_sound_and_speech2vec_that_of_company() -> None:
    told = sentences(150, 1)
    said = np.concatenate(told)
    config = SpokenConfig(least=3, vectors="speech2vec", speech=SpeechConfig(dimension=6, epochs=1))
    found = spoken_space(_heard(told), config, known=said)
    assert _purity(found.types, said) == 1.0
    assert found.space.vectors.shape == (len(found.space.words), 6)
    assert len(found.losses) == 1


def test_too_little_speech_is_told() -> None:
    with pytest.raises(EmbeddingError, match="No word was heard 10 times among 0 tokens"):
        spoken_space(tokens_of([]), SpokenConfig())


# Reading


def test_pieces_of_audiobooks_carry_their_words_and_pauses_end_utterances(tmp_path: Path) -> None:
    lake, told = Lake(tmp_path), sentences(12, 1)
    known = write_speech(lake, "tng", told)
    heard = hear(sections_of(lake, "tng", known), CutConfig(), count=2)
    assert heard.pieces["said"].to_list() == known["word"].to_list()
    assert heard.pieces["start_ms"].to_list() == known["start_ms"].to_list()
    assert heard.pieces["utterance"].n_unique() == len(told)
    joined = hear(sections_of(lake, "tng", known), CutConfig(pause_ms=PAUSE_MS))
    assert joined.pieces["utterance"].n_unique() == 2


def test_without_known_words_pieces_are_cut_inside_speech(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    known = write_speech(lake, "tng", sentences(12, 1))
    heard = hear(sections_of(lake, "tng", None), CutConfig())
    assert heard.pieces["said"].null_count() == heard.pieces.height
    starts = set(known.select("audiobook", "start_ms").iter_rows())
    near = [
        any((book, start + shift) in starts for shift in (-10, 0, 10))
        for book, start in heard.pieces.select("audiobook", "start_ms").iter_rows()
    ]
    assert np.mean(near) > 0.8
    assert heard.pieces.height == pytest.approx(known.height, rel=0.1)


def test_a_table_of_known_words_is_read_from_text_and_refused_when_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "words.tsv"
    path.write_text("audiobook\tsection\tstart_ms\tend_ms\tword\n70\t1\t0\t120\tba\n", "utf-8")
    assert read_timings(path).rows() == [("70", 1, 0, 120, "ba")]
    path.write_text("audiobook\tsection\tstart_ms\tend_ms\tword\n70\t1\t120\t120\tba\n", "utf-8")
    with pytest.raises(EmbeddingError, match="end before they begin"):
        read_timings(path)
    path.write_text("word\nba\n", "utf-8")
    with pytest.raises(EmbeddingError, match="no table of known words"):
        read_timings(path)
    with pytest.raises(EmbeddingError, match="no table of known words"):
        read_timings(tmp_path / "absent.parquet")


# Alignment


def _word_spaces(noise: float = 0.05) -> tuple[WordSpace, WordSpace]:
    """Two spaces of 120 words, one turned and noisy; word i is word i in both."""
    chance = np.random.default_rng(4)
    rows = chance.standard_normal((120, 12)) * 0.85 ** np.arange(12)
    turn = np.linalg.qr(chance.standard_normal((12, 12)))[0]
    other = (rows @ turn + noise * chance.standard_normal(rows.shape)).astype(np.float32)
    counts = np.sort(np.exp(2 * chance.standard_normal(120) + 7).astype(np.int64))[::-1].copy()
    names = [f"w{number}" for number in range(120)]
    return WordSpace(names, counts, rows.astype(np.float32)), WordSpace(names, 3 * counts, other)


def test_words_are_aligned_by_profile_and_frequency() -> None:
    spoken, written = _word_spaces()
    found = align_words(spoken, written, WordWish(restarts=2))
    ours, theirs = found.map.source.apply(spoken.vectors), found.map.target.apply(written.vectors)
    assert (match(ours, theirs, threads=1).forward == np.arange(120)).mean() > 0.95
    assert [attempt.method for attempt in found.attempts] == ["frequency"] * 2
    assert found.best.criterion == max(attempt.criterion for attempt in found.attempts)
    assert found.map.facts["method"] == "frequency"


def test_equal_seeds_make_equal_maps(tmp_path: Path) -> None:
    for name in ("one", "two"):
        align_words(*_word_spaces(noise=2.0), WordWish(restarts=1, seed=3)).map.save(tmp_path / f"{name}.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_first_pairing_prefers_words_that_are_as_frequent() -> None:
    rows = unit(np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32))
    alike = np.repeat(rows[:20], 2, axis=0)
    counts = np.array([1000 * (1 + place % 2 * 50) for place in range(40)])
    pairs = first_pairing((alike, alike), (counts, counts))
    assert (counts[pairs.source] == counts[pairs.target]).all()


def test_other_methods_are_those_of_any_two_spaces_and_time_ends_restarts() -> None:
    spoken, written = _word_spaces()
    found = align_words(spoken, written, WordWish(method="distribution", restarts=1))
    assert [attempt.method for attempt in found.attempts] == ["distribution"]
    hurried = align_words(spoken, written, WordWish(restarts=50, time_limit_s=0.0))
    assert len(hurried.attempts) == 1
