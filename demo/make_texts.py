"""Make the texts of the miniature library: `python -m demo.make_texts` writes `demo/library/text/` and their truth.

Packing and writing belong here, and the truth, which needs nothing but `sentences.parquet` beside the texts: no
synthesiser. What is written is `demo.world.texts`, how it is laid out `demo.world.pages`. The same versions of zlib,
pyarrow and polars write the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import polars as pl

from demo.make_library import LIBRARY
from demo.world.grammar import realise
from demo.world.lexicon import LANGUAGES, Language
from demo.world.pages import Layout, Page, layout
from demo.world.texts import counts, translated, written
from speech_mining.atomic import replacing
from speech_mining.evaluation.text_truth import TEXT_TRUTH

TEXT = "text"
"""Folder of the library that holds a folder of shards a language."""
TRUTH = "text_truth.parquet"
_MADE_WITH = "made_with.json"
_DATE = "2026-01-01T00:00:00Z"
_FINISH = b"\r\n\r\n"


def make(library: Path, sentences: pl.DataFrame) -> None:
    """Write shards and truth into a library.

    Args:
        library: the folder.
        sentences: `demo.make_library.SENTENCES`: what is narrated, and when.
    """
    for language in LANGUAGES:
        told = layout(language)
        for name, pack in SHARDS.items():
            _write(library / TEXT / language / name, pack(told))
    _write(library / TEXT / _MADE_WITH, (json.dumps(made_with(), indent=1) + "\n").encode())
    with replacing(library / TRUTH) as part:
        truth(sentences).write_parquet(part, compression_level=19)


def made_with() -> dict[str, str]:
    """The versions that decide the bytes of the texts."""
    packages = {package: version(package) for package in ("polars", "pyarrow")}
    return {**packages, "zlib": zlib.ZLIB_RUNTIME_VERSION}


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(content)


# Shards


def sentence_lines(told: Layout) -> bytes:
    """A sentence a line, gzip."""
    return _gzip(b"".join(line + b"\n" for line in told.lines))


def json_lines(told: Layout) -> bytes:
    """A page a line, with some of the keys that CCNet writes, Zstandard."""
    import pyarrow as pa

    records = (json.dumps(_record(page), ensure_ascii=False) for page in told.pages)
    lines = "".join(record + "\n" for record in records).encode()
    packed: bytes = pa.Codec("zstd", compression_level=19).compress(lines, asbytes=True)
    return packed


def _record(page: Page) -> dict[str, object]:
    content = "\n".join(page.lines)
    return {
        "url": page.url,
        "date_download": _DATE,
        "digest": _sha1(content.encode()),
        "length": len(content),
        "nlines": len(page.lines),
        "source_domain": page.url.split("/")[2],
        "title": page.lines[0],
        "raw_content": content,
        "language": page.language,
    }


def paragraphs(told: Layout) -> bytes:
    """A paragraph a line, as it is."""
    return "".join(line + "\n" for line in told.tales).encode()


def wet(told: Layout) -> bytes:
    """Records as Common Crawl writes them: one of the archive, then a `conversion` a page, each a member of gzip."""
    about = b"Software-Info: demo.make_texts\r\nisPartOf: miniature library\r\n"
    head = _warc_record({"WARC-Type": "warcinfo", "Content-Type": "application/warc-fields"}, about)
    return b"".join(_gzip(record) for record in (head, *map(_conversion, told.crawl)))


def _conversion(page: Page) -> bytes:
    content = "".join(line + "\n" for line in page.lines).encode()
    headers = {
        "WARC-Type": "conversion",
        "WARC-Target-URI": page.url,
        "WARC-Identified-Content-Language": page.language,
        "Content-Type": "text/plain",
    }
    return _warc_record(headers, content)


def _warc_record(headers: Mapping[str, str], content: bytes) -> bytes:
    all_headers = {
        **headers,
        "WARC-Date": _DATE,
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, _sha1(content))}>",
        "WARC-Block-Digest": "sha1:" + _sha1(content),
        "Content-Length": str(len(content)),
    }
    lines = ["WARC/1.0", *(f"{name}: {value}" for name, value in all_headers.items())]
    return "\r\n".join(lines).encode() + _FINISH + content + _FINISH


def _sha1(content: bytes) -> str:
    """SHA-1 in base 32, as web archives write it."""
    return base64.b32encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()


def _gzip(content: bytes) -> bytes:
    """One member of gzip without a time; `gzip.compress` would write another header in Python 3.10 than in 3.11."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


SHARDS: Mapping[str, Callable[[Layout], bytes]] = {
    "sentences.txt.gz": sentence_lines,
    "pages.jsonl.zst": json_lines,
    "tales.txt": paragraphs,
    "crawl.warc.wet.gz": wet,
}
"""File names in a language's folder, and what packs each."""


# The truth


def truth(sentences: pl.DataFrame) -> pl.DataFrame:
    """Pair each narrated sentence with its text in each language that has one: columns `TEXT_TRUTH`.

    The boilerplate of LibriVox has no key, and no text.
    """
    narrated = sentences.filter(pl.col("sentence") != "")
    pairs = [narrated.join(_texts(language), on="sentence") for language in LANGUAGES]
    told = pl.concat(pairs).with_columns(
        language_pair=pl.concat_str("language", "text_language", separator="-"), spoken="text", text="written"
    )
    ordered = told.sort("language_pair", "audiobook", "section", "start_ms")
    return ordered.select(pl.col(name).cast(dtype) for name, dtype in TEXT_TRUTH.items())


def _texts(language: Language) -> pl.DataFrame:
    told = translated(language)
    return pl.DataFrame(
        {
            "sentence": [one.key for one in told],
            "written": [realise(one.sentence, language) for one in told],
            "text_language": [language] * len(told),
        }
    )


def _figures(library: Path) -> Iterator[str]:
    """The made texts in figures, a line each."""
    for language in LANGUAGES:
        shards = [(name, (library / TEXT / language / name).stat().st_size) for name in SHARDS]
        sizes = ", ".join(f"{name} {size / 1000:.1f} kB" for name, size in shards)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts(written(language)).items())
        yield f"{language}: {sizes}; {kinds}"
    size = sum(path.stat().st_size for path in (library / TEXT).rglob("*") if path.is_file())
    yield f"{size / 1000:.0f} kB in all"
    pairs = pl.read_parquet(library / TRUTH).group_by("language_pair").len().sort("language_pair")
    yield from (f"{pair}: {count} spoken sentences with a text" for pair, count in pairs.iter_rows())


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the texts and print their figures."""
    parser = argparse.ArgumentParser(description="Make the texts of the miniature library again.")
    parser.add_argument("--to", type=Path, default=LIBRARY, help="the library to write into (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    make(chosen.to, pl.read_parquet(LIBRARY / "sentences.parquet"))
    print("\n".join(_figures(chosen.to)))


if __name__ == "__main__":
    main()
