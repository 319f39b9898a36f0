"""`s2s evaluate`: error rates of a speech encoder on recordings and their translations.

What belongs here is the command's arguments, the choice of encoders by name, and its tables; the figures are
`speech_mining.evaluation`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from speech_mining.encoders.protocol import SpeechEncoder, TextEncoder
    from speech_mining.evaluation.intervals import Estimate
    from speech_mining.evaluation.test_set import EmbeddedTestSet, SpeechEncoders, TestSet
    from speech_mining.evaluation.trials import EvaluationConfig, Outcome

_FIGURES = ("error", "hard_error", "recall_1", "recall_5", "word_error_rate")
_HEADINGS = ("error", "hard error", "R@1", "R@5", "WER")


class Score(str, Enum):
    """Names as in `speech_mining.evaluation.search.SCORES`."""

    ratio = "ratio"
    distance = "distance"
    cosine = "cosine"


def evaluate(
    audio: Annotated[
        Path,
        typer.Option("--audio", help="TSV of recordings: path; start, end (s), language, text if there are."),
    ],
    text: Annotated[
        Path, typer.Option("--text", help="Their translations, row by row: one a line, or .tsv (text, language).")
    ],
    encoder: Annotated[
        str, typer.Option("--encoder", help="'miniature', 'sonar', 'sonar:CARD', a student's file, or module:Class.")
    ] = "miniature",
    text_encoder: Annotated[
        str,
        typer.Option(
            "--text-encoder",
            help="'sonar', 'sonar:CARD', 'laser', 'laser:CARD', 'hf:NAME', 'hf:FOLDER', 'miniature', or module:Class.",
        ),
    ] = "sonar",
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", envvar="S2S_MODEL_DIR", help="Of cards of one's own.", show_default=False),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", envvar="S2S_DEVICE", help="'auto', 'cpu', 'cuda', 'cuda:1'.")
    ] = "auto",
    language: Annotated[
        str, typer.Option("--language", help="Of recordings that name none, ISO 639-3.", show_default=False)
    ] = "",
    text_language: Annotated[
        str, typer.Option("--text-language", help="Of texts that name none, ISO 639-3.", show_default=False)
    ] = "",
    target_audio: Annotated[
        Path | None,
        typer.Option("--target-audio", help="TSV of the translations as speech, row by row.", show_default=False),
    ] = None,
    distractors: Annotated[
        Path | None,
        typer.Option("--distractors", help="More texts to search among, as --text.", show_default=False),
    ] = None,
    hard_negatives: Annotated[
        int, typer.Option("--hard-negatives", min=0, help="Altered texts of each kind for each text; 0 for none.")
    ] = 1,
    margin: Annotated[Score, typer.Option("--margin", help="What error rates score candidates by.")] = Score.ratio,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours that a margin averages over.")] = 4,
    resamples: Annotated[int, typer.Option("--resamples", min=1, help="Of the 95 % intervals.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of intervals and altered texts.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the figures to FILE.json or FILE.tsv.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of a table.")] = False,
) -> None:
    """Search audio against transcriptions and translations, and tell the error rates by language.

    Row i of --audio, --text and --target-audio say the same. Error: the right candidate does not score highest by the
    margin; hard error: with altered texts among the candidates. R@1, R@5 and WER: by cosine, with --distractors among
    the candidates. "transcriptions against translations" is what the text encoder alone reaches, the topline.

    [bold]Examples[/]

      s2s evaluate --audio deu.tsv --text eng.txt --text-language eng --encoder sonar

      s2s evaluate --audio deu.tsv --text eng.tsv --encoder sonar:our_german --text-encoder hf:LaBSE

      s2s evaluate --audio deu.tsv --text eng.tsv --encoder mine.safetensors --margin cosine --out deu-eng.json

      s2s evaluate --audio deu.tsv --text eng.tsv --text-encoder miniature
    """
    from speech_mining.encoders import choice
    from speech_mining.evaluation.intervals import Bootstrap
    from speech_mining.evaluation.trials import EvaluationConfig
    from speech_mining.evaluation.trials import evaluate as evaluated

    _check_out(out)
    test_set = _read(audio, text, target_audio, distractors, (language, text_language))
    config = EvaluationConfig(margin.value, k, Bootstrap(seed, resamples))
    spoken = sorted({clip.language for clip in (*test_set.clips, *(test_set.target_clips or ()))})
    speech = _speech_encoders(encoder, spoken, model_dir, device)
    texts = choice.text_encoder(text_encoder, model_dir=model_dir, device=device)
    _refuse_two_spaces(speech, spoken, texts)
    embedded = _embed(test_set, speech, texts, hard_negatives, seed)
    outcomes = evaluated(embedded.columns, embedded.distractors, config)
    told = _told(outcomes, embedded, config, {clip.language: speech(clip.language) for clip in test_set.clips}, texts)
    if out:
        _write(told, out)
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        _show(outcomes, embedded, out)


def _read(
    audio: Path, text: Path, target_audio: Path | None, distractors: Path | None, languages: tuple[str, str]
) -> TestSet:
    from speech_mining.evaluation.test_set import TestSet, read_manifest, read_sentences

    language, text_language = languages
    return TestSet(
        read_manifest(audio, language),
        read_sentences(text, text_language),
        read_manifest(target_audio, text_language) if target_audio else None,
        read_sentences(distractors, text_language) if distractors else (),
    )


def _embed(
    test_set: TestSet, speech: SpeechEncoders, texts: TextEncoder, hard_negatives: int, seed: int
) -> EmbeddedTestSet:
    from rich.console import Console
    from rich.progress import Progress

    from speech_mining.evaluation.test_set import embed_test_set

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("Embedding recordings", total=None)

        def advance(done: int, total: int, /) -> None:
            bars.update(task, completed=done, total=total)

        return embed_test_set(test_set, speech, texts, negatives_each=hard_negatives, seed=seed, progress=advance)


# Encoders by name


def _speech_encoders(name: str, languages: Iterable[str], model_dir: Path | None, device: str) -> SpeechEncoders:
    """Encoders by language; a name that means none is an error now, weights are loaded at the first recording."""
    from speech_mining.encoders.choice import speech_encoder

    made = {language: speech_encoder(name, language, model_dir=model_dir, device=device) for language in languages}
    return made.__getitem__


def _refuse_two_spaces(speech: SpeechEncoders, languages: Iterable[str], texts: TextEncoder) -> None:
    """Vectors of two lengths cannot be of one space: told before anything is embedded."""
    from speech_mining.errors import EncoderError

    for language in languages:
        if (spoken := speech(language)).dimension != texts.dimension:
            raise EncoderError(
                f"{spoken.name} gives vectors of {spoken.dimension} values, and {texts.name} of {texts.dimension}.",
                expected="encoders of one space",
                cause="the speech encoder was trained with another text encoder as its teacher",
                fix="give the speech encoder's own teacher in --text-encoder",
            )


# What is told


def _told(
    outcomes: list[Outcome],
    embedded: EmbeddedTestSet,
    config: EvaluationConfig,
    encoders: dict[str, SpeechEncoder],
    texts: TextEncoder,
) -> dict[str, Any]:
    return {
        "encoders": {one: {"name": by.name, "version": by.version} for one, by in sorted(encoders.items())},
        "text_encoder": {"name": texts.name, "version": texts.version},
        "margin": config.margin,
        "k": config.k,
        "bootstrap": asdict(config.bootstrap),
        "rows": embedded.rows,
        "rows_searched": len(next(iter(embedded.columns.values())).languages),
        "rejected": dict(embedded.rejected),
        "results": [_finite(asdict(outcome)) for outcome in outcomes],
    }


def _finite(told: dict[str, Any]) -> dict[str, Any]:
    """Null where a figure is undefined: JSON has no NaN."""
    return {
        name: None if isinstance(told[name], dict) and math.isnan(told[name]["value"]) else told[name] for name in told
    }


def _check_out(out: Path | None) -> None:
    from speech_mining.errors import SettingsError

    if out is not None and (out.suffix not in (".json", ".tsv") or out.is_dir()):
        raise SettingsError(f"The figures would go to {out}.", expected="a name that ends in .json or .tsv")


def _write(told: dict[str, Any], out: Path) -> None:
    from speech_mining.atomic import replacing

    content = json.dumps(told, indent=1, ensure_ascii=False) + "\n" if out.suffix == ".json" else _tsv(told["results"])
    with replacing(out) as part:
        part.write_text(content, encoding="utf-8")


def _tsv(results: list[dict[str, Any]]) -> str:
    plain = [name for name in results[0] if name not in _FIGURES]
    names = plain + [f"{name}{end}" for name in _FIGURES for end in ("", "_low", "_high")]
    lines = ["\t".join(names)]
    for result in results:
        cells = [str(result[name]) for name in plain]
        for name in _FIGURES:
            figure = result[name] or {}
            cells += [repr(figure[part]) if figure else "" for part in ("value", "low", "high")]
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


def _show(outcomes: list[Outcome], embedded: EmbeddedTestSet, out: Path | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for task in dict.fromkeys(one.task for one in outcomes):
        table = Table(box=box.SIMPLE_HEAD, title=f"{task}, in percent with 95 % intervals")
        for heading in ("from", "to", "queries", "among", *_HEADINGS):
            table.add_column(heading, justify="left" if heading in ("from", "to") else "right")
        for one in outcomes:
            if one.task == task:
                table.add_row(*_cells(one))
        console.print(table)
    for reason, count in embedded.rejected.items():
        console.print(f"[yellow]left out:[/] {count} {escape(reason)}", highlight=False)
    if out:
        console.print(f"figures written to {escape(str(out))}", highlight=False, soft_wrap=True)


def _cells(one: Outcome) -> list[str]:
    among = f"{one.candidates} + {one.distractors}" if one.distractors else str(one.candidates)
    figures = [_percent(getattr(one, name)) for name in _FIGURES]
    return [one.source, one.target, str(one.queries), among, *figures]


def _percent(figure: Estimate | None) -> str:
    if figure is None or math.isnan(figure.value):
        return "–"
    return f"{100 * figure.value:.2f}\n{100 * figure.low:.1f}–{100 * figure.high:.1f}"
