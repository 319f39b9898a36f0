"""Does a model trained on mined data get better? Base, base and mined, base and true pairs, base and random pairs.

German speech of the miniature world is translated into English text by a small transformer that starts at random. It
hears frozen frames of the shipped encoder, the same that mines: from log-mel it would need hours. A synthesiser tells
sentences (none is in the library; the encoder's training may have heard some, the same for every condition): audiobooks
to mine, a small base set and a test set of clips. The audiobooks and the text, among it as many sentences that nobody
tells, go through the project's own assets, from raw_audio over the shipped encoder to s2t_pairs; then s2t_benchmark is
materialized, as a user would from the UI. Every training has the same updates and seeds.

Required: of what the true pairs gain over the base, the mined pairs gain at least 80 %, and random pairs nothing.
With `--speech` the proxies of speech with speech, in the same way (s2s_benchmark).

A run that was killed goes on where it was when `--home` names the same folder. `--quick` is the two-minute version: it
proves the path, not the figures.

    python -m benchmarks.downstream [--quick] [--home DIR] [--seeds 3] [--updates 400] [--speech]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from benchmarks.students import narrate
from demo.pipeline import first_stages, further_stages, release_killed_runs, run_stage
from demo.recipe import at_16_khz, examination_texts, lay_out, library_texts, record, say, unseen_sentences
from demo.world.grammar import Sentence, realise
from demo.world.lexicon import Language
from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.benchmark.machine import describe_machine
from speech_mining.downstream.tables import COMPARED
from speech_mining.lake import Lake
from speech_mining.records import SAMPLE_RATE_HZ

MOST_WORDS = 9
"""Short sentences: the longer they are the more updates a small model needs."""
SENTENCES_A_RECORDING = 40
REQUIRED = 0.8
PAIR = "deu-eng"


@dataclass(frozen=True)
class Scale:
    """How much is told, and how long is trained.

    Args:
        told: sentences of the audiobooks.
        base: clips of the base set.
        base_hours: of them, at most.
        test: clips of the test set.
        updates: of every training.
        seeds: of every condition.
        thresholds: of the mined pairs, beside the corpus' own.
    """

    told: int = 2500
    base: int = 400
    base_hours: float | None = 0.15
    test: int = 300
    updates: int = 400
    seeds: int = 3
    thresholds: tuple[float, ...] = (1.05,)


QUICK = Scale(told=160, base=60, test=30, updates=30, seeds=1, thresholds=())


# Speech


def sentences(count: int) -> list[Sentence]:
    """Short sentences that the library does not tell and no examination asks for."""
    drawn = unseen_sentences("downstream", 3 * count + 200, {*library_texts(), *examination_texts()})
    return [one for one in drawn if len(realise(one, "eng").split()) <= MOST_WORDS][:count]


def write_audiobooks(folder: Path, told: Sequence[Sentence], language: Language) -> pl.DataFrame:
    """Record sentences, 40 to a recording with pauses; returns who says what where."""
    rows: list[dict[str, Any]] = []
    chance = random.Random(f"audiobooks-{language}")
    for section, first in enumerate(range(0, len(told), SENTENCES_A_RECORDING), start=1):
        part = told[first : first + SENTENCES_A_RECORDING]
        samples, placed = lay_out([say(realise(one, language), language) for one in part], chance)
        _write_flac(
            folder / language / "tales" / f"{section:03d}.flac", record(samples, chance, chance.choice((None, 40)))
        )
        for sentence, one in zip(part, placed, strict=True):
            ends = {"start_ms": at_16_khz(one.start) // 16, "end_ms": at_16_khz(one.end) // 16}
            rows.append({"audiobook": "tales", "section": section, **ends, "sentence": realise(sentence, "eng")})
    return pl.DataFrame(rows, schema_overrides={"section": pl.Int32()})


def write_clips(folder: Path, parts: dict[str, Sequence[Sentence]], language: Language, other: Language) -> None:
    """A set of clips with their translations, a split each."""
    lines = ["path\ttext\ttranslation\tlanguage\ttranslation_language\tsplit"]
    for split, told in parts.items():
        for number, (clip, sentence) in enumerate(zip(narrate(told, language, split), told, strict=True)):
            name = f"{split}-{number:05d}.flac"
            _write_flac(folder / name, clip.samples.astype(np.float32) / np.float32(32768))
            lines.append("\t".join([name, clip.text, realise(sentence, other), language, other, split]))
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n", "utf-8")


def _write_flac(path: Path, waveform: np.ndarray[Any, Any]) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(waveform, -1, 1), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")


def make_speech(home: Path, scale: Scale, *, speech: bool) -> None:
    """Narrate everything, unless it is there: about 35 sentences a second of one core."""
    if (home / "speech" / "done").is_file():
        return
    drawn = sentences(2 * scale.told + scale.base + scale.test)
    test, drawn = drawn[: scale.test], drawn[scale.test :]
    base, drawn = drawn[: scale.base], drawn[scale.base :]
    told, untold = drawn[: scale.told], drawn[scale.told :]
    folder = home / "speech"
    truths = {"deu": write_audiobooks(folder / "books", told, "deu")}
    write_clips(folder / "deu", {"train": base, "test": test}, "deu", "eng")
    if speech:
        truths["eng"] = write_audiobooks(folder / "books", random.Random(1).sample(told, len(told)), "eng")
        write_clips(folder / "eng", {"train": base, "test": test}, "eng", "deu")
    _write_truth(folder, truths)
    lines = [realise(one, "eng") for one in (*told, *untold)]
    random.Random(0).shuffle(lines)
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / "english.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "done").write_text("")


def _write_truth(folder: Path, truths: dict[str, pl.DataFrame]) -> None:
    german = truths["deu"]
    told = german.with_columns(pl.lit(PAIR).alias("language_pair"), pl.lit("").alias("spoken"))
    told.rename({"sentence": "text"}).write_parquet(folder / "text_truth.parquet")
    if "eng" in truths:
        sides = [
            frame.rename({name: f"{side}_{name}" for name in frame.columns if name != "sentence"})
            for side, frame in (("source", german), ("target", truths["eng"]))
        ]
        both = (
            sides[0]
            .join(sides[1], on="sentence")
            .with_columns(
                pl.lit(PAIR).alias("language_pair"),
                pl.lit("").alias("source_text"),
                pl.col("sentence").alias("target_text"),
            )
        )
        both.drop("sentence").write_parquet(folder / "truth.parquet")


# Mining and training


def settings_of(home: Path, scale: Scale, *, speech: bool) -> Settings:
    """The assets over that speech; sentences are short, so segments may be too."""
    folder = home / "speech"
    sets = {"data": [folder / "deu"], "target_data": [folder / "eng"] if speech else []}
    return load_settings(
        home=home,
        catalogue_url=str(folder / "books"),
        languages=("deu", "eng") if speech else ("deu",),
        speech_text_pairs=() if speech else (PAIR,),
        text={"shards": {"eng": [str(folder / "text")]}, "cleaning": {"least_boilerplate_sentences": 1_000_000}},
        text_truth=folder / "text_truth.parquet",
        truth=folder / "truth.parquet" if speech else None,
        encoder="miniature",
        text_encoder="miniature",
        segmentation={"min_s": 0.8, "max_s": 6.0, "detector": "energy"},
        downstream={
            "sets": {PAIR: sets},
            "thresholds": scale.thresholds,
            "seeds": tuple(range(scale.seeds)),
            "training": {
                "frames": "miniature",
                "stacked_frames": 1,
                "convolutions": 2,
                "batch_seconds": 70.0,
                "updates": scale.updates,
            },
            "most_base_hours": scale.base_hours,
            "retrieval": {"batch_seconds": 160.0, "peak_rate": 1e-3, "updates": scale.updates * 5 // 8},
        },
    )


def mined_and_trained(home: Path, scale: Scale, *, speech: bool) -> pl.DataFrame:
    """Materialize everything up to the benchmark, or what is left of it: columns `COMPARED`."""
    settings = settings_of(home, scale, speech=speech)
    kind = _kind(speech)
    definitions, lake = build(settings), Lake(settings.lake_url)
    with dg.DagsterInstance.local_temp(str(_made(home / "dagster"))) as instance:
        release_killed_runs(instance)
        stages = [*first_stages(settings)] if lake.find(f"{kind}_pairs", PAIR) is None else []
        for stage in stages:
            run_stage(definitions, instance, stage, _mute)
        for stage in _until_pairs(settings, instance) if stages else []:
            print(f"  {stage.title}", flush=True)
            run_stage(definitions, instance, stage, _mute)
        print("  training", flush=True)
        run_stage(definitions, instance, _benchmark_stage(kind), _printed)
    _print_mining(lake, kind)
    return lake.partition(f"{kind}_benchmark", PAIR).read_table("compared.parquet", COMPARED)


def _until_pairs(settings: Settings, instance: dg.DagsterInstance) -> Iterator[Any]:
    for stage in further_stages(settings, instance):
        if stage.assets[0].path[0] not in {"quality_report", "truth_comparison"}:
            yield stage


def _benchmark_stage(kind: str) -> Any:
    from demo.pipeline import Stage

    return Stage("benchmark", (dg.AssetKey(f"{kind}_benchmark"),), partition=PAIR)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _mute(line: str) -> None:
    """Say nothing."""


def _printed(line: str) -> None:
    if "seed" in line or "updates" in line or "goes on" in line:
        print(f"    {line}", flush=True)


# What is printed


def _print_mining(lake: Lake, kind: str) -> None:
    study = lake.partition(f"{kind}_benchmark", PAIR).read_json("study.json")
    print(f"base {study['base']} clips, test {study['test']} clips; dropped: {study['dropped']}")


def print_table(compared: pl.DataFrame, metric: str) -> None:
    """One line a condition."""
    print(f"\n{'condition':22} {'pairs':>6} {'hours':>6}  {metric:>6} ± sd    [95 %]           gain  of the gap")
    for row in compared.filter(metric=metric).iter_rows(named=True):
        name = row["condition"] + ("" if row["threshold"] is None else f" from {row['threshold']:g}")
        share = "" if row["share_of_gap"] is None else f"{100 * row['share_of_gap']:6.1f} %"
        spread = row["spread"] or 0.0
        told = (
            f"{row['mean']:6.2f} ± {spread:4.2f}  [{row['low']:5.1f}, {row['high']:5.1f}]  {row['gain']:+7.2f}  {share}"
        )
        print(f"{name:22} {row['pairs']:6} {row['hours']:6.2f}  {told}")


def verdict(compared: pl.DataFrame, threshold: float, *, speech: bool) -> bool:
    """Tell whether the pairs of the corpus' own threshold close enough of the gap, and random ones none of it."""
    rows = compared.filter(metric="R@1" if speech else "BLEU")
    share = rows.filter(condition="mined", threshold=threshold)["share_of_gap"][0]
    of_random = rows.filter(condition="random")["gain"][0]
    passed = share is not None and share >= REQUIRED and of_random <= 0
    told = "none" if share is None else f"{100 * share:.1f} %"
    print(f"\nof the gap closed: {told} (required {100 * REQUIRED:.0f} %); random pairs gain {of_random:+.2f}")
    return passed


