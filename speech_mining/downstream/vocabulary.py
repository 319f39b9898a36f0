"""The pieces of words that a translation is written in, learned from a run's own training text.

Byte-pair encoding (Sennrich et al. 2016) by `tokenizers`: the base's model knows no word that only mined text has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speech_mining.errors import EncoderError

FILE = "tokenizer.json"
PAD, BEGIN, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = (PAD, BEGIN, END, UNKNOWN)


class Vocabulary:
    """Words to numbers and back."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        ids = [tokenizer.token_to_id(token) for token in SPECIAL]
        if None in ids:
            raise EncoderError(
                f"The vocabulary lacks {SPECIAL[ids.index(None)]}.", expected=f"the tokens {', '.join(SPECIAL)}"
            )
        self.pad, self.begin, self.end, self.unknown = ids

    @classmethod
    def learned(cls, texts: Sequence[str], size: int) -> Vocabulary:
        """Learn pieces from texts; the same texts give the same pieces."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
        with _one_thread():
            tokenizer.train_from_iterator(sorted(texts), trainer)
        return cls(tokenizer)

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote, or any `tokenizer.json` with these special tokens.

        Raises:
            EncoderError: it is damaged, or has other special tokens.
        """
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_file(str(path)))
        except EncoderError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise EncoderError(f"{path} cannot be read: {error}.", expected="a tokenizer.json") from error

    def save(self, path: Path) -> None:
        """Write it down."""
        path.write_text(self._tokenizer.to_str(), "utf-8")

    @property
    def size(self) -> int:
        """How many pieces there are."""
        return int(self._tokenizer.get_vocab_size())

    def numbers(self, text: str, longest: int) -> list[int]:
        """The pieces of a text, cut after `longest`, and the end."""
        return [*self._tokenizer.encode(text, add_special_tokens=False).ids[:longest], self.end]

    def text(self, numbers: Sequence[int]) -> str:
        """The text of pieces, up to the first end after the start."""
        return str(self._tokenizer.decode(list(numbers), skip_special_tokens=True)).strip()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Count pairs in one thread: the order of equally frequent ones must not depend on a race."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
