"""Encoders made here, from transcribed speech to the version that embeds: a partition a student.

Nothing on this path happens by itself but the evaluation: training costs days of a GPU, and a new encoder means that
all is embedded again, so both are asked for by a person. What belongs here is the layers; formats are
`speech_mining.transcribed`, learning is `speech_mining.training`, figures are `speech_mining.evaluation`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
from pydantic import Field

from partitions.students import student_partitions
from resources.budgets import memory_retries
from resources.compute import CHECK, CPU, GPU, OWNERS, pod_retries, step_tags
from resources.devices import held_device
from resources.encoders import Encoders
from resources.gpu_steps import gpu_step
from resources.metadata import column_schema, counted, listed, plot, rows
from resources.progress_log import telling
from resources.settings import Settings, StudentSettings
from resources.storage import Lake, Storage, published
from speech_mining.encoders.promoted import (
    CURRENT,
    PROMOTIONS,
    TABLE,
    TRAINED,
    Promotion,
    current_version,
    promote,
    promoted_weights,
    weights_file,
)
from speech_mining.errors import EncoderError
from speech_mining.records import TRANSCRIBED

if TYPE_CHECKING:
    from speech_mining.encoders.protocol import SpeechEncoder
    from speech_mining.training.distillation import TrainedStudent

GROUP = "encoders"
CLIPS, TEACHER = "transcribed_speech", "teacher_embeddings"
EVALUATION = "encoder_evaluation"
NO_WORSE = "no_worse_than_current"
PARTS_TOLD = 20


def encoders(settings: Settings) -> list[dg.AssetsDefinition]:
    """The layers of every student; none where the settings name no student."""
    if not settings.students:
        return []
    return [
        transcribed_speech(settings),
        teacher_embeddings(settings),
        student_encoder(settings),
        encoder_evaluation(settings),
        current_encoder(settings),
    ]


def transcribed_speech(settings: Settings) -> dg.AssetsDefinition:
    """Clips whose words are known."""

    @dg.asset(
        key=CLIPS,
        partitions_def=student_partitions(settings.students),
        group_name=GROUP,
        kinds={"polars", "parquet"},
        owners=OWNERS,
        op_tags=step_tags(CPU, CLIPS, settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version=_chosen(settings, "data", "format", "dev_share", "test_share", "keep_leaks"),
        metadata={"dagster/column_schema": column_schema(TRANSCRIBED)},
    )
    def _transcribed_speech(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """Transcribed speech and its translations, from Common Voice, CoVoST, fairseq, Hugging Face or a folder.

        The audio stays where it is. Clips that are missing or broken are counted rejections; what train shares with dev
        or test is taken out of train. Sets without a dev or test split get one by a hash of the speaker.
        """
        from speech_mining.transcribed.sets import REJECTED_CLIPS

        name = context.partition_key
        clips, rejections, figures = _gathered(settings.students[name])
        with storage.lake.replace(CLIPS, name) as new:
            new.write_table("clips.parquet", clips, TRANSCRIBED)
            new.write_table("rejections.parquet", rejections, REJECTED_CLIPS)
        return published(storage.lake, figures, CLIPS, name)

    return _transcribed_speech


def teacher_embeddings(settings: Settings) -> dg.AssetsDefinition:
    """Vectors of the clips' texts."""

    @dg.asset(
        key=TEACHER,
        deps=[CLIPS],
        partitions_def=student_partitions(settings.students),
        group_name=GROUP,
        kinds={"pytorch", "numpy"},
        owners=OWNERS,
        op_tags=step_tags(GPU, TEACHER, settings),
        pool=GPU,
        retry_policy=memory_retries(settings),
        code_version=_chosen(settings, "teacher", "target"),
    )
    def _teacher_embeddings(
        context: dg.AssetExecutionContext, storage: Storage, encoders: Encoders
    ) -> dg.MaterializeResult[None]:
        """The vector of every transcription, translation, or both: what a student learns to give for the speech."""
        from speech_mining.training.teacher import TEXTS, UNTAUGHT, teach

        name = context.partition_key
        student = settings.students[name]
        with gpu_step(context, settings) as means:
            teacher = encoders.given(means).text_named(student.teacher)
            told = telling(context, "texts", parts=PARTS_TOLD)
            taught = teach(_clips(storage.lake, name), student.target, teacher, progress=told)
        with storage.lake.replace(TEACHER, name) as new:
            new.write_table("texts.parquet", taught.texts, TEXTS)
            new.write_table("rejections.parquet", taught.rejections, UNTAUGHT)
            new.write_array("vectors.npy", taught.vectors)
            new.write_json("teacher.json", {"name": teacher.name, "version": teacher.version, "target": student.target})
        figures = {
            "dagster/row_count": taught.texts.height,
            "teacher": teacher.name,
            "teacher_version": teacher.version,
            "dimension": teacher.dimension,
            "target": student.target,
            "texts_by_language": counted(dict(taught.texts.group_by("language").len().iter_rows())),
            "rejected": taught.rejections.height,
            "rejected_by_reason": counted(dict(taught.rejections.group_by("reason").len().iter_rows())),
        }
        return published(storage.lake, figures, TEACHER, name)

    return _teacher_embeddings


