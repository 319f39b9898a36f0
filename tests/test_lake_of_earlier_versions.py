"""A lake that an earlier version wrote opens in this one, is in order, and is mined on: `tests.fixtures.make_lake`."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.mirror import serve_library
from speech_mining.lake import Lake
from speech_mining.quality.catalogue import TABLES, ask
from speech_mining.upkeep.verification import verify
from tests.fixtures.make_lake import mine
from tests.kept_lake import FIXTURES, unpack
from tests.tiny_library import make_library, settings_of

KEPT = sorted(FIXTURES.glob("lake_*.tar.xz"))
CORPORA = ("s2s_corpus", "s2t_corpus")


def test_a_lake_of_every_release_is_kept_and_small() -> None:
    assert [path.name for path in KEPT][:1] == ["lake_0_1_0.tar.xz"]
    assert all(path.stat().st_size < 300_000 for path in KEPT)


@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_it_opens_and_is_in_order(archive: Path, tmp_path: Path) -> None:
    lake = unpack(tmp_path, archive)
    verified = verify(lake)
    assert verified.findings == () and verified.partitions > 20
    for name in ("recordings", "segments", "neighbours", "pairs", "corpora"):
        assert name in TABLES and ask(lake, f"SELECT count(*) AS n FROM {name}")["n"].item() > 0


@pytest.mark.slow
@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_it_is_mined_on_and_gives_the_corpora_it_gave(archive: Path, tmp_path: Path) -> None:
    lake, library = unpack(tmp_path, archive), tmp_path / "library"
    before = {layer: lake.partition(layer, "deu-fra").read_frame("corpus.parquet") for layer in CORPORA}
    audio = lake.partition("raw_audio", "deu", "8001").data_version
    make_library(library)
    with serve_library(library) as mirror:
        mine(settings_of(tmp_path, library, mirror.url))
    after = Lake(tmp_path / "lake")
    assert after.partition("raw_audio", "deu", "8001").data_version == audio  # not fetched again
    for layer, corpus in before.items():
        told = [name for name in corpus.columns if not name.endswith(("_shard", "_roll", "_address", "_document"))]
        assert after.partition(layer, "deu-fra").read_frame("corpus.parquet").select(told).equals(corpus.select(told))
    # the text lies elsewhere now, and a new instance knows of no shard that could be gone: that is told, nothing else
    assert [finding.layer for finding in verify(after).findings] == ["text_sentences"]
