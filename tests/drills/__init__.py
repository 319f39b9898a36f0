"""Fault drills: what is killed, cut off or filled up, and the same lake afterwards.

`pytest -m drill` runs the short ones. `S2S_DRILLS=100` kills runs at a hundred seeded moments, and
`S2S_DRILLS_LIBRARY=miniature` over the whole miniature library; `S2S_DRILLS_REPORT=FILE` keeps where the kills fell.
"""
