"""What is mined with what: speech with speech, speech with text, text with speech, text with text.

A kind is a pair of modalities and the names that follow from it. The search, the scores and the selection are the same
for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from speech_mining.knn.roll import LAYOUTS, Layout
from speech_mining.records import ITEM, Modality, Schema, pairs_schema


@dataclass(frozen=True)
class Kind:
    """A pair of modalities, source first.

    Args:
        name: what its layers begin with.
        source: modality of the source side.
        target: modality of the target side.
    """

    name: str
    source: Modality
    target: Modality

    @property
    def layouts(self) -> tuple[Layout, Layout]:
        """Where the vectors of the two sides lie."""
        return LAYOUTS[self.source], LAYOUTS[self.target]

    @property
    def source_item(self) -> str:
        """What stands on the source side: segment or sentence."""
        return ITEM[self.source]

    @property
    def target_item(self) -> str:
        """What stands on the target side."""
        return ITEM[self.target]

    @property
    def pairs(self) -> Schema:
        """Columns of its pairs."""
        return pairs_schema(self.source, self.target)

    @property
    def spoken(self) -> tuple[str, ...]:
        """The sides that are speech: of those hours can be told."""
        sides = {"source": self.source, "target": self.target}
        return tuple(side for side, modality in sides.items() if modality == "speech")

    @property
    def group(self) -> str:
        """Such as `speech_to_text`."""
        return f"{self.source}_to_{self.target}"

    def layer(self, name: str) -> str:
        """One of its layers: `neighbours` of speech with text is `s2t_neighbours`."""
        return f"{self.name}_{name}"


SPEECH_TO_SPEECH = Kind("s2s", "speech", "speech")
SPEECH_TO_TEXT = Kind("s2t", "speech", "text")
TEXT_TO_SPEECH = Kind("t2s", "text", "speech")
TEXT_TO_TEXT = Kind("t2t", "text", "text")
KINDS = (SPEECH_TO_SPEECH, SPEECH_TO_TEXT, TEXT_TO_SPEECH, TEXT_TO_TEXT)
