"""Which device an encoder is put on: one, chosen once in a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.encoders.placement import (
    choose,
    chosen_device,
    free_memory,
    placement,
    read_free_memory,
    visible_in,
)
from speech_mining.errors import EncoderError

GIB = 1 << 30
MODULES = sorted((Path(__file__).parents[1] / "speech_mining" / "encoders").rglob("*.py"))


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    chosen_device.cache_clear()
    yield
    chosen_device.cache_clear()


def test_the_device_with_the_most_free_memory_is_chosen_and_the_reason_told() -> None:
    choice = choose([(0, 10 * GIB), (1, 70 * GIB), (2, 30 * GIB)])
    assert (choice.device, choice.why) == ("cuda:1", "the most free memory of 3 devices, 70.0 GiB")


def test_the_first_of_equals_is_chosen_and_the_first_where_one_does_not_tell() -> None:
    assert choose([(0, 5), (1, 7), (2, 7)]).device == "cuda:1"
    unknown = choose([(0, 5), (1, None), (2, 7)])
    assert unknown.device == "cuda:0" and "nvidia-smi does not tell" in unknown.why
    with pytest.raises(EncoderError, match="no CUDA device"):
        choose([])


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=16), st.randoms())
def test_the_choice_is_one_of_those_given_has_the_most_and_does_not_depend_on_their_order(
    free: list[int], random: object
) -> None:
    devices = list(enumerate(free))
    chosen = int(choose(devices).device.removeprefix("cuda:"))
    assert free[chosen] == max(free) and free.index(max(free)) == chosen
    random.shuffle(devices)  # type: ignore[attr-defined]
    assert choose(devices) == choose(list(enumerate(free)))


def test_free_memory_is_read_as_nvidia_smi_writes_it() -> None:
    lines = ["GPU-1b2c-3d, 81038", "GPU-9f8e-7a, 420", "GPU-0000, [N/A]", "", "No devices were found"]
    assert read_free_memory(lines) == {"1b2c-3d": 81038 << 20, "9f8e-7a": 420 << 20}


def test_the_driver_is_asked_and_one_that_fails_or_is_not_there_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert free_memory() == {}
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --query-gpu=uuid,memory.free ] && echo "GPU-ab, 12"\n')
    program.chmod(0o755)
    assert free_memory() == {"ab": 12 << 20}
    program.write_text("#!/bin/sh\necho 'GPU-ab, 12'; exit 9\n")
    assert free_memory() == {}


def test_s2s_device_goes_before_the_choice_and_the_choice_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_DEVICE", "cpu")
    assert (chosen_device().device, chosen_device().why) == ("cpu", "S2S_DEVICE names it")
    monkeypatch.setenv("S2S_DEVICE", "cuda:7")
    assert placement("auto", "auto")[0].type == "cpu"  # made once
    chosen_device.cache_clear()
    with pytest.raises(EncoderError, match=r"'cuda:7' is asked for, and CUDA shows \d+ here.*S2S_DEVICE=auto"):
        placement("auto", "auto")


def test_a_device_that_is_none_is_told() -> None:
    with pytest.raises(EncoderError, match=r"device 'gpu'.*cuda:<number>"):
        placement("gpu", "auto")
    with pytest.raises(EncoderError, match=r"float16 on the CPU"):
        placement("cpu", "float16")


def test_without_a_device_that_cuda_shows_it_is_the_cpu() -> None:
    asked = (
        "from speech_mining.encoders.placement import chosen_device, placement; "
        "print(chosen_device().device, *placement('auto', 'auto'))"
    )
    told = subprocess.run(
        [sys.executable, "-c", asked],
        capture_output=True,
        text=True,
        check=True,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": ""},
    )
    assert told.stdout.split() == ["cpu", "cpu", "torch.float32"]


def test_how_the_environment_narrows_the_devices_is_told() -> None:
    assert visible_in({}) == "all devices are visible"
    assert visible_in({"CUDA_VISIBLE_DEVICES": "2"}) == "CUDA_VISIBLE_DEVICES=2"


def test_no_encoder_spreads_its_model_over_devices() -> None:
    spread = ("DataParallel", "FullyShardedDataParallel", "fully_shard", 'device_map="auto"', "ProcessGang")
    assert len(MODULES) > 10
    assert [path.name for path in MODULES if any(word in path.read_text("utf-8") for word in spread)] == []


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_other_devices_have_no_context(tmp_path: Path) -> None:
    import numpy as np

    from speech_mining.encoders.protocol import SpeechSpan
    from speech_mining.encoders.sonar import SonarSpeech
    from tests.tiny_sonar import build_speech

    encoder = SonarSpeech({"deu": build_speech(tmp_path)}, device="auto", model_dir=tmp_path)
    noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) / 10
    encoder.embed([SpeechSpan(noise, 0, len(noise), "deu")])
    taken = int(chosen_device().device.removeprefix("cuda:"))
    others = [index for index in range(torch.cuda.device_count()) if index != taken]
    assert not any(torch._C._cuda_hasPrimaryContext(index) for index in others)  # type: ignore[attr-defined]
