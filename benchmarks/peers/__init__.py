"""Peers from a checkout: `python -m benchmarks.peers` is `s2s bench`, `.install` makes the peers' environment."""
