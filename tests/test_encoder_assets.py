"""From transcribed recordings to the encoder in force, in a real Dagster instance on the miniature library's audio."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from resources.encoders import Encoders
from resources.settings import LIBRARY, load_settings
from s2s_assets.definitions import build
from speech_mining.encoders.promoted import (
    current_version,
    promoted_weights,
    promotions,
    weights_file,
)
from speech_mining.encoders.student import SHIPPED, Student
from speech_mining.errors import EncoderError, LakeError, SettingsError
from speech_mining.evaluation.comparison import OUTCOMES, compare
from speech_mining.lake import Lake

TINY: dict[str, Any] = {
    "architecture": "convolutions",
    "pooling": "mean",
    "activation": "none",
    "updates": 6,
    "peak_rate": 1e-3,
    "projection_only_updates": 0,
    "max_batch_seconds": 60.0,
    "validate_every": 3,
    "checkpoint_every": 3,
}
NAME = "klein"


def _recordings(folder: Path) -> dict[tuple[str, int], str]:
    """The library's recordings, copied: what a set of clips names must lie in its folder."""
    found = {}
    for book in json.loads((LIBRARY / "catalogue.json").read_text())["books"]:
        for section in book["sections"]:
            name = section["listen_url"].rpartition("/")[2]
            source = next((LIBRARY / "download").rglob(name), None) if name else None
            if source is not None:
                shutil.copyfile(source, folder / name)
                found[book["id"], int(section["section_number"])] = name
    return found


def _write_transcripts(folder: Path) -> None:
    """German and English spans of the recordings: what is said, and how the other language says it."""
    files = _recordings(folder)
    told = pl.read_parquet(LIBRARY / "sentences.parquet").filter(pl.col("kind") == "story")
    english, german = (told.filter(language=one).unique("sentence", maintain_order=True) for one in ("eng", "deu"))
    lines = ["path\tstart\tend\ttext\ttranslation\tlanguage\ttranslation_language\tsplit"]
    for own, other, language in ((german, english, "eng"), (english, german, "deu")):
        both = own.join(other.select("sentence", pl.col("text").alias("translation")), on="sentence").sort("sentence")
        for place, row in enumerate(both.iter_rows(named=True)):
            cells = [
                files[row["audiobook"], row["section"]],
                f"{row['start_ms'] / 1000}",
                f"{row['end_ms'] / 1000}",
                row["text"],
                row["translation"],
                row["language"],
                language,
                ("train", "train", "train", "dev", "test")[place % 5],
            ]
            lines.append("\t".join(cells))
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n")


class Platform:
    """A home with one student, and the assets over it, materialized for real."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, data: Path, **training: Any) -> None:
        self.home, self.instance, self.data = home, instance, data
        self.settle(**training)

    def settle(self, target: str = "both", tolerance: float = 0.0, **training: Any) -> None:
        """The settings of another run: what is trained otherwise."""
        student = {
            "data": [str(self.data)],
            "teacher": "miniature",
            "target": target,
            "tolerance": tolerance,
            "training": {**TINY, **training},
        }
        self.settings = load_settings(home=self.home, students={NAME: student}, encoders={"deu": f"student:{NAME}"})
        self.lake = Lake(self.settings.lake_url)
        self.job = build(self.settings).resolve_implicit_global_asset_job_def()

    def make(self, *assets: str, config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        ops = {name: {"config": told} for name, told in (config or {}).items()}
        return self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in assets],
            partition_key=NAME,
            run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )

    def trained_version(self) -> str:
        return str(self.lake.partition("student_encoder", NAME).read_json("training.json")["version"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    _write_transcripts(folder)
    return folder


@pytest.fixture
def platform(tmp_path: Path, data: Path) -> Iterator[Platform]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(tmp_path, instance, data)


def _failure(result: dg.ExecuteInProcessResult) -> str:
    failed = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return " ".join(f"{error.message} {error.cause.message if error.cause else ''}" for error in failed if error)


def _metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    return {name: entry.value for name, entry in result.asset_materializations_for_node(asset)[0].metadata.items()}


def test_lineage_runs_from_the_recordings_to_the_encoder_in_force_and_what_it_embeds(platform: Platform) -> None:
    made = platform.make("transcribed_speech", "teacher_embeddings", "student_encoder", "encoder_evaluation")
    assert made.success, _failure(made)
    clips = _metadata(made, "transcribed_speech")
    assert (
        clips["dagster/row_count"]
        == platform.lake.partition("transcribed_speech", NAME).read_frame("clips.parquet").height
    )
    assert {"hours_by_split_and_language", "problems", "rejected_by_reason"} <= set(clips)
    assert _metadata(made, "teacher_embeddings")["texts_by_language"].keys() == {"deu", "eng"}
    trained = _metadata(made, "student_encoder")
    assert trained["updates"] == TINY["updates"] and trained["curves"].startswith("![plot](data:image/png")
    outcomes = platform.lake.partition("encoder_evaluation", NAME).read_table("outcomes.parquet", OUTCOMES)
    assert {"audio against transcriptions", "audio against translations", "audio against translated audio"} <= set(
        outcomes["task"]
    )
    by_text = outcomes.filter(pl.col("task") == "audio against translations")
    assert (by_text["distractors"] > by_text["candidates"]).all()  # the texts of train and dev
    check = made.get_asset_check_evaluations()[0]
    assert check.passed and check.check_name == "no_worse_than_current"

    # nothing embeds with it before a person says so
    with pytest.raises(EncoderError, match="No version of the student klein is current"):
        Encoders.of(platform.settings).speech("deu", platform.lake)
    assert platform.make("current_encoder").success
    version = platform.trained_version()
    assert current_version(platform.lake, NAME) == version
    encoder = Encoders.of(platform.settings).speech("deu", platform.lake)
    assert (encoder.name, encoder.version) == (NAME, version)
    graph = build(platform.settings).resolve_asset_graph()
    assert dg.AssetKey("current_encoder") in graph.get(dg.AssetKey(["deu", "speech_embeddings"])).parent_keys
    assert dg.AssetKey("current_encoder") not in graph.get(dg.AssetKey(["eng", "speech_embeddings"])).parent_keys


def _pretend_training_of_the_demos_student(platform: Platform) -> str:
    """A student that is much better than a tiny one can become: the miniature library's own."""
    version = Student.load().version
    with platform.lake.replace("student_encoder", NAME) as new:
        shutil.copyfile(SHIPPED, new.path(weights_file(NAME)))
        new.write_json("training.json", {"version": version})
    return version


