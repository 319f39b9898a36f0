"""The listening room without its door: what there is to hear, what was said of it, and what follows.

What belongs here turns the candidates and the file of judgements into what a page shows, as plain values, and a press
of a key into a line of the file. HTTP is in `server`, markup in `pages`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.lake import Lake
from speech_mining.listening.accuracy import (
    CONFIDENCE,
    LEAST_JUDGED,
    AtThreshold,
    accuracy_by_threshold,
    most_precise,
    suggested_threshold,
)
from speech_mining.listening.candidates import Candidates
from speech_mining.listening.charts import accuracy_chart
from speech_mining.listening.clips import Clips, Span, spans_of
from speech_mining.listening.judgements import (
    PARTLY,
    RIGHT,
    SAID,
    VERDICTS,
    WRONG,
    Journal,
    Judged,
    Judgement,
    JudgementError,
    strictest,
)
from speech_mining.listening.sampling import listening_order

Adopt = Callable[[float], str]
"""Puts a threshold into force, and tells what it did."""


@dataclass(frozen=True)
class Wish:
    """What the accuracy is held against."""

    precision: float = 0.9
    partly_counts: bool = False


@dataclass(frozen=True, eq=False)
class Room:
    """A pair of languages that a judge listens to."""

    candidates: Candidates
    journal: Journal
    judge: str
    lake: Lake
    seed: int = 0
    goal: int = 100
    adopt: Adopt | None = None
    now: Callable[[], datetime] = field(default=lambda: datetime.now(timezone.utc))

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """Rows of the candidates, as they are to be heard."""
        found = self.candidates
        return listening_order(found.scores, found.sources, found.targets, found.bands, self.seed)

    @cached_property
    def clips(self) -> Clips:
        """The segments that may be heard here, and no others."""
        found = self.candidates
        spans: dict[str, Span] = {}
        for side in found.kind.spoken:
            spans |= spans_of(found.frame, side)
        return Clips(self.lake, spans)

    def state(self, wish: Wish) -> dict[str, Any]:
        """Progress, accuracy and suggestion, as the page shows them."""
        judged = self.journal.read()
        curve = curve_of(self.candidates, judged, wish.partly_counts)
        found = suggested_threshold(curve, wish.precision)
        chart = accuracy_chart(
            curve,
            threshold=self.candidates.threshold,
            suggested=found.threshold if found else None,
            precision=wish.precision,
        )
        mine = self._mine(judged)
        return {
            "total": len(self.order),
            "goal": min(self.goal, len(self.order)),
            "done": sum(verdict in VERDICTS for verdict in mine.values()),
            "skipped": sum(verdict not in VERDICTS for verdict in mine.values()),
            "verdicts": verdict_counts(self.candidates, judged),
            "next": self._next_open(mine, -1),
            "chart": chart,
            "suggestion": told_suggestion(curve, wish),
            "suggested": found.threshold if found else None,
            "threshold": self.candidates.threshold,
            "adoptable": self.adopt is not None,
            "bad_lines": [{"line": bad.line, "why": bad.why} for bad in judged.bad],
            "file": str(self.journal.path),
        }

    def pair_at(self, position: int) -> dict[str, Any]:
        """The pair at a position of the listening order.

        Raises:
            JudgementError: there is none.
        """
        if not 0 <= position < len(self.order):
            raise JudgementError(f"There is no pair {position}.", expected=f"0 to {len(self.order) - 1}")
        row = int(self.order[position])
        told = self.candidates.frame.row(row, named=True)
        mine = self._mine(self.journal.read())
        return {
            "position": position,
            "score": round(told["score"], 4),
            "cosine": round(float(told["cosine"]), 4),
            "verdict": mine.get(self.candidates.pair_of[row]),
            "next": self._next_open(mine, position),
            "source": self._side(told, "source"),
            "target": self._side(told, "target"),
        }

    def say(self, source: str, target: str, verdict: str) -> dict[str, Any]:
        """Keep what the judge says of a pair; it is on the disk when this returns.

        Raises:
            JudgementError: there is no such pair or verdict, or the disk does not take it.
        """
        row = self.candidates.row_of.get((source, target))
        if row is None or verdict not in SAID:
            raise JudgementError(
                f"Nothing can be said with {verdict[:20]!r} of the pair {source[:20]} and {target[:20]}.",
                expected=f"one of {', '.join(SAID)}, of a pair of {self.candidates.language_pair}",
                cause="the pairs were mined again, and this page is of before",
                fix="start the listening room again",
            )
        self.journal.append(self._judgement(row, verdict))
        position = int(np.flatnonzero(self.order == row)[0])
        return {"position": position, "next": self._next_open(self._mine(self.journal.read()), position)}

    def _judgement(self, row: int, verdict: str) -> Judgement:
        found, (source, target) = self.candidates, self.candidates.pair_of[row]
        return Judgement(
            kind=found.kind.name,
            language_pair=found.language_pair,
            source=source,
            target=target,
            score=float(found.scores[row]),
            verdict=verdict,
            judge=self.judge,
            at=self.now().isoformat(timespec="seconds"),
            corpus=found.corpus,
            pairs=found.pairs,
        )

    def _mine(self, judged: Judged) -> dict[tuple[str, str], str]:
        """What this judge said last of each pair that is still there."""
        return {
            pair: by_judge[self.judge].verdict
            for pair, by_judge in judged.last.items()
            if self.judge in by_judge and pair in self.candidates.row_of
        }

    def _next_open(self, mine: Mapping[tuple[str, str], str], position: int) -> int | None:
        """The next position that this judge said nothing of, from the start again where none is left behind it."""
        places = chain(range(position + 1, len(self.order)), range(position + 1))
        return next((place for place in places if self.candidates.pair_of[int(self.order[place])] not in mine), None)

    def _side(self, told: Mapping[str, Any], side: str) -> dict[str, Any]:
        own = {name.removeprefix(f"{side}_"): value for name, value in told.items() if name.startswith(f"{side}_")}
        if "text" in own:
            place = f"{own['document']}, line {own['line']}"
            return {"id": str(own["sentence"]), "text": own["text"], "language": own["language"], "place": place}
        return {
            "id": str(own["segment"]),
            "language": own["language"],
            "title": own["title"],
            "section": own["section_title"],
            "readers": own["readers"],
            "url": own["url"],
            "start_ms": own["start_ms"],
            "end_ms": own["end_ms"],
        }


def verdicts_of(found: Candidates, judged: Judged) -> dict[int, str]:
    """Row of the candidates → the verdict that counts; pairs that are no candidates any more are left out."""
    rows = found.row_of
    strict = {rows[pair]: strictest(by_judge) for pair, by_judge in judged.last.items() if pair in rows}
    return {row: verdict for row, verdict in strict.items() if verdict is not None}


def verdict_counts(found: Candidates, judged: Judged) -> dict[str, int]:
    """How many pairs are right, partly right and wrong."""
    said = list(verdicts_of(found, judged).values())
    return {verdict: said.count(verdict) for verdict in (RIGHT, PARTLY, WRONG)}


def curve_of(found: Candidates, judged: Judged, partly_counts: bool = False) -> list[AtThreshold]:
    """Accuracy by threshold, of the judgements of the pairs that are there now."""
    verdicts = verdicts_of(found, judged)
    return accuracy_by_threshold(found.scores, verdicts, found.bands, partly_counts=partly_counts)


def told_suggestion(curve: list[AtThreshold], wish: Wish) -> str:
    """The suggestion in a sentence, with what stands behind it."""
    wanted = f"{wish.precision:.0%}"
    found = suggested_threshold(curve, wish.precision)
    if found and found.accuracy:
        sure = f"{found.accuracy.low:.0%} to {found.accuracy.high:.0%} at {CONFIDENCE:.0%} confidence"
        return (
            f"{found.threshold:.2f} is the lowest threshold that is sure enough to reach {wanted}: "
            f"{found.accuracy.share:.0%} right ({sure}), {found.judged} judged of {found.pairs} pairs."
        )
    best = most_precise(curve)
    if best and best.accuracy:
        return (
            f"No threshold is sure enough to reach {wanted} yet. The surest is {best.threshold:.2f}: at least "
            f"{best.accuracy.low:.0%}, by {best.judged} judgements. More judgements narrow it."
        )
    return f"Judge at least {LEAST_JUDGED} pairs, over all bands of scores; then a threshold can be suggested."
