"""Keeping a lake in order: what is damaged, behind or left over, how it is mended, and what may go.

Walk it as the lake is walked: `places` (what lies where) → `partitions` (is each what was written) → `lineage` (was
each made of what is there now) → `verification` (all of it, and the repairs); `collection` is what nothing refers to.
"""
