"""From one configuration of stopes: its own steps and `s2s mine` on the same embedding shards, and files for both."""

from __future__ import annotations

import csv
import gzip
import lzma
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from speech_mining.cli.app import main
from speech_mining.cli.matrices import Embeddings
from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn import both_directions, normalise
from speech_mining.mining.strategies import mine
from speech_mining.stopes.outputs import SUFFIX, Texts, only_backward, write_alignments, write_bitext
from speech_mining.stopes.shards import RawForm, find_shards, open_shard, open_shards

STOPES = Path(os.environ.get("S2S_STOPES_PYTHON", ""))
with_stopes = pytest.mark.skipif(
    not STOPES.is_file(), reason="no stopes: set S2S_STOPES_PYTHON to a Python that imports stopes 2.2.1"
)
DIMENSION, K = 32, 8
ROUNDING = 2e-6

CONFIG = """
src_lang: deu_Latn
tgt_lang: eng_Latn
data_dir: {folder}
mine_threshold: 1.04
index_type: IVF1,Flat
data:
  data_version: V1
  shard_glob: ${{data_dir}}/text.{{lang}}.*.xz
  meta_glob: ${{data_dir}}/meta.{{lang}}.*.gz
lang_configs:
  deu_Latn:
    embed_text: &sonar
      encoder: {{_target_: stopes.modules.preprocess.sonar_sentence_encoder.SonarTextEncoder, _name: basic}}
    existing_embedding_glob: ${{data_dir}}/emb/encf.*.deu_Latn
  eng_Latn:
    embed_text: *sonar
    existing_embedding_glob: ${{data_dir}}/emb/encf.*.eng_Latn
calculate_distances:
  config: {{knn: 8, batch_size: 64, save_dists_as_fp16: false}}
mine_indexes:
  config:
    src_k: 8
    tgt_k: 8
    k_extract: 1
    margin_type: {margin}
    margin_norm: mean
    mine_type: {strategy}
    sort_neighbors: {by_margin}
    mine_threshold: {threshold}
mine_sentences:
  config:
    mine_threshold: {threshold}
    score_max: 100
    dedup_bitexts: true
"""

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `s2s …` in a folder of its own; what it prints, or its error."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["s2s", *words])
        with pytest.raises(SystemExit) as exited:
            main()
        said = capsys.readouterr()
        assert int(exited.value.code or 0) == code, said.err
        return " ".join(said.err.split()) if code else said.out

    return command


