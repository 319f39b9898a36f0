"""Retrieval and comparison with a known truth."""
