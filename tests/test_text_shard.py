from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from speech_mining.records import conform
from speech_mining.text import shard as shard_module
from speech_mining.text.readers import Shard, list_shards, open_shard
from speech_mining.text.sentences import SENTENCES, sentence_id
from speech_mining.text.shard import DROPPED, CleanShard, clean_shard, write_clean_shard
from speech_mining.text.tidying import tidied
from tests.gold_sentences import gold


def paragraphs(count: int, seed: int = 0) -> list[str]:
    """German paragraphs with English, menus and entities among them."""
    rng = random.Random(seed)
    german = [sentence for paragraph in gold()["deu"] for sentence in paragraph]
    other = ["Home | About | Contact", "This is an English sentence, you know.", "Tee &amp; Kaffee, sagte er.", "<br/>"]
    return [" ".join(rng.choice(german + other) for _ in range(rng.randint(1, 6))) for _ in range(count)]


def shard_of(path: Path, content: bytes) -> Shard:
    path.write_bytes(content)
    return list_shards(str(path), "deu")[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shard, CleanShard]:
    path = tmp_path_factory.mktemp("text") / "s.jsonl.gz"
    lines = [json.dumps({"text": "\n".join(paragraphs(8, n)), "url": f"http://x/{n}"}) for n in range(60)]
    lines.insert(20, "{broken")
    shard = shard_of(path, gzip.compress("\n".join(lines).encode()))
    return shard, clean_shard(shard)


def test_the_tables_are_of_their_schemas_and_count_everything(made: tuple[Shard, CleanShard]) -> None:
    _, result = made
    conform(result.sentences, SENTENCES, "sentences")
    conform(result.dropped, DROPPED, "dropped")
    assert result.kept == len(result.sentences) > 500
    assert result.characters == int(result.sentences["text"].str.len_chars().sum())
    counts = result.counts
    assert counts["kept"] == result.kept and counts["malformed"] == 1
    assert {"other_language", "markup", "too_short"} & set(counts)
    example = result.dropped.row(by_predicate=pl.col("reason") == "malformed", named=True)
    assert example["line"] == 21 and "JSONDecodeError" in example["example"]


def test_a_row_leads_back_to_its_line(made: tuple[Shard, CleanShard]) -> None:
    shard, result = made
    source = {passage.line: passage for passage in open_shard(shard.address)}
    for row in result.sentences.sample(200, seed=0).iter_rows(named=True):
        passage = source[row["line"]]
        stands = passage.text[row["offset"] : row["offset"] + row["length"]]
        assert tidied(stands) == row["text"] and passage.document == row["document"]
        assert row["sentence_id"] == sentence_id(row["text"], "deu")


def test_what_is_written_is_what_is_read_into_memory_and_the_same_bytes_again(
    made: tuple[Shard, CleanShard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, result = made
    monkeypatch.setattr(shard_module, "_ROWS_AT_ONCE", 100)
    told: list[tuple[int, int]] = []
    written = write_clean_shard(shard, out=tmp_path / "a.parquet", progress=lambda *done: told.append(done))
    write_clean_shard(shard, out=tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pl.read_parquet(tmp_path / "a.parquet").equals(result.sentences)
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == -(-result.kept // 100)
    assert (written.kept, written.characters, len(written.sentences)) == (result.kept, result.characters, 0)
    assert written.dropped.equals(result.dropped)
    assert told[-1] == (shard.bytes, shard.bytes)


def test_a_shard_that_gives_nothing_is_an_empty_table(tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "s.txt", b"12345\n\n")
    result = write_clean_shard(shard, out=tmp_path / "o.parquet")
    assert result.counts == {"kept": 0, "too_short": 1}
    assert result.dropped.rows() == [("too_short", 1, 5, "12345", 1)]
    assert pl.read_parquet(tmp_path / "o.parquet").schema == dict(SENTENCES)


def test_a_damaged_shard_is_cleaned_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    packed = gzip.compress("\n".join(paragraphs(3000)).encode())
    counts = clean_shard(shard_of(tmp_path / "s.gz", packed[: len(packed) // 2])).counts
    assert counts["damaged"] == 1 and counts["kept"] > 1000


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    out.write_bytes(b"old")
    shard = shard_of(tmp_path / "s.txt", b"\xff\xfeutf-16")
    with pytest.raises(Exception, match="UTF-16"):
        write_clean_shard(shard, out=out)
    assert out.read_bytes() == b"old" and sorted(tmp_path.iterdir()) == [out, tmp_path / "s.txt"]


def test_the_language_of_a_shard_may_be_told_otherwise(tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "s.txt", b"This is an English sentence, you know.\n")
    assert clean_shard(shard).counts == {"kept": 0, "other_language": 1}
    assert clean_shard(shard, "eng").counts == {"kept": 1}


MEMORY = """
import resource, sys
from pathlib import Path
from speech_mining.text.readers import list_shards
from speech_mining.text.shard import write_clean_shard
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
small, big, out = sys.argv[1:]
write_clean_shard(list_shards(small, "deu")[0], out=Path(out))
before = peak()
counts = write_clean_shard(list_shards(big, "deu")[0], out=Path(out)).counts
print(counts["kept"], counts["document_language"], peak() - before)
"""


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    german = json.dumps({"text": "\n".join(paragraphs(20)), "language": "de"})
    other = json.dumps({"text": "An English page of many words. " * 600, "language": "en"})
    (tmp_path / "small.jsonl").write_text("\n".join([german] * 20))
    with gzip.open(tmp_path / "big.jsonl.gz", "wt", 1) as big:
        for _ in range(40):
            big.write("\n".join([german, *[other] * 100, ""]))
    paths = [str(tmp_path / name) for name in ("small.jsonl", "big.jsonl.gz", "out.parquet")]
    done = subprocess.run([sys.executable, "-c", MEMORY, *paths], capture_output=True, text=True, check=True)
    kept, dropped, grown_mib = map(int, done.stdout.split())
    assert kept > 1500 and dropped == 4_000
    assert grown_mib < 40, "72 MB of text"
