"""Recordings in another language than declared: planted ones are found, and what cannot be judged is never fine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from resources.settings import load_settings
from s2s_assets.definitions import build
from speech_mining.errors import EmbeddingError
from speech_mining.knn.vectors import Stack
from speech_mining.lake import Lake
from speech_mining.quality import spoken_language
from speech_mining.quality.spoken_language import JUDGEMENTS, judge_recordings
from speech_mining.records import REJECTIONS, SEGMENTS, segment_id

NAMES = ("deu", "eng", "fra", "spa")
D = 48
Recording = tuple[str, str, int]


@dataclass(frozen=True, eq=False)
class Speech:
    vectors: npt.NDArray[np.float16]
    rows: pl.DataFrame
    """language, audiobook, section; a row a vector."""
    wrong: set[Recording]

    def take(self, chosen: npt.NDArray[Any]) -> Speech:
        return Speech(self.vectors[chosen], self.rows[chosen], self.wrong)


def speech(
    seed: int,
    *,
    strength: float = 0.8,
    languages: int = 3,
    books: int = 5,
    sections: int = 5,
    segments: int = 24,
    wrong: int = 2,
) -> Speech:
    """Vectors of what is said, the book, the recording and, `strength` times as long as a segment's, the language."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> npt.NDArray[np.float64]:
        return random.standard_normal((*shape, D)) / np.sqrt(D)

    of_language, of_book = draw(languages), draw(languages, books)
    every = [(lang, book, part) for lang in range(languages) for book in range(books) for part in range(sections)]
    planted = set(random.choice(len(every), wrong, replace=False).tolist())
    vectors, rows, found = [], [], set()
    for number, (language, book, part) in enumerate(every):
        name = (NAMES[language], f"{language}{book}", part + 1)
        spoken = (language + 1) % languages if number in planted else language
        found |= {name} if number in planted else set()
        made = draw(segments) + strength * of_language[spoken] + 0.4 * of_book[language, book] + 0.3 * draw()
        vectors.append(made / np.linalg.norm(made, axis=1, keepdims=True))
        rows += [name] * segments
    table = pl.DataFrame(rows, schema=["language", "audiobook", "section"], orient="row")
    return Speech(np.concatenate(vectors).astype(np.float16), table, found)


def judge(spoken: Speech, vectors: Any = None, *, folds: int = 10, seed: int = 0) -> pl.DataFrame:
    columns = [spoken.rows[name] for name in ("language", "audiobook", "section")]
    return judge_recordings(spoken.vectors if vectors is None else vectors, *columns, folds=folds, seed=seed)


def suspicious(judged: pl.DataFrame) -> set[Recording]:
    return set(judged.filter(pl.col("suspicious")).select("language", "audiobook", "section").rows())


def reasons(judged: pl.DataFrame, language: str) -> set[str | None]:
    return set(judged.filter(pl.col("language") == language)["not_judged"])


def test_planted_recordings_are_found_and_named_by_the_language_they_speak() -> None:
    spoken = speech(1)
    judged = judge(spoken)
    assert dict(judged.schema) == dict(JUDGEMENTS)
    assert suspicious(judged) == spoken.wrong
    assert judged["not_judged"].null_count() == judged.height == 75
    assert judged["segments"].unique().to_list() == [24]
    found = judged.filter(pl.col("suspicious"))
    for language, heard in found.select("language", "heard").rows():
        assert heard == NAMES[(NAMES.index(language) + 1) % 3]
    assert (found["own_score"] < found["heard_score"]).all()
    right = judged.filter(~pl.col("suspicious") & (pl.col("heard") == pl.col("language")))
    assert (right["own_score"] == right["heard_score"]).all() and right["own_share"].min() > 0.2  # type: ignore[operator]


@pytest.mark.parametrize(("strength", "least_recall"), [(0.0, 0.0), (0.3, 0.0), (0.5, 0.45), (0.8, 0.9)])
def test_false_alarms_are_at_most_one_in_200_however_weak_the_language_is(strength: float, least_recall: float) -> None:
    alarms = found = planted = 0
    for seed in range(12):
        spoken = speech(seed, strength=strength)
        told = suspicious(judge(spoken))
        alarms, found, planted = (
            alarms + len(told - spoken.wrong),
            found + len(told & spoken.wrong),
            planted + len(spoken.wrong),
        )
    assert alarms * 200 <= 12 * 73
    assert found >= least_recall * planted


