"""Worlds whose density is known in closed form, so that their prior is exact; one per file, named after the file."""

INTERFACE = "AnalyticWorld"
