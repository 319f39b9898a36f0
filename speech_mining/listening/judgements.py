"""What people said of pairs: one line of JSON a judgement, appended and synced before anybody is told it is kept.

What belongs here is the file of judgements: writing it so that a kill costs nothing that was acknowledged, and reading
it so that a hand's edit costs nothing either. What follows from judgements is in `accuracy`.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

from speech_mining.atomic import sync
from speech_mining.errors import SpeechMiningError
from speech_mining.limits import is_number

RIGHT, PARTLY, WRONG, SKIPPED, WITHDRAWN = "right", "partly", "wrong", "skipped", "withdrawn"
VERDICTS = (RIGHT, PARTLY, WRONG)
"""From best to worst: those that count."""
SAID = (*VERDICTS, SKIPPED, WITHDRAWN)
"""All that a line may say: a skipped pair was heard and not judged, a withdrawn judgement is as if never made."""
FORMAT = 1
MOST_JUDGE_LETTERS = 100
_TEXTS = ("kind", "language_pair", "source", "target", "verdict", "judge", "at", "corpus", "pairs")


class JudgementError(SpeechMiningError):
    """What is no judgement, or could not be kept."""


@dataclass(frozen=True)
class Judgement:
    """What a person said of a pair, and of what it was said."""

    kind: str
    """Such as s2s."""
    language_pair: str
    source: str
    """Id of the segment or sentence, in decimal: a browser's numbers would round it."""
    target: str
    score: float
    verdict: str
    """One of `SAID`."""
    judge: str
    at: str
    """ISO 8601, with its offset from UTC."""
    corpus: str
    """Data version of the corpus that was in force; empty where there was none."""
    pairs: str
    """Data version of the mined pairs."""
    format: int = FORMAT


@dataclass(frozen=True)
class BadLine:
    """A line that is no judgement; it stays in the file."""

    line: int
    """From 1."""
    why: str


@dataclass(frozen=True)
class Judged:
    """All that a file says."""

    lines: tuple[Judgement, ...] = ()
    """In the order in which they were said."""
    bad: tuple[BadLine, ...] = ()

    @property
    def last(self) -> dict[tuple[str, str], dict[str, Judgement]]:
        """(source, target) → judge → what they said last; skipped pairs are there, withdrawn judgements are not."""
        found: dict[tuple[str, str], dict[str, Judgement]] = {}
        for said in self.lines:
            by_judge = found.setdefault((said.source, said.target), {})
            by_judge.pop(said.judge, None)
            if said.verdict != WITHDRAWN:
                by_judge[said.judge] = said
        return {pair: by_judge for pair, by_judge in found.items() if by_judge}


def strictest(by_judge: dict[str, Judgement]) -> str | None:
    """The verdict that counts where several judged a pair: the worst of their last words; None where all skipped it."""
    said = [judgement.verdict for judgement in by_judge.values() if judgement.verdict in VERDICTS]
    return max(said, key=VERDICTS.index) if said else None


