"""Typed settings: reads them from YAML, flags and mappings, writes them, and finds the classes that they name."""
