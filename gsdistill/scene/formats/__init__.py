"""Readers of splat formats, one file each; a format's constants stand with its reader, and its writer imports them."""
