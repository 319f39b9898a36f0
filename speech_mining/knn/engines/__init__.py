"""Engines: each proposes candidates for every row, in both directions, by products whose error it can bound.

`protocol` says what an engine is. What is proposed is scored exactly in `settle`, so that all of them give the same
neighbours.
"""
