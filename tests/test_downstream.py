"""Training with and without more data: what is compared, how it is scored, and that a kill costs nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.downstream.comparison import compare
from speech_mining.downstream.configuration import LearningConfig
from speech_mining.downstream.examples import EXAMPLES, checked, no_examples
from speech_mining.downstream.experiment import (
    Condition,
    Place,
    Results,
    Study,
    UnfinishedError,
    run_study,
    shuffled,
)
from speech_mining.downstream.leaks import refuse_leaks, without_test
from speech_mining.downstream.scores import retrieval_scores, translation_scores
from speech_mining.downstream.sets import read_sets, spoken_examples, written_examples
from speech_mining.downstream.studies import Bounds, Material, dealt_material, plan_study
from speech_mining.downstream.tables import BASE, MINED, RANDOM, RUNS, TRUE
from speech_mining.downstream.vocabulary import FILE, Vocabulary
from speech_mining.errors import EmbeddingError, EncoderError, LakeError, SettingsError
from tests.downstream_world import LEARNING, SENTENCES, examples, text, write_set

CONFIG = LearningConfig.of_dict(LEARNING)
SHORT = replace(CONFIG, updates=12, checkpoint_every=5)


def table(rows: Sequence[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in EXAMPLES} for row in rows], schema=dict(EXAMPLES))


def run_rows(values: dict[str, list[float]]) -> pl.DataFrame:
    """A row of `RUNS` for each value: condition → a value a seed."""
    rows = [
        {"condition": name, "threshold": 1.07 if name in {MINED, RANDOM} else None, "pairs": 5, "hours": 0.5,
         "seed": seed, "metric": "BLEU", "value": value, "low": value - 1, "high": value + 1,
         "signature": "s", "run": "r"}
        for name, of_seeds in values.items() for seed, value in enumerate(of_seeds)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=dict(RUNS))


# What a study says


def test_the_share_of_the_gap_is_what_mined_pairs_gain_of_what_true_pairs_gain() -> None:
    found = compare(run_rows({BASE: [10, 12], MINED: [26, 24], TRUE: [30, 32], RANDOM: [9, 13]}))
    assert found["mean"].to_list() == [11, 25, 31, 11]
    assert found["gain"].to_list() == [0, 14, 20, 0]
    assert found["share_of_gap"].to_list() == pytest.approx([0, 0.7, 1, 0])
    assert found["better_seeds"].to_list() == [0, 2, 2, 1]
    assert found["spread"][1] == pytest.approx(np.std([26, 24], ddof=1))
    assert found["low"][1] == 24 and found["high"][1] == 26


def test_no_share_is_told_where_the_true_pairs_gain_nothing_or_are_not_known() -> None:
    assert compare(run_rows({BASE: [10], MINED: [12], TRUE: [10]}))["share_of_gap"].to_list() == [None] * 3
    unsure = run_rows({BASE: [10], MINED: [10.4], TRUE: [10.5]})  # within the interval of one to either side
    assert compare(unsure)["share_of_gap"].to_list() == [None] * 3
    unknown = compare(run_rows({BASE: [10], MINED: [12]}))
    assert unknown["share_of_gap"].null_count() == 2 and unknown["spread"].null_count() == 2


# Scores


def test_a_perfect_translation_scores_100_and_its_signature_says_how() -> None:
    said = ["the cat sat on the mat", "a dog ran home at night"]
    bleu, chrf = translation_scores(said, said)
    assert (bleu.value, bleu.low, bleu.high) == pytest.approx((100, 100, 100))
    assert chrf.value == pytest.approx(100)
    assert "nrefs:1" in bleu.signature and "tok:13a" in bleu.signature and "bs:1000" in bleu.signature
    assert "tok:char" in translation_scores(said, said, character=True)[0].signature


def test_bleu_is_that_of_the_formula() -> None:
    # one sentence of 5 words, 4 of them right in a row: precisions 4/5, 3/4, 2/3, 1/2 and no brevity penalty
    bleu, _ = translation_scores(["a b c d x"], ["a b c d e"])
    assert bleu.value == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_intervals_hold_the_score_and_do_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [f"{word} cat sat on the mat" for word in ("the", "a", "one", "my", "his")]
    meant = ["the cat sat on the mat"] * 5
    before = translation_scores(said, meant)
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    assert translation_scores(said, meant) == before
    assert os.environ["SACREBLEU_SEED"] == "99"
    assert all(one.low < one.value < one.high for one in before)


def test_nothing_right_has_a_score_of_nothing() -> None:
    bleu, _ = translation_scores(["x y z"], ["a b c d"])
    assert (bleu.value, bleu.low, bleu.high) == (0, 0, 0)


def test_translations_without_their_references_are_refused() -> None:
    with pytest.raises(LakeError, match="1 translations and 2 references"):
        translation_scores(["a"], ["a", "b"])
    with pytest.raises(LakeError, match="0 translations"):
        translation_scores([], [])


def test_recall_counts_a_tie_against_the_right_one() -> None:
    source = np.eye(3, dtype=np.float32)
    target = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    first, *others = retrieval_scores(source, target)
    assert first.value == pytest.approx(100 / 3)  # row 0 ties with row 1's target, row 1 finds nothing, row 2 is alone
    assert [one.value for one in others] == [100, 100]


def test_vectors_of_other_shapes_are_refused() -> None:
    with pytest.raises(EmbeddingError, match=r"\(2, 3\) and \(1, 3\)"):
        retrieval_scores(np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(EmbeddingError):
        retrieval_scores(np.ones((0, 3)), np.ones((0, 3)))


# What may be trained on


def test_what_the_test_set_has_is_dropped_and_counted_by_reason() -> None:
    test = table(
        [{"example": "t", "source_recording": "r1", "source_words": "Guten Tag!", "target_words": "Good day."}]
    )
    offered = table(
        [
            {"example": "a", "source_recording": "r1", "target_words": "Another."},
            {"example": "b", "source_recording": "r2", "source_words": "guten tag"},
            {"example": "c", "source_recording": "r3", "target_words": "good day"},
            {"example": "d", "source_recording": "r4", "target_words": "A good day."},
        ]
    )
    kept = without_test(offered, test)
    assert kept.examples["example"].to_list() == ["d"]
    assert kept.dropped == {"recording_in_test": 1, "source_words_in_test": 1, "target_words_in_test": 1}


def test_words_that_are_not_known_are_no_leak() -> None:
    test = table([{"example": "t", "source_recording": "r1"}])
    assert without_test(table([{"example": "a", "source_recording": "r2"}]), test).examples.height == 1


def test_a_leak_that_is_left_stops_the_study_and_is_named(tmp_path: Path) -> None:
    test = examples(tmp_path, list(SENTENCES[:4]), name="test")
    leaking = examples(tmp_path, list(SENTENCES[2:9]), name="train")
    with pytest.raises(SettingsError, match=r"2 of 7 examples of the base set.*train-000 \(target_words_in_test\)"):
        refuse_leaks(leaking, test, "the base set")
    study = Study("translation", leaking, test, (Condition(BASE, no_examples()),), SHORT)
    with pytest.raises(SettingsError, match="in the test set too"):
        run_study(study, Place(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@given(st.integers(2, 40), st.integers(0, 5))
def test_random_pairs_keep_every_side_and_no_pair(count: int, seed: int) -> None:
    pairs = table([{"example": f"{n:02d}", "source_file": f"s{n}", "target_words": f"t{n}"} for n in range(count)])
    moved = shuffled(pairs, seed)
    assert moved["source_file"].to_list() == pairs["source_file"].to_list()
    assert sorted(moved["target_words"]) == sorted(pairs["target_words"])
    assert not (moved["target_words"] == pairs["target_words"]).any()


def test_one_pair_alone_cannot_be_random() -> None:
    assert shuffled(table([{"example": "a"}])).is_empty()


def test_a_plan_adds_mined_pairs_by_threshold_true_pairs_and_as_many_random_ones(tmp_path: Path) -> None:
    said = [examples(tmp_path, list(SENTENCES[first : first + 6]), name=f"part{first}") for first in (0, 6, 12, 18)]
    base, test, mined, pool = said
    leaking = pl.concat([mined, test[:1].with_columns(pl.lit("again").alias("example"))])
    plan = plan_study(Material(base, test, pool), {1.07: leaking, 1.1: mined[:3]}, 1.07)
    told = [(one.name, one.threshold, one.added.height) for one in plan.conditions]
    assert told == [(BASE, None, 0), (MINED, 1.07, 6), (MINED, 1.1, 3), (TRUE, None, 6), (RANDOM, 1.07, 6)]
    assert plan.dropped["mined from 1.07"] == {"recording_in_test": 1}
    assert set(plan.conditions[-1].added["target_words"]) == set(mined["target_words"])


def test_fewer_hours_are_part_of_more_hours(tmp_path: Path) -> None:
    base = examples(tmp_path, list(SENTENCES[:20]), name="base")
    test = examples(tmp_path, list(SENTENCES[20:30]), name="test")
    each_h = base["source_duration_s"][0] / 3600
    sizes = {}
    for count in (5, 9):
        plan = plan_study(Material(base, test), {1.0: no_examples()}, 1.0, Bounds((count + 0.5) * each_h, 3))
        assert plan.test.height == 3
        sizes[count] = set(plan.base["example"])
    assert len(sizes[5]) == 5 and len(sizes[9]) == 9 and sizes[5] < sizes[9]


def test_a_base_that_is_the_test_set_is_refused(tmp_path: Path) -> None:
    test = examples(tmp_path, list(SENTENCES[:4]))
    with pytest.raises(SettingsError, match="4 of 4 examples of the base set"):
        plan_study(Material(test, test), {1.0: no_examples()}, 1.0)


def test_dealing_keeps_recordings_whole_and_leaves_out_what_was_mined_elsewhere() -> None:
    truth = table(
        [
            {"example": f"{recording}{n}", "source_recording": recording, "target_words": f"{recording} {n}"}
            for recording in "abcd"
            for n in range(3)
        ]
    )
    material = dealt_material(truth)
    parts = [
        set(part["source_recording"]) for part in (material.pool, material.test, material.base) if part is not None
    ]
    assert parts == [{"a", "d"}, {"b"}, {"c"}]
    plan = plan_study(material, {1.0: truth}, 1.0)
    assert set(plan.conditions[1].added["source_recording"]) == {"a", "d"}
    assert plan.dropped["mined from 1"] == {"not_of_the_pool": 6}
    with pytest.raises(SettingsError, match="2 recordings"):
        dealt_material(truth.filter(pl.col("source_recording") < "c"))


def test_two_examples_of_one_name_are_refused() -> None:
    with pytest.raises(LakeError, match="stands twice"):
        checked(table([{"example": "a"}, {"example": "a"}]), "a test")


# Sets


def test_a_set_gives_its_translated_clips_by_split(tmp_path: Path) -> None:
    write_set(tmp_path, {"train": list(SENTENCES[:6]), "test": list(SENTENCES[6:9])}, "deu", "eng")
    clips = read_sets([tmp_path], ("deu", "eng")).clips
    train = written_examples(clips, "train", "eng")
    assert sorted(train["target_words"]) == sorted(text(one) for one in SENTENCES[:6])
    assert train["source_recording"].n_unique() == 6 and train["target_file"].null_count() == 6
    with pytest.raises(SettingsError, match="none is in the split 'train' and translated into fra"):
        written_examples(clips, "train", "fra")


def test_speech_finds_the_speech_that_says_its_translation(tmp_path: Path) -> None:
    write_set(tmp_path / "deu", {"train": list(SENTENCES[:6]), "test": list(SENTENCES[6:9])}, "deu", "eng")
    write_set(tmp_path / "eng", {"train": list(SENTENCES[3:6][::-1]), "test": list(SENTENCES[9:12])}, "eng", "deu")
    german = read_sets([tmp_path / "deu"], ("deu", "eng")).clips
    english = read_sets([tmp_path / "eng"], ("eng", "deu")).clips
    both = spoken_examples(german, english, "train")
    assert sorted(both["target_words"]) == sorted(text(one) for one in SENTENCES[3:6])
    assert all(Path(file).parent.name == "eng" for file in both["target_file"])
    with pytest.raises(SettingsError, match="says what a clip of the other language says"):
        spoken_examples(german, english, "test")


# Vocabularies


def test_a_vocabulary_gives_back_what_it_was_learned_from(tmp_path: Path) -> None:
    texts = ["The cat sat.", "A cat, a dog!", "Über den Wolken"]
    words = Vocabulary.learned(texts, 60)
    assert [words.text(words.numbers(one, 50)) for one in texts] == texts
    words.save(tmp_path / FILE)
    again = Vocabulary.read(tmp_path / FILE)
    assert [again.numbers(one, 50) for one in texts] == [words.numbers(one, 50) for one in texts]


def test_the_same_texts_in_any_order_give_the_same_pieces(tmp_path: Path) -> None:
    texts = [text(one) for one in SENTENCES]
    for name, ordered in (("one", texts), ("two", texts[::-1])):
        Vocabulary.learned(ordered, 25).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_vocabulary_without_an_end_is_refused(tmp_path: Path) -> None:
    content = (tmp_path / FILE, Vocabulary.learned(["a"], 10))
    content[1].save(content[0])
    content[0].write_text(content[0].read_text().replace("</s>", "<stop>"))
    with pytest.raises(EncoderError, match="lacks </s>"):
        Vocabulary.read(content[0])


# Configurations


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"updates": 0}, "`updates` is 0"),
        ({"peak_rate": float("nan")}, "`peak_rate` is nan"),
        ({"dropout": 1.0}, "`dropout` is 1.0"),
        ({"width": 30, "heads": 4}, "`heads` is 4"),
        ({"phases": [0.5, 0.6, 0.1]}, "`phases`"),
        ({"precision": "fp8"}, "`precision`"),
        ({"speed": 3}, "names 'speed'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(told: dict[str, object], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        LearningConfig.of_dict(told)


# Training


def study_of(folder: Path, config: LearningConfig, seeds: tuple[int, ...] = (0,), *, spoken: bool = False) -> Study:
    """A base that lacks most sentences, and what more of them brings."""
    told = {"base": SENTENCES[: 3 if spoken else 8], "more": SENTENCES[8:48], "test": SENTENCES[48:]}
    base, more, test = (examples(folder, list(sentences), name=name, spoken=spoken) for name, sentences in told.items())
    conditions = (Condition(BASE, no_examples()), Condition(TRUE, more), Condition(RANDOM, shuffled(more)))
    return Study("retrieval" if spoken else "translation", base, test, conditions, config, seeds)


def means(results: Results, metric: str) -> dict[str, float]:
    rows = compare(results.runs).filter(metric=metric)
    return dict(zip(rows["condition"], rows["mean"], strict=True))


def test_more_true_pairs_make_a_better_translator_and_random_pairs_do_not(tmp_path: Path) -> None:
    results = run_study(study_of(tmp_path, CONFIG), Place(tmp_path / "runs", "cpu"))
    chrf = means(results, "chrF")
    assert chrf[TRUE] > chrf[BASE] + 15
    assert chrf[RANDOM] < chrf[TRUE] - 30
    assert results.outputs.height == 3 * 8 and results.trained == 3


def test_more_true_pairs_of_speech_are_found_better_and_random_pairs_do_not_help(tmp_path: Path) -> None:
    config = replace(CONFIG, peak_rate=2e-3, updates=60, batch_seconds=20.0)
    results = run_study(study_of(tmp_path, config, spoken=True), Place(tmp_path / "runs", "cpu"))
    recall = means(results, "R@1")
    assert recall[TRUE] > 80 and recall[TRUE] > recall[BASE] + 15
    assert recall[RANDOM] < recall[TRUE] - 40
    assert results.outputs.is_empty()


class _Kill:
    """Raises at an update, as a killed run stops there with or without a checkpoint of that very update."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __call__(self, done: int, total: int, /) -> None:
        if done == self._at:
            raise KeyboardInterrupt


