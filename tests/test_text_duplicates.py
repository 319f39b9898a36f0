"""When two sentences are the same, and which rows of many shards come for the first time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.errors import LakeError, SettingsError
from speech_mining.text import duplicates
from speech_mining.text.duplicates import (
    SentenceShard,
    expected_collisions,
    first_occurrences,
    normalised_key,
    sentence_hash,
)

# --- when two sentences are the same ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("He said: “Yes!”", 'he said "yes"'),
        ("STRASSE", "Straße"),
        ("ΟΔΥΣΣΕΥΣ", "Οδυσσευς"),
        ("café", "cafe\u0301"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("a\tb\r\n c", "A b C."),
        ("soft\u00adhyphen", "softhyphen"),
        ("well-known", "well known"),
        ("… the end …", "the end"),
        ("ﬁne", "fine"),
        ("-5 degrees", "−5 degrees"),
        ("it was -5", "it was −5"),
        ("1990-95", "1990–95"),
        ("", "…"),
    ],
)
def test_what_is_written_otherwise_and_read_alike_is_the_same(one: str, other: str) -> None:
    assert normalised_key(one) == normalised_key(other)
    hashes = sentence_hash(pl.Series([one, other]))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("in 1914", "in 1918"),
        ("3.5", "35"),
        ("-5 degrees", "5 degrees"),
        ("it was -5", "it was 5"),
        ("1990-95", "1990 −95"),
        ("You are going?", "You are going."),
        ("5 %", "5"),
        ("A & B", "A B"),
        ("$5", "€5"),
        ("schon", "schön"),
        ("кот", "кит"),
        ("कि", "की"),
        ("の", "に"),
        ("nowhere", "now here"),
    ],
)
def test_what_is_read_otherwise_is_not_the_same(one: str, other: str) -> None:
    assert normalised_key(one) != normalised_key(other)
    hashes = sentence_hash(pl.Series([one, other]))
    assert hashes[0] != hashes[1]


def test_a_key_is_words_and_single_spaces() -> None:
    assert normalised_key("  „Wie geht’s?“, fragte sie – um 5.30 Uhr.  ") == "wie geht s? fragte sie um 5 30 uhr"


def test_hashes_are_xxh64_of_keys_without_the_highest_bit() -> None:
    """By the test vectors that its authors publish for no bytes, "a" and "abc"."""
    published = [0xEF46DB3751D8E999, 0xD24EC4F1A98C6E5B, 0x44BC2CF5AD770999]
    assert sentence_hash(pl.Series(["...", "A!", " abc "])).to_list() == [each & (2**63 - 1) for each in published]


MARKS = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "M"]
anything = st.text(max_size=40)
composed = st.text(st.sampled_from([*MARKS, *"aeocAEOİıßΣςकगاㅏ각가가 -–5.…½ﷺ\u00ad\u200d"]), max_size=12)


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(anything | composed, min_size=1, max_size=20))
def test_compiled_keys_are_those_of_the_definition(texts: list[str]) -> None:
    """A key is its own key, so the hash of the text must be that of its key, which is plain."""
    keys = [normalised_key(text) for text in texts]
    assert sentence_hash(pl.Series(texts)).to_list() == [reference(key) for key in keys]
    for one, other in zip(texts, keys, strict=True):
        assert "  " not in other and other == other.strip(" "), one


def reference(key: str) -> int:
    """XXH64 by its specification, in Python's own numbers."""
    data, mask = key.encode(), (1 << 64) - 1
    p1, p2, p3, p4, p5 = (
        11400714785074694791,
        14029467366897019727,
        1609587929392839161,
        9650029242287828579,
        2870177450012600261,
    )

    def rotated(value: int, bits: int) -> int:
        value &= mask
        return (value << bits | value >> (64 - bits)) & mask

    def turn(lane: int, word: int) -> int:
        return rotated(lane + word * p2, 31) * p1 & mask

    at = 0
    if len(data) >= 32:
        lanes = [p1 + p2, p2, 0, -p1]
        while at + 32 <= len(data):
            for lane in range(4):
                lanes[lane] = turn(lanes[lane], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        value = sum(rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            value = ((value ^ turn(0, lane)) * p1 + p4) & mask
    else:
        value = p5
    value += len(data)
    while at + 8 <= len(data):
        value = (rotated(value ^ turn(0, int.from_bytes(data[at : at + 8], "little")), 27) * p1 + p4) & mask
        at += 8
    if at + 4 <= len(data):
        value = (rotated(value ^ int.from_bytes(data[at : at + 4], "little") * p1, 23) * p2 + p3) & mask
        at += 4
    for byte in data[at:]:
        value = rotated(value ^ byte * p5, 11) * p1 & mask
    value = (value & mask ^ (value & mask) >> 33) * p2 & mask
    value = (value ^ value >> 29) * p3 & mask
    return (value ^ value >> 32) & (1 << 63) - 1


def test_hashes_of_a_part_of_a_column_are_those_of_the_whole() -> None:
    texts = pl.Series([f"Sentence {number}, ünd so on" for number in range(100)])
    assert sentence_hash(texts[30:60]).to_list() == sentence_hash(texts).to_list()[30:60]
    assert sentence_hash(texts[0:0]).to_list() == []
    assert sentence_hash(pl.Series([], dtype=pl.String)).dtype == pl.Int64


@pytest.mark.parametrize("texts", [pl.Series([1, 2]), pl.Series(["a", None])])
def test_what_is_no_text_has_no_hash(texts: pl.Series) -> None:
    with pytest.raises(SettingsError, match="Expected: strings, none of them null"):
        sentence_hash(texts)


def test_collisions_are_told() -> None:
    assert expected_collisions(2, bits=1) == 0.5
    assert expected_collisions(10**7) == pytest.approx(5.4e-6, rel=0.01)
    assert expected_collisions(10**9) == pytest.approx(0.054, rel=0.01)


# --- which rows come first --------------------------------------------------------------------------------------------


def written(folder: Path, shards: dict[str, Any], column: str = "text") -> list[Path]:
    """Parquet files of several row groups."""
    paths = []
    for name, values in shards.items():
        frame = pl.DataFrame({column: pl.Series(values, dtype=pl.String if column == "text" else pl.Int64)})
        frame.write_parquet(folder / f"{name}.parquet", row_group_size=max(7, len(frame) // 3))
        paths.append(folder / f"{name}.parquet")
    return paths


def kept(paths: list[Path], scratch: Path, **asked: Any) -> list[list[bool]]:
    found = list(first_occurrences(paths, scratch=scratch, **asked))
    assert [path for path, _ in found] == paths
    return [mask.tolist() for _, mask in found]


def by_a_set(shards: list[list[Any]]) -> list[list[bool]]:
    seen: set[Any] = set()
    masks = []
    for shard in shards:
        masks.append([not (value in seen or seen.add(value)) for value in shard])  # type: ignore[func-returns-value]
    return masks


def test_the_first_in_the_order_of_shards_is_kept(tmp_path: Path) -> None:
    one, two = written(tmp_path, {"one": ["A.", "b", "a", "c"], "two": ["B!", "d", "D", "a"]})

    assert kept([one, two], tmp_path / "s") == [[True, True, False, True], [False, True, False, False]]
    assert kept([two, one], tmp_path / "s") == [[True, True, False, True], [False, False, False, True]]


values = st.one_of(st.integers(-3, 3), st.sampled_from([2**63 - 1, -(2**63), 0]), st.integers(-(2**63), 2**63 - 1))


@settings(max_examples=60, deadline=None)
@given(shards=st.lists(st.lists(values, max_size=40), min_size=1, max_size=6), sorted_rows=st.integers(1, 20))
def test_rows_kept_are_those_of_a_set_however_little_is_sorted_and_compared_at_once(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[int]], sorted_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    paths = written(folder, {str(number): shard for number, shard in enumerate(shards)}, "hash")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(duplicates, "_plan", lambda *_: duplicates._Plan(sorted_rows, 5))
        assert kept(paths, folder / "s", column="hash") == by_a_set(shards)


def test_many_ranges_of_many_shards_are_those_of_a_set(tmp_path: Path) -> None:
    """Hashes of all sizes: half of them small numbers, so that ranges of equal width would hold all or nothing."""
    chance = np.random.default_rng(1)
    shards = [
        np.where(
            chance.random(20_000) < 0.5, chance.integers(0, 60_000, 20_000), chance.integers(-(2**62), 2**62, 20_000)
        )
        for _ in range(30)
    ]
    paths = written(tmp_path, {f"{number:02d}": shard for number, shard in enumerate(shards)}, "hash")

    found = [mask for _, mask in first_occurrences(paths, scratch=tmp_path / "s", column="hash", memory_gb=0.02)]

    assert np.array_equal(np.concatenate(found), pl.Series(np.concatenate(shards)).is_first_distinct().to_numpy())


def test_ranges_hold_about_as_many_as_was_planned(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    paths = written(tmp_path, {str(n): chance.integers(0, 2**63 - 1, 50_000) >> n for n in range(6)}, "hash")
    list(first_occurrences(paths, scratch=tmp_path / "s", column="hash"))
    segments = [segment for run in sorted((tmp_path / "s").iterdir()) for segment in duplicates._Run(run).segments]

    sizes = np.diff(duplicates._cuts(segments, 10_000), axis=0).sum(axis=1)

    assert sizes.sum() == 300_000 and len(sizes) == 30 and sizes.max() < 12_000


# --- what changes -----------------------------------------------------------------------------------------------------


def files(scratch: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in scratch.iterdir()}


def test_a_new_shard_costs_its_own_rows_only(tmp_path: Path) -> None:
    one, two, three = written(tmp_path, {"one": ["a", "b"], "two": ["c", "a"], "three": ["c", "e"]})
    kept([one, three], tmp_path / "s")
    before = files(tmp_path / "s")

    assert kept([one, two, three], tmp_path / "s") == [[True, True], [True, False], [False, True]]

    after = files(tmp_path / "s")
    assert before.items() <= after.items() and len(after) == 3


def test_a_removed_shard_gives_back_what_it_held_first_and_leaves_nothing(tmp_path: Path) -> None:
    one, two = written(tmp_path, {"one": ["a", "b"], "two": ["b", "c"]})
    assert kept([one, two], tmp_path / "s")[1] == [False, True]
    one.unlink()

    assert kept([two], tmp_path / "s") == [[True, True]]
    assert len(files(tmp_path / "s")) == 1


def test_a_shard_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    one, two = written(tmp_path, {"one": ["a", "b"], "two": ["b", "c"]})
    kept([one, two], tmp_path / "s")
    written(tmp_path, {"one": ["a", "c"]})
    os.utime(one, ns=(1, 1))

    assert kept([one, two], tmp_path / "s")[1] == [True, False]


def test_a_version_tells_that_a_shard_is_the_same_wherever_times_went(tmp_path: Path) -> None:
    (one,) = written(tmp_path, {"one": ["a", "a"]})
    list(first_occurrences([SentenceShard(one, "v1")], scratch=tmp_path / "s"))
    before = files(tmp_path / "s")
    os.utime(one, ns=(1, 1))
    list(first_occurrences([SentenceShard(one, "v1")], scratch=tmp_path / "s"))
    assert files(tmp_path / "s") == before
    list(first_occurrences([SentenceShard(one, "v2")], scratch=tmp_path / "s"))
    assert not files(tmp_path / "s").items() & before.items()


def test_equal_shards_have_equal_runs(tmp_path: Path) -> None:
    """Whatever is sorted at once, since only sizes depend on it here."""
    (one,) = written(tmp_path, {"one": [f"sentence {number % 50}" for number in range(200)]})
    for name in ("s", "t"):
        kept([one], tmp_path / name)
    (left,), (right,) = (tmp_path / "s").iterdir(), (tmp_path / "t").iterdir()
    assert left.name == right.name and left.read_bytes() == right.read_bytes()


KILLED = """
import sys
from pathlib import Path
from speech_mining.text.duplicates import first_occurrences
folder = Path(sys.argv[1])
def told(done, total):
    print(done, flush=True)
list(first_occurrences(sorted(folder.glob("*.parquet")), scratch=folder / "s", column="hash", progress=told))
"""


def test_a_killed_process_is_gone_on_from_where_it_was(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    shards = [chance.integers(0, 300_000, 30_000) for _ in range(40)]
    paths = written(tmp_path, {f"{number:02d}": shard for number, shard in enumerate(shards)}, "hash")
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 5:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    finished = {name: facts for name, facts in files(tmp_path / "s").items() if name.endswith(".run")}
    assert 5 <= len(finished) < 40

    found = kept(paths, tmp_path / "s", column="hash")

    assert found == by_a_set([shard.tolist() for shard in shards])
    assert finished.items() <= files(tmp_path / "s").items() and len(files(tmp_path / "s")) == 40


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    (one,) = written(tmp_path, {"one": ["a"]})
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".0123.run.abc.part").write_bytes(b"half")
    (tmp_path / "s" / "notes.txt").write_text("somebody's")

    kept([one], tmp_path / "s")

    assert sorted(path.suffix for path in (tmp_path / "s").iterdir()) == [".run", ".txt"]


# --- limits and faults ------------------------------------------------------------------------------------------------

LIMITED = """
import json, resource, sys
from pathlib import Path
import numpy as np, polars as pl, pyarrow.parquet
from speech_mining.text.duplicates import first_occurrences, sentence_hash
from speech_mining.text import sentence_kernels
folder, memory_gb = Path(sys.argv[1]), float(sys.argv[2])
first = pl.DataFrame({"hash": [1, 1]})
first.write_parquet(folder / "first.parquet")
list(first_occurrences([folder / "first.parquet"], scratch=folder / "t", column="hash"))
def peak():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM"].split()[0]) * 1024
before = peak()
shards = sorted(folder.glob("[0-9]*.parquet"))
masks = first_occurrences(shards, scratch=folder / "s", column="hash", memory_gb=memory_gb)
kept = sum(int(mask.sum()) for _, mask in masks)
print(json.dumps({"grown": peak() - before, "kept": kept}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell memory")
def test_memory_is_what_was_asked_for_however_many_rows_there_are(tmp_path: Path) -> None:
    """3 million hashes are 24 MB, and sorting them at once would take 120; a batch that is read takes some 20."""
    chance = np.random.default_rng(4)
    shards = {str(number): chance.integers(0, 2**40, 1_500_000) for number in range(2)}
    for name, shard in shards.items():
        pl.DataFrame({"hash": shard}).write_parquet(tmp_path / f"{name}.parquet", row_group_size=100_000)

    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), "0.03"], capture_output=True, text=True, check=True
    )

    told = json.loads(ran.stdout)
    assert told["kept"] == len(np.unique(np.concatenate(list(shards.values()))))
    assert told["grown"] < 80e6


def test_too_little_memory_is_told_with_what_would_do(tmp_path: Path) -> None:
    (one,) = written(tmp_path, {"one": ["a"]})
    with pytest.raises(SettingsError, match=r"may take 0\.001 GB\. Expected: at least 0\.015 GB"):
        first_occurrences([one], scratch=tmp_path / "s", memory_gb=0.001)


def test_bits_of_all_rows_must_fit() -> None:
    segments = [duplicates._Segment(Path("none"), 0, 10**9, 0)]
    with pytest.raises(SettingsError, match=r"1000000000 sentences may take 0\.1 GB\. Expected: at least 0\.138 GB"):
        duplicates._repeats(segments, duplicates._Plan(1, 1), 0.1)


def test_a_shard_named_twice_is_refused(tmp_path: Path) -> None:
    (one,) = written(tmp_path, {"one": ["a"]})
    with pytest.raises(SettingsError, match="is named twice"):
        first_occurrences([one, one], scratch=tmp_path / "s")


def test_columns_that_are_no_sentences_are_refused(tmp_path: Path) -> None:
    (one,) = written(tmp_path, {"one": ["a"]})
    pl.DataFrame({"text": [1.5]}).write_parquet(tmp_path / "two.parquet")
    with pytest.raises(SettingsError, match=r"no column line\. Expected: strings or 64-bit integers in one of text"):
        first_occurrences([one], scratch=tmp_path / "s", column="line")
    with pytest.raises(SettingsError, match="has the column text of double"):
        first_occurrences([tmp_path / "two.parquet"], scratch=tmp_path / "s")


def test_shards_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (one,) = written(tmp_path, {"one": ["a"] * 1000})
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(one.read_bytes()[:-20])
    pl.DataFrame({"text": ["a", None]}).write_parquet(tmp_path / "null.parquet")
    for path, message in (
        (cut, r"cut\.parquet cannot be read"),
        (tmp_path / "none.parquet", r"none\.parquet cannot be read \(No such file"),
        (tmp_path / "null.parquet", r"null\.parquet has rows without text"),
    ):
        with pytest.raises(LakeError, match=message):
            first_occurrences([path], scratch=tmp_path / "s")
    assert not (tmp_path / "s").exists() or list((tmp_path / "s").iterdir()) == []


def test_no_shards_and_empty_shards_have_no_rows(tmp_path: Path) -> None:
    one, two = written(tmp_path, {"one": [], "two": ["a"]})
    assert kept([], tmp_path / "s") == []
    assert kept([one, two], tmp_path / "s") == [[], [True]]


def test_progress_tells_the_shards_read(tmp_path: Path) -> None:
    paths = written(tmp_path, {"one": ["a"], "two": ["b"]})
    told: list[tuple[int, int]] = []
    first_occurrences(paths, scratch=tmp_path / "s", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
