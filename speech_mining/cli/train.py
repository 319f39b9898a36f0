"""`s2s train`: train a student encoder by a recipe, or on transcribed speech by a teacher, and tell what it can do.

What belongs here is the command's arguments, its bars and its tables. Recipes come from
`speech_mining.training.recipes`; teaching a neural student is `speech_mining.training.distillation`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import polars as pl

    from speech_mining.errors import SettingsError
    from speech_mining.progress import Progress
    from speech_mining.training.distillation import TrainedStudent
    from speech_mining.training.examples import Examples
    from speech_mining.training.recipes import Figure, Stages
    from speech_mining.training.teacher import Target as TargetName

_SPLIT_SEED = 0


class Target(str, Enum):
    """Names as in `speech_mining.training.teacher.Target`."""

    transcription = "transcription"
    translation = "translation"
    both = "both"


_TARGETS: Mapping[Target, TargetName] = {
    Target.transcription: "transcription",
    Target.translation: "translation",
    Target.both: "both",
}


def train(
    recipe: Annotated[str, typer.Option("--recipe", help="What to train on; `demo` is the miniature world.")] = "demo",
    config: Annotated[
        Path | None,
        typer.Option("--config", help="How to train a neural student, .json or .toml; in place of a recipe."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="With --config: a folder of transcribed speech, in any format known here."),
    ] = None,
    teacher: Annotated[
        str, typer.Option("--teacher", help="With --config: a text encoder, as `s2s evaluate --text-encoder` names it.")
    ] = "sonar",
    target: Annotated[Target, typer.Option("--target", help="With --config: which text of a clip is taught.")] = (
        Target.transcription
    ),
    language: Annotated[
        str, typer.Option("--language", help="With --data: of the speech, where the set does not say it.")
    ] = "",
    translation_language: Annotated[
        str, typer.Option("--translation-language", help="With --data: likewise, of the translations.")
    ] = "",
    dev_share: Annotated[
        float,
        typer.Option(
            "--dev-share", min=0.0, max=0.9, help="With --data: speakers set apart, where the set has no dev."
        ),
    ] = 0.05,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="With --config: scratch, gone on from; without it, beside --out as *.training."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the weights here; without it, over the shipped ones.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of a recipe's every random choice.")] = 0,
    sentences: Annotated[
        int | None,
        typer.Option(
            "--sentences",
            help="Training sentences a language; with --evaluate-only, sentences of the examination.",
            min=1,
            show_default="the recipe's own",
        ),
    ] = None,
    evaluate_only: Annotated[
        bool, typer.Option("--evaluate-only", help="Train nothing: examine the weights in --out, or the shipped ones.")
    ] = False,
) -> None:
    """Train a student encoder and examine it on sentences it has never heard.

    By a recipe: the same seed gives the same weights, byte for byte, on the same kind of processor with the same
    versions of torch, numpy and the synthesiser; elsewhere the last digits differ, and the figures by about a
    thousandth.

    By a teacher (--config, --data, --out): a killed or interrupted training goes on when the same command is given
    again. Several GPUs or processes: `torchrun --nproc_per_node 2 .venv/bin/s2s train ...`.

    [bold]Examples[/]

      s2s train --recipe demo --out miniature.safetensors

      s2s train --recipe demo --out quick.safetensors --sentences 400

      s2s train --recipe demo --evaluate-only

      s2s train --config xls-r.toml --data cv-corpus/is --teacher hf:LaBSE --out isl.safetensors
    """
    if config is not None or data is not None:
        if config is None or data is None or out is None:
            raise _in_part()
        given = _Given(data, teacher, _TARGETS[target], language, translation_language, dev_share)
        _train_by_a_teacher(config, given, out, resume or out.with_suffix(".training"))
        return
    from speech_mining.encoders.student import SHIPPED
    from speech_mining.training.recipes import find_recipe

    chosen = find_recipe(recipe)
    started = time.monotonic()
    with _bars() as stages:
        if not evaluate_only:
            chosen.train(out or SHIPPED, seed=seed, sentences=sentences, stages=stages)
        figures = chosen.examine(out, sentences=sentences if evaluate_only else None, stages=stages)
    _show(figures, time.monotonic() - started)


@contextmanager
def _bars() -> Iterator[Stages]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), disable=not _first_process()) as bars:

        def stage(name: str) -> Progress:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield stage


def _show(figures: list[Figure], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "", "", show_header=False)
    for figure in figures:
        table.add_row(figure.what, figure.which, f"{figure.value:.4f}")
    console = Console()
    console.print(table)
    console.print(f"{seconds / 60:.1f} minutes")


# By a teacher


@dataclass(frozen=True)
class _Given:
    """What a student is taught from."""

    data: Path
    teacher: str
    target: TargetName
    language: str
    translation_language: str
    dev_share: float


def _train_by_a_teacher(config: Path, given: _Given, out: Path, folder: Path) -> None:
    from speech_mining.training.configuration import StudentConfig
    from speech_mining.training.distillation import train_student

    chosen = StudentConfig.of_dict(_read_config(config))
    started = time.monotonic()
    with _bars() as stages:
        train_set, dev_set = _examples(given, stages)
        with _until_interrupted(stages("updates"), folder) as progress:
            student = train_student(train_set, dev_set, chosen, folder, progress=progress, tell=_tell)
    if _first_process():
        _copy(student.weights, out)
        _show_student(student, out, time.monotonic() - started)


def _in_part() -> SettingsError:
    from speech_mining.errors import SettingsError

    return SettingsError(
        "Training by a teacher was given only in part.",
        expected="--config, --data and --out",
        fix="s2s train --config FILE.toml --data FOLDER --teacher sonar --out FILE.safetensors",
    )


def _read_config(path: Path) -> dict[str, Any]:
    from speech_mining.errors import SettingsError

    try:
        content = path.read_text("utf-8")
        told = json.loads(content) if path.suffix == ".json" else _toml(content)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The configuration {path} cannot be read: {error}.",
            expected="a .json or .toml file of training settings",
            fix="see docs/training.md for every name",
        ) from error
    if not isinstance(told, dict):
        raise SettingsError(f"The configuration {path} is no table.", expected="names and values")
    return told


def _toml(content: str) -> dict[str, Any]:
    from importlib import import_module

    reader: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    told: dict[str, Any] = reader.loads(content)
    return told


def _examples(given: _Given, stages: Stages) -> tuple[Examples, Examples]:
    """What is taught and what is examined; what either loses on the way is told."""
    import polars as pl

    from speech_mining.encoders.choice import text_encoder
    from speech_mining.training.teacher import examples_of, teach
    from speech_mining.transcribed.clips import ClipReader

    clips = _clips(given, stages)
    taught = teach(clips, given.target, text_encoder(given.teacher), progress=stages("texts"))
    if taught.rejections.height:
        _tell(f"The teacher has no vector for {taught.rejections.height} texts.")
    reader = ClipReader()
    both = [clips.filter(pl.col("split") == split) for split in ("train", "dev")]
    made = [examples_of(of_split, taught, given.target, reader.read) for of_split in both]
    for of_split, examples in zip(both, made, strict=True):
        if lost := of_split.height - examples.clips.height:
            _tell(f"{lost} clips have no text to learn from.")
    return made[0], made[1]


def _clips(given: _Given, stages: Stages) -> pl.DataFrame:
    """The set's clips, none in train that dev or test hold too; a set without dev is dealt anew."""
    from dataclasses import replace

    from speech_mining.transcribed.sets import read_transcribed
    from speech_mining.transcribed.splits import split_by_hash
    from speech_mining.transcribed.validation import without_leaks

    found = read_transcribed(
        given.data,
        language=given.language,
        translation_language=given.translation_language,
        progress=stages("clips"),
    )
    if "dev" not in found.clips["split"].unique().to_list():
        _tell(f"The set has no dev split: {given.dev_share:.0%} of its speakers are set apart.")
        dealt = split_by_hash(found.clips, dev_share=given.dev_share, test_share=0.0, seed=_SPLIT_SEED)
        found = replace(found, clips=dealt)
    clean = without_leaks(found)
    for reason, count in sorted(clean.rejected.items()):
        _tell(f"{count} clips are left out: {reason}.")
    return clean.clips