def sides() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Translations of half of the rows, not normalised; row 299 of the target repeats its row 0."""
    chance = np.random.default_rng(7)
    source, target = (chance.standard_normal((count, DIMENSION)).astype(np.float32) + 0.5 for count in (250, 300))
    target[:125] = 1.5 * source[:125] + np.geomspace(0.2, 2, 125, dtype=np.float32)[:, None] * target[:125]
    target[299] = target[0]
    return source, target


def laid(folder: Path, **how: Any) -> Path:
    """Shards, texts and metadata as stopes has them, and its configuration; the shard of number 2 is short."""
    (folder / "emb").mkdir()
    for name, rows in zip(("deu_Latn", "eng_Latn"), sides(), strict=True):
        for number, part in enumerate(np.split(rows, [100, 240])):
            with (folder / "emb" / f"encf.{number:03d}.{name}").open("wb") as file:
                np.save(file, part)
        words = [said(name, row) for row in range(len(rows))]
        for number, lines in enumerate((words[:7], words[7:])):
            with lzma.open(folder / f"text.{name}.{number:03d}.xz", "wt", encoding="utf-8") as text:
                text.writelines(f"{line}\n" for line in lines)
            with gzip.open(folder / f"meta.{name}.{number:03d}.gz", "wt", encoding="utf-8") as meta:
                meta.writelines(f"document of {line.split()[1]}\n" for line in lines)
    asked = {"margin": "ratio", "strategy": "union", "by_margin": "false", "threshold": "${mine_threshold}", **how}
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, **asked))
    return folder / "config.yaml"


def mined_as_imported(run: Run, config: Path) -> list[str]:
    """Import the configuration, and do what it prints; the words of `s2s mine`."""
    (command,) = [line for line in run("import-stopes", str(config)).splitlines() if line.startswith("# s2s mine")]
    words = shlex.split(command)[2:]
    run(*words)
    return words


def table(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


# --- the same as stopes -----------------------------------------------------------------------------------------------


@with_stopes
@pytest.mark.parametrize(
    ("margin", "strategy", "by_margin", "threshold", "times"),
    [
        ("ratio", "union", "false", "${mine_threshold}", 1),
        ("ratio", "forward", "true", "1.1", 1),
        ("distance", "backward", "false", "0.2", 2),
    ],
)
def test_one_configuration_gives_the_same_pairs_scores_and_texts_in_both(
    run: Run, tmp_path: Path, margin: str, strategy: str, by_margin: str, threshold: str, times: int
) -> None:
    config = laid(tmp_path, margin=margin, strategy=strategy, by_margin=by_margin, threshold=threshold)
    mined_as_imported(run, config)
    peer = [STOPES, Path(__file__).with_name("peer_stopes_pipeline.py"), config, tmp_path]
    subprocess.run([*peer, tmp_path / f"deu_Latn-eng_Latn{SUFFIX}"], check=True, capture_output=True)

    ours, theirs = (
        dict(zip(zip(npz["src_idx"], npz["trg_idx"], strict=True), npz["scores"], strict=True))
        for npz in (np.load(tmp_path / f"{name}{SUFFIX}") for name in ("deu_Latn-eng_Latn", "theirs"))
    )
    assert ours.keys() == theirs.keys() and len(ours) > 60
    for pair, score in theirs.items():
        assert score == pytest.approx(times * ours[pair], abs=ROUNDING)
    if times == 1:
        texts = {tuple(line[1:]): float(line[0]) for line in table(tmp_path / "deu_Latn-eng_Latn.bitext.tsv.gz")}
        their_texts = {tuple(line[1:]): float(line[0]) for line in table(tmp_path / "theirs.bitext.tsv.gz")}
        assert texts == pytest.approx(their_texts, abs=ROUNDING)
        for kind in ("bitext", "bimeta"):  # what its last stage makes of our alignments is what we wrote, to the byte
            ours_unpacked, read = (
                gzip.decompress((tmp_path / f"{name}.{kind}.tsv.gz").read_bytes())
                for name in ("deu_Latn-eng_Latn", "read")
            )
            assert sorted(ours_unpacked.splitlines()) == sorted(read.splitlines()) and ours_unpacked


# --- shards in place --------------------------------------------------------------------------------------------------


def test_shards_are_used_where_they_lie_and_give_what_one_matrix_gives(run: Run, tmp_path: Path) -> None:
    laid(tmp_path)
    for name, rows in zip(("src", "tgt"), sides(), strict=True):
        np.save(tmp_path / f"{name}.npy", rows)

    run("mine", "emb/encf.*.deu_Latn", "emb/encf.*.eng_Latn", "--out", "shards.tsv")
    run("mine", "src.npy", "tgt.npy", "--out", "whole.tsv")

    assert (tmp_path / "shards.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes() != b""
    stack = open_shards(find_shards(str(tmp_path / "emb" / "encf.*.deu_Latn")))
    assert [len(block) for block in stack.blocks] == [100, 140, 10]
    assert all(isinstance(block, np.memmap) for block in stack.blocks)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("with_header", [True, False])
def test_values_without_a_header_are_read_by_the_one_beside_them_or_as_told(
    tmp_path: Path, dtype: str, with_header: bool
) -> None:
    rows = sides()[0].astype(dtype)
    rows.tofile(tmp_path / "old.000.npy")
    if with_header:
        with (tmp_path / "old.000.hdr").open("wb") as file:
            told = {"descr": rows.dtype.str, "fortran_order": False, "shape": rows.shape}
            np.lib.format.write_array_header_1_0(file, told)

    matrix = Embeddings(tmp_path / "old.*", None if with_header else RawForm(DIMENSION, dtype)).matrix

    np.testing.assert_array_equal(matrix, rows)
    assert isinstance(matrix, np.memmap) and matrix.dtype == dtype


def test_the_command_takes_values_without_a_header(run: Run, tmp_path: Path) -> None:
    for name, rows in zip(("src", "tgt"), sides(), strict=True):
        np.save(tmp_path / f"{name}.npy", rows.astype(np.float16))
        rows.astype(np.float16).tofile(tmp_path / f"{name}.raw")

    run("mine", "src.npy", "tgt.npy", "--out", "npy.tsv")
    run("mine", "src.raw", "tgt.raw", "--dimension", str(DIMENSION), "--dtype", "float16", "--out", "raw.tsv")

    assert (tmp_path / "raw.tsv").read_bytes() == (tmp_path / "npy.tsv").read_bytes() != b""
    said = run("mine", "src.raw", "tgt.raw", "--out", "p.tsv", code=2)
    assert "src.raw is not a .npy file" in said and "--dimension 1024 --dtype float32" in said
    said = run("mine", "src.raw", "tgt.raw", "--dimension", "33", "--out", "p.tsv", code=2)
    assert "has 16000 bytes, which are not whole rows of 33 float32" in said


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["encf.010.x", "encf.002.x", "encf.000.x"], ["encf.000.x", "encf.002.x", "encf.010.x"]),
        (["b.000.x", "a.001.x"], ["b.000.x", "a.001.x"]),
        (["s10", "s9", "s1"], ["s1", "s9", "s10"]),
        (["s.1.npy", "s.1.hdr", ".s.2.npy"], ["s.1.npy"]),
    ],
)
def test_shards_come_in_the_order_in_which_stopes_counts_rows(
    tmp_path: Path, names: list[str], expected: list[str]
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in find_shards(str(tmp_path / "*"))] == expected


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a[1].npy", np.ones((2, 3), np.float32))
    assert Embeddings(tmp_path / "a[1].npy").matrix.shape == (2, 3)


def test_shards_that_are_none_are_refused(tmp_path: Path) -> None:
    np.ones(7, np.float32).tofile(tmp_path / "odd.raw")
    np.ones(6, np.float32).tofile(tmp_path / "short.raw")
    with (tmp_path / "short.hdr").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (3, 3)})
    np.save(tmp_path / "wide.npy", np.ones((2, 4), np.float32))
    np.save(tmp_path / "narrow.npy", np.ones((2, 3), np.float32))
    with pytest.raises(EmbeddingError, match="has 28 bytes, which are not whole rows of 3 float32"):
        open_shard(tmp_path / "odd.raw", RawForm(3))
    with pytest.raises(EmbeddingError, match="has 24 bytes, which are not 3 rows of 3 float32"):
        open_shard(tmp_path / "short.raw")
    with pytest.raises(EmbeddingError, match=r"narrow\.npy is float32 with rows of 3 values, wide\.npy float32"):
        open_shards([tmp_path / "wide.npy", tmp_path / "narrow.npy"])
    with pytest.raises(EmbeddingError, match=r"No file matches .*none"):
        find_shards(str(tmp_path / "none*"))
    for dimension, dtype in ((0, "float32"), (4, "int8")):
        with pytest.raises(EmbeddingError, match="Values without a header are said to be"):
            RawForm(dimension, dtype)


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_the_three_files_hold_the_pairs_with_their_texts(run: Run, tmp_path: Path) -> None:
    laid(tmp_path)
    shards = ("emb/encf.*.deu_Latn", "emb/encf.*.eng_Latn")
    texts = ("--source-text", "text.deu_Latn.*.xz", "--target-text", "text.eng_Latn.*.xz")
    metas = ("--source-meta", "meta.deu_Latn.*.gz", "--target-meta", "meta.eng_Latn.*.gz")
    run("mine", *shards, "--strategy", "union", "--out", "pairs.tsv")
    run("mine", *shards, "--strategy", "union", "--out", f"pairs{SUFFIX}", *texts, *metas)

    pairs = pl.read_csv("pairs.tsv", separator="\t", has_header=False, new_columns=["score", "source", "target"])
    with np.load(f"pairs{SUFFIX}") as found:
        assert sorted(found) == ["bwd_pos", "scores", "src_idx", "trg_idx"]
        assert [found[name].dtype for name in ("scores", "src_idx", "trg_idx")] == [np.float32, np.uint32, np.uint32]
        assert found["src_idx"].tolist() == pairs["source"].to_list()
        assert found["trg_idx"].tolist() == pairs["target"].to_list()
        assert found["scores"].tolist() == pairs["score"].cast(pl.Float32).to_list()
        backward = set(found["bwd_pos"].tolist())
    bitext, bimeta = table(Path("pairs.bitext.tsv.gz")), table(Path("pairs.bimeta.tsv.gz"))
    first: dict[tuple[str, str], int] = {}
    for place, (source, target) in enumerate(zip(pairs["source"], pairs["target"], strict=True)):
        first.setdefault((said("deu_Latn", source), said("eng_Latn", target)), place)
    assert [tuple(line[1:]) for line in bitext] == list(first) and len(first) < len(pairs)
    assert [line[0] for line in bitext] == [str(np.float32(pairs["score"][place])) for place in first.values()]
    assert [line[3] for line in bimeta] == ["bwd" if place in backward else "fwd" for place in first.values()]
    assert 0 < len(backward) < len(pairs)
    assert bimeta[0][1:3] == [f"document of {text.split()[1]}" for text in bitext[0][1:]]
    assert gzip.decompress(Path("pairs.bitext.tsv.gz").read_bytes()).endswith(b"\r\n")


def said(name: str, row: int) -> str:
    """The text of a row; 299 says what 0 says, some have quotes and tabs."""
    return f'{name} "{row}"\tsays' if row % 3 and row != 299 else f"{name} {row % 299}"


def test_a_pair_that_only_the_target_row_chose_is_backward() -> None:
    """By hand: target 0 is nearest to both sources, and target 1 takes source 0, which does not take it."""
    source = normalise(np.array([[1, 0, 0], [0.8, 0.6, 0]], np.float32))
    target = normalise(np.array([[1, 0.1, 0], [0.6, 0, 0.8]], np.float32))
    found = both_directions(source, target, 2)
    mined = mine(found, strategy="union", best="nearest", threshold=-9)
    backward = only_backward(mined, found, margin="ratio", best="nearest")
    told = dict(zip(zip(mined.source.tolist(), mined.target.tolist(), strict=True), backward.tolist(), strict=True))
    assert told == {(0, 0): False, (1, 0): False, (0, 1): True}


def test_the_same_pairs_are_the_same_bytes(tmp_path: Path) -> None:
    found = both_directions(*map(normalise, sides()), K)
    mined = mine(found)
    backward = only_backward(mined, found, margin="ratio", best="margin")
    for count, name in ((250, "s"), (300, "t")):
        (tmp_path / name).write_text("".join(f"{row}\n" for row in range(count)))
    texts = Texts((tmp_path / "s",), (tmp_path / "t",))
    for folder in ("one", "two"):
        write_alignments(mined, backward, tmp_path / folder / f"p{SUFFIX}")
        told = write_bitext(mined, backward, texts, (250, 300), tmp_path / folder / "p")
    assert told == {"written": len(mined.score), "repeated": 0}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert len(list((tmp_path / "one").iterdir())) == 3
    assert (tmp_path / "one" / "p.bitext.tsv.gz").read_bytes()[4:8] == bytes(4)  # no time of writing


def test_texts_that_do_not_belong_to_the_rows_are_refused(run: Run, tmp_path: Path) -> None:
    laid(tmp_path)
    shards = ("emb/encf.*.deu_Latn", "emb/encf.*.eng_Latn")
    some = ("--source-text", "text.deu_Latn.000.xz", "--target-text", "text.eng_Latn.*.xz")
    whole = ("--source-text", "text.deu_Latn.*.xz", "--target-text", "text.eng_Latn.*.xz")
    (tmp_path / "bad.gz").write_bytes(b"no gzip")
    for words, message in (
        ((*some, "--out", f"p{SUFFIX}"), "text.deu_Latn.000.xz have 7 lines in all. Expected: 250, one for each row"),
        ((*whole, "--out", "p.tsv"), "Texts are given, and pairs go to p.tsv"),
        ((*whole[:2], "--out", f"p{SUFFIX}"), "Texts of one side only"),
        ((*whole, "--source-meta", "meta*", "--out", f"p{SUFFIX}"), "Metadata of one side only"),
        (("--source-text", "bad.gz", *whole[2:], "--out", f"p{SUFFIX}"), "bad.gz cannot be read"),
    ):
        assert message in run("mine", *shards, *words, code=2)
    assert not list(tmp_path.glob("p*"))


def test_rows_that_32_bits_do_not_number_are_refused(tmp_path: Path) -> None:
    found = both_directions(*map(normalise, sides()), K)
    mined = mine(found)
    mined.target[0] = 1 << 32
    with pytest.raises(EmbeddingError, match="Row 4294967296 was mined"):
        write_alignments(mined, np.zeros(len(mined.score), np.bool_), tmp_path / "p.npz")
    with pytest.raises(SettingsError, match="Texts of one side only"):
        Texts((), (tmp_path / "t",))