def test_a_killed_training_goes_on_and_ends_as_one_that_was_not_killed(tmp_path: Path) -> None:
    study = study_of(tmp_path, replace(SHORT, dropout=0.2, mask_time_probability=0.2, mask_feature_probability=0.2))
    whole = run_study(study, Place(tmp_path / "whole", "cpu"))
    told: list[str] = []
    for at in (7, 20):
        with pytest.raises(KeyboardInterrupt):
            run_study(study, Place(tmp_path / "killed", "cpu", progress=_Kill(at)))
    killed = run_study(study, Place(tmp_path / "killed", "cpu", tell=told.append))
    assert "goes on after update 8 of 12" in told  # of the second training: 12 of the first are done
    assert killed.trained == 2
    assert killed.runs.equals(whole.runs) and killed.outputs.equals(whole.outputs)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "results").iterdir()}
        for name in ("whole", "killed")
    ]
    assert files[0] == files[1]


def test_a_finished_study_trains_nothing_and_another_seed_trains_its_own(tmp_path: Path) -> None:
    study, place = study_of(tmp_path, SHORT), Place(tmp_path / "runs", "cpu")
    first = run_study(study, place)
    again = run_study(study, place)
    assert (first.trained, again.trained) == (3, 0)
    assert again.runs.equals(first.runs)
    assert run_study(replace(study, seeds=(0, 1)), place).trained == 3