@contextmanager
def _until_interrupted(bar: Progress, folder: Path) -> Iterator[Progress]:
    """Ctrl-C ends the training after the update in hand, with a checkpoint; a second one at once."""
    from rich.console import Console

    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    def progress(done: int, total: int, /) -> None:
        bar(done, total)
        if asked and done < total:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield progress
    except KeyboardInterrupt:
        if _first_process():
            told = f"Stopped. {folder} holds what is trained so far: the same command goes on from its checkpoint."
            Console(stderr=True).print(told, highlight=False)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGINT, before)


def _first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _tell(line: str) -> None:
    from rich.console import Console

    if _first_process():
        Console(stderr=True).print(line, highlight=False)


def _copy(weights: Path, out: Path) -> None:
    from speech_mining.atomic import replacing

    with replacing(out) as part:
        part.write_bytes(weights.read_bytes())


def _show_student(student: TrainedStudent, out: Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    validated = student.curves.drop_nulls("dev_recall_at_1")
    best = validated.row(by_predicate=_is_update(student.best_update), named=True)
    first = validated.row(0, named=True)
    rows = {
        "R@1 on dev": f"{best['dev_recall_at_1']:.4f} at update {student.best_update}; "
        f"{first['dev_recall_at_1']:.4f} at update {first['update']}",
        "loss on dev": f"{best['dev_loss']:.4f}; {first['dev_loss']:.4f}",
        "heard": f"{validated['examples'][-1]} clips, {validated['seconds_of_audio'][-1] / 3600:.2f} hours",
        "left out": ", ".join(f"{count} {reason}" for reason, count in student.left_out.items()) or "nothing",
        "updates skipped": str(student.skipped_updates),
        "weights": str(out),
    }
    table = Table("", "", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console()
    console.print(table)
    console.print(f"{seconds / 60:.1f} minutes")


def _is_update(update: int) -> Any:
    import polars as pl

    return pl.col("update") == update