def test_an_audiobook_that_is_wrong_as_a_whole_is_found_since_it_does_not_teach_its_own_judge() -> None:
    spoken = speech(3, strength=1.2, books=6, wrong=0)
    whole = spoken.rows["audiobook"].to_numpy() == "10"
    stolen = spoken.rows["audiobook"].to_numpy() == "00"
    vectors = spoken.vectors.copy()
    vectors[whole] = speech(3, strength=1.2, books=6, wrong=0).vectors[stolen][::-1]
    right = spoken.take(np.flatnonzero(~stolen))
    assert suspicious(judge(right, vectors[~stolen])) == {("eng", "10", part) for part in range(1, 6)}


def test_languages_that_sound_alike_are_not_judged() -> None:
    judged = judge(speech(4, strength=0.0))
    assert set(judged["not_judged"]) == {spoken_language.NOT_TOLD_APART}
    assert judged["suspicious"].null_count() == judged.height
    assert judged["heard"].null_count() == 0


def test_a_language_of_19_recordings_is_not_judged_and_does_not_teach() -> None:
    spoken = speech(5, wrong=0)
    few = (spoken.rows["language"] == "fra") & (spoken.rows["audiobook"] == "24")
    lost = few | ((spoken.rows["audiobook"] == "23") & (spoken.rows["section"] == 5))
    at_20, at_19 = (judge(spoken.take(np.flatnonzero(~rows.to_numpy()))) for rows in (few, lost))
    assert reasons(at_20, "fra") == {None}
    assert reasons(at_19, "fra") == {spoken_language.TOO_FEW_RECORDINGS}
    assert reasons(at_19, "deu") == reasons(at_19, "eng") == {None}
    assert "fra" not in set(at_19["heard"])
    unjudged = at_19.filter(pl.col("language") == "fra")
    assert (
        unjudged.select("heard", "own_score", "heard_score", "own_share", "suspicious").null_count().row(0) == (19,) * 5
    )


def test_a_recording_of_nine_segments_is_not_judged_and_its_neighbours_are() -> None:
    spoken = speech(6, books=6)
    first = np.flatnonzero(((spoken.rows["audiobook"] == "00") & (spoken.rows["section"] == 1)).to_numpy())
    for kept, reason in ((9, spoken_language.TOO_FEW_SEGMENTS), (10, None)):
        judged = judge(spoken.take(np.setdiff1d(np.arange(spoken.rows.height), first[kept:])))
        assert judged.row(0, named=True)["segments"] == kept
        assert judged["not_judged"][0] == reason
        assert judged["not_judged"][1:].null_count() == judged.height - 1


def test_a_language_of_one_audiobook_is_not_judged_since_it_would_judge_itself() -> None:
    spoken = speech(7, wrong=0)
    german = pl.col("language") == "deu"
    section = pl.when(german).then(pl.col("section") + 10 * pl.col("audiobook").cast(pl.Int64)).otherwise("section")
    one_book = pl.when(german).then(pl.lit("0")).otherwise("audiobook").alias("audiobook")
    judged = judge(Speech(spoken.vectors, spoken.rows.with_columns(section.alias("section"), one_book), set()))
    assert reasons(judged, "deu") == {spoken_language.TOO_FEW_AUDIOBOOKS}
    assert reasons(judged, "eng") == {None}


def test_a_language_alone_is_not_judged() -> None:
    judged = judge(speech(8, languages=1, wrong=0))
    assert set(judged["not_judged"]) == {spoken_language.NO_OTHER_LANGUAGE}
    assert judged["suspicious"].null_count() == judged.height == 25


def test_no_vectors_make_no_recordings() -> None:
    judged = judge_recordings(np.empty((0, D), np.float16), [], [], [], folds=10, seed=0)
    assert judged.is_empty() and dict(judged.schema) == dict(JUDGEMENTS)


def test_the_order_of_rows_changes_nothing_nor_does_judging_twice() -> None:
    spoken = speech(9, segments=60)  # more than are learned from: the draw must not depend on the order either
    judged = judge(spoken)
    assert judge(spoken).equals(judged)
    shuffled = spoken.take(np.random.default_rng(0).permutation(spoken.rows.height))
    assert judge(shuffled).equals(judged)


def test_vectors_in_pieces_and_in_chunks_are_judged_as_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = speech(10)
    judged = judge(spoken)
    assert judge(spoken, Stack(np.split(spoken.vectors, [7, 500, 1100]))).equals(judged)
    monkeypatch.setattr(spoken_language, "CHUNK_ROWS", 97)
    assert judge(spoken).equals(judged)


