"""Text as it should not be, on real files and through the assets: an error that says what to do, or a counted drop."""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import fsspec
import pytest

from resources.settings import load_settings
from s2s_assets.definitions import build
from speech_mining.corpora.manifest import read_corpus
from speech_mining.errors import SettingsError
from speech_mining.lake import Lake
from speech_mining.text.readers import ShardError, list_shards
from speech_mining.text.shard import clean_shard, write_clean_shard
from tests.s3_server import new_bucket, s3_server
from tests.test_text_assets import FIRST, SECOND, _speech

GERMAN = "Der König ging über die Brücke.\nEr sah den Wald und das Haus am Wege.\n"


class Platform:
    """Shards of English text (or of another language), and the assets over them; speech only where it is asked for."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, language: str = "eng", **text: Any) -> None:
        self.instance, self.language = instance, language
        self.shards = folder / "shards"
        self.shards.mkdir(exist_ok=True)
        self.settings = load_settings(
            home=folder / "home",
            languages="deu",
            speech_pairs="",
            text={"shards": {language: [str(self.shards)]}, **text},
            text_encoder="miniature",
            catalogue_url="https://librivox.org",
        )
        self.lake = Lake(self.settings.lake_url)
        self.job = build(self.settings).resolve_implicit_global_asset_job_def()

    def write(self, name: str, content: bytes | list[str]) -> Path:
        path = self.shards / name
        path.write_bytes(content if isinstance(content, bytes) else "".join(f"{line}\n" for line in content).encode())
        return path

    def make(self, layer: str, *partitions: str) -> tuple[bool, str]:
        """Materialize a layer in one run, and tell whether all went well and what was said of what did not."""
        key = [layer] if layer == "text_shards" or layer.startswith("s2t") else [self.language, layer]
        tags = {
            "dagster/asset_partition_range_start": partitions[0],
            "dagster/asset_partition_range_end": partitions[-1],
        } if len(partitions) > 1 else {}  # fmt: skip
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(key)],
            partition_key=partitions[0] if len(partitions) == 1 else None,
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        return result.success, "\n".join(_told(event) for event in result.all_events if event.is_step_failure)

    def names(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions(f"text_shards_{self.language}"))

    def shard(self, file: str) -> str:
        return next(name for name in self.names() if name.startswith(file.partition(".")[0]))

    def cleaned(self, file: str) -> Mapping[str, int]:
        """What became of the sentences of a shard."""
        partition = self.lake.partition("text_sentences", self.language, self.shard(file))
        dropped = dict(partition.read_frame("dropped.parquet").select("reason", "sentences").iter_rows())
        return {"kept": partition.read_frame("sentences.parquet").height, **dropped}

    def version(self, file: str) -> str:
        return self.lake.partition("text_sentences", self.language, self.shard(file)).data_version


def _told(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    told = [str(data.user_failure_data.description)] if data.user_failure_data else []
    told += [str(value.value) for value in (data.user_failure_data.metadata.values() if data.user_failure_data else ())]
    error = data.error
    while error is not None:
        told.append(error.message)
        error = error.cause
    return "\n".join(told)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def platform(tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    return Platform(tmp_path, instance, cleaning={"least_boilerplate_sentences": 1000})


# --- bytes that are no text -------------------------------------------------------------------------------------------


def _picture() -> bytes:
    """A PNG of noise, as a folder of downloads may hold among its texts."""
    rows = b"".join(b"\0" + hashlib.shake_256(bytes([row])).digest(3 * 64) for row in range(64))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        (_picture(), {"malformed", "invalid_utf8"}),
        (Path(sys.executable).resolve().read_bytes()[:400_000], {"malformed"}),
        (GERMAN.encode("utf-16-le"), {"malformed"}),
        (GERMAN.encode("utf-32-be"), {"malformed"}),
        (gzip.compress(GERMAN.encode("utf-16-be")), {"malformed"}),
    ],
    ids=["picture", "program", "utf-16", "utf-32", "packed utf-16"],
)
def test_of_what_is_no_text_nothing_is_kept_and_every_line_is_counted(
    tmp_path: Path, content: bytes, reasons: set[str]
) -> None:
    path = tmp_path / "shard.txt"
    path.write_bytes(content)
    (shard,) = list_shards(str(path), "deu")
    counts = clean_shard(shard).counts
    assert counts["kept"] == 0 and reasons <= set(counts) and sum(counts.values()) > 0


def test_text_in_an_old_encoding_loses_the_sentences_that_cannot_be_read_and_counts_them(tmp_path: Path) -> None:
    for encoding in ("latin-1", "cp1252"):
        path = tmp_path / f"{encoding}.txt"
        path.write_bytes(GERMAN.encode(encoding))
        result = clean_shard(list_shards(str(path), "deu")[0])
        assert result.counts == {"kept": 1, "invalid_utf8": 1}
        assert result.sentences["text"].to_list() == [GERMAN.splitlines()[1]]
        assert result.dropped["line"].to_list() == [1]


def test_lines_with_nul_bytes_keep_step_with_their_meta_file(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"Er sah den Wald und das Haus.\n\0\0\0\nSie ging nach Hause und schlief.\n")
    (tmp_path / "s.meta").write_text("one\ntwo\nthree\n")
    (shard,) = list_shards(str(tmp_path / "s.txt"), "deu", format="lines", meta=str(tmp_path / "s.meta"))
    assert clean_shard(shard).sentences["document"].to_list() == ["one", "three"]


# --- shards of a run --------------------------------------------------------------------------------------------------


def test_bad_shards_fail_alone_in_a_batch_and_say_what_to_do(platform: Platform) -> None:
    good = {"a.txt": FIRST, "g.txt": SECOND}
    for name, lines in good.items():
        platform.write(name, lines)
    platform.write("b.txt", b"\xff\xfe" + "\n".join(FIRST).encode("utf-16-le"))
    platform.write("c.txt", FIRST[:5])
    platform.write("d.txt", FIRST[5:9])
    platform.write("e.parquet", b"PAR1 and nothing more of a table PAR1")
    platform.write("f.txt", b"The king saw the forest.\n" + b"x" * (9 << 20) + b"\nThe fox went home.\n")
    assert platform.make("text_shards")[0]
    platform.write("c.txt", FIRST[:4])
    (platform.shards / "d.txt").unlink()
    names = platform.names()
    done, told = platform.make("text_sentences", *names)
    assert not done and f"4 of {len(names)} shards failed" in told
    made = platform.instance.get_materialized_partitions(dg.AssetKey(["eng", "text_sentences"]))
    assert made == {platform.shard(name) for name in (*good, "f.txt")}
    assert {name: platform.cleaned(name)["kept"] for name in good} == {name: len(good[name]) for name in good}
    assert platform.cleaned("f.txt") == {"kept": 2, "too_long_line": 1}
    for found in (
        r"b.txt is UTF-16. Expected: UTF-8.",
        r"c.txt has changed since it was listed",
        r"d.txt is gone since it was listed",
        r"e.parquet",
        r"Fix: list the shards again (materialize text_shards)",
    ):
        assert found in told


def test_a_shard_that_changed_leaves_the_old_partition_until_it_is_listed_again(platform: Platform) -> None:
    platform.write("a.txt", FIRST)
    platform.make("text_shards")
    platform.make("text_sentences", platform.shard("a.txt"))
    before = platform.version("a.txt")
    platform.write("a.txt", SECOND)
    assert platform.make("text_sentences", platform.shard("a.txt"))[0] is False
    assert platform.version("a.txt") == before
    platform.make("text_shards")
    assert platform.make("text_sentences", platform.shard("a.txt"))[0]
    assert platform.cleaned("a.txt")["kept"] == len(SECOND) and platform.version("a.txt") != before


class Server:
    """One file over HTTP with an ETag; once armed, it is another file after the next time it is read."""

    def __init__(self, body: bytes) -> None:
        self.body, self.next = body, b""
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._head()

            def do_GET(self) -> None:
                self._head()
                self.wfile.write(served.body)
                if served.next:
                    served.body, served.next = served.next, b""

            def _head(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(served.body)))
                self.send_header("Content-Type", "text/plain")
                self.send_header("ETag", f'"{hashlib.sha256(served.body).hexdigest()[:8]}"')
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/s.txt"


@contextmanager
def serving(body: bytes) -> Iterator[Server]:
    server = Server(body)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()


def test_a_shard_whose_etag_changes_while_it_is_read_is_not_published(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    first, second, third = ("".join(f"{line}\n" for line in lines).encode() for lines in (FIRST, SECOND, FIRST[:9]))
    with serving(first) as server:
        platform = Platform(tmp_path, instance, shards={"eng": [server.url]})
        assert platform.make("text_shards")[0]
        assert platform.make("text_sentences", platform.shard("s.txt"))[0]
        before = platform.version("s.txt")
        server.body = second
        assert platform.make("text_shards")[0]
        server.next = third
        done, told = platform.make("text_sentences", platform.shard("s.txt"))
        assert not done and "s.txt has changed while it was read" in told and "list the shards again" in told
        assert platform.version("s.txt") == before
        assert platform.make("text_shards")[0] and platform.make("text_sentences", platform.shard("s.txt"))[0]
        assert platform.cleaned("s.txt")["kept"] == 9


def test_a_file_that_is_written_to_while_it_is_read_is_not_published(tmp_path: Path) -> None:
    path, out = tmp_path / "s.txt", tmp_path / "s.parquet"
    path.write_text("Er sah den Wald und das Haus am Wege.\n" * 60_000)  # 2 MB: progress is told every MiB
    (shard,) = list_shards(str(path), "deu")
    out.write_bytes(b"old")

    def append(done: int, total: int) -> None:
        with path.open("a") as file:
            file.write("Noch ein Satz, der später kam.\n")

    with pytest.raises(ShardError, match=r"s\.txt has changed while it was read.*something writes to it.*list the sh"):
        write_clean_shard(shard, out=out, progress=append)
    assert out.read_bytes() == b"old" and sorted(tmp_path.iterdir()) == [out, path]


def test_an_object_store_is_asked_anew_though_its_listing_was_remembered(tmp_path: Path) -> None:
    with s3_server() as url:
        folder = new_bucket(url)
        _put(f"{folder}/s.txt", GERMAN)
        (shard,) = list_shards(f"{folder}/*.txt", "deu")
        _put(f"{folder}/s.txt", GERMAN.upper())
        (again,) = list_shards(f"{folder}/*.txt", "deu")
        assert again.name == shard.name and again.version != shard.version
        assert clean_shard(again).sentences["text"][0] == "DER KÖNIG GING ÜBER DIE BRÜCKE."
        list_shards(f"{folder}/*.txt", "deu")
        _put(f"{folder}/s.txt", GERMAN)
        with pytest.raises(ShardError, match="has changed since it was listed"):
            clean_shard(again)


def _put(address: str, content: str) -> None:
    """Write an object as another process does: nothing that this one remembers is told."""
    system, path = fsspec.core.url_to_fs(address, skip_instance_cache=True)
    system.pipe_file(path, content.encode())


# --- empty shards -----------------------------------------------------------------------------------------------------


def test_empty_shards_are_partitions_of_no_sentence_all_the_way_to_a_corpus(platform: Platform, tmp_path: Path) -> None:
    _speech(platform.lake)
    empty = {"a.txt": b"", "b.txt": b"\n \n\n", "c.txt.gz": gzip.compress(b""), "d.jsonl": b""}
    for name, content in empty.items():
        platform.write(name, content)
    _take_in(platform)
    assert [platform.cleaned(name) for name in empty] == [{"kept": 0}] * 4
    _mine(platform)
    assert read_corpus(platform.lake.partition("s2t_corpus", "deu-eng")).is_empty()
    platform.write("e.txt", FIRST)
    _take_in(platform)
    _mine(platform)
    assert read_corpus(platform.lake.partition("s2t_corpus", "deu-eng")).height > 0.8 * len(FIRST)


def _take_in(platform: Platform) -> None:
    assert platform.make("text_shards")[0]
    for layer, partitions in (
        ("text_sentences", platform.names()),
        ("text_duplicates", ["eng"]),
        ("text_embeddings", platform.names()),
        ("text_index", ["eng"]),
    ):
        assert platform.make(layer, *partitions) == (True, "")


def _mine(platform: Platform) -> None:
    for layer in ("s2t_neighbours", "s2t_pairs", "s2t_corpus"):
        assert platform.make(layer, "deu-eng") == (True, "")


# --- meta files -------------------------------------------------------------------------------------------------------


def test_a_meta_file_that_does_not_fit_fails_its_shard_alone_and_the_others_name_their_documents(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    metas = tmp_path / "metas"
    metas.mkdir()
    folder = str(tmp_path / "shards")
    platform = Platform(tmp_path, instance, shards={"eng": [folder]}, meta={"eng": [str(metas)]}, format="lines")
    for name, lines in (("a.txt", FIRST), ("b.txt", SECOND)):
        platform.write(name, lines)
        (metas / name).write_text("".join(f"page {number}\n" for number in range(len(lines))))
    (metas / "b.txt").write_text("page 0\npage 1\n")
    assert platform.make("text_shards")[0]
    done, told = platform.make("text_sentences", *platform.names())
    assert not done and "1 of 2 shards failed" in told and "has no line 3" in told and "make the two again" in told
    sentences = platform.lake.partition("text_sentences", "eng", platform.shard("a.txt")).read_frame(
        "sentences.parquet"
    )
    assert sentences["document"].to_list() == [f"page {number}" for number in range(len(FIRST))]
    before = platform.version("a.txt")
    (metas / "a.txt").write_text("".join(f"leaf {number}\n" for number in range(len(FIRST))))
    done, told = platform.make("text_sentences", platform.shard("a.txt"))
    assert not done and "a.txt has changed since it was listed" in told and platform.version("a.txt") == before
    (metas / "b.txt").unlink()
    done, told = platform.make("text_shards")
    assert not done and "has 2 shards" in told and "1 meta files" in told


def test_meta_files_are_as_many_as_the_addresses_they_belong_to(tmp_path: Path) -> None:
    text = {"shards": {"eng": ["a", "b"]}, "meta": {"eng": ["a.meta"]}}
    with pytest.raises(SettingsError, match="meta of eng has 1 addresses, and shards has 2"):
        load_settings(home=tmp_path, text=text)


# --- languages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("xyz", "text.shards is wrong.*'xyz' is no language of ISO 639-3"),
        ("zxx", "'zxx' is no language of ISO 639-3"),
        ("ger", "'ger' is a code for libraries; in ISO 639-3 it is 'deu'"),
        ("de", "text.shards.de"),
    ],
)
def test_a_language_that_iso_does_not_know_is_refused_when_settings_are_read(
    tmp_path: Path, language: str, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings(home=tmp_path, text={"shards": {language: ["a"]}})


def test_every_language_of_two_letters_has_its_code_of_three(tmp_path: Path) -> None:
    from langcodes.data_dicts import LANGUAGE_ALPHA3

    shards = {code: ["a"] for code in LANGUAGE_ALPHA3.values()}
    assert set(load_settings(home=tmp_path, text={"shards": shards}).text_languages) == set(shards)


def test_a_language_that_the_encoder_does_not_know_is_cleaned_and_refused_with_those_it_knows(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    platform = Platform(tmp_path, instance, "ita")
    platform.write("a.txt", ["Il re vide la foresta e la casa sulla strada."])
    assert platform.make("text_shards")[0] and platform.make("text_sentences", *platform.names())[0]
    assert platform.cleaned("a.txt")["kept"] == 1
    done, told = platform.make("text_embeddings", *platform.names())
    assert not done and "does not know the language ita" in told and "deu, eng, fra, spa" in told
    assert "in text_encoders" in told and platform.lake.find("text_embeddings", "ita", platform.names()[0]) is None


@pytest.mark.parametrize(("keep", "counts"), [(True, {"kept": 1}), (False, {"kept": 0, "language_unknown": 1})])
def test_a_language_that_cannot_be_identified_is_kept_or_counted_as_unknown(
    tmp_path: Path, instance: dg.DagsterInstance, keep: bool, counts: dict[str, int]
) -> None:
    platform = Platform(tmp_path, instance, "gsw", cleaning={"keep_unknown_language": keep})
    platform.write("a.txt", ["De Chünig isch dur de Wald gloffe und het es Huus gseh."])
    assert platform.make("text_shards")[0] and platform.make("text_sentences", *platform.names())[0]
    assert platform.cleaned("a.txt") == counts


# --- settings of cleaning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cleaning", "told"),
    [
        ({"least_wrds": 3}, "there is no least_wrds in least_characters, .*least_boilerplate_sentences"),
        ({"least_words": "many"}, "least_words is 'many': Input should be a valid integer"),
        ({"least_words": 7, "most_words": 3}, "7 to 3 words"),
        ({"most_digit_share": 1.5}, "most_digit_share is 1.5"),
    ],
)
def test_bounds_of_cleaning_that_cannot_be_are_refused_when_settings_are_read(
    tmp_path: Path, cleaning: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError, match=f"text.cleaning is wrong.*{told}"):
        load_settings(home=tmp_path, text={"cleaning": cleaning})


def test_bounds_of_cleaning_in_the_environment_are_of_their_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2S_TEXT__CLEANING__LEAST_WORDS", "3")
    monkeypatch.setenv("S2S_TEXT__CLEANING__DROP_MARKUP", "false")
    cleaning = load_settings(home=tmp_path).text.cleaning
    assert cleaning == {"least_words": 3, "drop_markup": False} and cleaning["drop_markup"] is False