def test_a_worse_version_is_not_promoted_but_for_a_reason_and_the_previous_one_can_come_back(
    platform: Platform,
) -> None:
    assert platform.make("transcribed_speech", "teacher_embeddings").success
    good = _pretend_training_of_the_demos_student(platform)
    assert platform.make("encoder_evaluation").success
    assert platform.make("current_encoder").success
    errors = platform.lake.partition("encoder_evaluation", NAME).read_json("verdict.json")["errors"]
    assert errors["trained"] < 0.1

    unexamined = platform.make("student_encoder", "current_encoder")
    assert not unexamined.success and "was not held against the current one" in _failure(unexamined)
    made = platform.make("encoder_evaluation")
    bad = platform.trained_version()
    assert bad != good
    assert not made.get_asset_check_evaluations()[0].passed
    refused = platform.make("current_encoder")
    assert not refused.success and "is worse than the current one" in _failure(refused)
    assert current_version(platform.lake, NAME) == good

    forced = platform.make("current_encoder", config={"current_encoder": {"even_if_worse": "a test"}})
    assert forced.success, _failure(forced)
    assert current_version(platform.lake, NAME) == bad
    back = platform.make("current_encoder", config={"current_encoder": {"version": good}})
    assert back.success, _failure(back)
    assert promoted_weights(platform.lake, NAME).read_bytes() == SHIPPED.read_bytes()
    known = promotions(platform.lake, NAME)
    assert known["version"].to_list() == [good, bad, good]
    assert known["previous"].to_list() == [None, good, bad]
    assert known["reason"].to_list() == ["", "a test", ""]


def test_training_again_with_nothing_changed_gives_the_same_bytes(platform: Platform) -> None:
    platform.settle(updates=2, validate_every=2)
    assert platform.make("transcribed_speech", "teacher_embeddings", "student_encoder").success
    first = platform.lake.partition("student_encoder", NAME).data_version
    shutil.rmtree(platform.home / "training")
    assert platform.make("student_encoder").success
    assert platform.lake.partition("student_encoder", NAME).data_version == first


def test_what_settings_say_of_students_must_fit(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the students are none"):
        load_settings(home=tmp_path, encoder="student:nobody")
    with pytest.raises(SettingsError, match=r"students\.Gross"):
        load_settings(home=tmp_path, students={"Gross": {"data": ["x"]}})
    without = build(load_settings(home=tmp_path)).resolve_asset_graph()
    assert dg.AssetKey("student_encoder") not in without.materializable_asset_keys


def _outcomes(errors: dict[str, float]) -> pl.DataFrame:
    rows = [
        {name: None for name in OUTCOMES}
        | {"task": task, "source": "deu", "target": "eng", "queries": 9, "error": error}
        for task, error in errors.items()
    ]
    return pl.DataFrame(rows, schema=dict(OUTCOMES))


def test_encoders_are_compared_search_by_search() -> None:
    now = _outcomes({"audio against translations": 0.2, "transcriptions against translations": 0.1})
    same = compare(now, now, 0.0)
    assert same.height == 1 and not same["worse"].any()
    later = _outcomes({"audio against translations": 0.25, "transcriptions against translations": 0.0})
    assert compare(later, now, 0.04)["worse"].to_list() == [True]
    assert compare(later, now, 0.06)["worse"].to_list() == [False]
    with pytest.raises(LakeError, match="1 searches are held against 0 others"):
        compare(now, now.clear(), 0.0)
    assert np.isclose(compare(later, now, 0.0)["current_error"][0], 0.2)
