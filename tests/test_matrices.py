"""Embeddings as a user hands them in: files and folders of shards, normalised without being held, known again."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.cli.matrices import Embeddings, Sides
from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn import fingerprint, normalise


def rows_of(count: int = 500, dimension: int = 24, seed: int = 0) -> npt.NDArray[np.float64]:
    return 3 * np.random.default_rng(seed).standard_normal((count, dimension))


def shards_in(folder: Path, rows: npt.NDArray[Any], cuts: list[int]) -> Path:
    folder.mkdir()
    for number, part in enumerate(np.split(rows, cuts)):
        np.save(folder / f"part-{number}.npy", part)
    return folder


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f2", ">f4", ">f8"])
def test_rows_of_every_type_and_order_are_normalised_as_in_memory(tmp_path: Path, dtype: str) -> None:
    rows = rows_of().astype(dtype)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "columns.npy", np.asfortranarray(rows))
    shards = shards_in(tmp_path / "shards", rows, [1, 77, 77, 300])

    for name in ("rows.npy", "columns.npy", shards.name):
        unit = Embeddings(tmp_path / name).unit_rows(tmp_path)
        assert unit.dtype == np.float32 and unit[0:9].flags.c_contiguous
        np.testing.assert_array_equal(unit[0:500], normalise(rows))


def test_normalised_rows_lie_in_a_file_that_nobody_sees(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows_of())

    unit = Embeddings(tmp_path / "rows.npy").unit_rows(tmp_path)

    assert isinstance(unit, np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npy"]
    mapped = Path("/proc/self/maps").read_text().splitlines()
    assert any(str(tmp_path) in line and "(deleted)" in line for line in mapped)


@pytest.mark.parametrize("cuts", [[], [3, 400]])
def test_rows_that_normalising_does_not_change_are_taken_as_they_are(tmp_path: Path, cuts: list[int]) -> None:
    shards = shards_in(tmp_path / "unit", normalise(rows_of()), cuts)
    embeddings = Embeddings(shards)

    assert embeddings.unit_rows(Path("/nowhere")) is embeddings.matrix


@pytest.mark.parametrize(
    "rows",
    [
        normalise(rows_of()).astype(np.float16),
        np.asfortranarray(normalise(rows_of())),
        normalise(rows_of()).astype(">f4"),
        normalise(rows_of()) * np.float32(1.0001),
    ],
    ids=["float16", "columns", "other order of bytes", "nearly"],
)
def test_rows_that_are_nearly_ready_are_written_anew(tmp_path: Path, rows: npt.NDArray[Any]) -> None:
    np.save(tmp_path / "rows.npy", rows)
    embeddings = Embeddings(tmp_path / "rows.npy")

    unit = embeddings.unit_rows(tmp_path)

    assert unit is not embeddings.matrix
    np.testing.assert_array_equal(unit, normalise(rows.astype(rows.dtype.newbyteorder("="))))


def test_a_full_disk_is_told_with_the_room_that_is_wanted(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows_of(3000, 512))
    embeddings = Embeddings(tmp_path / "rows.npy")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(SettingsError, match=r"cannot be written to .* \(File too large\).*room for 0\.00614 GB"):
            embeddings.unit_rows(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_matrix_without_rows_needs_no_file(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.empty((0, 24), np.float16))
    assert Embeddings(tmp_path / "none.npy").unit_rows(Path("/nowhere")).shape == (0, 24)


@given(numbers=st.permutations(range(0, 130, 11)), zeros=st.integers(0, 3))
def test_shards_come_in_the_order_of_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], zeros: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    for number in numbers:
        np.save(folder / f"deu{number:0{zeros}d}.part2.npy", np.full((1, 2), number, np.float32))
    np.save(folder / ".deu5.npy", np.full((1, 2), -1, np.float32))
    (folder / "deu6.txt").write_text("no shard")
    (folder / "deu7.npy").mkdir()

    matrix = Embeddings(folder).matrix

    assert matrix[0 : len(matrix)][:, 0].tolist() == sorted(numbers)


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ({}, "holds no .npy file"),
        ({"a": np.ones((2, 3), "f4"), "b": np.ones((2, 4), "f4")}, "b.npy is float32 with rows of 4 values, a.npy"),
        ({"a": np.ones((2, 3), "f4"), "b": np.ones((2, 3), "f2")}, "b.npy is float16 with rows of 3 values, a.npy"),
        ({"a": np.ones((2, 3), "f4"), "b": np.ones((2, 3), ">f4")}, "b.npy is >f4"),
        ({"a": np.ones((2, 3), "f4"), "b": np.ones(3, "f4")}, r"b.npy is float32 with shape \(3,\)"),
        ({"a": np.ones((2, 3), "i4")}, "a.npy is int32"),
        ({"a": np.ones((2, 3), "c8")}, "a.npy is complex64"),
        ({"a": np.array([["x"]], object)}, "a.npy holds Python objects"),
        ({"a": np.zeros((2, 3), [("x", "f4")])}, "a.npy is "),
    ],
)
def test_shards_that_are_no_matrix_are_refused(tmp_path: Path, shards: dict[str, Any], message: str) -> None:
    for name, rows in shards.items():
        np.save(tmp_path / f"{name}.npy", rows, allow_pickle=True)

    with pytest.raises(EmbeddingError, match=message):
        Embeddings(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 60, 127, 128, 1000])
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    np.save(tmp_path / "rows.npy", rows_of())
    (tmp_path / "rows.npy").write_bytes((tmp_path / "rows.npy").read_bytes()[:kept])

    with pytest.raises(EmbeddingError, match=r"rows\.npy (is not a \.npy file|cannot be read)"):
        Embeddings(tmp_path / "rows.npy")


def test_bad_rows_of_a_shard_are_named_by_their_number_in_the_whole(tmp_path: Path) -> None:
    rows = rows_of(60)
    rows[41] = np.nan

    with pytest.raises(EmbeddingError, match=r"shards has 1 of 60 rows that hold NaN or infinity: rows 41\."):
        Embeddings(shards_in(tmp_path / "shards", rows, [20, 40])).unit_rows(tmp_path)


def test_a_matrix_is_known_again_wherever_it_lies_and_however_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of().astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.setattr(fingerprint, "BLOCK_BYTES", 700)  # some rows of 96 bytes
    whole = Embeddings(tmp_path / "rows.npy")
    kept = Sides(whole, whole).fingerprints()
    shutil.copy(tmp_path / "rows.npy", tmp_path / "copy.npy")
    cut = Embeddings(shards_in(tmp_path / "shards", rows, [100, 101]))

    assert Sides(Embeddings(tmp_path / "copy.npy"), cut).differences(kept) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: np.concatenate([rows[:-1], np.nextafter(rows[-1:], 9)]), "other values"),
        (lambda rows: rows[::-1], "other values"),
        (lambda rows: rows[1:], "rows 499, not 500"),
        (lambda rows: rows[:, 1:], "dimension 23, not 24"),
        (lambda rows: rows.astype("f2"), "dtype <f2, not <f4"),
        (lambda rows: rows.astype(">f4"), "dtype >f4, not <f4"),
    ],
)
def test_a_matrix_that_was_changed_in_place_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    monkeypatch.setattr(fingerprint, "BLOCK_BYTES", 700)
    rows = rows_of().astype(np.float32)
    for side in ("source", "target"):
        np.save(tmp_path / f"{side}.npy", rows)
    kept = Sides(Embeddings(tmp_path / "source.npy"), Embeddings(tmp_path / "target.npy")).fingerprints()
    stat = (tmp_path / "target.npy").stat()
    np.save(tmp_path / "target.npy", change(rows))
    os.utime(tmp_path / "target.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if nothing had happened

    name = "source" if "dimension" in message else "target"
    now = Embeddings(tmp_path / "target.npy")
    found = Sides(now, now).differences({"source": kept["source"], "target": kept["target"]})

    assert f"the {name} matrix is another ({message})" in found


def test_files_that_nobody_touched_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "rows.npy", rows_of())
    embeddings = Embeddings(tmp_path / "rows.npy")
    sides = Sides(embeddings, embeddings)
    kept = sides.fingerprints()
    read: list[Any] = []
    digest = fingerprint._digest
    monkeypatch.setattr(fingerprint, "_digest", lambda matrix: read.append(matrix) or digest(matrix))

    assert sides.differences(kept) == [] and read == []
    os.utime(tmp_path / "rows.npy")
    assert sides.differences(kept) == [] and len(read) == 2


def test_sides_of_different_dimension_are_refused_by_their_names(tmp_path: Path) -> None:
    np.save(tmp_path / "deu.npy", rows_of(3, 8))
    np.save(tmp_path / "eng.npy", rows_of(3, 9))

    with pytest.raises(EmbeddingError, match=r"deu\.npy has rows of 8 values, .*eng\.npy of 9"):
        Sides(Embeddings(tmp_path / "deu.npy"), Embeddings(tmp_path / "eng.npy"))
