"""For those who come from stopes: its configurations read, its embedding shards used in place, its outputs written."""
