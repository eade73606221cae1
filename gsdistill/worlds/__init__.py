"""Closed worlds: each of their prompts names an object whose true pictures and surface are known. One package each."""

INTERFACE = "World"
NOT_LISTED = ("truth_cache",)
