"""Worlds with an exact prior, one per file; the file name is the world's name."""

INTERFACE = "World"
