"""Documents of web archives: WET records as they are, and WARC's web pages made text. Records are read by warcio.

fastwarc is five times as fast, and was left: its version 2.0 tells nothing of an archive that is cut short, and
aborts on a stream that cannot seek.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from speech_mining.text.passages import Passage, language_told, whole
from speech_mining.text.streams import Tell, Unread, until_damage

_HTML = ("text/html", "application/xhtml")
_FOUND = ("", "200")


def documents(stream: io.BufferedReader, name: str, most_bytes: int, tell: Tell) -> Iterator[Passage]:
    """Each conversion record (WET), and each response that is a web page (WARC); `line` counts every record from 1.

    Of a web page the main content is taken, paragraph by paragraph, as resiliparse finds it: an offset counts the
    characters of that text, which another version of resiliparse may extract otherwise.
    """
    for number, (record, content) in enumerate(until_damage(_records(stream, most_bytes), tell), 1):
        if content is None:
            continue
        if len(content) > most_bytes:
            tell(Unread("too_long_line", number, len(content), f"more than {most_bytes} bytes"))
            continue
        page = record.rec_type == "response"
        text = _text_of_page(content, record) if page else content.decode("utf-8", "replace")
        if not text.strip():
            tell(Unread("malformed", number, len(content), "no text in the page"))
            continue
        headers = record.rec_headers
        document = headers.get_header("WARC-Target-URI") or headers.get_header("WARC-Record-ID") or name
        told = headers.get_header("WARC-Identified-Content-Language") or ""
        yield Passage(text, whole(document), number, language_told(told))


def _records(stream: io.BufferedReader, most_bytes: int) -> Iterator[tuple[Any, bytes | None]]:
    """(record, its content up to a byte more than allowed); None for what is neither a text nor a web page."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    try:
        for record in ArchiveIterator(stream):
            said = record.rec_headers.get_header("Content-Length") or ""
            if not said.isdecimal():
                raise EOFError("the headers of a record end before its length")
            if not _wanted(record):
                yield record, None
                continue
            content = record.content_stream().read(most_bytes + 1)
            if record.rec_type == "conversion" and len(content) < min(int(said), most_bytes):
                raise EOFError(f"a record of {said} bytes ends after {len(content)}")
            yield record, content
    except ArchiveLoadFailed as problem:
        raise ValueError(str(problem)) from problem


def _wanted(record: Any) -> bool:
    if record.rec_type != "response" or record.http_headers is None:
        return bool(record.rec_type == "conversion")
    kind = (record.http_headers.get_header("Content-Type") or "").lower()
    return kind.startswith(_HTML) and record.http_headers.get_statuscode() in _FOUND


def _text_of_page(content: bytes, record: Any) -> str:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    said = (record.http_headers.get_header("Content-Type") or "").lower().partition("charset=")[2].strip("\"' ;")
    html = bytes_to_str(content, said or detect_encoding(content, from_html_meta=True) or "utf-8", strip_bom=True)
    text: str = extract_plain_text(
        html, main_content=True, alt_texts=False, links=False, form_fields=False, list_bullets=False
    )
    return text
