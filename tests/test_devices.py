"""Devices of one machine and the processes that share them: pretended devices, real processes, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from resources.devices import (
    VISIBLE,
    Device,
    Held,
    Holder,
    held_device,
    hold_one,
    holder_of,
    lock_folder,
    narrowed,
    only_visible,
    read_devices,
    visible_devices,
)
from resources.settings import load_settings
from speech_mining.errors import SettingsError

FOUR = tuple(Device(place, f"GPU-{place}abc-0000", "NVIDIA H200") for place in range(4))
ME = Holder(os.getpid(), "here", "run", "step", 0.0)

LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000000)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000000)
  MIG 3g.40gb     Device  0: (UUID: MIG-33333333-aaaa-bbbb-cccc-000000000000)
  MIG 3g.40gb     Device  1: (UUID: MIG-44444444-aaaa-bbbb-cccc-000000000000)
"""

HOLDING = """
import os, sys, time
from pathlib import Path
from resources.devices import Device, Holder, hold_one
devices = [Device(place, f"GPU-{place}abc-0000", "NVIDIA H200") for place in range(int(sys.argv[2]))]
holder = Holder(os.getpid(), "here", "run", sys.argv[3], 0.0)
with hold_one(devices, Path(sys.argv[1]), holder, wait_s=60) as device:
    print(device.place, flush=True)
    sys.stdin.read()
"""


