"""`s2s segment`: cut recordings into candidate segments, to look at or to write.

What belongs here is the command's arguments, its bar and its tables; the work is `speech_mining.segmentation`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl
    from rich.console import Console
    from rich.progress import Progress

    from speech_mining.errors import AudioError
    from speech_mining.segmentation.segmenter import SegmentationConfig, SegmentationReport, SegmentedRecording

_SUFFIXES = frozenset(
    ".mp3 .mp2 .wav .w64 .flac .ogg .oga .opus .m4a .m4b .mp4 .aac .webm .mka .wma .aif .aiff .caf .amr .wv".split()
)
_SHOWN_ROWS = 10
_MOST_DRAWN = 20


def segment(
    audio: Annotated[
        list[Path],
        typer.Argument(metavar="AUDIO...", help="Audio files, or folders to search for them.", show_default=False),
    ],
    min_s: Annotated[float, typer.Option("--min-s", help="Shortest segment in seconds.")] = 3.0,
    max_s: Annotated[float, typer.Option("--max-s", help="Longest segment in seconds.")] = 20.0,
    max_gap_ms: Annotated[
        int | None,
        typer.Option("--max-gap-ms", help="Longest silence inside a segment, in ms.", show_default="no limit"),
    ] = None,
    max_per_hour: Annotated[
        int | None,
        typer.Option(
            "--max-per-hour", help="Most segments an hour, those between the longest silences.", show_default="no limit"
        ),
    ] = None,
    max_ends: Annotated[
        int | None,
        typer.Option("--max-ends", help="Most segments that begin at one place.", show_default="no limit"),
    ] = None,
    min_silence_ms: Annotated[
        int, typer.Option("--min-silence-ms", help="Shortest pause that counts as a silence, in ms.")
    ] = 100,
    detector: Annotated[
        str, typer.Option("--detector", help="Who hears speech: 'silero' (a model) or 'energy' (loudness, quicker).")
    ] = "silero",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write every segment to FILE.tsv or FILE.parquet.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw waveform, speech runs and cut points to FILE.png.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as one line of JSON instead of tables.")
    ] = False,
) -> None:
    """Cut recordings into candidate segments: every span between two silences, 3 to 20 s long.

    Segments overlap on purpose: which of them have a translation is decided by mining. Without --out the figures and
    the first segments are shown; with it all are written, one row a segment, start_ms and end_ms among the columns.

    [bold]Examples[/]

      s2s segment chapter01.mp3

      s2s segment chapter01.mp3 --out chapter01.parquet

      s2s segment audiobook/ --min-s 2 --max-s 12 --max-gap-ms 1000 --out segments.tsv

      s2s segment audiobook/ --max-per-hour 2000 --detector energy --json

      s2s segment chapter01.mp3 --plot chapter01.png
    """
    from speech_mining.segmentation.segmenter import SegmentationConfig
    from speech_mining.segmentation.voice_activity import VoiceActivity

    activity = VoiceActivity(min_silence_ms=min_silence_ms, detector=detector)  # type: ignore[arg-type]  # it checks
    config = SegmentationConfig(
        min_s, max_s, max_gap_ms, max_per_hour=max_per_hour, max_ends=max_ends, voice_activity=activity
    )
    paths = _recordings(audio) if plot else []
    _check_out(out)
    _check_plot(plot, len(paths))
    found, failed = _segment_all(paths or _recordings(audio), config)
    if out:
        _write(_joined(found), out)
    if plot:
        _draw(found, plot)
    if as_json:
        typer.echo(json.dumps(_figures(found, failed, out)))
    else:
        _show(found, out, plot)


def _check_out(out: Path | None) -> None:
    from speech_mining.errors import SpeechMiningError

    if out is None:
        return
    if out.suffix not in (".tsv", ".parquet"):
        raise SpeechMiningError(
            f"--out {out} ends in {out.suffix or 'no suffix'!r}.",
            expected="a name that ends in .tsv or .parquet",
            fix="the suffix chooses the format; rename it",
        )
    if out.is_dir():
        raise SpeechMiningError(f"--out {out} is a folder.", expected="a file", fix="name a file inside it")


def _check_plot(plot: Path | None, recordings: int) -> None:
    from speech_mining.errors import SpeechMiningError

    if plot is None:
        return
    if plot.suffix != ".png" or plot.is_dir():
        raise SpeechMiningError(f"--plot {plot} is no name of a picture.", expected="a file that ends in .png")
    if recordings > _MOST_DRAWN:
        raise SpeechMiningError(
            f"--plot would draw {recordings} recordings.",
            expected=f"at most {_MOST_DRAWN}, one below the other",
            fix="name the recordings that you want to see",
        )


def _recordings(audio: list[Path]) -> list[Path]:
    """The files named, and those inside the folders named, each with a stem of its own."""
    from speech_mining.errors import SpeechMiningError

    paths: list[Path] = []
    for path in audio:
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES) if path.is_dir() else []
        if path.is_dir() and not inside:
            raise SpeechMiningError(
                f"The folder {path} holds no audio file.", expected=f"files ending in {', '.join(sorted(_SUFFIXES))}"
            )
        paths.extend(inside or [path])
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise SpeechMiningError(
                f"{by_stem[path.stem]} and {path} are both called {path.stem}.",
                expected="names that differ, since a segment's id is made of its recording's name",
                fix="rename one, or segment them one by one",
            )
        by_stem[path.stem] = path
    return paths


def _segment_all(
    paths: list[Path], config: SegmentationConfig
) -> tuple[dict[Path, SegmentedRecording], dict[Path, AudioError]]:
    """Segment each file; one bad file among several is told on stderr and left out, a single one is an error."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from speech_mining.errors import AudioError
    from speech_mining.segmentation.segmenter import segment_recording

    found: dict[Path, SegmentedRecording] = {}
    failed: dict[Path, AudioError] = {}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        for path in paths:
            advance = _bar(bars, escape(path.name))
            try:
                found[path] = segment_recording(path, audiobook=path.stem, section=1, config=config, progress=advance)
            except AudioError as error:
                failed[path] = error
    if not found:
        raise next(iter(failed.values()))
    for reason in failed.values():
        console.print(f"[yellow]left out:[/] {escape(str(reason))}", highlight=False, soft_wrap=True)
    return found, failed


