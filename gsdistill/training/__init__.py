"""Optimising a representation: the steps, their clock, and checkpoints."""
