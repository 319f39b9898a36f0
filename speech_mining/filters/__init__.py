"""Judges of mined pairs that need nothing but the pairs' embeddings: BLASER 2.0-QE and MuTox.

They give scores; what a score costs a pair is told by limits (`filters.limits`), so that another limit scores nothing
again. Which pairs are mined is in `speech_mining.mining`, which of them overlap in `mining.selection`.
"""

from speech_mining.filters.blaser import BlaserQe
from speech_mining.filters.limits import FILTER_SCORES, Filtered, FilterLimits, with_scores, within_limits
from speech_mining.filters.mutox import Mutox

__all__ = ["FILTER_SCORES", "BlaserQe", "FilterLimits", "Filtered", "Mutox", "with_scores", "within_limits"]
