"""The s2s command, one command a module."""
