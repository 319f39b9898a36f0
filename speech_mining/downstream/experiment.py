"""Base against base and more: every training on the same budget and seeds, each done once, whatever is killed.

What belongs here is which runs there are, their order and their results. A run is named by all that decides its
outcome, so a finished one is never repeated, and one that two thresholds share is done once. How a model learns is
`downstream.loop`; importing this loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from speech_mining.atomic import replacing
from speech_mining.downstream.configuration import LearningConfig
from speech_mining.downstream.examples import Side, checked, hours
from speech_mining.downstream.leaks import refuse_leaks
from speech_mining.downstream.scores import Score
from speech_mining.downstream.tables import OUTPUTS, RUNS, VERSION, Task
from speech_mining.errors import SettingsError, SpeechMiningError
from speech_mining.progress import Progress, silent


class UnfinishedError(SpeechMiningError):
    """The time that was given is over before every run is done; what is done stays."""


@dataclass(frozen=True, eq=False)
class Condition:
    """What is added to the base set.

    Args:
        name: base, mined, true or random.
        added: `examples.EXAMPLES`; none for the base.
        threshold: of mined pairs.
    """

    name: str
    added: pl.DataFrame
    threshold: float | None = None

    @property
    def told(self) -> str:
        """For people."""
        return self.name if self.threshold is None else f"{self.name} from {self.threshold:g}"


@dataclass(frozen=True, eq=False)
class Study:
    """Runs to be compared.

    Args:
        task: what the model does.
        base: what every run hears.
        test: what every run is examined on.
        conditions: what is added; one without anything added is the base.
        config: of every run.
        seeds: each condition is trained once for each.
        languages: of source and target, ISO 639-3.
        character: whether BLEU counts characters.
    """

    task: Task
    base: pl.DataFrame
    test: pl.DataFrame
    conditions: tuple[Condition, ...]
    config: LearningConfig
    seeds: tuple[int, ...] = (0, 1, 2)
    languages: tuple[str, str] = ("", "")
    character: bool = False


@dataclass(frozen=True)
class Place:
    """Where and how a study is run.

    Args:
        folder: checkpoints and results, which survive a kill.
        device: "auto", "cpu", "cuda:0".
        time_limit_s: after which no update is begun; None: none.
        progress: told the updates done, of all runs.
        tell: told what happens, in words.
        clock: monotonic seconds.
    """

    folder: Path
    device: str = "auto"
    time_limit_s: float | None = None
    progress: Progress = silent
    tell: Callable[[str], None] = field(default=lambda line: None)
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, eq=False)
class Results:
    """What a study found.

    Args:
        runs: `RUNS`, a row a condition, seed and metric.
        outputs: `OUTPUTS`, what the translators said; none of a retrieval.
        trained: runs that this call trained; the others were there.
        left_out: condition → examples too long to be trained on.
    """

    runs: pl.DataFrame
    outputs: pl.DataFrame
    trained: int
    left_out: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class _Run:
    condition: Condition
    seed: int
    train: pl.DataFrame
    name: str


def run_study(study: Study, place: Place) -> Results:
    """Train and examine every condition with every seed, or as many as are not done yet.

    Raises:
        SettingsError: an example is in the test set too, or there is nothing to train or examine on.
        UnfinishedError: the time limit; the next call goes on.
        EncoderError: a model cannot be started from, or does not learn at all.
    """
    _require_something(study)
    runs = list(_runs(study))
    begun, total, trained = place.clock(), len(runs) * study.config.updates, 0
    results: dict[str, dict[str, Any]] = {}
    sounds = _sounds(study)
    for number, run in enumerate(runs):
        file = place.folder / "results" / f"{run.name}.json"
        if not file.is_file():
            place.tell(f"{run.condition.told}, seed {run.seed}: {run.train.height} examples")
            within = _Within(place, begun, number * study.config.updates, total)
            _write(file, _trained(study, run, sounds, place, within))
            trained += 1
            shutil.rmtree(_checkpoints(place, run), ignore_errors=True)
        results[run.name] = json.loads(file.read_text("utf-8"))
        place.progress((number + 1) * study.config.updates, total)
    left_out = {one.condition.told: one.condition.added.height + study.base.height - one.train.height for one in runs}
    return Results(_table(runs, results), _outputs(study, runs, results), trained, left_out)


def shuffled(examples: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """The same sources, each with another one's target: as many pairs that say nothing of each other.

    Targets move one place along a random circle, so that no example keeps its own.
    """
    from speech_mining.training.masking import chance_of

    if examples.height < 2:
        return examples.clear()
    circle = chance_of(seed, 31).permutation(examples.height)
    taken = circle.copy()
    taken[circle] = np.roll(circle, -1)
    targets = [name for name in examples.columns if name.startswith("target_")]
    moved = examples.select(targets)[taken]
    return examples.with_columns(moved.get_columns())


# Runs


def _runs(study: Study) -> Iterator[_Run]:
    """Seed by seed: what is done when the time is over can be compared."""
    alike = [_fingerprint(study.base), _fingerprint(study.test)]
    trains = [_heard(study, condition) for condition in study.conditions]
    data = [_fingerprint(train) for train in trains]
    for seed in study.seeds:
        for condition, train, fingerprint in zip(study.conditions, trains, data, strict=True):
            yield _Run(condition, seed, train, _name(study, seed, [fingerprint, *alike]))


def _heard(study: Study, condition: Condition) -> pl.DataFrame:
    """What a condition is trained on: the base and what is added, without what is too long."""
    whole = checked(pl.concat([study.base, condition.added]), condition.told)
    return whole.filter(pl.col("source_duration_s") <= study.config.longest_s)


def _name(study: Study, seed: int, data: Sequence[str]) -> str:
    from speech_mining.downstream.inputs import student_file
    from speech_mining.encoders.cards import sha256_once

    frames = sha256_once(student_file(study.config.frames)) if study.config.frames else ""
    start = Path(study.config.start) if study.config.start else None
    files = sorted(path for path in start.iterdir() if path.suffix in {".json", ".safetensors"}) if start else []
    told = {
        "version": VERSION,
        "task": study.task,
        "config": {**study.config.as_dict(), "start": [sha256_once(path) for path in files], "frames": frames},
        "languages": study.languages,
        "data": data,
        "seed": seed,
        "character": study.character,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _fingerprint(examples: pl.DataFrame) -> str:
    """Of what is heard and read, and not of where the files lie."""
    columns = [name for name in examples.columns if not name.endswith(("_file", "_place")) and name != "score"]
    return hashlib.sha256(examples.select(columns).sort("example").write_ndjson().encode()).hexdigest()


def _require_something(study: Study) -> None:
    for what, table in (("the base set", study.base), ("the test set", study.test)):
        if table.is_empty():
            raise SettingsError(
                f"There is nothing in {what}.",
                expected="at least one example",
                cause="a split without clips, or all of it was dropped since the test set has it",
                fix="name a set that has both train and test",
            )
    refuse_leaks(study.base, study.test, "the base set")
    for condition in study.conditions:
        refuse_leaks(condition.added, study.test, condition.told)


# One run


class _Within:
    """Tells a run's progress as the study's, and stops it when the time is over."""

    def __init__(self, place: Place, begun: float, before: int, total: int) -> None:
        self._place, self._begun, self._before, self._total = place, begun, before, total
        self._first: int | None = None

    def __call__(self, done: int, total: int, /) -> None:
        self._place.progress(self._before + done, self._total)
        limit = self._place.time_limit_s
        if self._first is None:
            self._first = done  # at least one update is made, however long it took to come here
            return
        if limit is not None and self._place.clock() - self._begun > limit and self._first < done < total:
            raise UnfinishedError(
                f"The time limit of {limit:g} s is over after {self._before + done} of {self._total} updates.",
                fix="run it again: it goes on from here",
            )


def _sounds(study: Study) -> Any:
    """How clips are heard: features of both sides, standardised over the base, which every run has."""
    from speech_mining.downstream.inputs import Sounds, extractor_of, standardised

    def heard(side: Side) -> Any:
        extractor = extractor_of(study.config, study.languages[0 if side == "source" else 1])
        return standardised(extractor, study.base, side)

    return Sounds(heard("source"), heard("target") if study.task == "retrieval" else None)


def _checkpoints(place: Place, run: _Run) -> Path:
    return place.folder / "checkpoints" / run.name


def _trained(study: Study, run: _Run, sounds: Any, place: Place, progress: Progress) -> dict[str, Any]:
    """Train and examine; what JSON holds of it."""
    from speech_mining.downstream.loop import Course, train
    from speech_mining.encoders.placement import placement
    from speech_mining.encoders.threads import torch_threads

    device = str(placement(place.device, "float32")[0])
    with torch_threads(study.config.threads), _own_chance(device):
        learner = _learner(study, run, sounds)
        course = Course(study.config, run.seed, _checkpoints(place, run), device, progress, place.tell)
        learned = train(learner, course)
        scores, said = _examined(study, learner, device)
    told = {"losses": learned.losses, "heard_s": round(learned.heard_s, 3), "skipped": learned.skipped}
    return {"scores": [asdict(score) for score in scores], "said": said, **told}


def _own_chance(device: str) -> Any:
    import torch

    return torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else [])


def _learner(study: Study, run: _Run, sounds: Any) -> Any:
    if study.task == "translation":
        from speech_mining.downstream.translation import Translator

        return Translator(run.train, sounds, study.config, run.seed)
    from speech_mining.downstream.retrieval import Retriever

    return Retriever(run.train, sounds, study.config, run.seed)


def _examined(study: Study, learner: Any, device: str) -> tuple[list[Score], list[str]]:
    from speech_mining.downstream.scores import retrieval_scores, translation_scores

    if study.task == "translation":
        said: list[str] = learner.translate(study.test, device)
        return translation_scores(said, study.test["target_words"].to_list(), character=study.character), said
    vectors = [learner.vectors(study.test, side, device) for side in ("source", "target")]
    return retrieval_scores(*vectors), []


# Results


def _write(file: Path, result: Mapping[str, Any]) -> None:
    with replacing(file) as part:
        part.write_text(json.dumps(result, sort_keys=True, ensure_ascii=False), "utf-8")


def _table(runs: Sequence[_Run], results: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    rows = [
        {
            "condition": run.condition.name,
            "threshold": run.condition.threshold,
            "pairs": run.condition.added.height,
            "hours": hours(run.condition.added),
            "seed": run.seed,
            **score,
            "run": run.name,
        }
        for run in runs
        for score in results[run.name]["scores"]
    ]
    return pl.DataFrame(rows, schema=dict(RUNS))


def _outputs(study: Study, runs: Sequence[_Run], results: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    names, references = study.test["example"].to_list(), study.test["target_words"].to_list()
    rows = [
        (run.condition.name, run.condition.threshold, run.seed, name, reference, said)
        for run in runs
        for name, reference, said in zip(names, references, results[run.name]["said"], strict=False)
    ]
    return pl.DataFrame(rows, schema=dict(OUTPUTS), orient="row")
