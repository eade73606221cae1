"""Sweeps: run methods x prompts x seeds, measure each result, against the truth if it is known, and compare them."""