def test_thresholds_that_hold_the_same_pairs_share_their_training(tmp_path: Path) -> None:
    study = study_of(tmp_path, SHORT)
    more = study.conditions[1].added
    twice = replace(study, conditions=(Condition(MINED, more, 1.05), Condition(MINED, more, 1.07)))
    results = run_study(twice, Place(tmp_path / "runs", "cpu"))
    assert results.trained == 1 and results.runs["run"].n_unique() == 1
    assert results.runs["threshold"].to_list() == [1.05, 1.05, 1.07, 1.07]


def test_a_time_limit_stops_between_updates_and_the_next_call_goes_on(tmp_path: Path) -> None:
    ticks = iter(range(10_000))
    study = study_of(tmp_path, SHORT)
    with pytest.raises(UnfinishedError, match="of 36 updates"):
        run_study(study, Place(tmp_path / "runs", "cpu", time_limit_s=6.0, clock=lambda: float(next(ticks))))
    assert list((tmp_path / "runs" / "checkpoints").rglob("weights.safetensors"))
    assert run_study(study, Place(tmp_path / "runs", "cpu")).runs.height == 6


def test_what_is_too_long_is_left_out_and_counted(tmp_path: Path) -> None:
    study = study_of(tmp_path, SHORT)
    longer = study.base.with_columns(
        pl.when(pl.col("example") == "base-000").then(99.0).otherwise("source_duration_s").alias("source_duration_s")
    )
    results = run_study(replace(study, base=longer), Place(tmp_path / "runs", "cpu"))
    assert results.left_out == {"base": 1, "true": 1, "random": 1}


