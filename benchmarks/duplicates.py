"""De-duplication of sentences across shards: rows a second, memory and disk, against DuckDB, polars and GNU sort.

    python -m benchmarks.duplicates [--rows 10000000] [--shards 100] [--memory-gb 4]

Shards of made-up sentences, of which four in ten repeat an earlier one in other case and punctuation, as text and as
64-bit hashes. Each contender runs in a process of its own, whose peak of resident memory is the system's figure; each
says which rows are the first (GNU sort: only which lines there are). Those that read hashes must agree to the row.

- ours: from text; from hashes; from hashes with one more shard, once the others' runs are there
- DuckDB, window: `row_number() over (partition by hash order by shard, row) = 1`
- DuckDB, group: `min(ordinal) group by hash`; both with the memory limit and a folder to spill to
- polars: `is_first_distinct` of all hashes in memory
- GNU sort -u -S: of the keys as lines, in the C locale
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.knn import _processor as processor

WORDS = 12
VOCABULARY = 50_000
REPEATED = 0.4


def make(folder: Path, rows: int, shards: int) -> None:
    """Shards with `text` and `hash`, and the keys as lines for GNU sort."""
    from speech_mining.text.sentence_keys import sentence_hash

    chance = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzäöüß"))
    words = pl.Series(["".join(chance.choice(letters, chance.integers(2, 9))) for _ in range(VOCABULARY)])
    different = round(rows * (1 - REPEATED))
    with (folder / "lines.txt").open("wb") as lines:
        for shard, own in enumerate(np.array_split(np.arange(rows), shards)):
            sentence = np.where(own < different, own, chance.integers(0, different, len(own)))
            text = _worded(sentence, words)
            shouted = pl.Series(chance.random(len(own)) < 0.5)
            text = pl.select(pl.when(shouted).then(text.str.to_uppercase() + "!").otherwise(text + ".")).to_series()
            frame = pl.DataFrame({"text": text, "hash": sentence_hash(text)})
            frame.write_parquet(folder / f"{shard:05d}.parquet")
            frame.select(text.str.to_lowercase().str.strip_chars(".!")).write_csv(lines, include_header=False)


def _worded(sentence: Any, words: pl.Series) -> pl.Series:
    """The words of sentences, from their numbers alone."""
    places = sentence.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15) + np.arange(WORDS, dtype=np.uint64)
    places = (places ^ (places >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(33)
    columns = [words.gather((places[:, word] % VOCABULARY).astype(np.int64)).alias(str(word)) for word in range(WORDS)]
    return pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator=" ")).to_series()


def ours(folder: Path, column: str, memory_gb: float, *, but_last: bool = False) -> dict[str, Any]:
    """Masks of all shards; with `but_last` the runs of all but the last are there before."""
    from speech_mining.text.duplicates import first_occurrences, sentence_hash

    sentence_hash(pl.Series(["compiled"]))
    paths = sorted(folder.glob("*.parquet"))
    scratch = folder / f"scratch.{os.getpid()}"
    if but_last:
        list(first_occurrences(paths[:-1], scratch=scratch, memory_gb=memory_gb, column=column))
    began = time.perf_counter()
    first = [mask for _, mask in first_occurrences(paths, scratch=scratch, memory_gb=memory_gb, column=column)]
    elapsed_s = time.perf_counter() - began
    disk = sum(path.stat().st_size for path in scratch.iterdir())
    shutil.rmtree(scratch)
    return {"s": elapsed_s, "disk": disk, "rows": np.flatnonzero(np.concatenate(first))}


def by_duckdb(folder: Path, query: str, memory_gb: float) -> dict[str, Any]:
    """A query over all shards, with a limit of memory and a folder to spill to."""
    import duckdb

    spilled = folder / f"spilled.{os.getpid()}"
    database = duckdb.connect(config={"memory_limit": f"{memory_gb}GB", "temp_directory": str(spilled)})
    database.execute(
        f"create view shards as select hash, filename, file_row_number as row from "
        f"read_parquet('{folder}/*.parquet', filename = true, file_row_number = true)"
    )
    out = folder / f"first.{os.getpid()}.arrow"
    began = time.perf_counter()
    database.execute(f"copy ({query}) to '{out}' (format parquet)")
    elapsed_s = time.perf_counter() - began
    starts = dict(
        database.execute(
            "select filename, (sum(count(*)) over (order by filename))::bigint - count(*) from shards group by filename"
        ).fetchall()
    )
    found = pl.read_parquet(out)
    out.unlink()
    shutil.rmtree(spilled, ignore_errors=True)
    ordinal = found["filename"].replace_strict(starts, return_dtype=pl.Int64) + found["row"]
    return {"s": elapsed_s, "disk": None, "rows": np.sort(ordinal.to_numpy())}


WINDOW = (
    "select filename, row from (select filename, row, row_number() over (partition by hash order by filename, row) "
    "as place from shards) where place = 1"
)
GROUP = "select o.filename, o.row from (select min({'filename': filename, 'row': row}) as o from shards group by hash)"


def by_polars(folder: Path) -> dict[str, Any]:
    """All hashes in memory."""
    began = time.perf_counter()
    first = pl.read_parquet(sorted(folder.glob("*.parquet")), columns=["hash"])["hash"].is_first_distinct()
    return {"s": time.perf_counter() - began, "disk": 0, "rows": first.arg_true().to_numpy()}


def by_sort(folder: Path, memory_gb: float) -> dict[str, Any]:
    """Lines instead of rows, and no first one among equals."""
    began = time.perf_counter()
    words = ["sort", "-u", f"-S{round(memory_gb * 950)}M", "-T", str(folder), "-o", str(folder / "sorted.txt")]
    subprocess.run([*words, str(folder / "lines.txt")], check=True, env={**os.environ, "LC_ALL": "C"})
    return {"s": time.perf_counter() - began, "disk": None, "rows": None}


def contenders(memory_gb: float) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """Name → what it does."""
    return {
        "ours, from text": lambda folder: ours(folder, "text", memory_gb),
        "ours, from hashes": lambda folder: ours(folder, "hash", memory_gb),
        "ours, one more shard": lambda folder: ours(folder, "hash", memory_gb, but_last=True),
        "DuckDB, window": lambda folder: by_duckdb(folder, WINDOW, memory_gb),
        "DuckDB, group": lambda folder: by_duckdb(folder, GROUP, memory_gb),
        "polars, in memory": by_polars,
        "GNU sort -u": lambda folder: by_sort(folder, memory_gb),
    }


def alone(name: str, folder: Path, memory_gb: float) -> dict[str, Any]:
    """What one contender needs, in a process of its own; the rows it found as a fingerprint."""
    found = contenders(memory_gb)[name](folder)
    rows = found.pop("rows")
    who = resource.RUSAGE_CHILDREN if name.startswith("GNU") else resource.RUSAGE_SELF
    known = None if rows is None else [len(rows), int(np.bitwise_xor.reduce(rows * np.int64(2654435761)))]
    return {**found, "rss": resource.getrusage(who).ru_maxrss * 1024, "found": known}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duplicates", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--memory-gb", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="where the data goes; by default a temporary folder")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(alone(asked.alone, asked.folder, asked.memory_gb)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        make(folder, asked.rows, asked.shards)
        print(f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}")
        print(f"{asked.rows:,} rows in {asked.shards} shards, {asked.memory_gb} GB asked")
        print(f"{'':22s}{'s':>8s}{'rows/s':>12s}{'peak GB':>9s}{'disk GB':>9s}{'kept':>13s}")
        report(asked, folder)


def report(asked: argparse.Namespace, folder: Path) -> None:
    """One contender after the other, and whether they agree."""
    known = set()
    for name in contenders(asked.memory_gb):
        words = ["--alone", name, "--folder", str(folder), "--memory-gb", str(asked.memory_gb)]
        command = [sys.executable, "-m", "benchmarks.duplicates", *words]
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        if ran.returncode:
            print(f"{name:22s} failed: {ran.stderr.strip().splitlines()[-1][:90]}", flush=True)
            continue
        told = json.loads(ran.stdout)
        disk = "" if told["disk"] is None else f"{told['disk'] / 1e9:.3f}"
        kept = f"{told['found'][0]:,}" if told["found"] else ""
        line = f"{name:22s}{told['s']:8.1f}{asked.rows / told['s']:12,.0f}{told['rss'] / 1e9:9.2f}{disk:>9s}{kept:>13s}"
        print(line, flush=True)
        if told["found"]:
            known.add(tuple(told["found"]))
    print("all found the same rows" if len(known) == 1 else f"THEY DISAGREE: {sorted(known)}")


if __name__ == "__main__":
    main()
