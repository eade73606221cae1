"""Closed worlds of prompts whose truth is known: what a prompt shows, from every side."""