class Process:
    """Another process that holds a device until its standard input is closed."""

    def __init__(self, folder: Path, devices: int, step: str = "step") -> None:
        words = [sys.executable, "-c", HOLDING, str(folder), str(devices), step]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def place(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


# What is visible


def test_the_driver_s_list_is_read_and_a_cut_gpu_stands_for_its_slices() -> None:
    found = read_devices(LISTED.splitlines())
    assert [device.token[:12] for device in found] == ["GPU-11111111", "MIG-33333333", "MIG-44444444"]
    assert [device.place for device in found] == [0, 1, 2]
    assert found[1].name == "NVIDIA A100-SXM4-80GB MIG 3g.40gb"


@pytest.mark.parametrize(
    ("visible", "left"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("2", [2]),
        ("3,0", [3, 0]),
        ("GPU-1,GPU-2abc", [1, 2]),
        ("0,-1,2", [0]),
        ("1,9,2", [1]),
        ("GPU-", []),
        ("1,1", [1]),
    ],
)
def test_the_environment_narrows_as_cuda_reads_it(visible: str | None, left: list[int]) -> None:
    found = narrowed(FOUR, visible)
    assert [device.token for device in found] == [FOUR[place].token for place in left]
    assert [device.place for device in found] == list(range(len(left)))


def test_a_machine_whose_driver_lists_nothing_has_no_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{LISTED}EOF\n".replace("cat", "/bin/cat"))
    program.chmod(0o755)
    assert len(visible_devices({})) == 3
    assert [device.token[:5] for device in visible_devices({VISIBLE: "2"})] == ["MIG-4"]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert visible_devices({VISIBLE: "0"}) == ()


# Holding one


def test_steps_at_once_take_different_devices_and_the_next_takes_what_is_given_back(tmp_path: Path) -> None:
    holding = [Process(tmp_path, 4) for _ in range(4)]
    assert sorted(process.place() for process in holding) == [0, 1, 2, 3]
    waiting = Process(tmp_path, 4)
    with pytest.raises(SettingsError, match=r"No device was free within 0 s.*process \d+ on here.*pools.gpu to 4"):
        with hold_one(FOUR, tmp_path, ME, wait_s=0):
            pass
    holding[2].end()
    assert waiting.place() in range(4)
    for process in (*holding[:2], holding[3], waiting):
        process.end()
    assert [holder_of(device, tmp_path) for device in FOUR] == [None] * 4


def test_a_killed_holder_leaves_its_device_to_the_next(tmp_path: Path) -> None:
    for _ in range(5):
        process = Process(tmp_path, 1)
        assert process.place() == 0
        holder = holder_of(FOUR[0], tmp_path)
        assert holder is not None and holder.pid == process.process.pid
        process.kill()
        assert holder_of(FOUR[0], tmp_path) is None


def test_no_device_is_ever_held_twice_while_processes_are_killed(tmp_path: Path) -> None:
    """Six steps over two devices, every other one killed: what is held at any time is at most each once."""
    taken: list[Process] = []
    for number in range(6):
        if len(taken) == 2:
            first = taken.pop(0)
            first.kill() if number % 2 else first.end()
        taken.append(Process(tmp_path, 2, f"step {number}"))
        taken[-1].place()
        holders = [holder_of(device, tmp_path) for device in FOUR[:2]]
        assert sorted(holder.pid for holder in holders if holder) == sorted(one.process.pid for one in taken)
    for process in taken:
        process.end()


def test_a_device_is_given_back_when_the_step_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of the step"), hold_one(FOUR[:1], tmp_path, ME, wait_s=0):
        assert holder_of(FOUR[0], tmp_path) == ME
        raise RuntimeError("of the step")
    assert holder_of(FOUR[0], tmp_path) is None


def test_devices_of_two_machines_that_share_a_folder_are_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered = [Device(0, "0", "GPU 0")]
    with hold_one(numbered, tmp_path, ME, wait_s=0):
        monkeypatch.setattr("resources.devices.platform.node", lambda: "another")
        with hold_one(numbered, tmp_path, ME, wait_s=0) as device:
            assert device.place == 0


# What a step sees


def test_a_step_sees_its_device_and_no_other_before_a_library_has_looked() -> None:
    code = textwrap.dedent("""
        import os
        os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
        from resources.devices import Device, only_visible
        for setting in ("auto", "cuda:1"):
            with only_visible(Device(1, "GPU-1abc-0000", "H200"), setting) as name:
                print(name, os.environ["CUDA_VISIBLE_DEVICES"])
        print(os.environ["CUDA_VISIBLE_DEVICES"])
    """)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == ["auto GPU-1abc-0000", "cuda:0 GPU-1abc-0000", "0,1"]


def test_where_torch_has_no_cuda_a_step_is_left_to_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with only_visible(FOUR[1], "auto") as name:
        assert name == "auto"


class Context:
    """What `held_device` asks of a step's context."""

    class run:  # noqa: N801
        run_id = "a run"

    class log:  # noqa: N801
        info = staticmethod(print)

    def get_step_execution_context(self) -> object:
        return type("Step", (), {"step": type("Key", (), {"key": "deu__speech_index"})})


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("resources.devices.visible_devices", lambda: FOUR[:2])
    monkeypatch.setattr("resources.devices.free_memory", lambda: {"0abc-0000": 10, "1abc-0000": 20})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("setting", "held"), [("auto", FOUR[1].told), ("cuda", FOUR[1].told), ("cuda:0", FOUR[0].told)]
)
@pytest.mark.usefixtures("two_gpus")
def test_a_step_takes_the_device_with_the_most_room_unless_one_is_named(
    setting: str, held: str, tmp_path: Path
) -> None:
    settings = load_settings(home=tmp_path, device=setting)
    with held_device(Context(), settings) as given:
        assert given.told == held
        (holder,) = [told for device in FOUR[:2] if (told := holder_of(device, lock_folder(settings)))]
        assert (holder.run_id, holder.step) == ("a run", "deu__speech_index")


@pytest.mark.usefixtures("two_gpus")
def test_a_pod_takes_what_the_cluster_gave_it_and_no_lock(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, execution="k8s")
    with held_device(Context(), settings) as given:
        assert given == Held("auto", FOUR[1].told)
    assert not lock_folder(settings).exists()


@pytest.mark.usefixtures("two_gpus")
def test_a_step_on_the_cpu_holds_nothing(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, device="cpu")
    with held_device(Context(), settings) as given:
        assert given == Held("cpu", "the CPU was asked for")
    assert not lock_folder(settings).exists()


def test_a_machine_without_a_gpu_holds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("resources.devices.visible_devices", tuple)
    with held_device(Context(), load_settings(home=tmp_path)) as given:
        assert given == Held("auto", "no GPU")


def test_homes_may_share_one_folder_of_locks(tmp_path: Path) -> None:
    assert lock_folder(load_settings(home=tmp_path)) == tmp_path / "scratch" / "devices"
    shared = load_settings(home=tmp_path, devices={"locks": tmp_path / "shared"})
    assert lock_folder(shared) == tmp_path / "shared"
