"""What people said of pairs: kept in the home, beside no lake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resources.settings import Settings

if TYPE_CHECKING:
    from speech_mining.listening.judgements import Judged


def judgements_path(settings: Settings, kind: str, pair: str) -> Path:
    """Where the judgements of a pair of languages are: in the home, for they outlive every lake."""
    return settings.home.absolute() / "judgements" / kind / f"{pair}.jsonl"


def known_judgements(settings: Settings) -> dict[tuple[str, str], Judged]:
    """Kind and pair → what people said, for all that is mined."""
    from speech_mining.listening.judgements import Journal
    from speech_mining.mining.kinds import KINDS

    mined = [(kind.name, pair) for kind in KINDS for pair in settings.pairs_of(kind.name)]
    return {(kind, pair): Journal(judgements_path(settings, kind, pair)).read() for kind, pair in mined}