def test_nothing_to_examine_on_is_told(tmp_path: Path) -> None:
    study = replace(study_of(tmp_path, SHORT), test=no_examples())
    with pytest.raises(SettingsError, match="nothing in the test set"):
        run_study(study, Place(tmp_path / "runs", "cpu"))


# Weights to start from


def test_a_training_can_start_from_a_folder_and_takes_its_vocabulary_only_if_it_has_one(tmp_path: Path) -> None:
    from speech_mining.downstream.inputs import Sounds, extractor_of
    from speech_mining.downstream.translation import Translator

    study = study_of(tmp_path, SHORT)
    sounds = Sounds(extractor_of(SHORT))
    begun = Translator(study.base, sounds, SHORT, seed=3)
    begun.save(tmp_path / "start")
    config = replace(SHORT, start=str(tmp_path / "start"))
    whole = Translator(study.conditions[1].added, sounds, config, seed=4)
    assert whole.vocabulary.size == begun.vocabulary.size
    for one, two in zip(begun.network.parameters(), whole.network.parameters(), strict=True):
        assert bool((one == two).all())
    (tmp_path / "start" / FILE).unlink()
    encoder = Translator(study.conditions[1].added, sounds, config, seed=4)
    for (name, one), two in zip(
        begun.network.model.encoder.named_parameters(), encoder.network.model.encoder.parameters(), strict=True
    ):
        assert bool((one == two).all()), name
    assert encoder.vocabulary.size > begun.vocabulary.size  # it is learned from what is trained on
    results = run_study(replace(study, config=config, conditions=study.conditions[:1]), Place(tmp_path / "runs", "cpu"))
    assert results.trained == 1


def test_weights_that_are_not_there_or_read_other_features_are_refused(tmp_path: Path) -> None:
    from speech_mining.downstream.inputs import Sounds, extractor_of
    from speech_mining.downstream.translation import Translator

    study = study_of(tmp_path, SHORT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="No model can be started from"):
        Translator(study.base, Sounds(extractor_of(SHORT)), replace(SHORT, start=str(tmp_path / "empty")), seed=0)
    Translator(study.base, Sounds(extractor_of(SHORT)), SHORT, seed=0).save(tmp_path / "start")
    other = replace(SHORT, start=str(tmp_path / "start"), stacked_frames=2)
    with pytest.raises(EncoderError, match="reads 160 numbers an input, and the features have 80"):
        Translator(study.base, Sounds(extractor_of(other)), other, seed=0)