def test_no_more_is_learned_from_than_the_bounds_say_and_the_rest_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    monkeypatch.setattr(spoken_language, "RECORDINGS_LEARNED", 22)
    monkeypatch.setattr(spoken_language, "SEGMENTS_LEARNED", 12)
    learn = spoken_language._learn
    monkeypatch.setattr(spoken_language, "_learn", lambda sample, *rest: learned.append(sample) or learn(sample, *rest))
    spoken = speech(11, strength=1.2)
    judged = judge(spoken)
    assert len(learned[0].vectors) == 3 * 22 * 12
    assert suspicious(judged) == spoken.wrong and judged["not_judged"].null_count() == 75


def test_two_folds_find_them_too_and_one_fold_has_nobody_to_learn_from() -> None:
    spoken = speech(12, strength=1.2, books=6)
    assert suspicious(judge(spoken, folds=2)) == spoken.wrong
    assert set(judge(spoken, folds=1)["not_judged"]) == {spoken_language.TOO_FEW_AUDIOBOOKS}


def test_vectors_that_are_all_the_same_tell_nothing() -> None:
    spoken = speech(13)
    same = np.broadcast_to(spoken.vectors[:1], spoken.vectors.shape)
    judged = judge(spoken, same)
    assert not suspicious(judged)


def test_what_is_no_number_and_columns_of_other_lengths_are_errors() -> None:
    spoken = speech(14)
    vectors = spoken.vectors.copy()
    vectors[5, 3] = np.nan
    with pytest.raises(EmbeddingError, match=r"hold what is no number.*Fix: materialize"):
        judge(spoken, vectors)
    with pytest.raises(EmbeddingError, match="1799 vectors"):
        judge(spoken, spoken.vectors[1:])


def publish(lake: Lake, spoken: Speech, *, encoders: dict[str, str] | None = None) -> None:
    """The lake's embeddings, an audiobook a partition; each language by the encoder named, all by one otherwise."""
    rows = spoken.rows.with_row_index("row")
    for (language, book), part in rows.group_by("language", "audiobook", maintain_order=True):
        starts = [number * 80_000 for number in range(part.height)]
        ids = [segment_id(str(book), section, at, at + 1) for section, at in zip(part["section"], starts, strict=True)]
        segments = {name: pl.lit(0) for name in SEGMENTS} | {
            "segment_id": pl.Series(ids),
            "audiobook": pl.col("audiobook"),
            "section": pl.col("section"),
        }
        with lake.replace("speech_embeddings", str(language), str(book)) as new:
            new.write_table("segments.parquet", part.select(**segments), SEGMENTS)
            new.write_table("rejections.parquet", pl.DataFrame(schema=dict(REJECTIONS)), REJECTIONS)
            new.write_array("vectors.npy", spoken.vectors[part["row"].to_numpy()])
            version = (encoders or {}).get(str(language), "1")
            new.write_json("encoder.json", {"name": "planted", "version": version, "dimension": D})


def evaluate(home: Path) -> Any:
    """Materialize the report, with its checks, in the real code location."""
    settings = load_settings(home=home, languages="deu,eng,fra")
    job = build(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("quality_report")])
    assert done.success
    found = {evaluation.check_name: evaluation for evaluation in done.get_asset_check_evaluations()}
    return found["recordings_speak_their_language"]


def lake_of(home: Path) -> Lake:
    return Lake(load_settings(home=home, languages="deu,eng,fra").lake_url)


def test_the_check_warns_of_planted_recordings_and_blocks_nothing(tmp_path: Path) -> None:
    spoken = speech(1)
    publish(lake_of(tmp_path), spoken)
    told = evaluate(tmp_path)
    assert not told.passed
    assert told.severity == dg.AssetCheckSeverity.WARN and not told.blocking
    shown = [dict(record.data) for record in told.metadata["suspicious_recordings"].records]
    assert {(row["language"], row["audiobook"], row["section"]) for row in shown} == spoken.wrong
    assert all(row["own_share"] < 0.2 and row["heard_share"] > 0.6 and row["heard"] for row in shown)
    assert told.metadata["judged"].value == told.metadata["recordings"].value == 75
    assert told.description == "2 of 75 judged recordings sound like another language; 0 could not be judged"


def test_languages_of_encoders_of_their_own_are_told_as_not_judged(tmp_path: Path) -> None:
    publish(lake_of(tmp_path), speech(1), encoders={"deu": "a", "eng": "b", "fra": "c"})
    told = evaluate(tmp_path)
    assert told.passed
    assert told.metadata["judged"].value == 0
    assert told.metadata["not_judged_by_reason"].data == {"no_other_language": 75}
    assert told.description == "Nothing is known: none of 75 recordings could be judged"


def test_an_empty_lake_has_nothing_to_say(tmp_path: Path) -> None:
    told = evaluate(tmp_path)
    assert told.passed and told.metadata["recordings"].value == told.metadata["judged"].value == 0
    assert "Nothing is known" in told.description
