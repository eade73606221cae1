"""Demonstrations of what the papers claim, one per file; the file name is the demonstration's name."""

INTERFACE = "Demonstration"
