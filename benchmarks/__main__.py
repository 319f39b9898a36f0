"""`make bench`: every benchmark, one after the other, at sizes that a laptop finishes in minutes."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    "benchmarks.knn",
    "benchmarks.gpu",
    "benchmarks.incremental",
    "benchmarks.index",
    "benchmarks.ivf",
    "benchmarks.mining",
    "benchmarks.peers",
    "benchmarks.audio",
    "benchmarks.embedding",
    "benchmarks.students",
    "benchmarks.duplicates",
    "benchmarks.text",
    "benchmarks.alignment",
    "benchmarks.words",
    "benchmarks.downstream",
    "benchmarks.cutting",
    "benchmarks.orchestration",
    "benchmarks.scale",
)


def main() -> None:
    """Run each in a process of its own, so that one's threads and caches do not flatter the next."""
    for name in BENCHMARKS:
        print(f"\n=== {name} ===", flush=True)
        subprocess.run([sys.executable, "-m", name], check=True)


if __name__ == "__main__":
    main()