def student_encoder(settings: Settings) -> dg.AssetsDefinition:
    """The trained student."""

    @dg.asset(
        key=TRAINED,
        deps=[CLIPS, TEACHER],
        partitions_def=student_partitions(settings.students),
        group_name=GROUP,
        kinds={"pytorch"},
        owners=OWNERS,
        op_tags=step_tags(GPU, TRAINED, settings),
        retry_policy=pod_retries(settings),
        pool=GPU,
        code_version=_chosen(settings, "training"),
    )
    def _student_encoder(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """An encoder of speech that gives a teacher's vectors, and how it learned: loss and R@1 by update.

        Training goes on where a killed run left it, in `training/<student>` of the home; TensorBoard files are there.
        """
        from speech_mining.encoders.neural_student import NeuralStudent

        name = context.partition_key
        folder = storage.workshop / name
        with held_device(context, settings) as held:  # its batch is part of what is learned: it is not halved
            trained = _train(context, storage.lake, name, settings.students[name], folder)
        encoder = NeuralStudent.load(trained.weights, device="cpu")
        described = {"version": encoder.version, "dimension": encoder.dimension, "languages": sorted(encoder.languages)}
        with storage.lake.replace(TRAINED, name) as new:
            new.link(trained.weights, weights_file(name))
            new.write_frame("curves.parquet", trained.curves)
            new.write_json("training.json", {**described, "best_update": trained.best_update})
        figures = {**described, **_learned(name, trained), "device": held.told}
        return published(storage.lake, figures, TRAINED, name)

    return _student_encoder


def encoder_evaluation(settings: Settings) -> dg.AssetsDefinition:
    """The error rates of a student, beside those of the encoder in force."""

    @dg.asset(
        key=EVALUATION,
        deps=[CLIPS, TRAINED],
        partitions_def=student_partitions(settings.students),
        automation_condition=dg.AutomationCondition.eager(),
        group_name=GROUP,
        kinds={"pytorch", "parquet"},
        owners=OWNERS,
        op_tags=step_tags(GPU, EVALUATION, settings),
        pool=GPU,
        retry_policy=memory_retries(settings),
        code_version=_chosen(settings, "teacher", "against", "tolerance"),
    )
    def _encoder_evaluation(
        context: dg.AssetExecutionContext, storage: Storage, encoders: Encoders
    ) -> dg.MaterializeResult[None]:
        """Multimodal similarity search on what was held out: errors, R@1, R@5 and word error rates, with intervals.

        Audio against transcriptions, against translations, and against the same said in another language. The encoder
        that is current, and those named in `against`, are examined on the same clips.
        """
        with gpu_step(context, settings) as means:
            student = settings.students[context.partition_key]
            return _examined(context, storage.lake, student, encoders.given(means))

    return _encoder_evaluation


def encoder_checks(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """The check between a student and its promotion; none where the settings name no student."""
    return [no_worse_than_current(settings)] if settings.students else []


def no_worse_than_current(settings: Settings) -> dg.AssetChecksDefinition:
    """What a promotion waits for."""

    @dg.asset_check(
        asset=EVALUATION,
        name=NO_WORSE,
        op_tags=step_tags(CHECK, NO_WORSE, settings),
        retry_policy=pod_retries(settings),
        partitions_def=student_partitions(settings.students),
        blocking=True,
    )
    def _no_worse_than_current(context: dg.AssetCheckExecutionContext, storage: Storage) -> dg.AssetCheckResult:
        """In no search is the student's error above that of the encoder in force, by more than the tolerance."""
        from speech_mining.evaluation.comparison import COMPARED

        partition = storage.lake.partition(EVALUATION, context.partition_key)
        compared, verdict = partition.read_table("compared.parquet", COMPARED), partition.read_json("verdict.json")
        return dg.AssetCheckResult(
            passed=not verdict["worse"],
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"Worse in {verdict['worse']} of {compared.height} searches",
            metadata={"compared": rows(compared, limit=100), "version": verdict["version"]},
        )

    return _no_worse_than_current


class PromotionConfig(dg.Config):
    """What is promoted, where it is not the version that was trained last."""

    version: str = Field(default="", description="The previous version, to go back to it; empty: the one trained last.")
    even_if_worse: str = Field(default="", description="The reason why a worse version shall be current all the same.")


def current_encoder(settings: Settings) -> dg.AssetsDefinition:
    """The version that embeds."""

    @dg.asset(
        key=CURRENT,
        deps=[TRAINED, EVALUATION],
        partitions_def=student_partitions(settings.students),
        group_name=GROUP,
        kinds={"pytorch"},
        owners=OWNERS,
        op_tags=step_tags(CPU, CURRENT, settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version="1",
        metadata={"dagster/column_schema": column_schema(PROMOTIONS)},
    )
    def _current_encoder(
        context: dg.AssetExecutionContext, config: PromotionConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        """The student's version that embeds from now on, promoted by hand, with all promotions before it.

        A version that was not evaluated, or that is worse than the current one, is refused. Languages whose encoder is
        `student:<name>` are stale after a promotion: their embeddings name the version that made them.
        """
        name = context.partition_key
        promoted = _promoted(storage.lake, name, config)
        return published(storage.lake, _promotion_figures(storage.lake, name, promoted), CURRENT, name)

    return _current_encoder


# Clips


def _gathered(student: StudentSettings) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    from speech_mining.transcribed.gathering import Wish, gather

    wish = Wish(
        student.format,
        student.language,
        student.translation_language,
        student.dev_share,
        student.test_share,
        student.keep_leaks,
    )
    gathered = gather(student.data, wish)
    found = gathered.validation
    figures = {
        "dagster/row_count": gathered.clips.height,
        "formats": ", ".join(gathered.formats),
        "hours": round(float(gathered.clips["duration_s"].sum()) / 3600, 4),
        "hours_by_split_and_language": rows(found.hours, limit=200),
        "rejected": gathered.rejections.height,
        "rejected_by_reason": counted(dict(gathered.rejections.group_by("reason").len().iter_rows())),
        "rejected_examples": rows(gathered.rejections),
        "leaks": rows(found.leaks),
        "problems": listed(found.problems()),
        "sample": rows(gathered.clips, limit=10),
    }
    return gathered.clips, gathered.rejections, figures


def _clips(lake: Lake, name: str) -> pl.DataFrame:
    return lake.partition(CLIPS, name).read_table("clips.parquet", TRANSCRIBED)


# Training


def _train(
    context: dg.AssetExecutionContext, lake: Lake, name: str, student: StudentSettings, folder: Path
) -> "TrainedStudent":
    from speech_mining.training.configuration import StudentConfig
    from speech_mining.training.distillation import train_student
    from speech_mining.training.teacher import TEXTS, UNTAUGHT, Taught, examples_of
    from speech_mining.transcribed.clips import ClipReader

    clips, teacher = _clips(lake, name), lake.partition(TEACHER, name)
    taught = Taught(
        teacher.read_table("texts.parquet", TEXTS),
        teacher.read_array("vectors.npy"),
        teacher.read_table("rejections.parquet", UNTAUGHT),
    )
    target = teacher.read_json("teacher.json")["target"]
    train, dev = (
        examples_of(clips.filter(pl.col("split") == split), taught, target, ClipReader().read)
        for split in ("train", "dev")
    )
    return train_student(
        train,
        dev,
        StudentConfig.of_dict(student.training),
        folder,
        progress=telling(context, "updates", parts=PARTS_TOLD),
        tell=context.log.info,
    )


def _learned(name: str, trained: "TrainedStudent") -> dict[str, Any]:
    from speech_mining.quality.plots import as_markdown_image, plot_curves

    curves = trained.curves
    best = curves.filter(pl.col("update") == trained.best_update).drop_nulls("dev_recall_at_1")
    return {
        "updates": int(curves["update"].cast(pl.Int64).sort()[-1]),
        "best_update": trained.best_update,
        "dev_recall_at_1": round(float(best["dev_recall_at_1"][-1]), 4) if best.height else None,
        "resumed_from": trained.resumed_from,
        "curves": plot(as_markdown_image(plot_curves(curves, trained.best_update, name))),
        "validations": rows(curves.drop_nulls("dev_recall_at_1"), limit=200),
    }


# Evaluation


def _examined(
    context: dg.AssetExecutionContext, lake: Lake, student: StudentSettings, encoders: Encoders
) -> dg.MaterializeResult[None]:
    from speech_mining.evaluation.comparison import COMPARED, OUTCOMES, compare, mean_error

    name = context.partition_key
    trained = lake.partition(TRAINED, name)
    version, now = trained.read_json("training.json")["version"], current_version(lake, name)
    examined = {"trained": _of_file(trained.local_path(weights_file(name)), encoders)}
    if now not in (None, version):
        examined["current"] = _of_file(promoted_weights(lake, name), encoders)
    for other in student.against:
        examined[other] = _named(other, lake, encoders)
    tables, rejected = _outcomes(lake, name, student, encoders, examined)
    table = pl.concat(tables.values())
    errors = {which: mean_error(found) for which, found in tables.items()}
    compared = compare(tables["trained"], tables.get("current", tables["trained"]), student.tolerance)
    worse = compared.filter(pl.col("worse"))
    with lake.replace(EVALUATION, name) as new:
        new.write_table("outcomes.parquet", table, OUTCOMES)
        new.write_table("compared.parquet", compared, COMPARED)
        new.write_json("verdict.json", {"version": version, "against": now, "errors": errors, "worse": worse.height})
    figures = {
        "version": version,
        "current_version": now or "none yet",
        **{f"error_{which}": round(error, 4) for which, error in errors.items()},
        "outcomes": rows(table, limit=200),
        "left_out": counted(rejected),
    }
    return published(lake, figures, EVALUATION, name)


def _of_file(path: Path, encoders: Encoders) -> "Callable[[str], SpeechEncoder]":
    return lambda language: encoders.named(str(path), language)


def _named(chosen: str, lake: Lake, encoders: Encoders) -> "Callable[[str], SpeechEncoder]":
    return lambda language: encoders.named(chosen, language, lake)


def _outcomes(
    lake: Lake,
    name: str,
    student: StudentSettings,
    encoders: Encoders,
    examined: "Mapping[str, Callable[[str], SpeechEncoder]]",
) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """`OUTCOMES` by encoder, over the same test set, and what had no vector."""
    from speech_mining.evaluation.comparison import outcomes_table
    from speech_mining.evaluation.transcribed import examine, held_out
    from speech_mining.evaluation.trials import EvaluationConfig

    clips = _clips(lake, name)
    held = held_out(clips, "test")
    text = encoders.text_named(student.teacher)
    tables, left_out = {}, {"lacks_a_text": held.left_out} if held.left_out else {}
    for which, speech in examined.items():
        outcomes, rejected = examine(held, speech, text, EvaluationConfig())
        by = speech(clips["language"][0])
        tables[which] = outcomes_table(by.name if which not in ("trained", "current") else which, by.version, outcomes)
        left_out |= {f"{which}: {reason}": count for reason, count in rejected.items()}
    return tables, left_out


# Promotion


def _promoted(lake: Lake, name: str, config: PromotionConfig) -> pl.DataFrame:
    trained = lake.partition(TRAINED, name).read_json("training.json")["version"]
    wanted = config.version or trained
    if wanted != trained:  # it was current before: what it is worth is known
        return promote(lake, name, Promotion(wanted, _error_of(lake, name, wanted), config.even_if_worse))
    verdict = lake.partition(EVALUATION, name).read_json("verdict.json")
    now = current_version(lake, name)
    if verdict["version"] != trained or verdict["against"] not in (now, trained):
        raise EncoderError(
            f"Version {trained} of the student {name} was not held against the current one, {now or 'none'}.",
            expected="an evaluation of this version, made since the last promotion",
            fix=f"materialize encoder_evaluation, partition {name}",
        )
    if verdict["worse"] and not config.even_if_worse:
        raise EncoderError(
            f"Version {trained} of the student {name} is worse than the current one in {verdict['worse']} searches.",
            expected="no search in which its error is higher",
            cause="too few updates, or other data; see the check no_worse_than_current",
            fix="train it further, raise `tolerance`, or give a reason in even_if_worse",
        )
    return promote(lake, name, Promotion(trained, verdict["errors"]["trained"], config.even_if_worse))


def _error_of(lake: Lake, name: str, version: str) -> float:
    from speech_mining.encoders.promoted import promotions

    known = promotions(lake, name).filter(pl.col("version") == version)
    return float(known["error"][-1]) if known.height else float("nan")


def _promotion_figures(lake: Lake, name: str, promoted: pl.DataFrame) -> dict[str, Any]:
    last = promoted.row(-1, named=True)
    return {
        "version": last["version"],
        "previous": last["previous"] or "none",
        "error": round(last["error"], 4),
        "reason": last["reason"] or "its evaluation",
        "promotions": rows(promoted, limit=100),
        "file": str(lake.partition(CURRENT, name).path(TABLE).parent),
    }


def _chosen(settings: Settings, *names: str) -> str:
    """Changes with any of these settings of any student."""
    chosen = {name: student.model_dump(mode="json", include=set(names)) for name, student in settings.students.items()}
    return "1/" + _digest(chosen)


def _digest(content: object) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