def main() -> int:
    """Print the machine, the data and the figures; 1 where the mined pairs close less of the gap than is required."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes: the path, not the figures")
    parser.add_argument("--home", type=Path, help="a folder to go on in")
    parser.add_argument("--seeds", type=int, help="of every condition")
    parser.add_argument("--updates", type=int, help="of every training")
    parser.add_argument("--speech", action="store_true", help="speech with speech")
    given = parser.parse_args()
    chosen = QUICK if given.quick else Scale()
    scale = replace(chosen, updates=given.updates or chosen.updates, seeds=given.seeds or chosen.seeds)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        home = _made((given.home or Path(temporary)).absolute())
        began = time.perf_counter()
        make_speech(home, scale, speech=given.speech)
        compared = mined_and_trained(home, scale, speech=given.speech)
        took = time.perf_counter() - began
        threshold = settings_of(home, scale, speech=given.speech).threshold_of(_kind(given.speech))
    for metric in compared["metric"].unique(maintain_order=True):
        print_table(compared, metric)
    print(f"{took / 60:.1f} minutes")
    passed = verdict(compared, threshold, speech=given.speech)
    return 0 if passed or given.quick else 1


def _kind(speech: bool) -> str:
    return "s2s" if speech else "s2t"


if __name__ == "__main__":
    sys.exit(main())
