"""The benchmark's two-minute version: narrated, mined by the real assets, trained on and compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from speech_mining.downstream.tables import COMPARED
from speech_mining.lake import Lake

pytest.importorskip("espeakng_loader", reason="the synthesiser is not installed (speech-mining[narration])")


@pytest.mark.slow
def test_the_quick_benchmark_goes_all_the_way_and_again_trains_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.downstream", "--quick", "--home", str(tmp_path / "home")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "of the gap closed:" in told and "random from 1.07" in told
    compared = (
        Lake(tmp_path / "home" / "lake").partition("s2t_benchmark", "deu-eng").read_table("compared.parquet", COMPARED)
    )
    pairs = dict(compared.filter(metric="chrF").select("condition", "pairs").rows())
    assert pairs["true"] == 160 and 100 < pairs["mined"] <= 160 and pairs["random"] == pairs["mined"]
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "seed 0" not in again  # every run was done
    assert again.partition("condition")[2].splitlines()[:5] == told.partition("condition")[2].splitlines()[:5]
