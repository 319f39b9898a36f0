"""A language of more audiobooks than a process may have files open."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.synthetic_library import embed
from speech_mining.errors import LakeError
from speech_mining.knn import open_files
from speech_mining.lake import Lake

BOOKS = 120
READ = """
import resource, sys
import speech_mining.knn.roll as roll
from speech_mining.errors import LakeError
from speech_mining.lake import Lake
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[3])))
try:
    called = roll.call_the_roll(roll.read_blocks(Lake(sys.argv[1]), "deu"))
    print(called.vectors.shape, resource.getrlimit(resource.RLIMIT_NOFILE))
except LakeError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    embed(Lake(folder), "deu", [str(number) for number in range(1, BOOKS + 1)], rows=2, dimension=4)
    return folder


def _read(lake: Path, soft: int, hard: int) -> str:
    words = [sys.executable, "-c", READ, str(lake), str(soft), str(hard)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_a_process_makes_room_for_more_audiobooks_than_its_own_limit(lake: Path) -> None:
    told = _read(lake, BOOKS // 2, 4096)
    assert told.startswith(f"({2 * BOOKS}, 4) (")
    assert BOOKS < int(told.split("(")[2].split(",")[0]) < 4096


def test_a_limit_that_is_wide_enough_is_left_alone(lake: Path) -> None:
    assert _read(lake, 2048, 4096) == f"({2 * BOOKS}, 4) (2048, 4096)"


def test_what_the_machine_does_not_allow_is_told_with_its_way_out(lake: Path) -> None:
    told = _read(lake, BOOKS // 2, BOOKS)
    assert told.startswith(f"{BOOKS} blocks of vectors want ")
    assert f"this process may have {BOOKS}." in told
    assert "LimitNOFILE=" in told


def test_more_maps_than_linux_gives_a_process_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    most = tmp_path / "max_map_count"
    most.write_text("1000\n")
    monkeypatch.setattr(open_files, "MAPS", most)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files.make_room(20)
    with pytest.raises(LakeError, match=r"900 blocks .* 1000 maps here.*sysctl vm.max_map_count=2312"):
        open_files.make_room(900)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
