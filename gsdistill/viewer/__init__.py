"""Splats in the browser: files and runs side by side, and a run while it optimises. Needs the extra ``viewer``."""