@dataclass
class Journal:
    """The file of judgements of a pair of languages; several processes may append to it at once."""

    path: Path
    mended: int = 0
    """Bytes of a torn last line that were set aside when a process wrote next."""
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def torn(self) -> Path:
        """Where the beginnings of lines lie that a kill cut off."""
        return self.path.with_name(f"{self.path.name}.torn")

    def append(self, said: Judgement) -> None:
        """Keep a judgement: when this returns it is on the disk.

        Raises:
            JudgementError: it is none, or the disk does not take it.
        """
        line = _line_of(said)
        try:
            with self._turn, self._alone() as file:
                self._mend(file)
                _written(file, line)
        except OSError as problem:
            raise JudgementError(
                f"The judgement was not kept: {problem.strerror or problem}.",
                expected=f"to append {len(line)} bytes to {self.path}",
                cause="the disk is full, or the folder may not be written",
                fix="make room, then judge the pair again: it is still on the screen",
            ) from problem

    def read(self) -> Judged:
        """All judgements and all lines that are none; nothing in the file is changed."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return Judged()
        whole, _, torn = content.rpartition(b"\n")
        lines, bad = _read_lines(whole.split(b"\n") if whole else [])
        if torn.strip():
            _read_torn(torn, len(whole.split(b"\n")) + 1 if whole else 1, lines, bad)
        return Judged(tuple(lines), tuple(bad))

    @contextmanager
    def _alone(self) -> Iterator[FileIO]:
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if new:
                sync(self.path.parent)
            yield file

    def _mend(self, file: FileIO) -> None:
        """End the last line where a kill, or an editor, left it open.

        A whole judgement gets the line break it lacks. The beginning of one was never acknowledged: it moves to a file
        of its own, so that nothing that was typed is lost.
        """
        torn, start = _open_end(file)
        if not torn:
            return
        try:
            _judgement(torn)
        except ValueError:
            with self.torn.open("ab", buffering=0) as aside:
                _written(aside, torn + b"\n")
            file.truncate(start)
            self.mended += len(torn)
        else:
            _written(file, b"\n")


def _line_of(said: Judgement) -> bytes:
    try:
        checked = _checked(asdict(said))
    except ValueError as problem:
        raise JudgementError(f"That is no judgement: {problem}.") from problem
    return (json.dumps(asdict(checked), ensure_ascii=False, sort_keys=True) + "\n").encode()


def _open_end(file: FileIO) -> tuple[bytes, int]:
    """What stands behind the last line break, and where it begins."""
    end = file.seek(0, os.SEEK_END)
    tail, start = b"", end
    while start and b"\n" not in tail:
        start = max(0, start - 65536)
        file.seek(start)
        tail = file.read(end - start)
    kept = tail.rpartition(b"\n")[2]
    return kept, end - len(kept)


def _written(file: FileIO, content: bytes) -> None:
    """Append and sync; what a full disk took of it is taken back, so that the next line begins on its own."""
    before = file.seek(0, os.SEEK_END)
    try:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(before)
        raise


def _read_lines(raw: list[bytes]) -> tuple[list[Judgement], list[BadLine]]:
    lines: list[Judgement] = []
    bad: list[BadLine] = []
    for number, content in enumerate(raw, start=1):
        if not content.strip():
            continue
        try:
            lines.append(_judgement(content))
        except ValueError as problem:
            bad.append(BadLine(number, str(problem)))
    return lines, bad


def _read_torn(torn: bytes, number: int, lines: list[Judgement], bad: list[BadLine]) -> None:
    try:
        lines.append(_judgement(torn))
    except ValueError:
        bad.append(BadLine(number, "the line breaks off: it was never acknowledged, and is set aside by the next one"))


def _judgement(content: bytes) -> Judgement:
    """Read a line.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        told = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(told, dict):
        raise ValueError("it is not an object")
    return _checked(told)


def _checked(told: dict[str, Any]) -> Judgement:
    strange = [name for name in _TEXTS if not isinstance(told.get(name), str)]
    if strange:
        raise ValueError(f"{strange[0]} is missing or no text")
    for name, right in (
        ("verdict", told["verdict"] in SAID),
        ("source", told["source"].isascii() and told["source"].isdigit()),
        ("target", told["target"].isascii() and told["target"].isdigit()),
        ("judge", 0 < len(told["judge"]) <= MOST_JUDGE_LETTERS),
        ("at", _is_time(told["at"])),
        ("score", is_number(told.get("score"))),
        ("format", told.get("format") == FORMAT),
    ):
        if not right:
            raise ValueError(f"{name} is {str(told.get(name))[:40]!r}, not {_EXPECTED[name]}")
    return Judgement(**{name: told[name] for name in _TEXTS}, score=float(told["score"]))


_EXPECTED = {
    "verdict": f"one of {', '.join(SAID)}",
    "source": "an id in decimal digits",
    "target": "an id in decimal digits",
    "judge": f"1 to {MOST_JUDGE_LETTERS} letters",
    "at": "a time such as 2026-01-31T12:00:00+00:00",
    "score": "a number",
    "format": str(FORMAT),
}


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False