def _bar(bars: Progress, name: str) -> Callable[[int, int], None]:
    task = bars.add_task(name, total=None)

    def advance(done: int, total: int) -> None:
        bars.update(task, completed=done, total=total)

    return advance


def _joined(found: dict[Path, SegmentedRecording]) -> pl.DataFrame:
    import polars as pl

    return pl.concat([recording.segments for recording in found.values()])


def _write(segments: pl.DataFrame, out: Path) -> None:
    from speech_mining.atomic import replacing

    with replacing(out) as part:
        if out.suffix == ".parquet":
            segments.write_parquet(part)
        else:
            segments.write_csv(part, separator="\t", float_precision=4)


def _draw(found: dict[Path, SegmentedRecording], plot: Path) -> None:
    from speech_mining.atomic import replacing
    from speech_mining.quality.plots import plot_recordings

    with replacing(plot) as part:
        part.write_bytes(plot_recordings({path.name: recording for path, recording in found.items()}))


def _figures(
    found: dict[Path, SegmentedRecording], failed: dict[Path, AudioError], out: Path | None
) -> dict[str, object]:
    return {
        "recordings": [{"file": str(path), **recording.report.as_dict()} for path, recording in found.items()],
        "left_out": [
            {"file": str(path), "reason": error.reason, "detail": str(error)} for path, error in failed.items()
        ],
        "candidates": sum(recording.report.candidates for recording in found.values()),
        "out": str(out) if out else None,
    }


def _show(found: dict[Path, SegmentedRecording], out: Path | None, plot: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    _show_figures({path.name: recording.report for path, recording in found.items()}, console)
    for recording in found.values():
        for row in recording.rejections.iter_rows(named=True):
            console.print(f"[yellow]{escape(row['audiobook'])}:[/] {row['reason']}, {row['detail']}", highlight=False)
    for path, recording in found.items():
        if recording.report.profile != "speech":
            sounds = recording.report.profile.replace("_", " ")
            console.print(f"[yellow]{escape(path.name)}:[/] sounds like {sounds}", highlight=False)
    segments = _joined(found)
    if plot:
        console.print(f"drawn to {escape(str(plot))}", highlight=False, soft_wrap=True)
    if out:
        console.print(f"{len(segments)} segments written to {escape(str(out))}", highlight=False, soft_wrap=True)
    elif len(segments):
        _show_rows(segments, console)


def _show_figures(reports: dict[str, SegmentationReport], console: Console) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("file", overflow="fold", min_width=14)
    for heading in ("length", "speech", "runs", "split", "segments", "coverage", "lost"):
        table.add_column(heading, justify="right")
    for name, report in reports.items():
        table.add_row(
            escape(name),
            f"{report.duration_s:.1f} s",
            f"{report.speech_s / report.duration_s:.0%}",
            str(report.runs),
            str(report.resplit_runs),
            str(report.candidates),
            f"{report.coverage:.1%}",
            f"{report.decoding.lost_s:.1f} s",
        )
    console.print(table)


def _show_rows(segments: pl.DataFrame, console: Console) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"The first {min(_SHOWN_ROWS, len(segments))} of {len(segments)} segments (--out writes all)",
    )
    for heading in ("recording", "start_ms", "end_ms", "runs", "level_dbfs", "coverage"):
        table.add_column(heading, justify="left" if heading == "recording" else "right")
    for row in segments.head(_SHOWN_ROWS).iter_rows(named=True):
        table.add_row(
            escape(row["audiobook"]),
            str(row["start_ms"]),
            str(row["end_ms"]),
            f"{row['first_run']}–{row['last_run']}",
            f"{row['level_dbfs']:.1f}",
            f"{row['coverage']:.0%}",
        )
    console.print(table)
