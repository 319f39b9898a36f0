"""Encoders: speech or text in, unit vectors in one multilingual space out."""
