"""Margins, strategies, and the selection of pairs."""
