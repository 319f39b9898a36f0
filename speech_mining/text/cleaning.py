"""Passages cut into clean sentences; what is dropped has a reason. A stream, bounded in memory; no disk, no network.

Offsets and lengths count the characters (Unicode code points) of the passage as it was read, before anything was
cleaned: `passage.text[offset : offset + length]` is the sentence as it stands in its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from speech_mining.text.passages import Passage
from speech_mining.text.rules import FORM_REASONS, Cleaning, DropReason, Rules
from speech_mining.text.splitting import Span, sentence_spans
from speech_mining.text.tidying import tidied

__all__ = ["Cleaning", "DropReason", "Dropped", "Kept", "clean"]

Sentence: TypeAlias = "Kept | Dropped"

_CHARACTERS_AT_ONCE = 1 << 20
"""Passages are cleaned together until they hold so many: language identification works in batches."""
_ENDS_OF_SENTENCE = tuple(".!?…。！？।؟។։”»\"'’)")


@dataclass(frozen=True, slots=True)
class Kept:
    """A sentence that is fit to be mined."""

    text: str  # tidied
    document: str
    line: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """One that is not, or a whole passage (`document_language`)."""

    reason: DropReason
    text: str  # as read, or tidied where what came after the tidying dropped it
    document: str
    line: int
    offset: int
    length: int


def clean(passages: Iterable[Passage], language: str, config: Cleaning | None = None) -> Iterator[Sentence]:
    """Cut passages into sentences, tidy each and judge it; in the order of the source.

    Args:
        passages: as `open_shard` gives them.
        language: ISO 639-3 of what is wanted.
        config: the bounds.
    """
    config = config or Cleaning()
    rules = Rules(language, config)
    for batch in _batches(passages):
        judged = [_judged(passage, language, rules) for passage in batch]
        for document in _in_language(judged, language, config):
            yield from _without_boilerplate(document, config)


def _batches(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    batch: list[Passage] = []
    characters = 0
    for passage in passages:
        batch.append(passage)
        characters += len(passage.text)
        if characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _judged(passage: Passage, language: str, rules: Rules) -> list[Sentence]:
    text, config = passage.text, rules.config
    told = passage.language
    if config.trust_document_language and told is not None and told != language:
        return [_dropped("document_language", passage, 0, len(text))]
    found: list[Sentence] = []
    for first, last in _spans(passage, language):
        sentence = tidied(text[first:last], mend_encoding=config.mend_encoding)
        reason = rules.reason(sentence)
        if reason is None:
            found.append(Kept(sentence, passage.document, passage.line, first, last - first))
        else:
            found.append(_dropped(reason, passage, first, last))
    return found


def _spans(passage: Passage, language: str) -> list[Span]:
    if not passage.is_sentence:
        return sentence_spans(passage.text, language)
    bare = passage.text.strip()
    first = len(passage.text) - len(passage.text.lstrip())
    return [(first, first + len(bare))] if bare else []


def _dropped(reason: DropReason, passage: Passage, first: int, last: int) -> Dropped:
    return Dropped(reason, passage.text[first:last], passage.document, passage.line, first, last - first)


def _in_language(judged: list[list[Sentence]], language: str, config: Cleaning) -> list[list[Sentence]]:
    """The same with those dropped that are in another language, asked of the model together."""
    if not config.identify_language:
        return judged
    from speech_mining.text.language_id import in_language, is_known

    if not is_known(language):
        return judged if config.keep_unknown_language else [_all_dropped(found, "language_unknown") for found in judged]
    texts = [one.text for found in judged for one in found if isinstance(one, Kept)]
    right = iter(in_language(texts, language, config.least_language_share).tolist())
    return [
        [_instead(one, "other_language") if isinstance(one, Kept) and not next(right) else one for one in found]
        for found in judged
    ]


def _without_boilerplate(found: list[Sentence], config: Cleaning) -> list[Sentence]:
    """The document, with all of it dropped where little is left that is not menus and lists."""
    if len(found) < config.least_boilerplate_sentences:
        return found
    characters = sum(one.length for one in found)
    of_form = sum(one.length for one in found if isinstance(one, Dropped) and one.reason in FORM_REASONS)
    return _all_dropped(found, "boilerplate") if of_form > config.most_boilerplate_share * characters else found


def _all_dropped(found: list[Sentence], reason: DropReason) -> list[Sentence]:
    return [_instead(one, reason) if isinstance(one, Kept) else one for one in found]


def _instead(kept: Kept, reason: DropReason) -> Dropped:
    return Dropped(reason, kept.text, kept.document, kept.line, kept.offset, kept.length)
