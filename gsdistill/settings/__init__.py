"""Typed settings, from YAML, flags and mappings and back, and the names of classes that a setting can pick."""
