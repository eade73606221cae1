"""Closed worlds of prompts whose truth is known: what a prompt shows, from every side. One package each."""

INTERFACE = "World"
NOT_LISTED = ("truth_cache",)
