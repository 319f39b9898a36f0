"""Audio in: decoding of any container, packet by packet."""
