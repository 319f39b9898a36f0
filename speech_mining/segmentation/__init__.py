"""Segments: voice activity, silences, and every candidate span between two silences."""
