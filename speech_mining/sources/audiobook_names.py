"""Names of a user's folders, books and shards, made ids of audiobooks: pure.

An id names partitions and folders of the lake, so it is `records.AUDIOBOOK_ID`. LibriVox's ids are digits and need
nothing of this.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from speech_mining.records import AUDIOBOOK_ID

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_SLUG = 60


def audiobook_id(name: str) -> str:
    """The id of the book called `name`: the name where it fits, else what fits of it and 8 hex digits of its hash.

    It depends on the name alone. "Emma" stays "Emma"; "Die Räuber" becomes "Die-Rauber-" and its hash. A name that is
    composed of other code points and reads the same (as macOS writes them) has the same id.
    """
    return name if AUDIOBOOK_ID.fullmatch(name) else _slug_and_hash(name)


def ids_apart(books: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
    """Ids of books that may bring spans, which are told apart by id alone (`records.TIMESTAMPS`).

    Args:
        books: (language, name) of each.

    Returns:
        (language, name) -> id: of the name, and with the language after it ("tales.deu") where two languages have it.
    """
    known = sorted(set(books))
    names = Counter(id_ for _, id_ in {(language, audiobook_id(name)) for language, name in known})
    ids = {
        (language, name): audiobook_id(f"{name}.{language}" if names[audiobook_id(name)] > 1 else name)
        for language, name in known
    }
    taken = Counter(ids.values())  # "tales" of German may have become what another book is called
    return {book: _slug_and_hash("/".join(book)) if taken[id_] > 1 else id_ for book, id_ in ids.items()}


def _slug_and_hash(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    digest = hashlib.blake2b(composed.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = _UNFIT.sub("-", plain).strip("._-")[:_LONGEST_SLUG]
    return f"{slug or 'book'}-{digest}"
