"""Nearest neighbours: exact in both directions (`exact`), the table they make (`neighbours`), FAISS indexes (`index`).

Vectors come in as matrices; where they are stored is the caller's business.
"""

from __future__ import annotations

from speech_mining.knn.exact import both_directions
from speech_mining.knn.neighbours import Neighbours
from speech_mining.knn.vectors import normalise

__all__ = ["Neighbours", "both_directions", "normalise"]
